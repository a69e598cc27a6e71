//! An MQTT client for one errand, over rumqttc, which speaks each version through types of its own: here they are one.
//! It connects once: rumqttc would reconnect and start over, but a command should say that it failed.

pub(super) mod arguments;
mod v3;
mod v5;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use tokio::time::timeout;

use self::arguments::{Connection, Version};
use super::{Failure, say};
use crate::model::message::Qos;

/// Unacknowledged messages are never more than there are packet ids, so a queue of this size is never full.
const REQUESTS_MAX: usize = u16::MAX as usize + 8;
/// What MQTT can carry (2.1.4); rumqttc's own limit would be 10 KiB.
pub(super) const PACKET_BYTES_MAX: u32 = 268_435_455;
/// Messages on their way to the broker at once, unless it wants fewer. As many as mosquitto's client sends: its broker
/// closes an MQTT 3 client that has more of QoS 2.
pub(super) const WINDOW: u16 = 20;

/// How long the broker may take for what remains when we leave.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// The broker let us in.
    Connected,
    /// A message of QoS 0 has left.
    Sent,
    /// The broker took a message of QoS 1 or 2, or says why not.
    Settled(Result<(), String>),
    /// The broker's answer to each filter.
    Subscribed(Vec<Result<(), String>>),
    /// A message for us, in MQTT 5's form, which holds MQTT 3's.
    Message(Publish),
    /// Our part of a received message of QoS 1 or 2 is done.
    Acknowledged,
    /// Something that only `-d` shows.
    Detail(String),
}

/// Why a connection ended.
#[derive(Debug)]
enum Ended {
    /// The broker's CONNACK said no.
    Refused(String),
    /// Everything else.
    Broken(String),
}

/// Asks for things to be sent. What it asks for leaves while [`Events::next`] runs.
pub(super) struct Sender(Outbox);

enum Outbox {
    V3(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// What to publish, apart from its payload.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) topic: String,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) properties: Option<PublishProperties>,
}

/// What happens, in order.
pub(super) struct Events {
    wire: Wire,
    address: String,
    debug: bool,
    connected: bool,
    /// Why it ended, and what had come in before.
    ended: Option<(Failure, VecDeque<Event>)>,
}

enum Wire {
    V3(Box<rumqttc::EventLoop>),
    V5(Box<rumqttc::v5::EventLoop>),
}

/// A client with these flags; it connects when [`Events::next`] is asked first.
pub(super) fn open(connection: &Connection) -> Result<(Sender, Events), Failure> {
    connection.check()?;
    let (outbox, wire) = match connection.protocol_version {
        Version::V3 => {
            let (client, events) = rumqttc::AsyncClient::new(v3::options(connection), REQUESTS_MAX);
            (Outbox::V3(client), Wire::V3(Box::new(events)))
        }
        Version::V5 => {
            let (client, events) = rumqttc::v5::AsyncClient::new(v5::options(connection), REQUESTS_MAX);
            (Outbox::V5(client), Wire::V5(Box::new(events)))
        }
    };
    let (address, debug) = (connection.address(), connection.debug);
    Ok((
        Sender(outbox),
        Events {
            wire,
            address,
            debug,
            connected: false,
            ended: None,
        },
    ))
}

impl Sender {
    /// Publishes; properties only reach an MQTT 5 broker.
    pub(super) fn publish(&self, letter: &Letter, payload: Bytes) -> Result<(), Failure> {
        match &self.0 {
            Outbox::V3(client) => v3::publish(client, letter, payload),
            Outbox::V5(client) => v5::publish(client, letter, payload),
        }
    }

    /// Subscribes to every filter with one packet.
    pub(super) fn subscribe(&self, filters: &[String], qos: Qos) -> Result<(), Failure> {
        match &self.0 {
            Outbox::V3(client) => v3::subscribe(client, filters, qos),
            Outbox::V5(client) => v5::subscribe(client, filters, qos),
        }
    }

    /// Tells the broker that a message has arrived.
    pub(super) fn ack(&self, message: &Publish) -> Result<(), Failure> {
        match &self.0 {
            Outbox::V3(client) => v3::ack(client, message),
            Outbox::V5(client) => client.try_ack(message).map_err(not_sent),
        }
    }

    /// Says good-bye; the broker keeps the will to itself.
    pub(super) fn disconnect(&self) -> Result<(), Failure> {
        match &self.0 {
            Outbox::V3(client) => client.try_disconnect().map_err(not_sent),
            Outbox::V5(client) => client.try_disconnect().map_err(not_sent),
        }
    }
}

impl Events {
    /// What happens next. To be awaited to its end: dropped halfway, it may lose a packet.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        if let Some((failure, before)) = &mut self.ended {
            return before.pop_front().ok_or_else(|| failure.clone());
        }
        let polled = match &mut self.wire {
            Wire::V3(events) => events.poll().await.map(v3::event).map_err(v3::ended),
            Wire::V5(events) => events.poll().await.map(v5::event).map_err(v5::ended),
        };
        let event = match polled {
            Ok(event) => event,
            // What came in together with the end would be lost; of what was to go out, nobody knows whether it did.
            Err(why) => {
                let before = self.received().into();
                let (failure, before) = self.ended.insert((self.failure(why), before));
                return before.pop_front().ok_or_else(|| failure.clone());
            }
        };
        self.connected |= event == Event::Connected;
        if self.debug {
            say(format_args!("{event}"));
        }
        Ok(event)
    }

    fn received(&mut self) -> Vec<Event> {
        match &mut self.wire {
            Wire::V3(events) => {
                let all = events.state.events.drain(..);
                all.filter(|event| matches!(event, rumqttc::Event::Incoming(_)))
                    .map(v3::event)
                    .collect()
            }
            Wire::V5(events) => {
                let all = events.state.events.drain(..);
                all.filter(|event| matches!(event, rumqttc::v5::Event::Incoming(_)))
                    .map(v5::event)
                    .collect()
            }
        }
    }

    fn failure(&self, why: Ended) -> Failure {
        let address = &self.address;
        Failure::new(match why {
            Ended::Refused(reason) => format!("{address} refused the connection: {reason}"),
            Ended::Broken(reason) if self.connected => format!("lost the connection to {address}: {reason}"),
            Ended::Broken(reason) => format!("cannot connect to {address}: {reason}"),
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("received CONNACK: success"),
            Self::Sent => f.write_str("sent PUBLISH, QoS 0"),
            Self::Settled(Ok(())) => f.write_str("the broker has the message"),
            Self::Settled(Err(reason)) => write!(f, "the broker refused the message: {reason}"),
            Self::Subscribed(answers) => write!(f, "received SUBACK: {answers:?}"),
            Self::Message(message) => write!(
                f,
                "received PUBLISH {}: {}, QoS {}, retain {}, {} bytes",
                message.pkid,
                String::from_utf8_lossy(&message.topic),
                message.qos as u8,
                u8::from(message.retain),
                message.payload.len()
            ),
            Self::Acknowledged => f.write_str("the broker knows that we have the message"),
            Self::Detail(text) => f.write_str(text),
        }
    }
}

/// Says good-bye, when everything is done, and waits for the broker to close. Closed by us with something unread in it,
/// the socket would be reset, and a reset overtakes acknowledgements that the broker has not read yet.
pub(super) async fn leave(sender: &Sender, mut events: Events) {
    if sender.disconnect().is_ok() {
        let closed = async { while events.next().await.is_ok() {} };
        // A broker that does not close has had its time.
        let _ = timeout(GOODBYE, closed).await;
    }
}

/// A request was not taken: its topic is one that rumqttc refuses, since its queue is never full.
fn not_sent<E: fmt::Display>(error: E) -> Failure {
    Failure::new(format!("the client did not take the request: {error}"))
}

/// A reason in words, from the name of rumqttc's variant, with what the broker adds.
fn reason(variant: impl fmt::Debug, text: Option<&String>) -> String {
    let name = format!("{variant:?}").replace("QoS", "Qos");
    let mut words = String::with_capacity(name.len() + 8);
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    match text {
        Some(text) => format!("{words} ({text})"),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::v5::mqttbytes::v5::{ConnectReturnCode, PubAckReason};

    #[test]
    fn reasons_are_words() {
        let said = "ask Anna".to_owned();
        assert_eq!(
            reason(PubAckReason::NotAuthorized, Some(&said)),
            "not authorized (ask Anna)"
        );
        assert_eq!(reason(ConnectReturnCode::QoSNotSupported, None), "qos not supported");
    }
}
