//! Frames to packets, after CONNECT. PUBLISH and acknowledgements are read here; the rest is checked here
//! and read by the decoder crate.

use bytestring::ByteString;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::frame::DUP;
use super::{Frame, Kind, Malformed, publish, strict};
use crate::model::message::{Qos, Subscription};
use crate::model::reason::Reason;
use crate::model::topic::{Filter, TopicError};
use crate::mqtt::packet::{AckKind, Disconnect, Packet, Subscribe, Unsubscribe, Unwanted, Version};

/// Reads what a connected client sends.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    version: Version,
}

impl Decoder {
    /// For a client that connected with `version`.
    pub const fn new(version: Version) -> Self {
        Self { version }
    }

    /// Checks and reads one packet. A PUBLISH is slices of the frame: nothing of it is copied unless
    /// properties of ours stand between its own.
    pub fn decode(&self, frame: Frame) -> Result<Packet, Malformed> {
        let version = self.version;
        if frame.kind != Kind::Publish && frame.flags & DUP != 0 && version > Version::V31 {
            return Err(Malformed::unparsable(
                "the reserved flags of the fixed header are not as fixed",
            ));
        }
        let ack = |kind| publish::ack(version, kind, &frame.body).map(Packet::Ack);
        match frame.kind {
            Kind::Publish => publish::publish(version, frame).map(Packet::Publish),
            Kind::PubAck => ack(AckKind::PubAck),
            Kind::PubRec => ack(AckKind::PubRec),
            Kind::PubRel => ack(AckKind::PubRel),
            Kind::PubComp => ack(AckKind::PubComp),
            Kind::PingReq if frame.body.is_empty() => Ok(Packet::Ping),
            Kind::PingReq => Err(Malformed::unparsable("a PINGREQ with a body")),
            Kind::Connect => Err(Malformed::protocol("a second CONNECT")),
            Kind::Subscribe => strict::subscribe(version, &frame.body).and_then(|()| self.parse(&frame)),
            Kind::Unsubscribe => strict::unsubscribe(version, &frame.body).and_then(|()| self.parse(&frame)),
            Kind::Disconnect => strict::disconnect(version, &frame.body).and_then(|()| self.parse(&frame)),
            Kind::Auth => strict::auth(version, &frame.body).and_then(|()| self.parse(&frame)),
        }
    }

    fn parse(&self, frame: &Frame) -> Result<Packet, Malformed> {
        let mut wire = frame.to_wire();
        match self.version {
            Version::V5 => match v5::Codec::default().decode(&mut wire) {
                Ok(Some((packet, _))) => from_v5(packet),
                outcome => Err(refused(outcome.err())),
            },
            _ => match v3::Codec::default().decode(&mut wire) {
                Ok(Some((packet, _))) => from_v3(packet),
                outcome => Err(refused(outcome.err())),
            },
        }
    }
}

/// The crate refuses what passed our checks.
fn refused(error: Option<rmqtt_codec::error::DecodeError>) -> Malformed {
    match error {
        Some(error) => Malformed::unparsable(error.to_string()),
        None => Malformed::unparsable("the packet ends within a field"),
    }
}

fn from_v5(packet: v5::Packet) -> Result<Packet, Malformed> {
    Ok(match packet {
        v5::Packet::Subscribe(packet) => {
            let identifier = packet.id.map(u32::from);
            let filters = packet.topic_filters.iter().map(|(filter, options)| {
                subscription(filter, |plain| Subscription {
                    qos: qos(options.qos),
                    no_local: options.no_local,
                    retain_as_published: options.retain_as_published,
                    retain_handling: options.retain_handling.into(),
                    identifier,
                    ..plain
                })
            });
            let filters: Vec<_> = filters.collect();
            // [MQTT-3.8.3-4].
            let not_shared = |subscription: &Subscription| subscription.share.is_none() || !subscription.no_local;
            if !filters.iter().flatten().all(not_shared) {
                return Err(Malformed::protocol("no local on a shared subscription"));
            }
            Packet::Subscribe(Box::new(Subscribe {
                packet_id: packet.packet_id.into(),
                identifier,
                filters,
            }))
        }
        v5::Packet::Unsubscribe(packet) => unsubscribe(packet.packet_id.into(), &packet.topic_filters),
        v5::Packet::Disconnect(packet) => Packet::Disconnect(Disconnect {
            reason: Reason(packet.reason_code.into()),
            session_expiry_s: packet.session_expiry_interval_secs,
        }),
        v5::Packet::Auth(packet) => Packet::Auth(Reason(packet.reason_code.into())),
        other => return Err(unexpected(other.packet_type())),
    })
}

fn from_v3(packet: v3::Packet) -> Result<Packet, Malformed> {
    Ok(match packet {
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => {
            let filters = topic_filters.iter().map(|(filter, wanted)| {
                subscription(filter, |plain| Subscription {
                    qos: qos(*wanted),
                    ..plain
                })
            });
            Packet::Subscribe(Box::new(Subscribe {
                packet_id: packet_id.into(),
                identifier: None,
                filters: filters.collect(),
            }))
        }
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => unsubscribe(packet_id.into(), &topic_filters),
        v3::Packet::Disconnect => Packet::Disconnect(Disconnect {
            reason: Reason::SUCCESS,
            session_expiry_s: None,
        }),
        other => return Err(unexpected(other.packet_type())),
    })
}

fn unexpected(kind: u8) -> Malformed {
    Malformed::protocol(format!("a packet of type {}", kind >> 4))
}

fn subscription(
    text: &ByteString,
    with_options: impl FnOnce(Subscription) -> Subscription,
) -> Result<Subscription, TopicError> {
    let (share, filter) = Filter::parse_subscription(text)?;
    let mut plain = Subscription::new(filter, Qos::AtMostOnce);
    plain.share = share.map(Into::into);
    Ok(with_options(plain))
}

fn unsubscribe(packet_id: u16, filters: &[ByteString]) -> Packet {
    let filters = filters.iter().map(|text| -> Result<Unwanted, TopicError> {
        let (share, filter) = Filter::parse_subscription(text)?;
        Ok((share.map(Into::into), filter))
    });
    Packet::Unsubscribe(Unsubscribe {
        packet_id,
        filters: filters.collect(),
    })
}

fn qos(qos: v3::QoS) -> Qos {
    match qos {
        v3::QoS::AtMostOnce => Qos::AtMostOnce,
        v3::QoS::AtLeastOnce => Qos::AtLeastOnce,
        v3::QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}
