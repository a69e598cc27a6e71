//! The decoder crate as the client reads CONNACK, SUBACK, UNSUBACK, DISCONNECT and PUBLISH of ours.

use std::num::{NonZeroU16, NonZeroU32};

use rmqtt_codec::{types, v3, v5};

use super::round_trips::{published, send, to_v3_client, to_v5_client};
use super::*;
use crate::model::reason::Reason;
use crate::mqtt::codec::Encoder;
use crate::mqtt::packet::{ConnAck, Outgoing};
use Version::{V5, V31, V311};

#[test]
fn a_client_reads_our_connack() {
    let ack = ConnAck {
        session_present: true,
        reason: Reason::SUCCESS,
        text: Some("welcome".into()),
        session_expiry_s: Some(0),
        receive_max: 100,
        packet_bytes_max: 1 << 20,
        qos_max: Qos::AtLeastOnce,
        assigned_client_id: Some("auto-1".into()),
        topic_alias_max: 16,
        server_keep_alive_s: Some(45),
        response_info: Some("replies/".into()),
        server_reference: Some("other.example:1883".into()),
    };
    let v5::Packet::ConnectAck(read) = to_v5_client(&Outgoing::ConnAck(Box::new(ack.clone()))) else {
        panic!("no CONNACK")
    };
    assert!(read.session_present);
    assert_eq!(
        (
            read.session_expiry_interval_secs,
            read.receive_max.get(),
            read.max_packet_size
        ),
        (Some(0), 100, Some(1 << 20))
    );
    assert_eq!(
        (
            read.assigned_client_id.as_deref(),
            read.topic_alias_max,
            read.server_keepalive_sec
        ),
        (Some("auto-1"), 16, Some(45))
    );
    assert_eq!(read.reason_string.as_deref(), Some("welcome"));
    assert_eq!(
        (read.response_info.as_deref(), read.server_reference.as_deref()),
        (Some("replies/"), Some("other.example:1883"))
    );
    assert_eq!(read.max_qos, types::QoS::AtLeastOnce);

    for (reason, code) in [
        (0x00, 0),
        (0x84, 1),
        (0x85, 2),
        (0x88, 3),
        (0x89, 3),
        (0x86, 4),
        (0x87, 5),
        (0x8A, 5),
        (0x8C, 5),
        (0x97, 3),
    ] {
        let ack = ConnAck {
            reason: Reason(reason),
            ..ack.clone()
        };
        let session_present = u8::from(reason == 0);
        assert_eq!(
            &send(V311, &Outgoing::ConnAck(Box::new(ack.clone())))[..],
            [0x20, 2, session_present, code]
        );
        // The byte of the session flag is reserved in MQTT 3.1.
        assert_eq!(
            &send(V31, &Outgoing::ConnAck(Box::new(ack.clone())))[..],
            [0x20, 2, 0, code]
        );
        let v5 = send(V5, &Outgoing::ConnAck(Box::new(ack)));
        assert_eq!(v5[2..4], [session_present, reason]);
    }
}

/// As it is written to a client that does not want reason strings.
fn quietly(packet: &Outgoing) -> Vec<u8> {
    let encoder = Encoder {
        problem_info: false,
        ..Encoder::new(V5)
    };
    let mut outbox = Outbox::new();
    encoder.encode(packet, &mut outbox).unwrap();
    written(&outbox)
}

/// [5:MQTT-3.9.3-2] [5:MQTT-3.11.3-2] [3:MQTT-3.9.3-2]
#[test]
fn a_client_reads_our_answers() {
    let reasons = vec![
        Reason(0),
        Reason(2),
        Reason::TOPIC_FILTER_INVALID,
        Reason::QUOTA_EXCEEDED,
        Reason::BANNED,
    ];
    let sub_ack = Outgoing::SubAck {
        packet_id: 0x1234,
        reasons: reasons.clone(),
    };
    // A reason that SUBACK cannot carry becomes an unspecified error.
    assert_eq!(quietly(&sub_ack), b"\x90\x08\x12\x34\x00\x00\x02\x8F\x97\x80");
    let v5::Packet::SubscribeAck(read) = to_v5_client(&sub_ack) else {
        panic!("no SUBACK")
    };
    let text = read.reason_string.expect("two filters were refused");
    assert!(
        text.contains("mqtt.max_topic_levels"),
        "{text}: about the first of them"
    );
    assert_eq!(&send(V311, &sub_ack)[..], b"\x90\x07\x12\x34\x00\x02\x80\x80\x80");
    let unsub_ack = Outgoing::UnsubAck {
        packet_id: 0x1234,
        reasons: vec![Reason(0), Reason(0x11), Reason(0x8F)],
    };
    assert_eq!(quietly(&unsub_ack), b"\xB0\x06\x12\x34\x00\x00\x11\x8F");
    assert_eq!(&send(V311, &unsub_ack)[..], b"\xB0\x02\x12\x34");
    assert_eq!(to_v5_client(&Outgoing::Pong), v5::Packet::PingResponse);
    assert_eq!(to_v3_client(&Outgoing::Pong), v3::Packet::PingResponse);
    let bye = Outgoing::Disconnect {
        reason: Reason::SESSION_TAKEN_OVER,
        text: Some("elsewhere".into()),
        server_reference: Some("other.example".into()),
    };
    let v5::Packet::Disconnect(read) = to_v5_client(&bye) else {
        panic!("no DISCONNECT")
    };
    assert_eq!(
        (
            read.reason_code,
            read.reason_string.as_deref(),
            read.server_reference.as_deref()
        ),
        (
            v5::DisconnectReasonCode::SessionTakenOver,
            Some("elsewhere"),
            Some("other.example")
        )
    );
    assert!(send(V311, &bye).is_empty());
}

#[test]
fn a_client_reads_our_publish() {
    let message = message("a/b", &b"\x00\xFFpayload"[..], b"\x01\x01\x26\0\x01k\0\x01v");
    for (qos, sent) in [
        (Qos::AtMostOnce, types::QoS::AtMostOnce),
        (Qos::ExactlyOnce, types::QoS::ExactlyOnce),
    ] {
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { 0x1234 };
        let dup = qos != Qos::AtMostOnce;
        let plain = Copy {
            dup,
            qos,
            retain: true,
            packet_id,
            ..copy(message.clone())
        };
        assert_eq!(
            to_v3_client(&Outgoing::Publish(plain.clone())),
            v3::Packet::Publish(published("a/b", sent, None))
        );
        let properties = v5::PublishProperties {
            topic_alias: NonZeroU16::new(3),
            message_expiry_interval: NonZeroU32::new(60),
            subscription_ids: vec![NonZeroU32::new(1).unwrap(), NonZeroU32::new(300).unwrap()],
            user_properties: vec![("k".into(), "v".into())],
            is_utf8_payload: true,
            ..v5::PublishProperties::default()
        };
        let full = Copy {
            alias: Some((3, true)),
            expiry_s: Some(60),
            identifiers: Arc::new([1, 300]),
            ..plain
        };
        let read = to_v5_client(&Outgoing::Publish(full.clone()));
        assert_eq!(
            read,
            v5::Packet::Publish(published("a/b", sent, Some(properties.clone())))
        );
        let aliased = Copy {
            alias: Some((3, false)),
            ..full
        };
        let read = to_v5_client(&Outgoing::Publish(aliased));
        assert_eq!(read, v5::Packet::Publish(published("", sent, Some(properties))));
    }
}
