//! The task that writes: one batch after the other, again and again while the database is away.

use std::future::Future;
use std::iter;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch::{SWEEP, Shared};
use super::pauses::pauses;
use super::queue::Entry;
use super::settle::{Outcome, Slip};
use super::{Error, Kind, Result, Store, Write, Written};

/// The longest pause between two attempts (spec F2).
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// When the writer ends.
#[derive(Clone)]
pub(super) struct Ends {
    /// Write what waits, then end.
    pub(super) drain: CancellationToken,
    /// End after the commit that is under way; what waits is cancelled.
    pub(super) abandon: CancellationToken,
}

/// The task that writes.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<dyn Store>,
    pub(super) ends: Ends,
    pub(super) batch_size: usize,
}

impl Writer {
    /// Until the end.
    pub(super) async fn work(self) {
        let mut next_pause = pauses(PAUSE_MAX);
        while self.filled().await {
            let entries = self.shared.take(self.batch_size);
            if self.commit(entries).await {
                next_pause = pauses(PAUSE_MAX);
            } else {
                self.meanwhile(self.rest(next_pause())).await;
            }
            self.shared.tell_barriers();
        }
        self.end();
    }

    /// Waits for something to write; false at the end.
    async fn filled(&self) -> bool {
        loop {
            if self.ends.abandon.is_cancelled() {
                return false;
            }
            {
                let mut queue = self.shared.queue.lock();
                if queue.len() > 0 {
                    return true;
                }
                if self.ends.drain.is_cancelled() {
                    // Under the lock that pushes take: whatever comes later is cancelled at once.
                    queue.closed = true;
                    return false;
                }
            }
            tokio::select! {
                biased;
                () = self.shared.filled.notified() => {}
                () = self.ends.drain.cancelled() => {}
                () = self.ends.abandon.cancelled() => {}
            }
        }
    }

    /// One attempt; false if something of it has to be done again.
    async fn commit(&self, mut entries: Vec<Entry>) -> bool {
        let now = Instant::now();
        if entries.iter().any(|entry| entry.slip.until <= now) {
            let (due, kept) = entries.into_iter().partition(|entry| entry.slip.until <= now);
            self.shared.cancel(due);
            entries = kept;
        }
        if entries.is_empty() {
            return true;
        }
        let (writes, slips): (Vec<Write>, Vec<(u64, Slip)>) = entries
            .into_iter()
            .map(|entry| (entry.write, (entry.seq, entry.slip)))
            .unzip();
        let results = self.meanwhile(self.attempt(&writes)).await;
        let failure = results.iter().find_map(passing);
        self.shared
            .books
            .committed(writes.len(), now.elapsed(), failure.map(|error| error.kind));
        self.shared.health.committed(failure);
        let done = failure.is_none();
        if let Some(error) = results.iter().find_map(final_error) {
            self.shared.health.complain(error, "write refused");
        }
        let entries = iter::zip(writes, slips)
            .map(|(write, (seq, slip))| Entry { seq, write, slip })
            .collect();
        let mut results = results.into_iter();
        // A store that answers too little has not said that the rest is stored.
        self.shared
            .finish(entries, |_| results.next().map_or(Outcome::Again, outcome));
        done
    }

    /// A driver's panic costs one attempt, not the writer.
    async fn attempt(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let attempt = AssertUnwindSafe(self.store.write(writes)).catch_unwind().await;
        attempt.unwrap_or_else(|_| {
            let panicked = || Error::because(Kind::Unavailable, "write", "the driver panicked");
            writes.iter().map(|_| Err(panicked())).collect()
        })
    }

    /// Until the next attempt: a pause, cut short by a database that answers again or by the end.
    async fn rest(&self, pause: Duration) {
        let stop = async {
            // Asked to stop while resting: at once. Asked before: the pause counts, or we would spin.
            match self.ends.drain.is_cancelled() {
                false => self.ends.drain.cancelled().await,
                true => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = self.shared.heals.notified() => {}
            () = stop => {}
            () = self.ends.abandon.cancelled() => {}
        }
    }

    /// Does `work` to its end, and in the meantime cancels what has waited too long.
    async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut sweep_at = Instant::now() + SWEEP;
        loop {
            tokio::select! {
                biased;
                output = &mut work => return output,
                () = sleep_until(sweep_at) => sweep_at = self.shared.sweep(),
            }
        }
    }

    /// Nobody writes any more: whatever is left is refused.
    fn end(&self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        let left = queue.take(usize::MAX);
        drop(queue);
        if !left.is_empty() {
            tracing::warn!(pool = %self.shared.pool, writes = left.len(), "stopped before these writes were stored");
        }
        self.shared.refuse(left);
        self.shared.settled.change(|_| u64::MAX);
        self.shared.pressed.change(|_| false);
    }
}

fn passing(result: &Result<Written>) -> Option<&Error> {
    result.as_ref().err().filter(|error| error.kind.is_passing())
}

fn final_error(result: &Result<Written>) -> Option<&Error> {
    result.as_ref().err().filter(|error| !error.kind.is_passing())
}

fn outcome(result: Result<Written>) -> Outcome {
    match result {
        Ok(written) => Outcome::Written(written),
        Err(error) if error.kind.is_passing() => Outcome::Again,
        Err(error) => Outcome::Refused(error),
    }
}
