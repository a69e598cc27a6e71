//! A copy of a pool's database while it is written to (spec D0): into a file beside the one that is asked for, which
//! takes its name only when it is whole and on the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::pool::Pool;
use super::upkeep::{Copied, Watch};

/// What a backup is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where to, an absolute path.
    pub file: PathBuf,
    /// Whether a file of that name may be replaced.
    pub force: bool,
}

/// A backup that is whole, named and on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// Where it lies.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// The newest message in it: everything that was acknowledged before the backup began is there.
    pub newest_id: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Bytes that a copy may need beyond what is in use: pages are filled anew, a little worse or better.
const SPARE_BYTES: u64 = 1 << 20;

/// Makes a backup. Whatever goes wrong, nothing is left behind and what was there stays.
///
/// # Errors
/// A sentence for the operator.
pub async fn backup(pool: &Pool, wanted: &Wanted, watch: &Arc<Watch>) -> Result<Backup, String> {
    let began = Instant::now();
    let upkeep = pool
        .upkeep()
        .ok_or_else(|| format!("{}: use the database's own tools for a backup", pool.name()))?;
    let used = upkeep.used_bytes().await.map_err(|error| error.chain())?;
    let part = Part::begin(wanted, &upkeep.files(), used)?;
    let work = async {
        let copied = upkeep.copy(&part.path, watch).await;
        let copied = copied.map_err(|error| match watch.is_stopped() {
            true => "stopped before it was done".to_owned(),
            false => error.chain(),
        })?;
        part.finish(wanted).await.map(|()| copied)
    };
    let Copied { bytes, newest_id } = work.await.map_err(|error| about(&wanted.file, error))?;
    Ok(Backup {
        file: wanted.file.clone(),
        bytes,
        newest_id,
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn about(file: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", file.display())
}

/// The file that a backup is written to; it goes unless it was renamed.
struct Part {
    path: PathBuf,
    folder: PathBuf,
}

impl Part {
    /// Looks whether the target can be written and has room, then creates the file, for its owner alone.
    fn begin(wanted: &Wanted, ours: &[PathBuf], used: u64) -> Result<Self, String> {
        let file = &wanted.file;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(about(file, "name a file, not a folder"));
        };
        if !file.is_absolute() {
            return Err(about(file, "its path has to be absolute"));
        }
        refuse_existing(wanted, ours)?;
        let room = rustix::fs::statvfs(folder).map_err(|error| about(folder, io::Error::from(error)))?;
        let room = room.f_bavail.saturating_mul(room.f_frsize);
        if room < used + SPARE_BYTES {
            let text = format!("needs {} bytes, {room} are free", used + SPARE_BYTES);
            return Err(about(file, text));
        }
        let mut part = name.to_owned();
        part.push(".part");
        let path = folder.join(part);
        // Of a backup that the power cut short; a living one is kept out by the caller.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(about(&path, error)),
            _ => {}
        }
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        created.map_err(|error| about(&path, error))?;
        let folder = folder.to_owned();
        Ok(Self { path, folder })
    }

    /// Brings it to the disk, gives it its name, and brings that to the disk.
    async fn finish(&self, wanted: &Wanted) -> Result<(), String> {
        let (path, folder) = (self.path.clone(), self.folder.clone());
        let wanted = wanted.clone();
        let finished = tokio::task::spawn_blocking(move || {
            File::open(&path)?.sync_all()?;
            // Somebody else may have been quicker.
            if !wanted.force && fs::symlink_metadata(&wanted.file).is_ok() {
                return Err(io::Error::other("is there by now"));
            }
            fs::rename(&path, &wanted.file)?;
            File::open(&folder)?.sync_all()
        });
        let finished = finished.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        finished.map_err(|error| error.to_string())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Gone already where all went well. The engine's journal of the copy goes with it.
        for suffix in ["", "-journal"] {
            let mut path = self.path.clone().into_os_string();
            path.push(suffix);
            let _ = fs::remove_file(path);
        }
    }
}

/// A file that is there is replaced only where that is wanted, and never one of the database's own.
fn refuse_existing(wanted: &Wanted, ours: &[PathBuf]) -> Result<(), String> {
    let file = &wanted.file;
    let Ok(there) = fs::metadata(file) else { return Ok(()) };
    let same =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()));
    if ours.iter().any(same) {
        return Err(about(file, "is the database itself"));
    }
    if !there.is_file() {
        return Err(about(file, "is no file: name one"));
    }
    match wanted.force {
        true => Ok(()),
        false => Err(about(
            file,
            "is there already: name another, or replace it with --force",
        )),
    }
}
