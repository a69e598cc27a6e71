//! Questions of sessions to stores: asked in a task of their own, answered into the mailbox. The pool tries
//! again while its store is away and the subscriber may still be waiting (spec F2).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mailbox::{Item, Mailbox};
use crate::hook::Hooks;
use crate::model::delivery::{Page, PoolName, Reader, Window};
use crate::model::event::{Backlog, Effect};
use crate::model::message::ClientId;
use crate::model::session::SavedSession;
use crate::model::topic::Filter;
use crate::mqtt::session::ReadId;
use crate::store::pool::Pool;
use crate::store::{Result, operator_subscription};
use crate::telemetry;

/// Asks stores on behalf of sessions.
pub(super) struct Reads {
    pub(super) hooks: Arc<Hooks>,
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Reads {
    /// Where does this backlog begin? Queued behind every write of this node so far: what is stored is seen.
    pub(super) fn begin(&self, to: &Arc<Mailbox>, read: ReadId, backlog: Backlog) {
        let Backlog {
            reader, start, durable, ..
        } = backlog;
        let pool = reader.pool.clone();
        // Asked at once: what is saved from now on lies behind the answer.
        let question = move |pool: Arc<Pool>| pool.begin(reader, start, durable);
        self.ask(to, pool, "begin", move |position| Item::Begun(read, position), question);
    }

    /// What has this reader not read?
    pub(super) fn unread(&self, to: &Arc<Mailbox>, read: ReadId, reader: Reader, window: Window) {
        let pool = reader.pool.clone();
        self.ask(to, pool, "unread", page(read), move |pool: Arc<Pool>| async move {
            pool.batcher().barrier().await;
            pool.unread(&reader, window).await
        });
    }

    /// The session that is kept for this client. Nothing of it waits to be written: its last task has seen to that.
    pub(super) fn session(&self, to: &Arc<Mailbox>, client: ClientId) {
        let Some((pool, keeping)) = self.hooks.keeper().zip(self.hooks.keeping()) else {
            return to.push(Item::Loaded(Ok(None)));
        };
        let answer = move |found: Option<Option<SavedSession>>| {
            let found = found.map(|saved| saved.map(|saved| Box::new((saved, keeping))));
            Item::Loaded(found.ok_or(()))
        };
        let name = pool.name().clone();
        self.ask(to, name, "session", answer, move |pool: Arc<Pool>| async move {
            pool.session(&client).await
        });
    }

    /// Which retained messages match?
    pub(super) fn retained(&self, to: &Arc<Mailbox>, read: ReadId, pool: PoolName, filter: Filter, window: Window) {
        self.ask(to, pool, "retained", page(read), move |pool: Arc<Pool>| async move {
            pool.batcher().barrier().await;
            pool.retained(&filter, window).await
        });
    }

    /// Which subscriptions does the operator keep for this client?
    pub(super) fn look_up(&self, to: &Arc<Mailbox>, client: ClientId, pool: PoolName) {
        let answer = |found: Option<Vec<(String, i64)>>| {
            let rows = found.unwrap_or_default();
            let valid: Vec<_> = rows
                .iter()
                .filter_map(|(topic, qos)| operator_subscription(topic, *qos))
                .collect();
            // A row that is no subscription is the operator's to mend; the others count (spec C4).
            metrics::counter!(telemetry::OPERATOR_SUBSCRIPTIONS_SKIPPED).increment((rows.len() - valid.len()) as u64);
            Item::Effect(Effect::Subscribe(valid))
        };
        self.ask(to, pool, "subscriptions", answer, move |pool: Arc<Pool>| async move {
            pool.subscriptions(&client).await
        });
    }

    fn ask<T, Asking>(
        &self,
        to: &Arc<Mailbox>,
        pool: PoolName,
        verb: &'static str,
        answer: impl FnOnce(Option<T>) -> Item + Send + 'static,
        question: impl FnOnce(Arc<Pool>) -> Asking + Send + 'static,
    ) where
        T: Send + 'static,
        Asking: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(pool) = self.hooks.pool(&pool) else {
            return to.push(answer(None));
        };
        let (to, stop) = (Arc::clone(to), self.stop.clone());
        let asked = question(Arc::clone(&pool));
        self.tracker.spawn(async move {
            let found = tokio::select! {
                biased;
                found = asked => found,
                () = stop.cancelled() => return to.push(answer(None)),
            };
            if let Err(error) = &found {
                tracing::warn!(pool = %pool.name(), verb, error = error.chain(), "read given up");
            }
            to.push(answer(found.ok()));
        });
    }
}

fn page(read: ReadId) -> impl FnOnce(Option<Page>) -> Item + Send + 'static {
    move |page| Item::Page(read, page)
}
