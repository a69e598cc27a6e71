//! Clients that misbehave hurt only themselves: beside each of them a well-behaved pair goes on, and when they
//! have gone, so has the memory that they used. One story at a time: they are measured.

mod attacker;
mod connections;
mod floods;
mod pair;
mod silence;
mod stalled;

use tokio::sync::{Mutex, MutexGuard};

/// Held by the story that is being told.
async fn alone() -> MutexGuard<'static, ()> {
    static STAGE: Mutex<()> = Mutex::const_new(());
    STAGE.lock().await
}
