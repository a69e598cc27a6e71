//! Sessions (3.1.2.4, 4.1): begun, resumed, kept, ended.

use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, ack, disconnect, four, id, publish};
use crate::harness::{BOTH, Mqtt};

/// [5:MQTT-3.1.2-4] [5:MQTT-3.1.2-5] [5:MQTT-3.1.2-6] [5:MQTT-3.1.4-4] [5:MQTT-3.2.2-2] [5:MQTT-3.2.2-3]
/// [3:MQTT-3.1.2-4] [3:MQTT-3.1.2-6] [3:MQTT-3.1.4-3] [3:MQTT-3.2.2-1] [3:MQTT-3.2.2-2] [3:MQTT-3.2.2-3]
#[tokio::test]
async fn a_session_is_resumed_or_begun_as_the_client_says() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        let first = host.admit(Connect::persistent(mqtt, "app")).await;
        assert!(!first.session_present(), "{mqtt:?}: there was none");
        first.leave().await;
        let mut second = host.admit(Connect::persistent(mqtt, "app")).await;
        assert!(second.session_present(), "{mqtt:?}: there was one");
        second.subscribe("t/1", 1).await;
        second.leave().await;
        sensor.tell(publish("t/1", "while away")).await;
        let mut third = host.admit(Connect::persistent(mqtt, "app")).await;
        third.receive("while away").await;
        sensor.tell(publish("t/1", "resumed")).await;
        third.receive("resumed").await;
        third.leave().await;
        sensor.tell(publish("t/1", "for the old session")).await;
        let mut clean = host.join(mqtt, "app").await;
        assert!(
            !clean.session_present(),
            "{mqtt:?}: a clean one says nothing of the old one"
        );
        sensor.tell(publish("t/1", "to nobody")).await;
        clean.silence().await;
        clean.leave().await;
        let mut after = host.admit(Connect::persistent(mqtt, "app")).await;
        assert!(!after.session_present(), "{mqtt:?}: nothing is left of either");
        sensor.tell(publish("t/1", "to nobody")).await;
        after.silence().await;
        after.leave().await;
        host.join(mqtt, "app").await;
    }
}

/// [3:MQTT-3.1.2-5] [3:MQTT-4.1.0-1] [3:MQTT-4.1.0-2] [3:MQTT-4.5.0-1] [5:MQTT-3.1.2-23] [5:MQTT-4.1.0-1]
/// [5:MQTT-4.5.0-1]
#[tokio::test]
async fn what_comes_while_the_client_is_away_is_part_of_its_session() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        app.subscribe("kept/+", 2).await;
        app.leave().await;
        for (number, qos) in [(1, 1), (2, 2), (3, 1)] {
            let message = publish(format!("kept/{number}"), number.to_string());
            give(&mut sensor, message, qos, number).await;
        }
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        for (number, qos) in [(1, 1), (2, 2), (3, 1)] {
            let message = app.receive(&number.to_string()).await;
            assert_eq!(
                (message.topic, message.qos),
                (format!("kept/{number}"), qos),
                "{mqtt:?}"
            );
        }
        // The session was there all the time, and so is it while the client is.
        sensor.tell(publish("kept/4", "live")).await;
        app.receive("live").await;
        host.join(mqtt, "app").await;
    }
}

/// Publishes with this QoS to the end of its handshake.
async fn give(sensor: &mut Plain, message: crate::harness::plain::Publish, qos: u8, number: u16) {
    sensor.publish(message.qos(qos, number)).await;
    if qos == 2 {
        sensor.hear(&ack(0x50, number)).await;
        sensor.say(&ack(0x62, number)).await;
        sensor.hear(&ack(0x70, number)).await;
    } else {
        sensor.hear(&ack(0x40, number)).await;
    }
}

/// [3:MQTT-3.1.2-7]
#[tokio::test]
async fn retained_messages_outlive_the_session_that_left_them() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.tell(publish("kept/1", "still here").retain()).await;
        sensor.leave().await;
        host.join(mqtt, "sensor").await.leave().await;
        let mut app = host.join(mqtt, "app").await;
        app.subscribe("kept/1", 1).await;
        assert!(app.receive("still here").await.retain, "{mqtt:?}");
    }
}

/// [5:MQTT-4.1.0-2]
#[tokio::test]
async fn a_session_is_gone_when_its_expiry_has_passed() {
    let host = Host::start().await;
    // Whose session ends with its connection, and whose when its second is over.
    for (expiry, present) in [
        (vec![], false),
        (four(id::SESSION_EXPIRY, 0), false),
        (four(id::SESSION_EXPIRY, 60), true),
    ] {
        host.admit(Connect::clean(Mqtt::V5, "app").with(expiry))
            .await
            .leave()
            .await;
        let back = host.admit(Connect::resuming("app")).await;
        assert_eq!(back.session_present(), present);
        back.leave().await;
    }
    let mut watcher = host.join(Mqtt::V5, "watcher").await;
    watcher.subscribe("ended/+", 1).await;
    let second = Connect::clean(Mqtt::V5, "app").with(four(id::SESSION_EXPIRY, 1));
    // A will that waits for longer than the session is published as the session ends: the clock of this story.
    let with_will = second
        .will("ended/app", "over", 1, false)
        .will_with(four(id::WILL_DELAY, 600));
    let mut app = host.admit(with_will).await;
    app.say(&disconnect(0x04, &[])).await;
    app.hear(&[]).await;
    watcher.receive("over").await;
    assert!(!host.admit(Connect::resuming("app")).await.session_present());
}

/// [5:MQTT-3.1.2-23]
#[tokio::test]
async fn a_disconnect_may_change_how_long_the_session_is_kept() {
    let host = Host::start().await;
    for (asked, changed, present) in [(60, 0, false), (60, 600, true), (1, 600, true)] {
        let mut app = host
            .admit(Connect::clean(Mqtt::V5, "app").with(four(id::SESSION_EXPIRY, asked)))
            .await;
        app.say(&disconnect(0, &four(id::SESSION_EXPIRY, changed))).await;
        app.hear(&[]).await;
        let back = host.admit(Connect::resuming("app")).await;
        assert_eq!(back.session_present(), present, "{asked} s, changed to {changed} s");
    }
    // What was not asked for at the beginning cannot be asked for at the end (3.14.2.2.2).
    let mut app = host.join(Mqtt::V5, "app").await;
    app.say(&disconnect(0, &four(id::SESSION_EXPIRY, 60))).await;
    app.sent_away(0x82).await;
}

/// [5:MQTT-4.2-1] [3:MQTT-7.1.1-1]
#[tokio::test]
async fn packets_come_through_a_stream_of_bytes_wherever_it_is_cut() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.plain(mqtt).await;
        let mut said = Connect::clean(mqtt, "app").bytes();
        said.extend(publish("t/1", "x".repeat(200)).qos(1, 7).bytes(mqtt));
        said.extend([0xC0, 0]);
        for byte in &said {
            client.say(&[*byte]).await;
        }
        assert_eq!(client.next().await[0], 0x20, "{mqtt:?}");
        let mut answers = [client.next().await, client.next().await];
        answers.sort();
        assert!(answers[0].starts_with(&[0x40]), "{answers:02x?}");
        assert_eq!(answers[1], [0xD0, 0]);
    }
}
