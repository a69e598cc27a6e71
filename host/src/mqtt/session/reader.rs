//! The readers of a session: which stored backlog a subscription reads, and how far it is acknowledged.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::model::delivery::{Delivery as Kept, Place, PoolName, Position, Run};
use crate::model::event::{Backlog, Start};
use crate::model::topic::Topic;

use super::outbound::Delivery;
use super::watermark::Tracker;
use super::{Map, ReadId, Step, Steps, SubId};

/// A store that could not be read is not asked again for so long.
const UNREAD_FOR: Duration = Duration::from_secs(10);

/// Names a reader within its session; never used again.
pub(super) type ReaderKey = u32;

/// One subscription's reading of one pool.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) backlog: Box<Backlog>,
    pub(super) sub: SubId,
    pub(super) tracker: Tracker,
    /// Everything up to here was read from the store or is tracked.
    pub(super) cursor: Position,
    /// Where the reader begins is known.
    pub(super) begun: bool,
    /// Older messages are left unread (`max_returned_count`, or the store did not answer): the position stays before
    /// them.
    pub(super) stopped: bool,
    /// Since when they are because the store did not answer.
    pub(super) left_unread_at: Option<Instant>,
    /// Messages that arrived earlier are not read (`time_range`): set by a SUBSCRIBE, lifted by catching up.
    pub(super) since: Option<SystemTime>,
    pub(super) dirty: bool,
}

impl Reading {
    /// Tells the store that a reader without a row needs nothing up to here.
    pub(super) fn let_go(&self, position: Position) {
        if let Some(hold) = &self.backlog.hold {
            hold.move_to(position);
        }
    }

    /// Whether it began behind everything that was stored then: what it finds was published after the SUBSCRIBE.
    pub(super) fn began_last(&self) -> bool {
        self.backlog.start == Start::Latest && !self.backlog.durable
    }

    /// Whether every message up to here was acknowledged, and the position that says so was written. One that leaves
    /// messages unread on purpose has no such position.
    pub(super) fn is_written_through(&self, position: Position) -> bool {
        self.stopped || self.tracker.is_written_through(position)
    }

    /// Reads again from behind what is acknowledged; what was sent since is known and skipped.
    pub(super) fn go_back(&mut self) {
        self.tracker.advance();
        self.cursor = self.tracker.position();
        self.tracker.limit(Some(self.cursor));
    }
}

/// Every reader of a session.
#[derive(Debug, Default)]
pub(super) struct Readers {
    readings: Map<ReaderKey, Reading>,
    next: ReaderKey,
    /// Which reader awaits the answer to which [`Step::Begin`].
    pub(super) begins: Map<ReadId, ReaderKey>,
    /// Which subscription awaits the answer to which [`Step::Read`].
    pub(super) reads: Map<ReadId, SubId>,
    /// Where readers begin, as far as that was not asked yet.
    pub(super) unasked: VecDeque<(ReadId, ReaderKey, Box<Backlog>)>,
    /// Subscriptions that wait for their turn to read, and perhaps some that no longer do.
    pub(super) turns: VecDeque<SubId>,
}

impl Readers {
    pub(super) fn add(&mut self, sub: SubId, backlog: Box<Backlog>) -> ReaderKey {
        self.next += 1;
        let tracker = Tracker::new(backlog.reader.pool.clone(), Position::START, backlog.ack_last);
        let reading = Reading {
            backlog,
            sub,
            tracker,
            cursor: Position::START,
            begun: false,
            stopped: false,
            left_unread_at: None,
            since: None,
            dirty: false,
        };
        self.readings.insert(self.next, reading);
        self.next
    }

    /// Questions that stores have not answered yet.
    pub(super) fn open_questions(&self) -> usize {
        self.reads.len() + self.begins.len() - self.unasked.len()
    }

    pub(super) fn remove(&mut self, key: ReaderKey) {
        self.readings.remove(&key);
    }

    pub(super) fn get(&self, key: ReaderKey) -> Option<&Reading> {
        self.readings.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: ReaderKey) -> Option<&mut Reading> {
        self.readings.get_mut(&key)
    }

    /// Whether this reader's pool stores the message, now or when its commit settles.
    pub(super) fn covers(&self, key: ReaderKey, run: &Run, index: usize) -> bool {
        self.get(key)
            .is_some_and(|reading| is_stored(&reading.backlog.reader.pool, run, index))
    }

    /// Those of these readers that have still to read the message at this place of the pool.
    pub(super) fn that_will_find(
        &self,
        keys: &[ReaderKey],
        pool: Option<&PoolName>,
        place: Position,
    ) -> impl Iterator<Item = &Reading> {
        let reading = keys.iter().filter_map(|key| self.get(*key));
        reading.filter(move |it| {
            pool == Some(&it.backlog.reader.pool) && it.begun && !it.stopped && it.tracker.position() < place
        })
    }

    /// Whether it is known of all of these where they begin.
    pub(super) fn have_begun(&self, keys: &[ReaderKey]) -> bool {
        keys.iter()
            .all(|key| self.get(*key).is_none_or(|reading| reading.begun))
    }

    /// Whether no reader of this pool can find the message of this topic and place unread: the positions that it was
    /// written have passed it, or would be where the reader has no row.
    pub(super) fn have_passed(&self, pool: &PoolName, topic: &Topic, place: Position) -> bool {
        let reads = |reading: &&Reading| {
            let reader = &reading.backlog.reader;
            reader.pool == *pool && reader.filter.matches(topic.as_str())
        };
        let mut reading = self.readings.values().filter(reads);
        reading.all(|reading| reading.begun && reading.tracker.written() >= place)
    }

    /// The store could not be read in time: live messages go on, and the position stays before what is unread.
    pub(super) fn leave_unread(&mut self, key: ReaderKey, now: Instant) {
        if let Some(reading) = self.readings.get_mut(&key) {
            (reading.stopped, reading.left_unread_at) = (true, Some(now));
        }
    }

    /// Those that left messages unread and whose store is seen to answer again: it has committed others since.
    pub(super) fn may_read_again(&mut self, now: Instant) -> Vec<ReaderKey> {
        let mut again = Vec::new();
        for (key, reading) in &mut self.readings {
            let waited = reading.left_unread_at.is_some_and(|at| at + UNREAD_FOR <= now);
            if waited && reading.tracker.knows_any_place() {
                reading.left_unread_at = None;
                again.push(*key);
            }
        }
        again
    }

    /// The delivery is on its way through its readers.
    pub(super) fn follow(&mut self, delivery: &Delivery) {
        for key in &delivery.readers {
            if let Some(reading) = self.readings.get_mut(key) {
                reading.tracker.follow(&delivery.run, delivery.index);
            }
        }
    }

    /// The delivery was acknowledged. Answers whether a position may move.
    pub(super) fn acked(&mut self, delivery: &Delivery) -> bool {
        let mut moves = false;
        for key in &delivery.readers {
            if let Some(reading) = self.readings.get_mut(key)
                && reading.tracker.acked(&delivery.run, delivery.index)
            {
                reading.dirty = true;
                moves = true;
            }
        }
        moves
    }

    /// Emits every position that has moved. Answers whether an acknowledgement still waits for its commit.
    pub(super) fn write_positions(&mut self, steps: &mut Steps) -> bool {
        let mut waits = false;
        for reading in self.readings.values_mut().filter(|reading| reading.dirty) {
            let moved = reading.tracker.take_moved();
            reading.dirty = reading.tracker.waits_for_commit();
            waits |= reading.dirty;
            if let Some(position) = moved {
                reading.let_go(position);
            }
            // A queue deletes what is acknowledged; its position lives only as long as the session.
            let stored = reading.backlog.durable && reading.backlog.reader.delivery == Kept::Pubsub;
            if let Some(position) = moved.filter(|_| stored) {
                steps.push_back(Step::Advance(reading.backlog.reader.clone(), position));
            }
        }
        waits
    }
}

fn is_stored(pool: &PoolName, run: &Run, index: usize) -> bool {
    run.stored_in(pool)
        .is_some_and(|stored| stored.place(index, run.messages[index].id) != Place::Nowhere)
}
