//! The data types of 1.5, read with their checks: integers, variable byte integers, strings, binary data.

use bytes::{BufMut, BytesMut};

use super::Malformed;

/// The largest variable byte integer.
pub(super) const VARINT_MAX: usize = 268_435_455;

/// Reads a variable byte integer (1.5.5) at the start of `bytes`: value and length; `None` where it is cut
/// off. It must be as short as possible [MQTT-1.5.5-1].
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            if at > 0 && *byte == 0 {
                return Err(Malformed::unparsable("a length that is longer than it must be"));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    match bytes.len() {
        0..4 => Ok(None),
        _ => Err(Malformed::unparsable("a length of more than four bytes")),
    }
}

/// How many bytes `value` takes as a variable byte integer.
pub(super) const fn varint_length(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Writes `value`, at most [`VARINT_MAX`], as a variable byte integer.
pub(super) fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Reads a packet from front to back. What it returns are slices of the packet.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| Malformed::unparsable("the packet ends within a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn two(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn four(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        let (value, length) =
            varint(self.rest)?.ok_or_else(|| Malformed::unparsable("the packet ends within a field"))?;
        self.take(length)?;
        Ok(value)
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.two()?;
        self.take(length.into())
    }

    /// A UTF-8 string without U+0000 [MQTT-1.5.4-1], [MQTT-1.5.4-2].
    pub(super) fn text(&mut self, what: &str) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| Malformed::unparsable(format!("the {what} is not UTF-8")))?;
        if text.as_bytes().contains(&0) {
            return Err(Malformed::unparsable(format!("the {what} contains U+0000")));
        }
        Ok(text)
    }

    /// A packet identifier, which is never 0 [MQTT-2.2.1-3].
    pub(super) fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.two()? {
            0 => Err(Malformed::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// A property section, without its length.
    pub(super) fn section(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.varint()?;
        self.take(length as usize)
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(Malformed::unparsable(format!(
                "{more} bytes behind the end of the packet"
            ))),
        }
    }
}
