//! SQLite through sqlx: one connection that writes, some that read, all opened and closed together. A file that
//! was missing, locked, damaged or replaced is opened again by whoever needs it next.

mod answer;
mod check;
mod file;
mod schema;
mod settings;
mod tools;
mod transaction;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::RwLock;
use sqlx::sqlite::SqlitePool;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use self::answer::{BUSY, FULL, LOCKED, READONLY, away, code, fault, query, run};
use self::file::{Identity, beside};
use self::settings::Settings;
use self::tools::Tool;
use self::transaction::Batch;
use super::dialect::{Change, Dialect};
use super::{Driver, Fault, Nature, Sql, Transaction};
use crate::model::value::{Rows, Value};
use crate::store::options::PoolOptions;
use crate::store::upkeep::{Copied, Status, Watch};

pub use self::check::check_file;

/// SQLite's way with words.
pub(super) static DIALECT: Dialect = Dialect {
    placeholder: |_| "?".into(),
    keep_first: "INSERT OR IGNORE",
    keep_first_answer: "RETURNING id, msgid",
    upsert: |key, changes, guard| {
        let set = |change: &Change| format!("{} = {}", change.column, change.to);
        let set: Vec<String> = changes.iter().map(set).collect();
        let guard = guard.map(|guard| format!(" WHERE {guard}")).unwrap_or_default();
        format!("ON CONFLICT ({key}) DO UPDATE SET {}{guard}", set.join(", "))
    },
    incoming: |column| format!("excluded.{column}"),
    larger: "max",
    newest: "SELECT seq FROM sqlite_sequence WHERE name = 'mqtt_msg'",
};

type Outcome<T> = std::result::Result<T, Fault>;

/// A SQLite database.
pub struct Sqlite {
    settings: Settings,
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<Writer>>>,
}

/// What readers and the writer know of each other.
#[derive(Default)]
struct Shared {
    readers: RwLock<Option<Readers>>,
    /// Something is wrong with the open file: close it before it is used again.
    suspect: AtomicBool,
    /// The file that was opened last.
    last: RwLock<Option<Identity>>,
}

#[derive(Clone)]
struct Readers {
    pool: SqlitePool,
    file: Identity,
}

struct Writer {
    connection: SqliteConnection,
    file: Identity,
    /// A transaction may be open that nobody will end, because its future was dropped.
    dirty: bool,
}

impl Sqlite {
    /// The database of this pool; opens nothing.
    pub fn new(options: &PoolOptions) -> Self {
        Self {
            settings: Settings::new(options),
            shared: Arc::default(),
            writer: Arc::default(),
        }
    }

    /// The connection that writes, for one user; opens the file where it is not open or not to be trusted.
    async fn writer(&self) -> Outcome<OwnedMutexGuard<Option<Writer>>> {
        let mut writer = self.writer.clone().lock_owned().await;
        if self.shared.suspect.load(Ordering::Acquire) {
            self.shared.shut(&mut writer).await;
        }
        match &mut *writer {
            None => *writer = Some(self.open().await?),
            Some(writer) if writer.dirty => {
                // Refused where nothing is open.
                let _ = run(&mut writer.connection, &"ROLLBACK".into(), Vec::new()).await;
                writer.dirty = false;
            }
            Some(_) => {}
        }
        Ok(writer)
    }

    async fn open(&self) -> Outcome<Writer> {
        let Settings {
            file, connect_timeout, ..
        } = &self.settings;
        let last = self.shared.last.read().clone();
        if let Some(last) = last {
            last.set_stale_log_aside().map_err(away)?;
        }
        let open = async {
            let before = Identity::of(file).ok();
            let mut connection = self.settings.writer().connect().await.map_err(fault)?;
            schema::bring_up(&mut connection, self.settings.init_schema).await?;
            let file = Identity::of(file).map_err(away)?;
            if before.is_some_and(|before| before.database != file.database) {
                return Err(away("the file was replaced while it was opened"));
            }
            Ok(Writer {
                connection,
                file,
                dirty: false,
            })
        };
        let opened = timeout(*connect_timeout, open).await;
        let writer = opened.unwrap_or_else(|_| Err(away(format!("not open after {connect_timeout:?}"))));
        let writer = writer.map_err(|fault| fault.at(file))?;
        let readers = Readers {
            pool: self.settings.readers(),
            file: writer.file.clone(),
        };
        *self.shared.last.write() = Some(writer.file.clone());
        *self.shared.readers.write() = Some(readers);
        Ok(writer)
    }

    /// The connections that read, if the file that they have open is still the one at its path.
    fn readers(&self) -> Option<SqlitePool> {
        if self.shared.suspect.load(Ordering::Acquire) {
            return None;
        }
        let readers = self.shared.readers.read().clone()?;
        if readers.file.is_current() {
            return Some(readers.pool);
        }
        self.shared.suspect.store(true, Ordering::Release);
        None
    }

    async fn reader(&self) -> Outcome<SqlitePool> {
        if let Some(readers) = self.readers() {
            return Ok(readers);
        }
        drop(self.writer().await?);
        self.readers().ok_or_else(|| away("the file is being opened again"))
    }
}

impl Shared {
    /// Closes everything. A file is never opened while an old one of that name is: they would share a log.
    async fn shut(&self, writer: &mut Option<Writer>) {
        let readers = self.readers.write().take();
        if let Some(readers) = readers {
            readers.pool.close().await;
        }
        if let Some(mut writer) = writer.take() {
            if !writer.file.is_current() {
                // SQLite leaves the log of a file that was moved as it is. Bring it home, so that the file is
                // whole wherever it is now. Where that fails, the log is set aside before another file is opened.
                let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)".into();
                let _ = run(&mut writer.connection, &checkpoint, Vec::new()).await;
            }
            // It is gone either way.
            let _ = writer.connection.close().await;
        }
        self.suspect.store(false, Ordering::Release);
    }

    /// Remembers a failure after which the file has to be opened again.
    fn weigh(&self, fault: Fault) -> Fault {
        if fault.nature == Nature::Away && !matches!(code(&fault), Some(BUSY | LOCKED | FULL)) {
            self.suspect.store(true, Ordering::Release);
        }
        fault
    }
}

#[async_trait]
impl Driver for Sqlite {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    async fn query(&self, sql: &Sql, params: Vec<Value>) -> Outcome<Rows> {
        let readers = self.reader().await?;
        let mut connection = readers.acquire().await.map_err(fault)?;
        let answer = query(&mut connection, sql, params.clone()).await;
        match answer {
            Err(fault) if code(&fault) == Some(READONLY) => {
                // It writes, so it is done where writing is.
                drop(connection);
                let mut transaction = self.begin().await?;
                let rows = transaction.query(sql, params).await?;
                transaction.commit().await?;
                Ok(rows)
            }
            answer => answer.map_err(|fault| self.shared.weigh(fault).at(&self.settings.file)),
        }
    }

    async fn begin(&self) -> Outcome<Box<dyn Transaction>> {
        let mut guard = self.writer().await?;
        let Some(writer) = guard.as_mut() else {
            return Err(away("not open"));
        };
        writer.dirty = true;
        // At once: a transaction that only later wants to write can meet one that wrote in between.
        let begun = run(&mut writer.connection, &"BEGIN IMMEDIATE".into(), Vec::new()).await;
        if let Err(fault) = begun {
            writer.dirty = false;
            return Err(self.shared.weigh(fault).at(&self.settings.file));
        }
        Ok(Box::new(Batch {
            guard,
            shared: self.shared.clone(),
            file: self.settings.file.clone(),
        }))
    }

    async fn ping(&self) -> Outcome<()> {
        if self.readers().is_some() && self.writer.try_lock().is_err() {
            // A commit is under way: the writer will tell. Whoever reads wants to know, too.
            let sql = "SELECT count(*) FROM sqlite_master".into();
            return self.query(&sql, Vec::new()).await.map(|_| ());
        }
        self.begin().await?.rollback().await;
        Ok(())
    }

    async fn facts(&self) -> Outcome<BTreeMap<String, String>> {
        let readers = self.reader().await?;
        let mut connection = readers.acquire().await.map_err(fault)?;
        let mut facts = BTreeMap::from([
            ("file".to_owned(), self.settings.file.display().to_string()),
            ("survives".to_owned(), "loss of power".to_owned()),
        ]);
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len()).to_string();
        facts.insert("file_bytes".into(), size(&self.settings.file));
        facts.insert("log_bytes".into(), size(&beside(&self.settings.file, "-wal")));
        for (name, sql) in [
            ("schema", "PRAGMA user_version"),
            ("journal", "PRAGMA journal_mode"),
            (
                "newest_id",
                "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mqtt_msg'",
            ),
            ("retained", "SELECT count(*) FROM mqtt_retain"),
            // Counting costs a look at every row: a million is enough to know.
            (
                "messages_to_a_million",
                "SELECT count(*) FROM (SELECT 1 FROM mqtt_msg LIMIT 1000000)",
            ),
        ] {
            let rows = query(&mut connection, &sql.into(), Vec::new()).await?;
            let text = match rows.rows.first().and_then(|row| row.first()) {
                Some(Value::Int(number)) => number.to_string(),
                Some(Value::Text(text)) => text.clone(),
                _ => continue,
            };
            facts.insert(name.into(), text);
        }
        Ok(facts)
    }

    async fn used_bytes(&self) -> Outcome<u64> {
        let mut connection = self.reader().await?.acquire().await.map_err(fault)?;
        let bytes = tools::used_bytes(&mut connection).await;
        bytes.map_err(|fault| self.shared.weigh(fault).at(&self.settings.file))
    }

    async fn status(&self) -> Outcome<Status> {
        let mut connection = self.reader().await?.acquire().await.map_err(fault)?;
        let status = tools::status(&mut connection, &self.settings.file).await;
        status.map_err(|fault| self.shared.weigh(fault).at(&self.settings.file))
    }

    async fn check(&self, full: bool, watch: &Arc<Watch>) -> Outcome<Vec<String>> {
        self.reader().await?;
        let mut tool = Tool::open(self.settings.tool().read_only(true), watch).await?;
        let found = check::check(&mut tool, full, watch).await;
        tool.close().await;
        found.map_err(|fault| fault.at(&self.settings.file))
    }

    async fn copy(&self, to: &Path, watch: &Arc<Watch>) -> Outcome<Copied> {
        // Opens the file where it is not open, so that what is copied is what is in use.
        self.reader().await?;
        let mut tool = Tool::open(self.settings.tool(), watch).await?;
        let copied = tools::copy(&mut tool, to, watch).await;
        tool.close().await;
        copied
    }

    fn files(&self) -> Vec<PathBuf> {
        let file = &self.settings.file;
        vec![file.clone(), beside(file, "-wal"), beside(file, "-shm")]
    }

    async fn close(&self) {
        let mut writer = self.writer.clone().lock_owned().await;
        self.shared.shut(&mut writer).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::IdFormat;
    use crate::store::sql::statements::Statements;

    async fn database() -> (tempfile::TempDir, Sqlite) {
        let dir = tempfile::TempDir::new().expect("a folder");
        let options = PoolOptions {
            file: dir.path().join("hookline.db"),
            ..PoolOptions::default()
        };
        (dir, Sqlite::new(&options))
    }

    #[tokio::test]
    async fn a_commit_is_synced_to_the_log() {
        let (_dir, sqlite) = database().await;
        let mut transaction = sqlite.begin().await.expect("opens");
        for (pragma, expected) in [
            ("PRAGMA journal_mode", Value::from("wal")),
            ("PRAGMA synchronous", Value::Int(2)),
        ] {
            let rows = transaction.query(&pragma.into(), Vec::new()).await.expect("an answer");
            assert_eq!(rows.rows, [[expected]]);
        }
    }

    #[tokio::test]
    async fn a_page_never_scans_the_table() {
        let (_dir, sqlite) = database().await;
        let sql = Statements::new(&DIALECT, IdFormat::Base62);
        for (reads, topic_index) in [
            (&sql.messages, "INDEX mqtt_msg_topic_idx (topic"),
            (&sql.retained, "INDEX sqlite_autoindex_mqtt_retain_1 (topic"),
        ] {
            for (statement, expected) in [
                (&reads.reach_topic, topic_index),
                (&reads.reach, "INTEGER PRIMARY KEY (rowid>?)"),
                (&reads.topic, topic_index),
                (&reads.count_range, topic_index),
                (&reads.range, topic_index),
                (&reads.ids, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
                (&reads.ids_in_range, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
                (reads.messages.single(), "INTEGER PRIMARY KEY (rowid=?)"),
            ] {
                let explain: Sql = format!("EXPLAIN QUERY PLAN {statement}").into();
                let plan = sqlite.query(&explain, Vec::new()).await.expect("a plan");
                let plan = format!("{:?}", plan.rows);
                assert!(plan.contains(expected), "{statement}: {plan}");
            }
        }
    }

    #[tokio::test]
    async fn a_transaction_that_was_dropped_has_done_nothing() {
        let (_dir, sqlite) = database().await;
        let insert: Sql = "INSERT INTO mqtt_sub (clientid, topic) VALUES ('c', 't')".into();
        let mut dropped = sqlite.begin().await.expect("opens");
        dropped.run(&insert, Vec::new()).await.expect("inserted");
        drop(dropped);
        sqlite.begin().await.expect("begins").commit().await.expect("commits");
        let rows = sqlite
            .query(&"SELECT * FROM mqtt_sub".into(), Vec::new())
            .await
            .expect("rows");
        assert_eq!(rows.rows.len(), 0);
    }
}
