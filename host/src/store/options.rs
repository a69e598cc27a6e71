//! What an operator can say about a pool (spec A3). Plain values: the configuration floor fills them in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{ByteSize, Config, Limit, Setting, SizeLimit, TimeLimit};
use crate::model::event::Start;
use crate::model::id::IdFormat;

/// `backend.<b>.<pool>.<key>`, one field a key, with the defaults of the specification.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolOptions {
    /// The database's file (SQLite).
    pub file: PathBuf,
    /// Connections that read; SQLite writes through one more.
    pub pool_size: usize,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long one call may take, its wait for a connection included.
    pub query_timeout: Duration,
    /// How often the database is asked whether it is there; also when it is opened again.
    pub health_check_interval: Duration,
    /// When a publisher hears of its message.
    pub write_mode: WriteMode,
    /// MQTT 5: a record that waits longer and is not in flight is cancelled.
    pub ack_timeout: Duration,
    /// Writes that may wait before connections stop reading.
    pub queue_max_len: usize,
    /// Bytes that may wait before connections stop reading.
    pub queue_max_bytes: usize,
    /// How long a write is tried again.
    pub retry_max_age: Duration,
    /// Writes in one commit.
    pub batch_size: usize,
    /// How message ids are written.
    pub msgid_format: IdFormat,
    /// Where a reader without a stored position begins.
    pub initial_position: Start,
    /// Messages read at once.
    pub fetch_page: usize,
    /// Messages for one subscription at most; `None` for no limit.
    pub max_returned_count: Option<usize>,
    /// Ignore messages older than this when fetching; `None` for no limit.
    pub time_range: Option<Duration>,
    /// Positions go when the session ends.
    pub respect_clean_session: bool,
    /// Fetch for a session's filters when it is resumed.
    pub fetch_on_resume: bool,
    /// Read on as acknowledgements free the window.
    pub drain: bool,
    /// How an acknowledgement moves a position.
    pub ack_mode: AckMode,
    /// How long a fetch that cannot be answered is tried again.
    pub fetch_retry_for: Duration,
    /// Retained messages for one subscription at most.
    pub max_retained_fetch: usize,
    /// Write this node's name into messages.
    pub record_node: bool,
    /// Fetch for filters with wildcards, too.
    pub wildcard_fetch: bool,
    /// Keep sessions in this pool, so that they survive a crash of the broker (spec C16).
    pub persist_sessions: bool,
    /// Messages that arrived earlier go; `None` for no limit.
    pub message_retention: Option<Duration>,
    /// Where the database holds more bytes the oldest messages go; `None` for no limit.
    pub message_max_bytes: Option<u64>,
    /// Age and size also take what a reader has not acknowledged.
    pub retention_force: bool,
    /// What every reader has acknowledged goes. Only under `initial_position = latest`: who begins at the earliest
    /// message wants it.
    pub purge_acknowledged: bool,
    /// How often is looked for messages that may go.
    pub purge_interval: Duration,
    /// What to do about missing or older tables.
    pub init_schema: InitSchema,
    /// This node's name.
    pub node: Arc<str>,
}

/// When a publisher hears of its message (spec F3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum WriteMode {
    /// After the commit; routing does not wait.
    #[default]
    BeforeAck,
    /// At once.
    Async,
    /// After the commit, and so are its subscribers.
    BeforeRoute,
}

/// How an acknowledgement moves a position (spec C8.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum AckMode {
    /// To the last message before the first one that is not acknowledged.
    #[default]
    Watermark,
    /// To the message itself, as EMQ X did.
    Last,
}

/// What to do about missing or older tables (spec D). Nothing is ever dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumString, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum InitSchema {
    /// Nothing: the operator keeps the schema.
    Off,
    /// Create tables in an empty database.
    Create,
    /// Create them, and bring older ones up to date.
    #[default]
    Upgrade,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            file: "hookline.db".into(),
            pool_size: 8,
            connect_timeout: Duration::from_secs(5),
            query_timeout: Duration::from_secs(5),
            health_check_interval: Duration::from_secs(15),
            write_mode: WriteMode::default(),
            ack_timeout: Duration::from_secs(30),
            queue_max_len: 100_000,
            queue_max_bytes: 256 << 20,
            retry_max_age: Duration::from_secs(3600),
            batch_size: 256,
            msgid_format: IdFormat::default(),
            initial_position: Start::default(),
            fetch_page: 100,
            max_returned_count: None,
            time_range: None,
            respect_clean_session: false,
            fetch_on_resume: true,
            drain: true,
            ack_mode: AckMode::default(),
            fetch_retry_for: Duration::from_secs(60),
            max_retained_fetch: 10_000,
            record_node: false,
            wildcard_fetch: false,
            persist_sessions: false,
            message_retention: None,
            message_max_bytes: None,
            retention_force: false,
            purge_acknowledged: false,
            purge_interval: Duration::from_secs(60),
            init_schema: InitSchema::default(),
            node: "hookline@127.0.0.1".into(),
        }
    }
}

macro_rules! choices {
    ($($type:ty: $expected:literal, $($word:literal => $value:expr),+;)*) => {$(
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($word => Some($value),)+
                    _ => None,
                }
            }
        }
    )*};
}

choices! {
    WriteMode: "before_ack, async or before_route",
        "before_ack" => Self::BeforeAck, "async" => Self::Async, "before_route" => Self::BeforeRoute;
    AckMode: "watermark or last", "watermark" => Self::Watermark, "last" => Self::Last;
    InitSchema: "off, create or upgrade", "off" => Self::Off, "create" => Self::Create, "upgrade" => Self::Upgrade;
    Start: "earliest or latest", "earliest" => Self::Earliest, "latest" => Self::Latest;
    IdFormat: "base62, hex or base64", "base62" => Self::Base62, "hex" => Self::Hex, "base64" => Self::Base64;
}

impl PoolOptions {
    /// Takes the keys below `prefix` (`backend.sqlite.pool1`), and the limits of the backend (`backend.sqlite`).
    pub fn take(config: &mut Config, prefix: &str) -> Self {
        let default = Self::default();
        let backend = prefix.rsplit_once('.').map_or(prefix, |(backend, _)| backend);
        let count = config.get::<Limit>(&format!("{backend}.max_returned_count"));
        let range = config.get::<TimeLimit>(&format!("{backend}.time_range"));
        let key = |name: &str| format!("{prefix}.{name}");
        let retention = config.get::<TimeLimit>(&key("message_retention"));
        let bytes_max = config.get::<SizeLimit>(&key("message_max_bytes"));
        Self {
            file: config.or(&key("file"), default.file),
            pool_size: config.or(&key("pool_size"), default.pool_size).max(1),
            connect_timeout: config.or(&key("connect_timeout"), default.connect_timeout),
            query_timeout: config.or(&key("query_timeout"), default.query_timeout),
            health_check_interval: config.or(&key("health_check_interval"), default.health_check_interval),
            write_mode: config.or(&key("write_mode"), default.write_mode),
            ack_timeout: config.or(&key("ack_timeout"), default.ack_timeout),
            queue_max_len: config.or(&key("queue_max_len"), default.queue_max_len),
            queue_max_bytes: config.or(&key("queue_max_bytes"), ByteSize(default.queue_max_bytes)).0,
            retry_max_age: config.or(&key("retry_max_age"), default.retry_max_age),
            batch_size: config.or(&key("batch_size"), default.batch_size).max(1),
            msgid_format: config.or(&key("msgid_format"), default.msgid_format),
            initial_position: config.or(&key("initial_position"), default.initial_position),
            fetch_page: config.or(&key("fetch_page"), default.fetch_page).max(1),
            max_returned_count: count.unwrap_or_default().0,
            time_range: range.unwrap_or_default().0,
            respect_clean_session: config.or(&key("respect_clean_session"), default.respect_clean_session),
            fetch_on_resume: config.or(&key("fetch_on_resume"), default.fetch_on_resume),
            drain: config.or(&key("drain"), default.drain),
            ack_mode: config.or(&key("ack_mode"), default.ack_mode),
            fetch_retry_for: config.or(&key("fetch_retry_for"), default.fetch_retry_for),
            max_retained_fetch: config.or(&key("max_retained_fetch"), default.max_retained_fetch),
            record_node: config.or(&key("record_node"), default.record_node),
            wildcard_fetch: config.or(&key("wildcard_fetch"), default.wildcard_fetch),
            persist_sessions: config.or(&key("persist_sessions"), default.persist_sessions),
            message_retention: retention.unwrap_or_default().0,
            message_max_bytes: bytes_max.unwrap_or_default().0,
            retention_force: config.or(&key("retention_force"), default.retention_force),
            purge_acknowledged: config.or(&key("purge_acknowledged"), default.purge_acknowledged),
            purge_interval: config
                .or(&key("purge_interval"), default.purge_interval)
                .max(Duration::from_millis(10)),
            init_schema: config.or(&key("init_schema"), default.init_schema),
            node: default.node,
        }
    }
}
