//! Frames: the fixed header (2.1), checked before the body has arrived, and whole packets cut off a chunk
//! without copying.

use bytes::{Buf, Bytes, BytesMut};

use super::Malformed;
use super::wire::{put_varint, varint};
use crate::model::reason::Reason;

/// The packets that a client may send (2.1.2).
#[allow(missing_docs, reason = "the names are the standard's")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect = 1,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    Unsubscribe = 10,
    PingReq = 12,
    Disconnect = 14,
    Auth = 15,
}

/// DUP, in the first byte of a packet.
pub(super) const DUP: u8 = 0b1000;

/// A whole packet whose fixed header was checked: its kind, the flags of its first byte, and what follows
/// its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// Variable header and payload.
    pub body: Bytes,
}

/// Cuts the next whole frame off `chunk`. `None`: more bytes are needed, see [`missing`]. A frame that is
/// malformed, or larger than `bytes_max` with its header, is refused as soon as its header tells.
pub fn cut(chunk: &mut Bytes, bytes_max: usize) -> Result<Option<Frame>, Malformed> {
    let Some(header) = Header::read(chunk)? else {
        return Ok(None);
    };
    if header.total() > bytes_max {
        let text = format!("a packet of {} bytes, where {bytes_max} are allowed", header.total());
        return Err(Malformed::new(Reason::PACKET_TOO_LARGE, text));
    }
    if chunk.len() < header.total() {
        return Ok(None);
    }
    let mut body = chunk.split_to(header.total());
    body.advance(header.length);
    Ok(Some(Frame {
        kind: header.kind,
        flags: header.flags,
        body,
    }))
}

/// The same for the first frame of a connection, which must be a CONNECT [MQTT-3.1.0-1]: its first byte tells.
pub fn cut_connect(chunk: &mut Bytes, bytes_max: usize) -> Result<Option<Frame>, Malformed> {
    match chunk.first() {
        Some(first) if first >> 4 != Kind::Connect as u8 => Err(Malformed::protocol("the first packet is no CONNECT")),
        _ => cut(chunk, bytes_max),
    }
}

/// How many bytes at least are missing at the end of `chunk`, which holds no whole frame.
pub fn missing(chunk: &[u8]) -> usize {
    match Header::read(chunk) {
        Ok(Some(header)) => header.total().saturating_sub(chunk.len()),
        _ => 2_usize.saturating_sub(chunk.len()).max(1),
    }
}

impl Frame {
    /// The packet as it stands on the wire, for the decoder crate. Its flags are the standard's: DUP, which
    /// MQTT 3.1 allows on more packets, would look like another packet to the crate.
    pub(super) fn to_wire(&self) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(5 + self.body.len());
        bytes.extend_from_slice(&[(self.kind as u8) << 4 | self.kind.flags().unwrap_or(self.flags)]);
        put_varint(&mut bytes, self.body.len());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Kind {
    fn from_bits(bits: u8) -> Result<Self, Malformed> {
        Ok(match bits {
            1 => Self::Connect,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            10 => Self::Unsubscribe,
            12 => Self::PingReq,
            14 => Self::Disconnect,
            15 => Self::Auth,
            2 | 9 | 11 | 13 => return Err(Malformed::protocol("a packet that only a server sends")),
            _ => return Err(Malformed::unparsable("packet type 0 is forbidden")),
        })
    }

    /// The flags that the standard fixes (2.1.3); a PUBLISH has its own.
    const fn flags(self) -> Option<u8> {
        match self {
            Self::Publish => None,
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }

    fn check_flags(self, flags: u8) -> Result<(), Malformed> {
        match self.flags() {
            Some(fixed) if flags == fixed => Ok(()),
            // MQTT 3.1 marks what it sends again; the decoder, which knows the version, refuses it elsewhere.
            Some(0b0010) if flags == DUP | 0b0010 => Ok(()),
            Some(_) => Err(Malformed::unparsable(
                "the reserved flags of the fixed header are not as fixed",
            )),
            None if flags & 0b0110 == 0b0110 => Err(Malformed::unparsable("QoS 3")),
            None if flags & 0b0110 == 0 && flags & DUP != 0 => Err(Malformed::unparsable("DUP with QoS 0")),
            None => Ok(()),
        }
    }
}

struct Header {
    kind: Kind,
    flags: u8,
    length: usize,
    body: usize,
}

impl Header {
    fn read(chunk: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((first, rest)) = chunk.split_first() else {
            return Ok(None);
        };
        let (kind, flags) = (Kind::from_bits(first >> 4)?, first & 0x0F);
        kind.check_flags(flags)?;
        Ok(varint(rest)?.map(|(body, length)| Self {
            kind,
            flags,
            length: 1 + length,
            body: body as usize,
        }))
    }

    const fn total(&self) -> usize {
        self.length + self.body
    }
}
