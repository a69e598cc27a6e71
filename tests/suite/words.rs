//! What MQTT 5 clients are told in words: reason strings, another server, response information.

use crate::harness::host::{Host, Plan};
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{BOTH, Mqtt};

const ELSEWHERE: &str = "other.example:1883";

fn elsewhere() -> Plan {
    Host::plan().set("mqtt.server_reference", ELSEWHERE)
}

fn said(raw: &Raw, text: &str) -> bool {
    raw.texts.iter().any(|said| said.contains(text))
}

#[tokio::test]
async fn a_redirect_sends_everybody_to_another_server() {
    for (redirect, code) in [("temporary", 0x9C), ("permanent", 0x9D)] {
        let host = elsewhere().set("mqtt.redirect", redirect).start().await;
        for (mqtt, code) in [(Mqtt::V311, 3), (Mqtt::V5, code)] {
            let mut raw = host.dial(mqtt).await;
            let answer = raw.hello(Hello::clean(mqtt, "app")).await;
            assert!(
                matches!(answer, Said::ConnAck { code: got, .. } if got == code),
                "{answer:?}"
            );
            assert_eq!(said(&raw, ELSEWHERE), mqtt == Mqtt::V5);
            assert_eq!(raw.next().await, Said::End);
        }
        // [MQTT-3.1.2-24]: never more than the client accepts.
        let mut small = host.dial(Mqtt::V5).await;
        let hello = Hello {
            packet_max: Some(60),
            ..Hello::clean(Mqtt::V5, "small")
        };
        assert!(matches!(small.hello(hello).await, Said::ConnAck { code: got, .. } if got == code));
        assert_eq!(small.texts, [ELSEWHERE], "the advice is what is left out");
    }
}

#[tokio::test]
async fn at_a_stop_clients_are_told_of_the_other_server() {
    let mut host = elsewhere().start().await;
    let mut old = host.raw(Hello::clean(Mqtt::V311, "old")).await;
    let mut new = host.raw(Hello::clean(Mqtt::V5, "new")).await;
    host.ask_to_end();
    assert_eq!(old.rest().await, []);
    assert_eq!(new.rest().await, [Said::Disconnect(0x9C)]);
    assert!(said(&new, ELSEWHERE), "{:?}", new.texts);
    host.ended().await;
}

#[tokio::test]
async fn a_redirect_without_a_server_is_a_mistake() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_hookline"))
        .args(["check", "--etc"])
        .arg(crate::harness::repository().join("etc"))
        .args(["--set", "mqtt.redirect=permanent"])
        .output()
        .expect("the binary is there");
    assert!(!output.status.success());
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains("mqtt.server_reference"), "{text}");
}

#[tokio::test]
async fn a_refusal_says_what_to_do_to_those_who_want_to_know() {
    let host = Host::plan()
        .set("mqtt.max_topic_levels", "2")
        .set("mqtt.max_packet_size", "1KB")
        .start()
        .await;
    for (wants, packet_max, told) in [(true, None, true), (false, None, false), (true, Some(30), false)] {
        let hello = Hello {
            wants: [wants, false],
            packet_max,
            ..Hello::clean(Mqtt::V5, "app")
        };
        let mut app = host.raw(hello).await;
        assert_eq!(app.ask_for("a/b/c", 0).await, 0x8F);
        assert_eq!(said(&app, "mqtt.max_topic_levels"), told, "{:?}", app.texts);
        app.publish(1, 1, "$SYS/x", "x").await;
        assert_eq!(app.next().await, Said::PubAck(1, 0x87));
        assert_eq!(said(&app, "$SYS"), told, "{:?}", app.texts);
        app.publish(2, 1, "t", "x".repeat(2000)).await;
        assert_eq!(app.rest().await, [Said::Disconnect(0x95)]);
        assert_eq!(said(&app, "1024"), told, "{:?}", app.texts);
    }
}

#[tokio::test]
async fn response_information_is_for_those_who_ask() {
    let host = Host::plan().set("mqtt.response_information", "replies/").start().await;
    for (mqtt, asks) in [(Mqtt::V311, true), (Mqtt::V5, true), (Mqtt::V5, false)] {
        let hello = Hello {
            wants: [true, asks],
            ..Hello::clean(mqtt, "app")
        };
        let app = host.raw(hello).await;
        assert_eq!(said(&app, "replies/"), asks && mqtt == Mqtt::V5);
    }
    let plain = Host::start().await;
    for mqtt in BOTH {
        let hello = Hello {
            wants: [true, true],
            ..Hello::clean(mqtt, "app")
        };
        assert_eq!(plain.raw(hello).await.texts, [""; 0]);
    }
}
