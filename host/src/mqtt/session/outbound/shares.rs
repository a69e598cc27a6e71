//! What becomes of a shared subscription's messages when the member that was to get them is away or leaves for
//! good (MQTT 5, 4.8.2): what was not sent goes to another member, and what was sent with QoS 1 and never
//! acknowledged, too, once the session ends. A QoS 2 message that was sent is completed with the same client, or with
//! nobody.

use std::sync::Arc;

use super::{Delivery, Outbound, Stage};
use crate::model::message::Qos;
use crate::mqtt::session::{Session, Step, Steps};

impl Delivery {
    fn is_of(&self, group: &str) -> bool {
        self.share.as_deref() == Some(group)
    }

    /// Gives it to another member of its group.
    fn hand_on(self, steps: &mut Steps) {
        let Some(group) = self.share.clone() else { return };
        // Each message by itself: it may be another member's turn.
        let run = match self.run.messages.len() {
            1 => self.run,
            _ => Arc::new(self.run.single(self.index)),
        };
        steps.push_back(Step::HandOn(group, run));
    }
}

impl Outbound {
    /// What waits for the window and is of this group, in order.
    fn take_unsent(&mut self, group: &str) -> Vec<Delivery> {
        let (taken, kept) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<Vec<_>, _>(|delivery| delivery.is_of(group));
        self.queue = kept.into();
        let size = |delivery: &Delivery| delivery.message().size_bytes();
        self.queue_bytes -= taken.iter().map(size).sum::<usize>();
        taken
    }

    /// What was sent with QoS 1 for a group and has no PUBACK, and what has its place in the window but has not
    /// left, in the order of sending.
    fn take_unacknowledged(&mut self) -> Vec<Delivery> {
        let shared = self.sent.values_mut().filter(|sent| {
            let is_shared = sent.delivery.as_ref().is_some_and(|delivery| delivery.share.is_some());
            let never_left = matches!(sent.stage, Stage::Keeping | Stage::Due);
            is_shared && (never_left || sent.qos == Qos::AtLeastOnce)
        });
        let mut taken: Vec<_> = shared
            .filter_map(|sent| Some((sent.order, sent.delivery.take()?)))
            .collect();
        taken.sort_unstable_by_key(|(order, _)| *order);
        taken.into_iter().map(|(_, delivery)| delivery).collect()
    }
}

impl Session {
    /// Another member of this group is connected, and our client is not: what was not sent to it goes there.
    pub fn hand_on(&mut self, group: &str, steps: &mut Steps) {
        if self.link.is_none() {
            self.hand_on_unsent(group, steps);
        }
    }

    /// A member of this group has come; what waits here for a client that is away is offered to it.
    pub fn offer(&mut self, group: &Arc<str>, steps: &mut Steps) {
        if self.link.is_none() && self.outbound.queue.iter().any(|delivery| delivery.is_of(group)) {
            steps.push_back(Step::Offer(Arc::clone(group)));
        }
    }

    /// The client has gone: what waits for it is offered to the members of its groups that are there.
    pub(in crate::mqtt::session) fn offer_all(&mut self, steps: &mut Steps) {
        let shares = self
            .outbound
            .queue
            .iter()
            .filter_map(|delivery| delivery.share.as_ref());
        let mut groups: Vec<_> = shares.cloned().collect();
        groups.sort_unstable();
        groups.dedup();
        steps.extend(groups.into_iter().map(Step::Offer));
    }

    /// The subscription ends.
    pub(in crate::mqtt::session) fn hand_on_unsent(&mut self, group: &str, steps: &mut Steps) {
        let unsent = self.outbound.take_unsent(group);
        unsent.into_iter().for_each(|delivery| delivery.hand_on(steps));
    }

    /// The session ends: nobody will acknowledge any more.
    pub(in crate::mqtt::session) fn hand_on_unacknowledged(&mut self, steps: &mut Steps) {
        let unacknowledged = self.outbound.take_unacknowledged();
        unacknowledged.into_iter().for_each(|delivery| delivery.hand_on(steps));
    }
}
