//! PUBLISH and its acknowledgements from clients, read without copying: what they hold are slices of the
//! chunk. The decoder crate refuses an expiry of 0 and loses the order of properties.

use std::ops::Range;

use bytes::{Buf, Bytes};
use bytestring::ByteString;

use super::frame::DUP;
use super::properties::{Owner, walk};
use super::wire::Reader;
use super::{Frame, Malformed};
use crate::model::message::Qos;
use crate::model::properties::{Properties, id};
use crate::model::reason::Reason;
use crate::model::topic::{Topic, TopicError};
use crate::mqtt::packet::{Ack, AckKind, Publish, Version};

/// Reads a PUBLISH (3.3).
pub(super) fn publish(version: Version, frame: Frame) -> Result<Publish, Malformed> {
    let Frame { flags, mut body, .. } = frame;
    let qos = Qos::from_bits(flags >> 1 & 0b11).ok_or_else(|| Malformed::unparsable("QoS 3"))?;
    let mut reader = Reader::new(&body);
    let name = reader.binary()?;
    let packet_id = match qos {
        Qos::AtMostOnce => 0,
        _ => reader.packet_id()?,
    };
    let carried = match version {
        Version::V5 => Carried::read(Owner::Publish, &body, reader.section()?)?,
        _ => Carried::default(),
    };
    let topic = match (name, carried.alias) {
        ([], Some(_)) => None,
        _ => Some(topic(&body, name, "topic")?),
    };
    let payload = body.len() - reader.left();
    body.advance(payload);
    Ok(Publish {
        dup: flags & DUP != 0,
        qos,
        retain: flags & 1 != 0,
        topic,
        alias: carried.alias,
        packet_id,
        expiry_s: carried.expiry_s,
        properties: carried.properties,
        payload: body,
    })
}

/// The topic name `name`, which is a slice of `body`.
pub(super) fn topic(body: &Bytes, name: &[u8], what: &str) -> Result<Topic, Malformed> {
    let name = ByteString::try_from(body.slice_ref(name))
        .map_err(|_| Malformed::unparsable(format!("the {what} is not UTF-8")))?;
    Topic::new(name).map_err(|error| {
        let reason = match error {
            TopicError::Null => Reason::MALFORMED_PACKET,
            // Also the rule for a PUBLISH whose topic is neither named nor aliased (3.3.2.1).
            TopicError::Empty => Reason::PROTOCOL_ERROR,
            _ => Reason::TOPIC_NAME_INVALID,
        };
        Malformed::new(reason, format!("the {what}: {error}"))
    })
}

/// The property section of a message: what travels with it, and what is for us.
#[derive(Debug, Default)]
pub(super) struct Carried {
    pub(super) alias: Option<u16>,
    pub(super) expiry_s: Option<u32>,
    pub(super) delay_s: u32,
    pub(super) properties: Properties,
}

impl Carried {
    /// Reads `section`, which is a slice of `body`.
    pub(super) fn read(owner: Owner, body: &Bytes, section: &[u8]) -> Result<Self, Malformed> {
        let mut carried = Self::default();
        let mut kept = Kept::Nothing;
        walk(owner, section, |found| {
            let number = found.value.number();
            match found.id {
                id::SUBSCRIPTION_IDENTIFIER => {
                    return Err(Malformed::protocol(
                        "a client's PUBLISH carries a subscription identifier",
                    ));
                }
                id::TOPIC_ALIAS => carried.alias = u16::try_from(number).ok(),
                id::MESSAGE_EXPIRY_INTERVAL => carried.expiry_s = Some(number),
                id::WILL_DELAY_INTERVAL => carried.delay_s = number,
                _ => kept.add(found.place),
            }
            Ok(())
        })?;
        carried.properties = kept.of(body, section);
        Ok(carried)
    }
}

/// Which part of a section travels on. Clients put what is for us first or last, so that the rest is one
/// slice, which is not copied.
enum Kept {
    Nothing,
    Slice(Range<usize>),
    Pieces,
}

impl Kept {
    fn add(&mut self, place: Range<usize>) {
        match self {
            Self::Nothing => *self = Self::Slice(place),
            Self::Slice(range) if range.end == place.start => range.end = place.end,
            _ => *self = Self::Pieces,
        }
    }

    fn of(self, body: &Bytes, section: &[u8]) -> Properties {
        Properties::from_checked(match self {
            Self::Nothing => Bytes::new(),
            Self::Slice(range) => body.slice_ref(&section[range]),
            Self::Pieces => {
                let mut pieces = Vec::with_capacity(section.len());
                for property in Properties::from_checked(body.slice_ref(section)).iter() {
                    let ours = [id::TOPIC_ALIAS, id::MESSAGE_EXPIRY_INTERVAL, id::WILL_DELAY_INTERVAL];
                    if !ours.contains(&property.id) {
                        pieces.push(property.id);
                        pieces.extend_from_slice(property.value);
                    }
                }
                pieces.into()
            }
        })
    }
}

/// Reads a PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7).
pub(super) fn ack(version: Version, kind: AckKind, body: &[u8]) -> Result<Ack, Malformed> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    let mut reason = Reason::SUCCESS;
    if version == Version::V5 && !reader.is_empty() {
        reason = Reason(reader.byte()?);
        if !allowed(kind, reason) {
            let text = format!("a {kind:?} cannot carry the reason {reason:?}");
            return Err(Malformed::protocol(text));
        }
        if !reader.is_empty() {
            walk(Owner::Ack, reader.section()?, |_| Ok(()))?;
        }
    }
    reader.end()?;
    Ok(Ack {
        kind,
        packet_id,
        reason,
    })
}

/// The reasons of 3.4.2.1, 3.5.2.1, 3.6.2.1 and 3.7.2.1.
fn allowed(kind: AckKind, reason: Reason) -> bool {
    match kind {
        AckKind::PubAck | AckKind::PubRec => {
            matches!(reason.0, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        AckKind::PubRel | AckKind::PubComp => matches!(reason.0, 0 | 0x92),
    }
}
