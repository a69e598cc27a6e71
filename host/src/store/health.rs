//! Whether a pool's database answers: one gauge, and at most one line in ten seconds while it does not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use metrics::Gauge;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Error;
use crate::model::delivery::PoolName;
use crate::telemetry;

/// The shortest time between two lines about one pool (spec F2).
const QUIET: Duration = Duration::from_secs(10);

/// Decides whether a complaint may be logged, and counts those that may not.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    last: Mutex<Option<Instant>>,
    suppressed: AtomicU64,
}

impl Complaint {
    /// `Some(n)`: log it, `n` others were not logged since the last one.
    fn may_speak(&self) -> Option<u64> {
        let now = Instant::now();
        let mut last = self.last.lock();
        if last.is_some_and(|last| now < last + QUIET) {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(now);
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

/// What is known of one pool's database. Reads, writes and health checks report here.
pub(super) struct Health {
    pool: PoolName,
    up: Gauge,
    answers: AtomicBool,
    writes: AtomicBool,
    complaint: Complaint,
    /// What the database said last, while it does not answer.
    error: Mutex<Option<String>>,
    /// Whether anything was ever asked of it.
    asked: AtomicBool,
}

impl Health {
    pub(super) fn new(pool: PoolName) -> Self {
        let up = metrics::gauge!(telemetry::POOL_UP, "pool" => pool.to_string());
        up.set(0.0);
        Self {
            pool,
            up,
            answers: AtomicBool::new(false),
            writes: AtomicBool::new(true),
            complaint: Complaint::default(),
            error: Mutex::default(),
            asked: AtomicBool::new(false),
        }
    }

    /// What the database said last, while it does not answer.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().clone()
    }

    /// Whether it was asked anything yet.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the last check and the last commit went well.
    pub(super) fn is_up(&self) -> bool {
        self.answers.load(Ordering::Relaxed) && self.writes.load(Ordering::Relaxed)
    }

    /// A health check's result.
    pub(super) fn checked(&self, result: &Result<(), Error>) {
        self.note(&self.answers, result.as_ref().err());
    }

    /// A commit's result: the error that makes it be tried again, if any.
    pub(super) fn committed(&self, failure: Option<&Error>) {
        self.note(&self.writes, failure);
        if failure.is_none() {
            self.note(&self.answers, None);
        }
    }

    fn note(&self, what: &AtomicBool, failure: Option<&Error>) {
        let was_up = self.is_up();
        what.store(failure.is_none(), Ordering::Relaxed);
        self.asked.store(true, Ordering::Relaxed);
        if let Some(error) = failure {
            *self.error.lock() = Some(error.chain());
            self.complain(error, "database does not answer, trying again");
        }
        let is_up = self.is_up();
        if was_up != is_up {
            self.up.set(if is_up { 1.0 } else { 0.0 });
            if is_up {
                *self.error.lock() = None;
                info!(pool = %self.pool, "database answers");
            }
        }
    }

    /// Something that an operator should know, but not a thousand times.
    pub(super) fn complain(&self, error: &Error, what: &'static str) {
        if let Some(suppressed) = self.complaint.may_speak() {
            warn!(pool = %self.pool, error = %error.chain(), suppressed, "{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pool_complains_once_in_ten_seconds_and_counts_the_rest() {
        let complaint = Complaint::default();
        assert_eq!(complaint.may_speak(), Some(0));
        for _ in 0..3 {
            assert_eq!(complaint.may_speak(), None);
        }
        tokio::time::advance(QUIET).await;
        assert_eq!(complaint.may_speak(), Some(3));
    }
}
