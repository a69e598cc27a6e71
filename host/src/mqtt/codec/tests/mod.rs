//! What the whole codec does: bytes in, packets out, and back. Tables of the standard's rules in `strict`, the same
//! rules in every place where they hold in `exhaustive`, the decoder crate as a client in `round_trips` and
//! `answers`, random and mutated bytes in `random`.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};

use super::wire::put_varint;
use super::{Decoder, Frame, Malformed, Outbox, cut};
use crate::model::delivery::Run;
use crate::model::id::MessageId;
use crate::model::message::{Message, Qos};
use crate::model::properties::Properties;
use crate::model::topic::Topic;
use crate::mqtt::packet::{Copy, Packet, Version};

mod answers;
mod connecting;
mod exhaustive;
mod random;
mod round_trips;
mod sending;
mod strict;

/// A packet from its first byte and what follows the length.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::from(&[first][..]);
    put_varint(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes.into()
}

fn frame(bytes: &[u8]) -> Result<Frame, Malformed> {
    let mut chunk = Bytes::copy_from_slice(bytes);
    let frame = cut(&mut chunk, 1 << 20)?.expect("a whole frame");
    assert!(chunk.is_empty(), "bytes behind the frame");
    Ok(frame)
}

fn decode(version: Version, bytes: &[u8]) -> Result<Packet, Malformed> {
    Decoder::new(version).decode(frame(bytes)?)
}

fn message(topic: &str, payload: impl Into<Bytes>, properties: &'static [u8]) -> Message {
    Message {
        id: MessageId::from_bits(1),
        topic: Topic::new(topic).unwrap(),
        payload: payload.into(),
        qos: Qos::ExactlyOnce,
        retain: false,
        from: "publisher".into(),
        at: SystemTime::UNIX_EPOCH,
        properties: Properties::from_checked(Bytes::from_static(properties)),
        expires: None,
    }
}

fn copy(message: Message) -> Copy {
    Copy {
        run: Arc::new(Run::new(vec![message], Vec::new())),
        index: 0,
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        packet_id: 0,
        identifiers: Arc::new([]),
        expiry_s: None,
        alias: None,
    }
}

fn written(outbox: &Outbox) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let count = outbox.slices(&mut slices);
    slices[..count].iter().flat_map(|part| part.to_vec()).collect()
}
