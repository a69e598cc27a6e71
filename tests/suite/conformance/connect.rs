//! CONNECT (3.1): the first packet, its flags and fields, and who is let in.

use crate::harness::host::Host;
use crate::harness::plain::{Connect, ack, body, four, id, packet, publish, string, text};
use crate::harness::{BOTH, Mqtt};

const ALL_CHARACTERS: [&str; 4] = [
    "0123456789abcdefghijklm",
    "nopqrstuvwxyzABCDEFGHIJ",
    "KLMNOPQRSTUVWXYZ",
    "x",
];

/// [5:MQTT-3.1.0-1] [3:MQTT-3.1.0-1] [5:MQTT-3.14.0-1]
#[tokio::test]
async fn whatever_comes_before_connect_closes_the_connection_without_a_word() {
    let host = Host::start().await;
    for mqtt in BOTH {
        for (what, bytes) in [
            ("PUBLISH", publish("t", "x").bytes(mqtt)),
            ("PUBACK", ack(0x40, 1)),
            ("SUBSCRIBE", b"\x82\x06\x00\x01\x00\x01t\x00".to_vec()),
            ("PINGREQ", b"\xC0\x00".to_vec()),
            ("DISCONNECT", b"\xE0\x00".to_vec()),
            ("AUTH", b"\xF0\x00".to_vec()),
        ] {
            let mut client = host.plain(mqtt).await;
            client.say(&bytes).await;
            assert_eq!(client.next().await, b"", "{what}, {mqtt:?}");
        }
    }
}

/// [5:MQTT-3.1.0-2] [3:MQTT-3.1.0-2] [3:MQTT-4.8.0-1]
#[tokio::test]
async fn a_second_connect_closes_the_connection() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.join(mqtt, "app").await;
        client.say(&Connect::clean(mqtt, "app").bytes()).await;
        client.sent_away(0x82).await;
    }
}

/// [5:MQTT-3.1.2-1] [3:MQTT-3.1.2-1]
#[tokio::test]
async fn another_protocols_name_gets_no_answer() {
    let host = Host::start().await;
    for name in ["hj", "mqtt", "MQTT ", "MQIsd", "AMQP", ""] {
        for level in [4, 5] {
            let mut client = host.plain(Mqtt::V5).await;
            let parts = [string(name), vec![level, 2, 0, 0, 0], string("app")].concat();
            client.say(&packet(0x10, &parts)).await;
            assert_eq!(client.next().await, b"", "{name:?}, level {level}");
        }
    }
}

/// [5:MQTT-3.1.2-2] [3:MQTT-3.1.2-2]
#[tokio::test]
async fn a_level_that_nobody_speaks_is_refused_by_name() {
    let host = Host::start().await;
    for level in [0, 1, 2, 3, 6, 7, 99, 255] {
        let mut client = host.plain(Mqtt::V5).await;
        let parts = [string("MQTT"), vec![level, 2, 0, 0, 0], string("app")].concat();
        client.say(&packet(0x10, &parts)).await;
        let answer = client.next().await;
        let expected = if level < 5 { [0, 0x01] } else { [0, 0x84] };
        assert_eq!(body(&answer)[..2], expected, "level {level}");
        assert_eq!(client.next().await, b"", "level {level}");
    }
}

/// A CONNECT with these flags and this payload behind the (empty) properties.
fn connect(mqtt: Mqtt, flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    let (level, properties) = if mqtt == Mqtt::V5 { (5, &[0][..]) } else { (4, &[][..]) };
    packet(
        0x10,
        &[
            &string("MQTT"),
            &[level, flags, 0, 0][..],
            properties,
            &payload.concat(),
        ]
        .concat(),
    )
}

/// [5:MQTT-3.1.2-3] [5:MQTT-3.1.2-9] [5:MQTT-3.1.2-11] [5:MQTT-3.1.2-12] [5:MQTT-3.1.2-13] [5:MQTT-3.1.2-16]
/// [5:MQTT-3.1.2-17] [5:MQTT-3.1.2-18] [5:MQTT-3.1.2-19] [5:MQTT-3.1.3-3] [5:MQTT-3.1.3-4] [5:MQTT-3.1.3-11]
/// [5:MQTT-3.1.3-12] [5:MQTT-3.1.4-1] [5:MQTT-3.2.2-8]
/// [3:MQTT-3.1.2-3] [3:MQTT-3.1.2-9] [3:MQTT-3.1.2-11] [3:MQTT-3.1.2-13] [3:MQTT-3.1.2-14] [3:MQTT-3.1.2-15]
/// [3:MQTT-3.1.2-18] [3:MQTT-3.1.2-19] [3:MQTT-3.1.2-20] [3:MQTT-3.1.2-21] [3:MQTT-3.1.3-1] [3:MQTT-3.1.3-3]
/// [3:MQTT-3.1.3-4] [3:MQTT-3.1.3-10] [3:MQTT-3.1.3-11] [3:MQTT-3.1.4-1]
#[tokio::test]
async fn a_connect_whose_flags_and_fields_disagree_is_refused() {
    const TOPIC: u8 = 0x90;
    const MALFORMED: u8 = 0x81;
    let host = Host::start().await;
    for mqtt in BOTH {
        let id = string("app");
        let will_head: &[u8] = if mqtt == Mqtt::V5 { &[0] } else { &[] };
        let will = |topic: &[u8]| [will_head, &string(topic), &string("gone")].concat();
        let name = string("name");
        #[rustfmt::skip] // a table: one rule a line
        let cases: Vec<(&str, u8, Vec<Vec<u8>>, u8)> = vec![
            ("the reserved flag", 0x03, vec![id.clone()], MALFORMED),
            ("a will QoS without a will", 0x0A, vec![id.clone()], MALFORMED),
            ("a will retain without a will", 0x22, vec![id.clone()], MALFORMED),
            ("a will of QoS 3", 0x1E, vec![id.clone(), will(b"w")], MALFORMED),
            ("a will flag without a will", 0x06, vec![id.clone()], MALFORMED),
            ("a will topic without a payload", 0x06, vec![id.clone(), will_head.to_vec(), string("w")], MALFORMED),
            ("a will without its flag", 0x02, vec![id.clone(), will(b"w")], MALFORMED),
            ("a user name flag without a name", 0x82, vec![id.clone()], MALFORMED),
            ("a user name without its flag", 0x02, vec![id.clone(), name.clone()], MALFORMED),
            ("a password flag without a password", 0xC2, vec![id.clone(), name.clone()], MALFORMED),
            ("a password without its flag", 0x82, vec![id.clone(), name.clone(), name.clone()], MALFORMED),
            ("no client identifier", 0x02, vec![], MALFORMED),
            ("a client identifier behind its length", 0x02, vec![b"\x00\x09app".to_vec()], MALFORMED),
            ("an ill-formed client identifier", 0x02, vec![string(b"a\xFF")], MALFORMED),
            ("U+0000 in the client identifier", 0x02, vec![string("a\0")], MALFORMED),
            ("an ill-formed will topic", 0x06, vec![id.clone(), will(b"\xC3\x28")], MALFORMED),
            ("a wildcard in the will topic", 0x06, vec![id.clone(), will(b"w/#")], TOPIC),
            ("an ill-formed user name", 0x82, vec![id.clone(), string(b"\xED\xA0\x80")], MALFORMED),
            ("the user name before the identifier", 0x82, vec![name.clone(), vec![0xFF, 0xFF]], MALFORMED),
        ];
        for (what, flags, payload, reason) in cases {
            let payload: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
            let mut client = host.plain(mqtt).await;
            client.say(&connect(mqtt, flags, &payload)).await;
            if mqtt == Mqtt::V5 {
                let answer = client.next().await;
                assert_eq!(answer.first(), Some(&0x20), "{what}: a CONNACK, not {answer:02x?}");
                assert_eq!(body(&answer)[..2], [0, reason], "{what}");
            }
            assert_eq!(client.next().await, b"", "{what}, {mqtt:?}");
        }
    }
}

/// [3:MQTT-3.1.2-22]
#[tokio::test]
async fn a_password_needs_a_user_name_before_mqtt_5() {
    let host = Host::start().await;
    let payload: [&[u8]; 2] = [&string("app"), &string("secret")];
    let mut old = host.plain(Mqtt::V311).await;
    old.say(&connect(Mqtt::V311, 0x42, &payload)).await;
    assert_eq!(old.next().await, b"");
    let mut new = host.plain(Mqtt::V5).await;
    new.say(&connect(Mqtt::V5, 0x42, &payload)).await;
    assert_eq!(body(&new.next().await)[..2], [0, 0]);
}

/// [5:MQTT-3.1.3-5] [3:MQTT-3.1.3-5]
#[tokio::test]
async fn every_plain_client_identifier_of_up_to_23_bytes_is_let_in() {
    let host = Host::start().await;
    for mqtt in BOTH {
        for id in ALL_CHARACTERS {
            host.join(mqtt, id).await.leave().await;
        }
    }
}

/// [5:MQTT-3.1.3-6] [5:MQTT-3.2.2-16] [3:MQTT-3.1.3-6]
#[tokio::test]
async fn a_client_without_an_identifier_is_given_one_of_its_own() {
    let host = Host::start().await;
    let mut given = Vec::new();
    for connect in [Connect::clean(Mqtt::V5, ""), Connect::resuming("")] {
        for _ in 0..2 {
            let client = host.admit(connect.clone()).await;
            let properties = client.connack_properties();
            let found = properties.iter().find(|(known, _)| *known == id::ASSIGNED_CLIENT_ID);
            let (_, name) = found.expect("an assigned client identifier").clone();
            assert!(name.len() > 2 && !given.contains(&name), "{name:?}");
            given.push(name);
        }
    }
    // The name that was given is the client's: with it, it comes back to its session.
    let expiry = four(id::SESSION_EXPIRY, 60);
    let mut first = host.admit(Connect::clean(Mqtt::V5, "").with(expiry.clone())).await;
    first.subscribe("t/1", 1).await;
    let said = first.connack_properties();
    let (_, name) = said
        .iter()
        .find(|(known, _)| *known == id::ASSIGNED_CLIENT_ID)
        .expect("it is assigned");
    let name = String::from_utf8(name[2..].to_vec()).expect("text");
    first.leave().await;
    let back = host.admit(Connect::resuming(&name).with(expiry)).await;
    assert!(back.session_present(), "{name}");

    let mut old = [host.join(Mqtt::V311, "").await, host.join(Mqtt::V311, "").await];
    for client in &mut old {
        client.silence().await; // neither took the other's place
    }
}

/// [3:MQTT-3.1.3-7] [3:MQTT-3.1.3-8] [3:MQTT-3.1.3-9] [5:MQTT-3.1.3-8]
#[tokio::test]
async fn a_client_identifier_that_will_not_do_is_refused_as_such() {
    let host = Host::plan().set("mqtt.max_clientid_len", "30").start().await;
    let long = "x".repeat(31);
    for (connect, code) in [
        (Connect::persistent(Mqtt::V311, ""), 0x02),
        (Connect::clean(Mqtt::V311, &long), 0x02),
        (Connect::clean(Mqtt::V5, &long), 0x85),
    ] {
        let mut client = host.ask(&connect).await;
        assert_eq!(body(&client.connack)[..2], [0, code]);
        assert_eq!(client.next().await, b"");
    }
}

/// [5:MQTT-3.1.3-2] [3:MQTT-3.1.3-2]
#[tokio::test]
async fn a_session_belongs_to_its_client_identifier_to_the_letter() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        app.subscribe("t/1", 1).await;
        for other in ["App", "app ", "ap", "appp"] {
            let other = host.admit(Connect::persistent(mqtt, other)).await;
            assert!(!other.session_present(), "{mqtt:?}");
        }
        app.silence().await;
        app.leave().await;
        let back = host.admit(Connect::persistent(mqtt, "app")).await;
        assert!(back.session_present(), "{mqtt:?}");
        let clean = host.join(mqtt, "app").await;
        assert!(!clean.session_present());
        for id in ["App", "app ", "ap", "appp"] {
            host.join(mqtt, id).await;
        }
    }
}

/// [5:MQTT-3.1.4-2] [5:MQTT-3.1.4-6] [5:MQTT-3.2.2-6] [5:MQTT-3.2.2-7] [5:MQTT-4.12.0-1] [5:MQTT-4.12.0-4]
/// [5:MQTT-4.13.2-1] [3:MQTT-3.1.4-5] [3:MQTT-3.2.2-4] [3:MQTT-3.2.2-5]
#[tokio::test]
async fn who_is_refused_is_told_so_and_nothing_behind_the_connect_is_read() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.join(mqtt, "app").await;
        app.subscribe("t/1", 1).await;
        // The session that is there is not announced to somebody who is refused.
        let (connect, code) = match mqtt {
            Mqtt::V5 => {
                let method = text(id::AUTH_METHOD, "SCRAM-SHA-1");
                (Connect::persistent(mqtt, "app").with(method), 0x8C)
            }
            Mqtt::V311 => (Connect::persistent(mqtt, ""), 0x02),
        };
        let mut stranger = host.plain(mqtt).await;
        let behind = publish("t/1", "from a stranger").qos(1, 1).bytes(mqtt);
        stranger.say(&[connect.bytes(), behind].concat()).await;
        let answer = stranger.next().await;
        assert_eq!((answer[0], &body(&answer)[..2]), (0x20, &[0, code][..]), "{mqtt:?}");
        assert_eq!(stranger.next().await, b"", "{mqtt:?}");
        host.join(mqtt, "sensor")
            .await
            .tell(publish("t/1", "from a client"))
            .await;
        app.receive("from a client").await;
    }
}

/// [5:MQTT-4.12.0-6] [5:MQTT-4.12.0-7]
#[tokio::test]
async fn without_an_authentication_method_there_is_no_auth() {
    let host = Host::start().await;
    let mut client = host.join(Mqtt::V5, "app").await;
    let said = client.connack_properties();
    assert!(said.iter().all(|(known, _)| *known != id::AUTH_METHOD), "{said:?}");
    client
        .say(&packet(0xF0, &[&[0x18, 4][..], &text(id::AUTH_METHOD, "x")].concat()))
        .await;
    client.sent_away(0x82).await;
}
