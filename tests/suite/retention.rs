//! What goes from a host's database, as its clients see it.

use crate::harness::host::{Host, Plan};
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt};

const PURGED: &str = "messages_purged_total";

fn plan() -> Plan {
    Host::plan().set("backend.sqlite.pool1.purge_interval", "50ms")
}

/// Everything stored before now was looked at: what nobody subscribes to goes in every round.
async fn a_round(host: &Host) {
    let mut canary = host.client(Mqtt::V5, "canary").connect().await;
    for _ in 0..2 {
        canary.publish("canary", 1, "x").await;
        host.eventually("select count(*) from mqtt_msg where topic = 'canary'", &["0"])
            .await;
    }
}

#[tokio::test]
async fn a_message_that_everybody_has_acknowledged_goes_and_one_that_somebody_has_not_stays() {
    for mqtt in BOTH {
        let host = plan().start().await;
        let mut away = host.client(mqtt, "away").persistent().connect().await;
        away.subscribe("t/+", 1).await;
        away.disconnect().await;
        let mut there = host.client(mqtt, "there").connect().await;
        there.subscribe("#", 2).await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for (topic, payload) in [("t/1", "1"), ("u", "2"), ("t/1", "3")] {
            sensor.publish(topic, 2, payload).await;
            there.expect(payload).await;
        }
        host.eventually("select payload from mqtt_msg order by id", &["1", "3"])
            .await;
        there.disconnect().await;
        a_round(&host).await;
        let mut away = host.client(mqtt, "away").persistent().connect().await;
        away.expect("1").await;
        host.eventually("select payload from mqtt_msg order by id", &["3"])
            .await;
        away.expect("3").await;
        host.eventually("select count(*) from mqtt_msg", &["0"]).await;
        assert!(host.metric(&format!(r#"{PURGED}{{reason="acknowledged"}}"#)).await >= 3.0);
    }
}

#[tokio::test]
async fn what_a_connected_client_has_not_acknowledged_stays_though_it_has_no_position() {
    for mqtt in BOTH {
        let host = plan().start().await;
        let mut app = host.raw(Hello::clean(mqtt, "app")).await;
        assert_eq!(app.subscribe("t", 1).await, []);
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        let payloads = ["1", "2", "3"];
        sensor.publish_all("t", 1, &payloads.map(String::from)).await;
        a_round(&host).await;
        assert_eq!(host.sql("select payload from mqtt_msg order by id").await, payloads);
        let mut ids = Vec::new();
        for payload in payloads {
            match app.next().await {
                Said::Publish { id, payload: seen, .. } if seen == payload => ids.push(id),
                other => panic!("{mqtt:?}: {payload}, not {other:?}"),
            }
        }
        app.puback(ids[0]).await;
        app.puback(ids[1]).await;
        host.eventually("select payload from mqtt_msg", &["3"]).await;
        // With the session goes its claim.
        app.disconnect(0).await;
        host.eventually("select count(*) from mqtt_msg", &["0"]).await;
    }
}

#[tokio::test]
async fn a_subscriber_that_comes_back_too_late_gets_what_is_left() {
    for mqtt in BOTH {
        for filter in ["t", "t/#"] {
            let host = plan().start().await;
            let mut app = host.client(mqtt, "app").persistent().connect().await;
            app.subscribe(filter, 1).await;
            app.disconnect().await;
            let mut sensor = host.client(mqtt, "sensor").connect().await;
            let payloads = ["1", "2", "3", "4", "5"].map(String::from);
            sensor.publish_all("t", 1, &payloads).await;
            host.execute(
                "update mqtt_msg set arrived = unixepoch() - 8 * 86400 where payload in (x'31', x'32', x'34')",
            )
            .await;
            host.metric_becomes(&format!(r#"{PURGED}{{reason="age"}}"#), 3.0).await;
            let mut app = host.client(mqtt, "app").persistent().connect().await;
            app.expect_all(["3", "5"]).await;
            app.expect_nothing("t").await;
            // Where its position lay is gone altogether.
            app.disconnect().await;
            host.eventually("select state from mqtt_client where clientid = 'app'", &["0"])
                .await;
            sensor.publish("t", 1, "6").await;
            host.execute("update mqtt_msg set arrived = 1").await;
            host.eventually("select count(*) from mqtt_msg", &["0"]).await;
            sensor.publish("t", 1, "7").await;
            let mut app = host.client(mqtt, "app").persistent().connect().await;
            app.expect("7").await;
            app.expect_nothing("t").await;
        }
    }
}

#[tokio::test]
async fn a_host_keeps_to_its_bytes_and_says_what_it_deleted() {
    let mut host = plan()
        .set("backend.sqlite.pool1.message_max_bytes", "1MB")
        .start()
        .await;
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t", 1).await;
    app.disconnect().await;
    let payloads: Vec<String> = (0..300).map(|number| format!("{number:08192}")).collect();
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish_all("t", 1, &payloads).await;
    let line = host.logged("purged messages").await;
    assert!(line.contains("INFO") && line.contains("pool=sqlite.pool1"), "{line}");
    let used = "select (select page_count from pragma_page_count) * (select page_size from pragma_page_size) \
                - (select freelist_count from pragma_freelist_count) * (select page_size from pragma_page_size) \
                <= 1048576";
    host.eventually(used, &["1"]).await;
    a_round(&host).await;
    let left = host.count("select count(*) from mqtt_msg where topic = 't'").await as usize;
    assert!((50..150).contains(&left), "{left} of 300 are left");
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.expect_all(&payloads[300 - left..]).await;
}

#[tokio::test]
async fn an_archive_keeps_everything() {
    // Nothing is fetched from it, so nobody can be said to have read it.
    let rules = [(
        "message.publish.1",
        r##"{"topic": "#", "action": {"function": "on_message_publish"}, "pool": "pool1"}"##,
    )];
    let host = plan().rules(&rules).start().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish_all("t", 1, &["1", "2"].map(String::from)).await;
    host.execute("update mqtt_msg set arrived = 1 where payload = x'31'")
        .await;
    host.eventually("select payload from mqtt_msg", &["2"]).await;
    host.execute("insert into mqtt_msg (msgid, topic, qos, arrived) values ('x', 'old', 1, 1)")
        .await;
    host.eventually("select payload from mqtt_msg", &["2"]).await;
}

#[tokio::test]
async fn without_force_nothing_unread_goes_and_the_log_says_whose_sake_the_disk_fills_for() {
    let mut host = plan()
        .set("backend.sqlite.pool1.message_max_bytes", "512KB")
        .set("backend.sqlite.pool1.retention_force", "false")
        .start()
        .await;
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t", 1).await;
    app.disconnect().await;
    let payloads: Vec<String> = (0..100).map(|number| format!("{number:08192}")).collect();
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish_all("t", 1, &payloads).await;
    let line = host.logged("more is stored than message_max_bytes").await;
    assert!(line.contains("retention_force = true"), "{line}");
    a_round(&host).await;
    assert_eq!(host.count("select count(*) from mqtt_msg where topic = 't'").await, 100);
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.expect_all(&payloads).await;
}

#[tokio::test]
async fn what_a_kept_session_has_not_acknowledged_survives_purges_and_kill_9() {
    for mqtt in BOTH {
        let mut host = plan().start().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("t/+", 2).await;
        let mut number = 0;
        for _ in 0..3 {
            let payloads: Vec<String> = (number..number + 10).map(|number| number.to_string()).collect();
            number += 10;
            let mut sensor = host.client(mqtt, "sensor").connect().await;
            sensor.publish_all("t/1", 2, &payloads).await;
            app.expect_all(&payloads[..4]).await;
            host.eventually("select count(*) from mqtt_msg where topic = 't/1'", &["6"])
                .await;
            app.vanish();
            a_round(&host).await;
            assert_eq!(
                host.sql("select payload from mqtt_msg where topic = 't/1' order by id")
                    .await,
                payloads[4..]
            );
            host.restart().await;
            a_round(&host).await;
            app = host.client(mqtt, "app").persistent().connect().await;
            assert!(app.session_present, "{mqtt:?}");
            app.expect_all(&payloads[4..]).await;
            host.eventually("select count(*) from mqtt_msg where topic = 't/1'", &["0"])
                .await;
        }
        app.expect_nothing("t/1").await;
    }
}
