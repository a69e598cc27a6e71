//! The few MQTT 3.1.1 packets that the generator speaks, by hand: it must cost less than the brokers that it measures.

use anyhow::{Result, bail, ensure};

/// Bytes of every payload: publisher and number, then a filling that is compared too.
pub(crate) const PAYLOAD_BYTES: usize = 64;
const NUMBERS_BYTES: usize = 16;
const FILLING: [u8; PAYLOAD_BYTES - NUMBERS_BYTES] = *b"Hookline stores what it acknowledges. 0123456789";

/// DISCONNECT.
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];
/// PINGREQ.
pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];

/// What a broker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    ConnAck { session_present: bool, code: u8 },
    SubAck { code: u8 },
    PubAck { id: u16 },
    Publish { first_byte: u8, id: u16, payload: &'a [u8] },
    PingResp,
}

/// Cuts the first packet off `bytes` and says how long it was; `None` where it has not arrived completely.
pub(crate) fn cut(bytes: &[u8]) -> Result<Option<(Packet<'_>, usize)>> {
    let (Some(&first), Some((body_bytes, header_bytes))) = (bytes.first(), remaining_length(bytes)?) else {
        return Ok(None);
    };
    let length = header_bytes + body_bytes;
    let Some(body) = bytes.get(header_bytes..length) else {
        return Ok(None);
    };
    let packet = match (first >> 4, body) {
        (2, [flags, code]) => Packet::ConnAck {
            session_present: flags & 1 == 1,
            code: *code,
        },
        (9, [_, _, code]) => Packet::SubAck { code: *code },
        (4, [high, low]) => Packet::PubAck {
            id: u16::from_be_bytes([*high, *low]),
        },
        (3, [high, low, rest @ ..]) => publish(first, usize::from(u16::from_be_bytes([*high, *low])), rest)?,
        (13, []) => Packet::PingResp,
        _ => bail!("a packet that nobody asked for: first byte {first:#04x}, {body_bytes} bytes"),
    };
    Ok(Some((packet, length)))
}

fn publish(first_byte: u8, topic_bytes: usize, rest: &[u8]) -> Result<Packet<'_>> {
    match rest.get(topic_bytes..) {
        Some([high, low, payload @ ..]) => Ok(Packet::Publish {
            first_byte,
            id: u16::from_be_bytes([*high, *low]),
            payload,
        }),
        _ => bail!("a PUBLISH that ends before its packet identifier"),
    }
}

/// The length of the body, and of the header in front of it.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 2)));
        }
    }
    ensure!(bytes.len() < 5, "a remaining length of more than four bytes");
    Ok(None)
}

/// CONNECT without keep-alive.
pub(crate) fn connect(client: &str, clean_session: bool) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    body.extend([u8::from(clean_session) << 1, 0, 0]);
    text(&mut body, client);
    packet(0x10, &body)
}

/// SUBSCRIBE to one topic with QoS 1.
pub(crate) fn subscribe(topic: &str) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, topic);
    body.push(1);
    packet(0x82, &body)
}

/// PUBACK.
pub(crate) fn puback(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [0x40, 2, high, low]
}

/// A PUBLISH with QoS 1 that is encoded once and then only numbered.
pub(crate) struct Template {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Template {
    /// The messages of one publisher.
    pub(crate) fn new(topic: &str, publisher: usize) -> Self {
        let mut body = Vec::new();
        text(&mut body, topic);
        let id_at = body.len();
        body.extend([0, 0]);
        body.extend((publisher as u64).to_le_bytes());
        body.extend([0; 8]);
        body.extend(FILLING);
        let bytes = packet(0x32, &body);
        let id_at = id_at + bytes.len() - body.len();
        Self { bytes, id_at }
    }

    /// Appends message `number`.
    pub(crate) fn write(&self, id: u16, number: u64, out: &mut Vec<u8>) {
        let start = out.len() + self.id_at;
        out.extend_from_slice(&self.bytes);
        out[start..start + 2].copy_from_slice(&id.to_be_bytes());
        out[start + 10..start + 18].copy_from_slice(&number.to_le_bytes());
    }
}

/// The publisher and the number in a payload of ours; `None` where a byte is not as we sent it.
pub(crate) fn numbers(payload: &[u8]) -> Option<(usize, u64)> {
    let (publisher, rest) = payload.split_first_chunk()?;
    let (number, filling) = rest.split_first_chunk()?;
    let publisher = usize::try_from(u64::from_le_bytes(*publisher)).ok()?;
    (filling == FILLING).then_some((publisher, u64::from_le_bytes(*number)))
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length > 127 {
        bytes.push(length as u8 & 0x7F | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(body);
    bytes
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("our own names are short");
    out.extend(length.to_be_bytes());
    out.extend(text.as_bytes());
}
