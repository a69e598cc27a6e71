//! Sessions: present or not, taken over, expired, alive.

use std::time::{Duration, Instant};

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt};

#[tokio::test]
async fn a_session_is_present_where_one_was_left() {
    for mqtt in BOTH {
        let host = Host::start().await;
        for (persistent, present) in [(true, false), (true, true), (false, false), (true, false), (true, true)] {
            let login = host.client(mqtt, "app");
            let login = if persistent { login.persistent() } else { login };
            let app = login.connect().await;
            assert_eq!(app.session_present, present, "{mqtt:?}");
            app.disconnect().await;
        }
    }
}

#[tokio::test]
async fn a_resumed_session_keeps_its_subscriptions_and_a_clean_one_has_none() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("t/1", 1).await;
        app.disconnect().await;
        sensor.publish("t/1", 1, "while away").await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.expect("while away").await;
        sensor.publish("t/1", 1, "back").await;
        app.expect("back").await;
        app.disconnect().await;
        let mut app = host.client(mqtt, "app").connect().await;
        sensor.publish("t/1", 1, "to nobody").await;
        app.subscribe("t/2", 1).await;
        app.expect_nothing("t/2").await;
    }
}

/// [5:MQTT-3.1.4-3] [3:MQTT-3.1.4-2]
#[tokio::test]
async fn a_newcomer_with_the_same_id_takes_over_and_the_old_connection_is_told() {
    for mqtt in BOTH {
        for persistent in [false, true] {
            let host = Host::start().await;
            let hello = |id| {
                if persistent {
                    Hello::persistent(mqtt, id)
                } else {
                    Hello::clean(mqtt, id)
                }
            };
            let mut old = host.raw(hello("app")).await;
            old.subscribe("t/1", 1).await;
            let mut new = host.raw(hello("app")).await;
            assert_eq!(new.session_present, persistent, "{mqtt:?}");
            let farewell = if mqtt == Mqtt::V5 {
                vec![Said::Disconnect(0x8E)]
            } else {
                vec![]
            };
            assert_eq!(old.rest().await, farewell, "{mqtt:?}");
            assert_eq!(new.ping().await, [], "{mqtt:?}: the newcomer stays");
            new.subscribe("t/2", 0).await;
            let mut sensor = host.client(mqtt, "sensor").connect().await;
            sensor.publish("t/1", 0, "x").await;
            sensor.publish("t/2", 0, "x").await;
            // The session goes with the id, if it was kept. Topics keep no order among each other: the first
            // may still wait for its retained messages to be read.
            let wanted = if persistent { vec!["t/1", "t/2"] } else { vec!["t/2"] };
            let mut topics = Vec::new();
            for _ in &wanted {
                match new.next().await {
                    Said::Publish { topic, .. } => topics.push(topic),
                    other => panic!("{mqtt:?}: a message, not {other:?}"),
                }
            }
            topics.sort();
            assert_eq!(topics, wanted, "{mqtt:?}");
        }
    }
}

#[tokio::test]
async fn a_take_over_among_rumqttc_clients_closes_the_old_one() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let old = host.client(mqtt, "app").connect().await;
        let mut new = host.client(mqtt, "app").connect().await;
        assert_eq!(old.closed().await, (mqtt == Mqtt::V5).then_some(0x8E));
        new.round_trip().await;
    }
}

#[tokio::test]
async fn a_qos_2_message_half_way_is_finished_after_a_take_over() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/1", 2).await;
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        sensor.publish(7, 2, "t/1", "x").await;
        assert_eq!(sensor.next().await, Said::PubRec(7, 0));
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        sensor.again(7, 2, "t/1", "x").await;
        assert_eq!(sensor.next().await, Said::PubRec(7, 0));
        sensor.pubrel(7).await;
        assert_eq!(sensor.next().await, Said::PubComp(7));
        app.expect("x").await;
        app.expect_nothing("t/1").await;
    }
}

#[tokio::test]
async fn a_session_expires_when_its_time_is_up() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").persistent().expiry(1).connect().await;
    app.subscribe("t/1", 1).await;
    host.metric_becomes("sessions", 1.0).await;
    app.disconnect().await;
    host.metric_becomes("sessions", 0.0).await;
    assert!(
        !host
            .client(Mqtt::V5, "app")
            .persistent()
            .connect()
            .await
            .session_present
    );
}

#[tokio::test]
async fn a_session_with_expiry_0_ends_with_its_connection() {
    let host = Host::start().await;
    host.client(Mqtt::V5, "app")
        .persistent()
        .expiry(0)
        .connect()
        .await
        .vanish();
    host.metric_becomes("sessions", 0.0).await;
    assert!(
        !host
            .client(Mqtt::V5, "app")
            .persistent()
            .connect()
            .await
            .session_present
    );
}

#[tokio::test]
async fn a_disconnect_may_shorten_the_session() {
    let host = Host::start().await;
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    // DISCONNECT, reason 0, property 0x11 Session Expiry Interval = 0.
    app.bytes(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
    assert_eq!(app.rest().await, []);
    assert!(!host.raw(Hello::persistent(Mqtt::V5, "app")).await.session_present);
}

/// [5:MQTT-3.1.2-22] [3:MQTT-3.1.2-24]
#[tokio::test]
async fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let start = Instant::now();
        let mut silent = host
            .raw(Hello {
                keep_alive_s: 1,
                ..Hello::clean(mqtt, "silent")
            })
            .await;
        let farewell = if mqtt == Mqtt::V5 {
            vec![Said::Disconnect(0x8D)]
        } else {
            vec![]
        };
        assert_eq!(silent.rest().await, farewell, "{mqtt:?}");
        let after = start.elapsed();
        assert!(
            after >= Duration::from_millis(1450),
            "{mqtt:?}: closed after {after:?}, too early"
        );
    }
}

#[tokio::test]
async fn a_client_that_pings_stays() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut silent = host
            .raw(Hello {
                keep_alive_s: 1,
                ..Hello::clean(mqtt, "silent")
            })
            .await;
        let mut pinging = host
            .raw(Hello {
                keep_alive_s: 1,
                ..Hello::clean(mqtt, "pinging")
            })
            .await;
        // The silent one's end is the clock of this story: the other has pinged twice a second until then.
        let mut half = tokio::time::interval(Duration::from_millis(500));
        let mut end = Box::pin(silent.rest());
        loop {
            tokio::select! {
                _ = &mut end => break,
                _ = half.tick() => assert_eq!(pinging.ping().await, [], "{mqtt:?}"),
            }
        }
        assert_eq!(pinging.ping().await, [], "{mqtt:?}");
    }
}

#[tokio::test]
async fn the_host_sends_no_more_than_a_client_accepts() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").receive_max(3).connect().await;
    app.subscribe("t/1", 1).await;
    let payloads: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    host.client(Mqtt::V5, "sensor")
        .connect()
        .await
        .publish_all("t/1", 1, &payloads)
        .await;
    let first = [app.receive().await, app.receive().await, app.receive().await];
    app.round_trip().await;
    assert_eq!(
        host.metric(r#"messages_sent_total{qos="1"}"#).await,
        3.0,
        "three are unacknowledged"
    );
    for (received, payload) in first.iter().zip(&payloads) {
        assert_eq!(received.text(), *payload);
        app.ack(received).await;
    }
    app.expect_all(&payloads[3..]).await;
}

#[tokio::test]
async fn a_client_without_an_id_gets_one() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut first = host.raw(Hello::clean(mqtt, "")).await;
        let mut second = host.raw(Hello::clean(mqtt, "")).await;
        assert_eq!(
            (first.ping().await, second.ping().await),
            (vec![], vec![]),
            "{mqtt:?}: they are two"
        );
    }
}

#[tokio::test]
async fn what_is_not_mqtt_is_closed_and_harms_nobody() {
    let host = Host::plan().announce("malformed").announce("protocol").start().await;
    let mut good = host.raw(Hello::clean(Mqtt::V311, "good")).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00\x00",
        b"\x30\x00",
        b"\x10\xff\xff\xff\xff\xff",
        b"\xc0\x00",
    ] {
        let mut bad = host.dial(Mqtt::V311).await;
        bad.bytes(bytes).await;
        assert_eq!(bad.rest().await, [], "{bytes:?}");
    }
    assert_eq!(good.ping().await, []);
}

#[tokio::test]
async fn a_client_that_is_still_writing_what_is_refused_hears_why() {
    let host = Host::start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    // More than the host accepts, and more than the kernel takes unless the host reads it.
    let mut publish = vec![0x30, 0x80, 0x80, 0x80, 0x08, 0, 1, b't', 0];
    publish.resize(16 << 20, b'x');
    assert!(sensor.wrote(&publish).await, "it could finish what it had to say");
    assert_eq!(sensor.rest().await, [Said::Disconnect(0x95)]);
}
