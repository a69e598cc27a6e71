//! What a session says of itself when an operator asks.

use serde::{Deserialize, Serialize};

/// A session and its client, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Whose it is.
    pub client_id: String,
    /// The user name of the last CONNECT.
    pub username: Option<String>,
    /// Where the client is connected from, or was last.
    pub address: String,
    /// The protocol level: 3 (MQTT 3.1), 4 (3.1.1) or 5.
    pub protocol: u8,
    /// Whether the client is connected.
    pub connected: bool,
    /// When its last CONNECT was accepted, in seconds since 1970.
    pub connected_at: u64,
    /// Clean Start, or Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Keep Alive in seconds, 0 for none.
    pub keep_alive_s: u16,
    /// Session Expiry Interval in seconds; absent where it never expires.
    pub session_expiry_s: Option<u32>,
    /// Whether it outlives the broker.
    #[serde(default)]
    pub kept: bool,
    /// Whether it is in the store only, until its client is back.
    #[serde(default)]
    pub at_rest: bool,
    /// When its client left, in seconds since 1970; known of sessions at rest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub left_at: Option<u64>,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Messages that were sent to the client and are not acknowledged.
    pub inflight: usize,
    /// Messages that wait until they may be sent.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Messages on their way to the session.
    pub mailbox: usize,
    /// Messages from the client that are not answered yet.
    pub unanswered: usize,
    /// QoS 2 messages from the client without their PUBREL.
    pub unreleased: usize,
    /// Whether it has a will.
    pub will: bool,
    /// Its subscriptions, where it was asked for everything.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub filters: Vec<SubscriptionReport>,
    /// What it reads from stores, where it was asked for everything.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub readers: Vec<ReaderReport>,
    /// How many subscriptions and readers were too many to say.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub left_out: usize,
}

/// A subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionReport {
    /// The whole filter, with the prefix of a shared one.
    pub filter: String,
    /// The QoS granted.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: u8,
    /// The Subscription Identifier.
    pub identifier: Option<u32>,
    /// Whether stored messages come before live ones at the moment.
    pub catching_up: bool,
}

/// A backlog that a subscription reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReaderReport {
    /// Where.
    pub pool: String,
    /// Through which filter.
    pub filter: String,
    /// `queue` or `pubsub`.
    pub delivery: String,
    /// Everything up to here is acknowledged, as text: it may have more digits than a number in JSON. Absent while the
    /// store has not said where the reader begins.
    pub position: Option<String>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}
