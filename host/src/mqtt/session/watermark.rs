//! The low-watermark tracker (spec C8.4): how far a reader's position may move when acknowledgements come
//! out of order. It compares positions only; live messages learn theirs when their commit settles.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::delivery::{Place, PoolName, Position, Run};

/// Acknowledged entries above a position that cannot move are forgotten beyond this number: they would
/// only be delivered again.
const REMEMBERED_MAX: usize = 65_536;

/// What one reader has been sent and has acknowledged.
#[derive(Debug)]
pub(super) struct Tracker {
    pool: PoolName,
    /// Everything up to here is acknowledged.
    position: Position,
    /// The position that was last given out to be written.
    written: Position,
    /// While older rows are unread, the position must not move beyond what was read.
    limit: Option<Position>,
    /// Sent messages whose place is known: acknowledged or not.
    placed: BTreeMap<Position, bool>,
    /// Sent messages whose commit is under way: at infinity until it settles.
    pending: VecDeque<Waiting>,
    /// Follow the last acknowledgement instead (`ack_mode = last`).
    last: bool,
}

#[derive(Debug)]
struct Waiting {
    run: Arc<Run>,
    index: usize,
    acked: bool,
}

impl Tracker {
    /// A tracker of a reader of `pool` that has acknowledged everything up to `position`.
    pub(super) fn new(pool: PoolName, position: Position, last: bool) -> Self {
        Self {
            pool,
            position,
            written: position,
            limit: None,
            placed: BTreeMap::new(),
            pending: VecDeque::new(),
            last,
        }
    }

    /// Everything up to here is acknowledged.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The position that was last given out to be written.
    pub(super) fn written(&self) -> Position {
        self.written
    }

    /// The position may not move beyond `limit` until it is lifted with `None`.
    pub(super) fn limit(&mut self, limit: Option<Position>) {
        self.limit = limit;
    }

    /// Starts at `position`, where the store has just said that the reader stands.
    pub(super) fn start_at(&mut self, position: Position) {
        (self.position, self.written) = (position, position);
        self.placed = self.placed.split_off(&Position(position.0 + 1));
    }

    /// The message was sent, or waits to be sent, through this reader. Messages that its pool does not
    /// store are not tracked.
    pub(super) fn follow(&mut self, run: &Arc<Run>, index: usize) {
        match self.place(run, index) {
            Place::At(position) if position > self.position => {
                self.placed.entry(position).or_insert(false);
            }
            Place::Pending => self.pending.push_back(Waiting {
                run: Arc::clone(run),
                index,
                acked: false,
            }),
            Place::At(_) | Place::Nowhere => {}
        }
    }

    /// The message was acknowledged. Answers whether that can move the position.
    pub(super) fn acked(&mut self, run: &Arc<Run>, index: usize) -> bool {
        self.settle_pending();
        match self.place(run, index) {
            Place::At(position) if position > self.position => {
                self.pending.retain(|waiting| !waiting.is(run, index));
                self.placed.insert(position, true);
                self.forget_what_cannot_count();
                true
            }
            Place::Pending => {
                if let Some(waiting) = self.pending.iter_mut().find(|waiting| waiting.is(run, index)) {
                    waiting.acked = true;
                }
                true
            }
            Place::At(_) | Place::Nowhere => false,
        }
    }

    /// Whether the row at `position` was sent already, or needs not be sent again.
    pub(super) fn knows(&mut self, position: Position) -> bool {
        self.settle_pending();
        position <= self.position
            || self.placed.contains_key(&position)
            || self
                .pending
                .iter()
                .any(|waiting| self.place(&waiting.run, waiting.index) == Place::At(position))
    }

    /// Moves the position as far as it may go.
    pub(super) fn advance(&mut self) {
        self.settle_pending();
        if self.last {
            let newest = self
                .placed
                .iter()
                .rev()
                .find(|(_, acked)| **acked)
                .map(|(position, _)| *position);
            self.position = newest.unwrap_or(self.position).max(self.position);
            self.placed = self.placed.split_off(&Position(self.position.0 + 1));
        }
        while let Some(first) = self.placed.first_entry() {
            if !first.get() || self.limit.is_some_and(|limit| *first.key() > limit) {
                break;
            }
            self.position = *first.key();
            first.remove();
        }
    }

    /// Moves the position as far as it may go; answers it if it was not answered before.
    pub(super) fn take_moved(&mut self) -> Option<Position> {
        self.advance();
        let moved = (self.position > self.written).then_some(self.position);
        self.written = self.position;
        moved
    }

    /// Whether nothing up to here waits for its acknowledgement or to be written.
    pub(super) fn is_written_through(&self, position: Position) -> bool {
        let waits = self.placed.range(..=position).next().is_some();
        !waits && (self.written >= position || self.written == self.position)
    }

    /// Whether a message that was sent lies behind the position, as far as that is known.
    pub(super) fn knows_any_place(&mut self) -> bool {
        self.settle_pending();
        !self.placed.is_empty()
    }

    /// Whether an acknowledged message still waits for its commit.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.pending.iter().any(|waiting| waiting.acked)
    }

    fn place(&self, run: &Run, index: usize) -> Place {
        run.stored_in(&self.pool)
            .map_or(Place::Nowhere, |stored| stored.place(index, run.messages[index].id))
    }

    /// Moves what has learnt its place, in arrival order, out of the waiting line.
    fn settle_pending(&mut self) {
        while let Some(first) = self.pending.front() {
            match self.place(&first.run, first.index) {
                Place::Pending => return,
                Place::At(position) if position > self.position => {
                    let acked = first.acked;
                    *self.placed.entry(position).or_insert(false) |= acked;
                }
                Place::At(_) | Place::Nowhere => {}
            }
            self.pending.pop_front();
        }
    }

    fn forget_what_cannot_count(&mut self) {
        if self.placed.len() > REMEMBERED_MAX
            && let Some(newest) = self.placed.last_entry()
            && *newest.get()
        {
            newest.remove();
        }
    }
}

impl Waiting {
    /// Whether it is this message, perhaps another copy of it.
    fn is(&self, run: &Run, index: usize) -> bool {
        self.run.messages[self.index].id == run.messages[index].id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::session::fixtures::{pool, run_of, settle};

    fn tracker() -> Tracker {
        Tracker::new(pool(), Position::START, false)
    }

    /// Three messages that lie at rows 1 to 3.
    fn stored() -> Arc<Run> {
        let run = run_of(3);
        (0..3).for_each(|index| settle(&run, index, index as u128 + 1));
        run
    }

    #[test]
    fn the_position_waits_for_the_oldest_unacknowledged_message() {
        let (mut tracker, run) = (tracker(), stored());
        (0..3).for_each(|index| tracker.follow(&run, index));
        for (index, position) in [(0, Some(1)), (2, None), (1, Some(3))] {
            tracker.acked(&run, index);
            assert_eq!(
                tracker.take_moved(),
                position.map(Position),
                "after the ack of message {index}"
            );
        }
    }

    #[test]
    fn an_ack_that_overtakes_its_commit_counts_when_the_commit_settles() {
        let (mut tracker, run) = (tracker(), run_of(2));
        (0..2).for_each(|index| tracker.follow(&run, index));
        tracker.acked(&run, 0);
        tracker.acked(&run, 1);
        assert_eq!(tracker.take_moved(), None);
        assert!(tracker.waits_for_commit());
        settle(&run, 0, 7);
        settle(&run, 1, 8);
        assert_eq!(tracker.take_moved(), Some(Position(8)));
    }

    #[test]
    fn a_message_that_nobody_stores_does_not_hold_the_position() {
        let (mut tracker, run) = (tracker(), run_of(2));
        (0..2).for_each(|index| tracker.follow(&run, index));
        run.stored[0].settle_nowhere(0);
        settle(&run, 1, 5);
        tracker.acked(&run, 1);
        assert_eq!(tracker.take_moved(), Some(Position(5)));
    }

    #[test]
    fn rows_read_later_are_not_skipped() {
        let (mut tracker, run) = (tracker(), stored());
        tracker.limit(Some(Position(1)));
        (0..3).for_each(|index| tracker.follow(&run, index));
        (0..3).for_each(|index| {
            tracker.acked(&run, index);
        });
        assert_eq!(tracker.take_moved(), Some(Position(1)));
        tracker.limit(None);
        assert_eq!(tracker.take_moved(), Some(Position(3)));
    }

    #[test]
    fn what_was_sent_is_known() {
        let (mut tracker, run) = (tracker(), stored());
        tracker.follow(&run, 1);
        assert!(tracker.knows(Position(2)) && !tracker.knows(Position(3)));
    }

    #[test]
    fn the_upstream_mode_follows_the_last_acknowledgement() {
        let (mut tracker, run) = (Tracker::new(pool(), Position::START, true), stored());
        (0..3).for_each(|index| tracker.follow(&run, index));
        tracker.acked(&run, 2);
        assert_eq!(tracker.take_moved(), Some(Position(3)));
    }
}
