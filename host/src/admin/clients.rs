//! What an operator asks of connected clients: who there is, how one is, and that it goes.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::routes::{Shared, bounded};
use crate::model::report::SessionReport;

/// Clients of one page, unless the caller wants another number.
pub const PAGE: usize = 100;
/// The most clients of one page.
pub const PAGE_MAX: usize = 1000;

/// What the door asks of the broker.
#[async_trait]
pub trait Clients: Send + Sync + 'static {
    /// The first `limit` connected clients whose identifiers come after `after`.
    async fn list(&self, after: Option<&str>, limit: usize) -> ClientPage;
    /// Everything about one session; `Ok(None)` where there is none, `Err` a sentence.
    async fn show(&self, id: &str) -> Result<Option<SessionReport>, String>;
    /// Closes a client's connection. Answers whether it was connected; `Err` is a sentence.
    async fn kick(&self, id: &str) -> Result<bool, String>;
}

/// The answer to `GET /clients`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientPage {
    /// By client identifier.
    pub clients: Vec<SessionReport>,
    /// Those that did not answer in time.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub late: Vec<String>,
    /// Where there are more: `after` of the next page.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub more_after: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/clients", get(list))
        .route("/clients/{id}", get(show))
        .route("/clients/{id}/kick", post(kick))
}

async fn list(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    bounded(async { Json(shared.clients.list(asked.after.as_deref(), limit).await).into_response() }).await
}

async fn show(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    bounded(async {
        match shared.clients.show(&id).await {
            Ok(Some(report)) => Json(report).into_response(),
            Ok(None) => unknown(&id),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        }
    })
    .await
}

async fn kick(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    // A task of its own: a caller who loses patience must not leave it half done.
    let clients = Arc::clone(&shared.clients);
    let asked = id.clone();
    let work = shared.tracker.spawn(async move { clients.kick(&asked).await });
    bounded(async {
        match work.await {
            Ok(Ok(true)) => (StatusCode::OK, format!("Client {id} was disconnected.")).into_response(),
            Ok(Ok(false)) => unknown(&id),
            Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "it failed midway; see the log").into_response(),
        }
    })
    .await
}

fn unknown(id: &str) -> Response {
    let text = format!("no client {id} is connected: `hookline clients list` shows those that are");
    (StatusCode::NOT_FOUND, text).into_response()
}
