//! One case for each rule of the standard that a client can break after CONNECT, and the reason it hears.

use super::*;
use crate::model::reason::Reason;
use crate::model::topic::TopicError;
use Version::{V5, V31, V311};

const MALFORMED: Reason = Reason::MALFORMED_PACKET;
const PROTOCOL: Reason = Reason::PROTOCOL_ERROR;

/// What is refused: what it is, the version of the client, the packet, the reason.
#[rustfmt::skip] // a table: one rule a line
fn refused() -> Vec<(&'static str, Version, Vec<u8>, Reason)> {
    let publish = |properties: &[u8]| {
        let mut body = b"\x00\x01t".to_vec();
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
        packet(0x30, &body)
    };
    vec![
        // 1.5.4, UTF-8 strings
        ("U+0000 in a topic", V5, packet(0x30, b"\x00\x03a\0b\x00"), MALFORMED),
        ("U+0000 in a topic", V311, packet(0x30, b"\x00\x03a\0b"), MALFORMED),
        ("ill-formed UTF-8 in a topic", V5, packet(0x30, b"\x00\x02\xC3\x28\x00"), MALFORMED),
        ("ill-formed UTF-8 in a topic", V31, packet(0x30, b"\x00\x02\xC3\x28"), MALFORMED),
        ("a surrogate in a topic", V5, packet(0x30, b"\x00\x03\xED\xA0\x80\x00"), MALFORMED),
        ("an overlong form in a topic", V5, packet(0x30, b"\x00\x02\xC0\x80\x00"), MALFORMED),
        ("U+0000 in a filter", V5, packet(0x82, b"\x00\x01\x00\x00\x01\0\x00"), MALFORMED),
        ("U+0000 in a filter", V311, packet(0x82, b"\x00\x01\x00\x01\0\x00"), MALFORMED),
        ("U+0000 in an unwanted filter", V5, packet(0xA2, b"\x00\x01\x00\x00\x01\0"), MALFORMED),
        ("ill-formed UTF-8 in a filter", V5, packet(0x82, b"\x00\x01\x00\x00\x01\xFF\x00"), MALFORMED),
        ("a surrogate in an unwanted filter", V5, packet(0xA2, b"\x00\x01\x00\x00\x03\xED\xBF\xBF"), MALFORMED),
        ("U+0000 in a property's name", V5, publish(b"\x26\x00\x01\0\x00\x01v"), MALFORMED),
        ("ill-formed UTF-8 in a property's value", V5, publish(b"\x26\x00\x01k\x00\x01\xFE"), MALFORMED),
        ("U+0000 in a content type", V5, publish(b"\x03\x00\x01\0"), MALFORMED),
        ("ill-formed UTF-8 in a response topic", V5, publish(b"\x08\x00\x01\xFF"), MALFORMED),
        ("U+0000 in an ack's reason string", V5, packet(0x40, b"\x00\x01\x00\x04\x1F\x00\x01\0"), MALFORMED),
        ("U+0000 in DISCONNECT's reason", V5, packet(0xE0, b"\x00\x04\x1F\x00\x01\0"), MALFORMED),
        ("U+0000 in AUTH's method", V5, packet(0xF0, b"\x18\x04\x15\x00\x01\0"), MALFORMED),
        // 3.3, PUBLISH
        ("+ in a topic", V5, packet(0x30, b"\x00\x03a/+\x00"), Reason::TOPIC_NAME_INVALID),
        ("# in a topic", V311, packet(0x30, b"\x00\x01#"), Reason::TOPIC_NAME_INVALID),
        ("neither topic nor alias", V5, packet(0x30, b"\x00\x00\x00"), PROTOCOL),
        ("no topic", V311, packet(0x30, b"\x00\x00"), PROTOCOL),
        ("alias 0", V5, publish(b"\x23\x00\x00"), Reason::TOPIC_ALIAS_INVALID),
        ("a wildcard in a response topic", V5, publish(b"\x08\x00\x01+"), PROTOCOL),
        ("an empty response topic", V5, publish(b"\x08\x00\x00"), PROTOCOL),
        ("payload format 2", V5, publish(b"\x01\x02"), PROTOCOL),
        ("a client's subscription identifier", V5, publish(b"\x0B\x01"), PROTOCOL),
        ("QoS 3", V5, packet(0x36, b"\x00\x01t\x00\x01\x00"), MALFORMED),
        ("QoS 3", V311, packet(0x36, b"\x00\x01t\x00\x01"), MALFORMED),
        ("DUP with QoS 0", V5, packet(0x38, b"\x00\x01t\x00"), MALFORMED),
        ("DUP with QoS 0", V311, packet(0x38, b"\x00\x01t"), MALFORMED),
        ("packet identifier 0", V5, packet(0x32, b"\x00\x01t\x00\x00\x00"), PROTOCOL),
        ("packet identifier 0", V311, packet(0x34, b"\x00\x01t\x00\x00"), PROTOCOL),
        ("no packet identifier", V311, packet(0x32, b"\x00\x01t"), MALFORMED),
        ("a topic that is cut off", V5, packet(0x30, b"\x00\x09t\x00"), MALFORMED),
        ("no property length", V5, packet(0x30, b"\x00\x01t"), MALFORMED),
        ("properties that are cut off", V5, packet(0x30, b"\x00\x01t\x09\x01\x01"), MALFORMED),
        // 2.2.2, properties
        ("a property twice", V5, publish(b"\x01\x00\x01\x00"), PROTOCOL),
        ("an alias twice", V5, publish(b"\x23\x00\x01\x23\x00\x01"), PROTOCOL),
        ("an expiry twice", V5, publish(b"\x02\x00\x00\x00\x00\x02\x00\x00\x00\x00"), PROTOCOL),
        ("a property of CONNECT in a PUBLISH", V5, publish(b"\x21\x00\x01"), MALFORMED),
        ("a will delay in a PUBLISH", V5, publish(b"\x18\x00\x00\x00\x01"), MALFORMED),
        ("a property of CONNACK in a PUBLISH", V5, publish(b"\x24\x01"), MALFORMED),
        ("an unknown property", V5, publish(b"\x7E\x01"), MALFORMED),
        ("an unknown property above 127", V5, publish(b"\xFF\x01"), MALFORMED),
        ("a property that is cut off", V5, publish(b"\x03\x00\x05ab"), MALFORMED),
        ("a padded property length", V5, packet(0x30, b"\x00\x01t\x80\x00"), MALFORMED),
        ("a property length of five bytes", V5, packet(0x30, b"\x00\x01t\x80\x80\x80\x80\x00"), MALFORMED),
        ("an alias in an ack", V5, packet(0x40, b"\x00\x01\x00\x03\x23\x00\x01"), MALFORMED),
        ("a reason string twice", V5, packet(0x40, b"\x00\x01\x00\x08\x1F\x00\x01a\x1F\x00\x01a"), PROTOCOL),
        ("a subscription identifier to unsubscribe", V5, packet(0xA2, b"\x00\x01\x02\x0B\x01\x00\x01a"), MALFORMED),
        ("a payload format in a SUBSCRIBE", V5, packet(0x82, b"\x00\x01\x02\x01\x01\x00\x01a\x00"), MALFORMED),
        // 3.4 to 3.7, acknowledgements
        ("PUBACK 0", V5, packet(0x40, b"\x00\x00"), PROTOCOL),
        ("PUBREC 0", V311, packet(0x50, b"\x00\x00"), PROTOCOL),
        ("PUBREL 0", V5, packet(0x62, b"\x00\x00\x00"), PROTOCOL),
        ("PUBCOMP 0", V311, packet(0x70, b"\x00\x00"), PROTOCOL),
        ("an ack without identifier", V5, packet(0x40, b"\x01"), MALFORMED),
        ("PUBREL's reason in a PUBACK", V5, packet(0x40, b"\x00\x01\x92"), PROTOCOL),
        ("SUBACK's reason in a PUBREC", V5, packet(0x50, b"\x00\x01\x8F"), PROTOCOL),
        ("PUBACK's reason in a PUBREL", V5, packet(0x62, b"\x00\x01\x10"), PROTOCOL),
        ("PUBACK's reason in a PUBCOMP", V5, packet(0x70, b"\x00\x01\x80"), PROTOCOL),
        ("bytes behind an ack", V5, packet(0x40, b"\x00\x01\x00\x00x"), MALFORMED),
        ("bytes behind an ack", V311, packet(0x40, b"\x00\x01\x00"), MALFORMED),
        // 3.8, SUBSCRIBE
        ("nothing to subscribe to", V5, packet(0x82, b"\x00\x01\x00"), PROTOCOL),
        ("nothing to subscribe to", V311, packet(0x82, b"\x00\x01"), PROTOCOL),
        ("SUBSCRIBE 0", V5, packet(0x82, b"\x00\x00\x00\x00\x01a\x00"), PROTOCOL),
        ("SUBSCRIBE 0", V311, packet(0x82, b"\x00\x00\x00\x01a\x00"), PROTOCOL),
        ("an empty filter", V311, packet(0x82, b"\x00\x01\x00\x00\x00"), MALFORMED),
        ("a filter without options", V5, packet(0x82, b"\x00\x01\x00\x00\x01a"), MALFORMED),
        ("a filter without QoS", V311, packet(0x82, b"\x00\x01\x00\x01a"), MALFORMED),
        ("a subscription of QoS 3", V5, packet(0x82, b"\x00\x01\x00\x00\x01a\x03"), PROTOCOL),
        ("a subscription of QoS 3", V311, packet(0x82, b"\x00\x01\x00\x01a\x03"), PROTOCOL),
        ("option bit 6", V5, packet(0x82, b"\x00\x01\x00\x00\x01a\x40"), MALFORMED),
        ("option bit 7", V5, packet(0x82, b"\x00\x01\x00\x00\x01a\x80"), MALFORMED),
        ("no local before MQTT 5", V311, packet(0x82, b"\x00\x01\x00\x01a\x04"), MALFORMED),
        ("a reserved bit of the QoS", V311, packet(0x82, b"\x00\x01\x00\x01a\x81"), MALFORMED),
        ("retain handling 3", V5, packet(0x82, b"\x00\x01\x00\x00\x01a\x30"), PROTOCOL),
        ("no local, shared", V5, packet(0x82, b"\x00\x01\x00\x00\x0A$share/g/a\x04"), PROTOCOL),
        ("subscription identifier 0", V5, packet(0x82, b"\x00\x01\x02\x0B\x00\x00\x01a\x00"), PROTOCOL),
        ("a padded identifier", V5, packet(0x82, b"\x00\x01\x03\x0B\x81\x00\x00\x01a\x00"), MALFORMED),
        ("two identifiers", V5, packet(0x82, b"\x00\x01\x04\x0B\x01\x0B\x02\x00\x01a\x00"), PROTOCOL),
        // 3.10, UNSUBSCRIBE
        ("nothing to unsubscribe", V5, packet(0xA2, b"\x00\x01\x00"), PROTOCOL),
        ("nothing to unsubscribe", V311, packet(0xA2, b"\x00\x01"), PROTOCOL),
        ("UNSUBSCRIBE 0", V5, packet(0xA2, b"\x00\x00\x00\x00\x01a"), PROTOCOL),
        ("a filter that is cut off", V311, packet(0xA2, b"\x00\x01\x00\x02a"), MALFORMED),
        // 3.12, PINGREQ
        ("PINGREQ with a body", V5, packet(0xC0, b"x"), MALFORMED),
        ("PINGREQ with a body", V311, packet(0xC0, b"x"), MALFORMED),
        // 3.14, DISCONNECT
        ("a server's reason to leave", V5, packet(0xE0, b"\x8B"), PROTOCOL),
        ("session taken over", V5, packet(0xE0, b"\x8E\x00"), PROTOCOL),
        ("an unknown reason to leave", V5, packet(0xE0, b"\x01"), PROTOCOL),
        ("a client's server reference", V5, packet(0xE0, b"\x00\x04\x1C\x00\x01a"), PROTOCOL),
        ("a session expiry twice", V5, packet(0xE0, b"\x00\x0A\x11\0\0\0\0\x11\0\0\0\0"), PROTOCOL),
        ("bytes behind DISCONNECT", V5, packet(0xE0, b"\x00\x00\x00"), MALFORMED),
        ("DISCONNECT with a body", V311, packet(0xE0, b"\x00"), MALFORMED),
        // 3.15, AUTH
        ("AUTH before MQTT 5", V311, packet(0xF0, b""), MALFORMED),
        ("AUTH of success", V5, packet(0xF0, b""), PROTOCOL),
        ("AUTH without a method", V5, packet(0xF0, b"\x18\x00"), PROTOCOL),
        ("AUTH with a reason of PUBACK", V5, packet(0xF0, b"\x10\x04\x15\x00\x01a"), PROTOCOL),
        ("bytes behind AUTH", V5, packet(0xF0, b"\x18\x04\x15\x00\x01ax"), MALFORMED),
        // 3.1, a second one
        ("a second CONNECT", V5, packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00"), PROTOCOL),
        // 2.1, fixed headers
        ("packet type 0", V5, packet(0x00, b""), MALFORMED),
        ("a client's CONNACK", V5, packet(0x20, b"\x00\x00\x00"), PROTOCOL),
        ("a client's SUBACK", V5, packet(0x90, b"\x00\x01\x00\x00"), PROTOCOL),
        ("a client's UNSUBACK", V311, packet(0xB0, b"\x00\x01"), PROTOCOL),
        ("a client's PINGRESP", V311, packet(0xD0, b""), PROTOCOL),
        ("a repeated SUBSCRIBE", V311, packet(0x8A, b"\x00\x01\x00\x01a\x00"), MALFORMED),
        ("a repeated PUBREL", V5, packet(0x6A, b"\x00\x01"), MALFORMED),
        ("a padded length", V5, b"\xC0\x80\x00".to_vec(), MALFORMED),
        ("a length of five bytes", V5, b"\xC0\x80\x80\x80\x80\x01".to_vec(), MALFORMED),
    ]
}

/// [5:MQTT-1.5.4-1] [5:MQTT-1.5.4-2] [5:MQTT-1.5.5-1] [5:MQTT-2.2.2-1] [5:MQTT-3.3.1-2] [5:MQTT-3.3.1-4]
/// [5:MQTT-3.3.2-1] [5:MQTT-3.3.2-2] [5:MQTT-3.3.2-8] [5:MQTT-3.3.2-13] [5:MQTT-3.3.2-14] [5:MQTT-3.3.4-6]
/// [5:MQTT-3.8.3-1] [5:MQTT-3.8.3-2] [5:MQTT-3.8.3-4] [5:MQTT-3.8.3-5] [5:MQTT-3.10.3-1] [5:MQTT-3.10.3-2]
/// [5:MQTT-4.13.1-1] [3:MQTT-1.5.3-1] [3:MQTT-1.5.3-2] [3:MQTT-2.3.1-1] [3:MQTT-3.3.1-2] [3:MQTT-3.3.1-4]
/// [3:MQTT-3.8.3-3] [3:MQTT-3.8.3-4] [3:MQTT-3.10.3-2]
#[test]
fn every_broken_rule_is_answered_with_its_reason() {
    for (what, version, bytes, reason) in refused() {
        match decode(version, &bytes) {
            Ok(packet) => panic!("{what} ({version:?}) is let through as {packet:?}"),
            Err(malformed) => assert_eq!(malformed.reason, reason, "{what} ({version:?}): {malformed}"),
        }
    }
}

/// [5:MQTT-2.1.3-1] [5:MQTT-3.6.1-1] [5:MQTT-3.8.1-1] [5:MQTT-3.10.1-1] [5:MQTT-3.14.1-1] [5:MQTT-3.15.1-1]
/// [3:MQTT-2.2.2-1] [3:MQTT-2.2.2-2] [3:MQTT-3.6.1-1] [3:MQTT-3.8.1-1] [3:MQTT-3.10.1-1] [3:MQTT-3.14.1-1]
#[test]
fn reserved_flags_of_every_fixed_header_are_refused() {
    for (kind, fixed) in [
        (1, 0),
        (4, 0),
        (5, 0),
        (6, 2),
        (7, 0),
        (8, 2),
        (10, 2),
        (12, 0),
        (14, 0),
        (15, 0),
    ] {
        for flags in (0..16).filter(|flags| *flags != fixed) {
            let bytes = packet(kind << 4 | flags, b"\x00\x01\x00\x00\x01a\x00");
            for version in [V5, V311] {
                let outcome = decode(version, &bytes).map_err(|malformed| malformed.reason);
                assert_eq!(outcome, Err(MALFORMED), "type {kind}, flags {flags:#06b}, {version:?}");
            }
        }
    }
}

#[test]
fn every_packet_takes_exactly_its_own_reasons() {
    const PUBLISHED: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASED: &[u8] = &[0x00, 0x92];
    const LEFT: &[u8] = &[
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ];
    for (first, body, reasons) in [
        (0x40, &b"\x00\x01"[..], PUBLISHED),
        (0x50, b"\x00\x01", PUBLISHED),
        (0x62, b"\x00\x01", RELEASED),
        (0x70, b"\x00\x01", RELEASED),
        (0xE0, b"", LEFT),
    ] {
        let taken = (0..=255).filter(|code| decode(V5, &packet(first, &[body, &[*code]].concat())).is_ok());
        assert_eq!(taken.collect::<Vec<u8>>(), reasons, "packet {first:#04x}");
    }
}

#[test]
fn mqtt_3_1_may_mark_what_it_sends_again() {
    for (first, body) in [
        (0x6A, &b"\x00\x01"[..]),
        (0x8A, b"\x00\x01\x00\x01a\x01"),
        (0xAA, b"\x00\x01\x00\x01a"),
    ] {
        let again = packet(first, body);
        let once = packet(first & !0x08, body);
        assert_eq!(decode(V31, &again), decode(V31, &once));
        assert!(decode(V31, &again).is_ok());
    }
}

#[test]
fn what_the_standard_allows_is_let_through() {
    #[rustfmt::skip] // a table: one case a line
    let ok = [
        ("U+FEFF in a topic", V5, packet(0x30, b"\x00\x04\xEF\xBB\xBFa\x00")),
        ("a non-character in a topic", V311, packet(0x30, b"\x00\x03\xEF\xBF\xBF")),
        ("an expiry of 0", V5, packet(0x30, b"\x00\x01t\x05\x02\x00\x00\x00\x00")),
        ("user properties of one name", V5, packet(0x30, b"\x00\x01t\x0A\x26\x00\x00\x00\x00\x26\x00\x00\x00\x00")),
        ("an alias for a topic", V5, packet(0x30, b"\x00\x00\x03\x23\x00\x01")),
        ("an empty payload", V5, packet(0x31, b"\x00\x01t\x00")),
        ("DUP with QoS 1", V5, packet(0x3A, b"\x00\x01t\x00\x01\x00")),
        ("an ack without a reason", V5, packet(0x40, b"\x00\x01")),
        ("an ack without properties", V5, packet(0x50, b"\x00\x01\x10")),
        ("an ack with a reason string", V5, packet(0x70, b"\x00\x01\x92\x04\x1F\x00\x01a")),
        ("DISCONNECT without a reason", V5, packet(0xE0, b"")),
        ("DISCONNECT without properties", V5, packet(0xE0, b"\x04")),
        ("the highest identifier", V5, packet(0x82, b"\x00\x01\x05\x0B\xFF\xFF\xFF\x7F\x00\x01a\x00")),
        ("no local", V5, packet(0x82, b"\x00\x01\x00\x00\x01a\x2D")),
        ("AUTH", V5, packet(0xF0, b"\x19\x04\x15\x00\x01a")),
    ];
    for (what, version, bytes) in ok {
        assert!(decode(version, &bytes).is_ok(), "{what}: {:?}", decode(version, &bytes));
    }
}

/// [5:MQTT-4.7.1-1] [5:MQTT-4.7.1-2] [5:MQTT-4.7.3-1] [5:MQTT-4.8.2-1] [5:MQTT-4.8.2-2]
#[test]
fn a_malformed_filter_is_refused_by_itself() {
    for (filter, error) in [
        ("a/#/b", TopicError::MisplacedWildcard),
        ("a+", TopicError::MisplacedWildcard),
        ("", TopicError::Empty),
        ("$share/g", TopicError::Share),
        ("$share//a", TopicError::Share),
        ("$share/+/a", TopicError::Share),
    ] {
        let mut body = b"\x00\x01\x00\x00\x04good\x01".to_vec();
        body.extend((filter.len() as u16).to_be_bytes());
        body.extend(filter.as_bytes());
        body.push(0x05);
        let Ok(Packet::Subscribe(subscribe)) = decode(V5, &packet(0x82, &body)) else {
            panic!("{filter:?} refuses the whole packet");
        };
        assert!(subscribe.filters[0].is_ok());
        assert_eq!(subscribe.filters[1].as_ref().err(), Some(&error), "{filter:?}");
    }
}

#[test]
fn a_packet_that_is_too_large_is_refused_from_its_header() {
    for (bytes, bytes_max, refused) in [
        (&b"\x30\x7F"[..], 128, true),
        (b"\x30\x7F", 129, false),
        (b"\x30\xFF\xFF\xFF\x7F", 1 << 20, true),
        (b"\xC0\x00", 1, true),
    ] {
        let outcome = cut(&mut Bytes::copy_from_slice(bytes), bytes_max);
        let reason = outcome.err().map(|malformed| malformed.reason);
        assert_eq!(reason, refused.then_some(Reason::PACKET_TOO_LARGE), "{bytes:?}");
    }
}
