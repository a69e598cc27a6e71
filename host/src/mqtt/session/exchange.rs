//! QoS 2 to the client (MQTT 4.3.3). The exchanges of a kept session are written to its store before the client
//! can see them, and stay there until no position can bring their message back (spec C16).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::delivery::{Place, PoolName, Position, Run, Stored};
use crate::model::id::MessageId;
use crate::model::message::Qos;
use crate::model::reason::Reason;
use crate::model::session::{Direction, SavedSent};
use crate::model::topic::Topic;

use super::keep::{Held, end_of_exchange, exchange};
use super::outbound::{Delivery, Outbound, Sent, Stage, release};
use super::retained::RoundKey;
use super::{Now, Session, Steps};

/// Ended exchanges that wait for a position to pass them. With so many, nothing new is sent: the client leaves an
/// old message unacknowledged.
const FINISHED_MAX: usize = 10_000;

/// With so many, none waits for the end of a SUBSCRIBE's retained messages any more.
const REMEMBERED_FOR_ROUNDS_MAX: usize = FINISHED_MAX / 2;

/// What is kept of a sent message, beside its packet identifier.
#[derive(Clone, Debug)]
pub(super) struct Trace {
    id: MessageId,
    /// The pool that keeps the session, or kept it then.
    pool: PoolName,
    /// Its topic, where it has a place.
    topic: Option<Topic>,
    /// Where it lies in that pool, if it does.
    place: Option<Position>,
    /// A retained message may be read again while this round or one before it has not ended.
    round: Option<RoundKey>,
}

/// The exchanges that the client has ended or half ended.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// The client has these messages, and a reader could still find them unread.
    heard: HashSet<MessageId, RandomState>,
    /// Ended by the client, still in the store: packet identifier and message.
    finished: VecDeque<(u16, Trace)>,
}

impl Exchanges {
    pub(super) fn is_full(&self) -> bool {
        self.finished.len() >= FINISHED_MAX
    }

    /// Whether the client has said PUBREC for this message.
    pub(super) fn has(&self, id: MessageId) -> bool {
        self.heard.contains(&id)
    }
}

impl Trace {
    fn of(delivery: &Delivery, pool: &PoolName, round: Option<RoundKey>) -> Self {
        let message = delivery.message();
        let stored = delivery.run.stored_in(pool);
        let place = stored.map(|stored| stored.place(delivery.index, message.id));
        Self {
            id: message.id,
            pool: pool.clone(),
            topic: Some(message.topic.detached()),
            place: match place {
                Some(Place::At(position)) => Some(position),
                Some(Place::Pending | Place::Nowhere) | None => None,
            },
            round: round.filter(|_| message.retain),
        }
    }
}

impl Sent {
    fn message_id(&self) -> Option<MessageId> {
        let known = self.trace.as_ref().map(|trace| trace.id);
        known.or_else(|| Some(self.delivery.as_ref()?.message().id))
    }
}

impl Outbound {
    /// What was found in a store, in the order in which it was sent. The deliveries get their terms from the
    /// subscriptions later. `round` is the latest one that was found with them.
    pub(super) fn restore(&mut self, found: Vec<SavedSent>, pool: &PoolName, round: Option<RoundKey>) {
        for SavedSent {
            packet_id,
            id,
            released,
            message,
        } in found
        {
            // A packet identifier that was used again: the older exchange had ended.
            if let Some(older) = self.sent.remove(&packet_id) {
                let trace = older.trace;
                self.exchanges.finished.extend(trace.map(|trace| (packet_id, trace)));
            }
            let place = message.as_ref().map(|(place, _)| *place);
            let topic = message.as_ref().map(|(_, message)| message.topic.clone());
            let may_be_retained = message.as_ref().is_none_or(|(_, message)| message.retain);
            let round = round.filter(|_| may_be_retained);
            let delivery = message.filter(|_| !released).map(|(place, message)| {
                let stored = Stored::new(pool.clone(), std::iter::once(true));
                stored.settle_at(0, place);
                Delivery {
                    run: Arc::new(Run::new(vec![message], vec![stored])),
                    index: 0,
                    qos: Qos::ExactlyOnce,
                    retain: false,
                    identifiers: Arc::default(),
                    readers: Default::default(),
                    round: None,
                    share: None,
                }
            });
            // What the store has no more cannot be sent again; the client may still hold its identifier.
            let stage = if delivery.is_some() {
                Stage::Published
            } else {
                Stage::Released
            };
            if stage == Stage::Released {
                self.exchanges.heard.insert(id);
            }
            let sent = self.insert(packet_id, delivery, Qos::ExactlyOnce, stage);
            sent.trace = Some(Trace {
                id,
                pool: pool.clone(),
                topic,
                place,
                round,
            });
        }
    }

    /// Whether this message of QoS 2 is under way to the client, or was and is remembered.
    pub(super) fn has_begun(&self, id: MessageId) -> bool {
        let mut sent = self.sent.values().filter(|sent| sent.qos == Qos::ExactlyOnce);
        self.exchanges.has(id) || sent.any(|sent| sent.message_id() == Some(id))
    }

    /// Whether an exchange of this message goes on under this packet identifier.
    fn is_under_way(&self, packet_id: u16, id: MessageId) -> bool {
        let sent = self.sent.get(&packet_id);
        sent.and_then(Sent::message_id).is_some_and(|known| known == id)
    }

    /// Every exchange that the client has not ended or that a position has not passed, to be kept anew: packet
    /// identifier, message, whether it was released, and what waits for it.
    pub(super) fn exchanges(&mut self) -> Vec<(u16, MessageId, bool, Held)> {
        let finished = self.exchanges.finished.iter();
        let mut all: Vec<_> = finished
            .map(|(packet_id, trace)| (*packet_id, trace.id, true, Held::Nothing))
            .collect();
        for (packet_id, sent) in &mut self.sent {
            let Some(id) = sent.message_id().filter(|_| sent.qos == Qos::ExactlyOnce) else {
                continue;
            };
            let (released, held) = match sent.stage {
                Stage::Keeping => (false, Held::Publish(*packet_id)),
                Stage::Due | Stage::Published => (false, Held::Nothing),
                Stage::Releasing => (true, Held::PubRel(*packet_id)),
                Stage::Released => (true, Held::Nothing),
            };
            all.push((*packet_id, id, released, held));
        }
        all.sort_unstable_by_key(|(_, id, ..)| *id);
        all
    }
}

impl Session {
    /// A message takes its packet identifier; its PUBLISH leaves when that is kept.
    pub(super) fn begin_exchange(&mut self, packet_id: u16, delivery: Delivery, steps: &mut Steps) {
        let id = delivery.message().id;
        self.outbound
            .insert(packet_id, Some(delivery), Qos::ExactlyOnce, Stage::Keeping);
        let begin = |client| exchange(client, Direction::Sent, packet_id, id, false);
        self.keep(begin, Held::Publish(packet_id), steps);
    }

    /// The exchange is kept: its PUBLISH leaves, or waits for the client.
    pub(super) fn transmit_kept(&mut self, packet_id: u16, now: &mut Now<'_>, steps: &mut Steps) {
        let keeping = |stage: Stage| stage == Stage::Keeping;
        let sent = self.outbound.sent.get_mut(&packet_id);
        let Some(sent) = sent.filter(|sent| keeping(sent.stage)) else {
            return;
        };
        sent.stage = Stage::Due;
        self.outbound.keeping -= 1;
        let leaves = self.outbound.leaves_now(packet_id, self.link.is_some());
        let sent = self.outbound.sent.get_mut(&packet_id).filter(|_| leaves);
        let delivery = sent.and_then(|sent| {
            sent.stage = Stage::Published;
            sent.delivery.clone()
        });
        if let Some(delivery) = delivery {
            self.transmit(packet_id, &delivery, now, steps);
        }
        if self.outbound.keeping == 0 {
            self.pump(now, steps);
        }
    }

    /// PUBREC: the client has the message, or does not want it ([MQTT-4.3.3-4]: then no PUBREL follows).
    pub(super) fn received_by_client(&mut self, packet_id: u16, reason: Reason, now: &mut Now<'_>, steps: &mut Steps) {
        let pool = self.keeper.pool().cloned();
        let Some(sent) = self.outbound.sent.get_mut(&packet_id) else {
            return;
        };
        let delivery = sent.delivery.take();
        if let (Some(pool), Some(delivery)) = (&pool, &delivery) {
            sent.trace = Some(Trace::of(delivery, pool, self.rounds.latest()));
        }
        // Kept, now or when the session was restored.
        let id = sent.trace.as_ref().map(|trace| trace.id);
        let refused = reason.is_error();
        sent.stage = if pool.is_some() {
            Stage::Releasing
        } else {
            Stage::Released
        };
        self.heard(delivery, now, steps);
        self.outbound.exchanges.heard.extend(id);
        match id.filter(|_| pool.is_some()) {
            Some(id) => {
                let held = if refused {
                    Held::Nothing
                } else {
                    Held::PubRel(packet_id)
                };
                self.keep(
                    |client| exchange(client, Direction::Sent, packet_id, id, true),
                    held,
                    steps,
                );
            }
            None if !refused => self.send_release(packet_id, steps),
            None => {}
        }
        if refused {
            self.end_exchange(packet_id, now);
        }
    }

    /// The client's PUBREC is kept: PUBREL leaves, now or when it is back.
    pub(super) fn send_release(&mut self, packet_id: u16, steps: &mut Steps) {
        let Some(sent) = self.outbound.sent.get_mut(&packet_id) else {
            return;
        };
        sent.stage = Stage::Released;
        if self.link.is_some() {
            steps.push_back(release(packet_id, Reason::SUCCESS));
        }
    }

    /// PUBCOMP: the packet identifier is free.
    pub(super) fn end_exchange(&mut self, packet_id: u16, now: &Now<'_>) {
        let Some(sent) = self.outbound.sent.remove(&packet_id) else {
            return;
        };
        if let Some(trace) = sent.trace {
            self.outbound.exchanges.finished.push_back((packet_id, trace));
            self.positions_later(now.instant);
        }
    }

    /// Ends the exchanges that no reader can find unread any more, in the store too. Those of a session that is kept no
    /// longer are still known here until then: its readers read what they would read anyway.
    pub(super) fn end_exchanges(&mut self, steps: &mut Steps) {
        // Who has so many retained messages of QoS 2 gets some of them twice after a crash, and goes on.
        let is_crowded = self.outbound.exchanges.finished.len() >= REMEMBERED_FOR_ROUNDS_MAX;
        for (packet_id, trace) in std::mem::take(&mut self.outbound.exchanges.finished) {
            let lies = trace.topic.as_ref().zip(trace.place);
            let passed = lies.is_none_or(|(topic, place)| self.readers.have_passed(&trace.pool, topic, place));
            if !passed || !(is_crowded || self.rounds.have_ended(trace.round)) {
                self.outbound.exchanges.finished.push_back((packet_id, trace));
                continue;
            }
            self.outbound.exchanges.heard.remove(&trace.id);
            // A retained message may be sent again under the same packet identifier: then the row is the new one's.
            if self.outbound.is_under_way(packet_id, trace.id) {
                continue;
            }
            let end = |client| end_of_exchange(client, Direction::Sent, packet_id, trace.id);
            self.keep(end, Held::Nothing, steps);
        }
    }
}
