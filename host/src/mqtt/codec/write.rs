//! How a message is written to one subscriber (3.3): from its fields, or, where many subscribers get the
//! same form of it, from the run's shared encoding with the first byte and the packet identifier patched.

use bytes::{BufMut, BytesMut};

use super::TooLarge;
use super::outbox::{Outbox, SHARED_FROM_BYTES};
use super::wire::{VARINT_MAX, put_varint, varint_length};
use crate::model::message::Message;
use crate::model::properties::id;
use crate::mqtt::packet::{Copy, Version};

/// Writes `copy`, unless it would take more than `bytes_max` bytes.
pub(super) fn publish(version: Version, copy: &Copy, bytes_max: usize, out: &mut Outbox) -> Result<(), TooLarge> {
    let layout = Layout::new(version, copy);
    layout.check(bytes_max)?;
    let (message, small) = (layout.message, layout.small_bytes());
    match layout.shared() {
        Some(encoded) => {
            let buffer = out.small(small);
            let start = buffer.len();
            buffer.extend_from_slice(encoded);
            buffer[start] = layout.first_byte();
            if layout.id_length > 0 {
                let at = start + layout.id_at();
                buffer[at..at + 2].copy_from_slice(&copy.packet_id.to_be_bytes());
            }
        }
        None => layout.write(out.small(small)),
    }
    if !layout.inline() {
        out.share(message.payload.clone());
    }
    Ok(())
}

/// How many bytes `copy` takes as a packet, whatever its packet identifier is.
pub fn publish_bytes(version: Version, copy: &Copy) -> usize {
    Layout::new(version, copy).bytes()
}

/// What goes where, in bytes.
struct Layout<'a> {
    version: Version,
    copy: &'a Copy,
    message: &'a Message,
    /// Empty where an alias stands for it.
    topic: &'a str,
    /// 2 for QoS 1 and 2.
    id_length: usize,
    /// The properties that are this subscriber's own.
    own_length: usize,
    section_length: usize,
    remaining: usize,
}

impl<'a> Layout<'a> {
    fn new(version: Version, copy: &'a Copy) -> Self {
        let message = copy.message();
        let mut topic = message.topic.as_str();
        let id_length = if copy.qos as u8 == 0 { 0 } else { 2 };
        let (mut own_length, mut section_length, mut properties) = (0, 0, 0);
        if version == Version::V5 {
            if let Some((_, false)) = copy.alias {
                topic = "";
            }
            let identifiers = copy.identifiers.iter();
            own_length = copy.alias.map_or(0, |_| 3)
                + copy.expiry_s.map_or(0, |_| 5)
                + identifiers.map(|id| 1 + varint_length(*id as usize)).sum::<usize>();
            section_length = own_length + message.properties.as_bytes().len();
            properties = varint_length(section_length) + section_length;
        }
        let remaining = 2 + topic.len() + id_length + properties + message.payload.len();
        Self {
            version,
            copy,
            message,
            topic,
            id_length,
            own_length,
            section_length,
            remaining,
        }
    }

    fn check(&self, bytes_max: usize) -> Result<(), TooLarge> {
        let bytes = self.bytes();
        let writable = self.remaining <= VARINT_MAX && self.topic.len() <= usize::from(u16::MAX);
        if bytes <= bytes_max && writable {
            return Ok(());
        }
        Err(TooLarge { bytes, bytes_max })
    }

    fn bytes(&self) -> usize {
        1 + varint_length(self.remaining) + self.remaining
    }

    fn inline(&self) -> bool {
        self.message.payload.len() < SHARED_FROM_BYTES
    }

    fn small_bytes(&self) -> usize {
        let referenced = if self.inline() { 0 } else { self.message.payload.len() };
        self.bytes() - referenced
    }

    fn id_at(&self) -> usize {
        1 + varint_length(self.remaining) + 2 + self.topic.len()
    }

    fn first_byte(&self) -> u8 {
        let Copy { dup, qos, retain, .. } = *self.copy;
        0x30 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain)
    }

    /// The encoding that all subscribers share whose copies differ in nothing but flags and packet identifier.
    fn shared(&self) -> Option<&'a [u8]> {
        if self.own_length > 0 {
            return None;
        }
        let form = usize::from(self.version == Version::V5) << 1 | usize::from(self.id_length > 0);
        self.copy.run.shared_form(self.copy.index, form, || {
            let mut encoded = BytesMut::with_capacity(self.small_bytes());
            self.write(&mut encoded);
            encoded.as_ref().into()
        })
    }

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(self.first_byte());
        put_varint(out, self.remaining);
        out.put_u16(self.topic.len() as u16);
        out.extend_from_slice(self.topic.as_bytes());
        if self.id_length > 0 {
            out.put_u16(self.copy.packet_id);
        }
        if self.version == Version::V5 {
            put_varint(out, self.section_length);
            self.write_own_properties(out);
            out.extend_from_slice(self.message.properties.as_bytes());
        }
        if self.inline() {
            out.extend_from_slice(&self.message.payload);
        }
    }

    fn write_own_properties(&self, out: &mut BytesMut) {
        if let Some((alias, _)) = self.copy.alias {
            out.put_u8(id::TOPIC_ALIAS);
            out.put_u16(alias);
        }
        if let Some(expiry_s) = self.copy.expiry_s {
            out.put_u8(id::MESSAGE_EXPIRY_INTERVAL);
            out.put_u32(expiry_s);
        }
        for identifier in self.copy.identifiers.iter() {
            out.put_u8(id::SUBSCRIPTION_IDENTIFIER);
            put_varint(out, *identifier as usize);
        }
    }
}
