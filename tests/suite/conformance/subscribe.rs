//! SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11): what is granted, replaced and removed, and how it is answered.

use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, ack, packet, publish, reasons, string, subscribe, unsuback, unsubscribe};
use crate::harness::{BOTH, Mqtt};

/// [5:MQTT-3.8.4-1] [5:MQTT-3.8.4-2] [5:MQTT-3.8.4-5] [5:MQTT-3.8.4-6] [5:MQTT-3.8.4-7] [5:MQTT-3.9.3-1]
/// [5:MQTT-3.9.3-2] [5:MQTT-2.2.1-6] [3:MQTT-3.8.4-1] [3:MQTT-3.8.4-2] [3:MQTT-3.8.4-4] [3:MQTT-3.8.4-5]
/// [3:MQTT-3.9.3-1] [3:MQTT-3.9.3-2] [3:MQTT-2.3.1-7]
#[tokio::test]
async fn one_suback_answers_every_filter_in_its_order() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.join(mqtt, "app").await;
        let bad = if mqtt == Mqtt::V5 { 0x8F } else { 0x80 };
        let filters = [
            ("a/2", 2),
            ("a/#/bad", 1),
            ("a/0", 0),
            ("a/1", 1),
            ("a/2", 0),
            ("bad+", 2),
        ];
        for id in [1, 0xABCD, 0xFFFF] {
            app.say(&subscribe(mqtt, id, &[], &filters)).await;
            let granted = reasons(mqtt, &app.next().await, id);
            assert_eq!(granted, [2, bad, 0, 1, 0, bad], "{mqtt:?}");
        }
        // As if they had come one by one: the last one counts for a filter that came twice.
        let mut sensor = host.join(mqtt, "sensor").await;
        for topic in ["a/2", "a/0", "a/1"] {
            sensor.publish(publish(topic, topic).qos(2, 1)).await;
            sensor.hear(&ack(0x50, 1)).await;
            sensor.say(&ack(0x62, 1)).await;
            sensor.hear(&ack(0x70, 1)).await;
        }
        // Topics keep no order among each other.
        let mut heard = Vec::new();
        for _ in 0..3 {
            let message = app.message().await;
            app.accept(&message).await;
            heard.push((message.topic, message.qos));
        }
        heard.sort();
        let wanted = [("a/0", 0), ("a/1", 1), ("a/2", 0)].map(|(topic, qos)| (topic.to_owned(), qos));
        assert_eq!(heard, wanted, "{mqtt:?}");
        app.silence().await;
    }
}

/// [5:MQTT-3.8.4-3] [5:MQTT-3.8.4-4] [3:MQTT-3.8.4-3]
#[tokio::test]
async fn subscribing_again_replaces_the_subscription_and_loses_nothing() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.tell(publish("r/1", "kept").retain()).await;
        let mut app = host.join(mqtt, "app").await;
        for qos in [2, 0, 1] {
            app.subscribe("r/1", qos).await;
            let kept = app.receive("kept").await;
            assert_eq!(
                (kept.retain, kept.qos),
                (true, qos.min(1)),
                "{mqtt:?}: it is sent again"
            );
            sensor.tell(publish("r/1", "live")).await;
            assert_eq!(
                app.receive("live").await.qos,
                qos.min(1),
                "{mqtt:?}: one copy, at the new QoS"
            );
            app.silence().await;
        }
        // A stream is not interrupted by subscribing again in the middle of it.
        let mut stream = host.join(mqtt, "stream").await;
        app.subscribe("s/1", 1).await;
        for number in 0..100_u16 {
            stream
                .publish(publish("s/1", number.to_string()).qos(1, number + 1))
                .await;
            if number % 10 == 5 {
                app.say(&subscribe(mqtt, 500 + number, &[], &[("s/1", 1)])).await;
            }
        }
        let (mut next, mut answers) = (0, 0);
        while next < 100 || answers < 10 {
            let heard = app.next().await;
            match heard[0] {
                0x32 => {
                    let at = 4 + "s/1".len();
                    let id = u16::from_be_bytes([heard[at], heard[at + 1]]);
                    let wanted = next.to_string();
                    assert!(heard.ends_with(wanted.as_bytes()), "{wanted} is next, not {heard:02x?}");
                    app.say(&ack(0x40, id)).await;
                    next += 1;
                }
                0x90 => answers += 1,
                _ => panic!("{heard:02x?}"),
            }
        }
        app.silence().await;
        sensor.tell(publish("r/1", "").retain()).await;
    }
}

/// [5:MQTT-3.8.4-8] [3:MQTT-3.8.4-6]
#[tokio::test]
async fn a_message_comes_at_the_lower_of_its_qos_and_the_subscriptions() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        for granted in 0..=2 {
            let mut app = host.join(mqtt, "app").await;
            app.subscribe("q/1", granted).await;
            for qos in 0..=2 {
                sensor.publish(publish("q/1", "x").qos(qos, 1)).await;
                assert_eq!(app.receive("x").await.qos, qos.min(granted), "{mqtt:?}");
                if qos > 0 {
                    assert_eq!(sensor.next().await[0], 0x30 + 0x10 * qos);
                }
                if qos == 2 {
                    sensor.say(&ack(0x62, 1)).await;
                    sensor.hear(&ack(0x70, 1)).await;
                }
            }
        }
    }
}

/// [5:MQTT-3.8.1-1] [5:MQTT-3.8.3-1] [5:MQTT-3.8.3-2] [5:MQTT-3.8.3-4] [5:MQTT-3.8.3-5] [5:MQTT-3.10.1-1]
/// [5:MQTT-3.10.3-1] [5:MQTT-3.10.3-2]
/// [3:MQTT-3.8.1-1] [3:MQTT-3.8.3-1] [3:MQTT-3.8.3-3] [3:MQTT-3.8.3-4] [3:MQTT-3.10.1-1] [3:MQTT-3.10.3-1]
/// [3:MQTT-3.10.3-2] [3:MQTT-2.3.1-1]
#[tokio::test]
async fn a_malformed_subscribe_or_unsubscribe_ends_the_connection() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let one = |filter: &str, options| subscribe(mqtt, 1, &[], &[(filter, options)]);
        let with_first = |first: u8, mut bytes: Vec<u8>| {
            bytes[0] = first;
            bytes
        };
        let head: &[u8] = if mqtt == Mqtt::V5 { b"\x00\x01\x00" } else { b"\x00\x01" };
        let raw = |filter: &[u8], end: &[u8]| [head, &string(filter), end].concat();
        #[rustfmt::skip] // a table: one rule a line
        let mut cases = vec![
            ("SUBSCRIBE with flags 0", with_first(0x80, one("t", 1)), 0x81),
            ("SUBSCRIBE with flags 3", with_first(0x83, one("t", 1)), 0x81),
            ("SUBSCRIBE with flags 15", with_first(0x8F, one("t", 1)), 0x81),
            ("SUBSCRIBE of nothing", packet(0x82, head), 0x82),
            ("SUBSCRIBE with identifier 0", subscribe(mqtt, 0, &[], &[("t", 1)]), 0x82),
            ("an ill-formed filter", packet(0x82, &raw(b"t/\xFF", &[1])), 0x81),
            ("U+0000 in a filter", one("t\0", 1), 0x81),
            ("a filter without options", packet(0x82, &raw(b"t", &[])), 0x81),
            ("QoS 3", one("t", 3), 0x82),
            ("a reserved option", one("t", 0x40), 0x81),
            ("another reserved option", one("t", 0x80), 0x81),
            ("UNSUBSCRIBE with flags 0", with_first(0xA0, unsubscribe(mqtt, 1, &["t"])), 0x81),
            ("UNSUBSCRIBE with flags 15", with_first(0xAF, unsubscribe(mqtt, 1, &["t"])), 0x81),
            ("UNSUBSCRIBE of nothing", packet(0xA2, head), 0x82),
            ("UNSUBSCRIBE with identifier 0", unsubscribe(mqtt, 0, &["t"]), 0x82),
            ("an ill-formed unwanted filter", packet(0xA2, &raw(b"\xC3\x28", &[])), 0x81),
            ("U+0000 in an unwanted filter", unsubscribe(mqtt, 1, &["\0"]), 0x81),
        ];
        match mqtt {
            Mqtt::V5 => cases.extend([
                ("no local, shared", one("$share/g/t", 0x05), 0x82),
                ("retain handling 3", one("t", 0x31), 0x82),
            ]),
            Mqtt::V311 => cases.extend([
                ("no local before MQTT 5", one("t", 0x05), 0),
                ("retain handling before MQTT 5", one("t", 0x10), 0),
                ("an empty filter", one("", 1), 0),
            ]),
        }
        for (what, bytes, reason) in cases {
            let mut client = host.join(mqtt, "app").await;
            client.say(&bytes).await;
            let heard = client.next().await;
            if mqtt == Mqtt::V5 {
                assert_eq!((heard.first(), heard.get(2)), (Some(&0xE0), Some(&reason)), "{what}");
                assert_eq!(client.next().await, b"", "{what}");
            } else {
                assert_eq!(heard, b"", "{what}");
            }
        }
    }
}

/// [5:MQTT-3.10.4-1] [5:MQTT-3.10.4-2] [5:MQTT-3.10.4-4] [5:MQTT-3.10.4-5] [5:MQTT-3.10.4-6] [5:MQTT-3.11.3-1]
/// [5:MQTT-3.11.3-2] [5:MQTT-2.2.1-6] [3:MQTT-3.10.4-1] [3:MQTT-3.10.4-2] [3:MQTT-3.10.4-4] [3:MQTT-3.10.4-5]
/// [3:MQTT-3.10.4-6] [3:MQTT-2.3.1-7]
#[tokio::test]
async fn unsubscribing_removes_exactly_what_is_named_and_is_always_answered() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.join(mqtt, "app").await;
        for filter in ["u/1", "u/+", "U/1"] {
            app.subscribe(filter, 1).await;
        }
        let mut sensor = host.join(mqtt, "sensor").await;
        // Nothing of this is a subscription, though some of it matches one.
        app.say(&unsubscribe(mqtt, 0xABCD, &["u/2", "u/#", "u/1/", "#"])).await;
        app.hear(&unsuback(mqtt, 0xABCD, &[0x11, 0x11, 0x11, 0x11])).await;
        sensor.tell(publish("u/1", "still")).await;
        app.receive("still").await;
        app.say(&unsubscribe(mqtt, 8, &["u/+", "no", "u/+"])).await;
        app.hear(&unsuback(mqtt, 8, &[0, 0x11, 0x11])).await;
        sensor.tell(publish("u/2", "not any more")).await;
        sensor.tell(publish("u/1", "by its other filter")).await;
        app.receive("by its other filter").await;
        app.say(&unsubscribe(mqtt, 9, &["u/1", "U/1"])).await;
        app.hear(&unsuback(mqtt, 9, &[0, 0])).await;
        sensor.tell(publish("u/1", "not any more")).await;
        app.silence().await;
    }
}

/// [5:MQTT-3.10.4-3] [3:MQTT-3.10.4-3]
#[tokio::test]
async fn a_message_under_way_is_finished_though_its_subscription_has_gone() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        app.subscribe("u/1", 2).await;
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.publish(publish("u/1", "of QoS 2").qos(2, 1)).await;
        sensor.hear(&ack(0x50, 1)).await;
        sensor.tell(publish("u/1", "of QoS 1")).await;
        let begun = [app.message().await, app.message().await];
        app.say(&unsubscribe(mqtt, 9, &["u/1"])).await;
        app.hear(&unsuback(mqtt, 9, &[0])).await;
        drop(app);
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        for message in &begun {
            let again = app.message().await;
            assert_eq!(
                (again.id, again.text(), again.dup),
                (message.id, message.text(), true),
                "{mqtt:?}"
            );
        }
        finish(&mut app, begun[0].id, begun[1].id).await;
        app.silence().await;
        app.leave().await;
        host.join(mqtt, "app").await;
    }
}

async fn finish(app: &mut Plain, qos2: u16, qos1: u16) {
    app.say(&ack(0x50, qos2)).await;
    app.hear(&ack(0x62, qos2)).await;
    app.say(&ack(0x70, qos2)).await;
    app.say(&ack(0x40, qos1)).await;
}
