//! Rules that hold in many places, tried in every one of them: text, properties, packet identifiers, options.

use super::*;
use crate::model::properties::id;
use crate::model::reason::Reason;
use crate::mqtt::codec::connect;
use Version::{V5, V31, V311};

const MALFORMED: Reason = Reason::MALFORMED_PACKET;
const PROTOCOL: Reason = Reason::PROTOCOL_ERROR;

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text].concat()
}

fn section(properties: &[u8]) -> Vec<u8> {
    [&[properties.len() as u8][..], properties].concat()
}

/// What becomes of a packet, a CONNECT or any other.
fn outcome(version: Version, bytes: &[u8]) -> Result<(), Reason> {
    let frame = frame(bytes).map_err(|malformed| malformed.reason)?;
    match bytes[0] {
        0x10 => connect(&frame).map(drop).map_err(|refusal| refusal.reason),
        _ => Decoder::new(version)
            .decode(frame)
            .map(drop)
            .map_err(|malformed| malformed.reason),
    }
}

/// The packets of MQTT 5 with a property section, each with these properties in it.
fn packets(properties: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let section = section(properties);
    let connect = |flags: u8, own: &[u8], payload: &[u8]| {
        let head = [&string(b"MQTT")[..], &[5, flags, 0, 60], own, &string(b"c"), payload].concat();
        packet(0x10, &head)
    };
    let ack = |first| packet(first, &[b"\x00\x01\x00", &section[..]].concat());
    vec![
        ("CONNECT", connect(2, &section, b"")),
        (
            "will",
            connect(6, b"\x00", &[&section[..], &string(b"w"), &string(b"x")].concat()),
        ),
        ("PUBLISH", packet(0x30, &[&string(b"t")[..], &section].concat())),
        ("PUBACK", ack(0x40)),
        ("PUBREC", ack(0x50)),
        ("PUBREL", ack(0x62)),
        ("PUBCOMP", ack(0x70)),
        (
            "SUBSCRIBE",
            packet(0x82, &[b"\x00\x01", &section[..], &string(b"t"), b"\x01"].concat()),
        ),
        (
            "UNSUBSCRIBE",
            packet(0xA2, &[b"\x00\x01", &section[..], &string(b"t")].concat()),
        ),
        ("DISCONNECT", packet(0xE0, &[b"\x00", &section[..]].concat())),
        ("AUTH", packet(0xF0, &[b"\x18", &section[..]].concat())),
    ]
}

/// Every property of the standard with a value that it can have, and the packets of a client that may carry it.
fn properties() -> Vec<(u8, Vec<u8>, &'static [&'static str])> {
    const MESSAGE: &[&str] = &["PUBLISH", "will"];
    const CONNECT: &[&str] = &["CONNECT"];
    const REASON: &[&str] = &["PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "DISCONNECT", "AUTH"];
    #[rustfmt::skip] // a table: one property a line
    let all: Vec<(u8, &[u8], &[&str])> = vec![
        (0x01, b"\x01", MESSAGE),
        (0x02, b"\0\0\0\x01", MESSAGE),
        (0x03, b"\0\x01c", MESSAGE),
        (0x08, b"\0\x01r", MESSAGE),
        (0x09, b"\0\x01\xFF", MESSAGE),
        (0x0B, b"\x01", &["SUBSCRIBE"]),
        (0x11, b"\0\0\0\x01", &["CONNECT", "DISCONNECT"]),
        (0x12, b"\0\x01c", &[]),
        (0x13, b"\0\x01", &[]),
        (0x15, b"\0\x01m", &["CONNECT", "AUTH"]),
        (0x16, b"\0\x01\xFF", &["AUTH"]), // in CONNECT, too, beside a method
        (0x17, b"\x01", CONNECT),
        (0x18, b"\0\0\0\x01", &["will"]),
        (0x19, b"\x01", CONNECT),
        (0x1A, b"\0\x01i", &[]),
        (0x1C, b"\0\x01s", &[]),
        (0x1F, b"\0\x01r", REASON),
        (0x21, b"\0\x01", CONNECT),
        (0x22, b"\0\x01", CONNECT),
        (0x23, b"\0\x01", &["PUBLISH"]),
        (0x24, b"\x01", &[]),
        (0x25, b"\x01", &[]),
        (0x26, b"\0\x01k\0\x01v", &["PUBLISH", "will", "CONNECT", "SUBSCRIBE", "UNSUBSCRIBE", "PUBACK", "PUBREC", "PUBREL",
            "PUBCOMP", "DISCONNECT", "AUTH"]),
        (0x27, b"\0\0\x01\0", CONNECT),
        (0x28, b"\x01", &[]),
        (0x29, b"\x01", &[]),
        (0x2A, b"\x01", &[]),
    ];
    all.into_iter()
        .map(|(id, value, owners)| (id, [&[id], value].concat(), owners))
        .collect()
}

/// An AUTH needs a method, whatever else it carries.
fn beside_a_method(name: &str, id: u8, property: &[u8]) -> Vec<u8> {
    match (name, id) {
        ("AUTH", other) if other != 0x15 => [b"\x15\0\x01m", property].concat(),
        _ => property.to_vec(),
    }
}

#[test]
fn every_property_is_taken_where_the_standard_puts_it_and_nowhere_else() {
    for (id, property, owners) in properties() {
        for (at, (name, _)) in packets(b"").into_iter().enumerate() {
            let (_, bytes) = &packets(&beside_a_method(name, id, &property))[at];
            let outcome = outcome(V5, bytes);
            match owners.contains(&name) {
                true => assert_eq!(outcome, Ok(()), "property {id:#04x} in {name}"),
                false => assert!(
                    matches!(outcome, Err(MALFORMED | PROTOCOL)),
                    "property {id:#04x} in {name}: {outcome:?}"
                ),
            }
        }
    }
}

#[test]
fn no_property_comes_twice_but_the_users() {
    for (id, property, owners) in properties() {
        for (at, (name, _)) in packets(b"")
            .into_iter()
            .enumerate()
            .filter(|(_, (name, _))| owners.contains(name))
        {
            let (_, bytes) = &packets(&beside_a_method(name, id, &property.repeat(2)))[at];
            let wanted = if id == id::USER_PROPERTY { Ok(()) } else { Err(PROTOCOL) };
            assert_eq!(outcome(V5, bytes), wanted, "property {id:#04x} twice in {name}");
        }
    }
}

#[test]
fn no_property_is_cut_off_by_the_end_of_its_section() {
    for (id, property, owners) in properties() {
        for (at, (name, _)) in packets(b"")
            .into_iter()
            .enumerate()
            .filter(|(_, (name, _))| owners.contains(name))
        {
            for length in 1..property.len() {
                let (_, bytes) = &packets(&property[..length])[at];
                assert_eq!(
                    outcome(V5, bytes),
                    Err(MALFORMED),
                    "{length} bytes of {id:#04x} in {name}"
                );
            }
        }
    }
}

/// [5:MQTT-1.5.4-1] [5:MQTT-1.5.4-2] [5:MQTT-1.5.7-1] [5:MQTT-4.7.3-2]
/// [3:MQTT-1.5.3-1] [3:MQTT-1.5.3-2] [3:MQTT-3.3.2-1] [3:MQTT-3.8.3-1] [3:MQTT-3.10.3-1] [3:MQTT-4.7.3-2]
#[test]
fn text_is_well_formed_wherever_it_stands() {
    let broken: [&[u8]; 9] = [
        b"\0",
        b"a\0b",
        b"\xFF",
        b"a\xC3",
        b"\xC0\x80",
        b"\xED\xA0\x80",
        b"\xED\xBF\xBF",
        b"\xF4\x90\x80\x80",
        b"\x80a",
    ];
    for text in broken.map(string) {
        let mut bad = Vec::new();
        for id in [0x03, 0x08, 0x15, 0x1F] {
            let property = [&[id][..], &text].concat();
            bad.extend(packets(&property).into_iter().filter(|(name, _)| {
                let known = properties().into_iter().find(|(known, ..)| *known == id);
                known.is_some_and(|(.., owners)| owners.contains(name))
            }));
        }
        for property in [
            [b"\x26", &text[..], b"\0\x01v"].concat(),
            [b"\x26\0\x01k", &text[..]].concat(),
        ] {
            let named = packets(&property).into_iter().filter(|(name, _)| *name != "AUTH");
            bad.extend(named);
        }
        let head = |level, flags| [&string(b"MQTT")[..], &[level, flags, 0, 60]].concat();
        bad.extend([
            (
                "client identifier",
                packet(0x10, &[&head(5, 2)[..], b"\0", &text].concat()),
            ),
            ("client identifier", packet(0x10, &[&head(4, 2)[..], &text].concat())),
            (
                "will topic",
                packet(0x10, &[&head(4, 6)[..], b"\0\x01c", &text, b"\0\x01x"].concat()),
            ),
            (
                "user name",
                packet(0x10, &[&head(4, 0x82)[..], b"\0\x01c", &text].concat()),
            ),
        ]);
        for (what, bytes) in bad {
            assert_eq!(outcome(V5, &bytes), Err(MALFORMED), "{text:02x?} as {what}");
        }
        for version in [V31, V311] {
            for (what, bytes) in [
                ("topic", packet(0x30, &text)),
                ("filter", packet(0x82, &[b"\0\x01", &text[..], b"\0"].concat())),
                (
                    "second filter",
                    packet(0x82, &[b"\0\x01\0\x01a\0", &text[..], b"\0"].concat()),
                ),
                ("unwanted filter", packet(0xA2, &[b"\0\x01", &text[..]].concat())),
            ] {
                assert_eq!(
                    outcome(version, &bytes),
                    Err(MALFORMED),
                    "{text:02x?} as {what}, {version:?}"
                );
            }
        }
    }
}

/// [3:MQTT-3.8.3-4]
#[test]
fn before_mqtt_5_a_requested_qos_has_two_bits_and_no_others() {
    for version in [V31, V311] {
        for options in 0..=255 {
            let bytes = packet(0x82, &[b"\0\x01\0\x01a", &[options][..]].concat());
            let wanted = match options {
                0..=2 => Ok(()),
                3 => Err(PROTOCOL),
                _ => Err(MALFORMED),
            };
            assert_eq!(outcome(version, &bytes), wanted, "{options:#04x}, {version:?}");
        }
    }
}

/// [3:MQTT-2.3.1-1]
#[test]
fn no_packet_has_the_identifier_0() {
    for version in [V31, V311, V5] {
        let none: &[u8] = if version == V5 { b"\0" } else { b"" };
        for (what, bytes) in [
            ("PUBLISH of QoS 1", packet(0x32, &[b"\0\x01t\0\0", none].concat())),
            ("PUBLISH of QoS 2", packet(0x34, &[b"\0\x01t\0\0", none].concat())),
            ("PUBACK", packet(0x40, b"\0\0")),
            ("PUBREC", packet(0x50, b"\0\0")),
            ("PUBREL", packet(0x62, b"\0\0")),
            ("PUBCOMP", packet(0x70, b"\0\0")),
            ("SUBSCRIBE", packet(0x82, &[b"\0\0", none, b"\0\x01a\0"].concat())),
            ("UNSUBSCRIBE", packet(0xA2, &[b"\0\0", none, b"\0\x01a"].concat())),
        ] {
            assert_eq!(outcome(version, &bytes), Err(PROTOCOL), "{what}, {version:?}");
        }
    }
}

#[test]
fn nothing_follows_the_end_of_a_packet_and_nothing_is_missing() {
    for (name, whole) in packets(b"").into_iter().filter(|(name, _)| *name != "AUTH") {
        let body = &whole[2..];
        // A PUBLISH ends with its payload; lists of filters end between two of them.
        if name != "PUBLISH" {
            let longer = packet(whole[0], &[body, b"\0"].concat());
            assert_eq!(outcome(V5, &longer), Err(MALFORMED), "{name} and a byte");
        }
        for length in 1..body.len() {
            let shorter = packet(whole[0], &body[..length]);
            // Acknowledgements and DISCONNECT may leave out their properties, and then their reason.
            let may_end = (matches!(whole[0], 0x40..=0x7F) && (2..=3).contains(&length)) || whole[0] == 0xE0;
            let empty_list = matches!(whole[0], 0x82 | 0xA2) && length == 3;
            let wanted = match () {
                () if may_end => Ok(()),
                () if empty_list => Err(PROTOCOL),
                () => Err(MALFORMED),
            };
            assert_eq!(outcome(V5, &shorter), wanted, "{length} bytes of {name}");
        }
    }
}

/// [3:MQTT-4.7.1-2] [3:MQTT-4.7.1-3]
#[test]
fn a_malformed_filter_is_no_subscription_in_any_version() {
    for version in [V31, V311, V5] {
        let none: &[u8] = if version == V5 { b"\0" } else { b"" };
        for filter in [
            "a/#/b",
            "#a",
            "a#",
            "a/b#",
            "+a",
            "a+",
            "a/+b/c",
            "##",
            "++",
            "$share/g",
            "$share//a",
            "$share/g/a+",
        ] {
            let body = [b"\0\x01", none, &string(filter.as_bytes())].concat();
            let Ok(Packet::Subscribe(subscribe)) = decode(version, &packet(0x82, &[&body[..], b"\x01"].concat()))
            else {
                panic!("{filter:?} refuses the whole packet, {version:?}");
            };
            assert!(subscribe.filters[0].is_err(), "{filter:?}, {version:?}");
            let Ok(Packet::Unsubscribe(unsubscribe)) = decode(version, &packet(0xA2, &body)) else {
                panic!("{filter:?} refuses the whole packet, {version:?}");
            };
            assert!(unsubscribe.filters[0].is_err(), "{filter:?}, {version:?}");
        }
    }
}
