//! Every verb in SQL, written once for every engine. Drivers pass text and values on and say what went wrong;
//! they know nothing of messages.

mod bind;
pub mod dialect;
mod plan;
mod read;
mod row;
mod script;
mod session;
pub mod sqlite;
mod statements;
mod upkeep;
mod write;

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use self::dialect::Dialect;
use self::row::Form;
use self::statements::Statements;
use super::options::PoolOptions;
use super::upkeep::{Copied, Status, Upkeep, Watch};
use super::{Error, Kind, Result, Store, Write, Written};
use crate::model::delivery::{Page, Position, Reader, Window};
use crate::model::event::seconds;
use crate::model::message::ClientId;
use crate::model::session::SavedSession;
use crate::model::topic::Filter;
use crate::model::value::{Rows, Value};

/// A statement's text, cheap to clone.
pub type Sql = Arc<str>;

/// One SQL engine: connections, transactions and what its errors mean.
#[async_trait]
pub trait Driver: Send + Sync {
    /// How it writes what others write differently.
    fn dialect(&self) -> &'static Dialect;
    /// A statement that only reads; one that writes may be done by a transaction of its own.
    async fn query(&self, sql: &Sql, params: Vec<Value>) -> std::result::Result<Rows, Fault>;
    /// The transaction of a batch.
    async fn begin(&self) -> std::result::Result<Box<dyn Transaction>, Fault>;
    /// Whether the database answers and would take writes; opens it where it is not open.
    async fn ping(&self) -> std::result::Result<(), Fault>;
    /// What it knows about itself.
    async fn facts(&self) -> std::result::Result<BTreeMap<String, String>, Fault>;
    /// Bytes in use, without what is free to be used again.
    async fn used_bytes(&self) -> std::result::Result<u64, Fault>;
    /// How the database is.
    async fn status(&self) -> std::result::Result<Status, Fault>;
    /// What is wrong with what is stored (see [`Upkeep::check`]).
    async fn check(&self, full: bool, watch: &Arc<Watch>) -> std::result::Result<Vec<String>, Fault>;
    /// Copies what is committed by now (see [`Upkeep::copy`]).
    async fn copy(&self, to: &Path, watch: &Arc<Watch>) -> std::result::Result<Copied, Fault>;
    /// The files that a copy must never replace.
    fn files(&self) -> Vec<PathBuf>;
    /// Closes every connection.
    async fn close(&self);
}

/// A transaction. One that is dropped has done nothing.
#[async_trait]
pub trait Transaction: Send {
    /// A statement and its rows.
    async fn query(&mut self, sql: &Sql, params: Vec<Value>) -> std::result::Result<Rows, Fault>;
    /// A statement and how many rows it changed.
    async fn run(&mut self, sql: &Sql, params: Vec<Value>) -> std::result::Result<u64, Fault>;
    /// Whether it still goes on after a statement failed: some failures end it as a whole.
    async fn lives(&mut self) -> bool;
    /// Makes it durable. Only a success is one.
    async fn commit(self: Box<Self>) -> std::result::Result<(), Fault>;
    /// Undoes it.
    async fn rollback(self: Box<Self>);
}

/// What went wrong, as a driver sees it.
#[derive(Debug)]
pub struct Fault {
    /// What it means.
    pub nature: Nature,
    /// What the engine said.
    pub source: Box<dyn StdError + Send + Sync>,
}

/// What a fault means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// The database is away, locked, full or read-only.
    Away,
    /// No connection was free in time.
    Slow,
    /// These values cannot be stored here.
    Row,
    /// The statement is wrong, or the tables are.
    Statement,
    /// What came back cannot be read.
    Unreadable,
}

impl Fault {
    /// The same, with the file that it happened to.
    fn at(self, file: &Path) -> Self {
        let source = format!("{}: {}", file.display(), self.source).into();
        Self { source, ..self }
    }

    /// A statement of ours failed: wrong tables can be mended, so it is worth another try.
    fn ours(self, verb: &'static str) -> Error {
        let kind = match self.nature {
            Nature::Away | Nature::Statement => Kind::Unavailable,
            Nature::Slow => Kind::Timeout,
            Nature::Row => Kind::Rejected,
            Nature::Unreadable => Kind::Corrupt,
        };
        Error::because(kind, verb, self.source)
    }

    /// A statement of the operator's failed: a wrong one stays wrong.
    fn theirs(self, verb: &'static str) -> Error {
        match self.nature {
            Nature::Statement => Error::because(Kind::Rejected, verb, self.source),
            _ => self.ours(verb),
        }
    }
}

/// A number of rows as a parameter.
fn whole(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A store in an SQL database.
pub struct SqlStore<D> {
    driver: D,
    sql: Statements,
    form: Form,
    node: Arc<str>,
}

impl<D: Driver> SqlStore<D> {
    /// A store over this driver; opens nothing.
    pub fn new(driver: D, options: &PoolOptions) -> Self {
        Self {
            sql: Statements::new(driver.dialect(), options.msgid_format),
            form: Form {
                ids: options.msgid_format,
                node: options.record_node.then(|| options.node.clone()),
            },
            node: options.node.clone(),
            driver,
        }
    }

    async fn rows(&self, verb: &'static str, sql: &Sql, params: Vec<Value>) -> Result<Vec<Vec<Value>>> {
        let rows = self.driver.query(sql, params).await;
        rows.map(|rows| rows.rows).map_err(|fault| fault.ours(verb))
    }

    /// One statement in a transaction of its own: how many rows it changed.
    async fn changed(&self, verb: &'static str, sql: &Sql, params: Vec<Value>) -> Result<u64> {
        let change = async {
            let mut transaction = self.driver.begin().await?;
            let changed = transaction.run(sql, params).await?;
            transaction.commit().await?;
            Ok(changed)
        };
        change.await.map_err(|fault: Fault| fault.ours(verb))
    }
}

#[async_trait]
impl<D: Driver> Store for SqlStore<D> {
    async fn write(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.write_all(writes).await
    }

    async fn subscriptions(&self, client: &ClientId) -> Result<Vec<(String, i64)>> {
        let verb = "subscriptions";
        let rows = self
            .rows(verb, &self.sql.subscriptions, vec![client.as_str().into()])
            .await?;
        let subscription = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
            Ok([Value::Text(topic), Value::Int(qos)]) => Ok((topic, qos)),
            Ok([Value::Text(topic), Value::Null]) => Ok((topic, 0)),
            _ => Err(Error::because(
                Kind::Corrupt,
                verb,
                "mqtt_sub: expected a text and a whole number",
            )),
        };
        rows.into_iter().map(subscription).collect()
    }

    async fn unread(&self, reader: &Reader, window: Window) -> Result<Page> {
        self.page("unread", &self.sql.messages, &reader.filter, window).await
    }

    async fn retained(&self, filter: &Filter, window: Window) -> Result<Page> {
        let page = self.page("retained", &self.sql.retained, filter, window).await?;
        self.with_places("retained", page).await
    }

    async fn query(&self, statement: &str, params: &[Value]) -> Result<Rows> {
        let rows = self.driver.query(&statement.into(), params.to_vec()).await;
        rows.map_err(|fault| fault.theirs("query"))
    }

    async fn ping(&self) -> Result<()> {
        self.driver.ping().await.map_err(|fault| fault.ours("ping"))
    }

    async fn mark_offline(&self, node: &str, before: SystemTime) -> Result<u64> {
        let before = Value::Int(seconds(before));
        let params = vec![before.clone(), node.into(), before];
        self.changed("mark_offline", &self.sql.mark_offline, params).await
    }

    async fn session(&self, client: &ClientId) -> Result<Option<SavedSession>> {
        self.saved_session(client).await
    }

    async fn sessions(&self, after: Option<&ClientId>, limit: usize) -> Result<Vec<ClientId>> {
        let params = vec![after.map_or("", ClientId::as_str).into(), whole(limit)];
        self.clients("sessions", &self.sql.sessions.after, params).await
    }

    async fn due_sessions(&self, now: SystemTime, limit: usize) -> Result<Vec<ClientId>> {
        let params = vec![Value::Int(seconds(now)), whole(limit)];
        self.clients("due_sessions", &self.sql.sessions.due, params).await
    }

    async fn mark_left(&self, node: &str, epoch: u32, at: SystemTime) -> Result<u64> {
        let at = || Value::Int(seconds(at));
        let params = vec![at(), at(), at(), node.into(), Value::Int(epoch.into())];
        self.changed("mark_left", &self.sql.sessions.mark_left, params).await
    }

    async fn positions(&self, client: &ClientId) -> Result<Vec<(String, Position)>> {
        let params = vec![client.as_str().into()];
        let rows = self.rows("positions", &self.sql.sessions.positions, params).await?;
        session::positions(rows)
    }

    async fn facts(&self) -> Result<BTreeMap<String, String>> {
        self.driver.facts().await.map_err(|fault| fault.ours("facts"))
    }

    fn upkeep(&self) -> Option<&dyn Upkeep> {
        Some(self)
    }

    async fn close(&self) {
        self.driver.close().await;
    }
}
