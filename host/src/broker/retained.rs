//! The retained messages that no rule stores, in memory (spec C6: the broker keeps exactly what no active
//! retain rule matches).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::RwLock;

use super::figures;
use crate::model::delivery::{Page, Position, Window};
use crate::model::id::MessageId;
use crate::model::message::Message;
use crate::model::topic::Filter;
use crate::mqtt::limits::Limit;
use crate::telemetry;

/// Only the broker publishes here.
const SYS: &str = "$SYS/";
/// Up to so many topics below a filter's prefix are looked at, and sorted, page by page; of more, every page
/// goes on in the order of their ids where the last one ended.
const SORTED_MAX: usize = 1000;
/// Messages that one page looks at in the order of their ids.
const SCANNED_MAX: usize = 10_000;

/// The broker's own retained messages.
pub(super) struct Retained {
    kept: RwLock<Kept>,
    /// What the broker itself says below `$SYS/`: as many topics as it has words, and none of the clients' limits.
    sys: RwLock<Kept>,
    len_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    by_topic: BTreeMap<Arc<str>, Message>,
    by_age: BTreeMap<MessageId, Arc<str>>,
    bytes: usize,
}

impl Retained {
    pub(super) fn new(len_max: usize, bytes_max: usize) -> Self {
        Self {
            kept: RwLock::default(),
            sys: RwLock::default(),
            len_max,
            bytes_max,
        }
    }

    /// A message with RETAIN came in: it replaces its topic's, or clears it if it is empty (MQTT 3.3.1.3).
    pub(super) fn keep(&self, message: &Message) {
        let topic = message.topic.as_str();
        if topic.starts_with(SYS) {
            return self.sys.write().insert(message.detached());
        }
        let mut kept = self.kept.write();
        if message.payload.is_empty() {
            kept.remove(topic);
        } else if let Some(limit) = self.exceeded_by(message, &kept) {
            figures::hit(limit);
            metrics::counter!(telemetry::MESSAGES_DROPPED, "reason" => "retained_full").increment(1);
            return;
        } else {
            kept.insert(message.detached());
        }
        metrics::gauge!(telemetry::RETAINED).set(kept.by_topic.len() as f64);
    }

    /// The limit that is in the way of this message, if any.
    fn exceeded_by(&self, message: &Message, kept: &Kept) -> Option<Limit> {
        let known = kept.by_topic.get(message.topic.as_str());
        let others = kept.bytes - known.map_or(0, Message::size_bytes);
        if known.is_none() && kept.by_topic.len() >= self.len_max {
            return Some(Limit::RetainedMessages);
        }
        (others + message.size_bytes() > self.bytes_max).then_some(Limit::RetainedBytes)
    }

    /// The messages that match, oldest first; their ids are their positions. A page may have fewer than there
    /// is room for, and still not be the last.
    pub(super) fn matching(&self, filter: &Filter, window: Window, now: SystemTime) -> Page {
        // A wildcard at the first level does not match the broker's own topics, so no filter matches both.
        let kept = match filter.as_str().starts_with(SYS) {
            true => self.sys.read(),
            false => self.kept.read(),
        };
        match kept.near(filter).nth(SORTED_MAX) {
            None => kept.sorted(filter, window, now),
            Some(_) => kept.by_age(filter, window, now),
        }
    }
}

impl Kept {
    fn remove(&mut self, topic: &str) {
        if let Some(gone) = self.by_topic.remove(topic) {
            self.by_age.remove(&gone.id);
            self.bytes -= gone.size_bytes();
        }
    }

    fn insert(&mut self, message: Message) {
        self.remove(message.topic.as_str());
        self.bytes += message.size_bytes();
        let topic: Arc<str> = message.topic.as_str().into();
        self.by_age.insert(message.id, Arc::clone(&topic));
        self.by_topic.insert(topic, message);
    }

    /// Everything below the filter's prefix.
    fn near(&self, filter: &Filter) -> impl Iterator<Item = &Message> {
        let prefix = filter.literal_prefix();
        let range = (Bound::Included(prefix), Bound::Unbounded);
        let near = self.by_topic.range::<str, _>(range);
        near.take_while(move |(topic, _)| topic.starts_with(prefix))
            .map(|(_, message)| message)
    }

    fn sorted(&self, filter: &Filter, window: Window, now: SystemTime) -> Page {
        let newer = self.near(filter).filter(|message| message.id.bits() > window.after.0);
        let mut found: Vec<&Message> = newer.filter(|message| matches(filter, message, now)).collect();
        found.sort_unstable_by_key(|message| message.id);
        let end = found.len() <= window.limit;
        found.truncate(window.limit);
        let scanned = found.last().map_or(window.after, |message| Position(message.id.bits()));
        page(found, scanned, end)
    }

    fn by_age(&self, filter: &Filter, window: Window, now: SystemTime) -> Page {
        let after = Bound::Excluded(MessageId::from_bits(window.after.0));
        let (mut found, mut scanned, mut looked_at) = (Vec::new(), window.after, 0);
        for (id, topic) in self.by_age.range((after, Bound::Unbounded)) {
            if found.len() == window.limit || looked_at == SCANNED_MAX {
                return page(found, scanned, false);
            }
            let message = self.by_topic.get(topic);
            found.extend(message.filter(|message| matches(filter, message, now)));
            (scanned, looked_at) = (Position(id.bits()), looked_at + 1);
        }
        page(found, scanned, true)
    }
}

fn matches(filter: &Filter, message: &Message, now: SystemTime) -> bool {
    filter.matches(message.topic.as_str()) && !message.expired(now)
}

fn page(found: Vec<&Message>, scanned: Position, end: bool) -> Page {
    let row = |message: &Message| (Position(message.id.bits()), message.clone());
    Page {
        messages: found.into_iter().map(row).collect(),
        scanned,
        end,
        ..Page::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::message::Qos;
    use crate::mqtt::session::fixtures::message;

    fn topics(retained: &Retained, filter: &str) -> Vec<String> {
        let filter = Filter::new(filter.to_owned()).expect("a good filter");
        let window = Window {
            after: Position::START,
            limit: 100,
            since: None,
        };
        let page = retained.matching(&filter, window, SystemTime::UNIX_EPOCH);
        page.messages
            .iter()
            .map(|(_, message)| message.topic.to_string())
            .collect()
    }

    #[test]
    fn the_newest_message_of_a_topic_is_kept_until_an_empty_one_clears_it() {
        let retained = Retained::new(10, usize::MAX);
        for (id, topic, payload) in [
            (1, "a/b", "x"),
            (2, "a", "y"),
            (3, "a/b", "z"),
            (4, "$SYS/a", "s"),
            (5, "ab", "n"),
        ] {
            retained.keep(&message(id, topic, payload, Qos::AtLeastOnce));
        }
        assert_eq!(topics(&retained, "#"), ["a", "a/b", "ab"]);
        assert_eq!(topics(&retained, "a/#"), ["a", "a/b"]);
        assert_eq!(topics(&retained, "+/b"), ["a/b"]);
        assert_eq!(topics(&retained, "$SYS/#"), ["$SYS/a"]);
        retained.keep(&message(6, "a/b", "", Qos::AtLeastOnce));
        assert_eq!(topics(&retained, "a/#"), ["a"]);
    }

    /// Reads page after page; answers the ids and how many pages there were.
    fn read(retained: &Retained, filter: &str, limit: usize) -> (Vec<u128>, usize) {
        let filter = Filter::new(filter.to_owned()).expect("a good filter");
        let mut window = Window {
            after: Position::START,
            limit,
            since: None,
        };
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let page = retained.matching(&filter, window, SystemTime::UNIX_EPOCH);
            assert!(page.messages.len() <= limit);
            seen.extend(page.messages.iter().map(|(_, message)| message.id.bits()));
            (window.after, pages) = (page.scanned, pages + 1);
            if page.end {
                return (seen, pages);
            }
        }
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let retained = Retained::new(10, usize::MAX);
        (1..=5).for_each(|id| retained.keep(&message(id, &format!("t/{}", 9 - id), "x", Qos::AtLeastOnce)));
        assert_eq!(read(&retained, "t/#", 2).0, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn the_pages_of_many_look_at_each_message_once() {
        const COUNT: u128 = 25_000;
        let retained = Retained::new(usize::MAX, usize::MAX);
        for id in 1..=COUNT {
            let topic = format!("t/{}/{}", id % 5, id * 7919 % COUNT);
            retained.keep(&message(id, &topic, "x", Qos::AtLeastOnce));
        }
        retained.keep(&message(COUNT + 1, "t/1/7919", "newer", Qos::AtLeastOnce));
        let (all, pages) = read(&retained, "#", 100);
        assert_eq!(
            all,
            (2..=COUNT + 1).collect::<Vec<_>>(),
            "the one that was replaced has gone"
        );
        assert_eq!(pages, 250);
        let (some, _) = read(&retained, "t/+/3", 100);
        assert_eq!(some.len(), 1);
        let (third, _) = read(&retained, "t/3/#", 100);
        assert_eq!(third, (2..=COUNT).filter(|id| id % 5 == 3).collect::<Vec<_>>());
    }

    #[test]
    fn there_is_a_bound() {
        let retained = Retained::new(1, usize::MAX);
        retained.keep(&message(1, "a", "x", Qos::AtLeastOnce));
        retained.keep(&message(2, "b", "x", Qos::AtLeastOnce));
        retained.keep(&message(3, "a", "y", Qos::AtLeastOnce));
        assert_eq!(topics(&retained, "#"), ["a"]);
    }

    #[test]
    fn there_is_a_bound_of_bytes_and_a_newer_message_may_take_the_place_of_a_larger_one() {
        let of = |id, topic: &str, bytes| message(id, topic, &"x".repeat(bytes), Qos::AtLeastOnce);
        let retained = Retained::new(10, 2 * of(1, "a", 100).size_bytes());
        retained.keep(&of(1, "a", 150));
        retained.keep(&of(2, "b", 100));
        assert_eq!(topics(&retained, "#"), ["a"]);
        retained.keep(&of(3, "a", 100));
        retained.keep(&of(4, "b", 100));
        assert_eq!(topics(&retained, "#"), ["a", "b"]);
        retained.keep(&of(5, "a", 0));
        retained.keep(&of(6, "c", 100));
        assert_eq!(topics(&retained, "#"), ["b", "c"]);
        assert_eq!(retained.kept.read().bytes, 2 * of(1, "a", 100).size_bytes());
    }
}
