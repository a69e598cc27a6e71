//! What is kept of a session beyond this process (spec C16): plain data, as a store reads and writes it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::delivery::{PoolName, Position};
use super::id::MessageId;
use super::message::{Client, ClientId, Message, Qos, Subscription};
use super::properties::Properties;
use super::topic::Topic;

/// The will of a CONNECT (MQTT 3.1.2.5).
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// Will Topic.
    pub topic: Topic,
    /// Will Payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// The properties that travel with it.
    pub properties: Properties,
}

impl Will {
    /// A copy that shares no buffer with the CONNECT that it came in.
    pub fn detached(&self) -> Self {
        Self {
            topic: self.topic.detached(),
            payload: Bytes::copy_from_slice(&self.payload),
            properties: self.properties.detached(),
            ..self.clone()
        }
    }

    /// Memory that it holds, in bytes, to count against limits.
    pub fn size_bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.as_bytes().len() + size_of::<Self>()
    }
}

/// The row of a session whose client has just connected.
#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    /// Whose session it is.
    pub client: ClientId,
    /// The user name of its CONNECT.
    pub username: Option<Arc<str>>,
    /// The protocol level: 3, 4 or 5.
    pub protocol: u8,
    /// When its CONNECT was accepted.
    pub connected_at: SystemTime,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_s: u32,
    /// The will of this connection.
    pub will: Option<Will>,
    /// Which run of the store it was connected in ([`Keeping::epoch`]).
    pub epoch: u32,
}

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// In which pool.
    pub pool: PoolName,
    /// In which run of it: another one than that which a crash or a reload ended.
    pub epoch: u32,
}

/// Something that outlives this process.
#[derive(Clone, Debug, PartialEq)]
pub enum Keep {
    /// A change of the session itself.
    Session(SessionWrite),
    /// A QoS 2 exchange began or went on.
    Exchange(Exchange),
    /// A QoS 2 exchange ended.
    EndExchange(ExchangeKey),
}

/// A change of what is kept of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionWrite {
    /// The session began, or its client came back to it.
    Attached(Box<Attached>),
    /// Its client has gone.
    Left {
        /// Whose session it is.
        client: ClientId,
        /// When.
        at: SystemTime,
        /// Session Expiry Interval in seconds; a DISCONNECT may have changed it.
        expiry_s: u32,
        /// Whether its will is still to be published.
        will: bool,
        /// When somebody has to look after it: its will or its expiry is due. `None` for never.
        due: Option<SystemTime>,
    },
    /// Its will was published or is obsolete; from now on it is due then.
    WillDone(ClientId, Option<SystemTime>),
    /// The client subscribed, or subscribed again.
    Subscribed(ClientId, SavedSubscription),
    /// The client has all retained messages that it asked for with this subscription: the filter as the client wrote it.
    RetainedSent(ClientId, String),
    /// The client unsubscribed; the filter as the client wrote it, share prefix included.
    Unsubscribed(ClientId, String),
    /// The session is over: nothing of it is kept, nor its positions where so asked.
    Ended {
        /// Whose session it was.
        client: ClientId,
        /// Whether its positions in this pool go with it (`respect_clean_session`).
        positions: bool,
    },
}

impl SessionWrite {
    /// Whose session it is.
    pub fn client(&self) -> &ClientId {
        match self {
            Self::Attached(attached) => &attached.client,
            Self::WillDone(client, _)
            | Self::Subscribed(client, _)
            | Self::RetainedSent(client, _)
            | Self::Unsubscribed(client, _)
            | Self::Left { client, .. }
            | Self::Ended { client, .. } => client,
        }
    }
}

/// Which way the message of an [`Exchange`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the client: its packet identifier is known until PUBREL.
    Received = 0,
    /// To the client: its packet identifier is in use until PUBCOMP.
    Sent = 1,
}

/// Which exchange of QoS 2: a message may be under way to a client twice, as a retained message that two of its filters
/// match, and a packet identifier may be in use again before the end of its last exchange is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeKey {
    /// Whose session it belongs to.
    pub client: ClientId,
    /// Which way it goes.
    pub direction: Direction,
    /// The packet identifier.
    pub packet_id: u16,
    /// The message.
    pub id: MessageId,
}

/// A QoS 2 message between its PUBLISH and the end of its exchange (MQTT 4.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Which one.
    pub key: ExchangeKey,
    /// Whether the receiver has said PUBREC: only PUBREL is left to be sent.
    pub released: bool,
}

/// A sent QoS 2 message whose exchange has not ended, as it was found in a store.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSent {
    /// Its packet identifier.
    pub packet_id: u16,
    /// Its identity.
    pub id: MessageId,
    /// Whether the client has said PUBREC.
    pub released: bool,
    /// The message and its place, while the store has it.
    pub message: Option<(Position, Message)>,
}

/// A subscription of a kept session.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSubscription {
    /// As its client asked for it.
    pub subscription: Subscription,
    /// The client has asked for retained messages with it and has not got them all.
    pub owes_retained: bool,
}

/// A session as it was found in a store.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedSession {
    /// What its last connection said.
    pub attached: Attached,
    /// When its client left; `None` where it was connected when the broker stopped.
    pub left_at: Option<SystemTime>,
    /// Its subscriptions, in the order in which they were made.
    pub subscriptions: Vec<SavedSubscription>,
    /// Received QoS 2 messages without PUBREL.
    pub received: Vec<(u16, MessageId)>,
    /// Sent QoS 2 messages without PUBCOMP, in the order in which they were sent.
    pub sent: Vec<SavedSent>,
}

impl SavedSession {
    /// The client as it last was: connected from nowhere.
    pub fn client(&self) -> Client {
        let Attached {
            client,
            username,
            protocol,
            connected_at,
            expiry_s,
            ..
        } = &self.attached;
        Client {
            id: client.clone(),
            username: username.clone(),
            peer: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            protocol: *protocol,
            clean_start: false,
            keep_alive_s: 0,
            session_expiry_s: *expiry_s,
            connected_at: *connected_at,
        }
    }
}

/// How long a session is kept without its client; `None` for ever (MQTT 5, 3.1.2.11.2).
pub fn session_expiry(expiry_s: u32) -> Option<Duration> {
    (expiry_s != u32::MAX).then(|| Duration::from_secs(expiry_s.into()))
}

/// How long after the client has gone its will is published: the session's end comes first (3.1.3.2.2).
pub fn will_delay(delay_s: u32, expiry_s: u32) -> Duration {
    Duration::from_secs(delay_s.min(expiry_s).into())
}
