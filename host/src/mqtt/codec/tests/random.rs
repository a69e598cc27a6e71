//! Random and mutated bytes: nothing panics, nothing is held beyond the limit, chunks may end anywhere.
//! Every property sees 100,000 cases; `PROPTEST_CASES=5000000` and the targets of `host/fuzz` go further.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::mqtt::codec::{connect, missing};
use Version::{V5, V31, V311};

const BYTES_MAX: usize = 300;
const CASES: u32 = 100_000;

/// A CONNECT of every version, with and without all that may be in it.
const CONNECTS: [(u8, &[u8]); 4] = [
    (
        0x10,
        b"\x00\x04MQTT\x05\xC6\x00\x3C\x05\x11\0\0\0\x05\x00\x01c\x02\x01\x01\x00\x01t\x00\x01w\x00\x01u\x00\x01p",
    ),
    (
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x1E\x21\x00\x05\x22\x00\x05\x27\x00\x00\x10\x00\x17\x01\x19\x00\x26\x00\x01k\x00\x01v\x15\x00\x01m\x00\x00",
    ),
    (0x10, b"\x00\x04MQTT\x04\x06\x00\x3C\x00\x01c\x00\x01t\x00\x01w"),
    (0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c"),
];

/// What a client sends behind its CONNECT: every kind, with and without properties.
const BEHIND: [(u8, &[u8]); 14] = [
    (0x30, b"\x00\x03a/bpayload"),
    (0x3D, b"\x00\x03a/b\x00\x07payload"),
    (
        0x33,
        b"\x00\x03a/b\x00\x05\x10\x23\x00\x01\x26\x00\x01k\x00\x01v\x02\x00\x00\x00\x00\x01\x00payload",
    ),
    (
        0x32,
        b"\x00\x00\x00\x06\x0C\x23\x00\x01\x08\x00\x01r\x09\x00\x02cdpayload",
    ),
    (0x40, b"\x00\x01\x10\x04\x1F\x00\x01a"),
    (0x50, b"\x00\x01\x97"),
    (0x62, b"\x00\x01"),
    (0x82, b"\x00\x01\x02\x0B\x05\x00\x03a/#\x01\x00\x0A$share/g/a\x02"),
    (0x82, b"\x00\x01\x00\x03a/#\x01"),
    (0xA2, b"\x00\x01\x00\x00\x03a/#"),
    (0xA2, b"\x00\x01\x00\x03a/+"),
    (0xC0, b""),
    (0xE0, b"\x04\x05\x11\x00\x00\x00\x00"),
    (0xF0, b"\x18\x04\x15\x00\x01m"),
];

fn packets(seeds: &[(u8, &[u8])]) -> Vec<Vec<u8>> {
    seeds.iter().map(|(first, body)| packet(*first, body)).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    [packets(&CONNECTS), packets(&BEHIND)].concat()
}

fn good() -> impl Strategy<Value = Vec<u8>> {
    select(seeds())
}

/// What is done to a packet.
#[derive(Clone, Copy, Debug)]
enum Change {
    Put(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    /// The packet ends here, whatever its length says.
    Cut(Index),
    /// Another length in the header, and perhaps one that no packet has.
    Length(u32),
    /// Two stretches change places, as properties and fields could.
    Swap(Index, Index, u8),
    /// A stretch comes twice.
    Twice(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let lengths = select(vec![0, 1, 2, 127, 128, 295, 296, 16_384, 268_435_455, u32::MAX]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<Index>().prop_map(Change::Remove),
        any::<Index>().prop_map(Change::Cut),
        lengths.prop_map(Change::Length),
        (any::<Index>(), any::<Index>(), 1..8_u8).prop_map(|(at, to, len)| Change::Swap(at, to, len)),
        (any::<Index>(), 1..8_u8).prop_map(|(at, len)| Change::Twice(at, len)),
    ]
}

impl Change {
    fn make(self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Self::Put(at, byte) => bytes[at.index(len)] = byte,
            Self::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Self::Insert(at, byte) => bytes.insert(at.index(len), byte),
            Self::Remove(at) => drop(bytes.remove(at.index(len))),
            Self::Cut(at) => bytes.truncate(at.index(len)),
            Self::Length(length) => {
                let old = 1 + bytes[1..].iter().take(4).take_while(|byte| **byte & 0x80 != 0).count();
                let mut new = BytesMut::new();
                match length {
                    u32::MAX => new.extend_from_slice(&[0xFF; 5]),
                    _ => put_varint(&mut new, length as usize),
                }
                bytes.splice(1..(1 + old).min(len), new);
            }
            Self::Swap(at, to, stretch) => {
                let (at, to) = (at.index(len), to.index(len));
                let (low, high) = (at.min(to), at.max(to));
                let stretch = usize::from(stretch).min(high - low).min(len - high);
                (0..stretch).for_each(|offset| bytes.swap(low + offset, high + offset));
            }
            Self::Twice(at, stretch) => {
                let at = at.index(len);
                let copied = bytes[at..len.min(at + usize::from(stretch))].to_vec();
                bytes.splice(at..at, copied);
            }
        }
    }
}

/// A good packet and what was done to it.
fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (select(seeds), vec(change(), 0..5)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|change| change.make(&mut bytes));
        bytes
    })
}

/// Bytes without any order.
fn noise(words_max: usize) -> impl Strategy<Value = Vec<u8>> {
    (vec(any::<u64>(), 0..words_max), 0..8_usize).prop_map(|(words, cut)| {
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(bytes.len().saturating_sub(cut));
        bytes
    })
}

fn ends() -> impl Strategy<Value = Vec<usize>> {
    vec(0..BYTES_MAX, 0..4)
}

fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.max(CASES),
        failure_persistence: None,
        ..usual
    }
}

/// Everything that can be cut off `bytes`, fed in parts that end at `ends`; then the error, if there is one.
/// Checks on the way that what is held back is within the limit, and so is what is asked for.
fn frames(bytes: &[u8], ends: &[usize]) -> (Vec<Frame>, Option<Malformed>) {
    let (mut frames, mut held, mut start) = (Vec::new(), BytesMut::new(), 0);
    for end in ends.iter().copied().chain([bytes.len()]) {
        let end = end.clamp(start, bytes.len());
        held.extend_from_slice(&bytes[start..end]);
        start = end;
        let mut chunk = held.split().freeze();
        loop {
            match cut(&mut chunk, BYTES_MAX) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(malformed) => return (frames, Some(malformed)),
            }
        }
        let missing = missing(&chunk);
        assert!(
            missing > 0 && chunk.len() + missing <= BYTES_MAX,
            "{} held, {missing} missing",
            chunk.len()
        );
        held.extend_from_slice(&chunk);
    }
    (frames, None)
}

/// Reads a frame as a first packet and as one behind it, in every version.
fn read(frame: &Frame) {
    if let Ok(connect) = connect(frame) {
        let known = connect.client_id.len() + connect.username.map_or(0, |name| name.len());
        assert!(known <= frame.body.len(), "what a CONNECT says stands in it");
    }
    for version in [V31, V311, V5] {
        if let Ok(Packet::Publish(publish)) = Decoder::new(version).decode(frame.clone()) {
            // What passed once passes again: what the iterator finds is all that there is.
            let found: usize = publish.properties.iter().map(|property| 1 + property.value.len()).sum();
            assert_eq!(found, publish.properties.as_bytes().len());
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn random_bytes_neither_panic_nor_pile_up(bytes in noise(50), ends in ends()) {
        frames(&bytes, &ends).0.iter().for_each(read);
    }

    #[test]
    fn random_bodies_do_not_panic(first in any::<u8>(), body in noise(10), small in any::<bool>()) {
        // Small numbers are lengths that fit and identifiers that exist.
        let body: Vec<u8> = body.iter().map(|byte| if small { byte & 0x07 } else { *byte }).collect();
        frames(&packet(first, &body), &[]).0.iter().for_each(read);
    }

    #[test]
    fn mutated_connects_neither_panic_nor_pile_up(bytes in mutated(packets(&CONNECTS)), ends in ends()) {
        frames(&bytes, &ends).0.iter().for_each(read);
    }

    #[test]
    fn mutated_packets_neither_panic_nor_pile_up(packets in vec(mutated(seeds()), 1..4), ends in ends()) {
        frames(&packets.concat(), &ends).0.iter().for_each(read);
    }

    #[test]
    fn frames_do_not_depend_on_where_chunks_end(packets in vec(prop_oneof![good(), mutated(seeds())], 1..4)) {
        let bytes = packets.concat();
        let one_by_one: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(frames(&bytes, &[]), frames(&bytes, &one_by_one));
    }
}

#[test]
fn the_missing_bytes_complete_a_frame() {
    for bytes in seeds() {
        let mut chunk = BytesMut::new();
        while chunk.len() < bytes.len() {
            let missing = missing(&chunk);
            chunk.extend_from_slice(&bytes[chunk.len()..][..missing]);
        }
        assert_eq!(frames(&chunk, &[]).0.len(), 1, "{bytes:?}");
    }
}
