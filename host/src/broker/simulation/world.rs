//! The broker, its clients and its store, driven step by step on a paused clock. A crash is the end of a runtime:
//! whatever the broker had in memory goes with it, and the next one boots on what the store has committed.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::{Client, Court};
use super::judge::{Judge, Wrong};
use super::scenario::{Habit, Hello, Scenario, Step, Weather, Who};
use super::store::Memory;
use super::trace::Trace;
use crate::broker::listener::Permit;
use crate::broker::mailbox::Item;
use crate::broker::{Broker, Carrier, Settings};
use crate::config::Overrides;
use crate::hook::backend::Backend;
use crate::hook::rule::Rules;
use crate::hook::{Active, Hooks};
use crate::model::clock::{self, virtual_time};
use crate::model::delivery::PoolName;
use crate::model::event::{Start, micros};
use crate::model::id::IdClock;
use crate::mqtt::session::Load;
use crate::store::options::PoolOptions;
use crate::store::pool::Pool;

/// When every run begins.
const BEGINNING: Duration = Duration::from_secs(1_800_000_000);
/// No read and no write is given up in a run: that would be a loss with a reason.
const NEVER: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a broker that is told to stop may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// By then everything that is owed must have arrived, once everybody is there and the store is fair.
const LAST_SECONDS: u32 = 300;

/// How a run ended.
pub(super) struct Outcome {
    pub(super) wrong: Option<Wrong>,
    pub(super) trace: Vec<String>,
}

/// Runs a scenario to its end, or until something is wrong.
pub(super) fn run(scenario: &Scenario, traced: bool) -> Outcome {
    // Pauses between attempts have jitter, and this is where it comes from.
    fastrand::seed(scenario.seed);
    let mut world = World::new(scenario, traced);
    let mut steps = scenario.steps.as_slice();
    while world.judge.verdict().is_none() {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O");
        let done = runtime.block_on(world.live(&mut steps));
        drop(runtime);
        if done {
            break;
        }
    }
    Outcome {
        wrong: world.judge.verdict().cloned(),
        trace: world.trace.lines(),
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    clients: Vec<Client>,
    store: Arc<Memory>,
    judge: Judge,
    trace: Trace,
    boots: u32,
    /// What had passed when this boot began, and when that was.
    past: Duration,
    booted: Option<Instant>,
}

/// A running broker.
struct Boot {
    broker: Arc<Broker>,
    pool: Arc<Pool>,
    tasks: TaskTracker,
    sockets: Arc<Semaphore>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, traced: bool) -> Self {
        let limits = &scenario.limits;
        let client = |(who, v5): (Who, &bool)| Client::new(who, *v5, limits.inflight_max, limits.receive_max);
        Self {
            clients: scenario.speaks_v5.iter().enumerate().map(client).collect(),
            store: Arc::new(Memory::new(scenario.seed, scenario.rows_per_look)),
            judge: Judge::new(scenario.speaks_v5.len(), scenario.durable),
            trace: Trace::new(traced),
            scenario,
            boots: 0,
            past: Duration::ZERO,
            booted: None,
        }
    }

    /// From a start to a crash or a stop; true at the end of the run.
    async fn live(&mut self, steps: &mut &[Step]) -> bool {
        self.booted = Some(Instant::now());
        let _clock = virtual_time::begin(UNIX_EPOCH + BEGINNING + self.past);
        let boot = self.boot().await;
        let mut ended = false;
        while let Some((step, rest)) = steps.split_first() {
            *steps = rest;
            self.note(|| format!("* {step:?}"));
            match step {
                Step::Crash => {
                    self.judge.stopped(false, &self.store, self.now());
                    ended = true;
                }
                Step::Stop => {
                    self.stop(&boot).await;
                    ended = true;
                }
                step => self.take(step, &boot).await,
            }
            if ended || self.judge.verdict().is_some() {
                self.clients.iter_mut().for_each(Client::orphaned);
                self.past = self.now();
                return false;
            }
        }
        self.finish(&boot).await;
        true
    }

    async fn boot(&mut self) -> Boot {
        self.boots += 1;
        let scenario = self.scenario;
        let options = PoolOptions {
            initial_position: Start::Latest,
            respect_clean_session: true,
            wildcard_fetch: true,
            persist_sessions: scenario.durable,
            fetch_retry_for: NEVER,
            retry_max_age: NEVER,
            fetch_page: scenario.fetch_page,
            batch_size: scenario.batch_size,
            queue_max_len: scenario.pool_queue_len_max,
            ..PoolOptions::default()
        };
        let tasks = TaskTracker::new();
        let store = Arc::clone(&self.store);
        let pool = Pool::start(pool_name(), options, store, &CancellationToken::new());
        if scenario.durable {
            let (left, at) = (Arc::clone(&pool), clock::wall());
            tasks.spawn(async move { left.mark_left(at).await });
        }
        let hooks = Arc::new(Hooks::new("node", Active::new(rules(), vec![Arc::clone(&pool)])));
        // As after a restart: above every id of the boot before (`app/marks.rs`).
        let floor = micros(wall(self.past)) + u64::from(self.boots) * 1_000_000;
        let ids = IdClock::new("node", self.boots, floor);
        // Clients come over pipes.
        let settings = Settings {
            listen: Vec::new(),
            // What `$SYS` tells is counted for the whole process, and so for every run at once.
            sys_interval: Duration::ZERO,
            ..Settings::default()
        };
        let broker = Broker::new(settings, scenario.limits.clone(), hooks, ids);
        broker.listen().await.expect("there is nothing to bind");
        Boot {
            broker,
            pool,
            tasks,
            sockets: Arc::new(Semaphore::new(1000)),
        }
    }

    /// The time since the beginning of the run.
    fn now(&self) -> Duration {
        self.past + self.booted.map_or(Duration::ZERO, |booted| booted.elapsed())
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now();
        self.trace.add(now, line);
    }

    fn with(&mut self, who: Who, act: impl FnOnce(&mut Client, &mut Court<'_>)) {
        let mut court = Court {
            now: self.now(),
            judge: &mut self.judge,
            store: &self.store,
            trace: &mut self.trace,
        };
        act(&mut self.clients[who], &mut court);
    }

    async fn take(&mut self, step: &Step, boot: &Boot) {
        match step {
            Step::Connect(who, hello) if self.clients[*who].may_connect() => self.connect(*who, hello, boot),
            Step::Connect(..) => {}
            Step::Cut(who) => self.with(*who, Client::cut),
            Step::Disconnect(who, with_will) => self.clients[*who].disconnect(*with_will),
            Step::Subscribe(who, filter, qos) => self.with(*who, |it, court| it.subscribe(filter, *qos, court)),
            Step::Unsubscribe(who, filter) => self.with(*who, |it, court| it.unsubscribe(filter, court)),
            Step::Publish(who, post) => self.with(*who, |it, court| it.publish(*post, court)),
            Step::Acknowledge(who, habit) => self.with(*who, |it, court| it.set_habit(*habit, court)),
            Step::Answer(who, order) => self.with(*who, |it, court| it.answer(*order, court)),
            Step::Read(who, reads) => {
                self.clients[*who].set_reading(*reads);
                if !reads {
                    self.judge.is_deaf(*who);
                }
            }
            Step::Silent(who, silent) => self.clients[*who].set_silent(*silent),
            Step::Store(weather) => self.store.turn(*weather),
            Step::Refuse(count) => self.store.refuse(*count),
            Step::Turns(count) => {
                for _ in 0..*count {
                    tokio::task::yield_now().await;
                    self.pump_once(boot).await;
                }
            }
            Step::Rest(millis) => self.pass(Duration::from_millis((*millis).into()), boot).await,
            Step::Crash | Step::Stop => unreachable!("they end a boot"),
        }
        self.pump_once(boot).await;
    }

    fn connect(&mut self, who: Who, hello: &Hello, boot: &Boot) {
        let (ours, theirs) = tokio::io::duplex(hello.pipe_bytes);
        let permit = Arc::clone(&boot.sockets).try_acquire_owned().expect("a free socket");
        let peer = ([127, 0, 0, 1], 1000 + who as u16).into();
        boot.broker
            .let_in(Carrier::Tcp, Box::new(theirs), peer, Permit::new(permit));
        let hello = self.scenario.meant_by(who, hello);
        self.with(who, |it, court| it.connect(ours, &hello, court));
    }

    /// Lets so much time pass; everybody does meanwhile what is to be done.
    async fn pass(&mut self, span: Duration, boot: &Boot) {
        let until = Instant::now() + span;
        let booted = self.booted.expect("it runs");
        while self.judge.verdict().is_none() {
            let due = self.clients.iter().filter_map(Client::due).min();
            let due = due.map(|due| booted + due.saturating_sub(self.past));
            let mut sleep = pin!(sleep_until(due.map_or(until, |due| due.min(until))));
            std::future::poll_fn(|cx| {
                let moved = self.pump(cx);
                let slept = sleep.as_mut().poll(cx).is_ready();
                if moved || slept { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            (0..self.clients.len()).for_each(|who| self.with(who, Client::tick));
            self.keep_bounds(boot);
            if Instant::now() >= until {
                return;
            }
        }
    }

    async fn pump_once(&mut self, boot: &Boot) {
        std::future::poll_fn(|cx| {
            self.pump(cx);
            Poll::Ready(())
        })
        .await;
        self.keep_bounds(boot);
    }

    fn pump(&mut self, cx: &mut std::task::Context<'_>) -> bool {
        let now = self.now();
        if !self.store.weather().is_fair() {
            self.judge.trouble(now);
        }
        let mut moved = false;
        for client in &mut self.clients {
            let mut court = Court {
                now,
                judge: &mut self.judge,
                store: &self.store,
                trace: &mut self.trace,
            };
            moved |= client.pump(cx, &mut court);
        }
        moved
    }

    /// Nothing ever grows beyond its bound.
    fn keep_bounds(&mut self, boot: &Boot) {
        let limits = &self.scenario.limits;
        for (id, mailbox) in boot.broker.clients.all() {
            let waiting = mailbox.waiting();
            // A run of its own still fits into an empty box.
            if waiting.messages > limits.queue_len_max.max(64) {
                self.judge
                    .wrong("bounds are kept", format!("the mailbox of {id} holds {waiting:?}"));
            }
        }
    }

    async fn stop(&mut self, boot: &Boot) {
        self.judge.shutting_down = true;
        let (broker, pool) = (Arc::clone(&boot.broker), Arc::clone(&boot.pool));
        let ending = boot.tasks.spawn(async move {
            broker.drain(PATIENCE).await;
            pool.close(PATIENCE).await
        });
        while !ending.is_finished() && self.judge.verdict().is_none() {
            self.pass(Duration::from_millis(100), boot).await;
        }
        let left = ending.await.expect("it ends");
        self.judge.stopped(left == 0, &self.store, self.now());
        self.judge.shutting_down = false;
    }

    /// Everybody comes back and does as is right, the store is fair, and all that is owed must arrive.
    async fn finish(&mut self, boot: &Boot) {
        self.note(|| "* the end: everybody is there and the store is fair".into());
        self.store.turn(Weather::default());
        self.store.refuse(0);
        for who in 0..self.clients.len() {
            self.with(who, |it, court| {
                it.set_silent(false);
                it.set_reading(true);
                it.set_habit(Habit::Promptly, court);
            });
        }
        for _ in 0..LAST_SECONDS {
            for who in 0..self.clients.len() {
                if self.clients[who].is_offline() {
                    self.connect(who, &Hello::persistent(), boot);
                }
            }
            self.pass(Duration::from_secs(1), boot).await;
            let is_idle = |client: &Client| client.is_connected() && client.is_idle();
            let waits = self.judge.missing(&self.store).is_some() || !self.clients.iter().all(is_idle);
            if self.judge.verdict().is_some() || !waits {
                break;
            }
        }
        // Gathered positions, delayed wills and duplicates on their way.
        self.pass(Duration::from_secs(40), boot).await;
        if self.judge.verdict().is_none() {
            self.nothing_is_left(boot).await;
            self.judge.end(&self.store);
        }
    }

    async fn nothing_is_left(&mut self, boot: &Boot) {
        if let Some(who) = self.clients.iter().position(|client| !client.is_idle()) {
            self.judge
                .wrong("everything is answered", format!("client {who} still waits"));
        }
        let waiting = boot.pool.batcher().waiting();
        if waiting > 0 {
            self.judge
                .wrong("everything is drained", format!("{waiting} writes wait"));
        }
        if !self.store.is_quiet() {
            let text = "the store keeps QoS 2 exchanges that have ended";
            self.judge.wrong("everything is drained", text.into());
        }
        for (id, mailbox) in boot.broker.clients.all() {
            let (asker, answer) = oneshot::channel();
            mailbox.push(Item::Look(asker));
            let load = answer.await.expect("the session answers");
            let waiting = mailbox.waiting();
            if load != Load::default() || waiting.messages + waiting.items > 0 {
                let text = format!("{id} still holds {load:?}, and {waiting:?} waits");
                self.judge.wrong("everything is drained", text);
            }
        }
    }
}

fn wall(past: Duration) -> SystemTime {
    UNIX_EPOCH + BEGINNING + past
}

fn pool_name() -> PoolName {
    PoolName::new("sqlite", "pool1")
}

/// The rules that are shipped.
fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../etc/plugins/emqx_backend_sqlite.conf");
        let mut config = Backend::Sqlite.read(&file, &Overrides::default());
        Rules::from_config(Backend::Sqlite, &[pool_name()], &mut config)
    })
}
