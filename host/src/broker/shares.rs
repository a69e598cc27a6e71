//! Messages of shared subscriptions change hands: from a member that is away or has left to one that is there.

use std::sync::Arc;

use super::connection::Connection;
use super::mailbox::Item;
use crate::model::delivery::Run;
use crate::telemetry;

/// Turns in which the others may make room: they may be slow for good.
const YIELDS_MAX: usize = 8;

impl Connection {
    /// A member has come: those of its group who are away are asked for what they have not sent.
    pub(super) fn joined(&self, group: &Arc<str>) {
        let Some(others) = self.broker.routes.others(group, &self.mailbox) else {
            return;
        };
        others
            .absent()
            .for_each(|mailbox| mailbox.push(Item::Offer(Arc::clone(group))));
    }

    /// What waits here for a client that is away goes to those who are there, if anybody is.
    pub(super) fn offer(&mut self, group: &str) {
        let others = self.broker.routes.others(group, &self.mailbox);
        if others.is_some_and(|others| others.is_connected()) {
            self.act(|session, _, steps| session.hand_on(group, steps));
        }
    }

    /// One message for another member; where there is none it is lost, and counted.
    pub(super) async fn hand_on(&mut self, group: &str, run: Arc<Run>) {
        let mut lost = "mailbox_full";
        for turn in 0..=YIELDS_MAX {
            let Some(others) = self.broker.routes.others(group, &self.mailbox) else {
                lost = "no_member";
                break;
            };
            let target = others.pick_roomy();
            let may_fill_up = turn == YIELDS_MAX;
            if (may_fill_up || !target.to.is_pressed()) && target.to.push_run(&run, &target.subs) {
                return;
            }
            tokio::task::yield_now().await;
        }
        metrics::counter!(telemetry::MESSAGES_DROPPED, "reason" => lost).increment(1);
    }
}
