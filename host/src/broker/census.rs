//! What an operator asks of sessions. Each answers for itself, out of its mailbox: nothing is locked, and one that is
//! busy is waited for a moment only.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Broker;
use super::clients::Clients;
use super::connection::Connection;
use super::mailbox::{Item, Mailbox};
use crate::model::message::ClientId;
use crate::model::reason::Reason;
use crate::model::report::SessionReport;
use crate::mqtt::session::{Depth, Session};

/// How long sessions may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A page of reports is not longer than this, but has one at least.
pub(super) const PAGE_BYTES_MAX: usize = 512 * 1024;
/// What a report takes beside its texts.
pub(super) const REPORT_BYTES: usize = 600;

/// Some of the connected clients, by client identifier.
#[derive(Debug, Default)]
pub struct Census {
    /// Each as it says itself.
    pub reports: Vec<SessionReport>,
    /// Those that did not answer in time.
    pub late: Vec<String>,
    /// The last client of this page, where there are more behind it.
    pub more_after: Option<String>,
}

impl Broker {
    /// The first `limit` connected clients whose identifiers come after `after`.
    pub async fn census(&self, after: Option<&str>, limit: usize) -> Census {
        let limit = limit.max(1);
        let mut page = self.clients.connected_after(after, limit + 1);
        let mut more = page.len() > limit;
        page.truncate(limit);
        let until = Instant::now() + PATIENCE;
        let asked: Vec<_> = page
            .into_iter()
            .map(|(id, mailbox)| (id, ask(&mailbox, Depth::Figures)))
            .collect();
        let mut census = Census::default();
        let (mut bytes, mut last) = (0, None);
        for (id, answer) in asked {
            if bytes > PAGE_BYTES_MAX {
                more = true;
                break;
            }
            bytes += REPORT_BYTES + id.as_str().len();
            match timeout_at(until, answer).await {
                Ok(Ok(report)) => {
                    bytes += report.username.as_deref().map_or(0, str::len);
                    census.reports.push(report);
                }
                Err(_) => census.late.push(id.to_string()),
                // It ended meanwhile.
                Ok(Err(_)) => {}
            }
            last = Some(id.to_string());
        }
        census.more_after = last.filter(|_| more);
        census
    }

    /// Everything about one session in memory, connected or not. `Ok(None)` where there is none.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn session(&self, id: &str) -> Result<Option<SessionReport>, Busy> {
        let bytes_max = PAGE_BYTES_MAX;
        self.ask_session(id, Depth::Everything { bytes_max }).await
    }

    pub(super) async fn ask_session(&self, id: &str, depth: Depth) -> Result<Option<SessionReport>, Busy> {
        let Some(mailbox) = self.clients.find(&id.into()) else {
            return Ok(None);
        };
        let answer = ask(&mailbox, depth);
        let answer = timeout_at(Instant::now() + PATIENCE, answer).await.map_err(|_| Busy)?;
        Ok(answer.ok())
    }

    /// Closes a client's connection: MQTT 5 is told 0x98. Answers whether it was connected.
    ///
    /// # Errors
    /// When the session does not answer in time; it will do it all the same.
    pub async fn kick(&self, id: &str) -> Result<bool, Busy> {
        let Some(mailbox) = self.clients.find(&id.into()) else {
            return Ok(false);
        };
        let (done, kicked) = oneshot::channel();
        mailbox.push(Item::Kick(done));
        let kicked = timeout_at(Instant::now() + PATIENCE, kicked).await.map_err(|_| Busy)?;
        Ok(kicked.unwrap_or(false))
    }
}

/// A session that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the session is busy and did not answer within {PATIENCE:?}")]
pub struct Busy;

fn ask(mailbox: &Arc<Mailbox>, depth: Depth) -> oneshot::Receiver<SessionReport> {
    let (answer, report) = oneshot::channel();
    mailbox.push(Item::Report(depth, answer));
    report
}

impl Connection {
    /// Answers how the session is; where there is none, nobody answers.
    pub(super) fn report(&self, depth: Depth, answer: oneshot::Sender<SessionReport>) {
        let Some(session) = &self.session else { return };
        let under_way: usize = self.live.as_slice().iter().map(|(run, _)| run.messages.len()).sum();
        let report = SessionReport {
            mailbox: self.mailbox.len() + under_way,
            ..session.report(depth)
        };
        // Whoever asked may have lost patience.
        answer.send(report).ok();
    }

    /// Closes the connection for an operator.
    pub(super) fn kick(&mut self, answer: oneshot::Sender<bool>) {
        let connected = self.session.as_ref().is_some_and(Session::is_online);
        self.act(|session, now, steps| session.close(Reason::ADMINISTRATIVE_ACTION, now, steps));
        answer.send(connected).ok();
    }
}

impl Clients {
    fn find(&self, id: &ClientId) -> Option<Arc<Mailbox>> {
        self.with_all(|mailboxes| mailboxes.get(id).cloned())
    }

    /// The first so many clients with a session in memory, by identifier.
    pub(super) fn after(&self, after: Option<&str>, limit: usize) -> Vec<ClientId> {
        let mut found: Vec<ClientId> = self.with_all(|mailboxes| {
            let behind = mailboxes.keys();
            behind
                .filter(|id| after.is_none_or(|after| id.as_str() > after))
                .cloned()
                .collect()
        });
        found.sort_unstable();
        found.truncate(limit);
        found
    }

    /// The first so many connected clients, by identifier.
    fn connected_after(&self, after: Option<&str>, limit: usize) -> Vec<(ClientId, Arc<Mailbox>)> {
        let mut found: Vec<(ClientId, Arc<Mailbox>)> = self.with_all(|mailboxes| {
            let behind = mailboxes
                .iter()
                .filter(|(id, mailbox)| mailbox.is_online() && after.is_none_or(|after| id.as_str() > after));
            behind.map(|(id, mailbox)| (id.clone(), Arc::clone(mailbox))).collect()
        });
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.truncate(limit);
        found
    }
}
