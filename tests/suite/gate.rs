//! The gate: an acknowledgement leaves after the commit, in order, once.

use crate::harness::fault::Lock;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt};

/// What a pool says while its database is locked.
const LOCKED: &str = "pool1";
const ROWS: &str = "select count(*) from mqtt_msg";
const WRITE_MODE: &str = "backend.sqlite.pool1.write_mode";

#[tokio::test]
async fn an_acknowledgement_waits_for_the_commit_and_everything_else_goes_on() {
    for mqtt in BOTH {
        let host = Host::plan().announce(LOCKED).start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/1", 0).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let lock = Lock::take(&host).await;
        sensor.publish(1, 1, "t/1", "one").await;
        sensor.publish(2, 2, "t/1", "two").await;
        app.expect_all(["one", "two"]).await;
        host.metric_becomes("messages_open", 2.0).await;
        for _ in 0..5 {
            assert_eq!(sensor.ping().await, [], "{mqtt:?}: no acknowledgement without a commit");
        }
        lock.release().await;
        // PUBACKs and PUBRECs keep an order each, not one among each other.
        let mut acks = [sensor.next().await, sensor.next().await];
        acks.sort_by_key(|said| matches!(said, Said::PubRec(..)));
        assert_eq!(acks, [Said::PubAck(1, 0), Said::PubRec(2, 0)], "{mqtt:?}");
        assert_eq!(host.count(ROWS).await, 2);
    }
}

#[tokio::test]
async fn acknowledgements_leave_in_the_order_of_arrival() {
    for mqtt in BOTH {
        let store = r#"{"topic": "stored/#", "action": {"function": "on_message_publish"}, "pool": "pool1"}"#;
        let host = Host::plan()
            .rules(&[("message.publish.1", store)])
            .announce(LOCKED)
            .start()
            .await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let lock = Lock::take(&host).await;
        for id in 1..=20 {
            // Every other one is stored by no rule, and waits for its neighbours all the same.
            let topic = if id % 2 == 0 { "elsewhere" } else { "stored/1" };
            sensor.publish(id, 1, topic, id.to_string()).await;
        }
        host.metric_becomes("messages_open", 20.0).await;
        assert_eq!(sensor.ping().await, [], "{mqtt:?}");
        lock.release().await;
        for id in 1..=20 {
            assert_eq!(sensor.next().await, Said::PubAck(id, 0), "{mqtt:?}");
        }
    }
}

#[tokio::test]
async fn a_resend_joins_the_open_gate_of_its_packet() {
    for mqtt in BOTH {
        for (qos, answer) in [(1, Said::PubAck(7, 0)), (2, Said::PubRec(7, 0))] {
            let host = Host::plan().announce(LOCKED).start().await;
            let mut app = host.client(mqtt, "app").connect().await;
            app.subscribe("t/1", 0).await;
            let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
            let lock = Lock::take(&host).await;
            sensor.publish(7, qos, "t/1", "x").await;
            sensor.again(7, qos, "t/1", "x").await;
            assert_eq!(sensor.ping().await, [], "{mqtt:?} QoS {qos}");
            lock.release().await;
            assert_eq!(sensor.next().await, answer);
            assert_eq!(sensor.ping().await, [], "{mqtt:?} QoS {qos}: one gate, one answer");
            app.expect("x").await;
            app.expect_nothing("t/1").await;
            assert_eq!(
                host.count("select count(*) from mqtt_msg where payload = x'78'").await,
                1
            );
        }
    }
}

#[tokio::test]
async fn a_resend_on_a_new_connection_joins_the_open_gate_too() {
    for mqtt in BOTH {
        for (qos, answer) in [(1, Said::PubAck(7, 0)), (2, Said::PubRec(7, 0))] {
            let host = Host::plan().announce(LOCKED).start().await;
            let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
            let lock = Lock::take(&host).await;
            sensor.publish(7, qos, "t/1", "x").await;
            assert_eq!(sensor.ping().await, []);
            drop(sensor);
            let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
            assert!(sensor.session_present, "{mqtt:?} QoS {qos}");
            sensor.again(7, qos, "t/1", "x").await;
            assert_eq!(sensor.ping().await, [], "{mqtt:?} QoS {qos}");
            lock.release().await;
            assert_eq!(sensor.next().await, answer);
            assert_eq!(sensor.ping().await, [], "{mqtt:?} QoS {qos}: one gate, one answer");
            assert_eq!(host.count(ROWS).await, 1, "{mqtt:?} QoS {qos}");
        }
    }
}

#[tokio::test]
async fn a_reused_packet_id_is_a_new_message() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        sensor.publish(7, 1, "t/1", "first").await;
        assert_eq!(sensor.next().await, Said::PubAck(7, 0));
        drop(sensor);
        let mut sensor = host.raw(Hello::persistent(mqtt, "sensor")).await;
        sensor.again(7, 1, "t/1", "second").await;
        assert_eq!(sensor.next().await, Said::PubAck(7, 0));
        let stored = host.sql("select payload from mqtt_msg order by id").await;
        assert_eq!(stored, ["first", "second"], "{mqtt:?}");
    }
}

#[tokio::test]
async fn a_client_beyond_the_receive_maximum_is_told_so_and_closed() {
    let host = Host::plan().announce(LOCKED).start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let lock = Lock::take(&host).await;
    for id in 1..=sensor.receive_max {
        sensor.publish(id, 1, "t/1", "x").await;
    }
    assert_eq!(sensor.ping().await, [], "up to the maximum nothing happens");
    sensor.publish(sensor.receive_max + 1, 1, "t/1", "x").await;
    assert_eq!(sensor.rest().await, [Said::Disconnect(0x93)]);
    lock.release().await;
    host.eventually(ROWS, &[&sensor.receive_max.to_string()]).await;
}

#[tokio::test]
async fn a_3_1_1_client_beyond_the_window_waits_and_loses_nothing() {
    let host = Host::plan().announce(LOCKED).start().await;
    let window = host.raw(Hello::clean(Mqtt::V5, "asker")).await.receive_max;
    let mut sensor = host.raw(Hello::clean(Mqtt::V311, "sensor")).await;
    let lock = Lock::take(&host).await;
    let sent = window.saturating_add(50);
    for id in 1..=sent {
        sensor.publish(id, 1, "t/1", "x").await;
    }
    host.metric_becomes("messages_open", f64::from(window)).await;
    lock.release().await;
    for id in 1..=sent {
        assert_eq!(sensor.next().await, Said::PubAck(id, 0));
    }
    assert_eq!(host.count(ROWS).await, i64::from(sent));
}

#[tokio::test]
async fn what_a_vanished_client_published_is_stored_all_the_same() {
    let host = Host::plan().announce(LOCKED).start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V311, "sensor")).await;
    let lock = Lock::take(&host).await;
    sensor.publish(1, 1, "t/1", "x").await;
    assert_eq!(sensor.ping().await, []);
    drop(sensor);
    lock.release().await;
    host.eventually("select payload from mqtt_msg", &["x"]).await;
}

#[tokio::test]
async fn stored_before_it_is_routed_means_that_nobody_gets_it_before_the_commit() {
    for mqtt in BOTH {
        let host = Host::plan()
            .set(WRITE_MODE, "before_route")
            .announce(LOCKED)
            .start()
            .await;
        let mut app = host.raw(Hello::clean(mqtt, "app")).await;
        app.subscribe("t/1", 0).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let lock = Lock::take(&host).await;
        sensor.publish(1, 1, "t/1", "one").await;
        sensor.publish(2, 2, "t/1", "two").await;
        host.metric_becomes("messages_open", 2.0).await;
        assert_eq!(sensor.ping().await, [], "{mqtt:?}");
        assert_eq!(app.ping().await, [], "{mqtt:?}: nothing is routed without a commit");
        lock.release().await;
        for payload in ["one", "two"] {
            assert_eq!(payload_of(app.next().await), payload, "{mqtt:?}");
        }
        let mut acks = [sensor.next().await, sensor.next().await];
        acks.sort_by_key(|said| matches!(said, Said::PubRec(..)));
        assert_eq!(acks, [Said::PubAck(1, 0), Said::PubRec(2, 0)], "{mqtt:?}");
    }
}

#[tokio::test]
async fn what_the_database_refuses_is_not_routed_where_storing_comes_first() {
    let host = Host::plan()
        .set(WRITE_MODE, "before_route")
        .announce("refused")
        .announce(LOCKED)
        .start()
        .await;
    host.execute(
        "create trigger picky before insert on mqtt_msg when cast(new.payload as text) = 'no'
         begin select raise(ignore); end",
    )
    .await;
    let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
    app.subscribe("t/1", 0).await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    // In one piece, so that they travel as one run: what is refused leaves its neighbours alone.
    let run = [(1, "ya"), (2, "no"), (3, "ok")].map(|(id, payload)| {
        let mut bytes = vec![0x32, 10, 0, 3, b't', b'/', b'1', 0, id, 0];
        bytes.extend_from_slice(payload.as_bytes());
        bytes
    });
    sensor.bytes(&run.concat()).await;
    for (id, reason) in [(1, 0), (2, 0x83), (3, 0)] {
        assert_eq!(sensor.next().await, Said::PubAck(id, reason));
    }
    for payload in ["ya", "ok"] {
        assert_eq!(payload_of(app.next().await), payload);
    }
    assert_eq!(app.ping().await, []);
}

#[tokio::test]
async fn who_chose_not_to_wait_is_acknowledged_before_the_commit() {
    for mqtt in BOTH {
        let host = Host::plan().set(WRITE_MODE, "async").announce(LOCKED).start().await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let lock = Lock::take(&host).await;
        sensor.publish(1, 1, "t/1", "one").await;
        assert_eq!(sensor.next().await, Said::PubAck(1, 0), "{mqtt:?}");
        sensor.publish(2, 2, "t/1", "two").await;
        assert_eq!(sensor.next().await, Said::PubRec(2, 0), "{mqtt:?}");
        lock.release().await;
        host.eventually("select payload from mqtt_msg order by id", &["one", "two"])
            .await;
    }
}

fn payload_of(said: Said) -> String {
    match said {
        Said::Publish { payload, .. } => String::from_utf8_lossy(&payload).into_owned(),
        other => panic!("a message, not {other:?}"),
    }
}

#[tokio::test]
async fn a_new_session_of_the_same_client_does_not_take_an_old_commit_for_its_own() {
    let host = Host::plan().announce("refused").announce(LOCKED).start().await;
    host.execute(
        "create trigger picky before insert on mqtt_msg when new.topic = 'refused'
         begin select raise(ignore); end",
    )
    .await;
    let mut old = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let lock = Lock::take(&host).await;
    old.publish(1, 1, "t/1", "good").await;
    host.metric_becomes("messages_open", 1.0).await;
    let mut new = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    new.publish(1, 1, "refused", "bad").await;
    host.metric_becomes(r#"messages_received_total{qos="1"}"#, 2.0).await;
    lock.release().await;
    assert_eq!(new.next().await, Said::PubAck(1, 0x83));
    assert_eq!(host.count(ROWS).await, 1);
}

#[tokio::test]
async fn the_books_balance_when_a_session_ended_before_its_commit() {
    let host = Host::plan().announce(LOCKED).start().await;
    let lock = Lock::take(&host).await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    sensor.publish(1, 1, "t/1", "one").await;
    sensor.publish(2, 2, "t/1", "two").await;
    host.metric_becomes("messages_open", 2.0).await;
    sensor.disconnect(0).await;
    host.metric_becomes("connections", 0.0).await;
    lock.release().await;
    host.eventually(ROWS, &["2"]).await;
    host.metric_becomes(r#"messages_acked_total{how="stored"}"#, 2.0).await;
    host.metric_becomes("messages_open", 0.0).await;
}

#[tokio::test]
async fn what_is_routed_after_its_commit_is_routed_though_its_publisher_has_gone() {
    let host = Host::plan()
        .set("backend.sqlite.pool1.write_mode", "before_route")
        .announce(LOCKED)
        .start()
        .await;
    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("t/#", 1).await;
    app.round_trip().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V311, "sensor")).await;
    let lock = Lock::take(&host).await;
    sensor.publish(0, 0, "t/1", "not stored").await;
    sensor.publish(1, 1, "t/1", "stored").await;
    host.metric_becomes("messages_open", 1.0).await;
    sensor.disconnect(0).await;
    host.metric_becomes("connections", 1.0).await;
    lock.release().await;
    app.expect_all(["not stored", "stored"]).await;
}

#[tokio::test]
async fn a_reload_while_the_database_is_away_keeps_the_gates_and_the_order() {
    let host = Host::plan().announce(LOCKED).start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let lock = Lock::take(&host).await;
    sensor.publish(1, 1, "t/1", "one").await;
    host.metric_becomes("messages_open", 1.0).await;
    let mut reload = std::process::Command::new(env!("CARGO_BIN_EXE_hookline"));
    reload
        .args(["plugins", "reload", "emqx_backend_sqlite", "--data"])
        .arg(host.data());
    let reloaded = tokio::task::spawn_blocking(move || reload.output()).await;
    let reloaded = reloaded.expect("it does not panic").expect("the binary is there");
    assert!(reloaded.status.success(), "{reloaded:?}");
    sensor.publish(2, 1, "t/1", "two").await;
    host.metric_becomes("messages_open", 2.0).await;
    lock.release().await;
    for id in [1, 2] {
        assert_eq!(sensor.next().await, Said::PubAck(id, 0));
    }
    assert_eq!(
        host.sql("select payload from mqtt_msg order by id").await,
        ["one", "two"]
    );
}
