//! Retained messages: set, replaced, cleared, looked up, and still there after kill -9.

use crate::harness::host::Host;
use crate::harness::{BOTH, Mqtt};

const RETAINED: &str = "select topic, qos, payload from mqtt_retain order by topic";

#[tokio::test]
async fn a_new_subscriber_gets_the_retained_message_flagged_and_a_present_one_gets_it_plain() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut present = host.client(mqtt, "present").connect().await;
        present.subscribe("t/1", 1).await;
        // Its own lookup is over: what comes now is live.
        present.expect_nothing("t/1").await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        sensor.retain("t/1", 1, "on").await;
        assert!(!present.expect("on").await.retain, "{mqtt:?}: live");
        let mut new = host.client(mqtt, "new").connect().await;
        new.subscribe("t/1", 1).await;
        assert!(new.expect("on").await.retain, "{mqtt:?}: looked up");
        new.expect_nothing("t/1").await;
    }
}

#[tokio::test]
async fn the_newest_retained_message_replaces_and_an_empty_one_clears() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        let mut present = host.client(mqtt, "present").connect().await;
        present.subscribe("t/1", 0).await;
        for payload in ["on", "off", ""] {
            sensor.retain("t/1", 1, payload).await;
            present.expect(payload).await;
            let mut new = host.client(mqtt, "new").connect().await;
            new.subscribe("t/1", 1).await;
            if !payload.is_empty() {
                assert!(new.expect(payload).await.retain);
            }
            present.expect(new.expect_nothing("t/1").await).await;
        }
        assert_eq!(host.sql(RETAINED).await, [""; 0], "{mqtt:?}");
    }
}

#[tokio::test]
async fn retained_messages_survive_kill_9_and_cleared_ones_stay_cleared() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for (topic, qos, payload) in [
            ("t/1", 1, "one"),
            ("t/2", 2, "two"),
            ("t/3", 1, "three"),
            ("t/3", 1, ""),
        ] {
            sensor.retain(topic, qos, payload).await;
        }
        host.kill9().await;
        host.restart().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/#", 2).await;
        let mut received = [app.receive().await, app.receive().await].map(|received| {
            assert!(received.retain);
            (received.topic, received.qos)
        });
        received.sort();
        assert_eq!(received, [("t/1".to_owned(), 1), ("t/2".to_owned(), 2)], "{mqtt:?}");
        assert_eq!(host.sql(RETAINED).await, ["t/1|1|one", "t/2|2|two"]);
    }
}

#[tokio::test]
async fn a_wildcard_looks_up_all_that_matches_and_nothing_of_the_broker_itself() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for topic in ["a", "a/b", "a/b/c", "A/b", "ab", "a_b", "$hidden/b"] {
            sensor.retain(topic, 1, topic).await;
        }
        for (filter, wanted) in [
            ("#", vec!["A/b", "a", "a/b", "a/b/c", "a_b", "ab"]),
            ("a/#", vec!["a", "a/b", "a/b/c"]),
            ("+/b", vec!["A/b", "a/b"]),
            ("a/+/c", vec!["a/b/c"]),
            ("$hidden/#", vec!["$hidden/b"]),
        ] {
            let mut app = host.client(mqtt, "app").connect().await;
            app.subscribe(filter, 0).await;
            let mut topics = Vec::new();
            for _ in &wanted {
                topics.push(app.receive().await.topic);
            }
            topics.sort();
            assert_eq!(topics, wanted, "{mqtt:?} {filter}");
            app.expect_nothing(wanted[0]).await;
        }
    }
}

#[tokio::test]
async fn a_retained_message_comes_at_the_lower_qos() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for stored in 0..=2 {
            sensor.retain("t/1", stored, "x").await;
            sensor.round_trip().await;
            for granted in 0..=2 {
                let mut app = host.client(mqtt, "app").connect().await;
                app.subscribe("t/1", granted).await;
                let received = app.expect("x").await;
                assert_eq!(
                    (received.qos, received.retain),
                    (stored.min(granted), true),
                    "{mqtt:?} {stored} {granted}"
                );
            }
        }
    }
}

#[tokio::test]
async fn subscribing_again_brings_the_retained_message_again_unless_told_otherwise() {
    let host = Host::start().await;
    host.client(Mqtt::V5, "sensor")
        .connect()
        .await
        .retain("t/1", 0, "x")
        .await;
    let mut old = host.client(Mqtt::V311, "old").connect().await;
    for _ in 0..2 {
        old.subscribe("t/1", 0).await;
        old.expect("x").await;
    }
    for (handling, first, second) in [(0, true, true), (1, true, false), (2, false, false)] {
        let mut app = host.client(Mqtt::V5, "app").connect().await;
        for comes in [first, second] {
            app.subscribe_handling("t/1", 0, handling).await;
            if comes {
                assert!(app.expect("x").await.retain, "handling {handling}");
            }
            app.expect_nothing("t/1").await;
        }
    }
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag_on_live_messages() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").connect().await;
    app.subscribe_with("t/#", 1, Some(9), |options| options.preserve_retain = true)
        .await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.retain("t/1", 1, "kept").await;
    sensor.publish("t/1", 1, "plain").await;
    for (payload, retain) in [("kept", true), ("plain", false)] {
        let received = app.expect(payload).await;
        assert_eq!(
            (received.retain, received.identifiers.as_slice()),
            (retain, &[9][..]),
            "{payload}"
        );
    }
}

#[tokio::test]
async fn a_retained_message_that_is_also_unread_comes_once() {
    for mqtt in BOTH {
        let host = Host::earliest().await;
        host.client(mqtt, "sensor").connect().await.retain("t/1", 1, "x").await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/1", 1).await;
        assert!(
            app.expect("x").await.retain,
            "{mqtt:?}: the retained copy is the one that comes"
        );
        app.expect_nothing("t/1").await;
        app.disconnect().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/1", 1).await;
        assert!(app.expect("x").await.retain, "{mqtt:?}");
        app.expect_nothing("t/1").await;
    }
}
