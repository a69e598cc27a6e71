//! What a PUBLISH leaves in the database, and what a subscriber gets of it.

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt};

const ROWS: &str = "select count(*) from mqtt_msg";

#[tokio::test]
async fn a_qos_0_publish_leaves_no_row_and_a_qos_1_or_2_publish_leaves_one() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for (qos, rows) in [(0, 0), (1, 1), (2, 2)] {
            sensor.publish("t/1", qos, "21").await;
            sensor.round_trip().await;
            assert_eq!(host.count(ROWS).await, rows, "{mqtt:?} QoS {qos}");
        }
    }
}

#[tokio::test]
async fn a_stored_row_says_who_published_what_where_and_when() {
    let host = Host::start().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish("rooms/kitchen", 2, "21.5 °C").await;
    sensor.retain("rooms/hall", 1, "19 °C").await;
    let rows = host
        .sql("select topic, sender, node, qos, retain, payload from mqtt_msg order by id")
        .await;
    assert_eq!(
        rows,
        [
            "rooms/kitchen|sensor|null|2|0|21.5 °C",
            "rooms/hall|sensor|null|1|1|19 °C"
        ]
    );
    let odd = "select count(*) from mqtt_msg where length(msgid) <> 20 or abs(arrived - strftime('%s')) > 60";
    assert_eq!(host.count(odd).await, 0);
}

#[tokio::test]
async fn an_acknowledged_message_is_in_the_database_at_once() {
    let host = Host::start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V311, "sensor")).await;
    for id in 1..=20 {
        sensor.publish(id, 1, "t/1", id.to_string()).await;
        assert_eq!(sensor.next().await, Said::PubAck(id, 0));
        assert_eq!(host.count(ROWS).await, i64::from(id));
    }
}

#[tokio::test]
async fn a_qos_2_publish_sent_twice_is_one_message() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/1", 2).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        sensor.publish(7, 2, "t/1", "x").await;
        assert_eq!(sensor.next().await, Said::PubRec(7, 0));
        sensor.again(7, 2, "t/1", "x").await;
        assert_eq!(
            sensor.next().await,
            Said::PubRec(7, 0),
            "{mqtt:?}: a resend before PUBREL is answered again"
        );
        sensor.pubrel(7).await;
        assert_eq!(sensor.next().await, Said::PubComp(7));
        sensor.publish(7, 2, "t/1", "y").await;
        assert_eq!(
            sensor.next().await,
            Said::PubRec(7, 0),
            "{mqtt:?}: after PUBCOMP the number is free"
        );
        sensor.pubrel(7).await;
        assert_eq!(sensor.next().await, Said::PubComp(7));
        app.expect_all(["x", "y"]).await;
        app.expect_nothing("t/1").await;
        assert_eq!(
            host.count("select count(*) from mqtt_msg where payload in (x'78', x'79')")
                .await,
            2
        );
    }
}

#[tokio::test]
async fn every_qos_arrives_at_the_lower_of_published_and_subscribed() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for subscribed in 0..=2 {
            let mut app = host.client(mqtt, "app").connect().await;
            app.subscribe("t/1", subscribed).await;
            for published in 0..=2 {
                let payload = format!("{published} to {subscribed}");
                sensor.publish("t/1", published, &payload).await;
                let received = app.expect(&payload).await;
                assert_eq!(received.qos, published.min(subscribed), "{mqtt:?} {payload}");
                assert!(!received.dup && !received.retain, "{mqtt:?} {payload}");
            }
            app.expect_nothing("t/1").await;
        }
    }
}

#[tokio::test]
async fn messages_of_one_publisher_arrive_in_order() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for qos in 0..=2 {
            app.subscribe("t/1", qos).await;
            let payloads: Vec<String> = (0..300).map(|number| format!("{qos}: {number}")).collect();
            tokio::join!(sensor.publish_all("t/1", qos, &payloads), app.expect_all(&payloads));
        }
    }
}

#[tokio::test]
async fn any_bytes_any_topic_and_any_client_survive_the_database() {
    let host = Host::plan().earliest().set("mqtt.max_packet_size", "2MB").start().await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let megabyte: Vec<u8> = all_bytes.iter().copied().cycle().take(1 << 20).collect();
    let payloads: [&[u8]; 5] = [
        &all_bytes,
        &megabyte,
        b"",
        b"${clientid} '; drop table mqtt_msg; --",
        "日本 🌡".as_bytes(),
    ];
    let topics = [
        "plain",
        "with space/and 'quotes\"",
        ";--/${topic}",
        "temperature/🌡",
        "%/like_/[glob]*",
    ];
    for mqtt in BOTH {
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for topic in topics {
            for payload in payloads {
                sensor.publish(topic, 1, payload).await;
            }
        }
        // `Test` and `test` are two clients, each with a position of its own.
        for client in ["Test", "test"] {
            let mut app = host.client(mqtt, &format!("{client} {mqtt:?}")).connect().await;
            for topic in topics {
                app.subscribe(topic, 1).await;
                let rounds = if mqtt == Mqtt::V311 { 1 } else { 2 };
                for payload in payloads.iter().cycle().take(rounds * payloads.len()) {
                    let received = app.receive().await;
                    assert_eq!(
                        (received.topic.as_str(), received.payload.as_slice()),
                        (topic, *payload)
                    );
                    app.ack(&received).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_empty_message_is_stored_and_a_retained_delete_is_not() {
    let host = Host::start().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish("t/1", 1, "").await;
    assert_eq!(host.count(ROWS).await, 1);
    sensor.retain("t/1", 1, "").await;
    assert_eq!(host.count(ROWS).await, 1);
}

#[tokio::test]
async fn the_books_balance() {
    let host = Host::start().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    let payloads: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    for qos in 0..=2 {
        sensor.publish_all("t/1", qos, &payloads).await;
    }
    sensor.round_trip().await;
    for (name, value) in [
        (r#"messages_received_total{qos="0"}"#, 100.0),
        (r#"messages_received_total{qos="1"}"#, 100.0),
        (r#"messages_received_total{qos="2"}"#, 100.0),
        (r#"messages_acked_total{how="stored"}"#, 200.0),
        ("messages_refused_total", 0.0),
        ("messages_open", 0.0),
    ] {
        assert_eq!(host.metric(name).await, value, "{name}");
    }
    assert_eq!(host.count(ROWS).await, 200);
}
