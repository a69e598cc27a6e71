//! Clients of MQTT 3.1, the version before the standard: what differs from 3.1.1, and that the rest does not.

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::plain::{Plain, ack, packet, publish, string, subscribe};

const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

/// A connection that has sent a CONNECT of MQTT 3.1.
async fn knock(host: &Host, clean: bool, id: &str) -> Plain {
    let mut client = host.plain(Mqtt::V311).await;
    let head = [string("MQIsdp"), vec![3, u8::from(clean) << 1, 0, 0]].concat();
    client.say(&packet(0x10, &[head, string(id)].concat())).await;
    client
}

async fn enter(host: &Host, clean: bool, id: &str) -> Plain {
    let mut client = knock(host, clean, id).await;
    assert_eq!(client.next().await, ACCEPTED, "the byte of Session Present is reserved");
    client
}

#[tokio::test]
async fn a_session_of_mqtt_3_1_gets_what_it_missed_after_a_crash() {
    let mut host = Host::start().await;
    let mut app = enter(&host, false, "app").await;
    app.say(&subscribe(Mqtt::V311, 1, &[], &[("t/#", 1)])).await;
    app.hear(&[0x90, 3, 0, 1, 1]).await;
    let mut sensor = enter(&host, true, "sensor").await;
    sensor.publish(publish("t/1", "live").qos(2, 7)).await;
    sensor.hear(&ack(0x50, 7)).await;
    sensor.say(&ack(0x62, 7)).await;
    sensor.hear(&ack(0x70, 7)).await;
    let live = app.receive("live").await;
    app.accept(&live).await;
    drop(app);
    sensor.publish(publish("t/1", "missed").qos(1, 8)).await;
    sensor.hear(&ack(0x40, 8)).await;
    host.eventually("select mid from mqtt_acked", &["1"]).await;
    host.kill9().await;
    host.restart().await;
    let mut app = enter(&host, false, "app").await;
    let missed = app.receive("missed").await;
    app.accept(&missed).await;
}

#[tokio::test]
async fn mqtt_3_1_has_no_empty_client_identifier() {
    let host = Host::start().await;
    for clean in [false, true] {
        let mut nobody = knock(&host, clean, "").await;
        nobody.hear(&[0x20, 2, 0, 2]).await;
        nobody.hear(b"").await;
    }
}
