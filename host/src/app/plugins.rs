//! Plugins: one configuration file a backend, loaded and unloaded while the host runs, remembered across
//! restarts in `loaded_plugins` of the data folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use async_trait::async_trait;
use strum::IntoEnumIterator;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::store::Stores;
use crate::admin::{Control, Health, Phase, Plugin, PoolHealth, PoolState};
use crate::config::{Problem, Severity};
use crate::hook::backend::Backend;
use crate::hook::rule::Rules;
use crate::hook::{self, Active, Hooks};
use crate::model::delivery::PoolName;
use crate::store::options::PoolOptions;
use crate::store::pool::{Pool, Pools};

use super::settings::{Settings, note_keeper, pool_options};
use super::stores::Databases;
use super::{Options, refuse_errors};

/// What a new data folder has loaded: storage with nothing installed.
const DEFAULT_PLUGIN: &str = "emqx_backend_sqlite";

/// How long a start waits for a database to open.
const AT_START: Duration = Duration::from_secs(2);

/// A loaded plugin.
struct Loaded {
    name: String,
    rules: Rules,
    pools: Vec<Arc<Pool>>,
}

/// A plugin's file, read and found good.
struct Read {
    name: String,
    rules: Rules,
    pools: Vec<(PoolName, PoolOptions)>,
}

/// The plugins of a host.
pub(super) struct Plugins {
    options: Options,
    node: String,
    strict: bool,
    drain_timeout: Duration,
    hooks: Arc<Hooks>,
    registry: Pools,
    databases: Databases,
    loaded: Mutex<Vec<Loaded>>,
    phase: AtomicU8,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Plugins {
    pub(super) fn new(
        options: Options,
        settings: &Settings,
        hooks: Arc<Hooks>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            options,
            node: settings.node.clone(),
            strict: settings.strict,
            drain_timeout: settings.drain_timeout,
            databases: Databases::new(Arc::clone(&hooks)),
            hooks,
            registry: Pools::new(CancellationToken::new()),
            loaded: Mutex::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
            tracker: tracker.clone(),
            stop: stop.clone(),
        }
    }

    /// Loads what was loaded when the host last ran.
    pub(super) async fn start(&self) -> anyhow::Result<()> {
        let mut loaded = self.loaded.lock().await;
        for name in remembered(&self.options.data)? {
            let (read, problems) = self.read(&name);
            refuse_errors(&problems)?;
            let read = read.with_context(|| format!("plugin {name} in {}", memory(&self.options.data).display()))?;
            loaded.push(self.open(read, &[])?);
        }
        self.activate(&loaded);
        for pool in loaded.iter().flat_map(|plugin| &plugin.pools) {
            self.open_now(pool).await;
        }
        Ok(())
    }

    /// Opens a database before clients come, and marks those offline that a crash left online (spec C3). One
    /// that is away is waited for in the background: writes queue until it is back.
    async fn open_now(&self, pool: &Arc<Pool>) {
        // Stored times are whole seconds: nobody is connected yet, so this second counts too.
        self.mark_left(pool);
        let before = SystemTime::now() + Duration::from_secs(1);
        let marked = tokio::time::timeout(AT_START, pool.mark_offline(before)).await;
        if let Ok(marked) = marked {
            return note_marked(pool, marked);
        }
        let (pool, stop, before) = (Arc::clone(pool), self.stop.clone(), SystemTime::now());
        self.tracker.spawn(async move {
            tokio::select! {
                marked = pool.mark_offline(before) => note_marked(&pool, marked),
                () = stop.cancelled() => {}
            }
        });
    }

    /// Whoever was connected when the last run ended has left now: wills and expiries begin to count. A session that
    /// is read before that is taken for one whose client left at that moment.
    fn mark_left(&self, pool: &Arc<Pool>) {
        if !pool.options().persist_sessions {
            return;
        }
        let (pool, stop, at) = (Arc::clone(pool), self.stop.clone(), SystemTime::now());
        self.tracker.spawn(async move {
            let marked = tokio::select! {
                marked = pool.mark_left(at) => marked,
                () = stop.cancelled() => return,
            };
            match marked {
                Ok(0) => {}
                Ok(sessions) => tracing::info!(pool = %pool.name(), sessions, "sessions left by the last run"),
                Err(error) => tracing::warn!(pool = %pool.name(), error = error.chain(), "sessions not marked as left"),
            }
        });
    }

    fn remember(&self, loaded: &[Loaded]) -> Result<(), String> {
        let names: String = loaded.iter().map(|plugin| format!("{}\n", plugin.name)).collect();
        let beside = memory(&self.options.data).with_extension("new");
        let written = fs::write(&beside, names).and_then(|()| fs::rename(&beside, memory(&self.options.data)));
        written.map_err(|error| {
            let file = memory(&self.options.data);
            format!("done, but the next start will not know: {}: {error}", file.display())
        })
    }

    /// Reads and checks a plugin's file; nothing is opened.
    fn read(&self, name: &str) -> (anyhow::Result<Read>, Vec<Problem>) {
        let Some(backend) = Backend::iter().find(|backend| backend.plugin() == name) else {
            let known: Vec<&str> = Backend::iter().map(Backend::plugin).collect();
            return (
                Err(anyhow::anyhow!("there is no plugin {name} (try {})", known.join(", "))),
                Vec::new(),
            );
        };
        if let Some(missing) = backend.missing_store() {
            return (Err(anyhow::anyhow!(missing)), Vec::new());
        }
        let file = backend.file(&self.options.etc);
        let mut pools = Vec::new();
        let mut keepers = Vec::new();
        let (plugin, problems) = hook::plugin::Plugin::read(
            backend,
            &file,
            &self.options.overrides,
            self.strict,
            &mut |config, pool| {
                let options = pool_options(config, pool, &self.options.data, &self.node);
                note_keeper(config, pool, &options, &mut keepers);
                pools.push((pool.clone(), options));
            },
        );
        (
            Ok(Read {
                name: name.to_owned(),
                rules: plugin.rules,
                pools,
            }),
            problems,
        )
    }

    /// Opens a plugin's pools. One that is open already and stays as it is goes on: what it has queued keeps
    /// its place before what comes.
    fn open(&self, read: Read, open: &[Arc<Pool>]) -> anyhow::Result<Loaded> {
        let opened = read.pools.into_iter().map(|(name, options)| {
            let same = |pool: &&Arc<Pool>| *pool.name() == name && *pool.options() == options;
            match open.iter().find(same) {
                Some(pool) => Ok(Arc::clone(pool)),
                None => self.registry.open(name, options),
            }
        });
        let pools = opened.collect::<Result<_, _>>()?;
        Ok(Loaded {
            name: read.name,
            rules: read.rules,
            pools,
        })
    }

    /// From now on these rules are in force.
    fn activate(&self, loaded: &[Loaded]) {
        let rules = Rules::merge(loaded.iter().map(|plugin| plugin.rules.clone()));
        let pools = loaded.iter().flat_map(|plugin| plugin.pools.clone()).collect();
        self.hooks.replace(Active::new(&rules, pools));
    }

    /// Open gates keep their pool for a while; what is not stored by then is refused, and counted here.
    async fn close_pools(&self, pools: Vec<Arc<Pool>>, until: Instant) -> usize {
        let mut left = 0;
        for pool in pools {
            left += pool.close(until.saturating_duration_since(Instant::now())).await;
        }
        left
    }

    /// Until when a drain that begins now may take.
    fn drain_end(&self) -> Instant {
        Instant::now() + self.drain_timeout
    }

    pub(super) fn accepting(&self) {
        self.phase.store(Phase::Ready as u8, Ordering::Relaxed);
    }

    pub(super) fn draining(&self) {
        self.phase.store(Phase::Draining as u8, Ordering::Relaxed);
    }

    /// Writes what waits and closes every pool. Answers how many writes were left.
    pub(super) async fn close(&self, until: Instant) -> usize {
        let pools = self
            .loaded
            .lock()
            .await
            .drain(..)
            .flat_map(|plugin| plugin.pools)
            .collect();
        self.close_pools(pools, until).await
    }

    /// The backends and the number of rules, for the line at start.
    pub(super) async fn summary(&self) -> (String, usize) {
        let loaded = self.loaded.lock().await;
        let pools = loaded
            .iter()
            .flat_map(|plugin| &plugin.pools)
            .map(|pool| pool.name().to_string());
        let pools: Vec<String> = pools.collect();
        let rules = loaded.iter().map(|plugin| plugin.rules.iter().count()).sum();
        (
            if pools.is_empty() {
                "none".to_owned()
            } else {
                pools.join(",")
            },
            rules,
        )
    }
}

fn note_marked(pool: &Pool, marked: crate::store::Result<u64>) {
    match marked {
        Ok(0) => {}
        Ok(count) => tracing::info!(pool = %pool.name(), count, "clients were left online by an earlier run"),
        Err(error) => tracing::warn!(pool = %pool.name(), error = error.chain(), "cannot mark clients offline"),
    }
}

fn memory(data: &Path) -> PathBuf {
    data.join("loaded_plugins")
}

/// The plugins that a start loads.
pub(super) fn remembered(data: &Path) -> anyhow::Result<Vec<String>> {
    let memory = memory(data);
    match fs::read_to_string(&memory) {
        Ok(text) => Ok(text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![DEFAULT_PLUGIN.to_owned()]),
        Err(error) => Err(error).with_context(|| memory.display().to_string()),
    }
}

/// Errors as the operator reads them; warnings are logged.
fn sentences(problems: &[Problem]) -> Result<String, String> {
    let lines = |severity| {
        let of = problems.iter().filter(move |problem| problem.severity == severity);
        of.map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    match lines(Severity::Error) {
        errors if errors.is_empty() => Ok(lines(Severity::Warning)),
        errors => Err(errors),
    }
}

#[async_trait]
impl Control for Plugins {
    async fn plugins(&self) -> Vec<Plugin> {
        let loaded = self.loaded.lock().await;
        let plugin = |backend: Backend| {
            let active = loaded.iter().find(|plugin| plugin.name == backend.plugin());
            Plugin {
                name: backend.plugin().to_owned(),
                description: format!("message storage: {}", backend.name()),
                active: active.is_some(),
                rules: active.map_or(0, |plugin| plugin.rules.iter().count()),
            }
        };
        Backend::iter().map(plugin).collect()
    }

    async fn load(&self, name: &str) -> Result<String, String> {
        let mut loaded = self.loaded.lock().await;
        if loaded.iter().any(|plugin| plugin.name == name) {
            return Err(format!("plugin {name} is loaded already (try reload)"));
        }
        let (read, problems) = self.read(name);
        let said = sentences(&problems)?;
        let read = read.map_err(|error| error.to_string())?;
        let fresh = self.open(read, &[]).map_err(|error| error.to_string())?;
        fresh.pools.iter().for_each(|pool| self.mark_left(pool));
        loaded.push(fresh);
        self.activate(&loaded);
        self.remember(&loaded)?;
        Ok(said)
    }

    async fn unload(&self, name: &str) -> Result<String, String> {
        let mut loaded = self.loaded.lock().await;
        let Some(at) = loaded.iter().position(|plugin| plugin.name == name) else {
            return Err(format!("plugin {name} is not loaded"));
        };
        let gone = loaded.remove(at);
        self.activate(&loaded);
        let remembered = self.remember(&loaded);
        drop(loaded); // others may look at the plugins while this one's pools drain
        let left = self.close_pools(gone.pools, self.drain_end()).await;
        remembered?;
        match left {
            0 => Ok(String::new()),
            left => Ok(format!("{left} writes could not be stored in time and were refused")),
        }
    }

    async fn reload(&self, name: &str) -> Result<String, String> {
        let mut loaded = self.loaded.lock().await;
        let Some(at) = loaded.iter().position(|plugin| plugin.name == name) else {
            return Err(format!("plugin {name} is not loaded (try load)"));
        };
        let (read, problems) = self.read(name);
        let said = sentences(&problems)?;
        let read = read.map_err(|error| error.to_string())?;
        let fresh = self.open(read, &loaded[at].pools).map_err(|error| error.to_string())?;
        let stays = fresh.pools.clone();
        let mut old = std::mem::replace(&mut loaded[at], fresh);
        old.pools
            .retain(|pool| !stays.iter().any(|other| Arc::ptr_eq(pool, other)));
        self.activate(&loaded);
        drop(loaded); // others may look at the plugins while the old pools drain
        match self.close_pools(old.pools, self.drain_end()).await {
            0 => Ok(said),
            left => Ok(format!(
                "{left} writes could not be stored in time and were refused\n{said}"
            )),
        }
    }

    async fn health(&self) -> Health {
        let phases = [Phase::Starting, Phase::Ready, Phase::Draining];
        let phase = phases
            .into_iter()
            .find(|phase| *phase as u8 == self.phase.load(Ordering::Relaxed));
        let pools = self.hooks.pools().iter().map(|pool| pool_health(pool)).collect();
        Health {
            phase: phase.unwrap_or(Phase::Starting),
            pools,
        }
    }

    fn stores(&self) -> &dyn Stores {
        &self.databases
    }
}

pub(super) fn pool_health(pool: &Pool) -> PoolHealth {
    PoolHealth {
        name: pool.name().to_string(),
        state: match (pool.is_up(), pool.was_asked()) {
            (true, _) => PoolState::Up,
            (false, true) => PoolState::Down,
            (false, false) => PoolState::Connecting,
        },
        waiting: pool.batcher().waiting() as u64,
        error: pool.error(),
    }
}
