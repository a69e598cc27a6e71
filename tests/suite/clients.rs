//! Other people's clients: Debian's mosquitto_pub and mosquitto_sub, and rumqttc, among each other.

use crate::harness::host::Host;
use crate::harness::tools::{MosquittoSub, mosquitto_pub, tool};
use crate::harness::{BOTH, Mqtt};

/// Whether mosquitto's tools are here; says so where they are not.
fn mosquitto() -> bool {
    tool("mosquitto_pub").is_some() && tool("mosquitto_sub").is_some()
}

#[tokio::test]
async fn mosquitto_talks_to_mosquitto_at_every_qos() {
    if !mosquitto() {
        return;
    }
    let host = Host::start().await;
    for subscribing in BOTH {
        for granted in ["0", "1", "2"] {
            let mut sub = MosquittoSub::start(&host, subscribing, &["-q", granted, "-t", "t/+"]).await;
            for publishing in BOTH {
                for qos in ["0", "1", "2"] {
                    mosquitto_pub(&host, publishing, &["-q", qos, "-t", "t/1", "-m", "21.5 °C"]).await;
                    let arrives = qos.min(granted);
                    assert_eq!(sub.message().await, format!("t/1|{arrives}|0|21.5 °C"));
                }
            }
        }
    }
}

#[tokio::test]
async fn mosquitto_and_rumqttc_talk_to_each_other_at_every_qos() {
    if !mosquitto() {
        return;
    }
    let host = Host::start().await;
    for mqtt in BOTH {
        for qos in 0..=2 {
            let level = qos.to_string();
            let mut app = host.client(mqtt, "app").connect().await;
            app.subscribe("to/app", qos).await;
            mosquitto_pub(&host, mqtt, &["-q", &level, "-t", "to/app", "-m", "from mosquitto"]).await;
            assert_eq!(app.expect("from mosquitto").await.qos, qos);
            let mut sub = MosquittoSub::start(&host, mqtt, &["-q", &level, "-t", "to/sub"]).await;
            app.publish("to/sub", qos, "from rumqttc").await;
            assert_eq!(sub.message().await, format!("to/sub|{qos}|0|from rumqttc"));
        }
    }
}

#[tokio::test]
async fn rumqttc_talks_across_versions_at_every_qos() {
    let host = Host::start().await;
    for [publishing, subscribing] in [[Mqtt::V311, Mqtt::V5], [Mqtt::V5, Mqtt::V311]] {
        let mut sensor = host.client(publishing, "sensor").connect().await;
        for granted in 0..=2 {
            let mut app = host.client(subscribing, "app").connect().await;
            app.subscribe("t/1", granted).await;
            for qos in 0..=2 {
                sensor.publish("t/1", qos, "x").await;
                assert_eq!(app.expect("x").await.qos, qos.min(granted));
            }
        }
    }
}

#[tokio::test]
async fn mosquitto_gets_retained_messages_and_clears_them() {
    if !mosquitto() {
        return;
    }
    for mqtt in BOTH {
        let host = Host::start().await;
        mosquitto_pub(&host, mqtt, &["-r", "-q", "1", "-t", "t/1", "-m", "on"]).await;
        let mut sub = MosquittoSub::start(&host, mqtt, &["-q", "1", "-t", "t/1"]).await;
        assert_eq!(sub.message().await, "t/1|1|1|on");
        mosquitto_pub(&host, mqtt, &["-r", "-n", "-q", "1", "-t", "t/1"]).await;
        assert_eq!(sub.message().await, "t/1|1|0|");
        let mut later = MosquittoSub::start(&host, mqtt, &["-q", "1", "-t", "t/1"]).await;
        mosquitto_pub(&host, mqtt, &["-q", "1", "-t", "t/1", "-m", "live"]).await;
        assert_eq!(later.message().await, "t/1|1|0|live");
    }
}

#[tokio::test]
async fn mosquitto_gets_what_it_missed_and_a_crash_between_changes_nothing() {
    if !mosquitto() {
        return;
    }
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut persistent = vec!["-i", "app", "-c", "-q", "1", "-t", "rooms/#"];
        if mqtt == Mqtt::V5 {
            persistent.extend(["-x", "3600"]);
        }
        drop(MosquittoSub::start(&host, mqtt, &persistent).await);
        mosquitto_pub(&host, mqtt, &["-q", "1", "-t", "rooms/kitchen", "-m", "21.5 °C"]).await;
        host.restart().await;
        let mut sub = MosquittoSub::start(&host, mqtt, &persistent).await;
        assert_eq!(sub.message().await, "rooms/kitchen|1|0|21.5 °C");
        mosquitto_pub(&host, mqtt, &["-q", "1", "-t", "rooms/hall", "-m", "19 °C"]).await;
        assert_eq!(sub.message().await, "rooms/hall|1|0|19 °C", "nothing comes twice");
    }
}

#[tokio::test]
async fn the_will_of_a_killed_mosquitto_sub_is_published() {
    if !mosquitto() {
        return;
    }
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("wills/#", 2).await;
        let will = [
            "-t",
            "t",
            "--will-topic",
            "wills/sub",
            "--will-payload",
            "killed",
            "--will-qos",
            "2",
        ];
        drop(MosquittoSub::start(&host, mqtt, &will).await);
        assert_eq!(app.expect("killed").await.qos, 2);
    }
}

#[tokio::test]
async fn a_large_message_passes_through_mosquitto_unchanged() {
    if !mosquitto() {
        return;
    }
    let host = Host::start().await;
    let file = host.data().join("large");
    let large: Vec<u8> = (0..=255).cycle().take(500_000).collect();
    std::fs::write(&file, &large).expect("the data folder is ours");
    for mqtt in BOTH {
        let mut app = host.client(mqtt, "app").connect().await;
        app.subscribe("t/1", 1).await;
        mosquitto_pub(
            &host,
            mqtt,
            &["-q", "1", "-t", "t/1", "-f", file.to_str().expect("UTF-8")],
        )
        .await;
        let received = app.receive().await;
        assert!(received.payload == large, "{mqtt:?}: {} bytes", received.payload.len());
        app.ack(&received).await;
    }
}
