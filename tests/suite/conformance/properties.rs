//! What travels with a message (3.3.2.3): properties, expiry, topic aliases, and the largest packet.

use std::collections::HashMap;

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::plain::{
    Connect, Message, Plain, Publish, ack, four, id, one, pair, publish, subscribe, text, two, unsubscribe,
};

/// Every property that is passed on, in an order that nobody would sort them into.
fn everything() -> Vec<Vec<u8>> {
    vec![
        pair("z", "1"),
        text(id::CORRELATION_DATA, b"\x00\xFFdata"),
        pair("a", "2"),
        text(id::RESPONSE_TOPIC, "r/t"),
        one(id::PAYLOAD_FORMAT, 1),
        pair("a", "2"),
        text(id::CONTENT_TYPE, "text/plain; é"),
        pair("", ""),
    ]
}

fn with_everything(publish: Publish) -> Publish {
    everything().into_iter().fold(publish, Publish::with)
}

fn assert_everything(message: &Message) {
    for property in everything().iter().filter(|property| property[0] != id::USER_PROPERTY) {
        assert_eq!(message.values(property[0]), [property[1..].to_vec()], "{message:?}");
    }
    let users: Vec<Vec<u8>> = everything()
        .into_iter()
        .filter(|property| property[0] == id::USER_PROPERTY)
        .collect();
    let users: Vec<Vec<u8>> = users.iter().map(|property| property[1..].to_vec()).collect();
    assert_eq!(message.values(id::USER_PROPERTY), users, "{message:?}");
    assert_eq!(message.properties.len(), everything().len(), "{message:?}");
}

/// [5:MQTT-3.3.2-4] [5:MQTT-3.3.2-15] [5:MQTT-3.3.2-16] [5:MQTT-3.3.2-17] [5:MQTT-3.3.2-18] [5:MQTT-3.3.2-20]
/// [5:MQTT-1.5.7-1]
#[tokio::test]
async fn properties_arrive_unaltered_and_in_order_live_retained_and_later() {
    let host = Host::start().await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    for qos in 0..=2 {
        let mut live = host.join(Mqtt::V5, "live").await;
        live.subscribe("p/1", 2).await;
        let mut away = host.admit(Connect::persistent(Mqtt::V5, "away")).await;
        away.subscribe("p/1", 2).await;
        away.leave().await;
        sensor
            .publish(with_everything(publish("p/1", "full")).qos(qos, 1).retain())
            .await;
        assert_everything(&live.receive("full").await);
        match qos {
            0 => sensor.silence().await,
            1 => assert_eq!(sensor.next().await[0], 0x40),
            _ => {
                sensor.hear(&ack(0x50, 1)).await;
                sensor.say(&ack(0x62, 1)).await;
                sensor.hear(&ack(0x70, 1)).await;
            }
        }
        let mut late = host.join(Mqtt::V5, "late").await;
        late.subscribe("p/1", 2).await;
        let message = late.receive("full").await;
        assert!(message.retain);
        assert_everything(&message);
        let mut away = host.admit(Connect::persistent(Mqtt::V5, "away")).await;
        if qos > 0 {
            assert_everything(&away.receive("full").await);
        }
        away.leave().await;
        host.join(Mqtt::V5, "away").await.leave().await;
        sensor.tell(publish("p/1", "").retain()).await;
    }
}

#[tokio::test]
async fn who_speaks_mqtt_3_gets_the_message_without_its_properties() {
    let host = Host::start().await;
    let mut old = host.join(Mqtt::V311, "old").await;
    old.subscribe("p/1", 0).await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    sensor.publish(with_everything(publish("p/1", "full"))).await;
    old.hear(&publish("p/1", "full").bytes(Mqtt::V311)).await;
}

fn seconds_left(message: &Message) -> u32 {
    let value: [u8; 4] = message.values(id::MESSAGE_EXPIRY)[0][..]
        .try_into()
        .expect("four bytes");
    u32::from_be_bytes(value)
}

/// [5:MQTT-3.3.2-5] [5:MQTT-3.3.2-6] [5:MQTT-4.3.3-13]
#[tokio::test]
async fn an_expired_message_is_not_delivered_and_the_others_say_what_is_left() {
    let host = Host::start().await;
    let mut away = host.admit(Connect::persistent(Mqtt::V5, "away")).await;
    away.subscribe("e/#", 2).await;
    away.publish(publish("e/0", "begun")).await; // it comes behind what is retained
    away.receive("begun").await;
    away.leave().await;
    let mut watcher = host.join(Mqtt::V5, "watcher").await;
    watcher.subscribe("clock", 1).await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    let expiring = |topic, payload, seconds| publish(topic, payload).with(four(id::MESSAGE_EXPIRY, seconds));
    sensor.tell(expiring("e/1", "gone at once", 0)).await;
    sensor.tell(expiring("e/1", "gone soon", 1)).await;
    sensor.tell(expiring("e/2", "gone soon", 1).retain()).await;
    sensor.tell(expiring("e/3", "kept", 600)).await;
    sensor.tell(expiring("e/4", "kept too", 600).retain()).await;
    // Of QoS 2: the handshake goes on, though the message has expired when it arrives.
    sensor.publish(expiring("e/1", "gone at once", 0).qos(2, 9)).await;
    sensor.hear(&ack(0x50, 9)).await;
    sensor.say(&ack(0x62, 9)).await;
    sensor.hear(&ack(0x70, 9)).await;
    // The clock of this story: a will that is delayed by two seconds.
    let clock = Connect::persistent(Mqtt::V5, "clock").will("clock", "tick", 1, false);
    drop(host.admit(clock.will_with(four(id::WILL_DELAY, 2))).await);
    watcher.receive("tick").await;
    let mut away = host.admit(Connect::persistent(Mqtt::V5, "away")).await;
    for payload in ["kept", "kept too"] {
        let left = seconds_left(&away.receive(payload).await);
        assert!((590..600).contains(&left), "{payload}: {left} s are left");
    }
    let mut late = host.join(Mqtt::V5, "late").await;
    late.subscribe("e/#", 1).await;
    let left = seconds_left(&late.receive("kept too").await);
    assert!((590..600).contains(&left), "{left} s are left");
    late.silence().await;
    away.silence().await;
}

/// [5:MQTT-3.3.2-8] [5:MQTT-3.3.2-12] [5:MQTT-3.3.2-7]
#[tokio::test]
async fn every_alias_up_to_the_maximum_is_taken_and_lasts_as_long_as_its_connection() {
    let host = Host::start().await;
    let mut app = host.join(Mqtt::V5, "app").await;
    app.subscribe("a/#", 0).await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    let said = sensor.connack_properties();
    let maximum = said
        .iter()
        .find(|(known, _)| *known == id::TOPIC_ALIAS_MAXIMUM)
        .expect("it is said")
        .1
        .clone();
    let maximum = u16::from_be_bytes([maximum[0], maximum[1]]);
    let aliased = |topic: &str, number: u16| publish(topic, number.to_string()).with(two(id::TOPIC_ALIAS, number));
    for number in 1..=maximum {
        sensor.publish(aliased(&format!("a/{number}"), number)).await;
        assert_eq!(app.receive(&number.to_string()).await.topic, format!("a/{number}"));
    }
    for number in (1..=maximum).rev() {
        sensor.publish(aliased("", number)).await;
        assert_eq!(app.receive(&number.to_string()).await.topic, format!("a/{number}"));
    }
    // Set again, it stands for another topic; the alias of one sender is nothing to a receiver.
    sensor.publish(aliased("a/other", 1)).await;
    app.receive("1").await;
    sensor.publish(aliased("", 1)).await;
    let message = app.receive("1").await;
    assert_eq!(
        (message.topic.as_str(), message.values(id::TOPIC_ALIAS).len()),
        ("a/other", 0)
    );
    for (number, reason) in [(0, 0x94), (maximum + 1, 0x94)] {
        let mut sensor = host.join(Mqtt::V5, "sensor").await;
        sensor.publish(aliased("a/1", number)).await;
        sensor.sent_away(reason).await;
    }
    // A new connection knows none, whether the session goes on or not.
    for connect in [
        Connect::persistent(Mqtt::V5, "sensor"),
        Connect::clean(Mqtt::V5, "sensor"),
    ] {
        let mut first = host.admit(connect.clone()).await;
        first.publish(aliased("a/1", 1)).await;
        app.receive("1").await;
        first.leave().await;
        let mut second = host.admit(connect).await;
        second.publish(aliased("", 1)).await;
        second.sent_away(0x82).await;
    }
    app.silence().await;
}

/// [5:MQTT-3.1.2-26] [5:MQTT-3.1.2-27] [5:MQTT-3.3.2-10] [5:MQTT-3.3.2-11]
#[tokio::test]
async fn the_host_sets_no_more_aliases_than_the_client_takes() {
    let host = Host::start().await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    for maximum in [None, Some(0), Some(1), Some(3)] {
        let mut connect = Connect::clean(Mqtt::V5, "app");
        if let Some(maximum) = maximum {
            connect = connect.with(two(id::TOPIC_ALIAS_MAXIMUM, maximum));
        }
        let mut app = host.admit(connect).await;
        app.subscribe("a/#", 1).await;
        let mut known: HashMap<u16, String> = HashMap::new();
        for round in 0..3 {
            for number in 0..5 {
                let topic = format!("a/{number}");
                sensor.tell(publish(&topic, format!("{round}"))).await;
                let topic_sent = resolve(&mut app, &mut known, maximum.unwrap_or(0)).await;
                assert_eq!(topic_sent, topic, "maximum {maximum:?}");
            }
        }
        app.leave().await;
    }
}

/// The next message's topic; its alias must be one that the client takes.
async fn resolve(app: &mut Plain, known: &mut HashMap<u16, String>, maximum: u16) -> String {
    let message = app.message().await;
    app.accept(&message).await;
    let alias = message
        .values(id::TOPIC_ALIAS)
        .first()
        .map(|value| u16::from_be_bytes([value[0], value[1]]));
    let Some(alias) = alias else {
        return message.topic;
    };
    assert!((1..=maximum).contains(&alias), "{message:?}");
    if !message.topic.is_empty() {
        known.insert(alias, message.topic);
    }
    known[&alias].clone()
}

/// [5:MQTT-3.1.2-24] [5:MQTT-3.1.2-25] [5:MQTT-3.4.2-2] [5:MQTT-3.4.2-3] [5:MQTT-3.5.2-2] [5:MQTT-3.5.2-3]
/// [5:MQTT-3.6.2-2] [5:MQTT-3.6.2-3] [5:MQTT-3.7.2-2] [5:MQTT-3.7.2-3] [5:MQTT-3.9.2-1] [5:MQTT-3.9.2-2]
/// [5:MQTT-3.11.2-1] [5:MQTT-3.11.2-2] [5:MQTT-3.14.2-3] [5:MQTT-3.14.2-4]
#[tokio::test]
async fn nothing_is_larger_than_the_client_takes() {
    const MAXIMUM: usize = 40;
    let host = Host::plan().set("mqtt.max_topic_levels", "3").start().await;
    let connect = |id| Connect::clean(Mqtt::V5, id).with(four(id::MAXIMUM_PACKET_SIZE, MAXIMUM as u32));
    let mut app = host.admit(connect("app")).await;
    app.subscribe("t/1", 1).await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    // Fixed header 2, topic 5, packet identifier 2, property length 1.
    let (fits, too_large) = ("x".repeat(MAXIMUM - 10), "y".repeat(MAXIMUM - 9));
    for payload in [&fits, &too_large, &fits] {
        sensor.tell(publish("t/1", payload)).await;
    }
    for _ in 0..2 {
        let heard = app.next().await;
        assert_eq!(
            heard.len(),
            MAXIMUM,
            "the largest one comes whole, a larger one does not"
        );
        assert!(heard.ends_with(fits.as_bytes()));
        app.say(&ack(0x40, u16::from_be_bytes([heard[7], heard[8]]))).await;
    }
    app.silence().await;
    // Answers of every kind, in what room there is.
    for (said, kind) in [
        (publish("t/2", "x").qos(1, 1).bytes(Mqtt::V5), 0x40),
        (publish("t/2", "x").qos(2, 2).bytes(Mqtt::V5), 0x50),
        (ack(0x62, 2), 0x70),
        (ack(0x62, 3), 0x70),
        (ack(0x50, 4), 0x62),
        (subscribe(Mqtt::V5, 5, &[], &[("a/b/c/d", 1)]), 0x90),
        (unsubscribe(Mqtt::V5, 6, &["no"]), 0xB0),
    ] {
        app.say(&said).await;
        let heard = app.next().await;
        assert_eq!(heard[0], kind, "{heard:02x?}");
        assert!(heard.len() <= MAXIMUM, "{heard:02x?}");
    }
    app.publish(publish("t/+", "x")).await;
    let last = app.next().await;
    assert!(last[0] == 0xE0 && last.len() <= MAXIMUM, "{last:02x?}");
    assert_eq!(app.next().await, b"");
}

/// [5:MQTT-3.14.2-2]
#[tokio::test]
async fn the_host_does_not_say_a_session_expiry_as_it_leaves() {
    let host = Host::start().await;
    for (said, reason) in [(b"\xF0\x00".to_vec(), 0x82), (publish("", "x").bytes(Mqtt::V5), 0x82)] {
        let mut app = host.admit(Connect::persistent(Mqtt::V5, "app")).await;
        app.say(&said).await;
        let last = app.next().await;
        let properties = crate::harness::plain::properties(&last, 1);
        assert_eq!((last[0], last[2]), (0xE0, reason));
        assert!(
            properties.iter().all(|(known, _)| *known != id::SESSION_EXPIRY),
            "{properties:?}"
        );
    }
}
