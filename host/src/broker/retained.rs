//! The retained messages that no rule stores, in memory (spec C6: the broker keeps exactly what no active
//! retain rule matches).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use parking_lot::RwLock;

use super::figures;
use crate::model::delivery::{Page, Position, Window};
use crate::model::message::Message;
use crate::model::topic::Filter;
use crate::mqtt::limits::Limit;
use crate::telemetry;

/// Only the broker publishes here.
const SYS: &str = "$SYS/";

/// The broker's own retained messages, by topic.
pub(super) struct Retained {
    kept: RwLock<Kept>,
    /// What the broker itself says below `$SYS/`: as many topics as it has words, and none of the clients' limits.
    sys: RwLock<Kept>,
    len_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    messages: BTreeMap<Box<str>, Message>,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, topic: &str) {
        if let Some(gone) = self.messages.remove(topic) {
            self.bytes -= gone.size_bytes();
        }
    }

    fn insert(&mut self, message: Message) {
        self.bytes += message.size_bytes();
        let topic = message.topic.as_str().into();
        if let Some(replaced) = self.messages.insert(topic, message) {
            self.bytes -= replaced.size_bytes();
        }
    }
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
        metrics::gauge!(telemetry::RETAINED).set(kept.messages.len() as f64);
    }

    /// The limit that is in the way of this message, if any.
    fn exceeded_by(&self, message: &Message, kept: &Kept) -> Option<Limit> {
        let known = kept.messages.get(message.topic.as_str());
        let others = kept.bytes - known.map_or(0, Message::size_bytes);
        if known.is_none() && kept.messages.len() >= self.len_max {
            return Some(Limit::RetainedMessages);
        }
        (others + message.size_bytes() > self.bytes_max).then_some(Limit::RetainedBytes)
    }

    /// The messages that match, oldest first; their ids are their positions.
    pub(super) fn matching(&self, filter: &Filter, window: Window, now: SystemTime) -> Page {
        // A wildcard at the first level does not match these topics, so no filter matches both.
        let kept = match filter.as_str().starts_with(SYS) {
            true => self.sys.read(),
            false => self.kept.read(),
        };
        let messages = &kept.messages;
        let prefix = filter.literal_prefix();
        let range = (Bound::Included(prefix), Bound::Unbounded);
        let near = messages
            .range::<str, _>(range)
            .take_while(|(topic, _)| topic.starts_with(prefix));
        let matching = near.filter(|(topic, message)| filter.matches(topic) && !message.expired(now));
        let newer = matching.filter(|(_, message)| message.id.bits() > window.after.0);
        let mut found: Vec<&Message> = newer.map(|(_, message)| message).collect();
        found.sort_unstable_by_key(|message| message.id);
        let end = found.len() <= window.limit;
        found.truncate(window.limit);
        let scanned = found.last().map_or(window.after, |message| Position(message.id.bits()));
        let messages = found
            .into_iter()
            .map(|message| (Position(message.id.bits()), message.clone()))
            .collect();
        Page { messages, scanned, end }
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

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let retained = Retained::new(10, usize::MAX);
        (1..=5).for_each(|id| retained.keep(&message(id, &format!("t/{}", 9 - id), "x", Qos::AtLeastOnce)));
        let filter = Filter::new("t/#").expect("a good filter");
        let mut window = Window {
            after: Position::START,
            limit: 2,
            since: None,
        };
        let mut seen = Vec::new();
        loop {
            let page = retained.matching(&filter, window, SystemTime::UNIX_EPOCH);
            seen.extend(page.messages.iter().map(|(_, message)| message.id.bits()));
            window.after = page.scanned;
            if page.end {
                break;
            }
        }
        assert_eq!(seen, [1, 2, 3, 4, 5]);
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
