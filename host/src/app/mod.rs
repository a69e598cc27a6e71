//! Wires everything: configuration → floors → a running broker → drain. The only place that knows all floors.

mod clients;
mod marks;
mod plugins;
mod settings;
mod stores;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use strum::IntoEnumIterator;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin;
use crate::broker::{Broker, Listening};
use crate::config::{Config, Overrides, Problem, Severity};
use crate::hook::backend::Backend;
use crate::hook::check::Takers;
use crate::hook::{self, Active, Hooks};
use crate::model::delivery::PoolName;
use crate::telemetry;

use plugins::Plugins;
pub use settings::Settings;

/// What a stop leaves for the last commits, even where the sessions took all of `drain_timeout`.
const LAST_COMMITS: Duration = Duration::from_secs(1);

/// What the command line says about a host.
#[derive(Clone)]
pub struct Options {
    /// The folder with `hookline.conf` and `plugins/`.
    pub etc: PathBuf,
    /// The folder for everything that the host keeps.
    pub data: PathBuf,
    /// Keys from the environment and from `--set`.
    pub overrides: Overrides,
}

/// Reads the whole configuration, loaded or not, and says what is wrong with it.
pub fn check(options: &Options) -> Vec<Problem> {
    let loaded = plugins::remembered(&options.data).unwrap_or_default();
    let loaded: Vec<Backend> = Backend::iter()
        .filter(|it| loaded.iter().any(|name| name == it.plugin()))
        .collect();
    let mut take_pool = take_pools();
    let takers = Takers {
        main: &mut take_main,
        pool: &mut take_pool,
    };
    hook::check::check(&options.etc, &options.overrides, &loaded, takers)
}

/// Takes every key of `hookline.conf` that somebody owns, to see whether its value is good.
pub fn take_main(config: &mut Config) {
    Settings::take(config);
}

/// Takes every key of a pool that its store owns, pool after pool of one file after the other.
pub fn take_pools() -> impl FnMut(&mut Config, &PoolName) {
    let mut keepers: Vec<PoolName> = Vec::new();
    move |config, pool| {
        // What another file says does not count.
        keepers.retain(|keeper| keeper.backend() == pool.backend());
        let options = settings::pool_options(config, pool, Path::new(""), "");
        settings::note_keeper(config, pool, &options, &mut keepers);
    }
}

/// Runs a host until it is told to stop.
///
/// # Errors
/// When it cannot start: the configuration has errors, an address is taken, the data folder cannot be used.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let (settings, problems) = Settings::load(&options);
    telemetry::init_logs(&settings.log_level).context("log.level")?;
    refuse_errors(&problems)?;
    let metrics = telemetry::init_metrics().context("metrics")?;
    std::fs::create_dir_all(&options.data).with_context(|| format!("data folder {}", options.data.display()))?;
    let _lock = lock(&options.data)?;
    let door = admin::Listeners::bind(&options.data, settings.admin_listen).await?;

    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let marks = marks::Marks::open(&options.data)?;
    let hooks = Arc::new(Hooks::new(settings.node.as_str(), Active::default()));
    let broker = Broker::new(
        settings.broker.clone(),
        settings.limits.clone(),
        Arc::clone(&hooks),
        marks.clock(&settings.node),
    );
    let plugins = Arc::new(Plugins::new(options.clone(), &settings, hooks, &tracker, &stop));
    plugins.start().await?;
    marks.spawn(Arc::clone(&broker), &tracker, stop.clone());
    telemetry::spawn_upkeep(metrics.clone(), &tracker, stop.clone());
    admin::serve(
        door,
        Arc::clone(&plugins) as Arc<dyn admin::Control>,
        Arc::new(clients::Registry(Arc::clone(&broker))) as Arc<dyn admin::clients::Clients>,
        metrics,
        &tracker,
        &stop,
    );

    let mut terminate = signal(SignalKind::terminate())?;
    let listening = broker.listen().await?;
    plugins.accepting();
    announce(&listening, &plugins, &options.data).await;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }

    tracing::info!("stopping");
    plugins.draining();
    let until = Instant::now() + settings.drain_timeout;
    let drained = broker.drain(settings.drain_timeout).await;
    // A commit under way is never dropped; what waits has what is left of the time, but a moment at least.
    let left = plugins.close(until.max(Instant::now() + LAST_COMMITS)).await;
    stop.cancel();
    tracker.close();
    tracker.wait().await;
    if !drained || left > 0 {
        // Nothing acknowledged is among what is left.
        tracing::warn!(
            sessions_done = drained,
            writes_left = left,
            "stopped before everything was done"
        );
    }
    Ok(())
}

/// One host a data folder: two would write one database and reserve the same ids.
fn lock(data: &Path) -> anyhow::Result<File> {
    let file = data.join("lock");
    let lock = File::create(&file).with_context(|| file.display().to_string())?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another hookline runs on {}: stop it, or give --data another folder",
            data.display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| file.display().to_string()),
    }
}

fn refuse_errors(problems: &[Problem]) -> anyhow::Result<()> {
    for problem in problems.iter().filter(|problem| problem.severity == Severity::Warning) {
        tracing::warn!("{problem}");
    }
    let errors: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if !errors.is_empty() {
        bail!("the configuration has errors:\n{}", errors.join("\n"));
    }
    Ok(())
}

/// The one line that says that clients may come.
#[allow(clippy::print_stdout, reason = "scripts wait for this line on stdout")]
async fn announce(listening: &[Listening], plugins: &Plugins, data: &Path) {
    let listeners: Vec<String> = listening.iter().map(ToString::to_string).collect();
    let (backends, rules) = plugins.summary().await;
    println!(
        "ready: {} backends={backends} rules={rules} data={}",
        listeners.join(" "),
        data.display()
    );
}
