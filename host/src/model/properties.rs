//! The properties that travel with a message (MQTT 5, 2.2.2), kept as the bytes they came in, so that
//! nothing is lost or reordered.

use bytes::Bytes;

/// The raw property section of a PUBLISH or a will, without its length, topic alias, subscription
/// identifiers, expiry and will delay. What is in here was checked when it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Properties(Bytes);

/// One property: its identifier and the bytes of its value, lengths included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property<'a> {
    /// The property identifier (2.2.2.2).
    pub id: u8,
    /// The value as it stands on the wire.
    pub value: &'a [u8],
}

/// The identifiers of the properties that a message carries on (MQTT 5, 3.3.2.3).
#[allow(missing_docs, reason = "the names are the standard's")]
pub mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const USER_PROPERTY: u8 = 0x26;
}

impl Properties {
    /// Wraps a section that was checked, or that came from a store.
    pub const fn from_checked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The section as it stands on the wire, without its length.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy that shares no buffer.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The properties in their order. Ends early where a stored section is damaged.
    pub fn iter(&self) -> impl Iterator<Item = Property<'_>> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (id, after) = rest.split_first()?;
            let length = value_length(*id, after)?;
            let (value, next) = after.split_at_checked(length)?;
            rest = next;
            Some(Property { id: *id, value })
        })
    }
}

/// How many bytes the value of property `id` takes at the start of `bytes`; `None` for a property that no
/// message carries, or where the length itself is cut off.
pub fn value_length(id: u8, bytes: &[u8]) -> Option<usize> {
    let text = |at: usize| Some(2 + usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    match id {
        id::PAYLOAD_FORMAT_INDICATOR => Some(1),
        id::MESSAGE_EXPIRY_INTERVAL | id::WILL_DELAY_INTERVAL => Some(4),
        id::TOPIC_ALIAS => Some(2),
        id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::CORRELATION_DATA => text(0),
        id::USER_PROPERTY => {
            let key = text(0)?;
            Some(key + text(key)?)
        }
        id::SUBSCRIPTION_IDENTIFIER => Some(bytes.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iterator_keeps_order_and_repetition() {
        let raw = b"\x26\x00\x01a\x00\x01b\x01\x00\x26\x00\x01a\x00\x01c\x03\x00\x02tx";
        let properties = Properties::from_checked(Bytes::from_static(raw));
        let ids: Vec<u8> = properties.iter().map(|property| property.id).collect();
        assert_eq!(
            ids,
            [
                id::USER_PROPERTY,
                id::PAYLOAD_FORMAT_INDICATOR,
                id::USER_PROPERTY,
                id::CONTENT_TYPE
            ]
        );
        assert_eq!(
            properties.iter().last().map(|property| property.value),
            Some(&b"\x00\x02tx"[..])
        );
    }

    #[test]
    fn a_damaged_section_ends_the_iterator() {
        let properties = Properties::from_checked(Bytes::from_static(b"\x01\x01\x03\x00\x09short"));
        assert_eq!(properties.iter().count(), 1);
    }
}
