//! What is behind each path. Every answer is small, no request's body is read, and no request takes longer than
//! [`REQUEST_TIME`].

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::clients::Clients;
use super::{Control, Health, Phase, Plugins, PoolState, REQUEST_TIME, Verb};

/// What handlers share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) control: Arc<dyn Control>,
    pub(super) clients: Arc<dyn Clients>,
    pub(super) metrics: PrometheusHandle,
    pub(super) tracker: TaskTracker,
}

/// Everything: for the Unix socket.
pub(super) fn for_owner(shared: Shared) -> Router {
    watching()
        .route("/plugins", get(plugins))
        .route("/plugins/{name}/{verb}", post(change))
        .merge(super::store::routes())
        .merge(super::clients::routes())
        .fallback(async || {
            unknown(
                "there are /health, /metrics, /plugins, /plugins/NAME/load, unload and reload, /store, /store/check, \
                 /store/backup, /clients, /clients/ID, /clients/ID/kick, /sessions, /sessions/ID and /sessions/ID/delete",
            )
        })
        .with_state(shared)
}

/// Figures only: for TCP, where anybody may ask.
pub(super) fn for_anyone(shared: Shared) -> Router {
    watching()
        .fallback(async || {
            unknown("there are /health and /metrics; plugins are changed through hookline.sock in the data folder")
        })
        .with_state(shared)
}

fn watching() -> Router<Shared> {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
}

async fn health(State(shared): State<Shared>) -> Response {
    bounded(async { describe(&shared.control.health().await).into_response() }).await
}

/// 503 tells a load balancer to look elsewhere; a pool that is down does not, because the other nodes share the database.
fn describe(health: &Health) -> (StatusCode, Json<serde_json::Value>) {
    let all_up = health.pools.iter().all(|pool| pool.state == PoolState::Up);
    let (code, status) = match health.phase {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Phase::Ready if all_up => (StatusCode::OK, "ready"),
        Phase::Ready => (StatusCode::OK, "degraded"),
    };
    (code, Json(json!({ "status": status, "pools": health.pools })))
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    const TEXT: (HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([TEXT], shared.metrics.render())
}

async fn plugins(State(shared): State<Shared>) -> Response {
    bounded(async {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Json(Plugins {
            version,
            plugins: shared.control.plugins().await,
        })
        .into_response()
    })
    .await
}

async fn change(State(shared): State<Shared>, Path((name, verb)): Path<(String, String)>) -> Response {
    let Ok(verb) = verb.parse::<Verb>() else {
        return unknown("a plugin can be loaded, unloaded and reloaded: /plugins/NAME/load, unload, reload");
    };
    // A task of its own: a caller who loses patience must not leave a reload half done.
    let work = shared
        .tracker
        .spawn(async move { perform(shared.control.as_ref(), verb, &name).await });
    bounded(async {
        match work.await {
            Ok(Ok(answer)) => (StatusCode::OK, answer).into_response(),
            Ok(Err(reason)) => (StatusCode::UNPROCESSABLE_ENTITY, reason).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "it failed midway; see the log").into_response(),
        }
    })
    .await
}

/// EMQ X's sentence, then whatever the host adds.
async fn perform(control: &dyn Control, verb: Verb, name: &str) -> Result<String, String> {
    let note = match verb {
        Verb::Load => control.load(name).await,
        Verb::Unload => control.unload(name).await,
        Verb::Reload => control.reload(name).await,
    }?;
    let done = format!("Plugin {name} {verb}ed successfully.");
    Ok(if note.is_empty() {
        done
    } else {
        format!("{done}\n{note}")
    })
}

pub(super) async fn bounded(answer: impl Future<Output = Response>) -> Response {
    let late = format!("no answer within {REQUEST_TIME:?}; what was asked for goes on");
    timeout(REQUEST_TIME, answer)
        .await
        .unwrap_or_else(|_| (StatusCode::GATEWAY_TIMEOUT, late).into_response())
}

fn unknown(hint: &'static str) -> Response {
    (StatusCode::NOT_FOUND, hint).into_response()
}
