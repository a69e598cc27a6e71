//! A SQLite file that is locked, missing, damaged, replaced, read-only or on a full disk: nothing is said to be
//! stored that is not, nothing crashes, and it goes on when the file is well again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hookline::model::delivery::{PoolName, Position, Settled};
use hookline::store::options::{InitSchema, PoolOptions};
use hookline::store::pool::{Pool, Pools};
use hookline::store::sql::SqlStore;
use hookline::store::sql::sqlite::Sqlite;
use hookline::store::{Kind, Store, Write};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Mailbox, name, saves};
use super::database::{Database, message, options, read, reader, rows, save, window, write};

const LONG: Duration = Duration::from_secs(3_600);

fn open(options: PoolOptions) -> Arc<Pool> {
    Pools::new(CancellationToken::new())
        .open(name(), options)
        .expect("sqlite is known")
}

/// The database at this path as a new process would see it.
fn at(file: &Path) -> SqlStore<Sqlite> {
    let options = options(file.to_owned());
    SqlStore::new(Sqlite::new(&options), &options)
}

/// Waits until the pool has noticed, in health checks that come every 50 ms.
async fn until_up(pool: &Pool, up: bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while pool.is_up() != up {
        assert!(
            Instant::now() < deadline,
            "the pool never was {}",
            if up { "up" } else { "down" }
        );
        tick.tick().await;
    }
}

/// Gates a message while the database is unwell, looks that it stays open, heals, and looks that it is stored.
async fn gate_stays_open_until(pool: &Pool, n: u64, heal: impl Future<Output = ()>) {
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, n, n, LONG));
    until_up(pool, false).await;
    assert!(mailbox.results().is_empty(), "nothing was stored");
    heal.await;
    assert_eq!(mailbox.expect(1).await, [Settled::Stored]);
    until_up(pool, true).await;
}

#[tokio::test]
async fn a_locked_database_keeps_gates_open() {
    let database = Database::sqlite().await;
    let mut other = SqliteConnectOptions::new()
        .filename(database.file())
        .connect()
        .await
        .expect("opens");
    other.execute("BEGIN IMMEDIATE").await.expect("locks");
    let pool = open(database.options());
    gate_stays_open_until(&pool, 1, async {
        other.execute("ROLLBACK").await.expect("unlocks");
    })
    .await;
    assert_eq!(rows(database.store(), "SELECT count(*) FROM mqtt_msg").await, "1");
    assert_eq!(pool.close(LONG).await, 0);
}

#[tokio::test]
async fn a_missing_folder_is_waited_for() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("later/hookline.db");
    let pool = open(options(file.clone()));
    // Reads wait, too.
    let c = reader("c", "t");
    let (page, ()) = tokio::join!(
        pool.unread(&c, window(Position::START, 10)),
        gate_stays_open_until(&pool, 1, async {
            fs::create_dir(file.parent().expect("a folder")).expect("made");
        })
    );
    assert!(page.expect("a page in the end").end);
    assert_eq!(read(&at(&file), &c, 10).await, [message(1, "t")]);
}

#[tokio::test]
async fn a_damaged_file_is_replaced_by_a_good_one() {
    let good = Database::sqlite().await;
    write(good.store(), [save(1, "t")]).await;
    good.store().close().await;
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("hookline.db");
    fs::write(&file, [0x5A; 8_192]).expect("written");
    let pool = open(options(file.clone()));
    gate_stays_open_until(&pool, 2, async {
        fs::copy(good.file(), dir.path().join("new.db")).expect("copied");
        fs::rename(dir.path().join("new.db"), &file).expect("renamed");
    })
    .await;
    let found = read(&at(&file), &reader("c", "t"), 10).await;
    assert_eq!(found, [message(1, "t"), message(2, "t")]);
}

#[tokio::test]
async fn a_file_that_is_damaged_while_open_is_replaced_by_a_good_one() {
    let database = Database::sqlite().await;
    write(database.store(), (1..=300).map(|n| save(n, "t"))).await;
    database.store().close().await;
    let copy = database.file().with_extension("copy");
    fs::copy(database.file(), &copy).expect("copied");
    let pool = open(database.options());
    until_up(&pool, true).await;
    // Everything behind the first page is gone.
    let mut bytes = fs::read(database.file()).expect("read");
    bytes[4_096..].fill(0x5A);
    fs::write(database.file(), &bytes).expect("written");
    gate_stays_open_until(&pool, 301, async {
        fs::rename(&copy, database.file()).expect("renamed");
    })
    .await;
    assert_eq!(read(&at(&database.file()), &reader("c", "t"), 1_000).await.len(), 301);
}

#[tokio::test]
async fn what_went_into_a_removed_file_is_not_stored() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("hookline.db");
    // No health check comes in between: the commit itself has to notice.
    let pool = open(PoolOptions {
        health_check_interval: LONG,
        ..options(file.clone())
    });
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
    mailbox.expect(1).await;
    for (round, removed) in [&["", "-wal", "-shm"][..], &[""], &["-wal"]].into_iter().enumerate() {
        for suffix in removed {
            fs::remove_file(format!("{}{suffix}", file.display())).expect("removed");
        }
        let n = round as u64 + 2;
        pool.batcher().gate(saves(&mailbox, n, n, LONG));
        mailbox.expect(n as usize).await;
        // Read from another process's point of view.
        let copy = dir.path().join(format!("copy{round}"));
        for suffix in ["", "-wal"] {
            fs::copy(
                format!("{}{suffix}", file.display()),
                format!("{}{suffix}", copy.display()),
            )
            .expect("copied");
        }
        let found = read(&at(&copy), &reader("c", "t"), 10).await;
        assert!(found.contains(&message(n, "t")), "{removed:?} removed: {found:?}");
    }
}

#[tokio::test]
async fn a_read_does_not_come_from_a_file_that_was_replaced() {
    let old = Database::sqlite().await;
    let new = Database::sqlite().await;
    write(old.store(), [save(1, "t")]).await;
    write(new.store(), [save(2, "t")]).await;
    new.store().close().await;
    assert_eq!(read(old.store(), &reader("c", "t"), 10).await, [message(1, "t")]);
    let moved = old.file().with_extension("moved");
    fs::rename(old.file(), &moved).expect("moved");
    fs::rename(new.file(), old.file()).expect("replaced");
    assert_eq!(read(old.store(), &reader("c", "t"), 10).await, [message(2, "t")]);
    // And what was stored went with the file.
    assert_eq!(read(&at(&moved), &reader("c", "t"), 10).await, [message(1, "t")]);
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_alone() {
    let database = Database::sqlite().await;
    database.store().close().await;
    let mut other = SqliteConnectOptions::new()
        .filename(database.file())
        .connect()
        .await
        .expect("opens");
    other.execute("PRAGMA user_version = 99").await.expect("set");
    other.close().await.expect("closed");
    let error = database.store().ping().await.expect_err("too new");
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(
        error
            .chain()
            .ends_with("its schema has version 99, this program knows 4: start a newer one")
    );
}

#[tokio::test]
async fn a_file_of_an_older_program_is_brought_up_with_what_it_holds() {
    let database = Database::sqlite().await;
    database.store().close().await;
    let mut older = SqliteConnectOptions::new()
        .filename(database.file())
        .connect()
        .await
        .expect("opens");
    let version_2 = "DROP TABLE mqtt_session_qos2;
        CREATE TABLE mqtt_session_qos2 (
          id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, direction INTEGER NOT NULL,
          packetid INTEGER NOT NULL, msgid TEXT NOT NULL, released INTEGER NOT NULL,
          created INTEGER DEFAULT (unixepoch()),
          UNIQUE (clientid, direction, msgid));
        INSERT INTO mqtt_session_qos2 (clientid, direction, packetid, msgid, released)
          VALUES ('c', 1, 7, 'A', 1), ('c', 0, 8, 'B', 0);
        ALTER TABLE mqtt_session_sub DROP COLUMN owes_retained;
        PRAGMA user_version = 2";
    older.execute(version_2).await.expect("as it was");
    older.close().await.expect("closed");
    let exchanges = "SELECT clientid, direction, packetid, msgid, released FROM mqtt_session_qos2 ORDER BY id";
    let opened = at(&database.file());
    assert_eq!(rows(&opened, exchanges).await, "c|1|7|A|1,c|0|8|B|0");
}

#[tokio::test]
async fn without_our_schema_nothing_is_refused_until_the_operator_has_made_the_tables() {
    let made = Database::sqlite().await;
    made.store().close().await;
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("hookline.db");
    fs::write(&file, b"").expect("an empty database");
    let pool = open(PoolOptions {
        init_schema: InitSchema::Off,
        ..options(file.clone())
    });
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
    let error = pool.facts().await.expect_err("no tables");
    assert!(error.chain().contains("no such table"), "{}", error.chain());
    assert!(mailbox.results().is_empty());
    fs::copy(made.file(), dir.path().join("made")).expect("copied");
    fs::rename(dir.path().join("made"), &file).expect("renamed");
    assert_eq!(mailbox.expect(1).await, [Settled::Stored]);
}

#[tokio::test]
async fn only_backends_that_exist_can_be_opened() {
    let pools = Pools::new(CancellationToken::new());
    let error = pools
        .open(PoolName::new("oracle", "pool1"), PoolOptions::default())
        .err()
        .expect("unknown");
    assert_eq!(
        error.to_string(),
        "oracle.pool1: there is no store for the backend `oracle` yet (try sqlite)"
    );
}

#[allow(clippy::print_stderr, reason = "a test that was not run says so by name")]
fn skipped(test: &str, why: &str) {
    eprintln!("skipped {test}: {why}");
}

/// A small disk of its own, where we may mount one; it goes when this is dropped.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn mount(test: &str, size: &str) -> Option<Self> {
        let dir = TempDir::new().expect("a folder");
        let option = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
            .arg(dir.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { dir });
        }
        skipped(test, "mounting a tmpfs needs root");
        None
    }

    fn remount(&self, how: &str) {
        let how = format!("remount,{how}");
        let status = Command::new("mount")
            .args(["-o", &how])
            .arg(self.dir.path())
            .status()
            .expect("mount runs");
        assert!(status.success(), "{how}");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("hookline.db")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_keeps_gates_open() {
    let Some(disk) = Disk::mount("a_full_disk_keeps_gates_open", "1m") else {
        return;
    };
    let pool = open(options(disk.file()));
    let mailbox = Arc::new(Mailbox::default());
    pool.batcher().gate(saves(&mailbox, 1, 1, LONG));
    mailbox.expect(1).await;
    let ballast = disk.dir.path().join("ballast");
    // Until not a byte is free.
    assert!(fs::write(&ballast, vec![1; 2 << 20]).is_err());
    gate_stays_open_until(&pool, 2, async {
        fs::remove_file(&ballast).expect("removed");
    })
    .await;
    assert_eq!(read(&at(&disk.file()), &reader("c", "t"), 10).await.len(), 2);
    pool.close(LONG).await;
}

#[tokio::test]
async fn a_read_only_disk_keeps_gates_open() {
    let Some(disk) = Disk::mount("a_read_only_disk_keeps_gates_open", "4m") else {
        return;
    };
    let store = at(&disk.file());
    store.ping().await.expect("made");
    // A disk with a file that is open for writing cannot be made read-only.
    store.close().await;
    disk.remount("ro");
    let pool = open(options(disk.file()));
    gate_stays_open_until(&pool, 1, async { disk.remount("rw") }).await;
    assert_eq!(read(&at(&disk.file()), &reader("c", "t"), 10).await, [message(1, "t")]);
    pool.close(LONG).await;
}

#[tokio::test]
async fn a_read_only_file_keeps_gates_open() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        skipped("a_read_only_file_keeps_gates_open", "root may write everywhere");
        return;
    }
    let database = Database::sqlite().await;
    database.store().close().await;
    let permit = |mode| fs::set_permissions(database.file(), fs::Permissions::from_mode(mode)).expect("set");
    permit(0o444);
    let pool = open(database.options());
    gate_stays_open_until(&pool, 1, async { permit(0o644) }).await;
    assert_eq!(read(database.store(), &reader("c", "t"), 10).await, [message(1, "t")]);
}

#[tokio::test]
async fn what_was_committed_is_there_after_it_was_opened_again() {
    let database = Database::sqlite().await;
    write(database.store(), [save(1, "t"), Write::Retain(message(2, "r"))]).await;
    database.store().close().await;
    // The first call opens it again.
    assert_eq!(read(database.store(), &reader("c", "t"), 10).await, [message(1, "t")]);
    let facts = database.store().facts().await.expect("facts");
    let fact = |name: &str| facts[name].as_str();
    assert_eq!(
        (fact("survives"), fact("journal"), fact("schema")),
        ("loss of power", "wal", "4")
    );
    assert_eq!(
        (fact("newest_id"), fact("retained"), fact("messages_to_a_million")),
        ("1", "1", "1")
    );
}
