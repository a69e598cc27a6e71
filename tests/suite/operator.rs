//! `hookline clients`: who is connected, how one of them is, and that it goes.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{BOTH, Mqtt};

async fn clients(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline"));
    command.arg("clients").args(arguments).arg("--data").arg(host.data());
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("it does not panic").expect("the binary is there")
}

async fn json(host: &Host, arguments: &[&str]) -> Value {
    let output = clients(host, &[arguments, &["--json"]].concat()).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn those_who_are_connected_are_listed_a_page_at_a_time() {
    let host = Host::start().await;
    let mut connected = Vec::new();
    for id in ["d", "b/1 ?&%", "a", "c", "ä"] {
        connected.push(host.raw(Hello::clean(Mqtt::V5, id)).await);
    }
    // One that is away is no connected client.
    let mut away = host.raw(Hello::persistent(Mqtt::V311, "bb")).await;
    away.subscribe("t", 1).await;
    away.disconnect(0).await;
    away.rest().await;
    host.metric_becomes("clients_connected", 5.0).await;
    let (mut seen, mut pages, mut after) = (Vec::new(), 0, None::<String>);
    loop {
        let mut arguments = vec!["list", "--limit", "2"];
        if let Some(after) = &after {
            arguments.extend(["--after", after]);
        }
        let page = json(&host, &arguments).await;
        let ids = page["clients"].as_array().expect("a list");
        seen.extend(
            ids.iter()
                .map(|client| client["client_id"].as_str().expect("text").to_owned()),
        );
        pages += 1;
        after = page["more_after"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        (seen, pages),
        (["a", "b/1 ?&%", "c", "d", "ä"].map(str::to_owned).to_vec(), 3)
    );
    let output = clients(&host, &["list", "--limit", "1"]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("CLIENT ID  USER  ADDRESS"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("--after 'a'"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_client_is_shown_with_what_it_subscribed_to_and_how_far_it_has_read() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut app = host.raw(Hello::persistent(mqtt, "app/1")).await;
        app.subscribe("rooms/hall", 1).await;
        app.subscribe("$share/g/jobs/+", 2).await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        for id in 1..=3 {
            sensor.publish(id, 1, "rooms/hall", "x").await;
            assert_eq!(sensor.next().await, Said::PubAck(id, 0));
        }
        for _ in 0..3 {
            let Said::Publish { id, .. } = app.next().await else {
                panic!("three messages are on their way")
            };
            if id == 1 {
                app.puback(id).await;
            }
        }
        host.eventually("select mid from mqtt_acked where topic = 'rooms/hall'", &["1"])
            .await;
        let report = json(&host, &["show", "app/1"]).await;
        assert_eq!(report["connected"], true);
        assert_eq!(report["inflight"], 2);
        assert_eq!(report["queued"], 0);
        assert_eq!(report["subscriptions"], 2);
        assert_eq!(report["protocol"], if mqtt == Mqtt::V5 { 5 } else { 4 });
        assert_eq!(report["filters"][0]["filter"], "rooms/hall");
        assert_eq!(report["filters"][1]["filter"], "$share/g/jobs/+");
        assert_eq!(report["readers"][0]["pool"], "sqlite.pool1");
        assert_eq!(report["readers"][0]["position"], "1");
        let text = String::from_utf8_lossy(&clients(&host, &["show", "app/1"]).await.stdout).into_owned();
        for line in [
            "client id     app/1",
            "  rooms/hall qos 1",
            "  sqlite.pool1 rooms/hall pubsub position 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let nobody = clients(&host, &["show", "nobody"]).await;
        assert_eq!(nobody.status.code(), Some(1));
        assert!(
            String::from_utf8_lossy(&nobody.stderr).contains("no client nobody"),
            "{nobody:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_is_kicked_is_told_and_keeps_its_session() {
    let host = Host::start().await;
    for mqtt in BOTH {
        let mut app = host.raw(Hello::persistent(mqtt, "a b")).await;
        app.subscribe("t", 1).await;
        let kicked = clients(&host, &["kick", "a b"]).await;
        assert_eq!(
            String::from_utf8_lossy(&kicked.stdout),
            "Client a b was disconnected.\n"
        );
        let told = match mqtt {
            Mqtt::V311 => vec![],
            Mqtt::V5 => vec![Said::Disconnect(0x98)],
        };
        assert_eq!(app.rest().await, told);
        let again = clients(&host, &["kick", "a b"]).await;
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        let back = host.raw(Hello::persistent(mqtt, "a b")).await;
        assert!(back.session_present);
    }
}

async fn sessions(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline"));
    command.arg("sessions").args(arguments).arg("--data").arg(host.data());
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.expect("it does not panic").expect("the binary is there")
}

/// The sessions of a page: who, connected or not, at rest or not.
async fn listed(host: &Host, arguments: &[&str]) -> Vec<(String, bool, bool)> {
    let output = sessions(host, &[&["list", "--json"], arguments].concat()).await;
    assert!(output.status.success(), "{output:?}");
    let page: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let session = |session: &Value| {
        let said = |key: &str| session[key].as_bool().expect("true or false");
        let id = session["client_id"].as_str().expect("text").to_owned();
        (id, said("connected"), said("at_rest"))
    };
    page["clients"]
        .as_array()
        .expect("a list")
        .iter()
        .map(session)
        .collect()
}

/// A connected clean client, a connected one with a kept session, and one whose session rests in the store.
async fn three_sessions() -> (Host, Vec<Raw>) {
    let host = Host::start().await;
    let mut resting = host.raw(Hello::persistent(Mqtt::V5, "b rests")).await;
    resting.subscribe("halls/#", 1).await;
    resting.publish(7, 2, "elsewhere", "half done").await;
    assert_eq!(resting.next().await, Said::PubRec(7, 0));
    resting.disconnect(0).await;
    host.rests("b%20rests").await;
    let clean = host.raw(Hello::clean(Mqtt::V311, "a clean")).await;
    let mut kept = host.raw(Hello::persistent(Mqtt::V5, "c kept")).await;
    kept.subscribe("rooms/+", 2).await;
    (host, vec![clean, kept])
}

#[tokio::test]
async fn sessions_are_listed_wherever_they_are() {
    let (host, _connected) = three_sessions().await;
    let all = [
        ("a clean".to_owned(), true, false),
        ("b rests".to_owned(), false, true),
        ("c kept".to_owned(), true, false),
    ];
    assert_eq!(listed(&host, &[]).await, all);
    assert_eq!(listed(&host, &["--limit", "1", "--after", "a clean"]).await, all[1..2]);
    let shown = sessions(&host, &["show", "b rests"]).await;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in ["at rest since", "halls/# qos 1", "unreleased    1", "pubsub position"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let nobody = sessions(&host, &["show", "nobody"]).await;
    let told = String::from_utf8_lossy(&nobody.stderr);
    assert!(
        !nobody.status.success() && told.contains("no session of nobody"),
        "{told}"
    );
}

#[tokio::test]
async fn a_deleted_session_is_gone_wherever_it_was() {
    let (host, mut connected) = three_sessions().await;
    for id in ["a clean", "b rests", "c kept"] {
        let deleted = sessions(&host, &["delete", id]).await;
        assert!(deleted.status.success(), "{deleted:?}");
        assert_eq!(
            host.count(&format!("select count(*) from mqtt_session where clientid = '{id}'"))
                .await,
            0
        );
        let again = sessions(&host, &["delete", id]).await;
        assert!(!again.status.success(), "{id} is gone");
    }
    assert_eq!(connected[0].rest().await, []);
    assert_eq!(connected[1].rest().await, [Said::Disconnect(0x98)]);
    assert_eq!(listed(&host, &[]).await, []);
    for table in ["mqtt_session_sub", "mqtt_session_qos2", "mqtt_acked"] {
        assert_eq!(host.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
    assert!(!host.raw(Hello::persistent(Mqtt::V5, "c kept")).await.session_present);
}
