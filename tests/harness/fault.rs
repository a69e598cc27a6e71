//! What can happen to a database file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::host::Host;
use super::tools::{skip, tool};
use super::within;

/// Another process writes and does not finish: nobody else can commit.
pub struct Lock(SqliteConnection);

impl Lock {
    /// Locks a host's database.
    pub async fn take(host: &Host) -> Self {
        let mut connection = host.writer().await;
        let locked = within("the lock", sqlx::raw_sql("begin exclusive").execute(&mut connection)).await;
        locked.expect("the host leaves room between commits");
        Self(connection)
    }

    /// Unlocks it.
    pub async fn release(mut self) {
        sqlx::raw_sql("rollback")
            .execute(&mut self.0)
            .await
            .expect("the transaction is open");
        self.0.close().await.expect("nothing is written");
    }
}

/// A file that root itself cannot write to (`chattr +i`).
pub struct Immutable(Vec<PathBuf>);

impl Immutable {
    /// Freezes files; `None` where this machine cannot.
    pub fn freeze(files: impl IntoIterator<Item = PathBuf>) -> Option<Self> {
        tool("chattr")?;
        let mut frozen = Self(Vec::new());
        for file in files {
            if !run("chattr", &["+i".as_ref(), &file]) {
                skip("chattr +i is not possible here (needs root and a file system that knows it)");
                return None;
            }
            frozen.0.push(file);
        }
        Some(frozen)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        for file in &self.0 {
            run("chattr", &["-i".as_ref(), file]);
        }
    }
}

/// A small file system of its own, that can be full.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `None` where this machine cannot.
    pub fn mount(at: &Path, size: &str) -> Option<Self> {
        tool("mount")?;
        let options = format!("size={size}");
        let arguments = [
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            Path::new(&options),
            "tmpfs".as_ref(),
            at,
        ];
        if !run("mount", &arguments) {
            skip("a tmpfs cannot be mounted here (needs root)");
            return None;
        }
        Some(Self(at.to_path_buf()))
    }

    /// Takes all the space that is left.
    pub fn fill(&self) {
        let block = vec![0; 1 << 16];
        let mut file = fs::File::create(self.filler()).expect("a file of no bytes has room");
        while io::Write::write_all(&mut file, &block).is_ok() {}
    }

    /// Gives the space back.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the host that uses it may be about to end.
        run("umount", &["-l".as_ref(), &self.0]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}
