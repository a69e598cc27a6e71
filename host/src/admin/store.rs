//! What an operator asks of the databases behind the pools: how they are, whether they are whole, a copy. Long work
//! answers a line of JSON now and then, and a last one when it ends.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PoolHealth;
use super::routes::{Shared, bounded};
use crate::store::backup::{Backup, Wanted};
use crate::store::retention::Purged;
use crate::store::upkeep::{Status, Watch};

/// How often work that goes on says how far it is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// What the door asks of the stores.
#[async_trait]
pub trait Stores: Send + Sync {
    /// Every pool, by name.
    async fn status(&self) -> Vec<StoreStatus>;
    /// What is wrong with what a pool stores, a sentence each; `Err` where it could not be looked at. Without a name
    /// the only pool is meant.
    async fn check(&self, pool: Option<String>, full: bool, watch: Arc<Watch>) -> Result<Vec<String>, String>;
    /// A copy of a pool's database.
    async fn backup(&self, pool: Option<String>, wanted: Wanted, watch: Arc<Watch>) -> Result<Backup, String>;
}

/// How a pool and its database are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Whether its database answers, and what waits for it.
    #[serde(flatten)]
    pub health: PoolHealth,
    /// Bytes that wait to be written.
    pub waiting_bytes: u64,
    /// What is in the database; absent where it does not answer, or keeps that to itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub database: Option<Status>,
    /// Up to where every reader, connected or not, has acknowledged everything; absent where nobody reads.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub horizon: Option<u64>,
    /// What may be deleted.
    pub retention: Retention,
    /// What was deleted since the start.
    pub purged: Purged,
}

/// What the configuration says about deleting messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// `message_retention`, in seconds.
    pub age_s: Option<u64>,
    /// `message_max_bytes`.
    pub bytes_max: Option<u64>,
    /// `purge_acknowledged`.
    pub acknowledged: bool,
    /// `retention_force`.
    pub force: bool,
}

/// A line of an answer to long work; the last one is no `Working`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<T> {
    /// It goes on: so much is done, of so much; 0 where nobody knows.
    Working {
        /// So much.
        done: u64,
        /// Of so much.
        of: u64,
    },
    /// It is done.
    Done(T),
    /// It is not, and this is why.
    Failed(String),
}

/// What a check is asked.
#[derive(Deserialize)]
struct Check {
    pool: Option<String>,
    #[serde(default)]
    full: bool,
}

/// What a backup is asked.
#[derive(Deserialize)]
struct Copy {
    pool: Option<String>,
    file: PathBuf,
    #[serde(default)]
    force: bool,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/store", get(status))
        .route("/store/check", post(check))
        .route("/store/backup", post(backup))
}

async fn status(State(shared): State<Shared>) -> Response {
    bounded(async { Json(shared.control.stores().status().await).into_response() }).await
}

async fn check(State(shared): State<Shared>, Query(asked): Query<Check>) -> Response {
    let watch = Arc::new(Watch::default());
    let (control, seen) = (Arc::clone(&shared.control), Arc::clone(&watch));
    let work = async move { control.stores().check(asked.pool, asked.full, seen).await };
    working(shared.tracker.spawn(work), watch)
}

async fn backup(State(shared): State<Shared>, Query(asked): Query<Copy>) -> Response {
    let wanted = Wanted {
        file: asked.file,
        force: asked.force,
    };
    let watch = Arc::new(Watch::default());
    let (control, seen) = (Arc::clone(&shared.control), Arc::clone(&watch));
    let work = async move { control.stores().backup(asked.pool, wanted, seen).await };
    working(shared.tracker.spawn(work), watch)
}

/// Lines until the work ends. Where the caller goes away it goes on: a backup that was asked for is wanted.
fn working<T: Serialize + Send + 'static>(work: JoinHandle<Result<T, String>>, watch: Arc<Watch>) -> Response {
    let lines = stream::unfold(Some((work, watch)), |state| async move {
        let (mut work, watch) = state?;
        let (line, state) = match timeout(PROGRESS_INTERVAL, &mut work).await {
            Err(_) => {
                let (done, of) = watch.progress();
                (Line::Working { done, of }, Some((work, watch)))
            }
            Ok(Ok(Ok(done))) => (Line::Done(done), None),
            Ok(Ok(Err(reason))) => (Line::Failed(reason), None),
            Ok(Err(_)) => (Line::Failed("it failed midway; see the log".to_owned()), None),
        };
        let text = serde_json::to_string(&line).unwrap_or_else(|error| format!("{{\"failed\":\"{error}\"}}"));
        Some((Ok::<_, Infallible>(text + "\n"), state))
    });
    let json = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (StatusCode::OK, json, Body::from_stream(lines)).into_response()
}
