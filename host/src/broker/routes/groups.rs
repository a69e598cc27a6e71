//! The members of one shared subscription, found by its whole filter: for messages that change hands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Entry, Group, Mailbox, Routes, Table, Target};
use crate::model::topic::Filter;

impl Routes {
    /// The members of a group without this one.
    pub(in crate::broker) fn others(&self, group: &str, but: &Arc<Mailbox>) -> Option<Group> {
        let (_, filter) = Filter::parse_subscription(group).ok()?;
        let table = self.table.read();
        let of_group = |entry: &&Entry| entry.share.as_ref().is_some_and(|share| *share.name == *group);
        let entries = table.at(&filter)?.iter().filter(of_group);
        let turn = entries.clone().find_map(|entry| entry.share.as_ref())?;
        let turn = Arc::clone(&turn.turn);
        let others = entries.filter(|entry| !Arc::ptr_eq(&entry.to, but));
        let members: Vec<Target> = others
            .map(|entry| Target {
                to: Arc::clone(&entry.to),
                subs: Arc::new([entry.sub]),
            })
            .collect();
        (!members.is_empty()).then_some(Group { members, turn })
    }
}

impl Group {
    /// Whether anybody of it is connected.
    pub(in crate::broker) fn is_connected(&self) -> bool {
        self.members.iter().any(|member| member.to.is_online())
    }

    /// Those who are not connected.
    pub(in crate::broker) fn absent(&self) -> impl Iterator<Item = &Arc<Mailbox>> {
        let members = self.members.iter().map(|member| &member.to);
        members.filter(|mailbox| !mailbox.is_online())
    }

    /// The member whose turn it is that has room, or else whose turn it is: who is connected first.
    pub(in crate::broker) fn pick_roomy(&self) -> &Target {
        let start = self.turn.load(Ordering::Relaxed);
        let roomy = (0..self.members.len())
            .map(|offset| &self.members[(start + offset) % self.members.len()])
            .find(|member| member.to.is_online() && !member.to.is_pressed());
        match roomy {
            Some(member) => {
                self.turn.fetch_add(1, Ordering::Relaxed);
                member
            }
            None => self.pick(),
        }
    }
}

impl Table {
    /// What subscribes to exactly this filter.
    fn at(&self, filter: &Filter) -> Option<&Vec<Entry>> {
        match filter.is_exact() {
            true => self.exact.get(filter.as_str()),
            false => self.wild.at(filter.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::routes::tests::{mailbox, to};

    #[test]
    fn the_others_are_found_by_the_whole_filter() {
        let routes = Routes::default();
        let [me, other, away] = [mailbox(), mailbox(), mailbox()];
        me.set_online(true);
        other.set_online(true);
        for group in ["$share/g/t", "$share/g/t/+/x", "$share/g/#"] {
            routes.add(&me, 1, &to(group));
            assert!(routes.others(group, &me).is_none(), "{group}: I am alone");
            routes.add(&away, 2, &to(group));
            assert!(!routes.others(group, &me).expect("one is away").is_connected());
            routes.add(&other, 3, &to(group));
            routes.add(&mailbox(), 4, &to("$share/another/t"));
            let others = routes.others(group, &me).expect("two");
            assert!(others.is_connected());
            assert_eq!(others.absent().count(), 1);
            (0..4).for_each(|_| assert!(Arc::ptr_eq(&others.pick_roomy().to, &other), "{group}"));
        }
        assert!(routes.others("$share/g/nothing", &me).is_none());
    }
}
