//! CONNACK (3.2): what comes first, and what it says of us.

use crate::harness::host::Host;
use crate::harness::plain::{
    Connect, ack, body, four, id, one, packet, properties, publish, suback, subscribe, text, two,
};
use crate::harness::{BOTH, Mqtt};

/// [5:MQTT-3.1.4-5] [5:MQTT-3.2.0-1] [5:MQTT-3.2.0-2] [5:MQTT-3.2.2-1] [3:MQTT-3.1.4-4] [3:MQTT-3.2.0-1]
#[tokio::test]
async fn one_connack_comes_before_everything_else() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.admit(Connect::persistent(mqtt, "app")).await;
        app.subscribe("t/1", 1).await;
        app.leave().await;
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.tell(publish("t/1", "while away")).await;
        // A client need not wait for the CONNACK: what it says meanwhile is answered behind it.
        let mut app = host.plain(mqtt).await;
        let early = [Connect::persistent(mqtt, "app").bytes(), vec![0xC0, 0]].concat();
        app.say(&early).await;
        let connack = app.next().await;
        assert_eq!((connack[0], &body(&connack)[..2]), (0x20, &[1, 0][..]), "{mqtt:?}");
        if mqtt == Mqtt::V311 {
            assert_eq!(connack, [0x20, 2, 1, 0]);
        }
        let mut others = vec![app.next().await[0], app.next().await[0]];
        others.sort_unstable();
        assert_eq!(others, [0x32, 0xD0], "{mqtt:?}: the message and the PINGRESP");
        host.join(mqtt, "app").await;
    }
}

/// [5:MQTT-3.2.2-9] [5:MQTT-3.2.2-10] [5:MQTT-3.2.2-12] [3:MQTT-3.2.2-6]
#[tokio::test]
async fn a_lower_maximum_qos_is_said_kept_and_grants_less() {
    for maximum in [0, 1] {
        let host = Host::plan()
            .set("mqtt.max_qos_allowed", &maximum.to_string())
            .start()
            .await;
        let mut client = host.join(Mqtt::V5, "app").await;
        let said = client.connack_properties();
        assert!(said.contains(&(id::MAXIMUM_QOS, vec![maximum])), "{said:?}");
        let filters = [("t/0", 0), ("t/1", 1), ("t/2", 2)];
        client.say(&subscribe(Mqtt::V5, 7, &[], &filters)).await;
        client.hear(&suback(Mqtt::V5, 7, &[0, 1.min(maximum), maximum])).await;
        client.publish(publish("t/1", "x").qos(maximum + 1, 1)).await;
        client.sent_away(0x9B).await;
        let will = |mqtt| Connect::clean(mqtt, "will").will("w", "gone", maximum + 1, false);
        let mut refused = host.ask(&will(Mqtt::V5)).await;
        assert_eq!(body(&refused.connack)[..2], [0, 0x9B]);
        assert_eq!(refused.next().await, b"");
        let refused = host.ask(&will(Mqtt::V311)).await;
        assert_eq!(refused.connack, b"", "no return code says this");
    }
    let host = Host::start().await;
    let said = host.join(Mqtt::V5, "app").await.connack_properties();
    assert!(said.iter().all(|(known, _)| *known != id::MAXIMUM_QOS), "{said:?}");
}

/// [3:MQTT-3.3.5-2]
#[tokio::test]
async fn a_publish_that_mqtt_3_may_not_make_closes_its_connection() {
    let host = Host::plan().set("mqtt.max_qos_allowed", "1").start().await;
    let mut client = host.join(Mqtt::V311, "app").await;
    client.publish(publish("t/1", "x").qos(2, 1)).await;
    client.sent_away(0x9B).await;
}

/// [5:MQTT-3.2.2-13]
#[tokio::test]
async fn retained_messages_are_available_to_wills_and_everybody() {
    let host = Host::start().await;
    let client = host
        .admit(Connect::clean(Mqtt::V5, "app").will("w", "gone", 1, true))
        .await;
    let said = client.connack_properties();
    assert!(!said.contains(&(id::RETAIN_AVAILABLE, vec![0])), "{said:?}");
}

/// [5:MQTT-3.2.2-19] [5:MQTT-3.2.2-20]
#[tokio::test]
async fn a_refusal_leaves_out_what_the_client_cannot_take() {
    let host = Host::start().await;
    let connect = |limit: Vec<u8>| {
        let method = text(id::AUTH_METHOD, "x");
        Connect::clean(Mqtt::V5, "app").with(method).with(limit)
    };
    let told = host.ask(&connect(vec![])).await.connack;
    assert!(
        properties(&told, 2)
            .iter()
            .any(|(known, _)| *known == id::REASON_STRING),
        "{told:02x?}"
    );
    for limit in [
        four(id::MAXIMUM_PACKET_SIZE, told.len() as u32 - 1),
        one(id::REQUEST_PROBLEM_INFORMATION, 0),
    ] {
        let silent = host.ask(&connect(limit)).await.connack;
        assert_eq!(silent, [0x20, 3, 0, 0x8C, 0]);
    }
}

/// [5:MQTT-3.2.0-1]
#[tokio::test]
async fn a_client_that_takes_no_connack_gets_nothing_at_all() {
    let host = Host::start().await;
    let tiny = Connect::clean(Mqtt::V5, "app").with(four(id::MAXIMUM_PACKET_SIZE, 6));
    let client = host.ask(&tiny).await;
    assert_eq!(client.connack, b"");
    host.join(Mqtt::V5, "other").await.silence().await;
}

/// [5:MQTT-3.1.2-28]
#[tokio::test]
async fn response_information_is_not_given_unasked() {
    let host = Host::start().await;
    for asked in [vec![], one(id::REQUEST_RESPONSE_INFORMATION, 0)] {
        let client = host.admit(Connect::clean(Mqtt::V5, "app").with(asked)).await;
        let said = client.connack_properties();
        assert!(
            said.iter().all(|(known, _)| *known != id::RESPONSE_INFORMATION),
            "{said:?}"
        );
    }
}

/// [5:MQTT-3.1.2-29]
#[tokio::test]
async fn who_wants_no_problem_information_gets_no_reason_strings() {
    let host = Host::plan().set("mqtt.max_topic_levels", "3").start().await;
    let quiet = Connect::clean(Mqtt::V5, "app").with(one(id::REQUEST_PROBLEM_INFORMATION, 0));
    let mut client = host.admit(quiet).await;
    client.say(&subscribe(Mqtt::V5, 1, &[], &[("a/b/c/d", 1)])).await;
    client.hear(&suback(Mqtt::V5, 1, &[0x8F])).await;
    client.say(&packet(0xA2, b"\x00\x02\x00\x00\x04none")).await;
    client.hear(b"\xB0\x04\x00\x02\x00\x11").await;
    client.say(&ack(0x62, 9)).await;
    client.hear(b"\x70\x03\x00\x09\x92").await;
    client.say(&ack(0x50, 9)).await;
    client.hear(b"\x62\x03\x00\x09\x92").await;
}

/// [5:MQTT-3.1.2-21] [5:MQTT-3.2.2-22]
#[tokio::test]
async fn the_servers_keep_alive_stands_above_the_clients() {
    let host = Host::plan().set("mqtt.server_keepalive", "1").start().await;
    let connect = Connect::clean(Mqtt::V5, "app").keep_alive(600);
    let mut client = host.admit(connect).await;
    let said = client.connack_properties();
    assert!(said.contains(&(id::SERVER_KEEP_ALIVE, vec![0, 1])), "{said:?}");
    client.sent_away(0x8D).await;
    // Where the server says nothing, the client's own Keep Alive is kept to.
    let host = Host::start().await;
    let mut client = host.admit(Connect::clean(Mqtt::V5, "app").keep_alive(1)).await;
    let said = client.connack_properties();
    assert!(
        said.iter().all(|(known, _)| *known != id::SERVER_KEEP_ALIVE),
        "{said:?}"
    );
    client.sent_away(0x8D).await;
}

#[tokio::test]
async fn the_limits_of_the_host_are_in_its_connack() {
    let plan = Host::plan()
        .set("mqtt.max_topic_alias", "7")
        .set("mqtt.receive_maximum", "9");
    let host = plan.set("mqtt.max_packet_size", "2KB").start().await;
    let client = host.join(Mqtt::V5, "app").await;
    let bytes: Vec<u8> = client.connack[5..].to_vec();
    for limit in [
        two(id::TOPIC_ALIAS_MAXIMUM, 7),
        two(id::RECEIVE_MAXIMUM, 9),
        four(id::MAXIMUM_PACKET_SIZE, 2048),
    ] {
        assert!(
            bytes.windows(limit.len()).any(|at| at == limit),
            "{limit:02x?} in {bytes:02x?}"
        );
    }
}
