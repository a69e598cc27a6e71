//! Messages from the client: PUBLISH, its gate, and QoS 2 up to PUBREL.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::model::delivery::Settled;
use crate::model::id::MessageId;
use crate::model::message::{Message, Qos};
use crate::model::reason::Reason;
use crate::model::session::Direction;
use crate::model::topic::Topic;
use crate::mqtt::limits::Limit;
use crate::mqtt::packet::{Ack, AckKind, Outgoing, Publish, Version};

use super::gates::{Gate, refusal};
use super::keep::{Held, end_of_exchange};
use super::reserved::is_reserved;
use super::{Map, Now, Session, Step, Steps};

/// What the session remembers of received messages beyond their gates.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// QoS 2 packet identifiers between PUBLISH and PUBREL ([MQTT-4.3.3-10]).
    unreleased: Map<u16, Unreleased>,
    /// Answers that nobody heard because the socket had gone: a resend gets them, if it is the same message. Of QoS 2
    /// those are refusals; what was taken is known as unreleased.
    unheard: Map<u16, Unheard>,
    /// PUBLISH of QoS 1 and 2 on this connection whose exchange has not ended: what Receive Maximum counts. It
    /// begins anew with every connection (4.9).
    in_flight: usize,
    hasher: RandomState,
}

/// An answer that nobody heard.
#[derive(Clone, Copy, Debug)]
struct Unheard {
    qos: Qos,
    fingerprint: u64,
    result: Settled,
}

/// A received QoS 2 message without PUBREL.
#[derive(Clone, Copy, Debug)]
struct Unreleased {
    id: MessageId,
    /// Its PUBREL came: the end of the exchange is on its way into the store.
    is_ending: bool,
    /// The client on the present connection awaits PUBCOMP.
    owed: bool,
}

impl Received {
    /// What was found in a store.
    pub(super) fn restore(&mut self, received: Vec<(u16, MessageId)>) {
        self.unreleased = received
            .into_iter()
            .map(|(packet_id, id)| (packet_id, Unreleased::new(id)))
            .collect();
    }

    /// QoS 2 messages without PUBREL.
    pub(super) fn count_unreleased(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether no answer waits for a resend.
    pub(super) fn has_told_all(&self) -> bool {
        self.unheard.is_empty() && self.unreleased.values().all(|known| !known.is_ending)
    }

    /// Every message without PUBREL, to be kept anew.
    pub(super) fn unreleased(&mut self) -> Vec<(u16, MessageId)> {
        let all = self.unreleased.iter_mut().map(|(packet_id, known)| {
            known.is_ending = false;
            (*packet_id, known.id)
        });
        all.collect()
    }

    /// The client is connected anew.
    pub(super) fn begin_connection(&mut self) {
        self.in_flight = 0;
    }

    /// The client has gone: nobody awaits a PUBCOMP, unless it asks again.
    pub(super) fn nobody_waits(&mut self) {
        self.unreleased.values_mut().for_each(|known| known.owed = false);
    }

    fn fingerprint(&self, topic: &Topic, publish: &Publish) -> u64 {
        // Of QoS 0 nothing is ever sent again.
        if publish.qos == Qos::AtMostOnce {
            return 0;
        }
        self.hasher
            .hash_one((topic.as_str(), publish.properties.as_bytes(), &publish.payload))
    }
}

impl Unreleased {
    fn new(id: MessageId) -> Self {
        Self {
            id,
            is_ending: false,
            owed: false,
        }
    }
}

impl Session {
    pub(super) fn publish(&mut self, publish: Publish, now: &mut Now<'_>, steps: &mut Steps) {
        let named = publish.topic.as_ref();
        if let Some(limit) = named.and_then(|topic| self.limits.exceeded_by(topic.as_str())) {
            return self.close_over(limit, Reason::TOPIC_NAME_INVALID, now, steps);
        }
        let topic = match self.topic_of(&publish) {
            Ok(topic) => topic,
            Err(reason) => return self.close(reason, now, steps),
        };
        if publish.qos > self.limits.qos_max {
            return self.close(Reason::QOS_NOT_SUPPORTED, now, steps);
        }
        if publish.qos > Qos::AtMostOnce {
            if self.version == Version::V5 && self.received.in_flight >= usize::from(self.limits.receive_max) {
                // [MQTT-3.3.4-7]
                return self.close_over(Limit::ReceiveMaximum, Reason::RECEIVE_MAXIMUM_EXCEEDED, now, steps);
            }
            self.received.in_flight += 1;
        }
        let fingerprint = self.received.fingerprint(&topic, &publish);
        if self.is_resend(&publish, fingerprint, steps) {
            return;
        }
        let awaiting_max = self.limits.awaiting_release_max;
        if publish.qos == Qos::ExactlyOnce && awaiting_max > 0 && self.received.unreleased.len() >= awaiting_max {
            return self.close_over(Limit::AwaitingRelease, Reason::QUOTA_EXCEEDED, now, steps);
        }
        let id = now.ids.take();
        let exactly_once = publish.qos == Qos::ExactlyOnce;
        if exactly_once {
            self.received.unreleased.insert(publish.packet_id, Unreleased::new(id));
        }
        self.books.received[publish.qos as usize] += 1;
        let gate = Gate::new(publish.qos, publish.packet_id, fingerprint);
        if is_reserved(topic.as_str()) {
            return self.decline(gate, steps);
        }
        let ticket = self.gates.open(gate);
        let kept = (exactly_once && self.is_kept()).then_some(publish.packet_id);
        let message = Message {
            id,
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            from: self.client.id.clone(),
            at: now.wall,
            properties: publish.properties,
            expires: publish
                .expiry_s
                .map(|seconds| now.wall + Duration::from_secs(seconds.into())),
        };
        steps.push_back(Step::Publish { ticket, message, kept });
    }

    /// A message of the session's own (a will): it passes the rules like any other, but has no answer.
    pub(super) fn publish_for_nobody(&mut self, message: Message, steps: &mut Steps) {
        if is_reserved(message.topic.as_str()) {
            self.books.dropped_reserved += 1;
            return;
        }
        let ticket = self.gates.open(Gate::new(Qos::AtMostOnce, 0, 0));
        let kept = None;
        steps.push_back(Step::Publish { ticket, message, kept });
    }

    /// The topic that a PUBLISH means, aliases resolved (MQTT 5, 3.3.2.3.4).
    fn topic_of(&mut self, publish: &Publish) -> Result<Topic, Reason> {
        let Some(link) = &mut self.link else {
            return Err(Reason::PROTOCOL_ERROR);
        };
        match (&publish.topic, publish.alias) {
            (_, Some(alias)) if alias > self.limits.topic_alias_max => Err(Reason::TOPIC_ALIAS_INVALID),
            (Some(topic), Some(alias)) => {
                // The table outlives the turn, so it must not keep the turn's buffer.
                let topic = topic.detached();
                link.aliases.insert(alias, topic.clone());
                Ok(topic)
            }
            (None, Some(alias)) => link.aliases.get(&alias).cloned().ok_or(Reason::PROTOCOL_ERROR),
            (Some(topic), None) => Ok(topic.clone()),
            (None, None) => Err(Reason::PROTOCOL_ERROR),
        }
    }

    /// Whether this PUBLISH is one that we know: it joins its gate, or is answered from the result.
    fn is_resend(&mut self, publish: &Publish, fingerprint: u64, steps: &mut Steps) -> bool {
        let id = publish.packet_id;
        let unheard = self.received.unheard.remove(&id);
        let is_unreleased = publish.qos == Qos::ExactlyOnce && self.received.unreleased.contains_key(&id);
        match publish.qos {
            Qos::AtMostOnce => false,
            _ if !publish.dup && !is_unreleased => false,
            Qos::ExactlyOnce if is_unreleased => {
                if !self.gates.join(Qos::ExactlyOnce, id, fingerprint) {
                    let gate = Gate::new(Qos::ExactlyOnce, id, fingerprint);
                    self.gates.answer_again(gate, Settled::Stored);
                    self.answer_publishers(steps);
                }
                true
            }
            qos => {
                if qos == Qos::AtLeastOnce && self.gates.join(qos, id, fingerprint) {
                    return true;
                }
                // A reused packet identifier is a new message.
                let is_same = |it: &Unheard| it.qos == qos && it.fingerprint == fingerprint;
                let Some(Unheard { result, .. }) = unheard.filter(is_same) else {
                    return false;
                };
                self.gates.answer_again(Gate::new(qos, id, fingerprint), result);
                self.answer_publishers(steps);
                true
            }
        }
    }

    /// PUBREL: the client will not send this message again. Of a kept session PUBCOMP waits until the store has
    /// forgotten the packet identifier, or a message that reuses it would be taken for this one after a crash.
    pub(super) fn release(&mut self, ack: Ack, steps: &mut Steps) {
        let packet_id = ack.packet_id;
        self.received.unheard.remove(&packet_id);
        let Some(known) = self.received.unreleased.get_mut(&packet_id) else {
            return self.complete(packet_id, Reason::PACKET_IDENTIFIER_NOT_FOUND, steps);
        };
        known.owed = true;
        if std::mem::replace(&mut known.is_ending, true) {
            return;
        }
        let id = known.id;
        let end = |client| end_of_exchange(client, Direction::Received, packet_id, id);
        if self.keep(end, Held::PubComp(packet_id), steps).is_none() {
            self.released(packet_id, steps);
        }
    }

    /// The exchange has ended, in the store too.
    pub(super) fn released(&mut self, packet_id: u16, steps: &mut Steps) {
        let known = self.received.unreleased.remove(&packet_id);
        if self.link.is_some() && known.is_some_and(|known| known.owed) {
            self.complete(packet_id, Reason::SUCCESS, steps);
        }
    }

    fn complete(&mut self, packet_id: u16, reason: Reason, steps: &mut Steps) {
        self.received.in_flight = self.received.in_flight.saturating_sub(1);
        let ack = Ack {
            kind: AckKind::PubComp,
            packet_id,
            reason,
        };
        steps.push_back(Step::Send(Outgoing::Ack(ack)));
    }

    /// Sends what no longer waits for a commit.
    pub(super) fn answer_publishers(&mut self, steps: &mut Steps) {
        while let Some((gate, result)) = self.gates.next_answer() {
            match refusal(result) {
                _ if gate.counted => {}
                Some(_) => self.books.refused += 1,
                None if gate.stored => self.books.acked_stored += 1,
                None => self.books.acked_unstored += 1,
            }
            if refusal(result).is_some() && gate.qos == Qos::ExactlyOnce {
                // [MQTT-4.3.3-9]: a refusal frees the identifier.
                if let Some(Unreleased { id, .. }) = self.received.unreleased.remove(&gate.packet_id) {
                    let end = |client| end_of_exchange(client, Direction::Received, gate.packet_id, id);
                    self.keep(end, Held::Nothing, steps);
                }
            }
            let hears = self.link.as_ref().is_some_and(|link| !link.is_closing);
            if gate.owed && hears {
                self.tell_publisher(gate.qos, gate.packet_id, result, steps);
            } else if gate.qos == Qos::AtLeastOnce || refusal(result).is_some() {
                let unheard = Unheard {
                    qos: gate.qos,
                    fingerprint: gate.fingerprint,
                    result,
                };
                self.received.unheard.insert(gate.packet_id, unheard);
            }
        }
    }

    fn tell_publisher(&mut self, qos: Qos, packet_id: u16, result: Settled, steps: &mut Steps) {
        let kind = if qos == Qos::AtLeastOnce {
            AckKind::PubAck
        } else {
            AckKind::PubRec
        };
        match refusal(result) {
            // MQTT 3 has no negative answer: the client is closed and sends the message again (spec F3).
            // It hears nothing more: what else was to be said is said when it asks again.
            Some(reason) if self.version < Version::V5 => {
                if let Some(link) = &mut self.link {
                    link.is_closing = true;
                }
                steps.push_back(Step::Close(reason));
            }
            refused => {
                if qos == Qos::AtLeastOnce || refused.is_some() {
                    self.received.in_flight = self.received.in_flight.saturating_sub(1);
                }
                let ack = Ack {
                    kind,
                    packet_id,
                    reason: refused.unwrap_or(Reason::SUCCESS),
                };
                steps.push_back(Step::Send(Outgoing::Ack(ack)));
            }
        }
    }
}
