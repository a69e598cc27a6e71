//! What every story needs: a host (a real process), clients (ours and other people's), and faults.
//!
//! Nothing here sleeps: everything waits for an event, and every wait has a time limit.

pub mod client;
pub mod config;
pub mod fault;
pub mod host;
pub mod log;
pub mod look;
pub mod memory;
pub mod plain;
pub mod raw;
pub mod tools;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a test waits for something that ought to happen. Generous: it costs time only where a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The two versions that most stories are told in.
pub const BOTH: [Mqtt; 2] = [Mqtt::V311, Mqtt::V5];

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mqtt {
    V311,
    V5,
}

/// Waits for `what`, and says so where it does not come.
pub async fn within<T>(what: impl AsRef<str>, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {}", what.as_ref()),
    }
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    host.parent().expect("host/ lies in the repository").to_path_buf()
}

/// A runtime for one thread that measures, and must not wait for what others do.
pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a thread can wait for sockets")
}
