//! What a store can do, in the words of the domain, whatever database stands behind it.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use strum::EnumDiscriminants;

use self::upkeep::Upkeep;
use crate::model::delivery::{Page, Position, Reader, Window};
use crate::model::event::Start;
use crate::model::id::MessageId;
use crate::model::message::{ClientId, Message, Subscription};
use crate::model::session::{Exchange, ExchangeKey, SavedSession, SessionWrite};
use crate::model::topic::{Filter, Topic};
use crate::model::value::{Rows, Value};

pub mod backup;
pub mod batch;
mod books;
mod health;
mod level;
mod needs;
pub mod options;
mod pauses;
pub mod pool;
mod queue;
pub mod retention;
mod settle;
pub mod sql;
pub mod upkeep;
mod writer;

/// One thing to store. Every write goes through one door, so that a mixed batch is one commit.
#[derive(Clone, Debug, EnumDiscriminants)]
#[strum_discriminants(
    name(WriteKind),
    derive(strum::EnumIter, strum::IntoStaticStr),
    strum(serialize_all = "snake_case"),
    doc = "The verb of a [`Write`]; its name is the metric label."
)]
pub enum Write {
    /// Keep a message for its readers (`on_message_publish`, `on_message_store`).
    Save(Message),
    /// Keep a message as its topic's retained one, unless a newer one is there (`on_message_retain`).
    Retain(Message),
    /// Forget the retained message of a topic, unless it is newer than this id (`on_retain_delete`).
    ClearRetained(Topic, MessageId),
    /// Where does this reader begin? Answers its stored position. Where it has none: position
    /// [`Position::START`] or behind the newest message, and, where `durable`, a row that says so.
    Begin {
        /// Who reads.
        reader: Reader,
        /// Where a reader without a row begins.
        start: Start,
        /// Whether to write the row.
        durable: bool,
    },
    /// A reader has acknowledged everything up to here. Positions never go back (spec C7).
    Advance(Reader, Position),
    /// The first acknowledgement deletes the message (`on_message_acked_for_queue`).
    Delete(Topic, MessageId),
    /// Forget one position (`on_acked_delete`).
    Forget(Reader),
    /// Forget every position of a client, because its session ended (`respect_clean_session`).
    ForgetClient(ClientId),
    /// Delete the messages at these places, in one commit. Answers how many were there.
    Purge(Arc<[Position]>),
    /// A client came or went (`on_client_connected`, `on_client_disconnected`).
    Client(ClientState),
    /// A session changed (`persist_sessions`, spec C16).
    Session(SessionWrite),
    /// A QoS 2 exchange of a kept session began or went on.
    Exchange(Exchange),
    /// A QoS 2 exchange of a kept session ended.
    EndExchange(ExchangeKey),
    /// The operator's own statements, in order, with their parameters.
    Statements(Arc<Script>, Vec<Vec<Value>>),
}

impl Write {
    /// Which verb it is.
    pub fn kind(&self) -> WriteKind {
        self.into()
    }

    /// The verb's name, for errors and metrics.
    pub fn label(&self) -> &'static str {
        self.kind().into()
    }

    /// Memory that it holds, in bytes, to count against limits.
    pub fn size_bytes(&self) -> usize {
        let value = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 0,
        };
        size_of::<Self>()
            + match self {
                Self::Save(message) | Self::Retain(message) => message.size_bytes(),
                Self::Session(SessionWrite::Attached(attached)) => {
                    size_of_val(&**attached) + attached.will.as_ref().map_or(0, |will| will.payload.len())
                }
                Self::Purge(places) => size_of_val(&**places),
                Self::Statements(_, params) => params.iter().flatten().map(value).sum(),
                _ => 0,
            }
    }
}

/// Whether and since when a client is connected (spec C2, C3).
#[derive(Clone, Debug, PartialEq)]
pub struct ClientState {
    /// Who.
    pub client: ClientId,
    /// Where.
    pub node: Arc<str>,
    /// Since when this connection lives; a disconnect older than the stored one is ignored.
    pub online_at: SystemTime,
    /// When it ended; `None` while connected.
    pub offline_at: Option<SystemTime>,
}

/// The statements of one rule, already in the database's own form.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The rule, for errors: `backend.sqlite.hook.client.connected.3`.
    pub rule: String,
    /// SQL with the engine's placeholders.
    pub statements: Vec<String>,
    /// Whether all of them take effect or none (`"tx": true`).
    pub atomic: bool,
}

/// What a successful write answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing more to say.
    Done,
    /// Where the message lies, or where the reader begins.
    At(Position),
    /// So many rows are gone.
    Removed(u64),
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{verb}: {kind}")]
pub struct Error {
    /// What a caller can do about it.
    pub kind: Kind,
    /// What we were doing.
    pub verb: &'static str,
    /// What the driver said.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a caller can do about an error; also the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Try again later: the database is away, locked, full or read-only.
    Unavailable,
    /// Try again later: no answer in time.
    Timeout,
    /// Never: the database refused this value or statement.
    Rejected,
    /// Never: what is stored cannot be read.
    Corrupt,
}

impl Kind {
    /// Whether trying again can help.
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Rejected => "rejected",
            Self::Corrupt => "corrupt",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Error {
    /// An error of this kind while doing `verb`.
    pub fn new(kind: Kind, verb: &'static str) -> Self {
        Self {
            kind,
            verb,
            source: None,
        }
    }

    /// The same, with what the driver said.
    pub fn because(kind: Kind, verb: &'static str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            verb,
            source: Some(source.into()),
        }
    }

    /// The error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// What a store answers.
pub type Result<T> = std::result::Result<T, Error>;

/// A database, seen as what we need of one. Implemented once a family of databases.
#[async_trait]
pub trait Store: Send + Sync {
    /// One durable step for the whole slice where the database can; each write has its own result, in
    /// order: a refused row never fails its neighbours. Saves come to lie in the order of the slice.
    async fn write(&self, writes: &[Write]) -> Vec<Result<Written>>;
    /// The subscriptions that the operator keeps for a client (`on_subscribe_lookup`). Rows that are no
    /// subscription are skipped and counted by the caller: they come as the text and QoS they hold.
    async fn subscriptions(&self, client: &ClientId) -> Result<Vec<(String, i64)>>;
    /// What a reader has not read, in the store's order.
    async fn unread(&self, reader: &Reader, window: Window) -> Result<Page>;
    /// Retained messages that match, in the store's order.
    async fn retained(&self, filter: &Filter, window: Window) -> Result<Page>;
    /// The waist: free statements come through here.
    async fn query(&self, statement: &str, params: &[Value]) -> Result<Rows>;
    /// Whether the database answers; also opens it where it is not open yet.
    async fn ping(&self) -> Result<()>;
    /// Marks clients that a crash left online as offline (spec C3): those of `node` that connected before `before`.
    async fn mark_offline(&self, node: &str, before: SystemTime) -> Result<u64>;
    /// A session as it is kept; `None` where none is. Only called while nothing of this client waits to be
    /// written.
    async fn session(&self, client: &ClientId) -> Result<Option<SavedSession>>;
    /// Whose kept sessions come behind `after`, in the order of their names, at most so many.
    async fn sessions(&self, after: Option<&ClientId>, limit: usize) -> Result<Vec<ClientId>>;
    /// Whose kept sessions have a will or an expiry that is due, the longest overdue first, at most so many.
    async fn due_sessions(&self, now: SystemTime, limit: usize) -> Result<Vec<ClientId>>;
    /// The clients that were connected to `node` when an earlier run of the store ended, left at `at`: those whose
    /// session has another epoch than this one.
    async fn mark_left(&self, node: &str, epoch: u32, at: SystemTime) -> Result<u64>;
    /// The positions that are kept for a client: its filters, and where each has come to.
    async fn positions(&self, client: &ClientId) -> Result<Vec<(String, Position)>>;
    /// Facts for `/metrics` and the line at start: what a commit survives, the file, its size, rows.
    async fn facts(&self) -> Result<BTreeMap<String, String>>;
    /// What it can do for an operator, where it can.
    fn upkeep(&self) -> Option<&dyn Upkeep> {
        None
    }
    /// Closes connections after the last write.
    async fn close(&self);
}

/// A subscription row of the operator's, checked (spec C4): `None` for an invalid filter.
pub fn operator_subscription(topic: &str, qos: i64) -> Option<Subscription> {
    use crate::model::message::Qos;
    let (share, filter) = Filter::parse_subscription(topic).ok()?;
    let qos = Qos::from_bits(qos.clamp(0, 2) as u8)?;
    Some(Subscription {
        share: share.map(Arc::from),
        ..Subscription::new(filter, qos)
    })
}
