//! A configured connection to a database, with size, patience and figures; and all of them by name.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::{Gauge, gauge, histogram};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::Batcher;
use super::books::InLine;
use super::health::Health;
use super::needs::Needs;
use super::options::PoolOptions;
use super::pauses::pauses;
use super::retention::{self, Purged, Readership, Retention};
use super::sql::{self, SqlStore};
use super::upkeep::{Status, Upkeep};
use super::writer::Ends;
use super::{Error, Kind, Result, Store, Write, Written};
use crate::model::delivery::{Page, PoolName, Position, Reader, Window};
use crate::model::event::Start;
use crate::model::hold::Hold;
use crate::model::message::ClientId;
use crate::model::session::SavedSession;
use crate::model::topic::Filter;
use crate::model::value::{Rows, Value};
use crate::telemetry;

/// How long a client waits for its session to be read, before it is told to try again later.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// One configured connection to a backend. Its database may be away: writes wait, reads fail in time.
pub struct Pool {
    name: PoolName,
    options: PoolOptions,
    batcher: Batcher,
    store: Arc<dyn Store>,
    permits: Semaphore,
    waiting: Gauge,
    health: Arc<Health>,
    retention: Retention,
    ends: Ends,
    tasks: TaskTracker,
    epoch: u32,
}

/// A backend that this program does not know yet.
#[derive(Debug, thiserror::Error)]
#[error("{0}: there is no store for the backend `{backend}` yet (try sqlite)", backend = .0.backend())]
pub struct UnknownBackend(pub PoolName);

impl Pool {
    /// Starts a pool over this store. Nothing is opened yet and nothing can fail: the first health check,
    /// which starts now, opens the database. Has to be called within a runtime.
    pub fn start(name: PoolName, options: PoolOptions, store: Arc<dyn Store>, stop: &CancellationToken) -> Arc<Self> {
        let health = Arc::new(Health::new(name.clone()));
        let tasks = TaskTracker::new();
        let ends = Ends {
            drain: stop.child_token(),
            abandon: CancellationToken::new(),
        };
        let batcher = Batcher::start(
            store.clone(),
            &options,
            name.clone(),
            health.clone(),
            &tasks,
            ends.clone(),
        );
        let pool = Arc::new(Self {
            waiting: gauge!(telemetry::POOL_WAITING, "pool" => name.to_string()),
            permits: Semaphore::new(options.pool_size.max(1)),
            retention: Retention::new(&name),
            name,
            options,
            batcher,
            store,
            health,
            ends,
            tasks,
            epoch: rand::random(),
        });
        pool.tasks.spawn(pool.clone().watch());
        if pool.store.upkeep().is_some() && retention::is_wanted(&pool.options) {
            pool.tasks.spawn(retention::work(pool.clone()));
        }
        pool.tasks.close();
        pool
    }

    /// `backend.pool`.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// Tells this run of the pool from the one that a crash, a restart or a reload ended.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What the operator said about it.
    pub fn options(&self) -> &PoolOptions {
        &self.options
    }

    /// The way in for everything that is written.
    pub fn batcher(&self) -> &Batcher {
        &self.batcher
    }

    /// A claim for a reader that has no row: what it has not read is not purged.
    pub fn hold(&self, filter: Filter) -> Hold {
        self.retention.hold(filter)
    }

    /// Who reads what is stored here, as the rules in force say.
    pub fn set_readership(&self, readership: Readership) {
        self.retention.set_readership(readership);
    }

    /// How many messages were purged since the start.
    pub fn purged(&self) -> Purged {
        self.retention.total()
    }

    /// The place up to which every reader, with a row or without, has acknowledged everything; `None` where
    /// nobody reads.
    pub async fn horizon(&self) -> Result<Option<Position>> {
        match self.store.upkeep() {
            Some(upkeep) => Ok(self.needs(upkeep).await?.horizon()),
            None => Ok(None),
        }
    }

    /// How its database is, where it says so.
    pub async fn status(&self) -> Result<Option<Status>> {
        match self.store.upkeep() {
            Some(upkeep) => self.call("status", upkeep.status()).await.map(Some),
            None => Ok(None),
        }
    }

    /// What its database can do for an operator, where it can.
    pub fn upkeep(&self) -> Option<&dyn Upkeep> {
        self.store.upkeep()
    }

    /// What readers need. Only what lay in the store before the question may be judged by the answer.
    pub(super) async fn needs(&self, upkeep: &dyn Upkeep) -> Result<Needs> {
        self.call("needs", self.retention.needs(upkeep)).await
    }

    pub(super) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Waits until the pool is told to close.
    pub async fn closing(&self) {
        self.ends.drain.cancelled().await;
    }

    /// Whether the database answered the last check and the last commit.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Whether it was asked anything yet.
    pub fn was_asked(&self) -> bool {
        self.health.was_asked()
    }

    /// What the database said last, while it does not answer; never a password.
    pub fn error(&self) -> Option<String> {
        self.health.error()
    }

    /// What a reader has not read. Tried again for `fetch_retry_for`.
    pub async fn unread(&self, reader: &Reader, window: Window) -> Result<Page> {
        self.patiently("unread", || self.store.unread(reader, window)).await
    }

    /// Retained messages that match. Tried again for `fetch_retry_for`.
    pub async fn retained(&self, filter: &Filter, window: Window) -> Result<Page> {
        self.patiently("retained", || self.store.retained(filter, window)).await
    }

    /// The operator's subscriptions for a client. Tried again for `fetch_retry_for`.
    pub async fn subscriptions(&self, client: &ClientId) -> Result<Vec<(String, i64)>> {
        self.patiently("subscriptions", || self.store.subscriptions(client))
            .await
    }

    /// A kept session. Tried again for as long as a client waits for its CONNACK.
    pub async fn session(&self, client: &ClientId) -> Result<Option<SavedSession>> {
        let deadline = Instant::now() + CONNECT_PATIENCE;
        self.until("session", Some(deadline), || self.store.session(client))
            .await
    }

    /// Whose kept sessions come behind `after`, by name.
    pub async fn sessions(&self, after: Option<&ClientId>, limit: usize) -> Result<Vec<ClientId>> {
        self.call("sessions", self.store.sessions(after, limit)).await
    }

    /// Whose kept sessions are to be looked after (see [`Store::due_sessions`]).
    pub async fn due_sessions(&self, now: SystemTime, limit: usize) -> Result<Vec<ClientId>> {
        self.call("due_sessions", self.store.due_sessions(now, limit)).await
    }

    /// Clients whom another run of this node left connected have gone (see [`Store::mark_left`]). Tried again
    /// until it succeeds or is refused.
    pub async fn mark_left(&self, at: SystemTime) -> Result<u64> {
        let call = || self.store.mark_left(&self.options.node, self.epoch, at);
        self.until("mark_left", None, call).await
    }

    /// The positions that are kept for a client.
    pub async fn positions(&self, client: &ClientId) -> Result<Vec<(String, Position)>> {
        self.call("positions", self.store.positions(client)).await
    }

    /// Where a reader begins (see [`Write::Begin`]): takes its place among the other writes at once, and waits with
    /// them until it is known.
    pub fn begin(&self, reader: Reader, start: Start, durable: bool) -> impl Future<Output = Result<Position>> + use<> {
        let asked = self.batcher.ask(Write::Begin { reader, start, durable });
        async move {
            match asked.await? {
                Written::At(position) => Ok(position),
                Written::Done | Written::Removed(_) => {
                    Err(Error::because(Kind::Corrupt, "begin", "the store named no position"))
                }
            }
        }
    }

    /// One free statement.
    pub async fn query(&self, statement: &str, params: &[Value]) -> Result<Rows> {
        self.call("query", self.store.query(statement, params)).await
    }

    /// Marks clients that a crash left online as offline (see [`Store::mark_offline`]). Tried again until it
    /// succeeds or is refused, so that a database that is away at start loses nothing.
    pub async fn mark_offline(&self, before: SystemTime) -> Result<u64> {
        let node = &self.options.node;
        let call = || self.store.mark_offline(node, before);
        self.until("mark_offline", None, call).await
    }

    /// Facts for `/metrics` and the line at start.
    pub async fn facts(&self) -> Result<BTreeMap<String, String>> {
        self.call("facts", self.store.facts()).await
    }

    /// Whether the database answers now.
    pub async fn ping(&self) -> Result<()> {
        let result = self.call("ping", self.store.ping()).await;
        self.health.checked(&result);
        result
    }

    /// Writes what waits, for at most `patience`, cancels the rest and closes the database. Answers how many
    /// writes were cancelled; nothing acknowledged is among them.
    pub async fn close(&self, patience: Duration) -> usize {
        self.ends.drain.cancel();
        let mut left = 0;
        if timeout(patience, self.tasks.wait()).await.is_err() {
            left = self.batcher.waiting();
            self.ends.abandon.cancel();
            // The commit under way is never dropped: we wait for it, or the process ends.
            self.tasks.wait().await;
        }
        self.store.close().await;
        left
    }

    /// The one place where a call queues, times out and is counted; writes have their batcher.
    pub(super) async fn call<T>(&self, verb: &'static str, op: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        // The permit is inside the timeout: waiting in line is waiting too.
        let guarded = async {
            let in_line = InLine::new(&self.waiting);
            let permit = self.permits.acquire().await;
            drop(in_line);
            let _permit = permit.map_err(|_| Error::new(Kind::Unavailable, verb))?;
            op.await
        };
        let result = timeout(self.options.query_timeout, guarded)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Timeout, verb)));
        let outcome = result.as_ref().map_or_else(|error| error.kind.label(), |_| "ok");
        histogram!(telemetry::STORE_CALL_SECONDS, "pool" => self.name.to_string(), "verb" => verb, "outcome" => outcome)
            .record(started.elapsed());
        result
    }

    async fn patiently<T, F>(&self, verb: &'static str, op: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        self.until(verb, Some(Instant::now() + self.options.fetch_retry_for), op)
            .await
    }

    /// Calls until it succeeds, fails for good, `deadline` comes or the pool closes.
    async fn until<T, F>(&self, verb: &'static str, deadline: Option<Instant>, op: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut next_pause = pauses(self.options.health_check_interval);
        loop {
            let error = match self.call(verb, op()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.health.complain(&error, "read failed");
            let pause = Instant::now() + next_pause();
            let late = deadline.is_some_and(|deadline| pause >= deadline);
            if !error.kind.is_passing() || late || self.ends.drain.is_cancelled() {
                return Err(error);
            }
            tokio::select! {
                biased;
                () = sleep_until(pause) => {}
                () = self.ends.drain.cancelled() => {}
            }
        }
    }

    /// Asks the database whether it is there, which also opens it, and wakes writes that wait for it.
    async fn watch(self: Arc<Self>) {
        loop {
            if self.ping().await.is_ok() {
                self.batcher.heal();
            }
            tokio::select! {
                biased;
                () = sleep(self.options.health_check_interval) => {}
                () = self.ends.drain.cancelled() => return,
            }
        }
    }
}

/// Every pool, by name.
pub struct Pools {
    stop: CancellationToken,
    pools: RwLock<HashMap<PoolName, Arc<Pool>>>,
}

impl Pools {
    /// None yet. Where `stop` is cancelled, every pool writes what waits and ends.
    pub fn new(stop: CancellationToken) -> Self {
        let pools = RwLock::default();
        Self { stop, pools }
    }

    /// Opens a pool of the backend that its name says, in place of one with the same name.
    pub fn open(&self, name: PoolName, options: PoolOptions) -> std::result::Result<Arc<Pool>, UnknownBackend> {
        let store: Arc<dyn Store> = match name.backend() {
            "sqlite" => Arc::new(SqlStore::new(sql::sqlite::Sqlite::new(&options), &options)),
            _ => return Err(UnknownBackend(name)),
        };
        let pool = Pool::start(name, options, store, &self.stop);
        self.pools.write().insert(pool.name.clone(), pool.clone());
        Ok(pool)
    }

    /// The pool with this name.
    pub fn get(&self, name: &PoolName) -> Option<Arc<Pool>> {
        self.pools.read().get(name).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.pools.read().values().cloned().collect();
        pools.sort_by(|left, right| left.name.cmp(&right.name));
        pools
    }

    /// Takes a pool out; whoever holds it goes on using it until it is closed.
    pub fn remove(&self, name: &PoolName) -> Option<Arc<Pool>> {
        self.pools.write().remove(name)
    }
}
