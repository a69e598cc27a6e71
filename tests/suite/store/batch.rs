//! Many waiting writes, one commit, each its own result: the batcher over a real database whose commits the
//! test can hold back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use hookline::model::delivery::{
    Page, Place, PoolName, Position, Reader, Run, Settle, Settled, Stored, Ticket, Window,
};
use hookline::model::event::Start;
use hookline::model::message::{ClientId, Message};
use hookline::model::reason::Reason;
use hookline::model::session::SavedSession;
use hookline::model::topic::Filter;
use hookline::model::value::{Rows, Value};
use hookline::store::batch::Gated;
use hookline::store::options::PoolOptions;
use hookline::store::pool::Pool;
use hookline::store::upkeep::Upkeep;
use hookline::store::{ClientState, Kind, Result, Store, Write, Written};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::database::{Database, message, reader, rows, save, script, seconds, write_one};

const LONG: Duration = Duration::from_secs(3_600);
/// Nothing in these tests takes so long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A session's mailbox: which tickets have settled, and in which calls.
#[derive(Default)]
pub(crate) struct Mailbox {
    calls: Mutex<Vec<(Ticket, Vec<Settled>)>>,
    heard: Notify,
    /// Places that had to be known when the mailbox heard.
    run: Mutex<Option<(Arc<Run>, usize)>>,
}

impl Settle for Mailbox {
    fn settle(&self, first: Ticket, results: &[Settled]) {
        if let Some((run, at)) = &*self.run.lock() {
            for (message, stored) in run.messages.iter().enumerate().skip(first as usize).zip(results) {
                let place = run.stored[*at].place(message.0, message.1.id);
                assert_eq!(
                    matches!(place, Place::At(_)),
                    *stored == Settled::Stored,
                    "{place:?} is {stored:?}"
                );
            }
        }
        self.calls.lock().push((first, results.to_vec()));
        self.heard.notify_one();
    }
}

impl Mailbox {
    pub(crate) fn results(&self) -> BTreeMap<Ticket, Settled> {
        let mut results = BTreeMap::new();
        for (first, settled) in &*self.calls.lock() {
            for (ticket, result) in (*first..).zip(settled) {
                assert_eq!(results.insert(ticket, *result), None, "ticket {ticket} settled twice");
            }
        }
        results
    }

    /// Waits for the results of so many messages.
    pub(crate) async fn expect(&self, count: usize) -> Vec<Settled> {
        let wait = async {
            while self.results().len() < count {
                self.heard.notified().await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("only {:?}", self.calls.lock()));
        self.results().into_values().collect()
    }
}

/// A real store whose commits wait for a permit, and are counted.
struct Held {
    inner: Arc<dyn Store>,
    permits: Semaphore,
    sizes: watch::Sender<Vec<usize>>,
    panics: AtomicBool,
}

impl Held {
    fn over(database: &Database) -> Arc<Self> {
        Arc::new(Self {
            inner: database.shared(),
            permits: Semaphore::new(0),
            sizes: watch::Sender::new(Vec::new()),
            panics: AtomicBool::new(false),
        })
    }

    fn release(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Waits until so many commits have begun.
    async fn begun(&self, commits: usize) -> Vec<usize> {
        let mut sizes = self.sizes.subscribe();
        let begun = timeout(PATIENCE, sizes.wait_for(|sizes| sizes.len() >= commits)).await;
        begun.expect("a commit begins").expect("the store lives").clone()
    }
}

#[async_trait]
impl Store for Held {
    async fn write(&self, writes: &[Write]) -> Vec<Result<Written>> {
        self.sizes.send_modify(|sizes| sizes.push(writes.len()));
        assert!(!self.panics.swap(false, Ordering::Relaxed), "a driver's mistake");
        self.permits.acquire().await.expect("open").forget();
        self.inner.write(writes).await
    }
    async fn subscriptions(&self, client: &ClientId) -> Result<Vec<(String, i64)>> {
        self.inner.subscriptions(client).await
    }
    async fn unread(&self, reader: &Reader, window: Window) -> Result<Page> {
        self.inner.unread(reader, window).await
    }
    async fn retained(&self, filter: &Filter, window: Window) -> Result<Page> {
        self.inner.retained(filter, window).await
    }
    async fn query(&self, statement: &str, params: &[Value]) -> Result<Rows> {
        self.inner.query(statement, params).await
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn mark_offline(&self, node: &str, before: SystemTime) -> Result<u64> {
        self.inner.mark_offline(node, before).await
    }
    async fn session(&self, client: &ClientId) -> Result<Option<SavedSession>> {
        self.inner.session(client).await
    }
    async fn sessions(&self, after: Option<&ClientId>, limit: usize) -> Result<Vec<ClientId>> {
        self.inner.sessions(after, limit).await
    }
    async fn due_sessions(&self, now: SystemTime, limit: usize) -> Result<Vec<ClientId>> {
        self.inner.due_sessions(now, limit).await
    }
    async fn mark_left(&self, node: &str, epoch: u32, at: SystemTime) -> Result<u64> {
        self.inner.mark_left(node, epoch, at).await
    }
    async fn positions(&self, client: &ClientId) -> Result<Vec<(String, Position)>> {
        self.inner.positions(client).await
    }
    async fn facts(&self) -> Result<BTreeMap<String, String>> {
        self.inner.facts().await
    }
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        self.inner.upkeep()
    }
    async fn close(&self) {
        self.inner.close().await;
    }
}

pub(crate) fn name() -> PoolName {
    PoolName::new("sqlite", "pool1")
}

fn pool(store: &Arc<Held>, options: PoolOptions) -> Arc<Pool> {
    Pool::start(name(), options, store.clone(), &CancellationToken::new())
}

fn run_of(messages: Vec<Message>) -> Arc<Run> {
    let stored = Stored::new(name(), messages.iter().map(|_| true));
    Arc::new(Run::new(messages, vec![stored]))
}

/// A run of messages `first..=last`, each saved; the ticket of message n is n.
pub(crate) fn saves(mailbox: &Arc<Mailbox>, first: u64, last: u64, until: Duration) -> Gated {
    let run = run_of((first..=last).map(|n| message(n, "t")).collect());
    let writes = run.messages.iter().cloned().map(Write::Save).enumerate().collect();
    let settle: Arc<dyn Settle> = mailbox.clone();
    let until = Instant::now() + until;
    Gated {
        run,
        stored: Some(0),
        first,
        writes,
        settle: Some(settle),
        until,
    }
}

#[tokio::test]
async fn what_waits_during_a_commit_is_the_next_commit() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
    store.begun(1).await;
    for first in [2, 12, 22] {
        pool.batcher().gate(saves(&mailbox, first, first + 9, LONG));
    }
    assert!(mailbox.results().is_empty(), "nothing is stored yet");
    store.release();
    assert_eq!(mailbox.expect(31).await, [Settled::Stored; 31]);
    assert_eq!(store.begun(2).await, [1, 30]);
    assert_eq!(
        rows(database.store(), "SELECT count(*), max(id) FROM mqtt_msg").await,
        "31|31"
    );
}

#[tokio::test]
async fn a_big_run_is_split_between_messages_and_places_are_known_first() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    store.release();
    let pool = pool(
        &store,
        PoolOptions {
            batch_size: 9,
            ..database.options()
        },
    );
    let mailbox = Arc::new(Mailbox::default());
    let run = run_of((0..25).map(|n| message(n + 1, "t")).collect());
    *mailbox.run.lock() = Some((run.clone(), 0));
    let two =
        |(at, message): (usize, &Message)| [(at, Write::Save(message.clone())), (at, Write::Retain(message.clone()))];
    let writes = run.messages.iter().enumerate().flat_map(two).collect();
    let (settle, until): (Arc<dyn Settle>, _) = (mailbox.clone(), Instant::now() + LONG);
    pool.batcher().gate(Gated {
        run: run.clone(),
        stored: Some(0),
        first: 0,
        writes,
        settle: Some(settle),
        until,
    });
    assert_eq!(mailbox.expect(25).await, [Settled::Stored; 25]);
    assert_eq!(store.begun(5).await, [10; 5]);
    let calls: Vec<(Ticket, usize)> = mailbox
        .calls
        .lock()
        .iter()
        .map(|(first, all)| (*first, all.len()))
        .collect();
    assert_eq!(calls, [(0, 5), (5, 5), (10, 5), (15, 5), (20, 5)]);
    let places: Vec<Place> = (0..25).map(|at| run.stored[0].place(at, run.messages[at].id)).collect();
    let expected: Vec<Place> = (1..=25).map(|id| Place::At(Position(id))).collect();
    assert_eq!(places, expected);
}

#[tokio::test]
async fn a_message_gets_the_worst_of_its_results_and_its_neighbours_their_own() {
    let database = Database::sqlite().await;
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON mqtt_retain WHEN NEW.payload = x'6261' \
                   BEGIN SELECT RAISE(ABORT, 'no'); END";
    write_one(database.store(), script(&[(trigger, &[])], false))
        .await
        .expect("made");
    let store = Held::over(&database);
    store.release();
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    let mut messages: Vec<Message> = (0..4).map(|n| message(n + 1, "t")).collect();
    messages[2].payload = "ba"[..].into();
    let run = run_of(messages);
    let two =
        |(at, message): (usize, &Message)| [(at, Write::Save(message.clone())), (at, Write::Retain(message.clone()))];
    let writes = run.messages.iter().enumerate().flat_map(two).collect();
    let (settle, until): (Arc<dyn Settle>, _) = (mailbox.clone(), Instant::now() + LONG);
    pool.batcher().gate(Gated {
        run: run.clone(),
        stored: Some(0),
        first: 7,
        writes,
        settle: Some(settle),
        until,
    });
    let refused = Settled::Refused(Reason::IMPLEMENTATION_SPECIFIC_ERROR);
    assert_eq!(
        mailbox.expect(4).await,
        [Settled::Stored, Settled::Stored, refused, Settled::Stored]
    );
    assert_eq!(*mailbox.results().first_key_value().expect("four").0, 7);
    // It was saved all the same, and whoever reads it may acknowledge it.
    assert_eq!(run.stored[0].place(2, run.messages[2].id), Place::At(Position(3)));
}

#[tokio::test]
async fn a_refused_message_lies_nowhere() {
    let database = Database::sqlite().await;
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON mqtt_msg WHEN NEW.payload = x'7061796c6f61642032' \
                   BEGIN SELECT RAISE(IGNORE); END";
    write_one(database.store(), script(&[(trigger, &[])], false))
        .await
        .expect("made");
    let store = Held::over(&database);
    store.release();
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    let gated = saves(&mailbox, 1, 3, LONG);
    let run = gated.run.clone();
    pool.batcher().gate(gated);
    let refused = Settled::Refused(Reason::IMPLEMENTATION_SPECIFIC_ERROR);
    assert_eq!(mailbox.expect(3).await, [Settled::Stored, refused, Settled::Stored]);
    let places: Vec<Place> = (0..3).map(|at| run.stored[0].place(at, run.messages[at].id)).collect();
    assert_eq!(places, [Place::At(Position(1)), Place::Nowhere, Place::At(Position(2))]);
}

#[tokio::test]
async fn of_states_that_wait_only_the_newest_is_written() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    let pool = pool(&store, database.options());
    let batcher = pool.batcher();
    batcher.write(save(1, "t"));
    store.begun(1).await;
    for position in 1..=100 {
        batcher.write(Write::Advance(reader("c", "t"), Position(position % 90)));
        let node = "n".into();
        let online_at = seconds(position as u64);
        batcher.write(Write::Client(ClientState {
            client: "c".into(),
            node,
            online_at,
            offline_at: None,
        }));
    }
    assert_eq!(batcher.waiting(), 2);
    // Begin sees the position, and what comes after Forget stays behind it.
    let begin = Write::Begin {
        reader: reader("c", "t"),
        start: Start::Earliest,
        durable: true,
    };
    let begun = batcher.ask(begin);
    let rest = async {
        batcher.write(Write::Forget(reader("c", "t")));
        batcher.write(Write::Advance(reader("c", "t"), Position(3)));
        batcher.write(Write::Advance(reader("c", "t"), Position(4)));
        store.release();
        batcher.barrier().await;
    };
    let (begun, ()) = tokio::join!(begun, rest);
    assert_eq!(begun.expect("a position"), Written::At(Position(89)));
    assert_eq!(rows(database.store(), "SELECT mid FROM mqtt_acked").await, "4");
    assert_eq!(rows(database.store(), "SELECT online_at FROM mqtt_client").await, "100");
    assert_eq!(store.begun(2).await, [1, 5]);
}

#[tokio::test]
async fn a_barrier_waits_for_what_was_queued_before_it() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    let pool = pool(&store, database.options());
    pool.batcher().barrier().await;
    pool.batcher().write(save(1, "t"));
    store.begun(1).await;
    pool.batcher().write(save(2, "t"));
    let mut barrier = Box::pin(pool.batcher().barrier());
    assert!(futures_util::poll!(&mut barrier).is_pending());
    store.permits.add_permits(1);
    store.begun(2).await;
    assert!(
        futures_util::poll!(&mut barrier).is_pending(),
        "the second write has not settled"
    );
    store.permits.add_permits(1);
    timeout(PATIENCE, barrier).await.expect("in time");
    assert_eq!(rows(database.store(), "SELECT count(*) FROM mqtt_msg").await, "2");
}

#[tokio::test]
async fn a_full_queue_presses_until_there_is_room() {
    let database = Database::sqlite().await;
    for options in [
        PoolOptions {
            queue_max_len: 10,
            ..database.options()
        },
        PoolOptions {
            queue_max_bytes: 2_000,
            ..database.options()
        },
    ] {
        let store = Held::over(&database);
        let pool = pool(&store, options);
        let mailbox = Arc::new(Mailbox::default());
        pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
        store.begun(1).await;
        assert!(!pool.batcher().pressed());
        pool.batcher().gate(saves(&mailbox, 2, 30, LONG));
        assert!(pool.batcher().pressed());
        store.release();
        timeout(PATIENCE, pool.batcher().relieved()).await.expect("relieved");
        assert!(!pool.batcher().pressed());
        assert_eq!(mailbox.expect(30).await, [Settled::Stored; 30]);
    }
}

#[tokio::test]
async fn what_waits_too_long_is_cancelled_but_never_what_is_in_flight() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 2, Duration::from_millis(1)));
    let in_flight = store.begun(1).await.len();
    assert_eq!(in_flight, 1);
    let short = saves(&mailbox, 3, 4, Duration::from_millis(30));
    let run = short.run.clone();
    pool.batcher().gate(short);
    pool.batcher().gate(saves(&mailbox, 5, 5, LONG));
    assert_eq!(mailbox.expect(2).await, [Settled::Cancelled; 2]);
    assert_eq!(mailbox.results().into_keys().collect::<Vec<_>>(), [3, 4]);
    assert_eq!(run.stored[0].place(0, run.messages[0].id), Place::Nowhere);
    store.release();
    let settled = mailbox.expect(5).await;
    let (stored, cancelled) = (Settled::Stored, Settled::Cancelled);
    assert_eq!(settled, [stored, stored, cancelled, cancelled, stored]);
    assert_eq!(rows(database.store(), "SELECT count(*) FROM mqtt_msg").await, "3");
}

#[tokio::test]
async fn closing_writes_what_waits() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
    store.begun(1).await;
    pool.batcher().gate(saves(&mailbox, 2, 600, LONG));
    let mut closing = Box::pin(pool.close(PATIENCE));
    assert!(futures_util::poll!(&mut closing).is_pending());
    store.release();
    assert_eq!(closing.await, 0);
    assert_eq!(mailbox.results().len(), 600);
    // Nobody writes any more: who comes later hears so at once.
    pool.batcher().gate(saves(&mailbox, 601, 601, LONG));
    assert_eq!(mailbox.results()[&601], Settled::Cancelled);
    let begin = Write::Begin {
        reader: reader("c", "t"),
        start: Start::Earliest,
        durable: true,
    };
    assert_eq!(pool.batcher().ask(begin).await.expect_err("closed").kind, Kind::Timeout);
    pool.batcher().barrier().await;
    assert_eq!(rows(database.store(), "SELECT count(*) FROM mqtt_msg").await, "600");
}

#[tokio::test]
async fn closing_ends_the_commit_under_way_and_refuses_the_rest_when_patience_ends() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
    store.begun(1).await;
    pool.batcher().gate(saves(&mailbox, 2, 3, LONG));
    let mut closing = Box::pin(pool.close(Duration::from_millis(20)));
    assert!(
        timeout(Duration::from_millis(200), &mut closing).await.is_err(),
        "a commit is never dropped"
    );
    store.release();
    assert_eq!(closing.await, 2);
    let refused = Settled::Refused(Reason::IMPLEMENTATION_SPECIFIC_ERROR);
    assert_eq!(mailbox.expect(3).await, [Settled::Stored, refused, refused]);
}

#[tokio::test]
async fn a_driver_that_panics_costs_one_attempt() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    store.release();
    store.panics.store(true, Ordering::Relaxed);
    let pool = pool(&store, database.options());
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 3, LONG));
    assert_eq!(mailbox.expect(3).await, [Settled::Stored; 3]);
    assert_eq!(store.begun(2).await, [3, 3]);
}

#[tokio::test]
async fn in_async_mode_places_become_known_though_nobody_waits() {
    let database = Database::sqlite().await;
    let store = Held::over(&database);
    store.release();
    let pool = pool(&store, database.options());
    let gated = saves(&Arc::default(), 1, 2, LONG);
    let run = gated.run.clone();
    pool.batcher().gate(Gated { settle: None, ..gated });
    pool.batcher().barrier().await;
    assert_eq!(run.stored[0].place(1, run.messages[1].id), Place::At(Position(2)));
}
