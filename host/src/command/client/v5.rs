//! rumqttc's MQTT 5, in our words.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter, LastWill, PubAckReason, PubCompReason, PubRecReason, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Incoming, MqttOptions, StateError};

use super::arguments::Connection;
use super::{Ended, Event, Letter, PACKET_BYTES_MAX, WINDOW, not_sent, reason, v3};
use crate::command::Failure;
use crate::model::message::Qos;

pub(super) use rumqttc::v5::mqttbytes::QoS;

pub(super) fn options(connection: &Connection) -> MqttOptions {
    let mut options = MqttOptions::new(connection.client_id(), connection.bracketed_host(), connection.port);
    options
        .set_connect_properties(ConnectProperties::new())
        .set_keep_alive(Duration::from_secs(connection.keepalive.into()))
        .set_clean_start(!connection.disable_clean_session)
        .set_session_expiry_interval(connection.session_expiry())
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_outgoing_inflight_upper_limit(WINDOW)
        .set_manual_acks(true);
    if let Some(username) = &connection.username {
        options.set_credentials(username, connection.password.as_deref().unwrap_or_default());
    }
    if let Some(will) = connection.will() {
        options.set_last_will(LastWill::new(
            will.topic,
            will.payload,
            qos(will.qos),
            will.retain,
            None,
        ));
    }
    options
}

pub(super) fn publish(client: &AsyncClient, letter: &Letter, payload: Bytes) -> Result<(), Failure> {
    let (topic, qos, properties) = (letter.topic.clone(), qos(letter.qos), letter.properties.clone());
    let properties = properties.unwrap_or_default();
    client
        .try_publish_with_properties(topic, qos, letter.retain, payload, properties)
        .map_err(not_sent)
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String], asked: Qos) -> Result<(), Failure> {
    let filters = filters.iter().map(|filter| Filter::new(filter.clone(), qos(asked)));
    client.try_subscribe_many(filters).map_err(not_sent)
}

pub(super) fn event(event: rumqttc::v5::Event) -> Event {
    match event {
        rumqttc::v5::Event::Incoming(packet) => received(packet),
        rumqttc::v5::Event::Outgoing(packet) => v3::sent(&packet),
    }
}

fn received(packet: Incoming) -> Event {
    match packet {
        Incoming::ConnAck(_) => Event::Connected,
        Incoming::PubAck(ack) => Event::Settled(match ack.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Ok(()),
            refusal => Err(reason(
                refusal,
                ack.properties.and_then(|all| all.reason_string).as_ref(),
            )),
        }),
        Incoming::PubRec(ack) => match ack.reason {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Event::Detail("received PUBREC".to_owned()),
            refusal => {
                let text = ack.properties.and_then(|all| all.reason_string);
                Event::Settled(Err(reason(refusal, text.as_ref())))
            }
        },
        Incoming::PubComp(ack) => Event::Settled(match ack.reason {
            PubCompReason::Success => Ok(()),
            refusal => Err(reason(refusal, None)),
        }),
        Incoming::SubAck(answer) => Event::Subscribed(answer.return_codes.iter().map(granted).collect()),
        Incoming::Publish(message) => Event::Message(message),
        other => Event::Detail(format!("received {other:?}")),
    }
}

fn granted(code: &SubscribeReasonCode) -> Result<(), String> {
    match code {
        SubscribeReasonCode::Success(_) => Ok(()),
        refusal => Err(reason(refusal, None)),
    }
}

pub(super) fn ended(error: ConnectionError) -> Ended {
    match error {
        ConnectionError::ConnectionRefused(code) => Ended::Refused(reason(code, None)),
        ConnectionError::Io(error) => Ended::Broken(error.to_string()),
        ConnectionError::Timeout(_) => Ended::Broken("no answer in time".to_owned()),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => Ended::Broken(format!(
            "the broker closed it: {}",
            reason(reason_code, reason_string.as_ref())
        )),
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
