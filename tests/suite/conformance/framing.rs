//! Lengths, flags and packet identifiers (2), DISCONNECT (3.14), AUTH (3.15), and how errors are handled (4.13).

use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, ack, ack_with, disconnect, four, id, packet, publish, text};
use crate::harness::{BOTH, Mqtt};

async fn assert_refused(client: &mut Plain, mqtt: Mqtt, reason: u8, what: &str) {
    let heard = client.next().await;
    if mqtt == Mqtt::V5 {
        assert_eq!((heard.first(), heard.get(2)), (Some(&0xE0), Some(&reason)), "{what}");
        assert_eq!(client.next().await, b"", "{what}");
    } else {
        assert_eq!(heard, b"", "{what}, {mqtt:?}");
    }
}

/// [5:MQTT-1.5.5-1] [5:MQTT-2.1.3-1] [5:MQTT-2.2.2-1] [5:MQTT-3.6.1-1] [5:MQTT-3.14.1-1] [5:MQTT-3.15.1-1]
/// [5:MQTT-4.13.1-1] [5:MQTT-4.13.2-1] [5:MQTT-3.14.4-1] [5:MQTT-3.14.4-2] [5:MQTT-3.14.2-1]
/// [3:MQTT-2.2.2-1] [3:MQTT-2.2.2-2] [3:MQTT-3.6.1-1] [3:MQTT-3.14.1-1] [3:MQTT-4.8.0-1]
#[tokio::test]
async fn what_is_malformed_is_answered_once_and_ends_the_connection() {
    let host = Host::start().await;
    for mqtt in BOTH {
        #[rustfmt::skip] // a table: one rule a line
        let mut cases = vec![
            ("packet type 0", packet(0x00, b""), 0x81),
            ("a CONNACK", packet(0x20, b"\x00\x00"), 0x82),
            ("a SUBACK", packet(0x90, b"\x00\x01\x00"), 0x82),
            ("an UNSUBACK", packet(0xB0, b"\x00\x01"), 0x82),
            ("a PINGRESP", packet(0xD0, b""), 0x82),
            ("PUBACK with flags 1", packet(0x41, b"\x00\x01"), 0x81),
            ("PUBREC with flags 2", packet(0x52, b"\x00\x01"), 0x81),
            ("PUBREL with flags 0", packet(0x60, b"\x00\x01"), 0x81),
            ("PUBREL with flags 3", packet(0x63, b"\x00\x01"), 0x81),
            ("PUBCOMP with flags 8", packet(0x78, b"\x00\x01"), 0x81),
            ("PINGREQ with flags 4", packet(0xC4, b""), 0x81),
            ("DISCONNECT with flags 1", packet(0xE1, b""), 0x81),
            ("AUTH with flags 1", packet(0xF1, b""), 0x81),
            ("PINGREQ with a body", packet(0xC0, b"x"), 0x81),
            ("an ack without identifier", packet(0x40, b"\x00"), 0x81),
            ("an ack of identifier 0", ack(0x40, 0), 0x82),
            ("a length of five bytes", b"\xC0\xFF\xFF\xFF\xFF\x01".to_vec(), 0x81),
            ("a length that is longer than it must be", b"\xC0\x80\x00".to_vec(), 0x81),
        ];
        if mqtt == Mqtt::V5 {
            #[rustfmt::skip] // a table: one rule a line
            cases.extend([
                ("a property length that is longer than it must be", packet(0x30, b"\x00\x01t\x80\x00"), 0x81),
                ("a property length beyond the packet", packet(0x30, b"\x00\x01t\x05\x01\x01"), 0x81),
                ("no property length", packet(0x30, b"\x00\x01t"), 0x81),
                ("a reason of another packet", ack_with(0x40, 1, 0x92), 0x82),
                ("a server's reason to leave", disconnect(0x8E, &[]), 0x82),
            ]);
        } else {
            cases.push(("DISCONNECT with a body", packet(0xE0, b"\x00"), 0));
            cases.push(("AUTH", packet(0xF0, b""), 0));
        }
        for (what, bytes, reason) in cases {
            let mut client = host.join(mqtt, "app").await;
            // What comes behind is not looked at: one DISCONNECT, and no PINGRESP.
            client.say(&[bytes, vec![0xC0, 0]].concat()).await;
            assert_refused(&mut client, mqtt, reason, what).await;
        }
    }
}

/// [5:MQTT-1.5.4-1] [5:MQTT-1.5.4-2] [5:MQTT-1.5.7-1] [3:MQTT-1.5.3-1] [3:MQTT-1.5.3-2]
#[tokio::test]
async fn text_that_is_not_utf_8_or_holds_a_null_ends_the_connection() {
    let host = Host::start().await;
    let ill_formed: [&[u8]; 8] = [
        b"\0",
        b"a\0b",
        b"\xFF",
        b"\xC0\x80",
        b"\xED\xA0\x80",
        b"\xED\xBF\xBF",
        b"\xF4\x90\x80\x80",
        b"\xC3",
    ];
    for text_of in ill_formed {
        for mqtt in BOTH {
            let mut client = host.join(mqtt, "app").await;
            client.publish(publish(text_of, "x")).await;
            assert_refused(&mut client, mqtt, 0x81, &format!("{text_of:02x?} as topic")).await;
        }
        let name = [
            &[id::USER_PROPERTY][..],
            &crate::harness::plain::string(text_of),
            b"\x00\x01v",
        ]
        .concat();
        let value = [
            &[id::USER_PROPERTY][..],
            b"\x00\x01k",
            &crate::harness::plain::string(text_of),
        ]
        .concat();
        let reason = text(id::REASON_STRING, text_of);
        for bytes in [
            publish("t", "x").with(name).bytes(Mqtt::V5),
            publish("t", "x").with(value).bytes(Mqtt::V5),
            disconnect(0, &reason),
        ] {
            let mut client = host.join(Mqtt::V5, "app").await;
            client.say(&bytes).await;
            assert_refused(&mut client, Mqtt::V5, 0x81, &format!("{text_of:02x?} in {bytes:02x?}")).await;
        }
    }
}

/// [5:MQTT-2.1.3-1]
#[tokio::test]
async fn a_packet_that_is_too_large_is_refused_from_its_header() {
    let host = Host::plan().set("mqtt.max_packet_size", "1KB").start().await;
    for mqtt in BOTH {
        let mut client = host.join(mqtt, "app").await;
        let largest = 1024 - 1 - 2 - 2 - 1 - usize::from(mqtt == Mqtt::V5);
        client.publish(publish("t", "x".repeat(largest))).await;
        client.silence().await;
        client.say(b"\x30\xFE\x07").await; // 1025 bytes, of which no more are sent
        assert_refused(&mut client, mqtt, 0x95, "1 byte too many").await;
    }
}

/// [5:MQTT-3.14.4-3] [3:MQTT-3.14.4-3]
#[tokio::test]
async fn after_a_disconnect_the_host_closes_and_reads_nothing_more() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.join(mqtt, "app").await;
        app.subscribe("t/#", 1).await;
        let will = Connect::clean(mqtt, "sensor").will("t/will", "gone", 1, false);
        let mut sensor = host.admit(will).await;
        let behind = publish("t/1", "after the end").qos(1, 1).bytes(mqtt);
        sensor.say(&[vec![0xE0, 0], behind].concat()).await;
        sensor.hear(&[]).await;
        host.join(mqtt, "other").await.tell(publish("t/1", "sentinel")).await;
        app.receive("sentinel").await;
    }
}

#[tokio::test]
async fn a_legal_expiry_of_0_is_taken_everywhere() {
    let host = Host::start().await;
    let zero = |id| four(id, 0);
    let connect = Connect::clean(Mqtt::V5, "app")
        .with(zero(id::SESSION_EXPIRY))
        .will("w", "gone", 1, false);
    let connect = connect
        .will_with(zero(id::MESSAGE_EXPIRY))
        .will_with(zero(id::WILL_DELAY));
    let mut app = host.admit(connect).await;
    app.tell(publish("t", "x").with(zero(id::MESSAGE_EXPIRY))).await;
    app.say(&disconnect(0, &zero(id::SESSION_EXPIRY))).await;
    app.hear(&[]).await;
}
