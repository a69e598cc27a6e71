//! How everybody reaches a session: a bounded box of runs, results and orders, emptied by its task in turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::arrival::Arrival;
use crate::model::delivery::{Page, Position, Run, Settle, Settled, Ticket};
use crate::model::event::Effect;
use crate::model::report::SessionReport;
use crate::model::session::{Keeping, SavedSession};
use crate::mqtt::session::{Depth, ReadId, SubId};

/// Live messages, and which of the session's subscriptions they match.
pub(super) type Live = (Arc<Run>, Arc<[SubId]>);

/// Results and orders: what lies in a mailbox beside live messages. Never refused; bounded by what the session
/// asked for.
pub(super) enum Item {
    /// Gates have settled: all stored, this many.
    Stored(Ticket, u32),
    /// Gates have settled, each in its own way.
    Settled(Ticket, Box<[Settled]>),
    /// The answer to [`crate::mqtt::session::Step::Begin`].
    Begun(ReadId, Option<Position>),
    /// The answer to [`crate::mqtt::session::Step::Read`].
    Page(ReadId, Option<Page>),
    /// The answer to [`crate::mqtt::session::Step::Keep`]: whether it is there.
    Kept(ReadId, bool),
    /// The session as it is kept, if it is: what a connection waited for.
    Loaded(Loaded),
    /// The session is kept and something of it is due.
    Due,
    /// What a rule asks for.
    Effect(Effect),
    /// A member of this group has come: what waits here is for it.
    Offer(Arc<str>),
    /// An operator asks how the session is.
    Report(Depth, oneshot::Sender<SessionReport>),
    /// An operator closes the connection; answered with whether there was one.
    Kick(oneshot::Sender<bool>),
    /// The session is to end, and somebody wants to know when nothing is left of it.
    Delete(oneshot::Sender<bool>),
    /// The client connected (again).
    Arrival(Box<Arrival>),
    /// The broker shuts down: open gates get so long.
    ShutDown(Duration),
    /// A test wants to know what the session holds.
    #[cfg(test)]
    Look(tokio::sync::oneshot::Sender<crate::mqtt::session::Load>),
}

/// What became of loading a session: `Err` where its store did not answer in time.
pub(super) type Loaded = Result<Option<Box<(SavedSession, Keeping)>>, ()>;

/// How many live messages and bytes may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// A session's mailbox.
pub(super) struct Mailbox {
    slot: Mutex<Slot>,
    bounds: Bounds,
    /// Whether a client is connected: shared subscriptions prefer those.
    online: AtomicBool,
}

#[derive(Default)]
struct Slot {
    items: Vec<Item>,
    live: Vec<Live>,
    messages: usize,
    bytes: usize,
    /// Runs were refused since the box was last emptied.
    overflowed: bool,
    /// Waker under the same lock: no wake-up is lost.
    waker: Option<Waker>,
}

/// What lies in a mailbox.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) messages: usize,
    pub(super) items: usize,
}

impl Mailbox {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            slot: Mutex::default(),
            bounds,
            online: AtomicBool::new(false),
        }
    }

    /// Puts live messages in. Answers false, and remembers it, where there is no room.
    pub(super) fn push_run(&self, run: &Arc<Run>, subs: &Arc<[SubId]>) -> bool {
        let size = run.size_bytes();
        let waker = {
            let mut slot = self.slot.lock();
            let messages = slot.messages + run.messages.len();
            // A run that is larger than the bounds still fits into an empty box.
            let full = messages > self.bounds.messages_max || slot.bytes + size > self.bounds.bytes_max;
            if full && slot.messages > 0 {
                slot.overflowed = true;
                wake(slot.waker.take());
                return false;
            }
            slot.messages = messages;
            slot.bytes += size;
            let keeps = run.kept_bytes().saturating_mul(slot.live.len() + 1);
            if keeps > self.bounds.bytes_max {
                // All that wait may keep a buffer of their publisher's that is much larger: those behind have their own.
                let apart = (0..run.messages.len()).filter_map(|index| run.apart(index));
                slot.live.extend(apart.map(|run| (run, Arc::clone(subs))));
            } else {
                slot.live.push((Arc::clone(run), Arc::clone(subs)));
            }
            slot.waker.take()
        };
        // Woken after the unlock; where nobody waits there is nobody to wake.
        wake(waker);
        true
    }

    /// Puts anything else in: never refused.
    pub(super) fn push(&self, item: Item) {
        let waker = {
            let mut slot = self.slot.lock();
            slot.items.push(item);
            slot.waker.take()
        };
        wake(waker);
    }

    /// Takes the orders out and, where `live` is given, the live messages. Asks to be woken where there was
    /// nothing to take. Answers whether live messages were refused.
    pub(super) fn drain(&self, cx: &Context<'_>, items: &mut Vec<Item>, live: Option<&mut Vec<Live>>) -> bool {
        let mut slot = self.slot.lock();
        let takes_live = live.is_some() && !slot.live.is_empty();
        if slot.items.is_empty() && !slot.overflowed && !takes_live {
            slot.waker = Some(cx.waker().clone());
            return false;
        }
        std::mem::swap(&mut slot.items, items);
        if let Some(live) = live {
            std::mem::swap(&mut slot.live, live);
            (slot.messages, slot.bytes) = (0, 0);
        }
        std::mem::take(&mut slot.overflowed)
    }

    /// What lies in it.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> Waiting {
        let slot = self.slot.lock();
        Waiting {
            messages: slot.live.iter().map(|(run, _)| run.messages.len()).sum(),
            items: slot.items.len(),
        }
    }

    /// Whether a connection or an operator waits in it.
    pub(super) fn has_orders(&self) -> bool {
        self.slot
            .lock()
            .items
            .iter()
            .any(|item| matches!(item, Item::Arrival(_) | Item::Delete(_)))
    }

    /// Whether it is half full: its session should get to run.
    pub(super) fn is_pressed(&self) -> bool {
        let slot = self.slot.lock();
        slot.messages > self.bounds.messages_max / 2 || slot.bytes > self.bounds.bytes_max / 2
    }

    /// Live messages that wait in it.
    pub(super) fn len(&self) -> usize {
        self.slot.lock().messages
    }

    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::Relaxed)
    }

    /// Notes whether a client is connected; answers whether one was.
    pub(super) fn set_online(&self, online: bool) -> bool {
        self.online.swap(online, Ordering::Relaxed)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Settle for Mailbox {
    fn settle(&self, first: Ticket, results: &[Settled]) {
        let all_stored = results.iter().all(|result| *result == Settled::Stored);
        self.push(match all_stored {
            true => Item::Stored(first, results.len() as u32),
            false => Item::Settled(first, results.into()),
        });
    }
}

/// The way in for the results of what a session keeps.
pub(super) struct Keeps(pub(super) Arc<Mailbox>);

impl Settle for Keeps {
    fn settle(&self, first: Ticket, results: &[Settled]) {
        for (id, result) in (first..).zip(results) {
            self.0.push(Item::Kept(id, *result == Settled::Stored));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::session::fixtures::run_of;

    #[test]
    fn small_messages_that_wait_keep_no_more_of_larger_buffers_than_may_wait() {
        let mailbox = Mailbox::new(Bounds {
            messages_max: 1000,
            bytes_max: 200_000,
        });
        let subs: Arc<[SubId]> = Arc::new([1]);
        let runs: Vec<Arc<Run>> = (0..10).map(|_| run_of(2)).collect();
        for run in &runs {
            run.came_in(64 * 1024);
            assert!(mailbox.push_run(run, &subs));
        }
        let kept = runs.iter().filter(|run| Arc::strong_count(run) > 1).count();
        assert_eq!((kept, mailbox.len(), mailbox.waiting().messages), (3, 20, 20));
    }
}
