//! Who comes and who goes, told on `$SYS/brokers/<node>/clients/<client id>/connected` and `…/disconnected`, as
//! EMQ X's presence module does: QoS 0, not retained.

use std::sync::Arc;

use serde_json::json;

use super::connection::Connection;
use crate::model::clock;
use crate::model::delivery::Run;
use crate::model::event::{Event, micros};
use crate::model::message::{Client, Message, Qos};
use crate::model::properties::Properties;
use crate::model::topic::Topic;

impl Connection {
    /// Tells of an event, if it is one of these and anybody may want to know.
    pub(super) async fn tell_presence(&mut self, event: &Event) {
        let settings = &self.broker.settings;
        if !settings.presence || settings.sys_interval.is_zero() {
            return;
        }
        let wall = clock::wall();
        let ts = micros(wall) / 1_000_000;
        let (client, word, payload) = match event {
            Event::ClientConnected { client } => (client, "connected", connected(client, ts)),
            Event::ClientDisconnected { client, reason } => {
                let payload = json!({
                    "clientid": client.id.as_str(),
                    "username": client.username.as_deref(),
                    "reason": reason.to_string(),
                    "ts": ts,
                });
                (client, "disconnected", payload)
            }
            _ => return,
        };
        // A client id may hold what a topic may not.
        let topic = format!("$SYS/brokers/{}/clients/{}/{word}", settings.node, client.id);
        let Ok(topic) = Topic::new(topic) else { return };
        let from = settings.node.as_str().into();
        let message = Message {
            id: self.new_id(),
            topic,
            payload: payload.to_string().into(),
            qos: Qos::AtMostOnce,
            retain: false,
            from,
            at: wall,
            properties: Properties::default(),
            expires: None,
        };
        self.batch.push(Arc::new(Run::new(vec![message], Vec::new())));
        self.link.publish(&mut self.batch).await;
    }
}

fn connected(client: &Client, ts: u64) -> serde_json::Value {
    json!({
        "clientid": client.id.as_str(),
        "username": client.username.as_deref(),
        "ipaddress": client.peer.ip().to_string(),
        "clean_start": client.clean_start,
        "proto_name": if client.protocol == 3 { "MQIsdp" } else { "MQTT" },
        "proto_ver": client.protocol,
        "keepalive": client.keep_alive_s,
        "connack": 0,
        "ts": ts,
    })
}
