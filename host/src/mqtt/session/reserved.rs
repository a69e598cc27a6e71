//! `$SYS/` is the broker's own: what a client publishes there goes nowhere. MQTT 5 is told so; MQTT 3 has no word
//! for it and gets its acknowledgement, as mosquitto does it.

use super::gates::Gate;
use super::{Session, Steps};
use crate::model::delivery::Settled;
use crate::model::message::Qos;
use crate::model::reason::Reason;
use crate::mqtt::packet::Version;

/// Whether only the broker publishes there.
pub fn is_reserved(topic: &str) -> bool {
    topic
        .strip_prefix("$SYS")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Session {
    /// Answers a PUBLISH to such a topic, in its turn.
    pub(super) fn decline(&mut self, gate: Gate, steps: &mut Steps) {
        let told = self.version == Version::V5 && gate.qos > Qos::AtMostOnce;
        if !told {
            self.books.dropped_reserved += 1;
        }
        if gate.qos == Qos::AtMostOnce {
            return;
        }
        let ticket = self.gates.open(gate);
        // As if one store had to settle it, or none.
        self.gates.planned(ticket, [u8::from(told)]);
        self.gates.settle(ticket, &[Settled::Refused(Reason::NOT_AUTHORIZED)]);
        self.answer_publishers(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::is_reserved;

    #[test]
    fn only_the_brokers_own_topics_are_reserved() {
        let reserved = ["$SYS", "$SYS/", "$SYS/broker/uptime"];
        assert!(reserved.into_iter().all(is_reserved));
        let others = ["$SYSTEM/x", "$other", "SYS/x", "a/$SYS/b", "$sys/x"];
        assert!(!others.into_iter().any(is_reserved));
    }
}
