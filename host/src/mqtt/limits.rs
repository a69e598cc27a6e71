//! What one client may use, and what we tell it in CONNACK. One owner for every bound of a session.

use std::time::Duration;

use crate::model::message::Qos;

/// Limits of a session and its connection, from `hookline.conf`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest packet that we accept, in bytes (`mqtt.max_packet_size`).
    pub packet_bytes_max: usize,
    /// Longest client identifier, in bytes (`mqtt.max_clientid_len`).
    pub client_id_bytes_max: usize,
    /// Most levels of a topic, 0 for no limit (`mqtt.max_topic_levels`).
    pub topic_levels_max: usize,
    /// Highest QoS that we grant (`mqtt.max_qos_allowed`).
    pub qos_max: Qos,
    /// Topic aliases that a client may set (`mqtt.max_topic_alias`).
    pub topic_alias_max: u16,
    /// PUBLISH of QoS 1 and 2 that a client may have open (`mqtt.receive_maximum`); before MQTT 5 the
    /// window behind which we stop reading.
    pub receive_max: u16,
    /// Keep Alive in seconds that replaces the client's, if set (`mqtt.server_keepalive`).
    pub server_keep_alive_s: Option<u16>,
    /// Messages of QoS 1 and 2 on their way to a client (`zone.external.max_inflight`).
    pub inflight_max: u16,
    /// QoS 2 messages that a client may have sent without PUBREL, 0 for as many as there are packet
    /// identifiers (`zone.external.max_awaiting_rel`).
    pub awaiting_release_max: usize,
    /// Messages that wait for the window (`zone.external.max_mqueue_len`).
    pub queue_len_max: usize,
    /// Bytes that wait for the window (`zone.external.max_mqueue_bytes`).
    pub queue_bytes_max: usize,
    /// Whether QoS 0 messages are queued for absent clients (`zone.external.mqueue_store_qos0`).
    pub queue_qos0: bool,
    /// Session expiry in seconds of MQTT 3 clients without Clean Session, and the most that an MQTT 5
    /// client gets (`zone.external.session_expiry_interval`); `u32::MAX` never expires.
    pub session_expiry_max_s: u32,
    /// A client is silent for too long after Keep Alive × this (twice `zone.external.keepalive_backoff`).
    pub keep_alive_factor: f64,
    /// Subscriptions of one client, 0 for no limit (`zone.external.max_subscriptions`).
    pub subscriptions_max: usize,
    /// Deliver with the subscription's QoS where it is higher (`zone.external.upgrade_qos`).
    pub upgrade_qos: bool,
    /// How long acknowledged positions gather before they are written.
    pub position_delay: Duration,
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
            topic_levels_max: 0,
            qos_max: Qos::ExactlyOnce,
            topic_alias_max: 64,
            receive_max: 1024,
            server_keep_alive_s: None,
            inflight_max: 100,
            awaiting_release_max: 0,
            queue_len_max: 1000,
            queue_bytes_max: 16 * 1024 * 1024,
            queue_qos0: false,
            session_expiry_max_s: 7 * 24 * 3600,
            keep_alive_factor: 1.5,
            subscriptions_max: 0,
            upgrade_qos: false,
            position_delay: Duration::from_millis(50),
            rest_after: Duration::from_secs(5),
            suback_patience: Duration::from_secs(5),
        }
    }
}
