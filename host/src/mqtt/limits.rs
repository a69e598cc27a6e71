//! What one client may use, and what we tell it in CONNACK. One owner for every bound of a session.

use std::sync::Arc;
use std::time::Duration;

use crate::model::message::Qos;

/// The most levels of a topic or filter, whatever is configured: the tree of wildcards is walked level by level.
const TOPIC_LEVELS_MAX: usize = 1000;

/// What somebody can run into; the label `limit` of `limits_hit_total`. What it does to the client is in
/// `docs/limits.md`.
#[allow(missing_docs, reason = "each is the limit of the same name")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    Connections,
    ConnectionRate,
    HalfOpen,
    ConnectTime,
    PacketSize,
    ClientIdLength,
    TopicLength,
    TopicLevels,
    Subscriptions,
    ReceiveMaximum,
    AwaitingRelease,
    WillBytes,
    PublishRate,
    ByteRate,
    RetainedMessages,
    RetainedBytes,
}

/// So much in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages or bytes, at least 1; also the most that may come at once.
    pub amount: usize,
    /// In this time.
    pub per: Duration,
}

/// Who goes where more messages wait for a client than may, of those that no database keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    /// The newest: it finds no room.
    DropNew,
    /// The oldest, as in EMQ X: it is the least worth.
    DropOld,
}

/// Limits of a session and its connection, from `hookline.conf`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest packet that we accept, in bytes (`mqtt.max_packet_size`).
    pub packet_bytes_max: usize,
    /// Longest client identifier, in bytes (`mqtt.max_clientid_len`).
    pub client_id_bytes_max: usize,
    /// Longest topic or filter, in bytes (`mqtt.max_topic_len`).
    pub topic_bytes_max: usize,
    /// Most levels of a topic or filter, 0 for 1000 (`mqtt.max_topic_levels`).
    pub topic_levels_max: usize,
    /// Highest QoS that we grant (`mqtt.max_qos_allowed`).
    pub qos_max: Qos,
    /// Topic aliases that a client may set (`mqtt.max_topic_alias`).
    pub topic_alias_max: u16,
    /// Topic aliases that we set, where a client accepts them (`mqtt.max_topic_alias_out`).
    pub topic_alias_out_max: u16,
    /// PUBLISH of QoS 1 and 2 that a client may have open (`mqtt.receive_maximum`); before MQTT 5 the
    /// window behind which we stop reading.
    pub receive_max: u16,
    /// Keep Alive in seconds that replaces the client's, if set (`mqtt.server_keepalive`).
    pub server_keep_alive_s: Option<u16>,
    /// Another server, for clients that are sent there (`mqtt.server_reference`).
    pub server_reference: Option<Arc<str>>,
    /// Response Information for clients that ask for it (`mqtt.response_information`).
    pub response_information: Option<Arc<str>>,
    /// Messages of QoS 1 and 2 on their way to a client (`zone.external.max_inflight`).
    pub inflight_max: u16,
    /// QoS 2 messages that a client may have sent without PUBREL, 0 for as many as there are packet
    /// identifiers (`zone.external.max_awaiting_rel`).
    pub awaiting_release_max: usize,
    /// Messages that wait for the window (`zone.external.max_mqueue_len`).
    pub queue_len_max: usize,
    /// Bytes that wait for the window (`zone.external.max_mqueue_bytes`).
    pub queue_bytes_max: usize,
    /// Who goes where either is reached (`zone.external.mqueue_full`).
    pub queue_full: QueueFull,
    /// Whether QoS 0 messages are queued for absent clients (`zone.external.mqueue_store_qos0`).
    pub queue_qos0: bool,
    /// Session expiry in seconds of MQTT 3 clients without Clean Session, and the most that an MQTT 5
    /// client gets (`zone.external.session_expiry_interval`); `u32::MAX` never expires.
    pub session_expiry_max_s: u32,
    /// A client is silent for too long after Keep Alive × this (twice `zone.external.keepalive_backoff`).
    pub keep_alive_factor: f64,
    /// Subscriptions of one client, 0 for no limit (`zone.external.max_subscriptions`).
    pub subscriptions_max: usize,
    /// PUBLISH that one connection may send, if limited (`zone.external.publish_limit`).
    pub publish_rate: Option<Rate>,
    /// Bytes that one connection may send, if limited (`listener.tcp.external.rate_limit`).
    pub byte_rate: Option<Rate>,
    /// Deliver with the subscription's QoS where it is higher (`zone.external.upgrade_qos`).
    pub upgrade_qos: bool,
    /// Questions to stores that a session may have open: others ask, too.
    pub questions_max: usize,
    /// How long acknowledged positions gather before they are written.
    pub position_delay: Duration,
    /// Changes of a kept session that may be on their way into the store before its client is read on.
    pub keeps_max: usize,
    /// How long a kept session whose client is away stays in memory.
    pub rest_after: Duration,
    /// How long a SUBACK waits for the row that says where its reader begins.
    pub suback_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1024 * 1024,
            client_id_bytes_max: 1024,
            topic_bytes_max: 65_535,
            topic_levels_max: 128,
            qos_max: Qos::ExactlyOnce,
            topic_alias_max: 64,
            topic_alias_out_max: 32,
            receive_max: 1024,
            server_keep_alive_s: None,
            server_reference: None,
            response_information: None,
            inflight_max: 100,
            awaiting_release_max: 0,
            queue_len_max: 1000,
            queue_bytes_max: 16 * 1024 * 1024,
            queue_full: QueueFull::DropOld,
            queue_qos0: false,
            session_expiry_max_s: 7 * 24 * 3600,
            keep_alive_factor: 1.5,
            subscriptions_max: 10_000,
            publish_rate: None,
            byte_rate: None,
            upgrade_qos: false,
            questions_max: 64,
            position_delay: Duration::from_millis(50),
            keeps_max: 256,
            rest_after: Duration::from_secs(5),
            suback_patience: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The limit that a topic or filter exceeds, if any.
    pub fn exceeded_by(&self, topic: &str) -> Option<Limit> {
        let levels_max = match self.topic_levels_max {
            0 => TOPIC_LEVELS_MAX,
            max => max.min(TOPIC_LEVELS_MAX),
        };
        // Most topics have fewer bytes than they may have levels.
        let too_deep = topic.len() >= levels_max && topic.split('/').count() > levels_max;
        match topic.len() > self.topic_bytes_max {
            true => Some(Limit::TopicLength),
            false => too_deep.then_some(Limit::TopicLevels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_a_length_and_levels() {
        let levels = |count: usize| vec!["a"; count].join("/");
        let limits = |bytes: usize, levels: usize| Limits {
            topic_bytes_max: bytes,
            topic_levels_max: levels,
            ..Limits::default()
        };
        for (limits, topic, expected) in [
            (Limits::default(), levels(128), None),
            (Limits::default(), levels(129), Some(Limit::TopicLevels)),
            (Limits::default(), "x".repeat(65_535), None),
            (limits(5, 3), "a/b/c".to_owned(), None),
            (limits(5, 2), "a/b/c".to_owned(), Some(Limit::TopicLevels)),
            (limits(5, 3), "//".to_owned(), None),
            (limits(5, 2), "//".to_owned(), Some(Limit::TopicLevels)),
            (limits(5, 3), "abcdef".to_owned(), Some(Limit::TopicLength)),
            (limits(65_535, 0), levels(1000), None),
            (limits(65_535, 0), levels(1001), Some(Limit::TopicLevels)),
        ] {
            assert_eq!(limits.exceeded_by(&topic), expected, "{topic}");
        }
    }
}
