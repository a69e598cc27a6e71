//! What an operator asks of a database beside what clients do: what may be deleted, how it is, whether it is whole,
//! and a copy of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Result;
use crate::model::delivery::Position;

/// A store that can look after its messages itself. Others have their database's own means: a time to live, a dump.
#[async_trait]
pub trait Upkeep: Send + Sync {
    /// How far readers with a row have come.
    async fn floors(&self, limit: usize) -> Result<Floors>;
    /// The newest place that was ever given out.
    async fn newest(&self) -> Result<Position>;
    /// The oldest messages behind a place, as many as are worth one look: at most `limit`, fewer where they are large.
    async fn aged(&self, after: Position, limit: usize) -> Result<Aged>;
    /// Bytes in use, without what is free to be used again.
    async fn used_bytes(&self) -> Result<u64>;
    /// How the database is.
    async fn status(&self) -> Result<Status>;
    /// What is wrong with what is stored, a sentence each; `full` also compares every index with its table. Tells
    /// `watch` how many rows it has looked at, and stops where that says so.
    async fn check(&self, full: bool, watch: &Arc<Watch>) -> Result<Vec<String>>;
    /// Writes a copy of everything that is committed by now to `to`, which is there and empty, and looks whether the
    /// copy is whole. Tells `watch` how many bytes are written, and stops where that says so.
    async fn copy(&self, to: &Path, watch: &Arc<Watch>) -> Result<Copied>;
    /// The files that a copy must never replace.
    fn files(&self) -> Vec<PathBuf>;
}

/// How far readers with a row have come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Floors {
    /// The smallest position of each filter, at most as many as asked for.
    pub by_filter: Vec<(String, Position)>,
    /// The smallest position of all, where there are more filters than that.
    pub of_all: Option<Position>,
}

/// Messages in the order of their places.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Aged {
    /// At least one, unless there is none.
    pub rows: Vec<AgedRow>,
    /// Whether nothing lay behind them.
    pub end: bool,
}

/// A stored message, as far as it says whether it may go.
#[derive(Clone, Debug, PartialEq)]
pub struct AgedRow {
    /// Where it lies.
    pub place: Position,
    /// Its topic.
    pub topic: String,
    /// When it arrived, in seconds since 1970.
    pub arrived_s: i64,
    /// When it expires, in seconds since 1970.
    pub expires_s: Option<i64>,
    /// Bytes of its payload.
    pub bytes: u64,
}

/// How a database is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it lies.
    pub file: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of its log of commits.
    pub log_bytes: u64,
    /// Bytes within the file that are free to be used again.
    pub free_bytes: u64,
    /// The version of its tables.
    pub schema: i64,
    /// What a commit survives.
    pub survives: String,
    /// Rows of each table; counted to [`COUNTED_MAX`] only.
    pub rows: BTreeMap<String, u64>,
    /// The oldest message.
    pub oldest: Option<Stamp>,
    /// The newest message.
    pub newest: Option<Stamp>,
    /// The newest id that was ever given to a message.
    pub newest_id: u64,
    /// The smallest stored position.
    pub horizon: Option<u64>,
}

/// Counting costs a look at every row: so many are enough to know.
pub const COUNTED_MAX: u64 = 1_000_000;

/// A stored message by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Its row id.
    pub id: u64,
    /// When it arrived, in seconds since 1970.
    pub arrived_s: i64,
}

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Bytes of the copy.
    pub bytes: u64,
    /// The newest message in it.
    pub newest_id: u64,
}

/// How far a long piece of work has come, and whether it should stop.
#[derive(Debug, Default)]
pub struct Watch {
    done: AtomicU64,
    of: AtomicU64,
    stopped: AtomicBool,
}

impl Watch {
    /// So much is done, of so much.
    pub fn tell(&self, done: u64, of: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.of.store(of, Ordering::Relaxed);
    }

    /// How much is done, of how much.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.of.load(Ordering::Relaxed))
    }

    /// Whoever does the work should stop.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether the work should stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
