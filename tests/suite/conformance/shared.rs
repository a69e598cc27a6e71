//! Shared subscriptions (4.8.2).

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::plain::{Connect, Plain, ack, ack_with, four, id, publish, reasons, subscribe};

async fn member(host: &Host, name: &str, granted: u8) -> Plain {
    let mut member = host.admit(Connect::persistent(Mqtt::V5, name)).await;
    if !member.session_present() {
        member.subscribe("$share/g/s/1", granted).await;
    }
    member
}

/// [5:MQTT-4.8.2-1] [5:MQTT-4.8.2-2]
#[tokio::test]
async fn a_share_without_its_name_or_filter_is_refused() {
    let host = Host::start().await;
    let mut app = host.join(Mqtt::V5, "app").await;
    let filters = [
        ("$share", 1),
        ("$share/", 1),
        ("$share/g", 1),
        ("$share/g/", 1),
        ("$share//s", 1),
        ("$share/+/s", 1),
        ("$share/g#/s", 1),
        ("$share/g/s/#/x", 1),
        ("$share/g/s", 1),
        ("$share/Grüße/s/+", 2),
    ];
    app.say(&subscribe(Mqtt::V5, 1, &[], &filters)).await;
    let refused = [0x8F; 8];
    let granted = reasons(Mqtt::V5, &app.next().await, 1);
    assert_eq!(granted, [&refused[..], &[1, 2]].concat());
}

/// [5:MQTT-4.8.2-3]
#[tokio::test]
async fn every_member_gets_its_part_at_the_qos_that_it_was_granted() {
    let host = Host::start().await;
    let mut members = [
        member(&host, "m0", 0).await,
        member(&host, "m1", 1).await,
        member(&host, "m2", 2).await,
    ];
    let mut everybody = host.join(Mqtt::V5, "everybody").await;
    everybody.subscribe("s/1", 0).await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    for number in 1..=9 {
        sensor.publish(publish("s/1", number.to_string()).qos(2, number)).await;
        sensor.hear(&ack(0x50, number)).await;
        everybody.receive(&number.to_string()).await;
    }
    let mut heard = Vec::new();
    for (qos, member) in members.iter_mut().enumerate() {
        for _ in 0..3 {
            let message = member.message().await;
            assert_eq!(usize::from(message.qos), qos);
            member.accept(&message).await;
            heard.push(message.text());
        }
        member.silence().await;
    }
    heard.sort();
    assert_eq!(heard, ["1", "2", "3", "4", "5", "6", "7", "8", "9"], "each once");
}

/// [5:MQTT-4.8.2-4] [5:MQTT-4.8.2-5]
#[tokio::test]
async fn a_qos_2_message_that_was_begun_belongs_to_its_member_alone() {
    let host = Host::start().await;
    let mut first = member(&host, "first", 2).await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    sensor.publish(publish("s/1", "begun").qos(2, 1)).await;
    sensor.hear(&ack(0x50, 1)).await;
    let begun = first.message().await;
    first.say(&ack(0x50, begun.id)).await;
    first.hear(&ack(0x62, begun.id)).await;
    drop(first);
    let mut second = member(&host, "second", 2).await;
    second.silence().await;
    let mut first = member(&host, "first", 2).await;
    first.hear(&ack(0x62, begun.id)).await; // it goes on where it was
    // Its session ends before it is done: nobody else gets the message.
    host.join(Mqtt::V5, "first").await.leave().await;
    second.silence().await;
    sensor.publish(publish("s/1", "next").qos(2, 2)).await;
    sensor.hear(&ack(0x50, 2)).await;
    second.receive("next").await;
    second.silence().await;
}

/// [5:MQTT-4.8.2-6]
#[tokio::test]
async fn a_message_that_a_member_refuses_is_offered_to_nobody_else() {
    let host = Host::start().await;
    let mut members = [member(&host, "first", 2).await, member(&host, "second", 2).await];
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    for (number, (qos, answer)) in (1..).zip([(1, 0x40), (2, 0x50), (1, 0x40), (2, 0x50)]) {
        sensor.publish(publish("s/1", "refused").qos(qos, number)).await;
        assert_eq!(sensor.next().await[0], answer);
    }
    for member in &mut members {
        for _ in 0..2 {
            let message = member.message().await;
            let first = if message.qos == 1 { 0x40 } else { 0x50 };
            member.say(&ack_with(first, message.id, 0x97)).await;
        }
    }
    for member in &mut members {
        member.silence().await;
    }
}

#[tokio::test]
async fn a_shared_subscription_gets_no_retained_messages() {
    let host = Host::start().await;
    let mut sensor = host.join(Mqtt::V5, "sensor").await;
    sensor.tell(publish("s/1", "kept").retain()).await;
    let mut app = member(&host, "app", 1).await;
    sensor
        .tell(publish("s/1", "live").with(four(id::MESSAGE_EXPIRY, 60)))
        .await;
    app.receive("live").await;
}
