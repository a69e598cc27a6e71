//! A value that tasks wait for. They are woken in the order in which they began to wait: tokio's `watch` draws lots, and
//! a simulated run could not be had again.

use std::pin::pin;

use parking_lot::RwLock;
use tokio::sync::Notify;

/// The value, and who waits for it to change.
pub(super) struct Level<T> {
    value: RwLock<T>,
    changed: Notify,
}

impl<T: Copy + PartialEq> Level<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: RwLock::new(value),
            changed: Notify::new(),
        }
    }

    pub(super) fn get(&self) -> T {
        *self.value.read()
    }

    /// Changes it to what `next` makes of it.
    pub(super) fn change(&self, next: impl FnOnce(T) -> T) {
        let mut value = self.value.write();
        let before = *value;
        *value = next(before);
        let is_new = *value != before;
        drop(value);
        if is_new {
            self.changed.notify_waiters();
        }
    }

    /// Waits until it is as `wanted`.
    pub(super) async fn becomes(&self, wanted: impl Fn(T) -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // In line before it is looked at: a change in between wakes, too.
            changed.as_mut().enable();
            if wanted(self.get()) {
                return;
            }
            changed.await;
        }
    }
}
