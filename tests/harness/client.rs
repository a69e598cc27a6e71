//! A client that is not ours (rumqttc), told as a story: publish and be acknowledged, subscribe, expect, acknowledge.
//!
//! It moves only while a story waits for it, and acknowledges only what the story acknowledges, so that the
//! order of events is the story's.

mod wire;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use rumqttc::v5::mqttbytes::v5::{Filter, PublishProperties, RetainForwardRule};

use super::host::Host;
use super::{Mqtt, within};
use wire::{Gone, Seen, Wire};

/// What a client says when it connects.
#[derive(Clone)]
pub struct Login {
    mqtt: Mqtt,
    port: u16,
    id: String,
    clean: bool,
    expiry_s: Option<u32>,
    keep_alive_s: u16,
    receive_max: Option<u16>,
    will: Option<Will>,
}

#[derive(Clone)]
struct Will {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    delay_s: Option<u32>,
}

impl Host {
    /// A client that will connect to this host: a clean one, unless told otherwise.
    pub fn client(&self, mqtt: Mqtt, id: &str) -> Login {
        Login {
            mqtt,
            port: self.port(),
            id: id.to_owned(),
            clean: true,
            expiry_s: None,
            keep_alive_s: 60,
            receive_max: None,
            will: None,
        }
    }
}

impl Login {
    /// Resumes a session and leaves one behind.
    pub fn persistent(self) -> Self {
        let expiry_s = (self.mqtt == Mqtt::V5).then_some(3600);
        Self {
            clean: false,
            expiry_s,
            ..self
        }
    }

    /// The Session Expiry Interval (MQTT 5).
    pub fn expiry(self, seconds: u32) -> Self {
        Self {
            expiry_s: Some(seconds),
            ..self
        }
    }

    /// How many unacknowledged messages it accepts (MQTT 5).
    pub fn receive_max(self, receive_max: u16) -> Self {
        Self {
            receive_max: Some(receive_max),
            ..self
        }
    }

    /// Leaves a will.
    pub fn will(self, topic: &str, payload: &str, qos: u8, retain: bool) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.as_bytes().to_vec());
        Self {
            will: Some(Will {
                topic,
                payload,
                qos,
                retain,
                delay_s: None,
            }),
            ..self
        }
    }

    /// Connects; the host must accept.
    pub async fn connect(self) -> Client {
        let id = self.id.clone();
        self.attempt()
            .await
            .unwrap_or_else(|gone| panic!("{id} was refused: {}", gone.0))
    }

    async fn attempt(self) -> Result<Client, Gone> {
        let mut wire = Wire::new(&self);
        let connack = within(format!("the CONNACK of {}", self.id), wire.next()).await?;
        let Seen::ConnAck(session_present) = connack else {
            panic!("CONNACK comes first, not {connack:?}")
        };
        Ok(Client {
            id: self.id,
            session_present,
            wire,
            inbox: VecDeque::new(),
        })
    }
}

/// A connected client.
pub struct Client {
    id: String,
    /// What its CONNACK said.
    pub session_present: bool,
    wire: Wire,
    inbox: VecDeque<Received>,
}

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// Subscription Identifiers.
    pub identifiers: Vec<usize>,
    /// What is left of its expiry, in seconds.
    pub expiry_s: Option<u32>,
    packet: wire::Packet,
}

impl Received {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

impl Client {
    /// Publishes and waits until the message is acknowledged (QoS 0: written); it must not be refused.
    pub async fn publish(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.send(topic, qos, false, payload).await;
    }

    /// Publishes with RETAIN.
    pub async fn retain(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.send(topic, qos, true, payload).await;
    }

    /// Publishes with properties (MQTT 5).
    pub async fn publish_with(&mut self, topic: &str, qos: u8, payload: &str, properties: PublishProperties) {
        self.wire.publish_with(topic, qos, payload, properties);
        self.acknowledged(qos).await;
    }

    /// Publishes all, up to 50 at a time, and waits until all are acknowledged.
    pub async fn publish_all(&mut self, topic: &str, qos: u8, payloads: &[String]) {
        const WINDOW: usize = 50;
        for (at, payload) in payloads.iter().enumerate() {
            self.wire.publish(topic, qos, false, payload.as_bytes());
            if at >= WINDOW {
                self.acknowledged(qos).await;
            }
        }
        for _ in 0..payloads.len().min(WINDOW) {
            self.acknowledged(qos).await;
        }
    }

    async fn send(&mut self, topic: &str, qos: u8, retain: bool, payload: impl AsRef<[u8]>) {
        self.wire.publish(topic, qos, retain, payload.as_ref());
        self.acknowledged(qos).await;
    }

    async fn acknowledged(&mut self, qos: u8) {
        let result = self.until(
            format!("the acknowledgement of a QoS {qos} message"),
            |seen| match seen {
                Seen::Acked(result) if qos > 0 => Some(result.clone()),
                Seen::SentPublish if qos == 0 => Some("Success".to_owned()),
                _ => None,
            },
        );
        let result = result.await;
        assert!(
            matches!(result.as_str(), "Success" | "NoMatchingSubscribers"),
            "{} was refused: {result}",
            self.id
        );
    }

    /// Subscribes and waits for the SUBACK; the QoS must be granted.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.wire.subscribe(filter, qos);
        self.granted(filter, qos).await;
    }

    /// Subscribes with Retain Handling 0, 1 or 2 (MQTT 5).
    pub async fn subscribe_handling(&mut self, filter: &str, qos: u8, handling: u8) {
        let rule = match handling {
            0 => RetainForwardRule::OnEverySubscribe,
            1 => RetainForwardRule::OnNewSubscribe,
            _ => RetainForwardRule::Never,
        };
        self.subscribe_with(filter, qos, None, |options| options.retain_forward_rule = rule)
            .await;
    }

    /// Subscribes with options and an identifier (MQTT 5).
    pub async fn subscribe_with(
        &mut self,
        filter: &str,
        qos: u8,
        identifier: Option<usize>,
        options: impl FnOnce(&mut Filter),
    ) {
        self.wire.subscribe_with(filter, qos, identifier, options);
        self.granted(filter, qos).await;
    }

    async fn granted(&mut self, filter: &str, qos: u8) {
        let granted = self.until(format!("the SUBACK for {filter}"), |seen| match seen {
            Seen::SubAck(granted) => Some(granted.clone()),
            _ => None,
        });
        assert_eq!(granted.await, [Some(qos)], "{} subscribes to {filter}", self.id);
    }

    /// Unsubscribes and waits for the UNSUBACK.
    pub async fn unsubscribe(&mut self, filter: &str) {
        self.wire.unsubscribe(filter);
        self.until(format!("the UNSUBACK for {filter}"), |seen| {
            matches!(seen, Seen::UnsubAck).then_some(())
        })
        .await;
    }

    /// Waits until the host has read everything that this client sent so far.
    pub async fn round_trip(&mut self) {
        self.unsubscribe("nobody/subscribed/to/this").await;
    }

    /// The next message, not acknowledged.
    pub async fn receive(&mut self) -> Received {
        if let Some(received) = self.inbox.pop_front() {
            return received;
        }
        let what = format!("a message for {}", self.id);
        self.until(what, |seen| matches!(seen, Seen::Publish(_)).then_some(()))
            .await;
        self.inbox.pop_front().expect("it has just come")
    }

    /// The next message must carry this payload; acknowledges it.
    pub async fn expect(&mut self, payload: impl AsRef<[u8]>) -> Received {
        let received = self.receive().await;
        let wanted = String::from_utf8_lossy(payload.as_ref()).into_owned();
        assert_eq!(
            received.text(),
            wanted,
            "what {} receives on {}",
            self.id,
            received.topic
        );
        self.ack(&received).await;
        received
    }

    /// The next messages must be these, in this order; acknowledges each.
    pub async fn expect_all<T: AsRef<[u8]>>(&mut self, payloads: impl IntoIterator<Item = T>) {
        for payload in payloads {
            self.expect(payload).await;
        }
    }

    /// Nothing is on its way on `topic`: a message published to it now is the next that comes. Says what it was,
    /// for others who get it too.
    pub async fn expect_nothing(&mut self, topic: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let sentinel = format!("sentinel {}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.publish(topic, 1, &sentinel).await;
        self.expect(&sentinel).await;
        sentinel
    }

    /// Acknowledges a message and waits until that is written (QoS 2: until the PUBCOMP is).
    pub async fn ack(&mut self, received: &Received) {
        if received.qos > 0 {
            let id = self.wire.ack(&received.packet);
            let what = format!("room to acknowledge {id}");
            self.until(what, |seen| {
                matches!(seen, Seen::SentAck(sent) if *sent == id).then_some(())
            })
            .await;
        }
    }

    /// Leaves with a DISCONNECT.
    pub async fn disconnect(mut self) {
        self.wire.disconnect();
        self.until("room for a DISCONNECT", |seen| {
            matches!(seen, Seen::SentDisconnect).then_some(())
        })
        .await;
    }

    /// Leaves without a DISCONNECT, as a client that crashes.
    pub fn vanish(self) {}

    /// Waits until the host closes the connection; the reason code of its DISCONNECT, where it sent one.
    pub async fn closed(mut self) -> Option<u8> {
        let end = async {
            loop {
                if let Err(gone) = self.wire.next().await {
                    return gone.1;
                }
            }
        };
        within("the end of a connection", end).await
    }

    async fn until<T>(&mut self, what: impl AsRef<str>, found: impl Fn(&Seen) -> Option<T>) -> T {
        let id = self.id.clone();
        let what = format!("{id}: {}", what.as_ref());
        within(&what, async {
            loop {
                let seen = self.wire.next().await;
                let seen = seen.unwrap_or_else(|gone| panic!("waiting for {what}: connection lost: {}", gone.0));
                let answer = found(&seen);
                if let Seen::Publish(received) = seen {
                    self.inbox.push_back(*received);
                }
                if let Some(answer) = answer {
                    return answer;
                }
            }
        })
        .await
    }
}

impl Login {
    /// Delays its will by this many seconds (MQTT 5).
    pub fn will_delay(mut self, seconds: u32) -> Self {
        self.will.as_mut().expect("there is a will to delay").delay_s = Some(seconds);
        self
    }
}
