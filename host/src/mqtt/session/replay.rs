//! Reading what is stored: retained messages and backlogs after a SUBSCRIBE, what was missed while the client
//! was away, and catching up after it was slow (spec C9, C11). While a subscription replays, its live messages
//! are held; when the hold overflows, what the store has is dropped from it and read again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::delivery::{Place, PoolName, Position, Reader, Run, Window};
use crate::model::event::{Backlog, Effect, Start};
use crate::model::id::MessageId;
use crate::model::message::Qos;

use super::live::Hold;
use super::reader::ReaderKey;
use super::subscribe::{Sub, Subscriptions};
use super::{Now, ReadId, Session, Source, Step, Steps, SubId};

/// Retained messages that are read at once.
const RETAINED_PAGE: usize = 100;

/// What a subscription still has to read before its live messages flow.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) sources: VecDeque<From>,
    /// The question that is being answered.
    pub(super) read: Option<ReadId>,
    /// The SUBACK has left and the client is there.
    allowed: bool,
    pub(super) hold: Hold,
    /// Retained messages that were sent: their backlog copies are not.
    pub(super) retained_sent: HashSet<MessageId>,
}

#[derive(Debug)]
pub(super) enum From {
    /// Retained messages behind this position, the broker's own or a pool's, at most so many more.
    Retained(Option<PoolName>, Position, usize),
    /// A backlog; at most so many more messages of it.
    Backlog(ReaderKey, Option<usize>),
}

/// Why a subscription is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Occasion {
    /// It was made, or made again, by this SUBSCRIBE or by the operator.
    Subscribe(Option<u16>),
    /// The client came back to a session that was restored.
    Return,
}

impl Sub {
    /// The SUBACK has left: what is stored may be sent.
    pub(super) fn allow_replay(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.allowed = true;
        }
    }

    /// A subscription that was made again starts over, but what is held stays held.
    pub(super) fn restart(&mut self) {
        let hold = self.replay.take().map(|replay| replay.hold).unwrap_or_default();
        self.replay = Some(Replay {
            hold,
            ..Replay::default()
        });
    }
}

impl Replay {
    /// Whether retained messages are still to be sent: they are the first sources.
    pub(super) fn sends_retained(&self) -> bool {
        let waits_for_rules = self.sources.is_empty() && !self.allowed;
        waits_for_rules || matches!(self.sources.front(), Some(From::Retained(..)))
    }
}

impl Session {
    /// From now on this reader reads on from the store; live copies of what is stored are dropped until then. Those that
    /// were held for other readers make them read on, too.
    pub(super) fn catch_up(&mut self, key: ReaderKey) {
        let mut keys = vec![key];
        while let Some(key) = keys.pop() {
            let dropped = self.catch_up_alone(key);
            keys.extend(dropped.into_iter().filter(|other| *other != key));
        }
    }

    fn catch_up_alone(&mut self, key: ReaderKey) -> Vec<ReaderKey> {
        let allowed = self.link.is_some();
        let Some(reading) = self.readers.get_mut(key) else {
            return Vec::new();
        };
        let Some(sub) = self.subscriptions.subs.get_mut(&reading.sub) else {
            return Vec::new();
        };
        let known = sub.replay.is_some();
        let replay = sub.replay.get_or_insert_with(|| Replay {
            allowed,
            ..Replay::default()
        });
        let queued = replay
            .sources
            .iter()
            .any(|from| matches!(from, From::Backlog(other, _) if *other == key));
        if !queued {
            replay.sources.push_back(From::Backlog(key, None));
        }
        let dropped = replay.hold.overflow();
        // `max_returned_count` and `time_range` are for subscribing; catching up loses nothing.
        (reading.since, reading.left_unread_at) = (None, None);
        let sub = reading.sub;
        if !known {
            self.subscriptions.replaying.push(sub);
            reading.go_back();
        }
        self.wait_for_turn(sub, false);
        dropped
    }

    /// The mailbox overflowed: live messages were dropped on their way to us.
    pub fn overflowed(&mut self, steps: &mut Steps) {
        self.catch_up_everywhere();
        self.ask_on(steps);
    }

    fn catch_up_everywhere(&mut self) {
        let subs = self.subscriptions.subs.values();
        let keys: Vec<ReaderKey> = subs.flat_map(|sub| sub.readers.iter().copied()).collect();
        keys.into_iter().for_each(|key| self.catch_up(key));
    }

    /// The client is back to a session that was restored; this is what its subscription reads.
    pub fn returned(&mut self, sub: SubId, effects: Vec<Effect>, now: &mut Now<'_>, steps: &mut Steps) {
        self.begin_replay(sub, Occasion::Return, effects, now, steps);
        self.subscriptions.subs.entry(sub).and_modify(Sub::allow_replay);
        self.drive(sub, now, steps);
    }

    /// What a subscription has to read, in rule order.
    pub(super) fn begin_replay(
        &mut self,
        sub: SubId,
        occasion: Occasion,
        effects: Vec<Effect>,
        now: &Now<'_>,
        steps: &mut Steps,
    ) {
        let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
            return;
        };
        if self.link.is_none() && known.replay.is_none() {
            // The connection went before the rules of its SUBSCRIBE ran: what they ask for is read when it is back.
            known.restart();
            self.subscriptions.replaying.push(sub);
        }
        let wanted = &known.subscription;
        let shared = wanted.share.is_some();
        let returned = matches!(occasion, Occasion::Return);
        let retained = match occasion {
            Occasion::Subscribe(_) => known.asks_for_retained(),
            // What was asked for before, and did not arrive.
            Occasion::Return => self.rounds.of(sub).is_some(),
        };
        let backlog = !shared && wanted.qos > Qos::AtMostOnce;
        let mut sources: VecDeque<From> = VecDeque::new();
        if retained && known.replay.as_ref().is_some_and(|replay| replay.sources.is_empty()) {
            sources.push_back(From::Retained(None, Position::START, usize::MAX));
        }
        let before = std::mem::take(&mut known.readers);
        let mut keys = Vec::new();
        for effect in effects {
            match effect {
                Effect::Retained(_, pool, limit) if retained => {
                    sources.push_back(From::Retained(Some(pool), Position::START, limit));
                }
                Effect::Backlog(asked) if backlog => {
                    let left = if asked.drain {
                        asked.limit
                    } else {
                        Some(asked.limit.unwrap_or(asked.page))
                    };
                    // `max_returned_count` and `time_range` are for subscribing; coming back loses nothing.
                    let left = left.filter(|_| !returned);
                    let range = asked.time_range.filter(|_| !returned);
                    let since = range.and_then(|range| now.wall.checked_sub(range));
                    // What was missed stays unread until the next SUBSCRIBE: the position must not pass it.
                    let stopped = returned && !asked.on_resume;
                    let key = self.read_again(&before, &asked.reader, occasion);
                    let key = key.unwrap_or_else(|| self.read_anew(sub, occasion, asked, steps));
                    if let Some(reading) = self.readers.get_mut(key) {
                        (reading.since, reading.stopped) = (since, stopped);
                    }
                    keys.push(key);
                    if !stopped {
                        sources.push_back(From::Backlog(key, left));
                    }
                }
                Effect::Retained(..) | Effect::Backlog(_) | Effect::Lookup(_) | Effect::Subscribe(_) => {}
            }
        }
        for key in before.iter().copied().filter(|key| !keys.contains(key)) {
            self.readers.remove(key);
            if let Some(replay) = self
                .subscriptions
                .subs
                .get_mut(&sub)
                .and_then(|sub| sub.replay.as_mut())
            {
                replay.hold.pass_on(key, &keys);
            }
        }
        if let Some(known) = self.subscriptions.subs.get_mut(&sub) {
            known.readers = keys;
            if let Some(replay) = &mut known.replay {
                // The same filter twice in one SUBSCRIBE: what the first asked for has no reader any more.
                replay
                    .sources
                    .retain(|from| !matches!(from, From::Backlog(key, _) if before.contains(key)));
                replay.sources.append(&mut sources);
                // Whatever the order of the rules: a backlog copy gives way to the retained one (spec C11).
                let is_backlog = |from: &From| matches!(from, From::Backlog(..));
                replay.sources.make_contiguous().sort_by_key(is_backlog);
            }
        }
    }

    /// The same reader as before the subscription was repeated: it knows what was sent and acknowledged. One that
    /// does not know yet where it begins goes on waiting: a new one would begin behind what is held.
    fn read_again(&mut self, before: &[ReaderKey], reader: &Reader, occasion: Occasion) -> Option<ReaderKey> {
        let is_same = |key: &&ReaderKey| {
            self.readers
                .get(**key)
                .is_some_and(|reading| reading.backlog.reader == *reader)
        };
        let key = *before.iter().find(is_same)?;
        let reading = self.readers.get_mut(key)?;
        if reading.begun {
            reading.stopped = false;
            reading.go_back();
            return Some(key);
        }
        let suback_waits = suback_waits_for(&reading.backlog);
        let begin = self.readers.begins.iter().find(|(_, waiting)| **waiting == key);
        if let (Occasion::Subscribe(packet_id), Some((read, _)), true) = (occasion, begin, suback_waits) {
            self.subscriptions.wait_again_for(packet_id, *read);
        }
        Some(key)
    }

    fn read_anew(&mut self, sub: SubId, occasion: Occasion, backlog: Box<Backlog>, steps: &mut Steps) -> ReaderKey {
        let read = self.new_read();
        if let Occasion::Subscribe(packet_id) = occasion
            && suback_waits_for(&backlog)
        {
            self.subscriptions.wait_for(packet_id, read);
        }
        let key = self.readers.add(sub, backlog.clone());
        self.readers.begins.insert(read, key);
        self.readers.unasked.push_back((read, key, backlog));
        self.ask_on(steps);
        key
    }

    /// The answer to [`Step::Begin`]; `None` where the store could not be asked in time.
    pub fn begun(&mut self, read: ReadId, position: Option<Position>, now: &mut Now<'_>, steps: &mut Steps) {
        let Some(key) = self.readers.begins.remove(&read) else {
            return;
        };
        let sub = self.readers.get(key).map(|reading| reading.sub);
        if let (Some(sub), Some(reading)) = (sub, self.readers.get_mut(key)) {
            let hold = self
                .subscriptions
                .subs
                .get_mut(&sub)
                .and_then(|sub| sub.replay.as_mut());
            let earliest = hold.and_then(|replay| replay.hold.earliest.take());
            let place = earliest.as_ref().and_then(|(run, index)| {
                let stored = run.stored_in(&reading.backlog.reader.pool)?;
                Some(stored.place(*index, run.messages[*index].id))
            });
            let earliest = match place {
                Some(Place::At(position)) => Some(Position(position.0 - 1)),
                Some(Place::Pending) if position.is_some() => {
                    // It may have been stored before this answer, which a store that was asked twice made later than
                    // the question. Asked again, behind it, its place is known.
                    return self.begin_again(read, key, earliest, steps);
                }
                Some(Place::Pending | Place::Nowhere) | None => None,
            };
            match position {
                Some(position) => {
                    let position = earliest.map_or(position, |earliest| earliest.min(position));
                    reading.tracker.start_at(position);
                    reading.tracker.limit(Some(position));
                    reading.let_go(position);
                    reading.cursor = position;
                    reading.begun = true;
                }
                None => self.give_up(sub, key),
            }
        }
        self.answered(read, now, steps);
        if let Some(sub) = sub {
            self.drive(sub, now, steps);
        }
        self.ask_on(steps);
    }

    /// Asks once more where a reader begins; what waits for the first question waits for the second.
    fn begin_again(&mut self, read: ReadId, key: ReaderKey, earliest: Option<(Arc<Run>, usize)>, steps: &mut Steps) {
        let Some(reading) = self.readers.get_mut(key) else {
            return;
        };
        let sub = self.subscriptions.subs.get_mut(&reading.sub);
        if let Some(replay) = sub.and_then(|sub| sub.replay.as_mut()) {
            replay.hold.earliest = earliest;
        }
        steps.push_back(Step::Begin(read, reading.backlog.clone()));
        self.readers.begins.insert(read, key);
    }

    /// This reader's store did not say where it begins: its subscription goes on without it.
    pub(super) fn give_up(&mut self, sub: SubId, key: ReaderKey) {
        self.readers.remove(key);
        if let Some(sub) = self.subscriptions.subs.get_mut(&sub) {
            sub.readers.retain(|other| *other != key);
            if let Some(replay) = &mut sub.replay {
                replay
                    .sources
                    .retain(|from| !matches!(from, From::Backlog(other, _) if *other == key));
            }
        }
    }

    /// Asks what waits to be asked, as far as stores have answered and the window has room. Whoever has many
    /// filters asks for long, but does not keep others from asking.
    pub(super) fn ask_on(&mut self, steps: &mut Steps) {
        while self.readers.open_questions() < self.limits.questions_max {
            if let Some((read, key, mut backlog)) = self.readers.unasked.pop_front() {
                // Whoever unsubscribed meanwhile must not leave a row behind.
                backlog.durable &= self.readers.get(key).is_some();
                steps.push_back(Step::Begin(read, backlog));
                continue;
            }
            let Some(sub) = self.readers.turns.pop_front() else {
                return;
            };
            if let Some(known) = self.subscriptions.subs.get_mut(&sub) {
                known.waits_for_turn = false;
                self.read_on(sub, steps);
                let waits_on = |sub: &Sub| sub.waits_for_turn;
                if self.subscriptions.subs.get(&sub).is_some_and(waits_on) {
                    return; // the window is full
                }
            }
        }
    }

    /// Puts a subscription into the line of those that want to read; at its head what no window holds up.
    fn wait_for_turn(&mut self, sub: SubId, first: bool) {
        let Subscriptions { subs, .. } = &mut self.subscriptions;
        let turns = &mut self.readers.turns;
        if turns.len() > 2 * subs.len() {
            turns.retain(|sub| subs.contains_key(sub));
        }
        let Some(known) = subs.get_mut(&sub).filter(|known| !known.waits_for_turn) else {
            return;
        };
        known.waits_for_turn = true;
        match first {
            true => turns.push_front(sub),
            false => turns.push_back(sub),
        }
    }

    /// Reads on wherever there is something to read, and lets go of what has nothing.
    pub(super) fn drive_replays_now(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        self.replaying().into_iter().for_each(|sub| self.drive(sub, now, steps));
    }

    fn replaying(&mut self) -> SmallVec<[SubId; 4]> {
        let Subscriptions { subs, replaying, .. } = &mut self.subscriptions;
        replaying.retain(|sub| subs.get(sub).is_some_and(|sub| sub.replay.is_some()));
        SmallVec::from_slice(replaying)
    }

    pub(super) fn drive(&mut self, sub: SubId, now: &mut Now<'_>, steps: &mut Steps) {
        let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
            return;
        };
        let Some(replay) = known.replay.as_mut().filter(|replay| replay.allowed) else {
            return;
        };
        if !replay.sources.is_empty() {
            return self.read_on(sub, steps);
        }
        if replay.hold.overflowed && !known.readers.is_empty() {
            replay.hold.overflowed = false;
            replay.hold.earliest = None;
            replay
                .sources
                .extend(known.readers.iter().map(|key| From::Backlog(*key, None)));
            return self.read_on(sub, steps);
        }
        let held = known.replay.take().map(|replay| replay.hold.held).unwrap_or_default();
        let readers = known.readers.iter();
        let readers = readers.filter_map(|key| Some((*key, self.readers.get(*key)?.cursor)));
        let mut moves = self.rounds.has_read(sub, readers);
        for key in known.readers.clone() {
            if let Some(reading) = self.readers.get_mut(key).filter(|reading| !reading.stopped) {
                reading.tracker.limit(None);
                // What was acknowledged meanwhile counts from now on.
                reading.dirty = true;
                moves = true;
            }
        }
        if moves {
            self.positions_later(now.instant);
        }
        held.into_iter()
            .for_each(|delivery| self.enqueue_or_defer(delivery, now, steps));
    }

    /// Asks for the next page of the first source, or waits until it may.
    fn read_on(&mut self, sub: SubId, steps: &mut Steps) {
        let read = self.next_read + 1;
        let busy = self.readers.open_questions() >= self.limits.questions_max;
        let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
            return;
        };
        let Some(replay) = known
            .replay
            .as_mut()
            .filter(|replay| replay.allowed && replay.read.is_none())
        else {
            return;
        };
        let filter = known.subscription.filter.clone();
        let (source, window) = match replay.sources.front() {
            None => return,
            // Of what is read once more, nothing is sent before its time: its readers may find it.
            Some(From::Retained(..))
                if self.rounds.of(sub).is_some_and(|round| round.again) && !self.readers.have_begun(&known.readers) =>
            {
                return;
            }
            Some(From::Retained(pool, after, left)) => {
                let windowed = known.subscription.qos > Qos::AtMostOnce;
                if busy || (windowed && !self.outbound.wants_more(RETAINED_PAGE)) {
                    return self.wait_for_turn(sub, !windowed);
                }
                let room = if windowed { self.outbound.room() } else { RETAINED_PAGE };
                let limit = RETAINED_PAGE.min(room).min(*left).max(1);
                let window = Window {
                    after: *after,
                    limit,
                    since: None,
                };
                let source = match pool {
                    Some(pool) => Source::Retained(pool.clone(), filter),
                    None => Source::Own(filter),
                };
                (source, window)
            }
            Some(From::Backlog(key, left)) => {
                let Some(reading) = self.readers.get(*key).filter(|reading| reading.begun) else {
                    return;
                };
                if busy || !self.outbound.wants_more(reading.backlog.page) {
                    return self.wait_for_turn(sub, false);
                }
                let limit = reading
                    .backlog
                    .page
                    .min(self.outbound.room())
                    .min(left.unwrap_or(usize::MAX))
                    .max(1);
                let window = Window {
                    after: reading.cursor,
                    limit,
                    since: reading.since,
                };
                (Source::Unread(reading.backlog.reader.clone()), window)
            }
        };
        replay.read = Some(read);
        self.next_read = read;
        self.readers.reads.insert(read, sub);
        steps.push_back(Step::Read(read, source, window));
    }

    /// The client has gone: what is stored waits in the store.
    pub(super) fn pause_replays(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        self.catch_up_everywhere();
        let mut unstored = Vec::new();
        for sub in self.subscriptions.subs.values_mut() {
            let Some(replay) = &mut sub.replay else { continue };
            (replay.read, replay.allowed) = (None, false);
            let owes_retained = replay.sends_retained() && sub.subscription.qos > Qos::AtMostOnce;
            if sub.readers.is_empty() && !owes_retained {
                unstored.extend(sub.replay.take().map(|replay| replay.hold.held).unwrap_or_default());
            }
        }
        unstored
            .into_iter()
            .for_each(|delivery| self.enqueue_or_defer(delivery, now, steps));
    }

    /// The client is back: its filters are read once, behind what it has acknowledged.
    pub(super) fn resume_replays(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        for sub in self.subscriptions.subs.values_mut() {
            sub.allow_replay();
            let Some(replay) = &mut sub.replay else { continue };
            replay.hold.overflowed = false;
            for key in &sub.readers {
                if let Some(reading) = self.readers.get_mut(*key).filter(|reading| !reading.backlog.on_resume) {
                    // What was missed stays unread until the next SUBSCRIBE: the position must not pass it.
                    reading.stopped = true;
                    replay
                        .sources
                        .retain(|from| !matches!(from, From::Backlog(other, _) if other == key));
                }
            }
        }
        self.drive_replays_now(now, steps);
    }
}

/// Whether a SUBACK waits for the row that says where this begins: a message stored between the two would be
/// skipped after a crash (spec B1).
fn suback_waits_for(backlog: &Backlog) -> bool {
    backlog.durable && backlog.start == Start::Latest
}
