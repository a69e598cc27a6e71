//! The operator's door: health, metrics, plugins and clients over HTTP. What happens behind it is [`Control`]'s and
//! [`clients::Clients`]'; who may do it is decided by the door: plugins and clients only through the Unix socket in the data folder, which is its owner's alone.

pub mod clients;
mod door;
mod routes;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use door::{Error, Listeners, socket_path};

/// How long one request may take. A reload waits for open gates (`drain_timeout`, 30 s) and for a database to answer.
pub const REQUEST_TIME: Duration = Duration::from_secs(60);

/// What the door asks of the host.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Every plugin that could be loaded, whether it is or not, by name.
    async fn plugins(&self) -> Vec<Plugin>;
    /// Loads a plugin and remembers it. `Ok` holds what else the operator should know, mostly nothing; `Err` a sentence.
    async fn load(&self, name: &str) -> Result<String, String>;
    /// Unloads a plugin and remembers that. Answers as [`Control::load`].
    async fn unload(&self, name: &str) -> Result<String, String>;
    /// Reads a plugin's file again; the old rules stay where the new file is wrong. Answers as [`Control::load`].
    async fn reload(&self, name: &str) -> Result<String, String>;
    /// How the host is, now.
    async fn health(&self) -> Health;
    /// The databases behind its pools.
    fn stores(&self) -> &dyn store::Stores;
}

/// A plugin, as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// `emqx_backend_sqlite`.
    pub name: String,
    /// One line.
    pub description: String,
    /// Whether it is loaded.
    pub active: bool,
    /// How many of its rules are in force.
    pub rules: usize,
}

/// The answer to `GET /plugins`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plugins {
    /// The version of the running host, which is that of its plugins.
    pub version: String,
    /// By name.
    pub plugins: Vec<Plugin>,
}

/// What an operator does with a plugin; the last word of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Verb {
    /// Start it.
    Load,
    /// Stop it.
    Unload,
    /// Read its file again.
    Reload,
}

/// How the host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where it stands between start and stop.
    pub phase: Phase,
    /// Every pool, by name.
    pub pools: Vec<PoolHealth>,
}

/// Where a host stands between start and stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Does not take connections yet.
    Starting,
    /// Takes connections.
    Ready,
    /// Was told to stop and finishes what it has.
    Draining,
}

/// How a pool is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHealth {
    /// `sqlite.pool1`.
    pub name: String,
    /// Whether its database answers.
    pub state: PoolState,
    /// Writes and reads that wait for it.
    pub waiting: u64,
    /// What the database said last, where it does not answer; never a password.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Whether a pool's database answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolState {
    /// Not asked yet.
    Connecting,
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// Answers on `listeners` until `stop`, which should be the last thing an app cancels: a draining host still says so.
pub fn serve(
    listeners: Listeners,
    control: Arc<dyn Control>,
    clients: Arc<dyn clients::Clients>,
    metrics: PrometheusHandle,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    let state = routes::Shared {
        control,
        clients,
        metrics,
        tracker: tracker.clone(),
    };
    let (socket, tcp) = listeners.into_parts();
    tracker.spawn(door::accept(
        socket,
        routes::for_owner(state.clone()),
        tracker.clone(),
        stop.clone(),
    ));
    if let Some(tcp) = tcp {
        tracker.spawn(door::accept(
            tcp,
            routes::for_anyone(state),
            tracker.clone(),
            stop.clone(),
        ));
    }
}
