//! The will (3.1.2.5, 3.1.3.2): whether, when and how it is published.

use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, disconnect, four, id, one, pair, publish, text};
use crate::harness::{BOTH, Mqtt};

async fn watcher(host: &Host, mqtt: Mqtt) -> Plain {
    let mut watcher = host.join(mqtt, "watcher").await;
    watcher.subscribe("w/#", 2).await;
    watcher
}

/// Nobody's will has come: a message to the same topic is the next.
async fn no_will(host: &Host, watcher: &mut Plain) {
    host.join(Mqtt::V311, "sentinel")
        .await
        .tell(publish("w/app", "sentinel"))
        .await;
    watcher.receive("sentinel").await;
}

/// [5:MQTT-3.1.2-7] [5:MQTT-3.1.2-8] [5:MQTT-3.1.2-10] [5:MQTT-3.1.2-14] [5:MQTT-3.1.2-15]
/// [3:MQTT-3.1.2-8] [3:MQTT-3.1.2-10] [3:MQTT-3.1.2-16] [3:MQTT-3.1.2-17]
#[tokio::test]
async fn a_will_is_published_once_as_it_was_left() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut watcher = watcher(&host, mqtt).await;
        for qos in 0..=2 {
            for retain in [false, true] {
                let will = Connect::clean(mqtt, "app").will("w/app", "gone", qos, retain);
                drop(host.admit(will).await);
                let message = watcher.receive("gone").await;
                assert_eq!((message.qos, message.topic.as_str()), (qos, "w/app"), "{mqtt:?}");
                let mut late = host.join(mqtt, "late").await;
                late.subscribe("w/app", 0).await;
                match retain {
                    true => assert!(late.receive("gone").await.retain, "{mqtt:?}"),
                    false => late.silence().await,
                }
                late.leave().await;
                let mut cleaner = host.join(mqtt, "cleaner").await;
                cleaner.tell(publish("w/app", "").retain()).await;
                watcher.receive("").await;
            }
        }
        // Published once, it is removed: the next connection has none.
        drop(host.join(mqtt, "app").await);
        host.join(mqtt, "app").await.leave().await;
        no_will(&host, &mut watcher).await;
    }
}

/// [3:MQTT-3.1.2-12] [3:MQTT-3.14.4-3] [5:MQTT-3.14.4-3]
#[tokio::test]
async fn a_client_without_a_will_or_that_leaves_in_peace_publishes_nothing() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut watcher = watcher(&host, mqtt).await;
        drop(host.join(mqtt, "app").await);
        host.join(mqtt, "app").await.leave().await;
        for qos in 0..=2 {
            let will = Connect::clean(mqtt, "app").will("w/app", "gone", qos, false);
            host.admit(will).await.leave().await;
        }
        no_will(&host, &mut watcher).await;
    }
}

/// [5:MQTT-3.1.2-8]
#[tokio::test]
async fn every_other_reason_to_leave_publishes_the_will() {
    let host = Host::start().await;
    let mut watcher = watcher(&host, Mqtt::V5).await;
    for reason in [
        0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ] {
        let will = Connect::clean(Mqtt::V5, "app").will("w/app", &format!("{reason:02x}"), 1, false);
        let mut app = host.admit(will).await;
        app.say(&disconnect(reason, &[])).await;
        app.hear(&[]).await;
        watcher.receive(&format!("{reason:02x}")).await;
    }
}

/// [5:MQTT-3.1.2-8] [3:MQTT-3.1.2-8]
#[tokio::test]
async fn whatever_ends_the_connection_but_a_disconnect_publishes_the_will() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut watcher = watcher(&host, mqtt).await;
        let will = |payload| Connect::clean(mqtt, "app").will("w/app", payload, 1, false);
        let mut breaks = host.admit(will("broke the protocol")).await;
        breaks.say(b"\xF0\x00").await;
        watcher.receive("broke the protocol").await;
        let old = host.admit(will("taken over")).await;
        let new = host.join(mqtt, "app").await;
        watcher.receive("taken over").await;
        drop((old, new));
        let silent = host.admit(will("silent").keep_alive(1)).await;
        watcher.receive("silent").await;
        drop(silent);
    }
}

/// [5:MQTT-3.1.3-9]
#[tokio::test]
async fn a_delayed_will_is_not_sent_to_a_client_that_came_back() {
    let host = Host::start().await;
    let mut watcher = watcher(&host, Mqtt::V5).await;
    let connect = |payload| {
        let connect = Connect::persistent(Mqtt::V5, "app").will("w/app", payload, 1, false);
        connect.will_with(four(id::WILL_DELAY, 1))
    };
    drop(host.admit(connect("withdrawn")).await);
    let back = host.admit(connect("sent")).await;
    assert!(back.session_present());
    drop(back);
    // Delayed for as long, the second one would come behind the first.
    watcher.receive("sent").await;
    no_will(&host, &mut watcher).await;
}

/// [5:MQTT-3.1.2-8]
#[tokio::test]
async fn a_delayed_will_comes_when_its_session_ends() {
    let host = Host::start().await;
    let mut watcher = watcher(&host, Mqtt::V5).await;
    let connect = |payload, expiry: u32| {
        let connect = Connect::clean(Mqtt::V5, "app").will("w/app", payload, 1, false);
        connect
            .will_with(four(id::WILL_DELAY, 600))
            .with(four(id::SESSION_EXPIRY, expiry))
    };
    drop(host.admit(connect("with its connection", 0)).await);
    watcher.receive("with its connection").await;
    drop(host.admit(connect("with its expiry", 1)).await);
    watcher.receive("with its expiry").await;
    drop(host.admit(connect("with a clean start", 600)).await);
    host.join(Mqtt::V5, "app").await.leave().await;
    watcher.receive("with a clean start").await;
}

/// [5:MQTT-3.1.3-10]
#[tokio::test]
async fn a_will_carries_its_properties_in_their_order() {
    let host = Host::start().await;
    let mut watcher = watcher(&host, Mqtt::V5).await;
    let mut connect = Connect::clean(Mqtt::V5, "app").will("w/app", "gone", 1, false);
    let sent = [
        pair("z", "1"),
        one(id::PAYLOAD_FORMAT, 1),
        pair("a", "2"),
        text(id::CONTENT_TYPE, "text/plain"),
        four(id::MESSAGE_EXPIRY, 600),
        pair("z", "0"),
        text(id::RESPONSE_TOPIC, "r/app"),
        text(id::CORRELATION_DATA, b"\x00\xFF"),
    ];
    for property in sent.clone() {
        connect = connect.will_with(property);
    }
    drop(host.admit(connect).await);
    let message = watcher.receive("gone").await;
    let users: Vec<Vec<u8>> = [("z", "1"), ("a", "2"), ("z", "0")]
        .map(|(name, value)| pair(name, value)[1..].to_vec())
        .into();
    assert_eq!(message.values(id::USER_PROPERTY), users);
    for property in sent
        .iter()
        .filter(|property| ![id::USER_PROPERTY, id::MESSAGE_EXPIRY].contains(&property[0]))
    {
        assert_eq!(message.values(property[0]), [property[1..].to_vec()], "{property:02x?}");
    }
    assert_eq!(message.values(id::MESSAGE_EXPIRY).len(), 1);
    assert_eq!(message.values(id::WILL_DELAY), Vec::<Vec<u8>>::new());
}
