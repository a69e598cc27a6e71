//! Flow control (4.9, 3.3.4): how much may be under way, and that nothing else waits for it.

use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, ack, ack_with, id, publish, suback, subscribe, two};
use crate::harness::{BOTH, Mqtt};

/// A subscriber of `t/1` that takes so many messages at a time.
async fn narrow(host: &Host, window: u16) -> Plain {
    let connect = Connect::persistent(Mqtt::V5, "app").with(two(id::RECEIVE_MAXIMUM, window));
    let mut app = host.admit(connect).await;
    if !app.session_present() {
        app.subscribe("t/1", 2).await;
    }
    app
}

async fn fill(host: &Host, qos: u8, count: u16) {
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    for number in 1..=count {
        sensor
            .publish(publish("t/1", number.to_string()).qos(qos, number))
            .await;
        assert_eq!(sensor.next().await[0], 0x30 + 0x10 * qos);
    }
}

/// [5:MQTT-3.3.4-9] [5:MQTT-3.3.4-10] [5:MQTT-4.9.0-1] [5:MQTT-4.9.0-2] [5:MQTT-4.9.0-3]
#[tokio::test]
async fn no_more_is_under_way_than_the_client_takes_and_nothing_else_waits() {
    for qos in [1, 2] {
        let host = Host::start().await;
        let mut app = narrow(&host, 2).await;
        fill(&host, qos, 5).await;
        let first = app.message().await;
        let second = app.message().await;
        app.silence().await;
        // While the window is full, everything but PUBLISH of QoS 1 and 2 goes on.
        app.say(&subscribe(Mqtt::V5, 7, &[], &[("free/#", 0)])).await;
        app.hear(&suback(Mqtt::V5, 7, &[0])).await;
        app.publish(publish("free/1", "of QoS 0")).await;
        app.receive("of QoS 0").await;
        app.say(&ack(0x62, 9)).await;
        app.hear(&ack_with(0x70, 9, 0x92)).await;
        if qos == 2 {
            // A PUBREC leaves the message under way; only PUBCOMP makes room.
            app.say(&ack(0x50, second.id)).await;
            app.hear(&ack(0x62, second.id)).await;
            app.silence().await;
            app.say(&ack(0x70, second.id)).await;
        } else {
            app.say(&ack(0x40, second.id)).await;
        }
        let third = app.message().await;
        assert_eq!(third.text(), "3");
        app.silence().await;
        // A refusal makes room as well.
        app.say(&ack_with(if qos == 2 { 0x50 } else { 0x40 }, first.id, 0x80))
            .await;
        assert_eq!(app.message().await.text(), "4");
        app.silence().await;
    }
}

/// [5:MQTT-3.3.4-9] [5:MQTT-4.9.0-1]
#[tokio::test]
async fn a_new_connection_has_a_new_window() {
    let host = Host::start().await;
    let mut app = narrow(&host, 10).await;
    fill(&host, 1, 6).await;
    for number in 1..=6 {
        assert_eq!(app.message().await.text(), number.to_string());
    }
    drop(app);
    let mut app = narrow(&host, 2).await;
    for window in [[1, 2], [3, 4], [5, 6]] {
        let mut messages = Vec::new();
        for number in window {
            let message = app.message().await;
            assert_eq!((message.text(), message.dup), (number.to_string(), true));
            messages.push(message);
        }
        app.silence().await;
        for message in &messages {
            app.accept(message).await;
        }
    }
    app.silence().await;
}

/// [5:MQTT-3.3.4-7] [5:MQTT-3.3.4-8]
#[tokio::test]
async fn the_whole_receive_maximum_of_the_host_can_be_used_and_no_more() {
    const WINDOW: u16 = 20;
    let host = Host::plan().set("mqtt.receive_maximum", "20").start().await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    assert!(
        sensor
            .connack_properties()
            .contains(&(id::RECEIVE_MAXIMUM, vec![0, 20]))
    );
    for number in 1..=WINDOW {
        sensor.publish(publish("t/1", "x").qos(2, number)).await;
    }
    for number in 1..=WINDOW {
        sensor.hear(&ack(0x50, number)).await;
    }
    // With the window full, everything else is still read; what is completed makes room.
    sensor.silence().await;
    for number in 1..=3 {
        sensor.say(&ack(0x62, number)).await;
        sensor.hear(&ack(0x70, number)).await;
        sensor.publish(publish("t/1", "x").qos(2, number)).await;
        sensor.hear(&ack(0x50, number)).await;
    }
    sensor.publish(publish("t/1", "one too many").qos(2, WINDOW + 1)).await;
    sensor.sent_away(0x93).await;
    // Of QoS 1 none stays open: many times the window passes.
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    for _ in 0..3 * WINDOW {
        sensor.tell(publish("t/1", "x")).await;
    }
}

/// [5:MQTT-3.12.4-1] [3:MQTT-3.12.4-1]
#[tokio::test]
async fn every_ping_is_answered() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.join(mqtt, "app").await;
        client.say(&[0xC0, 0].repeat(10)).await;
        for _ in 0..10 {
            client.hear(&[0xD0, 0]).await;
        }
        client.silence().await;
    }
}
