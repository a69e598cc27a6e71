//! rumqttc's two halves, MQTT 3.1.1 and 5, behind one face.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::v5 as five;
use rumqttc::{self as four, v5};

use super::{Login, Mqtt, Received, Will};

/// More than any story queues at once.
const REQUESTS: usize = 256;
const PACKET_BYTES_MAX: u32 = 4 << 20;

pub enum Wire {
    V311(four::AsyncClient, Box<four::EventLoop>),
    V5(v5::AsyncClient, Box<v5::EventLoop>),
}

/// What happened on a connection.
#[derive(Debug)]
pub enum Seen {
    ConnAck(bool),
    Publish(Box<Received>),
    /// A PUBACK, a PUBCOMP or a refusing PUBREC.
    Acked(String),
    SubAck(Vec<Option<u8>>),
    UnsubAck,
    SentPublish,
    /// A PUBACK or PUBCOMP of ours is on its way.
    SentAck(u16),
    SentDisconnect,
    Other,
}

/// Why a connection is no more, and the reason code of the host's DISCONNECT.
pub struct Gone(pub String, pub Option<u8>);

/// A PUBLISH as rumqttc wants it back for its acknowledgement.
#[derive(Clone, Debug)]
pub enum Packet {
    V311(four::Publish),
    V5(five::Publish),
}

impl Wire {
    pub fn new(login: &Login) -> Self {
        match login.mqtt {
            Mqtt::V311 => {
                let (client, mut events) = four::AsyncClient::new(four_options(login), REQUESTS);
                events
                    .network_options
                    .set_connection_timeout(super::super::PATIENCE.as_secs());
                // Or every answer waits 40 ms for the kernel's delayed ACK.
                events.network_options.set_tcp_nodelay(true);
                Self::V311(client, Box::new(events))
            }
            Mqtt::V5 => {
                let (client, events) = v5::AsyncClient::new(five_options(login), REQUESTS);
                Self::V5(client, Box::new(events))
            }
        }
    }

    pub async fn next(&mut self) -> Result<Seen, Gone> {
        match self {
            Self::V311(_, events) => match events.poll().await {
                Ok(four::Event::Incoming(packet)) => Ok(four_seen(packet)),
                Ok(four::Event::Outgoing(sent)) => Ok(sent_seen(&sent)),
                Err(error) => Err(Gone(error.to_string(), None)),
            },
            Self::V5(_, events) => match events.poll().await {
                Ok(v5::Event::Incoming(packet)) => Ok(five_seen(packet)),
                Ok(v5::Event::Outgoing(sent)) => Ok(sent_seen(&sent)),
                Err(error) => Err(five_gone(&error)),
            },
        }
    }

    pub fn publish(&self, topic: &str, qos: u8, retain: bool, payload: &[u8]) {
        match self {
            Self::V311(client, _) => client.try_publish(topic, four_qos(qos), retain, payload).expect(ROOM),
            Self::V5(client, _) => {
                client
                    .try_publish(topic, five_qos(qos), retain, Bytes::copy_from_slice(payload))
                    .expect(ROOM);
            }
        }
    }

    pub fn publish_with(&self, topic: &str, qos: u8, payload: &str, properties: five::PublishProperties) {
        let client = self.five();
        let payload = payload.to_owned();
        client
            .try_publish_with_properties(topic, five_qos(qos), false, payload, properties)
            .expect(ROOM);
    }

    pub fn subscribe(&self, filter: &str, qos: u8) {
        match self {
            Self::V311(client, _) => client.try_subscribe(filter, four_qos(qos)).expect(ROOM),
            Self::V5(client, _) => client.try_subscribe(filter, five_qos(qos)).expect(ROOM),
        }
    }

    pub fn subscribe_with(&self, path: &str, qos: u8, id: Option<usize>, options: impl FnOnce(&mut five::Filter)) {
        let mut filter = five::Filter::new(path, five_qos(qos));
        options(&mut filter);
        let properties = five::SubscribeProperties {
            id,
            user_properties: Vec::new(),
        };
        self.five()
            .try_subscribe_many_with_properties([filter], properties)
            .expect(ROOM);
    }

    pub fn unsubscribe(&self, filter: &str) {
        match self {
            Self::V311(client, _) => client.try_unsubscribe(filter).expect(ROOM),
            Self::V5(client, _) => client.try_unsubscribe(filter).expect(ROOM),
        }
    }

    /// Acknowledges and says which packet identifier that is.
    pub fn ack(&self, packet: &Packet) -> u16 {
        match (self, packet) {
            (Self::V311(client, _), Packet::V311(publish)) => {
                client.try_ack(publish).expect(ROOM);
                publish.pkid
            }
            (Self::V5(client, _), Packet::V5(publish)) => {
                client.try_ack(publish).expect(ROOM);
                publish.pkid
            }
            _ => panic!("this message came to another client"),
        }
    }

    pub fn disconnect(&self) {
        match self {
            Self::V311(client, _) => client.try_disconnect().expect(ROOM),
            Self::V5(client, _) => client.try_disconnect().expect(ROOM),
        }
    }

    fn five(&self) -> &v5::AsyncClient {
        match self {
            Self::V311(..) => panic!("MQTT 3.1.1 cannot say this"),
            Self::V5(client, _) => client,
        }
    }
}

const ROOM: &str = "a valid request, and room for it";

fn four_options(login: &Login) -> four::MqttOptions {
    let mut options = four::MqttOptions::new(&login.id, "127.0.0.1", login.port);
    options.set_clean_session(login.clean).set_manual_acks(true);
    options.set_keep_alive(Duration::from_secs(login.keep_alive_s.into()));
    options.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
    if let Some(Will {
        topic,
        payload,
        qos,
        retain,
        ..
    }) = &login.will
    {
        options.set_last_will(four::LastWill::new(topic, payload.clone(), four_qos(*qos), *retain));
    }
    options
}

fn five_options(login: &Login) -> v5::MqttOptions {
    let mut options = v5::MqttOptions::new(&login.id, "127.0.0.1", login.port);
    options.set_clean_start(login.clean).set_manual_acks(true);
    options.set_keep_alive(Duration::from_secs(login.keep_alive_s.into()));
    options.set_connection_timeout(super::super::PATIENCE.as_secs());
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options
        .set_session_expiry_interval(login.expiry_s)
        .set_receive_maximum(login.receive_max);
    options.set_max_packet_size(Some(PACKET_BYTES_MAX));
    if let Some(Will {
        topic,
        payload,
        qos,
        retain,
        delay_s,
    }) = &login.will
    {
        let properties = delay_s.map(|delay_s| five::LastWillProperties {
            delay_interval: Some(delay_s),
            payload_format_indicator: None,
            message_expiry_interval: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: Vec::new(),
        });
        options.set_last_will(five::LastWill::new(
            topic,
            payload.clone(),
            five_qos(*qos),
            *retain,
            properties,
        ));
    }
    options
}

fn four_qos(qos: u8) -> four::QoS {
    four::qos(qos).expect("0, 1 or 2")
}

fn five_qos(qos: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(qos).expect("0, 1 or 2")
}

fn sent_seen(sent: &Outgoing) -> Seen {
    match sent {
        Outgoing::Publish(_) => Seen::SentPublish,
        Outgoing::PubAck(id) | Outgoing::PubComp(id) => Seen::SentAck(*id),
        Outgoing::Disconnect => Seen::SentDisconnect,
        _ => Seen::Other,
    }
}

fn four_seen(packet: four::Packet) -> Seen {
    match packet {
        four::Packet::ConnAck(connack) => Seen::ConnAck(connack.session_present),
        four::Packet::Publish(publish) => Seen::Publish(Box::new(Received {
            topic: publish.topic.clone(),
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            identifiers: Vec::new(),
            expiry_s: None,
            packet: Packet::V311(publish),
        })),
        four::Packet::PubAck(_) | four::Packet::PubComp(_) => Seen::Acked("Success".to_owned()),
        four::Packet::SubAck(suback) => Seen::SubAck(suback.return_codes.iter().map(four_granted).collect()),
        four::Packet::UnsubAck(_) => Seen::UnsubAck,
        _ => Seen::Other,
    }
}

fn four_granted(code: &four::SubscribeReasonCode) -> Option<u8> {
    match code {
        four::SubscribeReasonCode::Success(qos) => Some(*qos as u8),
        four::SubscribeReasonCode::Failure => None,
    }
}

fn five_seen(packet: five::Packet) -> Seen {
    match packet {
        five::Packet::ConnAck(connack) => Seen::ConnAck(connack.session_present),
        five::Packet::Publish(publish) => {
            let properties = publish.properties.clone().unwrap_or_default();
            Seen::Publish(Box::new(Received {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos as u8,
                retain: publish.retain,
                dup: publish.dup,
                identifiers: properties.subscription_identifiers,
                expiry_s: properties.message_expiry_interval,
                packet: Packet::V5(publish),
            }))
        }
        five::Packet::PubAck(puback) => Seen::Acked(format!("{:?}", puback.reason)),
        five::Packet::PubComp(pubcomp) => Seen::Acked(format!("{:?}", pubcomp.reason)),
        five::Packet::PubRec(pubrec) => match format!("{:?}", pubrec.reason) {
            reason if matches!(reason.as_str(), "Success" | "NoMatchingSubscribers") => Seen::Other,
            reason => Seen::Acked(reason),
        },
        five::Packet::SubAck(suback) => Seen::SubAck(suback.return_codes.iter().map(five_granted).collect()),
        five::Packet::UnsubAck(_) => Seen::UnsubAck,
        _ => Seen::Other,
    }
}

fn five_granted(code: &five::SubscribeReasonCode) -> Option<u8> {
    match code {
        five::SubscribeReasonCode::Success(qos) => Some(*qos as u8),
        _ => None,
    }
}

fn five_gone(error: &v5::ConnectionError) -> Gone {
    let code = match error {
        v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect { reason_code, .. }) => {
            Some(*reason_code as u8)
        }
        _ => None,
    };
    Gone(error.to_string(), code)
}
