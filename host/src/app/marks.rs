//! The high-water mark of message ids (spec C1.1): reserved ahead in the data folder, so that ids never go back
//! across a restart, whatever the clock does.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::model::id::IdClock;

/// How far ahead ids are reserved, and how often.
const AHEAD: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(3);

/// The file that keeps the mark.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    file: PathBuf,
    floor_micros: u64,
}

impl Marks {
    /// Reads what an earlier run reserved.
    pub(super) fn open(data: &Path) -> anyhow::Result<Self> {
        let file = data.join("message-ids.mark");
        let floor_micros = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().with_context(|| {
                format!(
                    "{}: expected microseconds since 1970; remove the file only if the clock is right",
                    file.display()
                )
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        };
        let marks = Self { file, floor_micros };
        marks.reserve(floor_micros.max(now_micros()))?;
        Ok(marks)
    }

    /// A clock whose ids lie above everything that was reserved before.
    pub(super) fn clock(&self, node: &str) -> IdClock {
        IdClock::new(node, rand::random(), self.floor_micros)
    }

    /// Keeps the mark ahead of the ids until `stop`, then writes where they really ended.
    pub(super) fn spawn(&self, broker: Arc<Broker>, tracker: &TaskTracker, stop: CancellationToken) {
        let marks = self.clone();
        tracker.spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            let mut complained = false;
            loop {
                let stopped = tokio::select! {
                    _ = tick.tick() => false,
                    () = stop.cancelled() => true,
                };
                broker.measure();
                let used = broker.ids().newest_micros();
                let mark = if stopped { used } else { used.max(now_micros()) };
                let this = marks.clone();
                let written = tokio::task::spawn_blocking(move || match stopped {
                    true => this.write(mark),
                    false => this.reserve(mark),
                });
                // Said once, not every few seconds; until it can be written, a restart is safe if the clock is.
                let failed = written
                    .await
                    .map_err(std::io::Error::other)
                    .and_then(|result| result)
                    .err();
                if let Some(error) = failed.as_ref().filter(|_| !complained) {
                    tracing::error!(file = %marks.file.display(), %error, "cannot keep the mark of message ids");
                }
                complained = failed.is_some();
                if stopped {
                    return;
                }
            }
        });
    }

    fn reserve(&self, micros: u64) -> std::io::Result<()> {
        self.write(micros + AHEAD.as_micros() as u64)
    }

    /// Replaces the file, so that it is whole whenever the power goes.
    fn write(&self, micros: u64) -> std::io::Result<()> {
        let beside = self.file.with_extension("mark.new");
        let mut file = File::create(&beside)?;
        writeln!(file, "{micros}")?;
        file.sync_all()?;
        fs::rename(&beside, &self.file)
    }
}

fn now_micros() -> u64 {
    crate::model::event::micros(std::time::SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Ids;

    #[test]
    fn ids_lie_above_what_an_earlier_run_reserved() {
        let data = tempfile::tempdir().expect("a folder");
        fs::write(data.path().join("message-ids.mark"), "9000000000000000\n").expect("a file");
        let marks = Marks::open(data.path()).expect("a good mark");
        let clock = marks.clock("node");
        assert!(Ids::new(&clock, now_micros()).take().micros() > 9_000_000_000_000_000);
    }

    #[test]
    fn a_damaged_mark_is_refused_and_not_replaced() {
        let data = tempfile::tempdir().expect("a folder");
        let file = data.path().join("message-ids.mark");
        fs::write(&file, "soon").expect("a file");
        let error = Marks::open(data.path()).expect_err("a bad mark");
        assert!(
            error.to_string().contains("message-ids.mark: expected microseconds"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(&file).expect("still there"), "soon");
    }
}
