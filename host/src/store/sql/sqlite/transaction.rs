//! A transaction on the connection that writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use super::answer::{away, query, run};
use super::{Outcome, Shared, Writer};
use crate::model::value::{Rows, Value};
use crate::store::sql::{Sql, Transaction};

/// Holds the connection until it ends.
pub(super) struct Batch {
    pub(super) guard: OwnedMutexGuard<Option<Writer>>,
    pub(super) shared: Arc<Shared>,
    pub(super) file: PathBuf,
}

impl Batch {
    fn writer(&mut self) -> Outcome<&mut Writer> {
        self.guard.as_mut().ok_or_else(|| away("closed"))
    }

    async fn end(&mut self, how: &'static str) -> Outcome<()> {
        let writer = self.writer()?;
        let ended = run(&mut writer.connection, &how.into(), Vec::new()).await;
        writer.dirty = ended.is_err();
        ended
            .map(|_| ())
            .map_err(|fault| self.shared.weigh(fault).at(&self.file))
    }
}

#[async_trait]
impl Transaction for Batch {
    async fn query(&mut self, sql: &Sql, params: Vec<Value>) -> Outcome<Rows> {
        let answer = query(&mut self.writer()?.connection, sql, params).await;
        answer.map_err(|fault| self.shared.weigh(fault).at(&self.file))
    }

    async fn run(&mut self, sql: &Sql, params: Vec<Value>) -> Outcome<u64> {
        let answer = run(&mut self.writer()?.connection, sql, params).await;
        answer.map_err(|fault| self.shared.weigh(fault).at(&self.file))
    }

    /// BEGIN is refused within a transaction: that it is tells that ours goes on.
    async fn lives(&mut self) -> bool {
        let Ok(writer) = self.writer() else { return false };
        run(&mut writer.connection, &"BEGIN".into(), Vec::new()).await.is_err()
    }

    async fn commit(mut self: Box<Self>) -> Outcome<()> {
        self.end("COMMIT").await?;
        // Nothing says so when the file was removed or replaced: what went into it is lost. So look, before
        // anybody hears that it is stored.
        if self.writer()?.file.is_current() {
            return Ok(());
        }
        self.shared.suspect.store(true, Ordering::Release);
        Err(away("the file was removed or replaced while it was open").at(&self.file))
    }

    async fn rollback(mut self: Box<Self>) {
        // Some failures have rolled back already; then this is refused, which is fine. Whatever is still open
        // is rolled back before the next transaction.
        let _ = self.end("ROLLBACK").await;
    }
}
