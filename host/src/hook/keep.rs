//! Where sessions are kept (`persist_sessions`, spec C16), and what is read for one that its client comes back to.

use std::sync::Arc;

use crate::model::delivery::{Settle, Ticket};
use crate::model::event::{Effect, Event};
use crate::model::session::{Keep, Keeping, SessionWrite};
use crate::store::Write;
use crate::store::pool::Pool;

use super::action::Action;
use super::{Hooks, reads};

impl Hooks {
    /// What a session that its client comes back to reads of one of its subscriptions, without a new SUBSCRIBE
    /// (`fetch_on_resume`, spec C10): the rules that fetch messages answer, and no other.
    pub fn returned(&self, event: &Event) -> Vec<Effect> {
        let active = self.active.load();
        let Event::SessionSubscribed { client, subscription } = event else {
            return Vec::new();
        };
        let rules = active.matching(event.point(), event.topic());
        let reads = rules.filter_map(|bound| match &bound.rule.action {
            Action::Builtin(builtin) => reads(*builtin, &bound.rule, client, subscription, &bound.pool, &active),
            Action::Statements(_) | Action::Commands(_) => None,
        });
        reads.collect()
    }

    /// Where sessions are kept, if anywhere.
    pub fn keeping(&self) -> Option<Keeping> {
        self.active.load().keeper().map(|(_, keeping)| keeping.clone())
    }

    /// The pool in which sessions are kept.
    pub fn keeper(&self) -> Option<Arc<Pool>> {
        self.active.load().keeper().map(|(pool, _)| Arc::clone(pool))
    }

    /// Keeps something of a session; the result is settled under this ticket. False where sessions are not kept.
    pub fn keep(&self, keep: Keep, ticket: Ticket, settle: &Arc<dyn Settle>) -> bool {
        let active = self.active.load();
        let Some((pool, _)) = active.keeper() else {
            return false;
        };
        let write = match keep {
            Keep::Session(SessionWrite::Ended { client, positions }) => Write::Session(SessionWrite::Ended {
                client,
                positions: positions && pool.options().respect_clean_session,
            }),
            Keep::Session(change) => Write::Session(change),
            Keep::Exchange(exchange) => Write::Exchange(exchange),
            Keep::EndExchange(key) => Write::EndExchange(key),
        };
        pool.batcher().keep(write, settle, ticket);
        true
    }
}
