//! What a subscriber gets that was away, and where its reading position stands.

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt};

const POSITIONS: &str = "select clientid, topic, mid from mqtt_acked order by clientid, topic";

#[tokio::test]
async fn a_message_survives_kill_9_and_arrives_exactly_once() {
    for mqtt in BOTH {
        for qos in 1..=2 {
            let mut host = Host::start().await;
            let mut app = host.client(mqtt, "app").persistent().connect().await;
            app.subscribe("rooms/#", qos).await;
            app.disconnect().await;
            host.client(mqtt, "sensor")
                .connect()
                .await
                .publish("rooms/kitchen", qos, "21.5 °C")
                .await;
            host.kill9().await;
            host.restart().await;
            let mut app = host.client(mqtt, "app").persistent().connect().await;
            app.subscribe("rooms/#", qos).await;
            let received = app.expect("21.5 °C").await;
            assert_eq!(
                (received.topic.as_str(), received.qos),
                ("rooms/kitchen", qos),
                "{mqtt:?}"
            );
            app.expect_nothing("rooms/kitchen").await;
            app.disconnect().await;
            let mut app = host.client(mqtt, "app").persistent().connect().await;
            app.subscribe("rooms/#", qos).await;
            app.expect_nothing("rooms/kitchen").await;
        }
    }
}

#[tokio::test]
async fn a_first_subscription_creates_a_position_of_0() {
    let host = Host::earliest().await;
    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("t/1", 1).await;
    host.eventually(POSITIONS, &["app|t/1|0"]).await;
    app.subscribe("t/2", 0).await;
    app.subscribe("t/3", 2).await;
    host.eventually(POSITIONS, &["app|t/1|0", "app|t/3|0"]).await;
}

#[tokio::test]
async fn a_latest_subscription_starts_behind_what_is_there() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        sensor.publish("t/1", 1, "before").await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("t/1", 1).await;
        sensor.publish("t/1", 1, "after").await;
        app.expect("after").await;
        app.expect_nothing("t/1").await;
    }
}

#[tokio::test]
async fn unread_messages_come_in_order_and_once() {
    for mqtt in BOTH {
        let host = Host::earliest().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        sensor.publish_all("t/1", 1, &["1", "2", "3"].map(String::from)).await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("t/1", 1).await;
        for payload in ["1", "2", "3"] {
            let received = app.expect(payload).await;
            assert_eq!(
                (received.qos, received.retain, received.dup),
                (1, false, false),
                "{mqtt:?}"
            );
        }
        app.subscribe("t/1", 1).await;
        app.expect_nothing("t/1").await;
        sensor.publish("t/1", 1, "while online").await;
        app.expect("while online").await;
        app.expect_nothing("t/1").await;
        app.disconnect().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        assert!(app.session_present);
        app.subscribe("t/1", 1).await;
        app.expect_nothing("t/1").await;
    }
}

#[tokio::test]
async fn a_position_is_the_row_of_the_last_message_read() {
    let host = Host::earliest().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    let mut app = host.client(Mqtt::V5, "app").connect().await;
    app.subscribe("t/1", 1).await;
    for payload in ["one", "two", "three"] {
        sensor.publish("elsewhere", 1, "x").await;
        sensor.publish("t/1", 1, payload).await;
        app.expect(payload).await;
        let id = host.sql("select max(id) from mqtt_msg").await.remove(0);
        host.eventually(POSITIONS, &[&format!("app|t/1|{id}")]).await;
    }
}

#[tokio::test]
async fn an_acknowledgement_out_of_turn_moves_no_position_past_what_is_unread() {
    let host = Host::earliest().await;
    host.client(Mqtt::V311, "sensor")
        .connect()
        .await
        .publish_all("t/1", 1, &["1", "2", "3"].map(String::from))
        .await;
    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("t/1", 1).await;
    let (one, _two, three) = (app.receive().await, app.receive().await, app.receive().await);
    app.ack(&one).await;
    app.ack(&three).await;
    app.disconnect().await;
    // Positions are flushed before the client is marked as gone.
    host.eventually("select state from mqtt_client where clientid = 'app'", &["0"])
        .await;
    assert_eq!(host.sql(POSITIONS).await, ["app|t/1|1"]);

    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("t/1", 1).await;
    let (two, three) = (app.receive().await, app.receive().await);
    assert_eq!([two.text(), three.text()], ["2", "3"], "nothing is skipped");
    app.ack(&three).await;
    app.ack(&two).await;
    host.eventually(POSITIONS, &["app|t/1|3"]).await;
}

#[tokio::test]
async fn a_long_backlog_comes_page_by_page_through_a_small_window() {
    for qos in 1..=2 {
        let host = Host::earliest().await;
        let payloads: Vec<String> = (0..450).map(|number| number.to_string()).collect();
        host.client(Mqtt::V5, "sensor")
            .connect()
            .await
            .publish_all("t/1", qos, &payloads)
            .await;
        let mut app = host.client(Mqtt::V5, "app").receive_max(7).connect().await;
        app.subscribe("t/1", qos).await;
        app.expect_all(&payloads).await;
        app.expect_nothing("t/1").await;
    }
}

#[tokio::test]
async fn a_subscription_in_the_middle_of_a_stream_gets_all_of_it_in_order() {
    for mqtt in BOTH {
        for qos in 1..=2 {
            let host = Host::earliest().await;
            let mut sensor = host.client(mqtt, "sensor").connect().await;
            let mut app = host.client(mqtt, "app").connect().await;
            let payloads: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
            sensor.publish_all("t/1", qos, &payloads[..300]).await;
            let join = async {
                app.subscribe("t/1", qos).await;
                app.expect_all(&payloads).await;
            };
            tokio::join!(sensor.publish_all("t/1", qos, &payloads[300..]), join);
            app.expect_nothing("t/1").await;
        }
    }
}

#[tokio::test]
async fn a_wildcard_subscription_gets_what_was_published_while_it_was_away() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("rooms/+/temperature", 1).await;
        app.disconnect().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for (topic, payload) in [("a", "1"), ("b", "2"), ("a", "3")] {
            sensor.publish(&format!("rooms/{topic}/temperature"), 1, payload).await;
            sensor.publish(&format!("rooms/{topic}/humidity"), 1, "no").await;
        }
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.expect_all(["1", "2", "3"]).await;
        app.expect_nothing("rooms/a/temperature").await;
    }
}

#[tokio::test]
async fn a_qos_0_subscription_reads_no_backlog() {
    let host = Host::earliest().await;
    host.client(Mqtt::V311, "sensor")
        .connect()
        .await
        .publish("t/1", 1, "stored")
        .await;
    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("t/1", 0).await;
    app.expect_nothing("t/1").await;
}

#[tokio::test]
async fn an_expired_message_is_not_delivered_and_the_others_say_what_is_left() {
    let host = Host::earliest().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    for payload in ["expired", "fresh"] {
        let properties = rumqttc::v5::mqttbytes::v5::PublishProperties {
            message_expiry_interval: Some(600),
            content_type: Some("text/plain".to_owned()),
            ..Default::default()
        };
        sensor.publish_with("t/1", 1, payload, properties).await;
    }
    host.execute("update mqtt_msg set expire_at = 1 where payload = cast('expired' as blob)")
        .await;
    let mut app = host.client(Mqtt::V5, "app").connect().await;
    app.subscribe("t/1", 1).await;
    let left = app.expect("fresh").await.expiry_s;
    assert!(left.is_some_and(|left| (500..=600).contains(&left)), "{left:?}");
}

#[tokio::test]
async fn unsubscribing_forgets_the_position() {
    let host = Host::earliest().await;
    let mut app = host.client(Mqtt::V311, "app").connect().await;
    app.subscribe("t/1", 1).await;
    app.subscribe("t/2", 1).await;
    host.eventually(POSITIONS, &["app|t/1|0", "app|t/2|0"]).await;
    app.unsubscribe("t/1").await;
    host.eventually(POSITIONS, &["app|t/2|0"]).await;
}

const QUEUE: [(&str, &str); 3] = [
    (
        "message.publish.1",
        r#"{"topic": "queue/#", "action": {"function": "on_message_publish"}, "pool": "pool1"}"#,
    ),
    (
        "session.subscribed.1",
        r#"{"topic": "queue/#", "action": {"function": "on_message_fetch_for_queue"}, "pool": "pool1"}"#,
    ),
    (
        "message.acked.1",
        r#"{"topic": "queue/#", "action": {"function": "on_message_acked_for_queue"}, "pool": "pool1"}"#,
    ),
];

#[tokio::test]
async fn a_queue_gives_a_message_to_the_first_that_acknowledges_it() {
    for mqtt in BOTH {
        let host = Host::plan().earliest().rules(&QUEUE).start().await;
        host.client(mqtt, "sensor")
            .connect()
            .await
            .publish_all("queue/1", 1, &["1", "2"].map(String::from))
            .await;
        let mut first = host.client(mqtt, "first").connect().await;
        first.subscribe("queue/1", 1).await;
        first.expect_all(["1", "2"]).await;
        host.eventually("select count(*) from mqtt_msg", &["0"]).await;
        let mut second = host.client(mqtt, "second").connect().await;
        second.subscribe("queue/1", 1).await;
        second.expect_nothing("queue/1").await;
    }
}

#[tokio::test]
async fn everybody_reads_everything_where_there_is_no_queue() {
    for mqtt in BOTH {
        let host = Host::earliest().await;
        host.client(mqtt, "sensor")
            .connect()
            .await
            .publish_all("t/1", 1, &["1", "2"].map(String::from))
            .await;
        for name in ["first", "second"] {
            let mut app = host.client(mqtt, name).connect().await;
            app.subscribe("t/1", 1).await;
            app.expect_all(["1", "2"]).await;
            app.disconnect().await;
        }
        assert_eq!(host.count("select count(*) from mqtt_msg").await, 2);
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        app.subscribe("t/1", 1).await;
        host.client(mqtt, "sensor").connect().await.publish("t/1", 1, "x").await;
        let Said::Publish { id, dup: false, .. } = app.next().await else {
            panic!("a first copy")
        };
        drop(app);
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        assert!(app.session_present);
        match app.next().await {
            Said::Publish {
                id: again,
                dup: true,
                payload,
                ..
            } => assert_eq!((again, &*payload), (id, &b"x"[..])),
            other => panic!("{mqtt:?}: a resend with its number and DUP, not {other:?}"),
        }
        app.puback(id).await;
        app.ping().await;
        drop(app);
        let mut app = host.raw(Hello::persistent(mqtt, "app")).await;
        assert_eq!(app.ping().await, [], "{mqtt:?}");
    }
}
