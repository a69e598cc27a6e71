//! What was read from a store, on its way to the client: each message once, whoever else has a copy of it.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::delivery::{Page, PoolName, Position, Run, Stored};
use crate::model::id::MessageId;
use crate::model::message::{Message, Qos};

use super::outbound::{Delivery, Enqueued};
use super::reader::ReaderKey;
use super::replay::From;
use super::subscribe::Subscriptions;
use super::{Now, ReadId, Session, Steps, SubId};

/// One row of a page.
struct Row<'a> {
    run: &'a Arc<Run>,
    index: usize,
    position: Position,
    /// The subscriptions that match.
    subs: SmallVec<[SubId; 4]>,
}

impl Session {
    /// The answer to [`super::Step::Read`]; `None` where the store could not be read in time.
    pub fn page(&mut self, read: ReadId, page: Option<Page>, now: &mut Now<'_>, steps: &mut Steps) {
        if let Some(sub) = self.readers.reads.remove(&read) {
            self.take_page(sub, read, page, now, steps);
            self.ask_on(steps);
        }
    }

    fn take_page(&mut self, sub: SubId, read: ReadId, page: Option<Page>, now: &mut Now<'_>, steps: &mut Steps) {
        let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
            return;
        };
        let Some(replay) = known.replay.as_mut().filter(|replay| replay.read == Some(read)) else {
            return;
        };
        replay.read = None;
        match (replay.sources.pop_front(), page) {
            (None, _) | (Some(From::Retained(..)), None) => {}
            (Some(From::Backlog(key, _)), None) => self.readers.leave_unread(key, now.instant),
            (Some(From::Retained(pool, _, left)), Some(page)) => {
                let sent = self.send_retained(sub, pool.as_ref(), &page, now, steps);
                let left = left.saturating_sub(sent);
                let (after, end) = match page.messages.get(sent) {
                    // The queue has no room: the rest is read again when it has.
                    Some((position, _)) => (Position(position.0 - 1), false),
                    None => (page.scanned, page.end),
                };
                let replay = self
                    .subscriptions
                    .subs
                    .get_mut(&sub)
                    .and_then(|sub| sub.replay.as_mut());
                if let Some(replay) = replay.filter(|_| !end && left > 0) {
                    replay.sources.push_front(From::Retained(pool, after, left));
                }
            }
            (Some(From::Backlog(key, left)), Some(page)) => self.send_backlog(sub, key, left, page, now, steps),
        }
        self.drive(sub, now, steps);
    }

    /// Sends retained messages as far as there is room; answers how many are done.
    fn send_retained(
        &mut self,
        sub: SubId,
        pool: Option<&PoolName>,
        page: &Page,
        now: &mut Now<'_>,
        steps: &mut Steps,
    ) -> usize {
        let messages: Vec<Message> = page.messages.iter().map(|(_, message)| message.clone()).collect();
        let run = Arc::new(Run::new(messages, Vec::new()));
        let round = self.rounds.of(sub);
        let is_again = round.is_some_and(|round| round.again);
        for (index, message) in run.messages.iter().enumerate() {
            let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
                break;
            };
            let Some(replay) = &mut known.replay else { break };
            // What was published after the subscription was made is held: its live copy is the right one.
            let is_known = replay.hold.holds(message.id)
                || (known.subscription.no_local && message.from == self.client.id)
                || (is_again && self.outbound.has_begun(message.id))
                || page.places.get(&message.id).is_some_and(|place| {
                    let mut readers = self.readers.that_will_find(&known.readers, pool, *place);
                    readers.any(|reading| is_again || reading.began_last())
                });
            if is_known {
                continue;
            }
            let qos = known.subscription.qos;
            let identifiers = Arc::clone(&known.identifiers);
            let qos = self.granted(qos, message.qos);
            let round = round.map(|round| round.key).filter(|_| qos > Qos::AtMostOnce);
            let delivery = Delivery {
                run: Arc::clone(&run),
                index,
                qos,
                retain: true,
                identifiers,
                readers: SmallVec::new(),
                round,
                share: None,
            };
            self.rounds.sends(round);
            if self.enqueue(delivery, now, steps) == Enqueued::Full {
                self.rounds.acked(round);
                return index;
            }
            if let Some(known) = self.subscriptions.subs.get_mut(&sub) {
                known.sent_from_store(message.id);
                let replay = known.replay.iter_mut();
                replay.for_each(|replay| _ = replay.retained_sent.insert(message.id));
            }
        }
        run.messages.len()
    }

    fn send_backlog(
        &mut self,
        sub: SubId,
        key: ReaderKey,
        left: Option<usize>,
        page: Page,
        now: &mut Now<'_>,
        steps: &mut Steps,
    ) {
        let Some(pool) = self.readers.get(key).map(|reading| reading.backlog.reader.pool.clone()) else {
            return;
        };
        let (positions, messages): (Vec<Position>, Vec<Message>) = page.messages.into_iter().unzip();
        let stored = Stored::new(pool.clone(), positions.iter().map(|_| true));
        positions
            .iter()
            .enumerate()
            .for_each(|(index, position)| stored.settle_at(index, *position));
        let run = Arc::new(Run::new(messages, vec![stored]));
        let (mut scanned, mut end) = (page.scanned, page.end);
        let wild = self.subscriptions.wild();
        for (index, position) in positions.iter().enumerate() {
            let subs = self.subscriptions.matching(run.messages[index].topic.as_str(), &wild);
            let row = Row {
                run: &run,
                index,
                position: *position,
                subs,
            };
            self.release_before(sub, &pool, *position, now, steps);
            if !self.send_stored(sub, key, row, now, steps) {
                // The queue has no room by bytes: this row is read again when it has.
                (scanned, end) = (Position(position.0 - 1), false);
                break;
            }
        }
        let left = left.map(|left| left.saturating_sub(positions.len()));
        let Some(reading) = self.readers.get_mut(key) else {
            return;
        };
        reading.cursor = scanned.max(reading.cursor);
        reading.tracker.limit(Some(reading.cursor));
        reading.dirty = true;
        reading.stopped = !end && left == Some(0);
        if !end && !reading.stopped {
            let sub = self.subscriptions.subs.get_mut(&sub);
            if let Some(replay) = sub.and_then(|sub| sub.replay.as_mut()) {
                replay.sources.push_front(From::Backlog(key, left));
            }
        }
        self.positions_later(now.instant);
    }

    /// What lies before this row and is held must not come behind it.
    fn release_before(&mut self, sub: SubId, pool: &PoolName, place: Position, now: &mut Now<'_>, steps: &mut Steps) {
        let next = |session: &mut Self| {
            let replay = session.subscriptions.subs.get_mut(&sub)?.replay.as_mut()?;
            replay.hold.take_before(pool, place)
        };
        while let Some(earlier) = next(self) {
            self.enqueue_or_defer(earlier, now, steps);
        }
    }

    /// Sends one row, unless the client has it already. False where there is no room for it.
    fn send_stored(&mut self, sub: SubId, key: ReaderKey, row: Row<'_>, now: &mut Now<'_>, steps: &mut Steps) -> bool {
        let Row {
            run, index, position, ..
        } = row;
        let message = &run.messages[index];
        let Some(reading) = self.readers.get_mut(key) else {
            return true;
        };
        let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
            return true;
        };
        if reading.tracker.knows(position) {
            return true;
        }
        let no_local = known.subscription.no_local && message.from == self.client.id;
        let replay = known.replay.as_mut();
        let retained_sent = replay.as_ref().is_some_and(|it| it.retained_sent.contains(&message.id));
        let held = replay.and_then(|it| it.hold.take_through(message.id));
        let held = held.map(|held| self.send_before(held, now, steps));
        let Some(reading) = self.readers.get_mut(key) else {
            return true;
        };
        if let Some(mut known) = self.outbound.find(message.id) {
            if known.delivery.run.stored_in(&reading.backlog.reader.pool).is_none() {
                known.replace_with(run, index);
            }
            let delivery = known.delivery;
            if !delivery.readers.contains(&key) {
                delivery.readers.push(key);
            }
            reading.tracker.follow(&delivery.run, delivery.index);
            return true;
        }
        let has_it = retained_sent || self.outbound.exchanges.has(message.id);
        if has_it || no_local {
            reading.tracker.follow(run, index);
            reading.tracker.acked(run, index);
            reading.dirty = true;
            self.positions_later(now.instant);
            return true;
        }
        let held = held.or_else(|| {
            let held = self.subscriptions.take_held(&row.subs, message.id);
            held.map(|held| self.send_before(held, now, steps))
        });
        // As live: one copy for every subscription that matches, whichever of them has read it.
        let from_us = message.from == self.client.id;
        let stored = || Some(self.on_terms(&self.terms(&row.subs, from_us)?, run, index));
        let Some(mut delivery) = held.or_else(stored) else {
            return true;
        };
        if !delivery.readers.contains(&key) {
            delivery.readers.push(key);
        }
        if self.enqueue(delivery, now, steps) == Enqueued::Full {
            return false;
        }
        let known = self.subscriptions.subs.entry(sub);
        known.and_modify(|known| known.sent_from_store(message.id));
        true
    }

    /// Sends what was held before this delivery, which is next.
    fn send_before(
        &mut self,
        (before, delivery): (Vec<Delivery>, Delivery),
        now: &mut Now<'_>,
        steps: &mut Steps,
    ) -> Delivery {
        let before = before.into_iter();
        before.for_each(|delivery| self.enqueue_or_defer(delivery, now, steps));
        delivery
    }
}

impl Subscriptions {
    /// The live copy of a row, in whichever hold of these it waits, and what waits before it on its topic.
    fn take_held(&mut self, matching: &[SubId], id: MessageId) -> Option<(Vec<Delivery>, Delivery)> {
        let mut holds = matching.iter();
        holds.find_map(|sub| self.subs.get_mut(sub)?.replay.as_mut()?.hold.take_with_its_topic(id))
    }
}
