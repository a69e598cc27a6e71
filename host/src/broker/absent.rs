//! Kept sessions whose clients are away have no task, only a row: this is who looks when a will or an expiry is due.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::connection::Connection;
use super::mailbox::Item;
use crate::model::clock;

/// How often the store is asked. Wills and expiries are counted in seconds.
const EVERY: Duration = Duration::from_secs(1);
/// Sessions that are woken at once.
const AT_ONCE: usize = 100;

/// Wakes the sessions that have something to do, until the broker stops.
pub(super) async fn look_after(broker: Arc<Broker>) {
    loop {
        tokio::select! {
            biased;
            () = broker.stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(pool) = broker.hooks.keeper() else { continue };
        // While the store is away nothing of it can be read; its pool says so in the log.
        let due = pool.due_sessions(clock::wall(), AT_ONCE).await;
        for client in due.unwrap_or_default() {
            if let Some(mailbox) = broker.clients.wake(&client, Item::Due) {
                let connection = Connection::new(Arc::clone(&broker), client, mailbox);
                broker.tracker.spawn(connection.run());
            }
        }
    }
}
