//! Wills: who vanishes is announced, who says goodbye is not.

use crate::harness::host::Host;
use crate::harness::raw::Hello;
use crate::harness::{BOTH, Mqtt};

#[tokio::test]
async fn a_client_that_vanishes_leaves_its_will_and_one_that_disconnects_does_not() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("wills/#", 2).await;
        for qos in 0..=2 {
            let sensor = host
                .client(mqtt, "sensor")
                .will("wills/sensor", "gone", qos, false)
                .connect()
                .await;
            sensor.disconnect().await;
            let sensor = host
                .client(mqtt, "sensor")
                .will("wills/sensor", "vanished", qos, false)
                .connect()
                .await;
            sensor.vanish();
            let received = app.expect("vanished").await;
            assert_eq!((received.qos, received.retain), (qos, false), "{mqtt:?}");
        }
        app.expect_nothing("wills/sensor").await;
    }
}

#[tokio::test]
async fn a_retained_will_is_there_for_those_who_come_later() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("wills/sensor", 1).await;
        host.client(mqtt, "sensor")
            .will("wills/sensor", "vanished", 1, true)
            .connect()
            .await
            .vanish();
        app.expect("vanished").await;
        host.eventually("select payload from mqtt_retain", &["vanished"]).await;
        let mut later = host.client(mqtt, "later").connect().await;
        later.subscribe("wills/sensor", 1).await;
        assert!(later.expect("vanished").await.retain);
    }
}

#[tokio::test]
async fn a_v5_client_can_ask_for_its_will_as_it_leaves() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").connect().await;
    app.subscribe("wills/sensor", 1).await;
    for (reason, payload) in [(0x00, "not this"), (0x04, "this")] {
        let will = Some(("wills/sensor", payload, 1));
        let mut sensor = host
            .raw(Hello {
                will,
                ..Hello::clean(Mqtt::V5, "sensor")
            })
            .await;
        sensor.disconnect(reason).await;
        assert_eq!(sensor.rest().await, []);
    }
    app.expect("this").await;
    app.expect_nothing("wills/sensor").await;
}

#[tokio::test]
async fn breaking_the_protocol_leaves_the_will_too() {
    for mqtt in BOTH {
        let host = Host::plan().announce("sensor").start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("wills/sensor", 1).await;
        let will = Some(("wills/sensor", "broken", 1));
        let mut sensor = host
            .raw(Hello {
                will,
                ..Hello::clean(mqtt, "sensor")
            })
            .await;
        // A second CONNECT is a protocol error in every version (3.1.0-2).
        sensor.bytes(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01x").await;
        sensor.rest().await;
        app.expect("broken").await;
    }
}

#[tokio::test]
async fn a_delayed_will_is_withdrawn_when_the_client_comes_back() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").connect().await;
    app.subscribe("wills/sensor", 1).await;
    let sensor = |payload| {
        host.client(Mqtt::V5, "sensor")
            .persistent()
            .will("wills/sensor", payload, 1, false)
    };
    sensor("withdrawn").will_delay(1).connect().await.vanish();
    let back = host.client(Mqtt::V5, "sensor").persistent().connect().await;
    assert!(back.session_present);
    back.disconnect().await;
    // Its next will, delayed just as long, comes alone: the first would have come before it.
    sensor("late").will_delay(1).connect().await.vanish();
    app.expect("late").await;
    app.expect_nothing("wills/sensor").await;
}

#[tokio::test]
async fn a_delayed_will_comes_at_once_when_the_session_ends() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").connect().await;
    app.subscribe("wills/sensor", 1).await;
    let sensor = host
        .client(Mqtt::V5, "sensor")
        .persistent()
        .will("wills/sensor", "over", 1, false);
    sensor.will_delay(3000).connect().await.vanish();
    // A clean start ends the session that the will waits in (3.1.3.2.2).
    host.client(Mqtt::V5, "sensor").connect().await.disconnect().await;
    app.expect("over").await;
}

#[tokio::test]
async fn a_will_is_stored_for_a_subscriber_that_is_away() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("wills/#", 1).await;
        app.disconnect().await;
        host.client(mqtt, "sensor")
            .will("wills/sensor", "vanished", 1, false)
            .connect()
            .await
            .vanish();
        host.eventually(
            "select topic, sender, payload from mqtt_msg",
            &["wills/sensor|sensor|vanished"],
        )
        .await;
        host.restart().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("wills/#", 1).await;
        app.expect("vanished").await;
    }
}

#[tokio::test]
async fn a_goodbye_counts_that_lies_behind_what_the_client_is_not_read_on_for() {
    let host = Host::plan().set("mqtt.receive_maximum", "2").start().await;
    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("wills/sensor", 1).await;
    let hello = |id| Hello {
        will: Some(("wills/sensor", "vanished", 1)),
        ..Hello::persistent(Mqtt::V311, id)
    };
    // One comes again at once, one goes without listening to its answers.
    for (id, comes_again) in [("again", true), ("deaf", false)] {
        let mut sensor = host.raw(hello(id)).await;
        let publishes = (1..=50u8).flat_map(|number| [0x32, 6, 0, 1, b't', 0, number, b'x']);
        let goodbye = [0xE0, 0];
        sensor.bytes(&publishes.chain(goodbye).collect::<Vec<u8>>()).await;
        if comes_again {
            let clean = Hello::clean(Mqtt::V311, id);
            drop(host.raw(clean).await);
        }
        drop(sensor);
    }
    host.metric_becomes("clients_connected", 1.0).await;
    app.expect_nothing("wills/sensor").await;
}
