//! The handshakes of QoS 1 and 2 in both directions (4.3), and what is sent again (4.4).

use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, ack, ack_with, publish};
use crate::harness::{BOTH, Mqtt};

/// A subscriber of `t/#` and a publisher.
async fn pair(host: &Host, mqtt: Mqtt) -> (Plain, Plain) {
    let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
    if !app.session_present() {
        app.subscribe("t/#", 2).await;
    }
    (app, host.join(mqtt, "sensor").await)
}

/// Publishes with QoS 2 to the end.
async fn give(sensor: &mut Plain, topic: &str, payload: &str) {
    sensor.publish(publish(topic, payload).qos(2, 99)).await;
    sensor.hear(&ack(0x50, 99)).await;
    sensor.say(&ack(0x62, 99)).await;
    sensor.hear(&ack(0x70, 99)).await;
}

/// [5:MQTT-4.3.2-4] [5:MQTT-4.3.2-5] [5:MQTT-3.4.2-1] [3:MQTT-4.3.2-2]
#[tokio::test]
async fn qos_1_is_acknowledged_and_its_identifier_is_free_at_once() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, mut sensor) = pair(&host, mqtt).await;
        for (payload, dup) in [("first", false), ("second", false), ("second", true)] {
            let message = publish("t/1", payload).qos(1, 7);
            sensor.publish(if dup { message.dup() } else { message }).await;
            sensor.hear(&ack(0x40, 7)).await;
            app.receive(payload).await;
        }
        app.leave().await;
        host.join(mqtt, "app").await;
    }
}

/// [5:MQTT-4.3.3-8] [5:MQTT-4.3.3-10] [5:MQTT-4.3.3-11] [5:MQTT-4.3.3-12] [5:MQTT-3.5.2-1] [5:MQTT-3.7.2-1]
/// [3:MQTT-4.3.3-2]
#[tokio::test]
async fn qos_2_is_received_once_until_it_is_released() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, mut sensor) = pair(&host, mqtt).await;
        for payload in ["first", "second"] {
            let message = publish("t/1", payload).qos(2, 7);
            sensor.publish(message.clone()).await;
            sensor.hear(&ack(0x50, 7)).await;
            for again in [message.clone(), message.clone().dup(), message.clone().dup()] {
                sensor.publish(again).await;
                sensor.hear(&ack(0x50, 7)).await;
            }
            sensor.say(&ack(0x62, 7)).await;
            sensor.hear(&ack(0x70, 7)).await;
            app.receive(payload).await;
            app.silence().await;
        }
        // A PUBREL of nothing is completed, too: the client has lost its PUBCOMP.
        sensor.say(&ack(0x62, 7)).await;
        let completed = if mqtt == Mqtt::V5 {
            ack_with(0x70, 7, 0x92)
        } else {
            ack(0x70, 7)
        };
        sensor.hear(&completed).await;
        app.leave().await;
        host.join(mqtt, "app").await;
    }
}

/// [5:MQTT-4.3.3-10] [3:MQTT-4.3.3-2]
#[tokio::test]
async fn qos_2_is_received_once_across_connections() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, _) = pair(&host, mqtt).await;
        let mut sensor = host.admit(Connect::persistent(mqtt, "sensor")).await;
        sensor.publish(publish("t/1", "once").qos(2, 7)).await;
        sensor.hear(&ack(0x50, 7)).await;
        drop(sensor);
        let mut sensor = host.admit(Connect::persistent(mqtt, "sensor")).await;
        sensor.publish(publish("t/1", "once").qos(2, 7).dup()).await;
        sensor.hear(&ack(0x50, 7)).await;
        sensor.say(&ack(0x62, 7)).await;
        sensor.hear(&ack(0x70, 7)).await;
        app.receive("once").await;
        app.silence().await;
        app.leave().await;
        host.join(mqtt, "app").await;
        host.join(mqtt, "sensor").await;
    }
}

/// [5:MQTT-4.3.2-1] [5:MQTT-4.3.2-2] [5:MQTT-4.3.2-3] [5:MQTT-2.2.1-4] [5:MQTT-4.3.3-1] [5:MQTT-4.3.3-2]
/// [3:MQTT-4.3.2-1] [3:MQTT-2.3.1-1] [3:MQTT-2.3.1-4]
#[tokio::test]
async fn every_message_under_way_has_an_identifier_of_its_own() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, mut sensor) = pair(&host, mqtt).await;
        let mut under_way = Vec::new();
        for number in 0..20_u16 {
            match number % 2 {
                0 => sensor.tell(publish("t/1", "of QoS 1")).await,
                _ => give(&mut sensor, "t/1", "of QoS 2").await,
            }
            let message = app.message().await;
            assert!(!message.dup && message.id > 0, "{message:?}");
            assert_eq!(message.qos, 1 + (number % 2) as u8);
            assert!(!under_way.contains(&message.id), "{mqtt:?}: {} is taken", message.id);
            under_way.push(message.id);
        }
        app.leave().await;
        host.join(mqtt, "app").await;
    }
}

/// [5:MQTT-4.3.3-3] [5:MQTT-4.3.3-4] [5:MQTT-4.3.3-5] [5:MQTT-4.3.3-6] [5:MQTT-4.4.0-1] [5:MQTT-3.3.1-1]
/// [5:MQTT-3.6.2-1] [3:MQTT-4.3.3-1] [3:MQTT-4.4.0-1] [3:MQTT-3.3.1-1] [3:MQTT-2.3.1-4] [3:MQTT-4.6.0-1]
#[tokio::test]
async fn what_is_not_done_is_sent_again_as_far_as_it_had_come() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, mut sensor) = pair(&host, mqtt).await;
        give(&mut sensor, "t/1", "published").await;
        sensor.tell(publish("t/2", "published")).await;
        give(&mut sensor, "t/3", "released").await;
        give(&mut sensor, "t/4", "published").await;
        let mut first = Vec::new();
        for _ in 0..4 {
            first.push(app.message().await);
        }
        app.say(&ack(0x50, first[2].id)).await;
        app.hear(&ack(0x62, first[2].id)).await;
        // Nothing is sent again while the connection lasts.
        app.silence().await;
        for _ in 0..2 {
            drop(app);
            app = host.admit(Connect::persistent(mqtt, "app")).await;
            app.until(&ack(0x62, first[2].id)).await; // wherever it stands among them
            for known in [&first[0], &first[1], &first[3]] {
                let again = app.message().await;
                assert!(again.dup && !known.dup, "{mqtt:?}");
                assert_eq!((again.id, again.qos, &again.topic), (known.id, known.qos, &known.topic));
            }
            app.silence().await;
        }
        app.say(&ack(0x70, first[2].id)).await;
        for done in [&first[0], &first[1], &first[3]] {
            app.accept(done).await;
        }
        app.silence().await;
        app.leave().await;
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        app.silence().await;
        host.join(mqtt, "app").await;
    }
}

/// [5:MQTT-4.3.3-6] [3:MQTT-4.3.3-1]
#[tokio::test]
async fn a_pubrec_is_answered_with_pubrel_every_time_and_never_with_publish() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, mut sensor) = pair(&host, mqtt).await;
        give(&mut sensor, "t/1", "x").await;
        let message = app.message().await;
        for _ in 0..3 {
            app.say(&ack(0x50, message.id)).await;
            app.hear(&ack(0x62, message.id)).await;
        }
        app.say(&ack(0x70, message.id)).await;
        app.silence().await;
        app.leave().await;
        host.join(mqtt, "app").await;
    }
}

/// [5:MQTT-4.4.0-2] [5:MQTT-4.3.3-4]
#[tokio::test]
async fn what_the_client_refuses_is_acknowledged_and_not_sent_again() {
    let host = Host::start().await;
    let (mut app, mut sensor) = pair(&host, Mqtt::V5).await;
    for reason in [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        sensor.tell(publish("t/1", "of QoS 1")).await;
        let message = app.message().await;
        app.say(&ack_with(0x40, message.id, reason)).await;
        give(&mut sensor, "t/1", "of QoS 2").await;
        let message = app.message().await;
        for _ in 0..2 {
            app.say(&ack_with(0x50, message.id, reason)).await;
            app.silence().await; // no PUBREL, though the second refuses what nobody knows any more
        }
    }
    app.leave().await;
    let mut app = host.admit(Connect::persistent(Mqtt::V5, "app")).await;
    assert!(app.session_present());
    app.silence().await;
    sensor.tell(publish("t/1", "after")).await;
    app.receive("after").await;
}

/// [5:MQTT-4.6.0-5] [5:MQTT-4.6.0-6] [3:MQTT-4.6.0-5] [3:MQTT-4.6.0-6]
#[tokio::test]
async fn messages_of_one_topic_and_qos_keep_their_order_live_and_later() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let (mut app, mut sensor) = pair(&host, mqtt).await;
        for qos in 0..=2 {
            let mut bytes = Vec::new();
            for number in 1..=50 {
                bytes.extend(publish("t/1", number.to_string()).qos(qos, number).bytes(mqtt));
            }
            sensor.say(&bytes).await;
            let mut heard = Vec::new();
            for number in 1..=50_u16 {
                let message = app.message().await;
                assert_eq!((message.text(), message.qos), (number.to_string(), qos), "{mqtt:?}");
                heard.push(message);
            }
            for message in &heard {
                app.accept_later(message).await;
            }
            sensor.drain(if qos == 0 { 0 } else { 50 }).await;
            if qos == 2 {
                app.finish(50).await;
                for number in 1..=50 {
                    sensor.say(&ack(0x62, number)).await;
                }
                sensor.drain(50).await;
            }
        }
        app.leave().await;
        for number in 1..=20 {
            sensor.tell(publish("t/1", number.to_string())).await;
        }
        let (mut app, _) = pair(&host, mqtt).await;
        for number in 1..=20 {
            app.receive(&number.to_string()).await;
        }
        app.leave().await;
        host.join(mqtt, "app").await;
    }
}

impl Plain {
    /// PUBACK or PUBREC.
    async fn accept_later(&mut self, message: &crate::harness::plain::Message) {
        match message.qos {
            1 => self.say(&ack(0x40, message.id)).await,
            2 => self.say(&ack(0x50, message.id)).await,
            _ => {}
        }
    }

    /// Hears so many packets.
    async fn drain(&mut self, count: usize) {
        for _ in 0..count {
            assert_ne!(self.next().await, b"");
        }
    }

    /// Answers so many PUBRELs.
    async fn finish(&mut self, count: usize) {
        for _ in 0..count {
            let heard = self.next().await;
            assert_eq!(heard[0], 0x62, "{heard:02x?}");
            self.say(&ack(0x70, u16::from_be_bytes([heard[2], heard[3]]))).await;
        }
    }
}
