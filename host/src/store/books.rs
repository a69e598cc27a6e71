//! The figures of one pool's writes. Handles are taken once: nothing is looked up per message.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use strum::IntoEnumIterator;

use super::queue::Entry;
use super::settle::Outcome;
use super::{Kind, WriteKind};
use crate::model::delivery::PoolName;
use crate::telemetry;

const OUTCOMES: [&str; 4] = ["stored", "refused", "cancelled", "retried"];

/// What `/metrics` says about one pool's writes.
pub(super) struct Books {
    writes: Vec<[Counter; OUTCOMES.len()]>,
    batch: Histogram,
    seconds: [(Option<Kind>, Histogram); 3],
    waiting: Gauge,
    /// What of `waiting` is writes; the rest is reads.
    waiting_writes: AtomicUsize,
    waiting_bytes: Gauge,
}

impl Books {
    pub(super) fn new(pool: &PoolName) -> Self {
        let pool = pool.to_string();
        let writes = WriteKind::iter().map(|kind| {
            let write: &'static str = kind.into();
            OUTCOMES.map(|outcome| {
                counter!(telemetry::STORE_WRITES, "pool" => pool.clone(), "write" => write, "outcome" => outcome)
            })
        });
        let seconds = [None, Some(Kind::Unavailable), Some(Kind::Timeout)].map(|kind| {
            let outcome = kind.map_or("ok", Kind::label);
            let verb = "write";
            let handle =
                histogram!(telemetry::STORE_CALL_SECONDS, "pool" => pool.clone(), "verb" => verb, "outcome" => outcome);
            (kind, handle)
        });
        Self {
            writes: writes.collect(),
            batch: histogram!(telemetry::STORE_BATCH_WRITES, "pool" => pool.clone()),
            seconds,
            waiting: gauge!(telemetry::POOL_WAITING, "pool" => pool.clone()),
            waiting_writes: AtomicUsize::new(0),
            waiting_bytes: gauge!(telemetry::POOL_WAITING_BYTES, "pool" => pool.clone()),
        }
    }

    /// What became of these writes.
    pub(super) fn count(&self, entries: &[Entry], outcomes: &[Outcome]) {
        for (entry, outcome) in entries.iter().zip(outcomes) {
            let column = match outcome {
                Outcome::Written(_) => 0,
                Outcome::Refused(_) => 1,
                Outcome::Cancelled => 2,
                Outcome::Again => 3,
            };
            self.writes[entry.write.kind() as usize][column].increment(1);
        }
    }

    /// One attempt to commit.
    pub(super) fn committed(&self, writes: usize, took: Duration, failure: Option<Kind>) {
        self.batch.record(writes as f64);
        if let Some((_, seconds)) = self.seconds.iter().find(|(kind, _)| *kind == failure) {
            seconds.record(took);
        }
    }

    /// What waits now.
    pub(super) fn waiting(&self, writes: usize, bytes: usize) {
        let before = self.waiting_writes.swap(writes, Ordering::Relaxed);
        self.waiting.increment(writes as f64 - before as f64);
        self.waiting_bytes.set(bytes as f64);
    }
}

/// A read in line for a connection; it leaves the line when this is dropped.
pub(super) struct InLine(Gauge);

impl InLine {
    pub(super) fn new(waiting: &Gauge) -> Self {
        waiting.increment(1.0);
        Self(waiting.clone())
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
