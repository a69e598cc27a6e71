//! Many waiting writes become one commit, and each gets its own result. What waits while a commit is under
//! way is the next commit; there is no linger. The writer is a task of its own: nobody's timeout drops a commit.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::books::Books;
use super::health::Health;
use super::level::Level;
use super::options::PoolOptions;
use super::queue::{Entry, Queue};
use super::settle::{Gate, Outcome, Owner, Slip, settle};
use super::writer::{Ends, Writer};
use super::{Error, Kind, Result, Store, Write, Written};
use crate::model::delivery::{PoolName, Run, Settle, Ticket};

/// How often at most the queue is searched for writes that have waited too long.
pub(super) const SWEEP: Duration = Duration::from_millis(50);
/// How often at least, while a commit or a pause lasts.
const SWEEP_AT_LEAST: Duration = Duration::from_secs(1);

/// A run of messages whose acknowledgements wait for their writes.
pub struct Gated {
    /// The messages; the one with index `i` has the ticket `first + i`.
    pub run: Arc<Run>,
    /// Which of `run.stored` learns where the messages come to lie.
    pub stored: Option<usize>,
    /// The ticket of the run's first message.
    pub first: Ticket,
    /// What to write, each with the index of its message, in ascending order. A message with several writes
    /// is settled once, with the worst of their results.
    pub writes: Vec<(usize, Write)>,
    /// Who hears of it; `None` in async write mode, where nobody waits.
    pub settle: Option<Arc<dyn Settle>>,
    /// From then on a message that is not in flight is cancelled.
    pub until: Instant,
}

/// The way into one pool's database for everything that is written.
pub struct Batcher {
    shared: Arc<Shared>,
}

/// What the ways in and the writer share.
pub(super) struct Shared {
    pub(super) pool: PoolName,
    pub(super) queue: Mutex<Queue>,
    /// There is something to write.
    pub(super) filled: Notify,
    /// The database answers again.
    pub(super) heals: Notify,
    /// Everything with a lower number has settled.
    pub(super) settled: Level<u64>,
    pub(super) pressed: Level<bool>,
    len_max: usize,
    bytes_max: usize,
    patience: Duration,
    pub(super) health: Arc<Health>,
    pub(super) books: Books,
}

impl Batcher {
    /// Starts the writer of a pool.
    pub(super) fn start(
        store: Arc<dyn Store>,
        options: &PoolOptions,
        pool: PoolName,
        health: Arc<Health>,
        tasks: &TaskTracker,
        ends: Ends,
    ) -> Self {
        let shared = Arc::new(Shared {
            books: Books::new(&pool),
            pool,
            queue: Mutex::default(),
            filled: Notify::new(),
            heals: Notify::new(),
            settled: Level::new(0),
            pressed: Level::new(false),
            len_max: options.queue_max_len,
            bytes_max: options.queue_max_bytes,
            patience: options.retry_max_age,
            health,
        });
        let writer = Writer {
            shared: shared.clone(),
            store,
            ends,
            batch_size: options.batch_size.max(1),
        };
        tasks.spawn(writer.work());
        Self { shared }
    }

    /// Takes a run's writes; never waits. Its gates are settled when they are committed.
    pub fn gate(&self, gated: Gated) {
        let Gated { run, stored, first, .. } = gated;
        let settle = gated.settle;
        let gate = Arc::new(Gate {
            run,
            stored,
            first,
            settle,
        });
        let slips = gated.writes.into_iter().map(|(index, write)| {
            let owner = Owner::Message(gate.clone(), index);
            (write, Slip::new(owner, gated.until))
        });
        self.shared.push(slips);
    }

    /// Takes a write that nobody waits for. It is tried again until `retry_max_age`; a refused one is
    /// counted and logged. Of a client's or a reader's states only the newest is kept.
    pub fn write(&self, write: Write) {
        let slip = Slip::new(Owner::Nobody, Instant::now() + self.shared.patience);
        self.shared.push_state(write, slip);
    }

    /// Takes a write of a session's own state; its result is settled under this ticket. It is tried again until
    /// `retry_max_age`.
    pub fn keep(&self, write: Write, settle: &Arc<dyn Settle>, ticket: Ticket) {
        let owner = Owner::Session(Arc::clone(settle), ticket);
        let slip = Slip::new(owner, Instant::now() + self.shared.patience);
        self.shared.push(iter::once((write, slip)));
    }

    /// Takes a write, at once, and waits for its result.
    pub fn ask(&self, write: Write) -> impl Future<Output = Result<Written>> + use<> {
        let verb = write.label();
        let (asker, answer) = oneshot::channel();
        let slip = Slip::new(Owner::Asker(asker), Instant::now() + self.shared.patience);
        self.shared.push(iter::once((write, slip)));
        async move {
            answer
                .await
                .unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, verb)))
        }
    }

    /// Waits until everything that was queued before has settled.
    pub async fn barrier(&self) {
        let mine = self.shared.queue.lock().next_seq();
        self.shared.settled.becomes(|settled| settled >= mine).await;
    }

    /// Whether more waits than `queue_max_len` or `queue_max_bytes`: connections stop reading.
    pub fn pressed(&self) -> bool {
        self.shared.pressed.get()
    }

    /// Waits until it is [`Batcher::pressed`] no more.
    pub async fn relieved(&self) {
        self.shared.pressed.becomes(|pressed| !pressed).await;
    }

    /// How many writes wait, without those of a commit under way.
    pub fn waiting(&self) -> usize {
        self.shared.queue.lock().len()
    }

    /// How many bytes of writes wait, without those of a commit under way.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.queue.lock().bytes()
    }

    /// Try again now: the database answers.
    pub(super) fn heal(&self) {
        self.shared.heals.notify_waiters();
    }
}

impl Shared {
    fn push(&self, writes: impl Iterator<Item = (Write, Slip)>) {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            return self.cancel(writes.map(|(write, slip)| Entry { seq: 0, write, slip }).collect());
        }
        writes.for_each(|(write, slip)| queue.push(write, slip));
        self.weigh(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    /// Nobody slows down for these writes, so beyond twice the limit they are dropped.
    fn push_state(&self, write: Write, slip: Slip) {
        let mut queue = self.queue.lock();
        if queue.closed || queue.len() >= self.len_max.saturating_mul(2) {
            drop(queue);
            return self.cancel(vec![Entry { seq: 0, write, slip }]);
        }
        queue.push_state(write, slip);
        self.weigh(&queue);
        drop(queue);
        self.filled.notify_one();
    }

    /// After every change of the queue: figures, and whether connections may read. They may again when a
    /// quarter is free, or they would stop and go with every commit.
    fn weigh(&self, queue: &Queue) {
        let (len, bytes) = (queue.len(), queue.bytes());
        self.books.waiting(len, bytes);
        let full = len > self.len_max || bytes > self.bytes_max;
        let relieved = len <= self.len_max / 4 * 3 && bytes <= self.bytes_max / 4 * 3;
        self.pressed.change(|pressed| full || (pressed && !relieved));
    }

    /// The next batch.
    pub(super) fn take(&self, limit: usize) -> Vec<Entry> {
        let mut queue = self.queue.lock();
        let taken = queue.take(limit);
        self.weigh(&queue);
        taken
    }

    /// Cancels what has waited too long; answers when to look again.
    pub(super) fn sweep(&self) -> Instant {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        let due = queue.take_due(now);
        let next = queue.next_due();
        if !due.is_empty() {
            self.weigh(&queue);
        }
        drop(queue);
        self.cancel(due);
        let latest = now + SWEEP_AT_LEAST;
        next.map_or(latest, |next| next.clamp(now + SWEEP, latest))
    }

    /// Settles entries that will not be written.
    pub(super) fn cancel(&self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        let error = Error::because(
            Kind::Timeout,
            first.write.label(),
            format!(
                "{} writes waited too long or found the queue full or closed",
                entries.len()
            ),
        );
        self.health.complain(&error, "writes cancelled");
        self.finish(entries, |_| Outcome::Cancelled);
    }

    /// Settles entries of a pool that has closed: its publishers are told that they were not stored (spec F2).
    pub(super) fn refuse(&self, entries: Vec<Entry>) {
        self.finish(entries, |_| Outcome::Refused(Error::new(Kind::Unavailable, "close")));
    }

    /// Settles entries; what has to be done again goes back to the front.
    pub(super) fn finish(&self, entries: Vec<Entry>, outcome: impl FnMut(usize) -> Outcome) {
        let outcomes: Vec<Outcome> = (0..entries.len()).map(outcome).collect();
        self.books.count(&entries, &outcomes);
        let again = settle(entries, outcomes);
        if !again.is_empty() {
            let mut queue = self.queue.lock();
            queue.give_back(again);
            self.weigh(&queue);
        }
    }

    /// Tells the barriers how far we are. Only the writer calls it, when it holds no entries.
    pub(super) fn tell_barriers(&self) {
        let settled = self.queue.lock().first_seq();
        self.settled.change(|_| settled);
    }
}
