//! What the application and the broker tell each other in tables: proxy subscriptions and who is online.

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt};

const STATES: &str = "select clientid, state, offline_at is null from mqtt_client order by clientid";

#[tokio::test]
async fn a_client_gets_what_the_operator_subscribed_it_to() {
    for mqtt in BOTH {
        let host = Host::start().await;
        host.execute(
            "insert into mqtt_sub (clientid, topic, qos) values
                ('app', 'low', -1), ('app', 'one', 1), ('app', 'high', 7), ('app', 'bad/#/filter', 1),
                ('app', '$share/group/shared', 1), ('other', 'others', 1)",
        )
        .await;
        let mut app = host.raw(Hello::clean(mqtt, "app")).await;
        host.metric_becomes("subscriptions", 4.0).await;
        let mut sensor = host.client(mqtt, "sensor").connect().await;
        for topic in ["low", "others", "one", "high", "shared"] {
            sensor.publish(topic, 2, topic).await;
        }
        for (wanted, granted) in [("low", 0), ("one", 1), ("high", 2), ("shared", 1)] {
            match app.next().await {
                Said::Publish { topic, qos, .. } => assert_eq!((topic.as_str(), qos), (wanted, granted), "{mqtt:?}"),
                other => panic!("{mqtt:?}: {other:?}; CONNACK first, no SUBACK, then messages"),
            }
        }
        assert_eq!(app.ping().await, []);
    }
}

#[tokio::test]
async fn an_operators_subscription_brings_the_backlog() {
    for mqtt in BOTH {
        let host = Host::earliest().await;
        host.execute("insert into mqtt_sub (clientid, topic, qos) values ('app', 't/1', 1)")
            .await;
        host.client(mqtt, "sensor")
            .connect()
            .await
            .publish("t/1", 1, "earlier")
            .await;
        host.client(mqtt, "app").connect().await.expect("earlier").await;
    }
}

#[tokio::test]
async fn a_client_is_online_while_it_is_connected() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let app = host.client(mqtt, "app").connect().await;
        host.eventually(STATES, &["app|1|1"]).await;
        let odd = "select count(*) from mqtt_client where node is null or abs(online_at - strftime('%s')) > 60";
        assert_eq!(host.count(odd).await, 0);
        app.disconnect().await;
        host.eventually(STATES, &["app|0|0"]).await;
        let mut app = host.client(mqtt, "app").connect().await;
        host.eventually(STATES, &["app|1|1"]).await;
        app.round_trip().await;
    }
}

#[tokio::test]
async fn a_take_over_or_a_quick_reconnect_leaves_the_client_online() {
    for mqtt in BOTH {
        let host = Host::start().await;
        for _ in 0..20 {
            host.client(mqtt, "app").persistent().connect().await.vanish();
        }
        let old = host.client(mqtt, "app").persistent().connect().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        old.closed().await;
        app.round_trip().await;
        // A client that came and went after all of them: its row is written behind theirs.
        host.client(mqtt, "last").connect().await.disconnect().await;
        host.eventually(STATES, &["app|1|1", "last|0|0"]).await;
    }
}

#[tokio::test]
async fn clients_that_a_crash_left_online_are_marked_offline_at_the_next_start() {
    let mut host = Host::start().await;
    let _app = host.client(Mqtt::V311, "app").connect().await;
    host.eventually(STATES, &["app|1|1"]).await;
    host.kill9().await;
    assert_eq!(host.sql(STATES).await, ["app|1|1"], "no hook ran");
    host.restart().await;
    host.eventually(STATES, &["app|0|0"]).await;
    let _app = host.client(Mqtt::V311, "app").connect().await;
    host.eventually(STATES, &["app|1|1"]).await;
}

#[tokio::test]
async fn statements_of_the_operator_run_with_bound_values() {
    let rule =
        r#"{"action": {"sql": ["insert into seen (client, at) values (${clientid}, ${timestamp})"]}, "pool": "pool1"}"#;
    let host = Host::plan().rules(&[("client.disconnected.1", rule)]).start().await;
    host.execute("create table seen (client text, at integer)").await;
    for id in ["app", "'); drop table seen; --", "${clientid}"] {
        host.client(Mqtt::V311, id).connect().await.disconnect().await;
        host.eventually(
            &format!("select count(*) from seen where client = '{}'", id.replace('\'', "''")),
            &["1"],
        )
        .await;
    }
}
