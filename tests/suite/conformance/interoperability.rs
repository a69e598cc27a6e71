//! What public interoperability suites do to a broker as it is shipped: clients that connect again and again under the
//! same two names, use the same few topics, and expect to find them as they left them.

use std::collections::BTreeSet;

use crate::harness::host::Host;
use crate::harness::plain::{
    Connect, Message, Plain, Publish, ack, disconnect, four, id, one, pair, publish, string, suback, subscribe, text,
    two, unsuback, unsubscribe, varint,
};
use crate::harness::{BOTH, Mqtt};

const A: &str = "TopicA";
const B: &str = "TopicA/B";
const C: &str = "Topic/C";
const AC: &str = "TopicA/C";

/// Publishes to the end of the handshake; what comes meanwhile is kept.
async fn give(client: &mut Plain, message: Publish, qos: u8) {
    client.publish(message.qos(qos, 500)).await;
    match qos {
        1 => client.until(&ack(0x40, 500)).await,
        2 => {
            client.until(&ack(0x50, 500)).await;
            client.say(&ack(0x62, 500)).await;
            client.until(&ack(0x70, 500)).await;
        }
        _ => {}
    }
}

/// The next messages, acknowledged, by topic and payload.
async fn take(client: &mut Plain, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    for _ in 0..count {
        let message = client.message().await;
        client.accept(&message).await;
        messages.push(message);
    }
    messages.sort_by(|a, b| (&a.topic, &a.payload).cmp(&(&b.topic, &b.payload)));
    messages
}

fn qos_of(messages: &[Message]) -> Vec<u8> {
    messages.iter().map(|message| message.qos).collect()
}

/// [3:MQTT-7.0.0-2]
#[tokio::test]
async fn a_client_hears_itself_at_every_qos_and_may_connect_again_at_once() {
    let host = Host::start().await;
    for mqtt in BOTH {
        host.join(mqtt, "myclientid").await.leave().await;
        let mut client = host.join(mqtt, "myclientid").await;
        client.subscribe(A, 2).await;
        for qos in 0..=2 {
            give(&mut client, publish(A, format!("qos {qos}")), qos).await;
        }
        assert_eq!(qos_of(&take(&mut client, 3).await), [0, 1, 2], "{mqtt:?}");
        client.silence().await;
        client.say(&Connect::clean(mqtt, "myclientid").bytes()).await;
        client.sent_away(0x82).await;
    }
}

#[tokio::test]
async fn retained_messages_of_every_qos_come_and_are_cleared() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.join(mqtt, "myclientid").await;
        for (qos, topic) in [(0, B), (1, C), (2, AC)] {
            let mut message = publish(topic, format!("qos {qos}")).retain();
            if mqtt == Mqtt::V5 {
                message = message.with(pair("a", "2")).with(pair("c", "3"));
            }
            give(&mut client, message, qos).await;
        }
        client.subscribe("+/+", 2).await;
        let messages = take(&mut client, 3).await;
        assert_eq!(qos_of(&messages), [1, 0, 2], "{mqtt:?}"); // C, B, AC
        for message in &messages {
            assert!(message.retain);
            let users: Vec<Vec<u8>> = [pair("a", "2"), pair("c", "3")]
                .iter()
                .map(|pair| pair[1..].to_vec())
                .collect();
            let users = if mqtt == Mqtt::V5 { users } else { vec![] };
            assert_eq!(message.values(id::USER_PROPERTY), users);
        }
        client.leave().await;
        // A cleaner finds them all with # at QoS 0, and clears them at QoS 0.
        let mut cleaner = host.join(mqtt, "clean retained").await;
        cleaner.subscribe("#", 0).await;
        for message in take(&mut cleaner, 3).await {
            assert!(message.retain);
            cleaner.publish(publish(&message.topic, "").retain()).await;
        }
        assert!(
            take(&mut cleaner, 3)
                .await
                .iter()
                .all(|message| message.payload.is_empty())
        );
        cleaner.leave().await;
        let mut client = host.join(mqtt, "myclientid").await;
        client.subscribe("+/+", 2).await;
        give(&mut client, publish(B, "sentinel"), 0).await;
        client.receive("sentinel").await;
        client.leave().await;
    }
}

#[tokio::test]
async fn messages_of_qos_1_and_2_wait_for_a_client_that_is_away() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.admit(Connect::persistent(mqtt, "myclientid")).await;
        client.subscribe("+/+", 2).await;
        client.leave().await;
        let mut other = host.join(mqtt, "myclientid2").await;
        for (qos, topic) in [(0, B), (1, C), (2, AC)] {
            give(&mut other, publish(topic, format!("qos {qos}")), qos).await;
        }
        other.leave().await;
        let mut client = host.admit(Connect::persistent(mqtt, "myclientid")).await;
        assert_eq!(qos_of(&take(&mut client, 2).await), [1, 2], "{mqtt:?}");
        client.silence().await;
        client.leave().await;
        host.join(mqtt, "myclientid").await;
    }
}

#[tokio::test]
async fn the_will_of_a_lost_client_arrives_once() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let will = Connect::clean(mqtt, "myclientid")
            .will(C, "client not disconnected", 0, false)
            .keep_alive(2);
        let client = host.admit(will).await;
        let mut other = host.admit(Connect::persistent(mqtt, "myclientid2")).await;
        other.subscribe(C, 2).await;
        drop(client);
        other.receive("client not disconnected").await;
        other.silence().await;
        // And the one of a client that falls silent.
        let will = Connect::clean(mqtt, "myclientid")
            .will(C, "keepalive expiry", 0, false)
            .keep_alive(1);
        let _silent = host.admit(will).await;
        other.receive("keepalive expiry").await;
        other.silence().await;
        other.leave().await;
        host.join(mqtt, "myclientid2").await;
    }
}

#[tokio::test]
async fn overlapping_subscriptions_of_one_packet_bring_one_copy_at_the_highest_qos() {
    let host = Host::start().await;
    for mqtt in BOTH {
        for _ in 0..5 {
            let mut client = host.join(mqtt, "myclientid").await;
            client
                .say(&subscribe(mqtt, 1, &[], &[("TopicA/#", 2), ("TopicA/+", 1)]))
                .await;
            client.hear(&suback(mqtt, 1, &[2, 1])).await;
            give(&mut client, publish(AC, "overlapping topic filters"), 2).await;
            assert_eq!(client.receive("overlapping topic filters").await.qos, 2, "{mqtt:?}");
            client.silence().await;
        }
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_on_the_next_connection() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.admit(Connect::persistent(mqtt, "myclientid2")).await;
        client.subscribe("TopicA/#", 2).await;
        client.publish(publish(B, "").qos(1, 1)).await;
        client.publish(publish(AC, "").qos(2, 2)).await;
        client.until(&ack(0x40, 1)).await;
        client.until(&ack(0x50, 2)).await;
        client.leave_unheard().await;
        let mut client = host.admit(Connect::persistent(mqtt, "myclientid2")).await;
        assert!(client.session_present(), "{mqtt:?}");
        assert_eq!(qos_of(&take(&mut client, 2).await), [1, 2], "{mqtt:?}");
        client.say(&ack(0x62, 2)).await;
        client.hear(&ack(0x70, 2)).await;
        client.leave().await;
        host.join(mqtt, "myclientid2").await;
    }
}

#[tokio::test]
async fn topics_of_the_host_are_hidden_from_wildcards() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut client = host.join(mqtt, "myclientid2").await;
        client.subscribe("+/+", 2).await;
        give(&mut client, publish("$TopicA/B", ""), 1).await;
        client.silence().await;
    }
}

#[tokio::test]
async fn unsubscribing_from_one_topic_leaves_the_others() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut other = host.join(mqtt, "myclientid2").await;
        for topic in [A, B, C] {
            other.subscribe(topic, 2).await;
        }
        other.say(&unsubscribe(mqtt, 9, &[A])).await;
        other.hear(&unsuback(mqtt, 9, &[0])).await;
        let mut client = host.join(mqtt, "myclientid").await;
        for topic in [A, B, C] {
            give(&mut client, publish(topic, topic), 1).await;
        }
        let heard: Vec<String> = take(&mut other, 2)
            .await
            .into_iter()
            .map(|message| message.topic)
            .collect();
        assert_eq!(heard, [C, B], "{mqtt:?}");
        other.silence().await;
    }
}

#[tokio::test]
async fn an_identifier_of_no_length_is_refused_or_replaced() {
    let host = Host::start().await;
    let refused = host.ask(&Connect::persistent(Mqtt::V311, "")).await;
    assert_eq!(refused.connack, [0x20, 2, 0, 2]);
    host.join(Mqtt::V311, "").await.leave().await;
    let client = host.join(Mqtt::V5, "").await;
    let said = client.connack_properties();
    assert!(
        said.iter()
            .any(|(known, name)| *known == id::ASSIGNED_CLIENT_ID && name.len() > 2),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_session_lasts_as_long_as_connect_and_then_disconnect_say() {
    let host = Host::start().await;
    let begin = |expiry| Connect::clean(Mqtt::V5, "myclientid").with(four(id::SESSION_EXPIRY, expiry));
    let resume = |expiry| Connect::resuming("myclientid").with(four(id::SESSION_EXPIRY, expiry));
    host.admit(begin(0)).await.leave().await;
    let mut client = host.admit(resume(0)).await;
    assert!(!client.session_present());
    client.leave().await;
    client = host.admit(begin(600)).await;
    client.subscribe(A, 2).await;
    client.leave().await;
    client = host.admit(resume(1)).await;
    assert!(client.session_present());
    client.say(&disconnect(0, &four(id::SESSION_EXPIRY, 999_999_999))).await;
    client.hear(&[]).await;
    client = host.admit(resume(600)).await;
    assert!(client.session_present());
    client.say(&disconnect(0, &four(id::SESSION_EXPIRY, 0))).await;
    client.hear(&[]).await;
    assert!(!host.admit(resume(0)).await.session_present());
}

#[tokio::test]
async fn subscription_identifiers_come_together_and_each_to_its_own() {
    let host = Host::start().await;
    for _ in 0..5 {
        let mut client = host.join(Mqtt::V5, "myclientid").await;
        client
            .subscribe_with(&varint(id::SUBSCRIPTION_IDENTIFIER, 456_789), A, 2)
            .await;
        let mut other = host.join(Mqtt::V5, "myclientid2").await;
        other
            .subscribe_with(&varint(id::SUBSCRIPTION_IDENTIFIER, 2), A, 2)
            .await;
        other
            .subscribe_with(&varint(id::SUBSCRIPTION_IDENTIFIER, 3), "TopicA/#", 2)
            .await;
        give(&mut other, publish(A, "sub identifier test"), 1).await;
        let message = client.receive("sub identifier test").await;
        assert_eq!(
            message.values(id::SUBSCRIPTION_IDENTIFIER),
            [varint(0, 456_789)[1..].to_vec()]
        );
        let message = other.receive("sub identifier test").await;
        let named: BTreeSet<Vec<u8>> = message.values(id::SUBSCRIPTION_IDENTIFIER).into_iter().collect();
        assert_eq!(named, BTreeSet::from([vec![2], vec![3]]));
        other.silence().await;
    }
}

#[tokio::test]
async fn a_request_finds_its_answer() {
    let host = Host::start().await;
    let mut client = host.join(Mqtt::V5, "myclientid").await;
    let mut other = host.join(Mqtt::V5, "myclientid2").await;
    for client in [&mut client, &mut other] {
        client.subscribe(A, 2 | 4).await; // no local
    }
    let request = publish(A, "request")
        .with(text(id::RESPONSE_TOPIC, A))
        .with(text(id::CORRELATION_DATA, "334"));
    give(&mut client, request, 1).await;
    let request = other.receive("request").await;
    assert_eq!(request.values(id::RESPONSE_TOPIC), [string(A)]);
    let data = &request.values(id::CORRELATION_DATA)[0];
    let answer = publish(A, "response").with(text(id::CORRELATION_DATA, &data[2..]));
    give(&mut other, answer, 1).await;
    assert_eq!(
        client.receive("response").await.values(id::CORRELATION_DATA),
        [string("334")]
    );
    client.silence().await;
    other.silence().await;
}

#[tokio::test]
async fn payload_format_and_content_type_arrive_at_every_qos() {
    let host = Host::start().await;
    let mut client = host.join(Mqtt::V5, "myclientid").await;
    client.subscribe(A, 2).await;
    for qos in 0..=2 {
        let message = publish(A, "")
            .with(one(id::PAYLOAD_FORMAT, 1))
            .with(text(id::CONTENT_TYPE, "My name"));
        give(&mut client, message, qos).await;
        let message = client.message().await;
        client.accept(&message).await;
        assert_eq!(message.qos, qos);
        assert_eq!(message.values(id::PAYLOAD_FORMAT), [[1]]);
        assert_eq!(message.values(id::CONTENT_TYPE), [string("My name")]);
    }
}

#[tokio::test]
async fn a_client_takes_two_at_a_time_and_the_host_as_many_as_it_says() {
    let host = Host::start().await;
    let narrow = Connect::clean(Mqtt::V5, "myclientid").with(two(id::RECEIVE_MAXIMUM, 2));
    let mut client = host.admit(narrow).await;
    client.subscribe(A, 2).await;
    for number in 1..=3 {
        client
            .publish(publish(A, format!("message {number}")).qos(1, number))
            .await;
    }
    for number in 1..=3 {
        client.until(&ack(0x40, number)).await;
    }
    let first = client.message().await;
    client.message().await;
    client.silence().await;
    client.accept(&first).await;
    assert_eq!(client.message().await.text(), "message 3");

    let mut sensor = host.join(Mqtt::V5, "myclientid2").await;
    let said = sensor.connack_properties();
    let (_, window) = said
        .iter()
        .find(|(known, _)| *known == id::RECEIVE_MAXIMUM)
        .expect("it is said");
    let window = u16::from_be_bytes([window[0], window[1]]);
    for number in 1..=window + 1 {
        sensor.publish(publish(B, "x").qos(2, number)).await;
    }
    let last = loop {
        let heard = sensor.next().await;
        if heard.first() != Some(&0x50) {
            break heard;
        }
    };
    assert_eq!((last[0], last[2]), (0xE0, 0x93), "{last:02x?}");
}

#[tokio::test]
async fn a_topic_is_sent_once_to_a_client_that_takes_an_alias_and_always_to_others() {
    let host = Host::start().await;
    for maximum in [1, 0] {
        let connect = Connect::clean(Mqtt::V5, "myclientid").with(two(id::TOPIC_ALIAS_MAXIMUM, maximum));
        let mut client = host.admit(connect).await;
        client.subscribe(A, 2).await;
        for qos in 0..=2 {
            give(&mut client, publish(A, "topic alias"), qos).await;
        }
        for number in 0..3 {
            let message = client.message().await;
            client.accept(&message).await;
            let (topic, alias) = match (maximum, number) {
                (0, _) => (A, vec![]),
                (_, 0) => (A, vec![vec![0, 1]]),
                _ => ("", vec![vec![0, 1]]),
            };
            assert_eq!(
                (message.topic.as_str(), message.values(id::TOPIC_ALIAS)),
                (topic, alias)
            );
        }
    }
}

#[tokio::test]
async fn a_group_shares_and_everybody_else_gets_all() {
    let host = Host::start().await;
    let filters = [("$share/sharename/x", 2), (A, 2)];
    let mut clients = [
        host.join(Mqtt::V5, "myclientid").await,
        host.join(Mqtt::V5, "myclientid2").await,
    ];
    for client in &mut clients {
        client.say(&subscribe(Mqtt::V5, 1, &[], &filters)).await;
        client.hear(&suback(Mqtt::V5, 1, &[2, 2])).await;
    }
    clients[1].publish(publish(A, "to all")).await;
    clients[1].publish(publish("x", "to one")).await;
    clients[1].publish(publish("x", "to the other")).await;
    let mut shared = BTreeSet::new();
    for client in &mut clients {
        let mut heard: Vec<String> = take(client, 2).await.iter().map(Message::text).collect();
        assert_eq!(heard.remove(0), "to all");
        shared.extend(heard);
        client.silence().await;
    }
    assert_eq!(shared, BTreeSet::from(["to one".to_owned(), "to the other".to_owned()]));
}

impl Plain {
    /// Leaves with a DISCONNECT, whatever is on its way.
    async fn leave_unheard(mut self) {
        self.say(&[0xE0, 0]).await;
        while !self.next().await.is_empty() {}
    }
}
