//! How connections are opened.

use std::path::PathBuf;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::store::options::{InitSchema, PoolOptions};

/// What the operator said, as far as it concerns the file.
pub(super) struct Settings {
    pub(super) file: PathBuf,
    pub(super) readers: u32,
    pub(super) connect_timeout: Duration,
    busy_timeout: Duration,
    pub(super) init_schema: InitSchema,
}

impl Settings {
    pub(super) fn new(options: &PoolOptions) -> Self {
        Self {
            file: options.file.clone(),
            readers: u32::try_from(options.pool_size).unwrap_or(u32::MAX).max(1),
            connect_timeout: options.connect_timeout,
            // Shorter than the patience of a call, so that a lock is called a lock.
            busy_timeout: options.query_timeout / 2,
            init_schema: options.init_schema,
        }
    }

    /// The connection that writes.
    pub(super) fn writer(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.file)
            .create_if_missing(self.init_schema != InitSchema::Off)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode, FULL syncs the log before a commit returns; NORMAL does not.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(self.busy_timeout)
            // A burst leaves a large log behind; give the disk back afterwards.
            .pragma("journal_size_limit", "67108864")
            .statement_cache_capacity(256)
            .disable_statement_logging()
    }

    /// A connection for long work beside the others.
    pub(super) fn tool(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.file)
            .busy_timeout(self.busy_timeout)
    }

    /// The connections that read.
    pub(super) fn readers(&self) -> SqlitePool {
        let connections = SqliteConnectOptions::new()
            .filename(&self.file)
            .pragma("query_only", "ON")
            .busy_timeout(self.busy_timeout)
            .disable_statement_logging();
        SqlitePoolOptions::new()
            .max_connections(self.readers)
            .acquire_timeout(self.connect_timeout)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(connections)
    }
}
