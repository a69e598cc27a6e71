//! Databases for the store's stories, and short words to tell them in.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hookline::model::delivery::{Delivery, Page, PoolName, Position, Reader, Window};
use hookline::model::id::MessageId;
use hookline::model::message::{Message, Qos};
use hookline::model::topic::{Filter, Topic};
use hookline::model::value::Value;
use hookline::store::options::PoolOptions;
use hookline::store::sql::SqlStore;
use hookline::store::sql::sqlite::Sqlite;
use hookline::store::{ClientState, Result, Script, Store, Write, Written};
use tempfile::TempDir;

/// A database of its own for one test.
pub(crate) struct Database {
    store: Arc<dyn Store>,
    dir: TempDir,
}

impl Database {
    /// An empty SQLite file, open.
    pub(crate) async fn sqlite() -> Self {
        let dir = TempDir::new().expect("a folder");
        let options = options(dir.path().join("hookline.db"));
        let store = Arc::new(SqlStore::new(Sqlite::new(&options), &options));
        store.ping().await.expect("opens");
        Self { store, dir }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn shared(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    pub(crate) fn options(&self) -> PoolOptions {
        options(self.file())
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("hookline.db")
    }
}

/// Options that notice quickly.
pub(crate) fn options(file: PathBuf) -> PoolOptions {
    PoolOptions {
        file,
        query_timeout: Duration::from_millis(600),
        health_check_interval: Duration::from_millis(50),
        ..PoolOptions::default()
    }
}

/// The n-th message, published at second 1,700,000,000 and n microseconds.
pub(crate) fn message(n: u64, topic: &str) -> Message {
    let id = MessageId::from_bits((u128::from(1_700_000_000_000_000 + n) << 64) | 0xABCD_0001);
    Message {
        id,
        topic: Topic::new(topic.to_owned()).expect("a topic"),
        payload: format!("payload {n}").into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        from: "publisher".into(),
        at: at(id),
        properties: Default::default(),
        expires: None,
    }
}

pub(crate) fn at(id: MessageId) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(id.micros())
}

pub(crate) fn seconds(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

pub(crate) fn save(n: u64, topic: &str) -> Write {
    Write::Save(message(n, topic))
}

pub(crate) fn filter(text: &str) -> Filter {
    Filter::new(text.to_owned()).expect("a filter")
}

pub(crate) fn filter_matches(text: &str, message: &Message) -> bool {
    filter(text).matches(message.topic.as_str())
}

pub(crate) fn reader(client: &str, text: &str) -> Reader {
    Reader {
        pool: PoolName::new("test", "pool1"),
        client: client.into(),
        filter: filter(text),
        delivery: Delivery::Pubsub,
    }
}

pub(crate) fn window(after: Position, limit: usize) -> Window {
    Window {
        after,
        limit,
        since: None,
    }
}

/// Statements of a rule `backend.test.1`.
pub(crate) fn script(statements: &[(&str, &[Value])], atomic: bool) -> Write {
    let texts = statements.iter().map(|(text, _)| (*text).to_owned()).collect();
    let params = statements.iter().map(|(_, params)| params.to_vec()).collect();
    let rule = "backend.test.1".to_owned();
    Write::Statements(
        Arc::new(Script {
            rule,
            statements: texts,
            atomic,
        }),
        params,
    )
}

/// Writes one batch, all of which has to succeed.
pub(crate) async fn write(store: &dyn Store, writes: impl IntoIterator<Item = Write>) -> Vec<Written> {
    let writes: Vec<Write> = writes.into_iter().collect();
    let results = store.write(&writes).await;
    assert_eq!(results.len(), writes.len());
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(|error| panic!("{}", error.chain())))
        .collect()
}

pub(crate) async fn write_one(store: &dyn Store, write: Write) -> Result<Written> {
    store.write(&[write]).await.pop().expect("one result")
}

pub(crate) fn places(written: &[Written]) -> Vec<Position> {
    let place = |written: &Written| match written {
        Written::At(place) => *place,
        Written::Done | Written::Removed(_) => panic!("a place was expected"),
    };
    written.iter().map(place).collect()
}

pub(crate) async fn unread(store: &dyn Store, reader: &Reader, limit: usize) -> Result<Page> {
    store.unread(reader, window(Position::START, limit)).await
}

pub(crate) async fn read(store: &dyn Store, reader: &Reader, limit: usize) -> Vec<Message> {
    let page = unread(store, reader, limit)
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    page.messages.into_iter().map(|(_, message)| message).collect()
}

pub(crate) async fn retained(store: &dyn Store, text: &str) -> Vec<Message> {
    let page = store.retained(&filter(text), window(Position::START, 100)).await;
    let page = page.unwrap_or_else(|error| panic!("{}", error.chain()));
    page.messages.into_iter().map(|(_, message)| message).collect()
}

/// A query's answer in one line: `a|1,b|2`.
pub(crate) async fn rows(store: &dyn Store, sql: &str) -> String {
    let rows = store
        .query(sql, &[])
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()))
        .rows;
    let row = |row: &Vec<Value>| row.iter().map(cell).collect::<Vec<_>>().join("|");
    rows.iter().map(row).collect::<Vec<_>>().join(",")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(value) => value.clone(),
        Value::Bytes(bytes) => bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// What a client's connection leaves: its times are seconds since 1970.
pub(crate) fn client(client: &str, node: &str, online_at: u64, offline_at: Option<u64>) -> Write {
    Write::Client(ClientState {
        client: client.into(),
        node: node.into(),
        online_at: seconds(online_at),
        offline_at: offline_at.map(seconds),
    })
}
