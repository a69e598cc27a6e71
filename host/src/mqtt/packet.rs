//! The packets that sessions and the codec exchange, the same for MQTT 3.1, 3.1.1 and 5.0.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::model::delivery::Run;
use crate::model::message::{Message, Qos, Subscription};
use crate::model::properties::Properties;
use crate::model::reason::Reason;
use crate::model::session::Will;
use crate::model::topic::{Filter, Topic, TopicError};

/// The protocol level of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1, level 3.
    V31 = 3,
    /// MQTT 3.1.1, level 4.
    V311 = 4,
    /// MQTT 5.0, level 5.
    V5 = 5,
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// CONNECT.
    Connect(Box<Connect>),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack),
    /// SUBSCRIBE.
    Subscribe(Box<Subscribe>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe),
    /// PINGREQ.
    Ping,
    /// DISCONNECT.
    Disconnect(Disconnect),
    /// AUTH (MQTT 5).
    Auth(Reason),
}

/// The four acknowledgements of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK: QoS 1 is done.
    PubAck,
    /// PUBREC: QoS 2, first answer.
    PubRec,
    /// PUBREL: QoS 2, the sender forgets.
    PubRel,
    /// PUBCOMP: QoS 2 is done.
    PubComp,
}

/// An acknowledgement, either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which of the four.
    pub kind: AckKind,
    /// The packet identifier, never 0.
    pub packet_id: u16,
    /// The reason; before MQTT 5 always success.
    pub reason: Reason,
}

/// CONNECT (3.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// The protocol level.
    pub version: Version,
    /// Clean Start, or Clean Session before MQTT 5.
    pub clean_start: bool,
    /// In seconds, 0 for none.
    pub keep_alive_s: u16,
    /// The client identifier as sent, possibly empty.
    pub client_id: ByteString,
    /// The will.
    pub will: Option<Will>,
    /// User name.
    pub username: Option<ByteString>,
    /// Password.
    pub password: Option<Bytes>,
    /// Session Expiry Interval in seconds; `None` where absent and before MQTT 5.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum of the client; 65,535 where absent.
    pub receive_max: u16,
    /// Maximum Packet Size that the client accepts, in bytes; `None` for no limit.
    pub packet_bytes_max: Option<u32>,
    /// Topic Alias Maximum of the client; 0 where absent.
    pub topic_alias_max: u16,
    /// Request Problem Information; true where absent.
    pub request_problem_info: bool,
    /// Request Response Information; false where absent.
    pub request_response_info: bool,
    /// Authentication Method.
    pub auth_method: Option<ByteString>,
}

/// PUBLISH from a client (3.3). The codec has checked its topic, QoS, packet identifier and properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// The topic name; `None` where the client sent an empty one beside a topic alias.
    pub topic: Option<Topic>,
    /// The topic alias, never 0.
    pub alias: Option<u16>,
    /// The packet identifier; 0 for QoS 0 only.
    pub packet_id: u16,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// The properties that travel with it.
    pub properties: Properties,
    /// The payload.
    pub payload: Bytes,
}

/// SUBSCRIBE (3.8).
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// The packet identifier, never 0.
    pub packet_id: u16,
    /// The Subscription Identifier.
    pub identifier: Option<u32>,
    /// What is asked for, in packet order. A filter that is malformed is refused by itself, not with the
    /// packet (3.9.3), so it comes as the error that it is.
    pub filters: Vec<Result<Subscription, TopicError>>,
}

/// UNSUBSCRIBE (3.10).
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe {
    /// The packet identifier, never 0.
    pub packet_id: u16,
    /// The filters as the client wrote them, share prefix included: group and filter.
    pub filters: Vec<Result<Unwanted, TopicError>>,
}

/// A subscription to end: its share group and its filter.
pub type Unwanted = (Option<Arc<str>>, Filter);

/// DISCONNECT from a client (3.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// The reason; 0 before MQTT 5.
    pub reason: Reason,
    /// A new Session Expiry Interval in seconds.
    pub session_expiry_s: Option<u32>,
}

/// What we send.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// CONNACK.
    ConnAck(Box<ConnAck>),
    /// PUBLISH.
    Publish(Copy),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack),
    /// SUBACK: a reason code a filter.
    SubAck {
        /// The packet identifier of the SUBSCRIBE.
        packet_id: u16,
        /// In packet order.
        reasons: Vec<Reason>,
    },
    /// UNSUBACK: a reason code a filter (none are written before MQTT 5).
    UnsubAck {
        /// The packet identifier of the UNSUBSCRIBE.
        packet_id: u16,
        /// In packet order.
        reasons: Vec<Reason>,
    },
    /// PINGRESP.
    Pong,
    /// DISCONNECT (MQTT 5 only; written as nothing before).
    Disconnect {
        /// Why.
        reason: Reason,
        /// A sentence for the client's log, sent where it asked for problem information.
        text: Option<String>,
        /// Another server to go to.
        server_reference: Option<Arc<str>>,
    },
}

/// CONNACK (3.2). Before MQTT 5 only the session flag and the translated reason are written.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// The reason.
    pub reason: Reason,
    /// A sentence for the client's log.
    pub text: Option<String>,
    /// Session Expiry Interval in seconds, where it differs from what was asked for.
    pub session_expiry_s: Option<u32>,
    /// Receive Maximum of the server.
    pub receive_max: u16,
    /// Maximum Packet Size that the server accepts, in bytes.
    pub packet_bytes_max: u32,
    /// Maximum QoS that the server accepts and grants.
    pub qos_max: Qos,
    /// The client identifier that we assigned.
    pub assigned_client_id: Option<String>,
    /// Topic Alias Maximum of the server.
    pub topic_alias_max: u16,
    /// Server Keep Alive in seconds, where it differs from what was asked for.
    pub server_keep_alive_s: Option<u16>,
    /// Response Information, where the client asked for it.
    pub response_info: Option<Arc<str>>,
    /// Another server to go to.
    pub server_reference: Option<Arc<str>>,
}

impl ConnAck {
    /// A CONNACK that lets nobody in.
    pub fn refusal(reason: Reason, text: &str) -> Self {
        Self {
            session_present: false,
            reason,
            text: Some(text.to_owned()),
            session_expiry_s: None,
            receive_max: u16::MAX,
            packet_bytes_max: u32::MAX,
            qos_max: Qos::ExactlyOnce,
            assigned_client_id: None,
            topic_alias_max: 0,
            server_keep_alive_s: None,
            response_info: None,
            server_reference: None,
        }
    }
}

/// One message on its way to one subscriber: what it shares with everybody else, and what is its own.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The run that the message belongs to.
    pub run: Arc<Run>,
    /// Its index in the run.
    pub index: usize,
    /// DUP.
    pub dup: bool,
    /// The QoS of this delivery.
    pub qos: Qos,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// The packet identifier; 0 for QoS 0 only.
    pub packet_id: u16,
    /// Subscription Identifiers of every subscription that it matches.
    pub identifiers: Arc<[u32]>,
    /// What is left of its Message Expiry Interval, in seconds.
    pub expiry_s: Option<u32>,
    /// A topic alias: to be set where `true`, to stand for the topic where `false`.
    pub alias: Option<(u16, bool)>,
}

impl Copy {
    /// The message.
    pub fn message(&self) -> &Message {
        &self.run.messages[self.index]
    }
}
