//! Who subscribed to what: exact filters in one map, wildcards in a tree by level.

mod groups;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::mailbox::Mailbox;
use crate::model::message::Subscription;
use crate::mqtt::session::SubId;
use tree::Tree;

type Map<K, V> = HashMap<K, V, RandomState>;

/// One subscription of one session.
#[derive(Clone)]
struct Entry {
    to: Arc<Mailbox>,
    sub: SubId,
    share: Option<Share>,
}

/// A group of a shared filter. Whose turn it is, all publishers count together.
#[derive(Clone)]
struct Share {
    /// The whole shared filter: a group is one for each filter.
    name: Arc<str>,
    turn: Arc<AtomicUsize>,
}

/// The sessions that a topic's messages belong in.
#[derive(Default)]
pub(super) struct Targets {
    /// Each once, with all of its subscriptions that match.
    pub(super) each: Vec<Target>,
    /// One member of each group.
    pub(super) groups: Vec<Group>,
}

/// One session and its matching subscriptions.
pub(super) struct Target {
    pub(super) to: Arc<Mailbox>,
    pub(super) subs: Arc<[SubId]>,
}

/// The members of a shared subscription (MQTT 5, 4.8.2).
pub(super) struct Group {
    members: Vec<Target>,
    turn: Arc<AtomicUsize>,
}

impl Group {
    /// Whose turn it is; who is not connected only gets one where nobody is.
    pub(super) fn pick(&self) -> &Target {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let turn = |offset: usize| &self.members[(start + offset) % self.members.len()];
        (0..self.members.len())
            .map(turn)
            .find(|member| member.to.is_online())
            .unwrap_or_else(|| turn(0))
    }
}

#[derive(Default)]
struct Table {
    exact: Map<Box<str>, Vec<Entry>>,
    wild: Tree<Entry>,
    count: usize,
    /// The turns of shared filters, as long as somebody subscribes to them.
    turns: Map<Arc<str>, Arc<AtomicUsize>>,
}

/// Every subscription of this node.
#[derive(Default)]
pub(super) struct Routes {
    table: RwLock<Table>,
    /// Counts changes, so that what was looked up can be kept.
    generation: AtomicU64,
}

impl Routes {
    /// Adds a route; one that is there already is replaced.
    pub(super) fn add(&self, to: &Arc<Mailbox>, sub: SubId, subscription: &Subscription) {
        let mut table = self.table.write();
        let share = subscription
            .share
            .as_ref()
            .map(|_| table.share(subscription.full_filter().into()));
        let entry = Entry {
            to: Arc::clone(to),
            sub,
            share,
        };
        let entries = table.entries(subscription);
        match entries.iter_mut().find(|known| known.is(to, sub)) {
            Some(known) => *known = entry,
            None => {
                entries.push(entry);
                table.count += 1;
            }
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Removes a route.
    pub(super) fn remove(&self, to: &Arc<Mailbox>, sub: SubId, subscription: &Subscription) {
        let mut table = self.table.write();
        let entries = table.entries(subscription);
        let before = entries.len();
        entries.retain(|known| !known.is(to, sub));
        let (removed, empty) = (before - entries.len(), entries.is_empty());
        table.count -= removed;
        if empty {
            table.prune(subscription);
        }
        if subscription.share.is_some() {
            table.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes with every route. Read it before looking up.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How many subscriptions there are.
    pub(super) fn count(&self) -> usize {
        self.table.read().count
    }

    /// The sessions that messages to this topic belong in.
    pub(super) fn look_up(&self, topic: &str) -> Targets {
        let mut found = Vec::new();
        let table = self.table.read();
        found.extend(table.exact.get(topic).into_iter().flatten());
        table.wild.collect(topic, &mut found);
        Targets::group(&found)
    }
}

impl Table {
    fn share(&mut self, name: Arc<str>) -> Share {
        let turn = Arc::clone(self.turns.entry(Arc::clone(&name)).or_default());
        Share { name, turn }
    }

    /// Where the entries of this subscription's filter lie.
    fn entries(&mut self, subscription: &Subscription) -> &mut Vec<Entry> {
        let filter = &subscription.filter;
        match filter.is_exact() {
            true => self.exact.entry(filter.as_str().into()).or_default(),
            false => self.wild.entries(filter.as_str()),
        }
    }

    fn prune(&mut self, subscription: &Subscription) {
        match subscription.filter.is_exact() {
            true => drop(self.exact.remove(subscription.filter.as_str())),
            false => self.wild.prune(subscription.filter.as_str()),
        }
    }
}

impl Entry {
    fn is(&self, to: &Arc<Mailbox>, sub: SubId) -> bool {
        self.sub == sub && Arc::ptr_eq(&self.to, to)
    }
}

impl Targets {
    /// How many subscriptions there are in it, as a measure of its size.
    pub(super) fn count(&self) -> usize {
        let members = self.groups.iter().map(|group| group.members.len());
        self.each.iter().map(|target| target.subs.len()).chain(members).sum()
    }

    fn group(found: &[&Entry]) -> Self {
        let mut each: Vec<(&Arc<Mailbox>, Vec<SubId>)> = Vec::new();
        let mut at: Map<*const Mailbox, usize> = Map::default();
        let mut groups: Vec<(&Share, Vec<Target>)> = Vec::new();
        let mut group_at: Map<&str, usize> = Map::default();
        for entry in found {
            if let Some(share) = &entry.share {
                let member = Target {
                    to: Arc::clone(&entry.to),
                    subs: Arc::new([entry.sub]),
                };
                let index = *group_at.entry(&share.name).or_insert_with(|| {
                    groups.push((share, Vec::new()));
                    groups.len() - 1
                });
                groups[index].1.push(member);
                continue;
            }
            let index = *at.entry(Arc::as_ptr(&entry.to)).or_insert_with(|| {
                each.push((&entry.to, Vec::new()));
                each.len() - 1
            });
            each[index].1.push(entry.sub);
        }
        let each = each.into_iter().map(|(to, subs)| Target {
            to: Arc::clone(to),
            subs: subs.into(),
        });
        let groups = groups.into_iter().map(|(share, members)| Group {
            members,
            turn: Arc::clone(&share.turn),
        });
        Self {
            each: each.collect(),
            groups: groups.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::mailbox::Bounds;
    use crate::model::message::Qos;
    use crate::model::topic::Filter;

    pub(super) fn mailbox() -> Arc<Mailbox> {
        Arc::new(Mailbox::new(Bounds {
            messages_max: 10,
            bytes_max: 1000,
        }))
    }

    pub(super) fn to(filter: &str) -> Subscription {
        let (share, filter) = Filter::parse_subscription(filter).expect("a good filter");
        Subscription {
            share: share.map(Arc::from),
            ..Subscription::new(filter, Qos::AtLeastOnce)
        }
    }

    #[test]
    fn the_tree_agrees_with_the_filter() {
        let filters = [
            "a", "a/b", "a/+", "a/#", "+/b", "#", "+", "a/+/c", "$SYS/#", "$SYS/a", "/", "+/+", "a//b",
        ];
        let topics = [
            "a", "a/b", "a/b/c", "b/b", "$SYS/a", "$SYS", "/", "a/", "a//b", "a/x/c", "$other/b",
        ];
        let routes = Routes::default();
        let me = mailbox();
        (0..)
            .zip(filters)
            .for_each(|(sub, filter)| routes.add(&me, sub, &to(filter)));
        for topic in topics {
            let matches = |filter: &&str| Filter::new(filter.to_string()).expect("good").matches(topic);
            let expected: Vec<SubId> = (0..)
                .zip(filters)
                .filter(|(_, f)| matches(f))
                .map(|(sub, _)| sub)
                .collect();
            let mut found: Vec<SubId> = routes
                .look_up(topic)
                .each
                .iter()
                .flat_map(|target| target.subs.to_vec())
                .collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{topic}");
        }
    }

    #[test]
    fn removing_every_route_leaves_nothing_behind() {
        let routes = Routes::default();
        let me = mailbox();
        let filters = ["a/b", "a/+/c", "a/#", "#", "+/x/#"];
        (0..)
            .zip(filters)
            .for_each(|(sub, filter)| routes.add(&me, sub, &to(filter)));
        assert_eq!(routes.count(), 5);
        (0..)
            .zip(filters)
            .for_each(|(sub, filter)| routes.remove(&me, sub, &to(filter)));
        let table = routes.table.read();
        assert!(table.count == 0 && table.exact.is_empty() && table.wild.is_empty());
    }

    #[test]
    fn removing_a_route_leaves_the_others() {
        let filters = ["a/+/c", "a/+/c/d", "a/+", "a/#", "+/+/c", "a/b/+", "a/b/+/c"];
        for gone in filters {
            let routes = Routes::default();
            let me = mailbox();
            (0..)
                .zip(filters)
                .for_each(|(sub, filter)| routes.add(&me, sub, &to(filter)));
            let sub = filters.iter().position(|filter| *filter == gone).expect("one of them");
            routes.remove(&me, sub as SubId, &to(gone));
            for topic in ["a", "a/b", "a/b/c", "a/x/c/d", "x/y/c", "a/b/x/c"] {
                let matches = |filter: &&&str| Filter::new(filter.to_string()).expect("good").matches(topic);
                let expected = filters.iter().filter(|filter| **filter != gone).filter(matches).count();
                let targets = routes.look_up(topic);
                let found: usize = targets.each.iter().map(|target| target.subs.len()).sum();
                assert_eq!(found, expected, "{topic} without {gone}");
            }
        }
    }

    #[test]
    fn the_deepest_filters_and_topics_need_no_stack() {
        let routes = Routes::default();
        let me = mailbox();
        let deep = "/".repeat(usize::from(u16::MAX) - 1);
        let filters = [format!("{deep}+"), format!("{deep}#")];
        (0..)
            .zip(&filters)
            .for_each(|(sub, filter)| routes.add(&me, sub, &to(filter)));
        assert_eq!(routes.look_up(&deep).each[0].subs.len(), 2, "+ matches an empty level");
        routes.remove(&me, 0, &to(&filters[0]));
        assert_eq!(routes.look_up(&deep).each[0].subs[..], [1]);
        routes.remove(&me, 1, &to(&filters[1]));
        assert!(routes.table.read().wild.is_empty());
        routes.add(&me, 2, &to(&filters[0]));
        drop(routes);
    }

    #[test]
    fn publishers_of_one_message_each_take_turns_together() {
        let routes = Routes::default();
        let members = [mailbox(), mailbox()];
        members.iter().for_each(|member| {
            member.set_online(true);
            routes.add(member, 1, &to("$share/g/t"));
        });
        let picked = |_| Arc::as_ptr(&routes.look_up("t").groups[0].pick().to);
        let picked: Vec<_> = (0..4).map(picked).collect();
        assert!(
            picked[0] != picked[1] && picked[..2] == picked[2..],
            "a look-up each, one turn"
        );
    }

    #[test]
    fn a_group_takes_turns_among_those_who_are_there() {
        let routes = Routes::default();
        let members = [mailbox(), mailbox(), mailbox()];
        members
            .iter()
            .for_each(|member| routes.add(member, 1, &to("$share/g/t")));
        members[0].set_online(true);
        members[2].set_online(true);
        let targets = routes.look_up("t");
        let counts = (0..30).fold([0; 3], |mut counts, _| {
            let picked = targets.groups[0].pick();
            let index = members
                .iter()
                .position(|member| Arc::ptr_eq(member, &picked.to))
                .expect("a member");
            counts[index] += 1;
            counts
        });
        assert_eq!((counts[1], counts[0] + counts[2]), (0, 30));
        assert!(counts[0] > 5 && counts[2] > 5, "{counts:?}");
    }
}
