//! PUBLISH (3.3): its flags and topic, who gets it, and how it is answered.

use crate::harness::host::Host;
use crate::harness::plain::{Connect, ack, id, packet, publish, string, unsubscribe, varint};
use crate::harness::{BOTH, Mqtt};

/// [5:MQTT-3.3.1-2] [5:MQTT-3.3.1-4] [5:MQTT-3.3.2-1] [5:MQTT-3.3.2-2] [5:MQTT-4.7.0-1] [5:MQTT-4.7.3-1]
/// [5:MQTT-4.7.3-2] [5:MQTT-4.13.1-1] [5:MQTT-3.3.4-6] [5:MQTT-3.3.2-13] [5:MQTT-3.3.2-14] [5:MQTT-3.3.2-19]
/// [3:MQTT-3.3.1-2] [3:MQTT-3.3.1-4] [3:MQTT-3.3.2-1] [3:MQTT-3.3.2-2] [3:MQTT-4.7.1-1] [3:MQTT-4.7.3-1]
/// [3:MQTT-4.7.3-2] [3:MQTT-4.8.0-1]
#[tokio::test]
async fn a_publish_that_breaks_a_rule_ends_its_connection_and_reaches_nobody() {
    let host = Host::start().await;
    let mut app = host.join(Mqtt::V5, "app").await;
    app.subscribe("#", 0).await;
    let good = || publish("t/1", "broken");
    let no_section = |mqtt| if mqtt == Mqtt::V5 { vec![0] } else { vec![] };
    for mqtt in BOTH {
        #[rustfmt::skip] // a table: one rule a line
        let mut cases = vec![
            ("DUP with QoS 0", good().dup().bytes(mqtt), 0x81),
            ("QoS 3", good().qos(3, 1).bytes(mqtt), 0x81),
            ("QoS 3 with DUP", good().qos(3, 1).dup().bytes(mqtt), 0x81),
            ("+ in the topic", publish("t/+", "broken").bytes(mqtt), 0x90),
            ("# in the topic", publish("t/#", "broken").qos(1, 1).bytes(mqtt), 0x90),
            ("+ within a level", publish("t+", "broken").bytes(mqtt), 0x90),
            ("an empty topic", publish("", "broken").bytes(mqtt), 0x82),
            ("U+0000 in the topic", publish("t\0", "broken").bytes(mqtt), 0x81),
            ("an ill-formed topic", publish(b"t/\xFF", "broken").bytes(mqtt), 0x81),
            ("a surrogate in the topic", publish(b"\xED\xA0\x80", "broken").bytes(mqtt), 0x81),
            ("a topic that is cut off", packet(0x30, b"\x00\x09t"), 0x81),
            ("no topic", packet(0x30, b""), 0x81),
            ("packet identifier 0", good().qos(1, 0).bytes(mqtt), 0x82),
            ("no packet identifier", packet(0x32, &[string("t"), no_section(mqtt)].concat()), 0x81),
        ];
        if mqtt == Mqtt::V5 {
            let with = |property: Vec<u8>| good().with(property).bytes(mqtt);
            #[rustfmt::skip] // a table: one rule a line
            cases.extend([
                ("a client's subscription identifier", with(varint(id::SUBSCRIPTION_IDENTIFIER, 1)), 0x82),
                ("a wildcard in the response topic", with([&[8][..], &string("r/#")].concat()), 0x82),
                ("an ill-formed response topic", with([&[8][..], &string(b"\xFF")].concat()), 0x81),
                ("an ill-formed content type", with([&[3][..], &string(b"\xC0\x80")].concat()), 0x81),
                ("a property twice", with(vec![1, 0, 1, 0]), 0x82),
                ("a property of CONNECT", with(vec![0x21, 0, 1]), 0x81),
            ]);
        }
        for (what, bytes, reason) in cases {
            let mut sensor = host.join(mqtt, "sensor").await;
            sensor.say(&bytes).await;
            assert_ends(&mut sensor, mqtt, reason, what).await;
        }
    }
    app.silence().await;
}

async fn assert_ends(client: &mut crate::harness::plain::Plain, mqtt: Mqtt, reason: u8, what: &str) {
    if mqtt == Mqtt::V5 {
        let heard = client.next().await;
        assert_eq!(heard.first(), Some(&0xE0), "{what}: {heard:02x?}");
        assert_eq!(heard[2], reason, "{what}");
    }
    assert_eq!(client.next().await, b"", "{what}, {mqtt:?}");
}

/// [5:MQTT-3.3.4-1] [5:MQTT-2.2.1-5] [3:MQTT-3.3.4-1] [3:MQTT-2.3.1-6]
#[tokio::test]
async fn a_publish_is_answered_as_its_qos_says() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.publish(publish("t/1", "x")).await;
        sensor.silence().await;
        for id in [1, 0x1234, 0xFFFF] {
            sensor.publish(publish("t/1", "x").qos(1, id)).await;
            let answer = sensor.next().await;
            assert_eq!((answer[0], &answer[2..4]), (0x40, &id.to_be_bytes()[..]), "{mqtt:?}");
            sensor.publish(publish("t/1", "x").qos(2, id)).await;
            let answer = sensor.next().await;
            assert_eq!((answer[0], &answer[2..4]), (0x50, &id.to_be_bytes()[..]), "{mqtt:?}");
            sensor.say(&ack(0x62, id)).await;
            sensor.hear(&ack(0x70, id)).await;
        }
    }
}

/// [5:MQTT-3.3.1-3] [5:MQTT-2.2.1-2] [5:MQTT-4.3.1-1] [3:MQTT-3.3.1-3] [3:MQTT-2.3.1-5] [3:MQTT-4.3.1-1]
#[tokio::test]
async fn dup_is_not_passed_on_and_qos_0_has_neither_dup_nor_identifier() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        for granted in 0..=2 {
            let mut app = host.join(mqtt, "app").await;
            app.subscribe("t/1", granted).await;
            for qos in 0..=2_u8 {
                match qos {
                    0 => sensor.publish(publish("t/1", "plain")).await,
                    _ => {
                        sensor
                            .publish(publish("t/1", "plain").qos(qos, 50 + u16::from(qos)).dup())
                            .await
                    }
                }
                let message = app.receive("plain").await;
                assert_eq!((message.dup, message.qos), (false, qos.min(granted)), "{mqtt:?}");
                assert_eq!(message.id == 0, message.qos == 0, "{mqtt:?}");
                if qos > 0 {
                    assert_eq!(sensor.next().await[0], 0x30 + 0x10 * qos);
                }
                if qos == 2 {
                    sensor.say(&ack(0x62, 52)).await;
                    sensor.hear(&ack(0x70, 52)).await;
                }
            }
        }
        // On the wire a QoS 0 message is its topic (and in MQTT 5 its properties), and the payload.
        let mut app = host.join(mqtt, "app").await;
        app.subscribe("t/1", 1).await;
        sensor.publish(publish("t/1", "x")).await;
        app.hear(&publish("t/1", "x").bytes(mqtt)).await;
    }
}

/// [5:MQTT-3.3.2-3] [5:MQTT-4.7.1-1] [5:MQTT-4.7.1-2] [5:MQTT-4.7.2-1] [5:MQTT-4.7.3-4] [5:MQTT-3.8.3-1]
/// [3:MQTT-3.3.2-3] [3:MQTT-4.7.1-2] [3:MQTT-4.7.1-3] [3:MQTT-4.7.2-1] [3:MQTT-4.7.3-4] [3:MQTT-3.8.3-2]
#[tokio::test]
async fn a_filter_gets_exactly_what_matches_it() {
    #[rustfmt::skip] // a table: a filter, and the topics that match it
    let filters: [(&str, &[&str]); 18] = [
        ("sport/tennis/player1/#", &["sport/tennis/player1", "sport/tennis/player1/ranking"]),
        ("sport/#", &["sport", "sport/", "sport/tennis/player1", "sport/tennis/player1/ranking"]),
        ("sport/tennis/+", &["sport/tennis/player1"]),
        ("sport/+", &["sport/"]),
        ("sport", &["sport"]),
        ("+", &["sport", "é", "e\u{301}", "\u{FEFF}sport", "SPORT", " "]),
        ("+/+", &["/finance", "sport/"]),
        ("/+", &["/finance"]),
        ("+/tennis/#", &["sport/tennis/player1", "sport/tennis/player1/ranking"]),
        ("+/+/+/ranking", &["sport/tennis/player1/ranking"]),
        ("#", &["sport", "sport/", "sport/tennis/player1", "sport/tennis/player1/ranking", "/finance", "é", "e\u{301}",
            "\u{FEFF}sport", "SPORT", " "]),
        ("/#", &["/finance"]),
        ("é", &["é"]),
        ("e\u{301}", &["e\u{301}"]),
        ("\u{FEFF}sport", &["\u{FEFF}sport"]),
        ("$mine/#", &["$mine/inside", "$mine"]),
        ("$mine/+", &["$mine/inside"]),
        ("$mine", &["$mine"]),
    ];
    let topics = [
        "sport",
        "sport/",
        "sport/tennis/player1",
        "sport/tennis/player1/ranking",
        "/finance",
        "$mine/inside",
        "$mine",
        "é",
        "e\u{301}",
        "\u{FEFF}sport",
        "SPORT",
        " ",
    ];
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.join(mqtt, "app").await;
        let mut sensor = host.join(mqtt, "sensor").await;
        for (filter, matching) in filters {
            app.subscribe(filter, 0).await;
            for topic in topics {
                sensor.tell(publish(topic, filter)).await;
                if matching.contains(&topic) {
                    assert_eq!(app.receive(filter).await.topic, topic, "{filter:?}, {mqtt:?}");
                }
            }
            app.silence().await;
            app.say(&unsubscribe(mqtt, 9, &[filter])).await;
            assert_eq!(app.next().await[0], 0xB0, "{filter:?}");
        }
    }
}

/// [5:MQTT-4.7.3-3] [3:MQTT-4.7.3-3]
#[tokio::test]
async fn the_longest_topic_that_can_be_written_is_a_topic() {
    let host = Host::start().await;
    let longest = "x".repeat(65_535);
    for mqtt in BOTH {
        let mut app = host.join(mqtt, "app").await;
        app.subscribe(&longest, 1).await;
        host.join(mqtt, "sensor").await.tell(publish(&longest, "far")).await;
        assert_eq!(app.receive("far").await.topic.len(), 65_535, "{mqtt:?}");
    }
}

/// [5:MQTT-1.5.4-3] [3:MQTT-1.5.3-3]
#[tokio::test]
async fn a_byte_order_mark_is_a_character_like_any_other() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut with = host.join(mqtt, "\u{FEFF}app").await;
        let mut without = host.join(mqtt, "app").await;
        with.subscribe("\u{FEFF}t", 1).await;
        without.subscribe("t", 1).await;
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.tell(publish("\u{FEFF}t", "with")).await;
        sensor.tell(publish("t", "without")).await;
        assert_eq!(with.receive("with").await.topic, "\u{FEFF}t", "{mqtt:?}");
        assert_eq!(without.receive("without").await.topic, "t", "{mqtt:?}");
        with.silence().await;
        without.silence().await;
    }
}

/// [5:MQTT-3.3.4-2] [3:MQTT-3.3.5-1]
#[tokio::test]
async fn overlapping_subscriptions_deliver_at_the_highest_qos() {
    let host = Host::start().await;
    for mqtt in BOTH {
        for filters in [
            [("t/#", 0), ("t/1", 2)],
            [("t/+", 2), ("t/1", 1)],
            [("t/1", 1), ("#", 0)],
        ] {
            let mut app = host.join(mqtt, "app").await;
            for (filter, qos) in filters {
                app.subscribe(filter, qos).await;
            }
            let mut sensor = host.join(mqtt, "sensor").await;
            sensor.publish(publish("t/1", "once").qos(2, 1)).await;
            sensor.hear(&ack(0x50, 1)).await;
            let highest = filters[0].1.max(filters[1].1);
            assert_eq!(app.receive("once").await.qos, highest, "{filters:?}, {mqtt:?}");
            app.silence().await;
        }
    }
}

/// [5:MQTT-3.3.4-3] [5:MQTT-3.3.4-4] [5:MQTT-3.3.4-5]
#[tokio::test]
async fn a_message_names_every_subscription_that_it_matches() {
    let host = Host::start().await;
    let mut app = host.join(Mqtt::V5, "app").await;
    for (number, filter) in [(1, "t/#"), (268_435_455, "t/1"), (300, "t/+"), (4, "other")] {
        let identifier = varint(id::SUBSCRIPTION_IDENTIFIER, number);
        app.subscribe_with(&identifier, filter, 1).await;
    }
    app.subscribe("+/1", 1).await; // without an identifier
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    sensor.tell(publish("t/1", "live")).await;
    let mut named = app.receive("live").await.values(id::SUBSCRIPTION_IDENTIFIER);
    named.sort_unstable();
    let mut wanted: Vec<Vec<u8>> = [1, 268_435_455, 300]
        .map(|number| varint(0, number)[1..].to_vec())
        .into();
    wanted.sort_unstable();
    assert_eq!(named, wanted, "one copy with all of them");
    app.silence().await;
    // Subscribed again without one, the subscription has none any more.
    for filter in ["t/#", "t/1", "t/+"] {
        app.subscribe(filter, 1).await;
    }
    sensor.tell(publish("t/1", "unnamed")).await;
    assert_eq!(app.receive("unnamed").await.properties, []);
}

/// [5:MQTT-3.3.4-3]
#[tokio::test]
async fn what_was_missed_and_what_is_retained_names_its_subscription_too() {
    let host = Host::start().await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    sensor.tell(publish("t/1", "retained").retain()).await;
    let mut app = host.admit(Connect::persistent(Mqtt::V5, "app")).await;
    app.subscribe_with(&varint(id::SUBSCRIPTION_IDENTIFIER, 7), "t/1", 1)
        .await;
    assert_eq!(
        app.receive("retained").await.values(id::SUBSCRIPTION_IDENTIFIER),
        [vec![7]]
    );
    app.leave().await;
    sensor.tell(publish("t/1", "missed")).await;
    let mut app = host.admit(Connect::persistent(Mqtt::V5, "app")).await;
    assert_eq!(
        app.receive("missed").await.values(id::SUBSCRIPTION_IDENTIFIER),
        [vec![7]]
    );
}
