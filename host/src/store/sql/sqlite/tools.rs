//! What an operator asks of a file: how it is, whether it is whole, a copy of it. Long work has a connection of its
//! own, which only reads, and stops where it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::time::{MissedTickBehavior, interval};

use super::answer::{away, fault, query};
use super::file::beside;
use super::{Outcome, schema};
use crate::model::id::MessageId;
use crate::model::topic::{Filter, Topic};
use crate::model::value::Value;
use crate::store::upkeep::{COUNTED_MAX, Copied, Stamp, Status, Watch};

/// How often a copy is asked how far it has come.
const GLANCE: Duration = Duration::from_millis(200);
/// Instructions of the engine between two looks at whether to go on.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Rows that one statement of a check reads.
const PAGE: i64 = 5_000;
/// Sentences of a check; what is wrong a thousand times is wrong for one reason.
const FINDINGS_MAX: usize = 20;

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

    async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Outcome<Vec<Vec<Value>>> {
        Ok(query(&mut self.0, &sql.into(), params).await?.rows)
    }

    async fn number(&mut self, sql: &str) -> Outcome<u64> {
        number(&mut self.0, sql).await
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

const NEWEST: &str = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'mqtt_msg'";

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

/// Sentences, as many as are worth reading.
#[derive(Default)]
struct Findings {
    sentences: Vec<String>,
    more: usize,
}

impl Findings {
    fn add(&mut self, sentence: String) {
        match self.sentences.len() < FINDINGS_MAX {
            true => self.sentences.push(sentence),
            false => self.more += 1,
        }
    }

    fn into_sentences(mut self) -> Vec<String> {
        if self.more > 0 {
            self.sentences.push(format!("and {} more like these", self.more));
        }
        self.sentences
    }
}

/// What is wrong with a file: first the engine's own look at its pages, then ours at what the rows say.
pub(super) async fn check(tool: &mut Tool, full: bool, watch: &Watch) -> Outcome<Vec<String>> {
    let mut found = Findings::default();
    let pragma = match full {
        true => "PRAGMA integrity_check(20)",
        false => "PRAGMA quick_check(20)",
    };
    for row in tool.rows(pragma, Vec::new()).await? {
        match row.into_iter().next() {
            Some(Value::Text(text)) if text == "ok" => {}
            Some(Value::Text(text)) => found.add(text),
            _ => found.add(format!("{pragma} answered no text")),
        }
    }
    if !found.sentences.is_empty() {
        // What a damaged file says about its rows means nothing.
        return Ok(found.into_sentences());
    }
    let missing = schema::missing(tool.number("PRAGMA user_version").await?);
    if let Some(sentence) = missing {
        found.add(sentence);
        return Ok(found.into_sentences());
    }
    check_positions(tool, &mut found).await?;
    check_messages(tool, &mut found, watch).await?;
    check_retained(tool, &mut found).await?;
    Ok(found.into_sentences())
}

async fn check_positions(tool: &mut Tool, found: &mut Findings) -> Outcome<()> {
    let newest = tool.number(NEWEST).await?;
    let largest = tool.number("SELECT coalesce(max(id), 0) FROM mqtt_msg").await?;
    if largest > newest {
        found.add(format!(
            "sqlite_sequence says {newest} and mqtt_msg has row {largest}: ids would be given out twice"
        ));
    }
    let beyond = "SELECT clientid, topic, mid FROM mqtt_acked WHERE mid > ? ORDER BY id LIMIT 21";
    let newest = newest.max(largest);
    for row in tool.rows(beyond, vec![Value::Int(newest as i64)]).await? {
        if let Ok([Value::Text(client), Value::Text(topic), Value::Int(mid)]) = <[Value; 3]>::try_from(row) {
            found.add(format!(
                "mqtt_acked: {client:?} has read {topic:?} up to {mid}, beyond the newest message {newest}: \
                 it would miss what comes next"
            ));
        }
    }
    let mut after = 0;
    loop {
        let page = "SELECT id, clientid, topic FROM mqtt_acked WHERE id > ? ORDER BY id LIMIT ? + 0";
        let rows = tool.rows(page, vec![Value::Int(after), Value::Int(PAGE)]).await?;
        let last = rows.len() < PAGE as usize;
        for row in rows {
            let Ok([Value::Int(id), client, topic]) = <[Value; 3]>::try_from(row) else {
                continue;
            };
            after = id;
            let readable = matches!(&topic, Value::Text(text) if Filter::new(text.clone()).is_ok());
            if !readable {
                found.add(format!(
                    "mqtt_acked: row {id} of {client:?} names {topic:?}, which is no topic filter"
                ));
            }
        }
        if last {
            return Ok(());
        }
    }
}

async fn check_messages(tool: &mut Tool, found: &mut Findings, watch: &Watch) -> Outcome<()> {
    let of = tool
        .number("SELECT coalesce(max(id) - min(id) + 1, 0) FROM mqtt_msg")
        .await?;
    let first = tool.number("SELECT coalesce(min(id), 0) FROM mqtt_msg").await?;
    let mut after = 0;
    loop {
        let page = "SELECT id, msgid, topic, qos FROM mqtt_msg WHERE id > ? ORDER BY id LIMIT ? + 0";
        let rows = tool.rows(page, vec![Value::Int(after), Value::Int(PAGE)]).await?;
        let last = rows.len() < PAGE as usize;
        for row in rows {
            let Ok([Value::Int(id), msgid, topic, qos]) = <[Value; 4]>::try_from(row) else {
                found.add("mqtt_msg: a row without a whole number as its id".to_owned());
                continue;
            };
            after = id;
            if let Some(wrong) = wrong_message(&msgid, &topic, &qos) {
                found.add(format!("mqtt_msg: row {id}: {wrong}: nobody can read it"));
            }
        }
        watch.tell((after as u64 + 1).saturating_sub(first).min(of), of);
        if last {
            return Ok(());
        }
    }
}

async fn check_retained(tool: &mut Tool, found: &mut Findings) -> Outcome<()> {
    let mut after = 0;
    loop {
        let page = "SELECT id, msgid, topic, qos FROM mqtt_retain WHERE id > ? ORDER BY id LIMIT ? + 0";
        let rows = tool.rows(page, vec![Value::Int(after), Value::Int(PAGE)]).await?;
        let last = rows.len() < PAGE as usize;
        for row in rows {
            let Ok([Value::Int(id), msgid, topic, qos]) = <[Value; 4]>::try_from(row) else {
                continue;
            };
            after = id;
            if let Some(wrong) = wrong_message(&msgid, &topic, &qos) {
                found.add(format!("mqtt_retain: row {id}: {wrong}: nobody can read it"));
            }
        }
        if last {
            return Ok(());
        }
    }
}

/// Why a row is no message.
fn wrong_message(msgid: &Value, topic: &Value, qos: &Value) -> Option<String> {
    match msgid {
        Value::Text(text) if MessageId::parse(text).is_some() => {}
        other => return Some(format!("msgid is {other:?}, which is no message id")),
    }
    match topic {
        Value::Text(text) if Topic::new(text.clone()).is_ok() => {}
        other => return Some(format!("topic is {other:?}, which is no topic name")),
    }
    match qos {
        Value::Int(0..=2) | Value::Null => None,
        other => Some(format!("qos is {other:?}, which is not 0, 1 or 2")),
    }
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

/// What is wrong with a file that no host has open. Creates nothing, not even a log's index, unless a crash left a
/// log: that has to be read, too.
///
/// # Errors
/// When it cannot be opened or read.
pub async fn check_file(file: &Path, full: bool) -> Result<Vec<String>, String> {
    let watch = Arc::new(Watch::default());
    let log = fs::metadata(beside(file, "-wal")).is_ok_and(|log| log.len() > 0);
    let options = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .immutable(!log);
    let checked = async {
        let mut tool = Tool::open(options, &watch).await?;
        let found = check(&mut tool, full, &watch).await;
        tool.close().await;
        found
    };
    checked
        .await
        .map_err(|fault: super::Fault| format!("{}: {}", file.display(), fault.source))
}
