//! What travels: a message, who sent it, and what somebody subscribed to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::id::MessageId;
use super::properties::Properties;
use super::topic::{Filter, Topic};

/// Quality of service (MQTT 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS with this number, `None` above 2.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A client identifier (MQTT 3.1.3.1), cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ClientId {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A published message. Topic and payload are slices of what came from the socket: whoever keeps one for
/// long (retained, queued while offline) calls [`Message::detached`].
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Identity, ordered by the time of publishing on one node.
    pub id: MessageId,
    /// Where it was published.
    pub topic: Topic,
    /// What was published.
    pub payload: Bytes,
    /// The QoS that the publisher chose.
    pub qos: Qos,
    /// The RETAIN flag as published.
    pub retain: bool,
    /// The publisher.
    pub from: ClientId,
    /// When this node received it.
    pub at: SystemTime,
    /// The MQTT 5 properties that travel with it.
    pub properties: Properties,
    /// When it stops being worth delivering (MQTT 5, 3.3.2.3.3).
    pub expires: Option<SystemTime>,
}

impl Message {
    /// A copy that shares no buffer with the connection it came from.
    pub fn detached(&self) -> Self {
        Self {
            topic: self.topic.detached(),
            payload: Bytes::copy_from_slice(&self.payload),
            properties: self.properties.detached(),
            ..self.clone()
        }
    }

    /// Whether its expiry has passed at `now`.
    pub fn expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Memory that it holds, in bytes, to count against limits.
    pub fn size_bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.as_bytes().len() + size_of::<Self>()
    }
}

/// A client's request for messages (MQTT 5, 3.8.3), or the operator's on its behalf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The topic filter, without a `$share/<group>/` prefix.
    pub filter: Filter,
    /// The share group, for a shared subscription.
    pub share: Option<Arc<str>>,
    /// The QoS granted.
    pub qos: Qos,
    /// Do not send the client its own messages.
    pub no_local: bool,
    /// Keep the RETAIN flag as published when forwarding.
    pub retain_as_published: bool,
    /// Retain Handling: 0 always send retained messages, 1 only for a new subscription, 2 never.
    pub retain_handling: u8,
    /// The subscription identifier, sent back with every matching message.
    pub identifier: Option<u32>,
}

impl Subscription {
    /// A plain subscription, as MQTT 3.1.1 knows it.
    pub fn new(filter: Filter, qos: Qos) -> Self {
        Self {
            filter,
            share: None,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            identifier: None,
        }
    }

    /// The filter as the client wrote it, share prefix included: what names the subscription.
    pub fn full_filter(&self) -> String {
        match &self.share {
            Some(group) => format!("$share/{group}/{}", self.filter),
            None => self.filter.to_string(),
        }
    }

    /// Whether its SUBSCRIBE asks for retained messages, where the subscription `is_new` or not
    /// ([MQTT-3.3.1-9] to [MQTT-3.3.1-11], 4.8.2).
    pub fn asks_for_retained(&self, is_new: bool) -> bool {
        let asks = match self.retain_handling {
            0 => true,
            1 => is_new,
            _ => false,
        };
        asks && self.share.is_none()
    }
}

/// A connected client, as hooks see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its identifier, assigned by us where it sent none.
    pub id: ClientId,
    /// The user name of its CONNECT.
    pub username: Option<Arc<str>>,
    /// Its address.
    pub peer: SocketAddr,
    /// The protocol level: 3 (MQTT 3.1), 4 (3.1.1) or 5.
    pub protocol: u8,
    /// Clean Start, or Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Keep Alive in seconds, 0 for none.
    pub keep_alive_s: u16,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires. Before MQTT 5: 0 or the configured one.
    pub session_expiry_s: u32,
    /// When its CONNECT was accepted.
    pub connected_at: SystemTime,
}
