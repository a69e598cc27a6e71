//! Who has a session, and how to reach it. A connection finds its client's session here, or starts it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::arrival::Arrival;
use super::mailbox::{Bounds, Item, Mailbox};
use crate::model::message::ClientId;
use crate::telemetry;

/// Every session of this node.
pub(super) struct Clients {
    mailboxes: Mutex<HashMap<ClientId, Arc<Mailbox>>>,
    bounds: Bounds,
    online: AtomicUsize,
    /// The most that were connected at once.
    most_online: AtomicUsize,
}

impl Clients {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            mailboxes: Mutex::default(),
            bounds,
            online: AtomicUsize::new(0),
            most_online: AtomicUsize::new(0),
        }
    }

    /// A client has come, or gone.
    pub(super) fn note_online(&self, online: bool) {
        let gauge = metrics::gauge!(telemetry::CLIENTS_CONNECTED);
        if online {
            let now = self.online.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_online.fetch_max(now, Ordering::Relaxed);
            gauge.increment(1);
        } else {
            self.online.fetch_sub(1, Ordering::Relaxed);
            gauge.decrement(1);
        }
    }

    /// The most clients that were connected at once.
    pub(super) fn most_online(&self) -> usize {
        self.most_online.load(Ordering::Relaxed)
    }

    /// Hands a connection to its client's session. Answers the mailbox of a session that is to be started,
    /// where there is none.
    pub(super) fn hand_over(&self, arrival: Box<Arrival>) -> Option<(ClientId, Arc<Mailbox>)> {
        let id = arrival.client.id.clone();
        let mut mailboxes = self.mailboxes.lock();
        if let Some(known) = mailboxes.get(&id) {
            known.push(Item::Arrival(arrival));
            return None;
        }
        let mailbox = Arc::new(Mailbox::new(self.bounds));
        mailbox.push(Item::Arrival(arrival));
        mailboxes.insert(id.clone(), Arc::clone(&mailbox));
        Some((id, mailbox))
    }

    /// Gives a session an order, whether or not it is in memory. Answers the mailbox of one that is to be started;
    /// `None` where it has a task.
    pub(super) fn wake(&self, id: &ClientId, order: Item) -> Option<Arc<Mailbox>> {
        let mut mailboxes = self.mailboxes.lock();
        if let Some(known) = mailboxes.get(id) {
            known.push(order);
            return None;
        }
        let mailbox = Arc::new(Mailbox::new(self.bounds));
        mailbox.push(order);
        mailboxes.insert(id.clone(), Arc::clone(&mailbox));
        Some(mailbox)
    }

    /// A session is over. False where somebody arrived in the meantime: then its task goes on.
    pub(super) fn leave(&self, id: &ClientId, mailbox: &Arc<Mailbox>) -> bool {
        let mut mailboxes = self.mailboxes.lock();
        if mailbox.has_orders() {
            return false;
        }
        mailboxes.remove(id);
        true
    }

    /// Looks at all of them, under the lock.
    pub(super) fn with_all<T>(&self, look: impl FnOnce(&HashMap<ClientId, Arc<Mailbox>>) -> T) -> T {
        look(&self.mailboxes.lock())
    }

    /// How many sessions there are.
    pub(super) fn count(&self) -> usize {
        self.mailboxes.lock().len()
    }

    /// Every session's mailbox, by client.
    pub(super) fn all(&self) -> Vec<(ClientId, Arc<Mailbox>)> {
        let mut all: Vec<_> = self
            .mailboxes
            .lock()
            .iter()
            .map(|(id, mailbox)| (id.clone(), Arc::clone(mailbox)))
            .collect();
        all.sort_by(|(left, _), (right, _)| left.cmp(right));
        all
    }

    /// Puts an order into every mailbox.
    pub(super) fn tell_all(&self, order: impl Fn() -> Item) {
        self.all().iter().for_each(|(_, mailbox)| mailbox.push(order()));
    }
}
