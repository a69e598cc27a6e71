//! Retained messages (3.3.1.3, 3.8.3.1): kept, replaced, cleared, and sent to whom.

use crate::harness::host::Host;
use crate::harness::plain::{Plain, publish};
use crate::harness::{BOTH, Mqtt};

const NO_LOCAL: u8 = 0x04;
const AS_PUBLISHED: u8 = 0x08;

/// Subscribes on a connection of its own; the payloads of the retained messages that come, by topic.
async fn retained(host: &Host, mqtt: Mqtt, filter: &str) -> Vec<(String, String, u8)> {
    let mut late = host.join(mqtt, "late").await;
    late.subscribe(filter, 2).await;
    // A live message waits for the retained ones, so it ends them.
    late.tell_later(filter).await;
    let mut found = Vec::new();
    loop {
        let message = late.message().await;
        late.accept(&message).await;
        if message.text() == "sentinel" {
            break;
        }
        assert!(message.retain && !message.dup, "{message:?}");
        found.push((message.topic.clone(), message.text(), message.qos));
    }
    late.leave().await;
    found.sort();
    found
}

impl Plain {
    /// Publishes a sentinel of QoS 0 to a topic that the filter matches.
    async fn tell_later(&mut self, filter: &str) {
        let topic = filter.replace(['#', '+'], "sentinel");
        self.publish(publish(topic, "sentinel")).await;
    }
}

fn found(expected: &[(&str, &str, u8)]) -> Vec<(String, String, u8)> {
    let owned = |(topic, payload, qos): &(&str, &str, u8)| (topic.to_string(), payload.to_string(), *qos);
    expected.iter().map(owned).collect()
}

/// [5:MQTT-3.3.1-5] [5:MQTT-3.3.1-6] [5:MQTT-3.3.1-7] [5:MQTT-3.3.1-8]
/// [3:MQTT-3.3.1-5] [3:MQTT-3.3.1-6] [3:MQTT-3.3.1-7] [3:MQTT-3.3.1-8] [3:MQTT-3.3.1-10] [3:MQTT-3.3.1-11]
/// [3:MQTT-3.3.1-12]
#[tokio::test]
async fn the_last_retained_message_of_a_topic_is_kept_until_it_is_replaced_or_cleared() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.join(mqtt, "sensor").await;
        for qos in 0..=2 {
            let message = |payload| publish(format!("k/{qos}"), payload).qos(qos, 1);
            sensor.publish(message("first").retain()).await;
            finish(&mut sensor, qos).await;
            sensor.publish(message("last").retain()).await;
            finish(&mut sensor, qos).await;
            sensor.publish(message("not retained")).await;
            finish(&mut sensor, qos).await;
            sensor.publish(message("")).await;
            finish(&mut sensor, qos).await;
        }
        let all = [("k/0", "last", 0), ("k/1", "last", 1), ("k/2", "last", 2)];
        assert_eq!(retained(&host, mqtt, "k/+").await, found(&all), "{mqtt:?}");
        // An empty one clears, whatever its QoS, and is passed on like any other message.
        let mut app = host.join(mqtt, "app").await;
        app.subscribe("k/#", 0).await;
        for _ in 0..3 {
            app.receive("last").await;
        }
        for qos in 0..=2 {
            sensor
                .publish(publish(format!("k/{qos}"), "").qos(qos, 1).retain())
                .await;
            finish(&mut sensor, qos).await;
            assert!(!app.receive("").await.retain, "{mqtt:?}");
        }
        assert_eq!(retained(&host, mqtt, "k/+").await, [], "{mqtt:?}");
        // QoS 0 replaces what was kept, too.
        sensor.tell(publish("k/1", "of QoS 1").retain()).await;
        sensor.publish(publish("k/1", "of QoS 0").retain()).await;
        sensor.silence().await;
        assert_eq!(
            retained(&host, mqtt, "k/+").await,
            found(&[("k/1", "of QoS 0", 0)]),
            "{mqtt:?}"
        );
    }
}

async fn finish(sensor: &mut Plain, qos: u8) {
    match qos {
        1 => assert_eq!(sensor.next().await[0], 0x40),
        2 => {
            assert_eq!(sensor.next().await[0], 0x50);
            sensor.say(b"\x62\x02\x00\x01").await;
            sensor.hear(b"\x70\x02\x00\x01").await;
        }
        _ => sensor.silence().await,
    }
}

/// [5:MQTT-3.3.1-12] [5:MQTT-3.3.1-13] [3:MQTT-3.3.1-9]
#[tokio::test]
async fn live_messages_carry_retain_only_for_those_who_asked_for_it_as_published() {
    let host = Host::start().await;
    for (mqtt, options, kept) in [
        (Mqtt::V311, 1, false),
        (Mqtt::V5, 1, false),
        (Mqtt::V5, 1 | AS_PUBLISHED, true),
    ] {
        let mut app = host.join(mqtt, "app").await;
        app.subscribe("live/1", options).await;
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.tell(publish("live/1", "plain")).await;
        sensor.tell(publish("live/1", "retained").retain()).await;
        sensor.tell(publish("live/1", "").retain()).await;
        assert!(!app.receive("plain").await.retain);
        assert_eq!(
            app.receive("retained").await.retain,
            kept,
            "{mqtt:?}, options {options:#x}"
        );
        assert_eq!(app.receive("").await.retain, kept, "{mqtt:?}, options {options:#x}");
    }
}

/// [5:MQTT-3.3.1-9] [5:MQTT-3.3.1-10] [5:MQTT-3.3.1-11] [5:MQTT-3.8.4-4]
#[tokio::test]
async fn retain_handling_says_when_retained_messages_are_sent() {
    let host = Host::start().await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    sensor.tell(publish("k/1", "kept").retain()).await;
    for (handling, first, again) in [(0, true, true), (1, true, false), (2, false, false)] {
        let mut app = host.join(Mqtt::V5, "app").await;
        for (round, sent) in [("first", first), ("again", again)] {
            app.subscribe("k/1", 1 | handling << 4).await;
            sensor.tell(publish("k/1", "live")).await;
            if sent {
                assert!(app.receive("kept").await.retain, "handling {handling}, {round}");
            }
            assert!(!app.receive("live").await.retain, "handling {handling}, {round}");
        }
        app.silence().await;
    }
}

/// [5:MQTT-3.8.3-3]
#[tokio::test]
async fn no_local_keeps_a_client_from_hearing_itself() {
    let host = Host::start().await;
    let mut app = host.join(Mqtt::V5, "app").await;
    app.subscribe("t/1", 1 | NO_LOCAL).await;
    let mut other = host.join(Mqtt::V5, "other").await;
    other.subscribe("t/1", 1 | NO_LOCAL).await;
    app.tell(publish("t/1", "of app")).await;
    other.receive("of app").await;
    other.tell(publish("t/1", "of other")).await;
    app.receive("of other").await;
    other.silence().await;
    // Of two subscriptions that match, the one without it delivers.
    app.subscribe("t/#", 0).await;
    app.publish(publish("t/1", "of app")).await;
    assert_eq!(app.receive("of app").await.qos, 0);
}
