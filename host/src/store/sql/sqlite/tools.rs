//! What an operator asks of a file: how it is, and a copy of it. Long work has a connection of its own, which only
//! reads, and stops where it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::{MissedTickBehavior, interval};

use super::Outcome;
use super::answer::{away, fault, query};
use super::file::beside;
use crate::model::value::Value;
use crate::store::upkeep::{COUNTED_MAX, Copied, Stamp, Status, Watch};

/// How often a copy is asked how far it has come.
const GLANCE: Duration = Duration::from_millis(200);
/// Instructions of the engine between two looks at whether to go on.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Rows that one statement of a check reads.
const PAGE: i64 = 5_000;

/// A connection for long work.
pub(super) struct Tool(SqliteConnection);

impl Tool {
    /// Opens a file that is there; creates and changes nothing, and ends when `watch` says so.
    pub(super) async fn open(options: SqliteConnectOptions, watch: &Arc<Watch>) -> Outcome<Self> {
        let options = options.create_if_missing(false).disable_statement_logging();
        let mut connection = options.connect().await.map_err(fault)?;
        let watch = Arc::clone(watch);
        let mut handle = connection.lock_handle().await.map_err(fault)?;
        handle.set_progress_handler(STEPS_BETWEEN_LOOKS, move || !watch.is_stopped());
        drop(handle);
        Ok(Self(connection))
    }

    pub(super) async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Outcome<Vec<Vec<Value>>> {
        Ok(query(&mut self.0, &sql.into(), params).await?.rows)
    }

    pub(super) async fn number(&mut self, sql: &str) -> Outcome<u64> {
        number(&mut self.0, sql).await
    }

    /// Tells `each` the id and these columns of every row of a table, reading a page at a time.
    pub(super) async fn each_row(
        &mut self,
        table: &str,
        columns: &str,
        mut each: impl FnMut(i64, &[Value]),
    ) -> Outcome<()> {
        let page = format!("SELECT id, {columns} FROM {table} WHERE id > ? ORDER BY id LIMIT ? + 0");
        let mut after = 0;
        loop {
            let rows = self.rows(&page, vec![Value::Int(after), Value::Int(PAGE)]).await?;
            let before = after;
            for row in &rows {
                if let [Value::Int(id), columns @ ..] = row.as_slice() {
                    after = *id;
                    each(*id, columns);
                }
            }
            if rows.len() < PAGE as usize || after == before {
                return Ok(());
            }
        }
    }

    /// Closes it.
    pub(super) async fn close(self) {
        // It has only read.
        let _ = self.0.close().await;
    }
}

async fn number(connection: &mut SqliteConnection, sql: &str) -> Outcome<u64> {
    let rows = query(connection, &sql.into(), Vec::new()).await?.rows;
    Ok(match rows.first().and_then(|row| row.first()) {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
        _ => 0,
    })
}

/// Bytes of the pages in use: what is free within the file is used again before it grows.
pub(super) async fn used_bytes(connection: &mut SqliteConnection) -> Outcome<u64> {
    let pages = number(connection, "PRAGMA page_count").await?;
    let free = number(connection, "PRAGMA freelist_count").await?;
    Ok(pages.saturating_sub(free) * number(connection, "PRAGMA page_size").await?)
}

/// How the file is.
pub(super) async fn status(connection: &mut SqliteConnection, file: &Path) -> Outcome<Status> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    let tables =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'mqtt\\_%' ESCAPE '\\' ORDER BY name";
    let mut rows = BTreeMap::new();
    for row in query(connection, &tables.into(), Vec::new()).await?.rows {
        if let Some(Value::Text(table)) = row.into_iter().next() {
            let quoted = table.replace('"', "\"\"");
            let count = format!("SELECT count(*) FROM (SELECT 1 FROM \"{quoted}\" LIMIT {COUNTED_MAX})");
            rows.insert(table, number(connection, &count).await?);
        }
    }
    let smallest = "SELECT min(coalesce(mid, 0)) FROM mqtt_acked".into();
    let horizon = query(connection, &smallest, Vec::new()).await?;
    let horizon = match horizon.rows.first().and_then(|row| row.first()) {
        Some(Value::Int(mid)) => u64::try_from(*mid).ok(),
        _ => None,
    };
    Ok(Status {
        file: file.display().to_string(),
        file_bytes: size(file),
        log_bytes: size(&beside(file, "-wal")),
        free_bytes: number(connection, "PRAGMA freelist_count").await? * number(connection, "PRAGMA page_size").await?,
        schema: number(connection, "PRAGMA user_version").await? as i64,
        survives: "loss of power".to_owned(),
        rows,
        oldest: stamp(connection, "SELECT id, arrived FROM mqtt_msg ORDER BY id LIMIT 1").await?,
        newest: stamp(connection, "SELECT id, arrived FROM mqtt_msg ORDER BY id DESC LIMIT 1").await?,
        newest_id: number(connection, NEWEST).await?,
        horizon,
    })
}

/// The newest id that was ever given to a message.
pub(super) const NEWEST: &str = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mqtt_msg'";

async fn stamp(connection: &mut SqliteConnection, sql: &str) -> Outcome<Option<Stamp>> {
    let rows = query(connection, &sql.into(), Vec::new()).await?.rows;
    Ok(match rows.first().map(Vec::as_slice) {
        Some([Value::Int(id), Value::Int(arrived)]) => Some(Stamp {
            id: u64::try_from(*id).unwrap_or(0),
            arrived_s: *arrived,
        }),
        _ => None,
    })
}

/// Copies what is committed by now, without the free pages, and reads the copy.
pub(super) async fn copy(tool: &mut Tool, to: &Path, watch: &Arc<Watch>) -> Outcome<Copied> {
    let of = used_bytes(&mut tool.0).await?;
    let Some(target) = to.to_str() else {
        return Err(away(format!("{}: SQLite needs a name that is UTF-8", to.display())));
    };
    let size = || fs::metadata(to).map_or(0, |file| file.len());
    let mut glances = interval(GLANCE);
    glances.set_missed_tick_behavior(MissedTickBehavior::Delay);
    {
        let vacuum = tool.rows("VACUUM INTO ?", vec![target.into()]);
        let mut vacuum = std::pin::pin!(vacuum);
        loop {
            tokio::select! {
                done = &mut vacuum => {
                    done?;
                    break;
                }
                _ = glances.tick() => watch.tell(size(), of),
            }
        }
    }
    watch.tell(size(), of);
    let mut copied = Tool::open(SqliteConnectOptions::new().filename(to).read_only(true), watch).await?;
    let whole = copied.rows("PRAGMA quick_check(1)", Vec::new()).await?;
    if whole != [[Value::from("ok")]] {
        return Err(away(format!("the copy is damaged: {whole:?}")));
    }
    let newest_id = copied.number(NEWEST).await?;
    copied.close().await;
    Ok(Copied {
        bytes: size(),
        newest_id,
    })
}
