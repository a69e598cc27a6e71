//! `$SYS`: the figures that people look for, as retained messages of the broker's own, by mosquitto's names and by
//! EMQ X's. Who subscribes to `$SYS/#` gets them; a wildcard at the first level does not match them.

mod figures;
mod load;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use super::Broker;
use crate::bus::Link;
use crate::model::clock;
use crate::model::delivery::{Settle, Settled, Ticket};
use crate::model::event::micros;
use crate::model::id::Ids;
use crate::model::message::{Client, Message, Qos};
use crate::model::properties::Properties;
use crate::model::topic::Topic;
use crate::telemetry::Snapshot;

use figures::Present;
use load::Loads;

/// What the topics of the broker's own begin with. Clients cannot publish there.
const PREFIX: &str = "$SYS/";

/// Nobody waits for a figure to be stored.
struct Nobody;

impl Settle for Nobody {
    fn settle(&self, _: Ticket, _: &[Settled]) {}
}

/// Publishes the figures of a broker.
struct Sys {
    broker: Arc<Broker>,
    link: Box<dyn Link>,
    /// The broker, as a publisher.
    client: Arc<Client>,
    settle: Arc<dyn Settle>,
    started: Instant,
    loads: Loads,
    /// What every topic says.
    said: HashMap<String, String>,
}

/// Publishes the figures every `interval`, until the broker stops.
pub(super) async fn publish_every(broker: Arc<Broker>, interval: Duration) {
    let mut sys = Sys::new(Arc::clone(&broker));
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => sys.publish().await,
            () = broker.stop.cancelled() => return,
        }
    }
}

impl Sys {
    fn new(broker: Arc<Broker>) -> Self {
        let client = Client {
            id: broker.settings.node.as_str().into(),
            username: None,
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            protocol: 5,
            clean_start: true,
            keep_alive_s: 0,
            session_expiry_s: 0,
            connected_at: clock::wall(),
        };
        Self {
            link: broker.bus.link(),
            broker,
            client: Arc::new(client),
            settle: Arc::new(Nobody),
            started: clock::instant(),
            loads: Loads::default(),
            said: HashMap::new(),
        }
    }

    /// Publishes what has changed; the rest is retained.
    async fn publish(&mut self) {
        self.broker.measure();
        let snapshot = Snapshot::take();
        let uptime = clock::instant() - self.started;
        self.loads.advance(&snapshot, uptime);
        let present = Present {
            snapshot: &snapshot,
            uptime,
            wall: clock::wall(),
            clients_max: self.broker.clients.most_online(),
            connections_max: self.broker.settings.connections_max,
        };
        let node = &self.broker.settings.node;
        let mut figures = present.by_mosquitto();
        figures.extend(self.loads.topics());
        figures.extend(present.by_emqx(node));
        let mut batch = Vec::new();
        for (topic, value) in figures {
            if self.said.get(&topic) == Some(&value) {
                continue;
            }
            if let Some(message) = self.message(&topic, &value, present.wall) {
                let planned = self
                    .broker
                    .hooks
                    .publish(&self.client, vec![message], &[], 0, &self.settle, false);
                batch.push(planned.run);
            }
            self.said.insert(topic, value);
        }
        self.link.publish(&mut batch).await;
    }

    /// `None` where the node's name is nothing that a topic may hold.
    fn message(&self, topic: &str, value: &str, wall: SystemTime) -> Option<Message> {
        Some(Message {
            id: Ids::new(&self.broker.ids, micros(wall)).take(),
            topic: Topic::new(format!("{PREFIX}{topic}")).ok()?,
            payload: value.to_owned().into(),
            qos: Qos::AtMostOnce,
            retain: true,
            from: self.client.id.clone(),
            at: wall,
            properties: Properties::default(),
            expires: None,
        })
    }
}
