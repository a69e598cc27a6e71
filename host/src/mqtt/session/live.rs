//! Live messages on their way to the client, or into the hold while older ones are read (spec C11).

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::delivery::{Place, PoolName, Position, Run};
use crate::model::id::MessageId;
use crate::model::message::Qos;
use crate::mqtt::limits::Limits;

use super::eviction::make_room;
use super::outbound::{Delivery, Enqueued};
use super::reader::ReaderKey;
use super::subscribe::Sub;
use super::{Now, Session, Steps, SubId};

/// Live messages that wait until older ones were read.
#[derive(Debug, Default)]
pub(super) struct Hold {
    pub(super) held: VecDeque<Delivery>,
    pub(super) bytes: usize,
    /// Stored messages were dropped from it: the store must be read again.
    pub(super) overflowed: bool,
    /// The first stored message that was dropped before the reader knew where it begins.
    pub(super) earliest: Option<(Arc<Run>, usize)>,
}

/// On which terms a run of messages is delivered.
pub(super) struct Terms {
    granted: Qos,
    keep_retain: bool,
    identifiers: Arc<[u32]>,
    readers: SmallVec<[ReaderKey; 2]>,
    share: Option<Arc<str>>,
}

impl Hold {
    /// Puts a message in, where there is room. Answers who had to go for it.
    pub(super) fn push(&mut self, delivery: Delivery, limits: &Limits) -> Option<Vec<Delivery>> {
        let gone = make_room(&mut self.held, &mut self.bytes, &delivery, limits)?;
        self.bytes += delivery.message().size_bytes();
        self.held.push_back(delivery);
        Some(gone)
    }

    /// Drops what the store has; the rest stays until it may be sent. Answers whose readers will have to find it.
    pub(super) fn overflow(&mut self) -> Vec<ReaderKey> {
        self.overflowed = true;
        let stored = self.held.iter().find(|delivery| !delivery.readers.is_empty());
        if let (None, Some(first)) = (&self.earliest, stored) {
            self.earliest = Some((Arc::clone(&first.run), first.index));
        }
        let mut readers: Vec<ReaderKey> = self.held.iter().flat_map(|delivery| delivery.readers.clone()).collect();
        readers.sort_unstable();
        readers.dedup();
        self.held.retain(|delivery| delivery.readers.is_empty());
        self.bytes = self.held.iter().map(|delivery| delivery.message().size_bytes()).sum();
        readers
    }

    /// Takes out the first message that lies before `position`, where its reader begins behind it: it was published
    /// after the SUBSCRIBE and stored before the row that says where to begin.
    pub(super) fn take_before(&mut self, pool: &PoolName, position: Position) -> Option<Delivery> {
        let lies_before = |delivery: &Delivery| {
            let stored = delivery.run.stored_in(pool);
            let place = stored.map(|stored| stored.place(delivery.index, delivery.message().id));
            matches!(place, Some(Place::At(place)) if place < position)
        };
        let at = self.held.iter().position(lies_before)?;
        let delivery = self.held.remove(at)?;
        self.bytes -= delivery.message().size_bytes();
        Some(delivery)
    }

    /// Takes out what the store does not have, in order.
    fn take_unstored(&mut self) -> VecDeque<Delivery> {
        let (unstored, stored) = self.held.drain(..).partition(|delivery| delivery.readers.is_empty());
        self.held = stored;
        self.bytes = self.held.iter().map(|delivery| delivery.message().size_bytes()).sum();
        unstored
    }

    /// What was held for this reader is held for those in its place.
    pub(super) fn pass_on(&mut self, gone: ReaderKey, keys: &[ReaderKey]) {
        for delivery in &mut self.held {
            if let Some(at) = delivery.readers.iter().position(|key| *key == gone) {
                delivery.readers.remove(at);
                let new = keys.iter().filter(|key| !delivery.readers.contains(key));
                let new: SmallVec<[ReaderKey; 2]> = new.copied().collect();
                delivery.readers.extend(new);
            }
        }
    }

    /// Whether a message waits here that this one must not overtake ([MQTT-4.6.0-6]).
    fn precedes(&self, delivery: &Delivery) -> bool {
        let same = |held: &Delivery| held.qos == delivery.qos && held.message().topic == delivery.message().topic;
        self.held.iter().any(same)
    }

    pub(super) fn holds(&self, id: MessageId) -> bool {
        self.held.iter().any(|delivery| delivery.message().id == id)
    }

    /// Takes this message out for another subscription's reader, and what came before it on its topic. The rest waits
    /// for what this subscription has still to read before it.
    pub(super) fn take_with_its_topic(&mut self, id: MessageId) -> Option<(Vec<Delivery>, Delivery)> {
        self.take_up_to(id, |before, found| before.message().topic == found.message().topic)
    }

    /// Takes this message out, and what came before it: that must not follow it.
    pub(super) fn take_through(&mut self, id: MessageId) -> Option<(Vec<Delivery>, Delivery)> {
        self.take_up_to(id, |_, _| true)
    }

    /// Takes this message out, and of what came before it whatever `goes` with it.
    fn take_up_to(
        &mut self,
        id: MessageId,
        goes: impl Fn(&Delivery, &Delivery) -> bool,
    ) -> Option<(Vec<Delivery>, Delivery)> {
        let at = self.held.iter().position(|delivery| delivery.message().id == id)?;
        let behind = self.held.split_off(at + 1);
        let found = self.held.pop_back()?;
        let (before, stays): (VecDeque<Delivery>, VecDeque<Delivery>) =
            self.held.drain(..).partition(|delivery| goes(delivery, &found));
        self.held = stays;
        self.held.extend(behind);
        let taken = before.iter().chain([&found]);
        self.bytes -= taken.map(|delivery| delivery.message().size_bytes()).sum::<usize>();
        Some((before.into(), found))
    }
}

impl Session {
    /// Live messages that match these subscriptions of ours.
    pub fn deliver(&mut self, run: &Arc<Run>, subs: &[SubId], now: &mut Now<'_>, steps: &mut Steps) {
        let from_us = run.messages[0].from == self.client.id;
        let Some(terms) = self.terms(subs, from_us) else { return };
        for (index, message) in run.messages.iter().enumerate() {
            if subs.iter().any(|sub| {
                self.subscriptions
                    .subs
                    .get_mut(sub)
                    .is_some_and(|sub| sub.has_sent(message.id))
            }) {
                // A replay was faster than the live copy, which counts for every reader.
                let late = self.on_terms(&terms, run, index);
                self.count_for_readers(&late, now);
                continue;
            }
            let delivery = self.on_terms(&terms, run, index);
            self.deliver_or_hold(delivery, subs, now, steps);
        }
    }

    /// The client has this message, or it is on its way, as another copy.
    fn count_for_readers(&mut self, late: &Delivery, now: &Now<'_>) {
        self.readers.follow(late);
        match self.outbound.find(late.message().id) {
            Some(mut known) => {
                let readers = &mut known.delivery.readers;
                let new = late.readers.iter().filter(|key| !readers.contains(key));
                let new: SmallVec<[ReaderKey; 2]> = new.copied().collect();
                readers.extend(new);
                if known.delivery.run.stored.is_empty() {
                    // A retained copy knows no place.
                    known.replace_with(&late.run, late.index);
                }
            }
            None => {
                if self.readers.acked(late) {
                    self.positions_later(now.instant);
                }
            }
        }
    }

    /// A message as it goes to the client, live or from a store.
    pub(super) fn on_terms(&self, terms: &Terms, run: &Arc<Run>, index: usize) -> Delivery {
        let message = &run.messages[index];
        let qos = self.granted(terms.granted, message.qos);
        let stored = terms.readers.iter().copied();
        let stored: SmallVec<[ReaderKey; 1]> = stored.filter(|key| self.readers.covers(*key, run, index)).collect();
        Delivery {
            run: Arc::clone(run),
            index,
            qos,
            retain: terms.keep_retain && message.retain,
            identifiers: Arc::clone(&terms.identifiers),
            readers: if qos > Qos::AtMostOnce { stored } else { SmallVec::new() },
            round: None,
            share: terms.share.clone(),
        }
    }

    /// The QoS of a message published with `published` for a subscription that was granted `granted`.
    pub(super) fn granted(&self, granted: Qos, published: Qos) -> Qos {
        match self.limits.upgrade_qos {
            true => granted,
            false => granted.min(published),
        }
    }

    /// What holds for a message that matches all of these subscriptions: one copy with the highest QoS and
    /// every identifier ([MQTT-3.3.4-2], [MQTT-3.3.4-3]).
    pub(super) fn terms(&self, subs: &[SubId], from_us: bool) -> Option<Terms> {
        let known = subs.iter().filter_map(|sub| self.subscriptions.subs.get(sub));
        let matched: SmallVec<[&Sub; 2]> = known.filter(|sub| !(from_us && sub.subscription.no_local)).collect();
        Some(Terms {
            granted: matched.iter().map(|sub| sub.subscription.qos).max()?,
            keep_retain: matched.iter().any(|sub| sub.subscription.retain_as_published),
            identifiers: match matched.as_slice() {
                [only] => Arc::clone(&only.identifiers),
                many => {
                    let identifiers = many.iter().flat_map(|sub| sub.identifiers.iter().copied());
                    let mut identifiers: SmallVec<[u32; 4]> = identifiers.collect();
                    identifiers.sort_unstable();
                    identifiers.as_slice().into()
                }
            },
            share: matched.first().and_then(|sub| sub.share.clone()),
            readers: matched.iter().flat_map(|sub| sub.readers.iter().copied()).collect(),
        })
    }

    fn deliver_or_hold(&mut self, delivery: Delivery, subs: &[SubId], now: &mut Now<'_>, steps: &mut Steps) {
        let kept_bytes_max = self.kept_bytes_max();
        let replay = subs.iter().find_map(|sub| {
            let known = self.subscriptions.subs.get(sub)?;
            known.replay.as_ref().map(|_| *sub)
        });
        let replay = replay.and_then(|sub| self.subscriptions.subs.get_mut(&sub)?.replay.as_mut());
        let Some(replay) = replay else {
            return self.enqueue_or_defer(delivery, now, steps);
        };
        let is_stored = !delivery.readers.is_empty();
        if is_stored && replay.hold.overflowed {
            self.books.deferred += 1;
            return self.read_later(delivery.readers, steps);
        }
        // An older retained message must not follow a newer one, nor any message one before it. Otherwise a backlog
        // may take for ever, and what the store does not have cannot wait for it.
        let waits = replay.sends_retained() || replay.hold.precedes(&delivery);
        if !is_stored && (replay.hold.overflowed || !waits) {
            // What it would overtake leaves before it, once nothing that the store has is held in front of that.
            let earlier = if replay.hold.overflowed {
                replay.hold.take_unstored()
            } else {
                VecDeque::new()
            };
            for earlier in earlier {
                self.enqueue_or_defer(earlier, now, steps);
            }
            return self.enqueue_or_defer(delivery, now, steps);
        }
        let delivery = delivery.behind(replay.hold.held.len(), kept_bytes_max);
        let readers = delivery.readers.clone();
        match replay.hold.push(delivery, &self.limits) {
            Some(gone) => self.evicted(gone),
            None if is_stored => {
                self.books.deferred += 1;
                let dropped = replay.hold.overflow();
                self.read_later(readers.into_iter().chain(dropped), steps);
            }
            None => self.books.dropped_queue_full += 1,
        }
    }

    /// What was held for these readers is left to the store. The hold may be another subscription's, whose end would
    /// not make them read.
    pub(super) fn read_later(&mut self, readers: impl IntoIterator<Item = ReaderKey>, steps: &mut Steps) {
        let mut any = false;
        for key in readers {
            let sub = self
                .readers
                .get(key)
                .and_then(|reading| self.subscriptions.subs.get(&reading.sub));
            let replay = sub.and_then(|sub| sub.replay.as_ref());
            if !replay.is_some_and(|replay| replay.hold.overflowed) {
                self.catch_up(key);
                any = true;
            }
        }
        if any {
            self.ask_on(steps);
        }
    }

    pub(super) fn enqueue_or_defer(&mut self, delivery: Delivery, now: &mut Now<'_>, steps: &mut Steps) {
        let readers = delivery.readers.clone();
        if self.enqueue(delivery, now, steps) == Enqueued::Done {
            return;
        }
        if readers.is_empty() {
            self.books.dropped_queue_full += 1;
            return;
        }
        self.books.deferred += 1;
        readers.into_iter().for_each(|key| self.catch_up(key));
    }
}
