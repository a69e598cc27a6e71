//! What an operator asks of clients and their sessions: who there is, how one is, and that it goes.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

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
    /// The first `limit` sessions behind `after`, whether their clients are connected or not.
    async fn sessions(&self, after: Option<&str>, limit: usize) -> Result<ClientPage, String>;
    /// Everything about one session, in memory or in the store.
    async fn session(&self, id: &str) -> Result<Option<SessionReport>, String>;
    /// Ends a session. Answers whether there was one, when nothing is left of it.
    async fn delete(&self, id: &str) -> Result<bool, String>;
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
        .route("/sessions", get(sessions))
        .route("/sessions/{id}", get(session))
        .route("/sessions/{id}/delete", post(delete))
}

async fn list(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    bounded(async { Json(shared.clients.list(asked.after.as_deref(), limit).await).into_response() }).await
}

async fn sessions(State(shared): State<Shared>, Query(asked): Query<Asked>) -> Response {
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    bounded(async {
        match shared.clients.sessions(asked.after.as_deref(), limit).await {
            Ok(page) => Json(page).into_response(),
            Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        }
    })
    .await
}

async fn session(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    bounded(async { told(shared.clients.session(&id).await, || no_session(&id)) }).await
}

async fn delete(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let clients = Arc::clone(&shared.clients);
    let asked = id.clone();
    let work = shared.tracker.spawn(async move { clients.delete(&asked).await });
    bounded(async { done(work.await, format!("Session {id} was deleted."), || no_session(&id)) }).await
}

fn told(report: Result<Option<SessionReport>, String>, unknown: impl Fn() -> Response) -> Response {
    match report {
        Ok(Some(report)) => Json(report).into_response(),
        Ok(None) => unknown(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

fn done(work: Result<Result<bool, String>, JoinError>, sentence: String, unknown: impl Fn() -> Response) -> Response {
    match work {
        Ok(Ok(true)) => (StatusCode::OK, sentence).into_response(),
        Ok(Ok(false)) => unknown(),
        Ok(Err(reason)) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "it failed midway; see the log").into_response(),
    }
}

fn no_session(id: &str) -> Response {
    let text = format!("there is no session of {id}: `hookline sessions list` shows those that there are");
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn show(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    bounded(async { told(shared.clients.show(&id).await, || unknown(&id)) }).await
}

async fn kick(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    // A task of its own: a caller who loses patience must not leave it half done.
    let clients = Arc::clone(&shared.clients);
    let asked = id.clone();
    let work = shared.tracker.spawn(async move { clients.kick(&asked).await });
    bounded(async { done(work.await, format!("Client {id} was disconnected."), || unknown(&id)) }).await
}

fn unknown(id: &str) -> Response {
    let text = format!("no client {id} is connected: `hookline clients list` shows those that are");
    (StatusCode::NOT_FOUND, text).into_response()
}
