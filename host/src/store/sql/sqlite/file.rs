//! Which file is open, whatever its path leads to by now.

use std::fs;
use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A database file and its log. Commits into them go on succeeding after they were removed or replaced.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    path: PathBuf,
    pub(super) database: (u64, u64),
    log: Option<(u64, u64)>,
}

impl Identity {
    /// What lies at this path now.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let log = fs::metadata(beside(path, "-wal")).ok();
        Ok(Self {
            path: path.to_owned(),
            database: number(&fs::metadata(path)?),
            log: log.as_ref().map(number),
        })
    }

    /// Whether they still lie at their path: two look-ups that the kernel has in memory, not worth a thread.
    pub(super) fn is_current(&self) -> bool {
        Self::of(&self.path)
            .is_ok_and(|now| now.database == self.database && (self.log.is_none() || now.log == self.log))
    }

    /// The log that we wrote for a file which is no longer there would be taken for the log of the one that is.
    pub(super) fn set_stale_log_aside(&self) -> Result<()> {
        let Ok(now) = Self::of(&self.path) else {
            return Ok(());
        };
        let file = &self.path;
        let log = beside(file, "-wal");
        let ours = self.log.is_some() && now.log == self.log && now.database != self.database;
        if !ours || fs::metadata(&log)?.len() == 0 {
            return Ok(());
        }
        let aside = beside(file, "-wal.of-replaced-file");
        tracing::warn!(file = %file.display(), aside = %aside.display(), "log of a replaced database set aside");
        fs::rename(log, aside)
    }
}

fn number(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// The file of this name plus a suffix.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
