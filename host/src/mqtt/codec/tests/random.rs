//! Random and mutated bytes: nothing panics, nothing is held beyond the limit, chunks may end anywhere.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::mqtt::codec::{connect, missing};
use Version::{V5, V31, V311};

const BYTES_MAX: usize = 300;

/// Good packets of every kind, to be mutated.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        packet(
            0x10,
            b"\x00\x04MQTT\x05\xC6\x00\x3C\x05\x11\0\0\0\x05\x00\x01c\x02\x01\x01\x00\x01t\x00\x01w\x00\x01u\x00\x01p",
        ),
        packet(0x10, b"\x00\x04MQTT\x04\x06\x00\x3C\x00\x01c\x00\x01t\x00\x01w"),
        packet(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c"),
        packet(0x30, b"\x00\x03a/bpayload"),
        packet(
            0x33,
            b"\x00\x03a/b\x00\x05\x10\x23\x00\x01\x26\x00\x01k\x00\x01v\x02\x00\x00\x00\x00\x01\x00payload",
        ),
        packet(0x40, b"\x00\x01\x10\x04\x1F\x00\x01a"),
        packet(0x62, b"\x00\x01"),
        packet(0x82, b"\x00\x01\x02\x0B\x05\x00\x03a/#\x01\x00\x0A$share/g/a\x02"),
        packet(0x82, b"\x00\x01\x00\x03a/#\x01"),
        packet(0xA2, b"\x00\x01\x00\x00\x03a/#"),
        packet(0xC0, b""),
        packet(0xE0, b"\x04\x05\x11\x00\x00\x00\x00"),
        packet(0xF0, b"\x18\x04\x15\x00\x01m"),
    ]
}

fn good() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(seeds())
}

/// A good packet with some bytes replaced, cut out or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    (good(), vec(change, 0..6)).prop_map(|(mut bytes, changes)| {
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes.insert(at, byte),
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] = byte,
            }
        }
        bytes
    })
}

/// 100,000 cases in all; more where `PROPTEST_CASES` says so.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.max(25_000),
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

fn read(frame: &Frame) {
    let _ = connect(frame);
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
    fn random_bytes_neither_panic_nor_pile_up(bytes in vec(any::<u8>(), 0..400), ends in vec(0..400_usize, 0..4)) {
        frames(&bytes, &ends).0.iter().for_each(read);
    }

    #[test]
    fn random_bodies_do_not_panic(first in any::<u8>(), body in vec(prop_oneof![Just(0_u8), 0..4_u8, any::<u8>()], 0..60)) {
        frames(&packet(first, &body), &[]).0.iter().for_each(read);
    }

    #[test]
    fn mutated_packets_neither_panic_nor_pile_up(packets in vec(mutated(), 1..4), ends in vec(0..200_usize, 0..4)) {
        frames(&packets.concat(), &ends).0.iter().for_each(read);
    }

    #[test]
    fn frames_do_not_depend_on_where_chunks_end(packets in vec(prop_oneof![good(), mutated()], 1..5)) {
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
