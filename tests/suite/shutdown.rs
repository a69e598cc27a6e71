//! From the first line to the last: ready, health, SIGTERM, and whom the listener lets in.

use std::net::UdpSocket;

use tokio::net::TcpStream;

use crate::harness::fault::Lock;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};
use crate::harness::{BOTH, Mqtt, within};

#[tokio::test]
async fn one_line_on_standard_output_says_that_it_is_ready_and_with_what() {
    let mut host = Host::start().await;
    for word in ["ready", "mqtt://127.0.0.1:", "backends=", "rules=", "data="] {
        assert!(host.ready().contains(word), "{:?} lacks {word}", host.ready());
    }
    assert!(host.get("/health").await.len() < 10_000);
    host.terminate().await;
    assert_eq!(host.stdout(), [host.ready()]);
}

#[tokio::test]
async fn sigterm_tells_v5_clients_publishes_wills_and_ends_with_0() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("wills/#", 1).await;
        app.disconnect().await;
        let will = Some(("wills/sensor", "the host went", 1));
        let mut sensor = host
            .raw(Hello {
                will,
                ..Hello::clean(mqtt, "sensor")
            })
            .await;
        host.ask_to_end();
        let farewell = if mqtt == Mqtt::V5 {
            vec![Said::Disconnect(0x8B)]
        } else {
            vec![]
        };
        assert_eq!(sensor.rest().await, farewell, "{mqtt:?}");
        assert_eq!(host.ended().await.code(), Some(0), "{mqtt:?}");
        assert_eq!(
            host.sql("select payload from mqtt_msg").await,
            ["the host went"],
            "{mqtt:?}"
        );
        assert_eq!(
            host.sql("select distinct state from mqtt_client").await,
            ["0"],
            "{mqtt:?}"
        );
        host.restart().await;
        let mut app = host.client(mqtt, "app").persistent().connect().await;
        app.subscribe("wills/#", 1).await;
        app.expect("the host went").await;
    }
}

#[tokio::test]
async fn sigterm_commits_what_is_pending() {
    for mqtt in BOTH {
        let mut host = Host::plan().announce("pool1").start().await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let lock = Lock::take(&host).await;
        for id in 1..=20 {
            sensor.publish(id, 1, "t/1", id.to_string()).await;
        }
        host.metric_becomes("messages_open", 20.0).await;
        host.ask_to_end();
        lock.release().await;
        assert_eq!(host.ended().await.code(), Some(0), "{mqtt:?}");
        assert_eq!(host.count("select count(*) from mqtt_msg").await, 20, "{mqtt:?}");
    }
}

#[tokio::test]
async fn a_drain_that_cannot_finish_ends_in_time_and_acknowledges_nothing() {
    let mut host = Host::plan()
        .set("drain_timeout", "1s")
        .announce("pool1")
        .announce("stopped before everything was done")
        .start()
        .await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let lock = Lock::take(&host).await;
    sensor.publish(1, 1, "t/1", "x").await;
    host.metric_becomes("messages_open", 1.0).await;
    host.ask_to_end();
    let said = sensor.rest().await;
    assert!(!said.contains(&Said::PubAck(1, 0)), "{said:?}");
    host.ended().await;
    lock.release().await;
    assert_eq!(host.count("select count(*) from mqtt_msg").await, 0);
}

#[tokio::test]
async fn the_listener_is_on_loopback_only() {
    let host = Host::start().await;
    let Some(address) = own_address() else { return };
    let refused = within("a connection", TcpStream::connect((address.as_str(), host.port()))).await;
    assert!(refused.is_err(), "{address} answers");
}

#[tokio::test]
async fn strangers_are_let_in_over_loopback_only_unless_told_otherwise() {
    for (allow, address, accepted) in [
        ("loopback", "127.0.0.1", true),
        ("loopback", "own", false),
        ("true", "own", true),
        ("false", "127.0.0.1", false),
    ] {
        let Some(own) = own_address() else { return };
        let host = Host::plan()
            .set("allow_anonymous", allow)
            .set("listener.tcp.external", "0.0.0.0:0");
        let host = host.announce("anonymous").start().await;
        let address = if address == "own" { own } else { address.to_owned() };
        for (mqtt, code) in [(Mqtt::V311, 5), (Mqtt::V5, 0x87)] {
            let mut stranger = host.dial_at(&address, mqtt).await;
            let said = stranger.hello(Hello::clean(mqtt, "stranger")).await;
            let wanted = if accepted { 0 } else { code };
            assert!(
                matches!(said, Said::ConnAck { code, .. } if code == wanted),
                "{allow} {address}: {said:?}"
            );
        }
    }
}

/// An address of this machine that is not loopback. Nothing is sent: connecting a UDP socket only picks a route.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let address = routed
        .ok()
        .filter(|address| !address.ip().is_loopback() && !address.ip().is_unspecified());
    if address.is_none() {
        crate::harness::tools::skip("this machine has no address but loopback");
    }
    address.map(|address| address.ip().to_string())
}
