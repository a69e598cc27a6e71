//! What a host holds in memory, and what one process may open.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::PATIENCE;
use super::host::Host;

const MIB: usize = 1 << 20;

/// Bytes, shown in MiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub usize);

impl Bytes {
    pub const fn mib(count: usize) -> Self {
        Self(count * MIB)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB", self.0 as f64 / MIB as f64)
    }
}

impl Host {
    /// Its resident memory, without what it shares with files.
    pub fn memory(&self) -> Bytes {
        resident(self.pid())
    }

    /// Notes the most that it holds, until asked.
    pub fn watch_memory(&self) -> Peak {
        let (most, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (pid, seen, end) = (self.pid(), Arc::clone(&most), Arc::clone(&over));
        let watch = async move {
            let mut again = tokio::time::interval(Duration::from_millis(20));
            while !end.load(Ordering::Relaxed) {
                again.tick().await;
                seen.fetch_max(resident(pid).0, Ordering::Relaxed);
            }
        };
        let thread = std::thread::spawn(|| super::runtime().block_on(watch));
        Peak {
            most,
            over,
            thread: Some(thread),
        }
    }

    /// Waits until it holds no more than this. Nobody is told that a process gave memory back, so this asks.
    pub async fn memory_returns(&self, to: Bytes) {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let returns = async {
            while self.memory() > to {
                again.tick().await;
            }
        };
        let returned = tokio::time::timeout(PATIENCE, returns).await;
        assert!(returned.is_ok(), "the host still holds {}, not {to}", self.memory());
    }
}

/// The most memory that a host held.
pub struct Peak {
    most: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peak {
    pub fn so_far(&self) -> Bytes {
        Bytes(self.most.load(Ordering::Relaxed))
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watcher does not panic");
        }
    }
}

/// Anonymous memory of a process: what it has allocated, and not the pages of files that the kernel keeps.
fn resident(pid: u32) -> Bytes {
    // A host that has just ended holds nothing.
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<usize>().ok());
    Bytes(kib.unwrap_or(0) * 1024)
}

/// Lets this process, and the hosts that it starts, open as many files as they may. Answers how many.
pub fn open_as_many_files_as_allowed() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::Nofile, raised).expect("up to the hard limit anybody may");
    most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}
