//! A kept session whose client is away needs no memory: what it has is in the store, what it misses is found there.

use std::time::Instant;

use crate::model::message::Qos;

use super::outbound::{Outbound, Stage};
use super::reader::Readers;
use super::subscribe::Sub;
use super::{Session, Step, Steps};

impl Session {
    /// Leaves memory if it may; otherwise looks again later.
    pub(super) fn rest(&mut self, now: Instant, steps: &mut Steps) {
        if self.rests_at.is_none_or(|at| at > now) || self.link.is_some() || self.over {
            return;
        }
        if !self.can_rest() {
            self.rests_at = Some(now + self.limits.rest_after);
            return;
        }
        self.rests_at = None;
        self.unroute_all(steps);
        steps.push_back(Step::Rest);
    }

    /// Whether the store has all of it and will have all that it misses.
    fn can_rest(&self) -> bool {
        self.is_kept()
            && self.keeper.is_settled()
            && self.positions_due.is_none()
            && !self.gates.is_any_open()
            && self.gates.unanswered() == 0
            && self.received.has_told_all()
            && self.outbound.is_at_rest()
            && self.rounds.can_rest()
            && !self.limits.queue_qos0
            && self
                .subscriptions
                .subs
                .values()
                .all(|sub| sub.is_covered(&self.readers))
    }
}

impl Sub {
    /// Whether everything that its client misses is found in the store when it is back.
    fn is_covered(&self, readers: &Readers) -> bool {
        let reads_all = self.readers.iter().any(|key| {
            readers
                .get(*key)
                .is_some_and(|reading| reading.begun && reading.backlog.complete && reading.backlog.durable)
        });
        let qos0 = self.subscription.qos == Qos::AtMostOnce;
        self.is_own() && self.subscription.share.is_none() && (qos0 || reads_all)
    }
}

impl Outbound {
    /// Whether nothing waits here that the store does not know.
    fn is_at_rest(&self) -> bool {
        // QoS 1 keeps its packet identifiers while the broker lives (spec C16).
        let known = |stage| matches!(stage, Stage::Published | Stage::Released);
        let mut sent = self.sent.values();
        self.is_queue_empty() && sent.all(|sent| sent.qos == Qos::ExactlyOnce && known(sent.stage))
    }
}
