//! Whether a file is whole: what the engine says of its pages, and what its rows say to us.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sqlx::sqlite::SqliteConnectOptions;

use super::file::beside;
use super::tools::{NEWEST, Tool};
use super::{Outcome, schema};
use crate::model::id::MessageId;
use crate::model::topic::{Filter, Topic};
use crate::model::value::Value;
use crate::store::upkeep::Watch;

/// Sentences of a check; what is wrong a thousand times is wrong for one reason.
const FINDINGS_MAX: usize = 20;

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
        .map_err(|fault: crate::store::sql::Fault| format!("{}: {}", file.display(), fault.source))
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
    check_sessions(tool, &mut found).await?;
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
    let is_filter = |topic: &str| Filter::new(topic.to_owned()).is_ok();
    check_filters(tool, found, "mqtt_acked", is_filter).await
}

/// Every `topic` of a table of clients' rows has to be a filter.
async fn check_filters(
    tool: &mut Tool,
    found: &mut Findings,
    table: &str,
    is_filter: impl Fn(&str) -> bool,
) -> Outcome<()> {
    let check = |id, columns: &[Value]| {
        let [client, topic] = columns else { return };
        if !matches!(topic, Value::Text(text) if is_filter(text)) {
            let (client, topic) = (shown(client), shown(topic));
            found.add(format!(
                "{table}: row {id} of {client} names {topic}, which is no topic filter"
            ));
        }
    };
    tool.each_row(table, "clientid, topic", check).await
}

async fn check_messages(tool: &mut Tool, found: &mut Findings, watch: &Watch) -> Outcome<()> {
    let first = tool.number("SELECT coalesce(min(id), 0) FROM mqtt_msg").await?;
    let last = tool.number("SELECT coalesce(max(id), 0) FROM mqtt_msg").await?;
    for table in ["mqtt_msg", "mqtt_retain"] {
        let check = |id: i64, columns: &[Value]| {
            let [msgid, topic, qos] = columns else { return };
            if let Some(wrong) = wrong_message(msgid, topic, qos) {
                found.add(format!("{table}: row {id}: {wrong}: nobody can read it"));
            }
            if table == "mqtt_msg" {
                let done = u64::try_from(id).unwrap_or(0).saturating_sub(first);
                watch.tell(done + 1, last.saturating_sub(first) + 1);
            }
        };
        tool.each_row(table, "msgid, topic, qos", check).await?;
    }
    Ok(())
}

/// Kept sessions: what belongs to one that is not there, and subscriptions that are none.
async fn check_sessions(tool: &mut Tool, found: &mut Findings) -> Outcome<()> {
    let tables =
        "SELECT count(*) FROM sqlite_master WHERE name IN ('mqtt_session', 'mqtt_session_sub', 'mqtt_session_qos2')";
    if tool.number(tables).await? < 3 {
        return Ok(()); // of an older version, or kept by an operator who keeps no sessions
    }
    for table in ["mqtt_session_sub", "mqtt_session_qos2"] {
        let orphans = format!(
            "SELECT DISTINCT clientid FROM {table} WHERE clientid NOT IN (SELECT clientid FROM mqtt_session) LIMIT 21"
        );
        for row in tool.rows(&orphans, Vec::new()).await? {
            found.add(format!(
                "{table}: rows of {}, which has no row in mqtt_session",
                shown(row.first().unwrap_or(&Value::Null))
            ));
        }
    }
    let is_filter = |topic: &str| Filter::parse_subscription(topic).is_ok();
    check_filters(tool, found, "mqtt_session_sub", is_filter).await
}

/// As an operator writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// Why a row is no message.
fn wrong_message(msgid: &Value, topic: &Value, qos: &Value) -> Option<String> {
    match msgid {
        Value::Text(text) if MessageId::parse(text).is_some() => {}
        other => return Some(format!("msgid is {}, which is no message id", shown(other))),
    }
    match topic {
        Value::Text(text) if Topic::new(text.clone()).is_ok() => {}
        other => return Some(format!("topic is {}, which is no topic name", shown(other))),
    }
    match qos {
        Value::Int(0..=2) | Value::Null => None,
        other => Some(format!("qos is {}, which is not 0, 1 or 2", shown(other))),
    }
}
