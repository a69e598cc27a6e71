//! rumqttc's MQTT 3.1.1, in our words.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::Publish;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Incoming, LastWill, MqttOptions, Outgoing, QoS, StateError,
    SubscribeFilter, SubscribeReasonCode,
};

use super::arguments::Connection;
use super::{Ended, Event, Letter, PACKET_BYTES_MAX, WINDOW, not_sent, reason, v5};
use crate::command::Failure;
use crate::model::message::Qos;

pub(super) fn options(connection: &Connection) -> MqttOptions {
    let mut options = MqttOptions::new(connection.client_id(), connection.bracketed_host(), connection.port);
    options
        .set_keep_alive(Duration::from_secs(connection.keepalive.into()))
        .set_clean_session(!connection.disable_clean_session)
        .set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize)
        .set_inflight(WINDOW)
        .set_manual_acks(true);
    if let Some(username) = &connection.username {
        options.set_credentials(username, connection.password.as_deref().unwrap_or_default());
    }
    if let Some(will) = connection.will() {
        options.set_last_will(LastWill::new(will.topic, will.payload, qos(will.qos), will.retain));
    }
    options
}

pub(super) fn publish(client: &AsyncClient, letter: &Letter, payload: Bytes) -> Result<(), Failure> {
    client
        .try_publish(letter.topic.clone(), qos(letter.qos), letter.retain, payload)
        .map_err(not_sent)
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String], asked: Qos) -> Result<(), Failure> {
    let filters = filters
        .iter()
        .map(|filter| SubscribeFilter::new(filter.clone(), qos(asked)));
    client.try_subscribe_many(filters).map_err(not_sent)
}

/// Of a message in MQTT 5's form, its QoS and packet id are what an acknowledgement needs.
pub(super) fn ack(client: &AsyncClient, message: &Publish) -> Result<(), Failure> {
    let answered = match message.qos {
        v5::QoS::AtMostOnce => QoS::AtMostOnce,
        v5::QoS::AtLeastOnce => QoS::AtLeastOnce,
        v5::QoS::ExactlyOnce => QoS::ExactlyOnce,
    };
    let mut answer = rumqttc::Publish::from_bytes("", answered, Bytes::new());
    answer.pkid = message.pkid;
    client.try_ack(&answer).map_err(not_sent)
}

pub(super) fn event(event: rumqttc::Event) -> Event {
    match event {
        rumqttc::Event::Incoming(packet) => received(packet),
        rumqttc::Event::Outgoing(packet) => sent(&packet),
    }
}

/// What rumqttc says of what it sends is the same for both versions.
pub(super) fn sent(packet: &Outgoing) -> Event {
    match packet {
        Outgoing::Publish(0) => Event::Sent,
        Outgoing::PubAck(_) | Outgoing::PubComp(_) => Event::Acknowledged,
        other => Event::Detail(format!("sent {other:?}")),
    }
}

fn received(packet: Incoming) -> Event {
    match packet {
        Incoming::ConnAck(_) => Event::Connected,
        Incoming::PubAck(_) | Incoming::PubComp(_) => Event::Settled(Ok(())),
        Incoming::SubAck(answer) => Event::Subscribed(answer.return_codes.iter().map(granted).collect()),
        Incoming::Publish(message) => Event::Message(in_v5_form(message)),
        other => Event::Detail(format!("received {other:?}")),
    }
}

fn granted(code: &SubscribeReasonCode) -> Result<(), String> {
    match code {
        SubscribeReasonCode::Success(_) => Ok(()),
        SubscribeReasonCode::Failure => Err("failure".to_owned()),
    }
}

fn in_v5_form(message: rumqttc::Publish) -> Publish {
    Publish {
        dup: message.dup,
        qos: match message.qos {
            QoS::AtMostOnce => v5::QoS::AtMostOnce,
            QoS::AtLeastOnce => v5::QoS::AtLeastOnce,
            QoS::ExactlyOnce => v5::QoS::ExactlyOnce,
        },
        retain: message.retain,
        topic: message.topic.into(),
        pkid: message.pkid,
        payload: message.payload,
        properties: None,
    }
}

pub(super) fn ended(error: ConnectionError) -> Ended {
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::RefusedProtocolVersion) => {
            Ended::Refused("it does not speak MQTT 3.1.1; try -V 5".to_owned())
        }
        ConnectionError::ConnectionRefused(code) => Ended::Refused(reason(code, None)),
        ConnectionError::Io(error) => Ended::Broken(error.to_string()),
        ConnectionError::NetworkTimeout => Ended::Broken("no answer in time".to_owned()),
        ConnectionError::MqttState(StateError::ConnectionAborted) => Ended::Broken("the broker closed it".to_owned()),
        ConnectionError::MqttState(StateError::AwaitPingResp) => Ended::Broken("no answer to a ping".to_owned()),
        other => Ended::Broken(other.to_string()),
    }
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}
