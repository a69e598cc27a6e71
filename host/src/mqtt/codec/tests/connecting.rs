//! CONNECT: what is read, what is refused, and whether and how it is answered.

use bytestring::ByteString;

use super::*;
use crate::model::reason::Reason;
use crate::mqtt::codec::connect;
use crate::mqtt::packet::Connect;
use Version::{V5, V31, V311};

fn read(bytes: &[u8]) -> Result<Connect, (Reason, Option<Version>)> {
    let frame = frame(bytes).expect("a good header");
    connect(&frame).map_err(|refusal| (refusal.reason, refusal.answer))
}

/// A CONNECT of MQTT 5 with these flags, properties and payload.
fn v5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05".to_vec();
    body.extend([flags, 0, 60, properties.len() as u8]);
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    packet(0x10, &body)
}

fn v311(flags: u8, payload: &[u8]) -> Vec<u8> {
    packet(0x10, &[b"\x00\x04MQTT\x04", &[flags, 0, 60][..], payload].concat())
}

fn v31(flags: u8, payload: &[u8]) -> Vec<u8> {
    packet(0x10, &[b"\x00\x06MQIsdp\x03", &[flags, 0, 60][..], payload].concat())
}

/// The connect flags and payload of a client `c` with a will that has these properties, and this topic.
fn will(properties: &[u8], topic: &[u8]) -> Vec<u8> {
    let mut payload = b"\x00\x01c".to_vec();
    payload.push(properties.len() as u8);
    payload.extend_from_slice(properties);
    payload.extend((topic.len() as u16).to_be_bytes());
    payload.extend_from_slice(topic);
    payload.extend(b"\x00\x01w");
    payload
}

/// [5:MQTT-3.1.2-3] [5:MQTT-3.1.2-11] [5:MQTT-3.1.2-12] [5:MQTT-3.1.2-13] [5:MQTT-3.1.3-4] [5:MQTT-3.1.3-11]
/// [5:MQTT-3.1.3-12] [5:MQTT-3.1.4-1] [3:MQTT-3.1.2-3] [3:MQTT-3.1.2-13] [3:MQTT-3.1.2-15] [3:MQTT-3.1.2-22]
/// [3:MQTT-3.1.4-1]
#[test]
fn every_broken_rule_of_connect_is_refused_and_mqtt_5_hears_why() {
    const MALFORMED: Reason = Reason::MALFORMED_PACKET;
    const PROTOCOL: Reason = Reason::PROTOCOL_ERROR;
    const ID: &[u8] = b"\x00\x01c";
    #[rustfmt::skip] // a table: one rule a line
    let cases = [
        ("the reserved flag", v5(0x03, b"", ID), MALFORMED, Some(V5)),
        ("the reserved flag", v311(0x03, ID), MALFORMED, None),
        ("will QoS without a will", v5(0x0A, b"", ID), MALFORMED, Some(V5)),
        ("will retain without a will", v311(0x22, ID), MALFORMED, None),
        ("a will of QoS 3", v5(0x1E, b"", &will(b"", b"t")), MALFORMED, Some(V5)),
        ("a password without a user name", v311(0x42, b"\x00\x01c\x00\x01p"), MALFORMED, None),
        ("a missing user name", v311(0x82, ID), MALFORMED, None),
        ("a missing will", v5(0x06, b"", ID), MALFORMED, Some(V5)),
        ("no client identifier", v5(0x02, b"", b""), MALFORMED, Some(V5)),
        ("bytes behind the end", v5(0x02, b"", b"\x00\x01cx"), MALFORMED, Some(V5)),
        ("bytes behind the end", v311(0x02, b"\x00\x01cx"), MALFORMED, None),
        ("U+0000 in the client identifier", v5(0x02, b"", b"\x00\x01\0"), MALFORMED, Some(V5)),
        ("a surrogate in the client identifier", v311(0x02, b"\x00\x03\xED\xA0\x80"), MALFORMED, None),
        ("U+0000 in the user name", v5(0x82, b"", b"\x00\x01c\x00\x01\0"), MALFORMED, Some(V5)),
        ("ill-formed UTF-8 in the user name", v5(0x82, b"", b"\x00\x01c\x00\x01\xFF"), MALFORMED, Some(V5)),
        ("U+0000 in the will topic", v5(0x06, b"", &will(b"", b"a\0")), MALFORMED, Some(V5)),
        ("a wildcard in the will topic", v5(0x06, b"", &will(b"", b"a/#")), Reason::TOPIC_NAME_INVALID, Some(V5)),
        ("an empty will topic", v5(0x06, b"", &will(b"", b"")), PROTOCOL, Some(V5)),
        ("a wildcard in the will's response topic", v5(0x06, b"", &will(b"\x08\x00\x01#", b"t")), PROTOCOL, Some(V5)),
        ("a will's alias", v5(0x06, b"", &will(b"\x23\x00\x01", b"t")), MALFORMED, Some(V5)),
        ("a will's payload format 2", v5(0x06, b"", &will(b"\x01\x02", b"t")), PROTOCOL, Some(V5)),
        ("a will delay twice", v5(0x06, b"", &will(b"\x18\0\0\0\0\x18\0\0\0\0", b"t")), PROTOCOL, Some(V5)),
        ("a will delay of CONNECT", v5(0x02, b"\x18\0\0\0\0", ID), MALFORMED, Some(V5)),
        ("a receive maximum of 0", v5(0x02, b"\x21\0\0", ID), PROTOCOL, Some(V5)),
        ("a maximum packet size of 0", v5(0x02, b"\x27\0\0\0\0", ID), PROTOCOL, Some(V5)),
        ("a session expiry twice", v5(0x02, b"\x11\0\0\0\0\x11\0\0\0\0", ID), PROTOCOL, Some(V5)),
        ("problem information 2", v5(0x02, b"\x17\x02", ID), PROTOCOL, Some(V5)),
        ("response information 2", v5(0x02, b"\x19\x02", ID), PROTOCOL, Some(V5)),
        ("authentication data without method", v5(0x02, b"\x16\0\x01x", ID), PROTOCOL, Some(V5)),
        ("a padded property length", packet(0x10, b"\x00\x04MQTT\x05\x02\0\0\x80\x00\x00\x01c"), MALFORMED, Some(V5)),
        ("another protocol's name", packet(0x10, b"\x00\x04HTTP\x05\x02\0\0\0\0\0"), PROTOCOL, None),
        ("a name that is cut off", packet(0x10, b"\x00\x04MQ"), MALFORMED, None),
        ("no CONNECT", packet(0xC0, b""), PROTOCOL, None),
    ];
    for (what, bytes, reason, answer) in cases {
        assert_eq!(read(&bytes).map(|_| ()), Err((reason, answer)), "{what}");
    }
}

#[test]
fn a_level_that_we_do_not_speak_is_answered_in_the_nearest_version() {
    for (start, answer) in [
        (&b"\x00\x04MQTT\x06"[..], V5),
        (b"\x00\x04MQTT\xFF", V5),
        (b"\x00\x04MQTT\x03", V311),
        (b"\x00\x04MQTT\x00", V311),
        (b"\x00\x04MQTT\x84", V311), // a bridge of mosquitto, which then tries again without the bit
        (b"\x00\x06MQIsdp\x83", V311),
        (b"\x00\x06MQIsdp\x04", V311),
    ] {
        let bytes = packet(0x10, &[start, b"\x02\x00\x00\x00\x01c"].concat());
        let refusal = (Reason::UNSUPPORTED_PROTOCOL_VERSION, Some(answer));
        assert_eq!(read(&bytes), Err(refusal), "{start:?}");
    }
}

#[test]
fn what_the_standard_allows_connects() {
    // The decoder crate refuses the first three.
    for (what, bytes) in [
        ("an empty identifier that keeps its session", v5(0x00, b"", b"\x00\x00")),
        ("an empty identifier that keeps its session", v311(0x00, b"\x00\x00")),
        ("a will's expiry of 0", v5(0x06, b"", &will(b"\x02\0\0\0\0", b"t"))),
        ("a password without a user name", v5(0x42, b"", b"\x00\x01c\x00\x01p")),
        (
            "a long identifier of MQTT 3.1",
            v31(0x02, &[b"\x00\x20", &[b'c'; 32][..]].concat()),
        ),
        ("a user name that MQTT 3.1 left out", v31(0xC2, b"\x00\x01c")),
        (
            "an authentication method with data",
            v5(0x02, b"\x16\0\x01x\x15\0\x01m", b"\x00\x01c"),
        ),
    ] {
        assert!(read(&bytes).is_ok(), "{what}: {:?}", read(&bytes));
    }
}

#[test]
fn every_field_is_read() {
    let mut bytes = will(b"\x26\0\x01k\0\x01v\x18\0\0\0\x05\x01\x00\x02\0\0\0\x00", b"will/topic");
    bytes.extend(b"\x00\x04user\x00\x02\x00\xFF");
    let properties = b"\x11\0\0\0\0\x21\x00\x0A\x27\0\0\x01\x00\x22\x00\x07\x17\x00\x19\x01\x15\0\x01m\x26\0\0\0\0";
    let connect = read(&v5(0b1111_0110, properties, &bytes)).unwrap();
    assert_eq!(
        (connect.version, connect.clean_start, connect.keep_alive_s),
        (V5, true, 60)
    );
    assert_eq!(connect.client_id, "c");
    assert_eq!(connect.username, Some(ByteString::from("user")));
    assert_eq!(connect.password.as_deref(), Some(&b"\x00\xFF"[..]));
    assert_eq!(connect.session_expiry_s, Some(0));
    assert_eq!(
        (connect.receive_max, connect.packet_bytes_max, connect.topic_alias_max),
        (10, Some(256), 7)
    );
    assert_eq!(
        (connect.request_problem_info, connect.request_response_info),
        (false, true)
    );
    assert_eq!(connect.auth_method, Some(ByteString::from("m")));
    let will = connect.will.unwrap();
    assert_eq!(
        (will.topic.as_str(), &will.payload[..], will.qos, will.retain),
        ("will/topic", &b"w"[..], Qos::ExactlyOnce, true)
    );
    assert_eq!((will.delay_s, will.expiry_s), (5, Some(0)));
    assert_eq!(&will.properties.as_bytes()[..], b"\x26\0\x01k\0\x01v\x01\x00");
}

#[test]
fn what_mqtt_3_does_not_say_has_its_default() {
    for (version, bytes) in [(V311, v311(0x00, b"\x00\x01c")), (V31, v31(0x00, b"\x00\x01c"))] {
        let connect = read(&bytes).unwrap();
        assert_eq!((connect.version, connect.clean_start), (version, false));
        assert_eq!(
            (connect.session_expiry_s, connect.receive_max, connect.packet_bytes_max),
            (None, u16::MAX, None)
        );
        assert!(connect.request_problem_info && !connect.request_response_info);
    }
}

#[test]
fn a_connect_holds_no_chunk() {
    let bytes = Bytes::from(v5(0x06, b"", &will(b"\x01\x00", b"t")));
    let connect = connect(&cut(&mut bytes.clone(), 1000).unwrap().unwrap()).unwrap();
    assert!(bytes.is_unique(), "{connect:?} keeps the chunk alive");
}
