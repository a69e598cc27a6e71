//! Sessions that outlive the broker: what a client may rely on when it hears Session Present.

use crate::harness::host::Host;
use crate::harness::plain::{self, Connect, four, id};
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{BOTH, Mqtt};

const SESSIONS: &str = "select clientid from mqtt_session order by clientid";

async fn crash(host: &mut Host) {
    host.kill9().await;
    host.restart().await;
}

#[tokio::test]
async fn a_client_need_not_subscribe_again_after_a_crash() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        app.subscribe("rooms/+", 1).await;
        app.subscribe("halls/#", 2).await;
        drop(app);
        crash(&mut host).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        sensor.publish(1, 1, "rooms/1", "while away").await;
        sensor.publish(2, 2, "halls/1", "while away").await;
        assert_eq!(sensor.next().await, Said::PubAck(1, 0));
        assert_eq!(sensor.next().await, Said::PubRec(2, 0));
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        assert!(app.session_present, "{mqtt:?}");
        let mut topics = Vec::new();
        while topics.len() < 2 {
            let Said::Publish { topic, qos, .. } = app.next().await else {
                continue;
            };
            topics.push((topic, qos));
        }
        topics.sort();
        assert_eq!(
            topics,
            [("halls/1".to_owned(), 2), ("rooms/1".to_owned(), 1)],
            "{mqtt:?}"
        );
        sensor.publish(3, 1, "rooms/2", "live").await;
        assert!(
            matches!(app.next().await, Said::Publish { topic, .. } if topic == "rooms/2"),
            "{mqtt:?}: the subscription is live"
        );
    }
}

#[tokio::test]
async fn an_unsubscription_survives_a_crash_too() {
    let mut host = Host::start().await;
    let mut app = host.raw(Hello::persistent(Mqtt::V311, "app")).await;
    app.subscribe("a", 1).await;
    app.subscribe("b", 1).await;
    app.bytes(b"\xA2\x05\x00\x09\x00\x01a").await;
    assert_eq!(app.next().await, Said::UnsubAck(9));
    crash(&mut host).await;
    let mut app = host.raw(Hello::persistent(Mqtt::V311, "app")).await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V311, "sensor")).await;
    sensor.publish(1, 1, "a", "to nobody").await;
    sensor.publish(2, 1, "b", "to the app").await;
    assert!(matches!(app.next().await, Said::Publish { topic, .. } if topic == "b"));
}

#[tokio::test]
async fn a_qos_2_message_that_was_received_before_a_crash_is_stored_once() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        sensor.publish(5, 2, "t/1", "once").await;
        assert_eq!(sensor.next().await, Said::PubRec(5, 0));
        crash(&mut host).await;
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        assert!(sensor.session_present, "{mqtt:?}");
        sensor.again(5, 2, "t/1", "once").await;
        assert_eq!(sensor.next().await, Said::PubRec(5, 0), "{mqtt:?}");
        sensor.pubrel(5).await;
        assert_eq!(sensor.next().await, Said::PubComp(5), "{mqtt:?}");
        crash(&mut host).await;
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        sensor.publish(5, 2, "t/1", "another").await;
        assert_eq!(
            sensor.next().await,
            Said::PubRec(5, 0),
            "{mqtt:?}: the identifier was free"
        );
        assert_eq!(
            host.sql("select payload from mqtt_msg order by id").await,
            ["once", "another"],
            "{mqtt:?}"
        );
    }
}

#[tokio::test]
async fn a_qos_2_delivery_goes_on_after_a_crash_under_its_packet_identifier() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        app.subscribe("t/#", 2).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let mut ids = Vec::new();
        for (number, text) in [(1, "one"), (2, "two")] {
            sensor.publish(number, 2, "t/1", text).await;
            match app.next().await {
                Said::Publish { id, .. } => ids.push(id),
                other => panic!("{mqtt:?}: {other:?}"),
            }
        }
        app.pubrec(ids[0]).await;
        assert_eq!(app.next().await, Said::PubRel(ids[0]), "{mqtt:?}");
        crash(&mut host).await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        assert_eq!(app.next().await, Said::PubRel(ids[0]), "{mqtt:?}");
        let again = app.next().await;
        let expected = |said: &Said| matches!(said, Said::Publish { id, dup: true, payload, .. } if *id == ids[1] && payload == "two");
        assert!(expected(&again), "{mqtt:?}: {again:?}");
        app.pubcomp(ids[0]).await;
        app.pubrec(ids[1]).await;
        assert_eq!(app.next().await, Said::PubRel(ids[1]), "{mqtt:?}");
        app.pubcomp(ids[1]).await;
        assert_eq!(app.ping().await, [], "{mqtt:?}: nothing comes twice");
        host.eventually("select count(*) from mqtt_session_qos2 where direction = 1", &["0"])
            .await;
    }
}

#[tokio::test]
async fn a_clean_start_leaves_nothing_that_a_crash_could_bring_back() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        app.subscribe("t/1", 1).await;
        drop(app);
        for crashes_before in [false, true] {
            if crashes_before {
                crash(&mut host).await;
            }
            let app = host.raw(Hello::clean(mqtt, "app")).await;
            assert!(!app.session_present, "{mqtt:?}");
            assert_eq!(host.sql(SESSIONS).await, [""; 0], "{mqtt:?}: gone before the CONNACK");
            drop(app);
            let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
            assert!(!app.session_present, "{mqtt:?}");
            app.subscribe("t/1", 1).await;
        }
    }
}

#[tokio::test]
async fn a_session_that_expired_while_the_broker_was_down_is_not_present() {
    let mut host = Host::start().await;
    let brief = Hello {
        expiry_s: 1,
        ..Hello::persistent(Mqtt::V5, "brief")
    };
    let mut app = host.raw(brief).await;
    app.subscribe("t/1", 1).await;
    let mut long = host.raw(Hello::persistent(Mqtt::V5, "long")).await;
    long.subscribe("t/1", 1).await;
    host.kill9().await;
    host.execute("update mqtt_session set left_at = connected_at - 10 where clientid = 'brief'")
        .await;
    host.restart().await;
    assert!(!host.raw(brief).await.session_present);
    drop(long);
    assert!(host.raw(Hello::persistent(Mqtt::V5, "long")).await.session_present);
}

#[tokio::test]
async fn nobody_has_to_come_back_for_a_session_to_end_after_a_crash() {
    let mut host = Host::start().await;
    let brief = Hello {
        expiry_s: 1,
        ..Hello::persistent(Mqtt::V5, "brief")
    };
    let mut app = host.raw(brief).await;
    app.subscribe("t/1", 1).await;
    crash(&mut host).await;
    host.eventually(SESSIONS, &[]).await;
    for table in ["mqtt_session_sub", "mqtt_acked"] {
        assert_eq!(host.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}

#[tokio::test]
async fn an_expiry_that_was_changed_at_disconnect_counts() {
    let mut host = Host::start().await;
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    app.subscribe("t/1", 1).await;
    // DISCONNECT with Session Expiry Interval 0.
    app.bytes(b"\xE0\x07\x00\x05\x11\x00\x00\x00\x00").await;
    app.rest().await;
    host.eventually(SESSIONS, &[]).await;
    crash(&mut host).await;
    assert!(!host.raw(Hello::persistent(Mqtt::V5, "app")).await.session_present);
}

#[tokio::test]
async fn a_session_rests_in_the_store_and_comes_back_from_there() {
    let mut host = Host::start().await;
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    app.subscribe("t/#", 1).await;
    app.disconnect(0).await;
    app.rest().await;
    host.rests("app").await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    sensor.publish(1, 1, "t/1", "while it rests").await;
    assert_eq!(sensor.next().await, Said::PubAck(1, 0));
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    assert!(app.session_present);
    assert!(matches!(app.next().await, Said::Publish { payload, .. } if payload == "while it rests"));
    drop(app);
    // A stop that is asked for keeps sessions as well.
    host.terminate().await;
    host.restart().await;
    assert!(host.raw(Hello::persistent(Mqtt::V5, "app")).await.session_present);
}

#[tokio::test]
async fn the_delayed_will_of_a_session_that_rests_is_published_when_it_is_due() {
    let host = Host::start().await;
    let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
    app.subscribe("wills", 1).await;
    let mourner = host
        .raw(Hello {
            will: Some(("wills", "gone", 1)),
            will_delay_s: 8,
            ..Hello::persistent(Mqtt::V5, "mourner")
        })
        .await;
    drop(mourner);
    // It rests before its will is due.
    host.rests("mourner").await;
    assert!(matches!(app.next().await, Said::Publish { payload, .. } if payload == "gone"));
    host.rests("mourner").await;
    let due = "select due_at - left_at from mqtt_session where clientid = 'mourner'";
    // Its expiry is next, once that is written.
    host.eventually(due, &["3600"]).await;
}

#[tokio::test]
async fn subscription_options_survive_a_crash() {
    let mut host = Host::start().await;
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    // No Local, Retain As Published, Retain Handling 2, identifier 7.
    app.bytes(b"\x82\x0B\x00\x01\x02\x0B\x07\x00\x03t/1\x2D").await;
    assert_eq!(app.next().await, Said::SubAck(1, vec![1]));
    crash(&mut host).await;
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    app.publish(1, 1, "t/1", "mine").await;
    assert_eq!(app.next().await, Said::PubAck(1, 0), "not delivered to its publisher");
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    sensor.retain(1, 1, "t/1", "kept").await;
    assert!(
        matches!(app.next().await, Said::Publish { retain: true, .. }),
        "as published"
    );
    let kept = "select identifier, retain_handling from mqtt_session_sub";
    assert_eq!(host.sql(kept).await, ["7|2"]);
}

#[tokio::test]
async fn a_message_s_expiry_goes_on_over_a_crash() {
    let mut host = Host::start().await;
    let mut app = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
    app.subscribe("t/#", 1).await;
    drop(app);
    let mut sensor = host.admit(Connect::clean(Mqtt::V5, "sensor")).await;
    for (topic, expiry_s) in [("t/late", 1000), ("t/in time", 1000), ("t/any time", u32::MAX)] {
        let message = plain::publish(topic, topic);
        sensor.tell(message.with(four(id::MESSAGE_EXPIRY, expiry_s))).await;
    }
    host.kill9().await;
    // What would have been half an hour of being down, and a minute.
    host.execute(
        "update mqtt_msg set expire_at = unixepoch() - 1 where topic = 't/late';
         update mqtt_msg set expire_at = unixepoch() + 900 where topic = 't/in time'",
    )
    .await;
    host.restart().await;
    let session = four(id::SESSION_EXPIRY, 3600);
    let mut app = host.admit(Connect::resuming("app").with(session)).await;
    assert!(app.session_present());
    let in_time = app.receive("t/in time").await;
    let left = in_time.values(id::MESSAGE_EXPIRY).concat();
    let left = u32::from_be_bytes(left.try_into().expect("four bytes"));
    assert!((850..=900).contains(&left), "{left} s are left");
    app.receive("t/any time").await;
}

/// The payloads of the next messages, which are retained, with their packet identifiers.
async fn retained(app: &mut Raw, count: usize) -> Vec<(String, u16)> {
    let mut found = Vec::new();
    while found.len() < count {
        match app.next().await {
            Said::Publish {
                id,
                payload,
                retain: true,
                ..
            } => found.push((String::from_utf8_lossy(&payload).into_owned(), id)),
            other => panic!("not a retained message: {other:?}"),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn retained_messages_that_were_under_way_in_a_crash_come_after_it_and_then_no_more() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        for (id, room) in [(1, "rooms/1"), (2, "rooms/2"), (3, "rooms/3")] {
            sensor.retain(id, 1, room, room).await;
            assert_eq!(sensor.next().await, Said::PubAck(id, 0));
        }
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        app.ask_for("rooms/+", 1).await;
        let found = retained(&mut app, 3).await;
        // One of the three is acknowledged: a client cannot tell which of them the broker still knows of.
        app.puback(found[0].1).await;
        app.ping().await;
        crash(&mut host).await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        assert!(app.session_present, "{mqtt:?}");
        let found = retained(&mut app, 3).await;
        let payloads: Vec<&str> = found.iter().map(|(payload, _)| payload.as_str()).collect();
        assert_eq!(payloads, ["rooms/1", "rooms/2", "rooms/3"], "{mqtt:?}");
        for (_, id) in &found {
            app.puback(*id).await;
        }
        host.eventually("select owes_retained from mqtt_session_sub", &["0"])
            .await;
        crash(&mut host).await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        assert!(app.session_present, "{mqtt:?}");
        assert_eq!(app.ping().await, [], "{mqtt:?}: it has them all");
    }
}
