//! The retained messages that no rule stores, in memory (spec C6: the broker keeps exactly what no active
//! retain rule matches).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use parking_lot::RwLock;

use crate::model::delivery::{Page, Position, Window};
use crate::model::message::Message;
use crate::model::topic::Filter;
use crate::telemetry;

/// The broker's own retained messages, by topic.
pub(super) struct Retained {
    messages: RwLock<BTreeMap<Box<str>, Message>>,
    len_max: usize,
}

impl Retained {
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            messages: RwLock::default(),
            len_max,
        }
    }

    /// A message with RETAIN came in: it replaces its topic's, or clears it if it is empty (MQTT 3.3.1.3).
    pub(super) fn keep(&self, message: &Message) {
        let topic = message.topic.as_str();
        let mut messages = self.messages.write();
        if message.payload.is_empty() {
            messages.remove(topic);
        } else if messages.len() < self.len_max || messages.contains_key(topic) {
            messages.insert(topic.into(), message.detached());
        } else {
            metrics::counter!(telemetry::MESSAGES_DROPPED, "reason" => "retained_full").increment(1);
            return;
        }
        metrics::gauge!(telemetry::RETAINED).set(messages.len() as f64);
    }

    /// The messages that match, oldest first; their ids are their positions.
    pub(super) fn matching(&self, filter: &Filter, window: Window, now: SystemTime) -> Page {
        let messages = self.messages.read();
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
        let retained = Retained::new(10);
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
        let retained = Retained::new(10);
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
        let retained = Retained::new(1);
        retained.keep(&message(1, "a", "x", Qos::AtLeastOnce));
        retained.keep(&message(2, "b", "x", Qos::AtLeastOnce));
        retained.keep(&message(3, "a", "y", Qos::AtLeastOnce));
        assert_eq!(topics(&retained, "#"), ["a"]);
    }
}
