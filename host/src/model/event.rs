//! The moments at which hooks run, and what hooks may ask of a session.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use strum::EnumDiscriminants;

use super::delivery::{PoolName, Reader};
use super::hold::Hold;
use super::id::IdFormat;
use super::message::{Client, Message, Subscription};
use super::reason::Reason;
use super::topic::Filter;
use super::value::Value;

/// What happened, with its data. [`HookPoint`] is derived from it, so that a moment and its name in the
/// configuration are written once.
#[derive(Clone, Debug, EnumDiscriminants)]
#[strum_discriminants(
    name(HookPoint),
    derive(strum::Display, strum::EnumIter, strum::EnumString, Hash, PartialOrd, Ord)
)]
#[strum_discriminants(doc = "A moment in a client's life at which rules run (spec B1).")]
pub enum Event {
    /// A CONNECT was accepted.
    #[strum_discriminants(strum(serialize = "client.connected"))]
    ClientConnected {
        /// Who.
        client: Arc<Client>,
    },
    /// A connection ended, for any reason but a take-over.
    #[strum_discriminants(strum(serialize = "client.disconnected"))]
    ClientDisconnected {
        /// Who.
        client: Arc<Client>,
        /// Why.
        reason: Reason,
    },
    /// A filter was subscribed to, or subscribed to again; its route exists.
    #[strum_discriminants(strum(serialize = "session.subscribed"))]
    SessionSubscribed {
        /// Who.
        client: Arc<Client>,
        /// To what, with the QoS granted.
        subscription: Subscription,
    },
    /// A filter that existed was unsubscribed.
    #[strum_discriminants(strum(serialize = "session.unsubscribed"))]
    SessionUnsubscribed {
        /// Who.
        client: Arc<Client>,
        /// Which.
        filter: Filter,
    },
    /// A message came in, before it is routed.
    #[strum_discriminants(strum(serialize = "message.publish"))]
    MessagePublish {
        /// The publisher.
        client: Arc<Client>,
        /// The message.
        message: Message,
    },
    /// A message is about to be written to a subscriber for the first time.
    #[strum_discriminants(strum(serialize = "message.delivered"))]
    MessageDelivered {
        /// The subscriber.
        client: Arc<Client>,
        /// The message.
        message: Message,
    },
    /// A subscriber acknowledged a message: PUBACK, or PUBREC for QoS 2.
    #[strum_discriminants(strum(serialize = "message.acked"))]
    MessageAcked {
        /// The subscriber.
        client: Arc<Client>,
        /// The message.
        message: Message,
    },
}

/// The names that statements and commands may use as `${name}`, a point each (spec B2).
pub const fn variables(point: HookPoint) -> &'static [&'static str] {
    match point {
        HookPoint::ClientConnected => &[
            "clientid",
            "node",
            "timestamp",
            "username",
            "peerhost",
            "proto_ver",
            "clean_start",
            "keepalive",
        ],
        HookPoint::ClientDisconnected => &["clientid", "node", "timestamp", "username", "reason"],
        HookPoint::SessionSubscribed => &[
            "clientid",
            "topic",
            "qos",
            "share_group",
            "node",
            "timestamp",
            "username",
        ],
        HookPoint::SessionUnsubscribed => &["clientid", "topic", "node", "timestamp", "username"],
        HookPoint::MessagePublish => &[
            "msgid",
            "topic",
            "payload",
            "qos",
            "clientid",
            "retain",
            "sender",
            "payload_base64",
            "message",
            "node",
            "timestamp",
            "username",
        ],
        HookPoint::MessageDelivered | HookPoint::MessageAcked => &[
            "msgid",
            "topic",
            "clientid",
            "qos",
            "sender",
            "payload",
            "node",
            "timestamp",
            "username",
        ],
    }
}

/// What an event's variables are rendered with.
#[derive(Clone, Copy, Debug)]
pub struct Rendering<'a> {
    /// This node's name.
    pub node: &'a str,
    /// How the pool writes message ids.
    pub ids: IdFormat,
    /// When the event happened.
    pub at: SystemTime,
}

impl Event {
    /// Which moment it is.
    pub fn point(&self) -> HookPoint {
        HookPoint::from(self)
    }

    /// The client that a rule's statements mean by `${clientid}`.
    pub fn client(&self) -> &Arc<Client> {
        match self {
            Self::ClientConnected { client }
            | Self::ClientDisconnected { client, .. }
            | Self::SessionSubscribed { client, .. }
            | Self::SessionUnsubscribed { client, .. }
            | Self::MessagePublish { client, .. }
            | Self::MessageDelivered { client, .. }
            | Self::MessageAcked { client, .. } => client,
        }
    }

    /// What a rule's `topic` filter is matched against (spec A5); `None` for the `client.*` moments.
    pub fn topic(&self) -> Option<&str> {
        match self {
            Self::ClientConnected { .. } | Self::ClientDisconnected { .. } => None,
            Self::SessionSubscribed { subscription, .. } => Some(subscription.filter.as_str()),
            Self::SessionUnsubscribed { filter, .. } => Some(filter.as_str()),
            Self::MessagePublish { message, .. }
            | Self::MessageDelivered { message, .. }
            | Self::MessageAcked { message, .. } => Some(message.topic.as_str()),
        }
    }

    fn message(&self) -> Option<&Message> {
        match self {
            Self::MessagePublish { message, .. }
            | Self::MessageDelivered { message, .. }
            | Self::MessageAcked { message, .. } => Some(message),
            Self::ClientConnected { .. }
            | Self::ClientDisconnected { .. }
            | Self::SessionSubscribed { .. }
            | Self::SessionUnsubscribed { .. } => None,
        }
    }

    /// The value of `${name}`; `None` where this moment has no such variable (see [`variables`]).
    pub fn var(&self, name: &str, with: Rendering<'_>) -> Option<Value> {
        let point = self.point();
        if !variables(point).contains(&name) {
            return None;
        }
        let client = self.client();
        let message = self.message();
        Some(match name {
            "clientid" => match (self, message) {
                (Self::MessagePublish { .. }, Some(message)) => message.from.as_str().into(),
                _ => client.id.as_str().into(),
            },
            "username" => client.username.as_deref().into(),
            "node" => with.node.into(),
            "timestamp" => Value::Int(millis(with.at)),
            "peerhost" => client.peer.ip().to_string().into(),
            "proto_ver" => Value::Int(client.protocol.into()),
            "clean_start" => Value::Int(client.clean_start.into()),
            "keepalive" => Value::Int(client.keep_alive_s.into()),
            "reason" => match self {
                Self::ClientDisconnected { reason, .. } => reason.to_string().into(),
                _ => Value::Null,
            },
            "topic" => self.topic().into(),
            "share_group" => match self {
                Self::SessionSubscribed { subscription, .. } => subscription.share.as_deref().into(),
                _ => Value::Null,
            },
            "qos" => match self {
                Self::SessionSubscribed { subscription, .. } => Value::Int(subscription.qos as i64),
                _ => message.map_or(Value::Null, |message| Value::Int(message.qos as i64)),
            },
            "msgid" => message.map(|message| message.id.text(with.ids)).into(),
            "sender" => message.map(|message| message.from.as_str()).into(),
            "retain" => message.map(|message| i64::from(message.retain)).into(),
            "payload" => message.map(|message| message.payload.clone()).into(),
            "payload_base64" => message.map(|message| BASE64.encode(&message.payload)).into(),
            "message" => message.map(|message| as_json(message, with)).into(),
            _ => Value::Null,
        })
    }
}

/// Milliseconds since the Unix epoch.
pub fn millis(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// Microseconds since the Unix epoch.
pub fn micros(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

/// Whole seconds since the Unix epoch.
pub fn seconds(at: SystemTime) -> i64 {
    millis(at) / 1000
}

/// The `message` parameter of spec B2.
fn as_json(message: &Message, with: Rendering<'_>) -> String {
    let mut json = serde_json::json!({
        "id": message.id.text(with.ids),
        "from": message.from.as_str(),
        "qos": message.qos as u8,
        "topic": message.topic.as_str(),
        "retain": message.retain,
    });
    match std::str::from_utf8(&message.payload) {
        Ok(text) => json["payload"] = text.into(),
        Err(_) => {
            json["payload"] = BASE64.encode(&message.payload).into();
            json["payload_encoding"] = "base64".into();
        }
    }
    json["ts"] = seconds(message.at).into();
    json.to_string()
}

/// Where a first-time reader begins (`initial_position`, spec C7 and H1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest stored message.
    #[default]
    Earliest,
    /// Behind the newest one.
    Latest,
}

/// How a backlog is read.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// Who reads.
    pub reader: Reader,
    /// Where a reader without a stored position begins.
    pub start: Start,
    /// Whether the position has a row in the store; without one it lives as long as the session.
    pub durable: bool,
    /// At most so many messages for this subscription (`max_returned_count`).
    pub limit: Option<usize>,
    /// Ignore messages older than this (`time_range`).
    pub time_range: Option<std::time::Duration>,
    /// Messages read at once (`fetch_page`).
    pub page: usize,
    /// Read on as acknowledgements free the window, up to `limit` (`drain`).
    pub drain: bool,
    /// Read what was missed when the session is resumed, without a new SUBSCRIBE (`fetch_on_resume`).
    pub on_resume: bool,
    /// The pool stores every message of QoS 1 and 2 that the filter matches.
    pub complete: bool,
    /// Advance to the last acknowledged message instead of the low watermark (`ack_mode = last`).
    pub ack_last: bool,
    /// Keeps what a reader without a row has not read from being purged.
    pub hold: Option<Hold>,
}

/// What a hook asks the session to do. Hooks decide; only the session acts.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Subscribe on the client's behalf.
    Subscribe(Vec<Subscription>),
    /// Look the operator's subscriptions up in this pool, then subscribe to them.
    Lookup(PoolName),
    /// Send the retained messages that this pool keeps for the filter, at most so many.
    Retained(Filter, PoolName, usize),
    /// Send what is unread.
    Backlog(Box<Backlog>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::IntoEnumIterator;

    #[test]
    fn hook_points_have_the_names_of_the_configuration() {
        let names: Vec<String> = HookPoint::iter().map(|point| point.to_string()).collect();
        assert_eq!(
            names,
            [
                "client.connected",
                "client.disconnected",
                "session.subscribed",
                "session.unsubscribed",
                "message.publish",
                "message.delivered",
                "message.acked",
            ]
        );
        assert_eq!("message.acked".parse(), Ok(HookPoint::MessageAcked));
    }
}
