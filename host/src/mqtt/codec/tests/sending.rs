//! What leaves: bytes as the standard shows them, limits, shared encodings, properties as they came.

use super::*;
use crate::model::reason::Reason;
use crate::mqtt::codec::{Encoder, TooLarge};
use crate::mqtt::packet::{Ack, AckKind, ConnAck, Outgoing};
use Version::{V5, V311};

fn send(encoder: Encoder, packet: &Outgoing) -> Result<Vec<u8>, TooLarge> {
    let mut outbox = Outbox::new();
    encoder.encode(packet, &mut outbox).map(|()| written(&outbox))
}

fn limited(packet_bytes_max: usize) -> Encoder {
    Encoder {
        packet_bytes_max: Some(packet_bytes_max as u32),
        ..Encoder::new(V5)
    }
}

#[test]
fn a_publish_is_written_as_the_standard_shows_it() {
    let plain = copy(message("a/b", &b"x"[..], b"\x01\x01"));
    let qos_1 = Copy {
        qos: Qos::AtLeastOnce,
        packet_id: 10,
        retain: true,
        dup: true,
        ..plain.clone()
    };
    let own = Copy {
        alias: Some((2, false)),
        expiry_s: Some(7),
        identifiers: Arc::new([1, 128]),
        ..qos_1.clone()
    };
    for (version, copy, expected) in [
        (V311, &plain, &b"\x30\x06\x00\x03a/bx"[..]),
        (V5, &plain, b"\x30\x09\x00\x03a/b\x02\x01\x01x"),
        (V311, &qos_1, b"\x3B\x08\x00\x03a/b\x00\x0Ax"),
        (V5, &qos_1, b"\x3B\x0B\x00\x03a/b\x00\x0A\x02\x01\x01x"),
        (V311, &own, b"\x3B\x08\x00\x03a/b\x00\x0Ax"),
        (
            V5,
            &own,
            b"\x3B\x15\x00\x00\x00\x0A\x0F\x23\x00\x02\x02\x00\x00\x00\x07\x0B\x01\x0B\x80\x01\x01\x01x",
        ),
    ] {
        let bytes = send(Encoder::new(version), &Outgoing::Publish(copy.clone()));
        assert_eq!(bytes.as_deref(), Ok(expected), "{version:?}");
    }
}

#[test]
fn every_subscriber_gets_the_same_message_with_its_own_flags_and_identifier() {
    for payload_bytes in [10, 5000] {
        let messages = [b'a', b'b'].map(|byte| message("t/1", vec![byte; payload_bytes], b"\x26\0\x01k\0\x01v"));
        let shared = Arc::new(Run::new(messages.to_vec(), Vec::new()));
        for subscriber in 1..=20_u16 {
            for index in 0..2 {
                for (version, qos) in [
                    (V5, Qos::AtMostOnce),
                    (V5, Qos::ExactlyOnce),
                    (V311, Qos::AtMostOnce),
                    (V311, Qos::AtLeastOnce),
                ] {
                    let own = Copy {
                        run: shared.clone(),
                        index,
                        dup: qos != Qos::AtMostOnce && subscriber % 3 == 0,
                        qos,
                        retain: subscriber % 2 == 0,
                        packet_id: if qos == Qos::AtMostOnce { 0 } else { 500 + subscriber },
                        ..copy(messages[index].clone())
                    };
                    let alone = Copy {
                        run: Arc::new(Run::new(messages.to_vec(), Vec::new())),
                        ..own.clone()
                    };
                    let encoder = Encoder::new(version);
                    let bytes = send(encoder, &Outgoing::Publish(own));
                    assert!(
                        bytes == send(encoder, &Outgoing::Publish(alone)),
                        "subscriber {subscriber}, {version:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn large_payloads_are_referenced_and_small_ones_gathered() {
    let large = message("t", vec![1; 4096], b"");
    let mut outbox = Outbox::new();
    for message in [large.clone(), message("t", vec![2; 4095], b""), large.clone()] {
        Encoder::new(V5)
            .encode(&Outgoing::Publish(copy(message)), &mut outbox)
            .unwrap();
    }
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(outbox.slices(&mut slices), 4);
    assert_eq!(slices[1].as_ptr(), large.payload.as_ptr());
    assert_eq!(slices[3].as_ptr(), large.payload.as_ptr());
    assert_eq!(outbox.len(), slices.iter().map(|slice| slice.len()).sum::<usize>());
}

#[test]
fn what_is_too_large_for_the_client_is_not_written() {
    let many = |bytes| Outgoing::SubAck {
        packet_id: 1,
        reasons: vec![Reason::SUCCESS; bytes],
    };
    let cases = [
        (Outgoing::Publish(copy(message("a/b", vec![1; 20], b"\x01\x01"))), 30),
        (Outgoing::Publish(copy(message("a/b", vec![1; 5000], b""))), 5009),
        (
            Outgoing::Ack(Ack {
                kind: AckKind::PubAck,
                packet_id: 1,
                reason: Reason::SUCCESS,
            }),
            4,
        ),
        (
            Outgoing::Ack(Ack {
                kind: AckKind::PubComp,
                packet_id: 1,
                reason: Reason(0x92),
            }),
            5,
        ),
        (Outgoing::Pong, 2),
        (many(10), 15),
        (many(200), 206),
    ];
    for (packet, bytes) in cases {
        assert_eq!(
            send(limited(bytes), &packet).map(|written| written.len()),
            Ok(bytes),
            "{packet:?}"
        );
        let mut outbox = Outbox::new();
        let refused = limited(bytes - 1).encode(&packet, &mut outbox);
        assert_eq!(
            refused,
            Err(TooLarge {
                bytes,
                bytes_max: bytes - 1
            }),
            "{packet:?}"
        );
        assert!(outbox.is_empty(), "{packet:?} was begun");
    }
}

#[test]
fn a_refused_packet_leaves_what_stood_before_it() {
    let mut outbox = Outbox::new();
    let encoder = limited(20);
    encoder.encode(&Outgoing::Pong, &mut outbox).unwrap();
    let many = Outgoing::UnsubAck {
        packet_id: 1,
        reasons: vec![Reason::SUCCESS; 100],
    };
    encoder.encode(&many, &mut outbox).unwrap_err();
    encoder.encode(&Outgoing::Pong, &mut outbox).unwrap();
    assert_eq!(written(&outbox), b"\xD0\x00\xD0\x00");
}

/// [5:MQTT-3.2.2-19] [5:MQTT-3.14.2-3]
#[test]
fn a_reason_string_is_left_out_where_it_does_not_fit_or_is_not_wanted() {
    let bye = |text: &str| Outgoing::Disconnect {
        reason: Reason::SERVER_BUSY,
        text: Some(text.into()),
        server_reference: None,
    };
    let with_text = b"\xE0\x07\x89\x05\x1F\x00\x02hi".to_vec();
    let without = b"\xE0\x02\x89\x00".to_vec();
    let silent = Encoder {
        problem_info: false,
        ..Encoder::new(V5)
    };
    for (encoder, text, expected) in [
        (limited(9), "hi", Ok(with_text)),
        (limited(8), "hi", Ok(without.clone())),
        (silent, "hi", Ok(without.clone())),
        (Encoder::new(V5), &"x".repeat(70_000), Ok(without)),
        (limited(3), "hi", Err(TooLarge { bytes: 4, bytes_max: 3 })),
    ] {
        assert_eq!(send(encoder, &bye(text)), expected);
    }
    let refusal = ConnAck {
        session_present: true,
        reason: Reason::NOT_AUTHORIZED,
        text: Some("x".repeat(100)),
        session_expiry_s: None,
        receive_max: u16::MAX,
        packet_bytes_max: 100,
        qos_max: Qos::ExactlyOnce,
        assigned_client_id: None,
        topic_alias_max: 0,
        server_keep_alive_s: None,
        response_info: None,
        server_reference: None,
    };
    let bytes = send(limited(50), &Outgoing::ConnAck(Box::new(refusal)));
    assert_eq!(bytes.as_deref(), Ok(&b"\x20\x08\x00\x87\x05\x27\x00\x00\x00\x64"[..]));
}

/// [5:MQTT-3.1.2-29] [5:MQTT-3.5.2-2]
#[test]
fn a_refused_message_is_answered_with_what_to_do_where_that_fits_and_is_wanted() {
    let refused = Outgoing::Ack(Ack {
        kind: AckKind::PubRec,
        packet_id: 1,
        reason: Reason::NOT_AUTHORIZED,
    });
    let text = b"only the broker publishes below $SYS";
    let with_text = [b"\x50\x2B\x00\x01\x87\x27\x1F\x00\x24", &text[..]].concat();
    let without = b"\x50\x03\x00\x01\x87".to_vec();
    let silent = Encoder {
        problem_info: false,
        ..Encoder::new(V5)
    };
    for (encoder, expected) in [
        (Encoder::new(V5), with_text.clone()),
        (limited(45), with_text),
        (limited(44), without.clone()),
        (silent, without),
        (Encoder::new(V311), b"\x50\x02\x00\x01".to_vec()),
    ] {
        assert_eq!(send(encoder, &refused), Ok(expected));
    }
}

/// [5:MQTT-3.3.2-17] [5:MQTT-3.3.2-18]
#[test]
fn properties_leave_byte_for_byte_as_they_came() {
    const ALIAS: &[u8] = b"\x23\x00\x01";
    const EXPIRY: &[u8] = b"\x02\x00\x00\x00\x3C";
    const A: &[u8] = b"\x26\x00\x01a\x00\x01b\x01\x00\x26\x00\x01a\x00\x00";
    const B: &[u8] = b"\x03\x00\x01t\x08\x00\x03r/t\x09\x00\x02\x00\xFF";
    for (parts, kept, copied) in [
        (vec![], vec![], false),
        (vec![A], vec![A], false),
        (vec![ALIAS], vec![], false),
        (vec![A, B], vec![A, B], false),
        (vec![ALIAS, EXPIRY, A, B], vec![A, B], false),
        (vec![A, B, ALIAS], vec![A, B], false),
        (vec![EXPIRY, B, A, ALIAS], vec![B, A], false),
        (vec![A, EXPIRY, B], vec![A, B], true),
        (vec![ALIAS, A, EXPIRY, B], vec![A, B], true),
    ] {
        let section = parts.concat();
        let body = [b"\x00\x01t", &[section.len() as u8][..], &section, b"payload"].concat();
        let mut chunk = Bytes::from(packet(0x30, &body));
        let range = chunk.as_ptr_range();
        let frame = cut(&mut chunk, 1000).unwrap().unwrap();
        let Ok(Packet::Publish(publish)) = Decoder::new(V5).decode(frame) else {
            panic!("{parts:?}")
        };
        let properties = publish.properties.as_bytes();
        assert_eq!(properties[..], kept.concat(), "{parts:?}");
        assert!(
            properties.is_empty() || range.contains(&properties.as_ptr()) != copied,
            "{parts:?}"
        );
        let message = Message {
            properties: publish.properties,
            ..message("t", publish.payload, b"")
        };
        let bytes = send(Encoder::new(V5), &Outgoing::Publish(copy(message))).unwrap();
        let expected = [
            b"\x00\x01t",
            &[kept.concat().len() as u8][..],
            &kept.concat(),
            b"payload",
        ]
        .concat();
        assert_eq!(bytes, packet(0x30, &expected));
    }
}
