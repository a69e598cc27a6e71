//! `$SYS`: the figures that people look for, and that they are the broker's alone.

use std::collections::BTreeMap;

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{BOTH, Mqtt};

/// Reads figures until this one says this; everything said on the way, by topic.
async fn until(raw: &mut Raw, topic: &str, value: &str) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    while seen.get(topic).map(String::as_str) != Some(value) {
        match raw.next().await {
            Said::Publish { topic, payload, .. } => {
                seen.insert(topic, String::from_utf8_lossy(&payload).into_owned());
            }
            other => panic!("a figure, not {other:?}"),
        }
    }
    seen
}

#[tokio::test]
async fn the_figures_are_told_to_those_who_ask_for_them_and_to_nobody_else() {
    let host = Host::plan().set("broker.sys_interval", "50ms").start().await;
    for mqtt in BOTH {
        let mut plain = host.raw(Hello::clean(mqtt, "plain")).await;
        for filter in ["#", "+/broker/#", "+/+/uptime"] {
            plain.subscribe(filter, 1).await;
        }
        let mut ops = host.raw(Hello::clean(mqtt, "ops")).await;
        ops.subscribe("$SYS/#", 1).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        until(&mut ops, "$SYS/broker/clients/connected", "3").await;
        for number in 1..=3 {
            sensor.publish(number, 1, "t", "x").await;
            assert_eq!(sensor.next().await, Said::PubAck(number, 0));
        }
        let received = match mqtt {
            Mqtt::V311 => "3",
            Mqtt::V5 => "6",
        };
        let node = "$SYS/brokers/hookline@127.0.0.1";
        until(&mut ops, "$SYS/broker/publish/messages/received", received).await;
        let sent = format!("{node}/metrics/messages/qos1/received");
        let mut late = host.raw(Hello::clean(mqtt, "late")).await;
        late.subscribe("$SYS/#", 0).await;
        let seen = until(&mut late, &sent, received).await;
        assert_eq!(seen["$SYS/brokers"], "hookline@127.0.0.1");
        assert!(seen["$SYS/broker/clients/maximum"].parse::<u32>().expect("a number") >= 3);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(seen["$SYS/broker/version"], format!("hookline version {version}"));
        assert!(seen["$SYS/broker/uptime"].ends_with(" seconds"));
        let got: Vec<Said> = plain.ping().await;
        assert_eq!(got.len(), 3, "the messages of the sensor: {got:?}");
        for raw in [plain, ops, sensor, late] {
            let mut raw = raw;
            raw.disconnect(0).await;
            raw.rest().await;
        }
        host.metric_becomes("clients_connected", 0.0).await;
    }
}

#[tokio::test]
async fn without_an_interval_nothing_is_told() {
    let host = Host::plan().set("broker.sys_interval", "0").start().await;
    let mut ops = host.raw(Hello::clean(Mqtt::V5, "ops")).await;
    ops.subscribe("$SYS/#", 0).await;
    host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    assert_eq!(ops.ping().await, []);
}

#[tokio::test]
async fn what_a_client_publishes_there_goes_nowhere_and_is_answered_in_its_turn() {
    let host = Host::plan().set("broker.sys_interval", "0").start().await;
    for (turn, mqtt) in (1..).zip(BOTH) {
        let code = match mqtt {
            Mqtt::V311 => 0,
            Mqtt::V5 => 0x87,
        };
        let mut ops = host.raw(Hello::clean(mqtt, "ops")).await;
        ops.subscribe("$SYS/#", 2).await;
        ops.subscribe("t", 0).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        // One turn, stored messages of one topic around it.
        sensor
            .together([(1, "t", "one"), (2, "$SYS/broker/x", "no"), (3, "t", "three")])
            .await;
        for expected in [Said::PubAck(1, 0), Said::PubAck(2, code), Said::PubAck(3, 0)] {
            assert_eq!(sensor.next().await, expected, "{mqtt:?}");
        }
        sensor.publish(0, 0, "$SYS/broker/x", "no").await;
        sensor.retain(4, 2, "$SYS/x", "no").await;
        assert_eq!(sensor.next().await, Said::PubRec(4, code));
        if mqtt == Mqtt::V311 {
            sensor.pubrel(4).await;
            assert_eq!(sensor.next().await, Said::PubComp(4));
        }
        for expected in ["one", "three"] {
            assert!(matches!(ops.next().await, Said::Publish { payload, .. } if payload == expected));
        }
        assert_eq!(ops.ping().await, []);
        let silently = [3.0, 4.0][turn - 1];
        host.metric_becomes(r#"messages_dropped_total{reason="reserved_topic"}"#, silently)
            .await;
    }
}

#[tokio::test]
async fn a_will_there_is_refused_or_dropped() {
    let host = Host::plan().set("broker.sys_interval", "0").start().await;
    let will = |mqtt| Hello {
        will: Some(("$SYS/broker/x", "no", 1)),
        ..Hello::clean(mqtt, "sensor")
    };
    let refused = host.dial(Mqtt::V5).await.hello(will(Mqtt::V5)).await;
    assert!(matches!(refused, Said::ConnAck { code: 0x87, .. }), "{refused:?}");
    drop(host.raw(will(Mqtt::V311)).await);
    host.metric_becomes(r#"messages_dropped_total{reason="reserved_topic"}"#, 1.0)
        .await;
}

#[tokio::test]
async fn who_comes_and_who_goes_is_told() {
    let host = Host::start().await;
    let mut ops = host.raw(Hello::clean(Mqtt::V311, "ops")).await;
    ops.subscribe("$SYS/brokers/+/clients/#", 0).await;
    let mut next = async || match ops.next().await {
        Said::Publish {
            topic, payload, retain, ..
        } => {
            assert!(!retain);
            let json: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
            (topic, json)
        }
        other => panic!("an event, not {other:?}"),
    };
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let (topic, json) = next().await;
    assert_eq!(topic, "$SYS/brokers/hookline@127.0.0.1/clients/sensor/connected");
    assert_eq!((&json["clientid"], &json["proto_ver"]), (&"sensor".into(), &5.into()));
    sensor.disconnect(0).await;
    let (topic, json) = next().await;
    assert_eq!(topic, "$SYS/brokers/hookline@127.0.0.1/clients/sensor/disconnected");
    assert_eq!(json["reason"], "success");
    // What no topic may hold is not told, and hurts nobody.
    host.raw(Hello::clean(Mqtt::V5, "a+b")).await.disconnect(0).await;
    let _c = host.raw(Hello::clean(Mqtt::V5, "c")).await;
    assert_eq!(next().await.0, "$SYS/brokers/hookline@127.0.0.1/clients/c/connected");
}
