//! What an operator asks of sessions whose clients may be away: those in memory answer for themselves, those that rest
//! in the store are read there.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Broker;
use super::census::{Census, PAGE_BYTES_MAX, REPORT_BYTES};
use super::connection::Connection;
use super::mailbox::Item;
use crate::model::clock;
use crate::model::id::Ids;
use crate::model::message::ClientId;
use crate::model::reason::Reason;
use crate::model::report::{ReaderReport, SessionReport};
use crate::mqtt::session::{Depth, Interest, Now, Session};
use crate::store::pool::Pool;

/// How long the end of a session may take: its rows go with it.
const PATIENCE: Duration = Duration::from_secs(15);
/// A task that is just about to end does not take orders any more: then its session is asked for anew.
const TRIES: usize = 3;

impl Broker {
    /// The first `limit` sessions whose client identifiers come after `after`, connected or not, in memory or kept.
    ///
    /// # Errors
    /// A sentence, where the store that keeps sessions does not answer.
    pub async fn sessions(&self, after: Option<&str>, limit: usize) -> Result<Census, String> {
        let limit = limit.max(1);
        let mut names = self.clients.after(after, limit + 1);
        if let Some(pool) = self.hooks.keeper() {
            let after = after.map(ClientId::from);
            let kept = pool.sessions(after.as_ref(), limit + 1).await;
            names.extend(kept.map_err(|error| failed(&pool, &error))?);
        }
        names.sort_unstable();
        names.dedup();
        let mut more = names.len() > limit;
        names.truncate(limit);
        let mut census = Census::default();
        let (mut bytes, mut last) = (0, None);
        for id in names {
            if bytes > PAGE_BYTES_MAX {
                more = true;
                break;
            }
            bytes += REPORT_BYTES + id.as_str().len();
            match self.report_on(id.as_str(), Depth::Figures).await {
                // It ended meanwhile.
                Ok(None) => {}
                Ok(Some(report)) => census.reports.push(report),
                Err(_) => census.late.push(id.to_string()),
            }
            last = Some(id.to_string());
        }
        census.more_after = last.filter(|_| more);
        Ok(census)
    }

    /// Everything about one session, wherever it is. `Ok(None)` where there is none.
    ///
    /// # Errors
    /// A sentence, where it does not answer in time.
    pub async fn any_session(&self, id: &str) -> Result<Option<SessionReport>, String> {
        let bytes_max = PAGE_BYTES_MAX;
        self.report_on(id, Depth::Everything { bytes_max }).await
    }

    async fn report_on(&self, id: &str, depth: Depth) -> Result<Option<SessionReport>, String> {
        if let Some(report) = self.ask_session(id, depth).await.map_err(|busy| busy.to_string())? {
            return Ok(Some(report));
        }
        let Some((pool, keeping)) = self.hooks.keeper().zip(self.hooks.keeping()) else {
            return Ok(None);
        };
        let client = ClientId::from(id);
        let saved = pool.session(&client).await.map_err(|error| failed(&pool, &error))?;
        let Some(saved) = saved else { return Ok(None) };
        let left_at = saved.left_at;
        let now = Now {
            instant: clock::instant(),
            wall: clock::wall(),
            ids: Ids::new(&self.ids, 0),
            interest: Interest::default(),
            keeps: None,
        };
        let session = Session::restore(Arc::clone(&self.limits), saved, keeping, &now);
        let mut report = session.report(depth);
        report.at_rest = true;
        report.left_at = left_at.and_then(|at| Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs()));
        if depth != Depth::Figures {
            let positions = pool.positions(&client).await.map_err(|error| failed(&pool, &error))?;
            report.readers = positions
                .into_iter()
                .map(|(filter, position)| ReaderReport {
                    pool: pool.name().to_string(),
                    filter,
                    delivery: "pubsub".to_owned(),
                    position: Some(position.0.to_string()),
                })
                .collect();
        }
        Ok(Some(report))
    }

    /// Ends a session, connected or not: its client is told 0x98, its subscriptions, positions and half-done exchanges
    /// go, its will is published if it is still to be. Answers whether there was one.
    ///
    /// # Errors
    /// A sentence, where the store does not do it in time; it will do it all the same.
    pub async fn delete_session(self: &Arc<Self>, id: &str) -> Result<bool, String> {
        for _ in 0..TRIES {
            let (done, deleted) = oneshot::channel();
            let client = ClientId::from(id);
            if let Some(mailbox) = self.clients.wake(&client, Item::Delete(done)) {
                self.tracker
                    .spawn(Connection::new(Arc::clone(self), client, mailbox).run());
            }
            match timeout(PATIENCE, deleted).await {
                Ok(Ok(deleted)) => return Ok(deleted),
                Ok(Err(_)) => {}
                Err(_) => return Err(format!("the store did not forget the session within {PATIENCE:?}")),
            }
        }
        Err("the session is busy: try again".to_owned())
    }
}

fn failed(pool: &Pool, error: &crate::store::Error) -> String {
    format!("{}: {}", pool.name(), error.chain())
}

/// An operator who waits for the end of a session.
pub(super) struct Deleting {
    answer: oneshot::Sender<bool>,
    /// Whether there was one; `None` while the store has not said.
    found: Option<bool>,
}

impl Connection {
    /// An operator ends the session.
    pub(super) async fn delete(&mut self, answer: oneshot::Sender<bool>) {
        let mut found = None;
        if self.session.is_some() {
            self.act(|session, now, steps| session.close(Reason::ADMINISTRATIVE_ACTION, now, steps));
            self.carry_out().await;
            self.end_session().await;
            found = Some(true);
        } else if self.waiting.is_none() && self.broker.hooks.keeping().is_none() {
            found = Some(false);
        }
        self.deleting.push(Deleting { answer, found });
        self.delete_on().await;
    }

    /// The store has said whether it keeps a session; what it keeps was restored.
    pub(super) async fn delete_what_was_kept(&mut self) {
        if self.deleting.is_empty() {
            return;
        }
        let restored = self.session.is_some();
        if restored {
            self.end_session().await;
        }
        for deleting in self.deleting.iter_mut().filter(|deleting| deleting.found.is_none()) {
            deleting.found = Some(restored);
        }
    }

    /// Goes on with what operators wait for: asks the store, or answers once nothing is left there.
    pub(super) async fn delete_on(&mut self) {
        if self.deleting.is_empty() || self.keeping > 0 || self.loading {
            return;
        }
        if self.deleting.iter().any(|deleting| deleting.found.is_none()) {
            return self.load();
        }
        for Deleting { answer, found } in self.deleting.drain(..) {
            // Whoever asked may have lost patience.
            answer.send(found.unwrap_or(false)).ok();
        }
    }
}
