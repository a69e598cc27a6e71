//! What an earlier connection did not finish is sent again (4.4): within the window and the packet size of the new
//! connection, with what is left of its expiry.

use crate::model::message::Qos;
use crate::model::reason::Reason;
use crate::mqtt::packet::Outgoing;

use super::outbound::{Outbound, Sent, Stage, copy_of, release, remaining_s};
use super::{Now, Session, Step, Steps};

impl Outbound {
    /// After a reconnect: everything that is not done, in the order in which it was first sent; PUBLISHes wait in
    /// `resends`. Answers which of them may leave at once: the PUBRELs.
    fn unfinished(&mut self) -> Vec<(u16, bool)> {
        // What waits for a commit leaves when that is done.
        let held = |sent: &Sent| matches!(sent.stage, Stage::Keeping | Stage::Releasing);
        let mut again: Vec<_> = self.sent.iter_mut().filter(|(_, sent)| !held(sent)).collect();
        again.sort_unstable_by_key(|(_, sent)| sent.order);
        again
            .iter_mut()
            .for_each(|(_, sent)| sent.waits = sent.delivery.is_some());
        let again: Vec<_> = again
            .into_iter()
            .map(|(packet_id, sent)| (*packet_id, !sent.waits))
            .collect();
        self.resends = again
            .iter()
            .filter(|(_, released)| !released)
            .map(|(packet_id, _)| *packet_id)
            .collect();
        self.waiting = self.resends.len();
        again
    }

    /// The next PUBLISH to send again, if the window takes it.
    fn next_resend(&mut self) -> Option<u16> {
        while self.has_window() {
            let packet_id = self.resends.pop_front()?;
            if self.need_not_wait(packet_id) {
                return Some(packet_id);
            }
        }
        None
    }

    /// This PUBLISH is sent again now, or acknowledged ([MQTT-4.3.3-6]). Answers whether it waited.
    pub(super) fn need_not_wait(&mut self, packet_id: u16) -> bool {
        let sent = self.sent.get_mut(&packet_id);
        let waited = sent.is_some_and(|sent| std::mem::take(&mut sent.waits));
        self.waiting -= usize::from(waited);
        waited
    }

    /// A PUBLISH whose exchange is kept may leave; whether it leaves now, or waits for the window or the client.
    pub(super) fn leaves_now(&mut self, packet_id: u16, is_there: bool) -> bool {
        let fits = self.waiting == 0 && self.under_way() <= self.window;
        if is_there
            && !fits
            && let Some(sent) = self.sent.get_mut(&packet_id)
        {
            sent.waits = true;
            self.waiting += 1;
            self.resends.push_back(packet_id);
        }
        is_there && fits
    }
}

impl Session {
    /// The client is back: what is not done is sent again, PUBRELs at once, PUBLISHes as far as the window of this
    /// connection goes.
    pub(super) fn resend(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        for (packet_id, released) in self.outbound.unfinished() {
            if released {
                steps.push_back(release(packet_id, Reason::SUCCESS));
            } else if let Some(packet_id) = self.outbound.next_resend() {
                self.send_again(packet_id, now, steps);
            }
        }
    }

    pub(super) fn go_on_resending(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        while self.link.is_some()
            && let Some(packet_id) = self.outbound.next_resend()
        {
            self.send_again(packet_id, now, steps);
        }
    }

    /// A PUBLISH that an earlier connection did not acknowledge ([MQTT-4.4.0-1]). It was begun, so that its expiry
    /// does not keep it back ([MQTT-3.3.2-5]).
    fn send_again(&mut self, packet_id: u16, now: &mut Now<'_>, steps: &mut Steps) {
        let Some(sent) = self.outbound.sent.get_mut(&packet_id) else {
            return;
        };
        let Some(delivery) = sent.delivery.clone() else { return };
        let stage = std::mem::replace(&mut sent.stage, Stage::Published);
        let expires = delivery.message().expires;
        // Never 0: it is legal, and some clients take it for malformed all the same.
        let expiry_s = expires.map(|_| remaining_s(expires, now.wall).unwrap_or(1));
        if self.is_too_large(&delivery, expiry_s) {
            self.books.dropped_too_large += 1;
            if delivery.qos == Qos::ExactlyOnce {
                return self.received_by_client(packet_id, Reason::PACKET_TOO_LARGE, now, steps);
            }
            self.outbound.sent.remove(&packet_id);
            return self.count_as_done(&delivery, now);
        }
        if stage == Stage::Due {
            return self.transmit(packet_id, &delivery, now, steps);
        }
        let copy = copy_of(&delivery, packet_id, true, expiry_s);
        steps.push_back(Step::Send(Outgoing::Publish(copy)));
    }
}
