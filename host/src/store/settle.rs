//! From the results of writes to the results of messages: who waits for a write, and how gates hear of it.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::queue::Entry;
use super::{Error, Kind, Result, Write, Written};
use crate::model::delivery::{Run, Settle, Settled, Stored, Ticket};
use crate::model::reason::Reason;

/// A run of messages whose gates are open until their writes are committed.
pub(super) struct Gate {
    pub(super) run: Arc<Run>,
    pub(super) stored: Option<usize>,
    pub(super) first: Ticket,
    pub(super) settle: Option<Arc<dyn Settle>>,
}

/// Who waits for a write.
pub(super) enum Owner {
    /// The message of a gated run that has this index.
    Message(Arc<Gate>, usize),
    /// A session whose own state it is.
    Session(Arc<dyn Settle>, Ticket),
    /// Somebody who wants its own answer.
    Asker(oneshot::Sender<Result<Written>>),
    /// Nobody.
    Nobody,
}

/// What goes with a write: who waits, how long, and what its message's other writes came to.
pub(super) struct Slip {
    pub(super) owner: Owner,
    pub(super) until: Instant,
    pub(super) so_far: Settled,
}

/// What became of one write.
pub(super) enum Outcome {
    Written(Written),
    Refused(Error),
    Cancelled,
    /// The database could not do it now.
    Again,
}

impl Slip {
    pub(super) fn new(owner: Owner, until: Instant) -> Self {
        let so_far = Settled::Stored;
        Self { owner, until, so_far }
    }

    /// Whether both are writes of one message: they belong into one commit.
    pub(super) fn shares_message(&self, other: &Self) -> bool {
        match (&self.owner, &other.owner) {
            (Owner::Message(gate, index), Owner::Message(other, at)) => Arc::ptr_eq(gate, other) && index == at,
            _ => false,
        }
    }
}

impl Gate {
    fn places(&self) -> Option<&Stored> {
        self.stored.and_then(|at| self.run.stored.get(at))
    }

    fn note_place(&self, index: usize, write: &Write, outcome: &Outcome) {
        let (Some(places), Write::Save(_)) = (self.places(), write) else {
            return;
        };
        match outcome {
            Outcome::Written(Written::At(position)) => places.settle_at(index, *position),
            Outcome::Written(Written::Done | Written::Removed(_)) | Outcome::Again => {}
            Outcome::Refused(_) | Outcome::Cancelled => places.settle_nowhere(index),
        }
    }
}

/// Tells everybody who waited, in order; answers what has to be written again. Places become known before
/// any gate hears, and consecutive messages of a run are settled as one range.
pub(super) fn settle(entries: Vec<Entry>, outcomes: Vec<Outcome>) -> Vec<Entry> {
    let mut again = Vec::new();
    let mut ranges = Ranges::default();
    let mut results = entries.into_iter().zip(outcomes).peekable();
    while let Some((mut entry, outcome)) = results.next() {
        let Owner::Message(gate, index) = &entry.slip.owner else {
            again.extend(answer(entry, outcome));
            continue;
        };
        gate.note_place(*index, &entry.write, &outcome);
        let so_far = worse(entry.slip.so_far, settled(&outcome));
        let waits = matches!(outcome, Outcome::Again);
        let next = results
            .peek_mut()
            .filter(|(next, _)| entry.slip.shares_message(&next.slip));
        match next {
            // The message's last write in this commit speaks for all of them, unless one has to be done again.
            Some((next, _)) if !waits => next.slip.so_far = worse(next.slip.so_far, so_far),
            Some((next, next_outcome)) => {
                next.slip.so_far = worse(next.slip.so_far, so_far);
                // Order within a message is kept: what follows a write that waits is done again, too.
                *next_outcome = Outcome::Again;
            }
            None if !waits => ranges.add(gate.clone(), *index, so_far),
            None => {}
        }
        if waits {
            entry.slip.so_far = so_far;
            again.push(entry);
        }
    }
    ranges.tell();
    again
}

/// Answers somebody who asked; gives back what has to be written again.
fn answer(entry: Entry, outcome: Outcome) -> Option<Entry> {
    if matches!(outcome, Outcome::Again) {
        return Some(entry);
    }
    match entry.slip.owner {
        Owner::Asker(asker) => {
            // The asker may have gone; then nobody wants to know.
            let _ = asker.send(match outcome {
                Outcome::Written(written) => Ok(written),
                Outcome::Refused(error) => Err(error),
                Outcome::Cancelled | Outcome::Again => Err(Error::new(Kind::Timeout, entry.write.label())),
            });
        }
        Owner::Session(settle, ticket) => settle.settle(ticket, &[settled(&outcome)]),
        Owner::Message(..) | Owner::Nobody => {}
    }
    None
}

fn settled(outcome: &Outcome) -> Settled {
    match outcome {
        Outcome::Written(_) | Outcome::Again => Settled::Stored,
        Outcome::Refused(_) => Settled::Refused(Reason::IMPLEMENTATION_SPECIFIC_ERROR),
        Outcome::Cancelled => Settled::Cancelled,
    }
}

fn worse(left: Settled, right: Settled) -> Settled {
    match (left, right) {
        (refused @ Settled::Refused(_), _) | (_, refused @ Settled::Refused(_)) => refused,
        (Settled::Cancelled, _) | (_, Settled::Cancelled) => Settled::Cancelled,
        (Settled::Stored, Settled::Stored) => Settled::Stored,
    }
}

/// Consecutive results of one run.
#[derive(Default)]
struct Ranges {
    gate: Option<Arc<Gate>>,
    first: usize,
    results: Vec<Settled>,
}

impl Ranges {
    fn add(&mut self, gate: Arc<Gate>, index: usize, result: Settled) {
        let follows = self.first + self.results.len() == index;
        if !(follows && self.gate.as_ref().is_some_and(|known| Arc::ptr_eq(known, &gate))) {
            self.tell();
            self.gate = Some(gate);
            self.first = index;
        }
        self.results.push(result);
    }

    fn tell(&mut self) {
        if let Some(gate) = self.gate.take()
            && let Some(settle) = &gate.settle
        {
            settle.settle(gate.first + self.first as Ticket, &self.results);
        }
        self.results.clear();
    }
}
