//! Messages to the client: the inflight window, the queue behind it, and acknowledgements.

mod shares;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;

use crate::model::delivery::Run;
use crate::model::event::Event;
use crate::model::id::MessageId;
use crate::model::message::{Message, Qos};
use crate::model::reason::Reason;
use crate::mqtt::codec;
use crate::mqtt::packet::{Ack, AckKind, Copy, Outgoing};

use super::eviction::make_room;
use super::exchange::{Exchanges, Trace};
use super::reader::ReaderKey;
use super::retained::RoundKey;
use super::{Map, Now, Session, Step, Steps};

/// One message for this client, before it has a packet identifier.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) run: Arc<Run>,
    pub(super) index: usize,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) identifiers: Arc<[u32]>,
    /// The readers whose positions its acknowledgement moves.
    pub(super) readers: SmallVec<[ReaderKey; 1]>,
    /// Of which round it is, where it is a retained message.
    pub(super) round: Option<RoundKey>,
    /// The whole filter of the shared subscription that it belongs to: its group.
    pub(super) share: Option<Arc<str>>,
}

impl Delivery {
    pub(super) fn message(&self) -> &Message {
        &self.run.messages[self.index]
    }

    /// Whether it comes again where it finds no room: a store has it for its readers, or it is retained and owed.
    pub(super) fn can_be_read_again(&self) -> bool {
        !self.readers.is_empty() || self.round.is_some()
    }

    /// As it waits behind `waiting` others, which may all keep a buffer of their publisher's that is much larger than
    /// they are: beyond `kept_bytes_max` of these it has one of its own.
    pub(super) fn behind(self, waiting: usize, kept_bytes_max: usize) -> Self {
        let keeps = self.run.kept_bytes().saturating_mul(waiting + 1);
        let apart = (keeps > kept_bytes_max).then(|| self.run.apart(self.index)).flatten();
        match apart {
            Some(run) => Self { run, index: 0, ..self },
            None => self,
        }
    }
}

/// A message that was sent and is not done.
#[derive(Debug)]
pub(super) struct Sent {
    /// The order of sending, for resends ([MQTT-4.6.0-1]).
    pub(super) order: u64,
    /// What to send again; `None` from PUBREC on: then PUBREL is sent again.
    pub(super) delivery: Option<Delivery>,
    pub(super) qos: Qos,
    pub(super) stage: Stage,
    /// It is among [`Outbound::resends`].
    pub(super) waits: bool,
    /// What is kept of it, if its exchange is (QoS 2 of a kept session).
    pub(super) trace: Option<Trace>,
}

/// How far the sending of a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its exchange is on its way into the store; the PUBLISH waits for that.
    Keeping,
    /// The PUBLISH may leave, and has not yet.
    Due,
    /// The PUBLISH has left.
    Published,
    /// The client has said PUBREC, which is on its way into the store; the PUBREL waits for that.
    Releasing,
    /// The PUBREL has left.
    Released,
}

/// The window and the queue behind it. Both survive the connection.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub(super) sent: Map<u16, Sent>,
    /// Of those, the PUBLISHes that the present connection has not seen yet, in the order of sending, and some that
    /// were acknowledged meanwhile.
    pub(super) resends: VecDeque<u16>,
    /// How many of `sent` wait there.
    pub(super) waiting: usize,
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    pub(super) window: usize,
    last_id: u16,
    next_order: u64,
    /// How many of `sent` wait for their exchange to be kept.
    pub(super) keeping: usize,
    pub(super) exchanges: Exchanges,
}

impl Outbound {
    pub(super) fn open_window(&mut self, window: u16) {
        self.window = window.into();
    }

    /// How many more messages of QoS 1 and 2 the window takes, those in the queue first.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.sent.len() + self.queue.len())
    }

    /// Whether a new message can be sent at once without overtaking one that waits.
    fn is_free(&self, qos: Qos) -> bool {
        self.queue.is_empty() && self.waiting == 0 && self.takes(qos)
    }

    /// PUBLISHes that the client has, or will have when they are kept, and has not finished ([MQTT-3.3.4-9]).
    pub(super) fn under_way(&self) -> usize {
        self.sent.len() - self.waiting
    }

    pub(super) fn has_window(&self) -> bool {
        self.under_way() < self.window
    }

    /// Whether the window takes the next message. One of QoS 1 must not overtake those that wait to be kept.
    fn takes(&self, qos: Qos) -> bool {
        let in_turn = self.keeping == 0 || qos == Qos::ExactlyOnce;
        in_turn && self.has_window() && !self.exchanges.is_full()
    }

    /// How many messages wait for the window, and their bytes.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.queue_bytes)
    }

    /// Whether nothing waits for the window.
    pub(super) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether so little is under way that it is time to read more.
    pub(super) fn wants_more(&self, page: usize) -> bool {
        self.room() >= page.min(self.window / 2).max(1)
    }

    /// The delivery of this message that is in the window or in the queue.
    pub(super) fn find(&mut self, id: MessageId) -> Option<Known<'_>> {
        let Self {
            sent,
            queue,
            queue_bytes,
            ..
        } = self;
        let is_it = |delivery: &&mut Delivery| delivery.message().id == id;
        let mut sent = sent.values_mut().filter_map(|sent| sent.delivery.as_mut());
        if let Some(delivery) = sent.find(is_it) {
            let queue_bytes = None;
            return Some(Known { delivery, queue_bytes });
        }
        let queued = queue.iter_mut().find(is_it);
        queued.map(|delivery| Known {
            delivery,
            queue_bytes: Some(queue_bytes),
        })
    }

    /// An unused packet identifier ([MQTT-2.2.1-4]). The window keeps fewer than there are.
    pub(super) fn new_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.sent.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// A message takes its place in the window.
    pub(super) fn insert(&mut self, packet_id: u16, delivery: Option<Delivery>, qos: Qos, stage: Stage) -> &mut Sent {
        self.next_order += 1;
        self.keeping += usize::from(stage == Stage::Keeping);
        let sent = Sent {
            order: self.next_order,
            delivery,
            qos,
            stage,
            waits: false,
            trace: None,
        };
        self.sent.entry(packet_id).insert_entry(sent).into_mut()
    }

    #[cfg(test)]
    pub(super) fn sent_len(&self) -> usize {
        self.sent.len()
    }

    #[cfg(test)]
    pub(super) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    fn push(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.message().size_bytes();
        self.queue.push_back(delivery);
    }

    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queue_bytes -= delivery.message().size_bytes();
        Some(delivery)
    }
}

/// A delivery that is in the window or in the queue.
pub(super) struct Known<'a> {
    pub(super) delivery: &'a mut Delivery,
    /// What the queue counts, where it is in there.
    queue_bytes: Option<&'a mut usize>,
}

impl Known<'_> {
    /// This copy of the same message takes the place of the other: it knows where it lies. Somebody may have changed
    /// its row, so it need not be as large.
    pub(super) fn replace_with(&mut self, run: &Arc<Run>, index: usize) {
        let before = self.delivery.message().size_bytes();
        (self.delivery.run, self.delivery.index) = (Arc::clone(run), index);
        if let Some(bytes) = &mut self.queue_bytes {
            **bytes = **bytes - before + self.delivery.message().size_bytes();
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enqueued {
    /// It was sent, queued, or dropped for a reason of its own and counted.
    Done,
    /// The queue is full.
    Full,
}

impl Session {
    /// Sends a message, or queues it while the window is full or the client is away.
    pub(super) fn enqueue(&mut self, delivery: Delivery, now: &mut Now<'_>, steps: &mut Steps) -> Enqueued {
        if delivery.qos == Qos::AtMostOnce {
            if self.link.is_some() {
                self.send(delivery, now, steps);
                return Enqueued::Done;
            }
            if !self.limits.queue_qos0 {
                self.books.dropped_offline += 1;
                return Enqueued::Done;
            }
        } else if self.link.is_some() && self.outbound.is_free(delivery.qos) {
            self.send(delivery, now, steps);
            return Enqueued::Done;
        }
        let Outbound { queue, queue_bytes, .. } = &mut self.outbound;
        let Some(gone) = make_room(queue, queue_bytes, &delivery, &self.limits) else {
            return Enqueued::Full;
        };
        self.evicted(gone);
        if self.link.is_none()
            && let Some(group) = &delivery.share
            && !matches!(steps.back(), Some(Step::Offer(last)) if last == group)
        {
            steps.push_back(Step::Offer(Arc::clone(group)));
        }
        let delivery = delivery.behind(self.outbound.queue.len(), self.kept_bytes_max());
        self.readers.follow(&delivery);
        self.outbound.push(delivery);
        Enqueued::Done
    }

    /// How many bytes of larger buffers the messages that wait may keep. Nobody knows how long they wait for a client
    /// that is away.
    pub(super) fn kept_bytes_max(&self) -> usize {
        match &self.link {
            Some(_) => self.limits.queue_bytes_max,
            None => 0,
        }
    }

    /// Sends what waits as far as the window goes, then lets replays read on.
    pub(super) fn pump(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        self.go_on_resending(now, steps);
        while let Some(next) = self.outbound.queue.front()
            && self.link.is_some()
            && self.outbound.takes(next.qos)
        {
            let Some(delivery) = self.outbound.pop() else { break };
            self.send(delivery, now, steps);
        }
        self.ask_on(steps);
    }

    /// Whether the client does not accept so large a packet ([MQTT-3.1.2-24]).
    pub(super) fn is_too_large(&self, delivery: &Delivery, expiry_s: Option<u32>) -> bool {
        let accepted = self.link.as_ref().and_then(|link| link.packet_bytes_max);
        accepted.is_some_and(|max| {
            let copy = copy_of(delivery, 0, false, expiry_s);
            codec::publish_bytes(self.version, &copy) > max as usize
        })
    }

    fn send(&mut self, delivery: Delivery, now: &mut Now<'_>, steps: &mut Steps) {
        let message = delivery.message();
        if message.expired(now.wall) {
            self.books.dropped_expired += 1;
            return self.count_as_done(&delivery, now);
        }
        let expiry_s = remaining_s(message.expires, now.wall);
        if self.is_too_large(&delivery, expiry_s) {
            self.books.dropped_too_large += 1; // [MQTT-3.1.2-25]: as if it had been sent
            return self.count_as_done(&delivery, now);
        }
        let mut packet_id = 0;
        if delivery.qos > Qos::AtMostOnce {
            packet_id = self.outbound.new_id();
            self.readers.follow(&delivery);
            if delivery.qos == Qos::ExactlyOnce && self.is_kept() {
                return self.begin_exchange(packet_id, delivery, steps);
            }
            let copy = Some(delivery.clone());
            self.outbound.insert(packet_id, copy, delivery.qos, Stage::Published);
        }
        self.transmit(packet_id, &delivery, now, steps);
    }

    /// Writes a PUBLISH for the first time.
    pub(super) fn transmit(&mut self, packet_id: u16, delivery: &Delivery, now: &Now<'_>, steps: &mut Steps) {
        self.books.sent[delivery.qos as usize] += 1;
        if now.interest.delivered {
            let client = Arc::clone(&self.client);
            let message = delivery.message().clone();
            steps.push_back(Step::Fire(Event::MessageDelivered { client, message }));
        }
        let expiry_s = remaining_s(delivery.message().expires, now.wall);
        let copy = copy_of(delivery, packet_id, false, expiry_s);
        steps.push_back(Step::Send(Outgoing::Publish(copy)));
    }

    /// A message that is never sent must not hold its readers' positions.
    pub(super) fn count_as_done(&mut self, delivery: &Delivery, now: &Now<'_>) {
        self.readers.follow(delivery);
        self.acked_for_readers(delivery, now);
    }

    /// The client has the message: positions may move, and what is retained may have been sent.
    fn acked_for_readers(&mut self, delivery: &Delivery, now: &Now<'_>) {
        let moves = self.readers.acked(delivery);
        if self.rounds.acked(delivery.round) || moves {
            self.positions_later(now.instant);
        }
    }

    /// PUBACK, PUBREC or PUBCOMP from the client.
    pub(super) fn acked(&mut self, ack: Ack, now: &mut Now<'_>, steps: &mut Steps) {
        let packet_id = ack.packet_id;
        let known = self.outbound.sent.get(&packet_id).map(|sent| (sent.qos, sent.stage));
        self.outbound.need_not_wait(packet_id);
        match (ack.kind, known) {
            (AckKind::PubAck, Some((Qos::AtLeastOnce, Stage::Published))) => {
                let sent = self.outbound.sent.remove(&packet_id);
                self.heard(sent.and_then(|sent| sent.delivery), now, steps);
            }
            (AckKind::PubRec, Some((Qos::ExactlyOnce, Stage::Published))) => {
                self.received_by_client(packet_id, ack.reason, now, steps);
            }
            // A PUBREC that was sent again, while ours is under way or has left.
            (AckKind::PubRec, Some((Qos::ExactlyOnce, Stage::Releasing))) => return,
            (AckKind::PubRec, Some((Qos::ExactlyOnce, Stage::Released))) => {
                steps.push_back(release(packet_id, Reason::SUCCESS));
            }
            (AckKind::PubComp, Some((Qos::ExactlyOnce, Stage::Released))) => self.end_exchange(packet_id, now),
            // A refusal ends the exchange at both ends: there is nothing to release.
            (AckKind::PubRec, None) if !ack.reason.is_error() => {
                steps.push_back(release(packet_id, Reason::PACKET_IDENTIFIER_NOT_FOUND));
            }
            // An answer to nothing (a late resend) is harmless; one of the wrong kind is not.
            (_, None) => return,
            (_, Some(_)) => return self.close(Reason::PROTOCOL_ERROR, now, steps),
        }
        self.pump(now, steps);
    }

    /// The client has the message: rules run, positions may move.
    pub(super) fn heard(&mut self, delivery: Option<Delivery>, now: &mut Now<'_>, steps: &mut Steps) {
        let Some(delivery) = delivery else { return };
        if now.interest.acked {
            let event = Event::MessageAcked {
                client: Arc::clone(&self.client),
                message: delivery.message().clone(),
            };
            steps.push_back(Step::Fire(event));
        }
        self.acked_for_readers(&delivery, now);
    }
}

/// PUBREL.
pub(super) fn release(packet_id: u16, reason: Reason) -> Step {
    let kind = AckKind::PubRel;
    Step::Send(Outgoing::Ack(Ack {
        kind,
        packet_id,
        reason,
    }))
}

pub(super) fn copy_of(delivery: &Delivery, packet_id: u16, dup: bool, expiry_s: Option<u32>) -> Copy {
    Copy {
        run: Arc::clone(&delivery.run),
        index: delivery.index,
        dup: dup && delivery.qos > Qos::AtMostOnce,
        qos: delivery.qos,
        retain: delivery.retain,
        packet_id,
        identifiers: Arc::clone(&delivery.identifiers),
        expiry_s,
        alias: None,
    }
}

/// Whole seconds that are left of an expiry, at least 1 while it has not passed.
pub(super) fn remaining_s(expires: Option<SystemTime>, wall: SystemTime) -> Option<u32> {
    let left = expires?.duration_since(wall).ok()?;
    Some(
        u32::try_from(left.as_millis().div_ceil(1000))
            .unwrap_or(u32::MAX)
            .max(1),
    )
}
