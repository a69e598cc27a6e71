//! The decoder crate as the client: what it writes we read, and acknowledgements go both ways, in both
//! versions. What else it reads of ours stands in `answers`.

use std::num::{NonZeroU16, NonZeroU32};

use bytestring::ByteString;
use rmqtt_codec::{types, v3, v5};
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::*;
use crate::model::reason::Reason;
use crate::mqtt::codec::{Encoder, connect};
use crate::mqtt::packet::{Ack, AckKind, Outgoing};
use Version::{V5, V31, V311};

const ID: NonZeroU16 = NonZeroU16::new(0x1234).unwrap();
const KINDS: [AckKind; 4] = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp];

fn from_v5_client(packet: v5::Packet) -> Packet {
    let mut bytes = BytesMut::new();
    v5::Codec::default().encode(packet, &mut bytes).unwrap();
    decode(V5, &bytes).unwrap()
}

fn from_v3_client(packet: v3::Packet) -> Packet {
    let mut bytes = BytesMut::new();
    v3::Codec::default().encode(packet, &mut bytes).unwrap();
    decode(V311, &bytes).unwrap()
}

pub(super) fn send(version: Version, packet: &Outgoing) -> BytesMut {
    let mut outbox = Outbox::new();
    Encoder::new(version).encode(packet, &mut outbox).unwrap();
    BytesMut::from(&written(&outbox)[..])
}

pub(super) fn to_v5_client(packet: &Outgoing) -> v5::Packet {
    let mut bytes = send(V5, packet);
    let packet = v5::Codec::default().decode(&mut bytes).unwrap().unwrap().0;
    assert!(bytes.is_empty(), "bytes behind {packet:?}");
    packet
}

pub(super) fn to_v3_client(packet: &Outgoing) -> v3::Packet {
    let mut bytes = send(V311, packet);
    let packet = v3::Codec::default().decode(&mut bytes).unwrap().unwrap().0;
    assert!(bytes.is_empty(), "bytes behind {packet:?}");
    packet
}

pub(super) fn published(
    topic: &str,
    qos: types::QoS,
    properties: Option<v5::PublishProperties>,
) -> Box<types::Publish> {
    Box::new(types::Publish {
        dup: qos != types::QoS::AtMostOnce,
        retain: true,
        qos,
        topic: topic.into(),
        packet_id: (qos != types::QoS::AtMostOnce).then_some(ID),
        payload: Bytes::from_static(b"\x00\xFFpayload"),
        properties,
    })
}

#[test]
fn connect_of_a_client_is_read() {
    let will = v5::LastWill {
        qos: types::QoS::AtLeastOnce,
        retain: true,
        topic: "will".into(),
        message: Bytes::from_static(b"gone"),
        will_delay_interval_sec: Some(9),
        correlation_data: Some(Bytes::from_static(b"c")),
        message_expiry_interval: NonZeroU32::new(7),
        content_type: Some("text".into()),
        user_properties: vec![("k".into(), "v".into())],
        is_utf8_payload: Some(true),
        response_topic: Some("answer".into()),
    };
    let packet = v5::Connect {
        clean_start: true,
        keep_alive: 30,
        session_expiry_interval_secs: 5,
        receive_max: NonZeroU16::new(20),
        topic_alias_max: 3,
        max_packet_size: NonZeroU32::new(1000),
        request_problem_info: false,
        client_id: "c".into(),
        username: Some("u".into()),
        password: Some(Bytes::from_static(b"p")),
        last_will: Some(will),
        ..v5::Connect::default()
    };
    let mut bytes = BytesMut::new();
    v5::Codec::default().encode(packet.into(), &mut bytes).unwrap();
    let read = connect(&frame(&bytes).unwrap()).unwrap();
    assert_eq!(
        (read.version, read.keep_alive_s, read.session_expiry_s),
        (V5, 30, Some(5))
    );
    assert_eq!(
        (read.receive_max, read.topic_alias_max, read.packet_bytes_max),
        (20, 3, Some(1000))
    );
    assert!(read.clean_start && !read.request_problem_info);
    let will = read.will.unwrap();
    assert_eq!(
        (will.topic.as_str(), &will.payload[..], will.delay_s, will.expiry_s),
        ("will", &b"gone"[..], 9, Some(7))
    );
    let ids: Vec<u8> = will.properties.iter().map(|property| property.id).collect();
    assert_eq!(ids, [0x01, 0x03, 0x08, 0x09, 0x26]);

    for (version, level) in [(V31, types::MQTT_LEVEL_31), (V311, types::MQTT_LEVEL_311)] {
        let packet = v3::Connect {
            protocol: types::Protocol(level),
            client_id: "c".into(),
            username: Some("u".into()),
            ..v3::Connect::default()
        };
        let mut bytes = BytesMut::new();
        v3::Codec::default().encode(packet.into(), &mut bytes).unwrap();
        // The crate writes level 4 beside either name.
        let name_end = if version == V31 { 10 } else { 8 };
        bytes[name_end] = level;
        let read = connect(&frame(&bytes).unwrap()).unwrap();
        assert_eq!(
            (read.version, read.client_id, read.username),
            (version, "c".into(), Some(ByteString::from("u")))
        );
    }
}

#[test]
fn publish_of_a_client_is_read() {
    for qos in [types::QoS::AtMostOnce, types::QoS::AtLeastOnce, types::QoS::ExactlyOnce] {
        let properties = v5::PublishProperties {
            message_expiry_interval: NonZeroU32::new(60),
            user_properties: vec![("k".into(), "v".into())],
            ..v5::PublishProperties::default()
        };
        let sent = published("a/b", qos, Some(properties));
        let with_properties = from_v5_client(v5::Packet::Publish(sent));
        let plain = from_v3_client(v3::Packet::Publish(published("a/b", qos, None)));
        for (packet, expiry_s, section) in [
            (with_properties, Some(60), &b"\x26\0\x01k\0\x01v"[..]),
            (plain, None, b""),
        ] {
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!(publish.topic.as_ref().map(Topic::as_str), Some("a/b"));
            assert_eq!(
                (publish.qos as u8, publish.dup, publish.retain),
                (qos.value(), qos.value() > 0, true)
            );
            assert_eq!(publish.packet_id, if qos.value() == 0 { 0 } else { 0x1234 });
            assert_eq!(
                (publish.expiry_s, &publish.properties.as_bytes()[..]),
                (expiry_s, section)
            );
            assert_eq!(&publish.payload[..], b"\x00\xFFpayload");
        }
    }
}

#[test]
fn subscribe_and_unsubscribe_of_a_client_are_read() {
    let options = v5::SubscriptionOptions {
        qos: types::QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: v5::RetainHandling::NoAtSubscribe,
    };
    let shared = v5::SubscriptionOptions {
        no_local: false,
        ..options
    };
    let packet = from_v5_client(v5::Packet::Subscribe(v5::Subscribe {
        packet_id: ID,
        id: NonZeroU32::new(300),
        user_properties: vec![("k".into(), "v".into())],
        topic_filters: vec![("a/#".into(), options), ("$share/g/b".into(), shared)],
    }));
    let Packet::Subscribe(subscribe) = packet else {
        panic!("{packet:?}")
    };
    assert_eq!((subscribe.packet_id, subscribe.identifier), (0x1234, Some(300)));
    let [Ok(first), Ok(second)] = &subscribe.filters[..] else {
        panic!("{subscribe:?}")
    };
    assert_eq!(
        (first.filter.as_str(), first.share.as_deref(), first.qos),
        ("a/#", None, Qos::AtLeastOnce)
    );
    assert!(first.no_local && first.retain_as_published);
    assert_eq!((first.retain_handling, first.identifier), (2, Some(300)));
    assert_eq!((second.filter.as_str(), second.share.as_deref()), ("b", Some("g")));

    let filters = vec![("a".into(), types::QoS::ExactlyOnce)];
    let packet = from_v3_client(v3::Packet::Subscribe {
        packet_id: ID,
        topic_filters: filters,
    });
    let Packet::Subscribe(subscribe) = packet else {
        panic!("{packet:?}")
    };
    assert_eq!(
        subscribe.filters[0].as_ref().map(|one| (one.filter.as_str(), one.qos)),
        Ok(("a", Qos::ExactlyOnce))
    );

    let topic_filters: Vec<ByteString> = vec!["a".into(), "$share/g/b".into(), "a/#/b".into()];
    let user_properties = Vec::new();
    let of_v5 = v5::Unsubscribe {
        packet_id: ID,
        user_properties,
        topic_filters: topic_filters.clone(),
    };
    let of_v5 = from_v5_client(of_v5.into());
    assert_eq!(
        of_v5,
        from_v3_client(v3::Packet::Unsubscribe {
            packet_id: ID,
            topic_filters
        })
    );
    let Packet::Unsubscribe(unsubscribe) = of_v5 else {
        panic!("{of_v5:?}")
    };
    assert_eq!(
        unsubscribe.filters[1]
            .as_ref()
            .map(|(group, filter)| (group.as_deref(), filter.as_str())),
        Ok((Some("g"), "b"))
    );
    assert!(unsubscribe.filters[2].is_err());
}

#[test]
fn the_small_packets_of_a_client_are_read() {
    assert_eq!(from_v5_client(v5::Packet::PingRequest), Packet::Ping);
    assert_eq!(from_v3_client(v3::Packet::PingRequest), Packet::Ping);
    let Packet::Disconnect(disconnect) = from_v3_client(v3::Packet::Disconnect) else {
        panic!("no DISCONNECT")
    };
    assert_eq!(
        (disconnect.reason, disconnect.session_expiry_s),
        (Reason::SUCCESS, None)
    );
    let packet = v5::Disconnect {
        session_expiry_interval_secs: Some(0),
        reason_string: Some("bye".into()),
        ..v5::Disconnect::new(v5::DisconnectReasonCode::DisconnectWithWillMessage)
    };
    let Packet::Disconnect(disconnect) = from_v5_client(packet.into()) else {
        panic!("no DISCONNECT")
    };
    assert_eq!(
        (disconnect.reason, disconnect.session_expiry_s),
        (Reason::DISCONNECT_WITH_WILL, Some(0))
    );
    let packet = v5::Auth {
        reason_code: v5::AuthReasonCode::ReAuth,
        auth_method: Some("m".into()),
        auth_data: Some(Bytes::from_static(b"d")),
        ..v5::Auth::default()
    };
    assert_eq!(from_v5_client(packet.into()), Packet::Auth(Reason(0x19)));
}

#[test]
fn acknowledgements_go_both_ways() {
    for kind in KINDS {
        let errors: &[u8] = match kind {
            AckKind::PubAck | AckKind::PubRec => &[0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
            AckKind::PubRel | AckKind::PubComp => &[0x92],
        };
        for reason in errors.iter().map(|code| Reason(*code)).chain([Reason::SUCCESS]) {
            let ack = Ack {
                kind,
                packet_id: 0x1234,
                reason,
            };
            let read = to_v5_client(&Outgoing::Ack(ack));
            assert_eq!(from_v5_client(read), Packet::Ack(ack));
        }
        let ack = Ack {
            kind,
            packet_id: 0x1234,
            reason: Reason::SUCCESS,
        };
        let read = to_v3_client(&Outgoing::Ack(ack));
        assert_eq!(from_v3_client(read), Packet::Ack(ack));
    }
}
