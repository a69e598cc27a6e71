//! What the targets do with their input. Nothing may panic; what is asserted must hold for every input.

#![allow(dead_code, reason = "a target needs one of them, the test all")]

use bytes::{Bytes, BytesMut};
use hookline::config::{Addresses, ByteSize, Config, Hosts, Limit, OrOff, Overrides, Setting, TimeLimit};
use hookline::hook::backend::Backend;
use hookline::hook::rule::Rules;
use hookline::model::delivery::PoolName;
use hookline::model::topic::{Filter, Topic};
use hookline::mqtt::codec::{self, Decoder, Frame};
use hookline::mqtt::packet::{Packet, Version};

const PACKET_BYTES_MAX: usize = 4096;

/// The first packet of a connection.
pub fn connect(bytes: &[u8]) {
    for frame in frames(bytes, bytes.len()) {
        if let Ok(connect) = codec::connect(&frame) {
            assert!(connect.client_id.len() <= frame.body.len());
        }
    }
}

/// Packets behind a CONNECT. The first byte says in which version, the second in what pieces they come.
pub fn packets(bytes: &[u8]) {
    let [version, piece, rest @ ..] = bytes else { return };
    let version = [Version::V31, Version::V311, Version::V5][usize::from(version % 3)];
    let decoder = Decoder::new(version);
    for frame in frames(rest, usize::from(*piece)) {
        match decoder.decode(frame) {
            Ok(Packet::Publish(publish)) => {
                let found = publish.properties.iter().map(|property| 1 + property.value.len());
                assert_eq!(found.sum::<usize>(), publish.properties.as_bytes().len());
                assert!(publish.topic.is_some() || publish.alias.is_some());
            }
            Ok(Packet::Ack(ack)) => assert!(ack.packet_id > 0),
            Ok(_) | Err(_) => {}
        }
    }
}

/// A filter and a topic, a line each.
pub fn filters(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (wanted, name) = text.split_once('\n').unwrap_or((text, text));
    let topic = Topic::new(name.to_owned());
    if let Ok((_, filter)) = Filter::parse_subscription(wanted)
        && let Ok(topic) = &topic
    {
        let matches = filter.matches(topic.as_str());
        assert!(!matches || topic.as_str().starts_with(filter.literal_prefix()));
        assert!(!filter.is_exact() || matches == (filter.as_str() == topic.as_str()));
    }
    if let Ok(topic) = &topic {
        let same = Filter::new(topic.as_str().to_owned()).expect("a topic is a filter, too");
        assert!(same.is_exact() && same.matches(topic.as_str()));
    }
}

/// A plugin's file: lines, values of every type, rules with their JSON and their statements.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        for line in text.lines() {
            values(line.split_once('=').map_or(line, |(_, value)| value).trim());
            let said = Overrides::default().set(line);
            assert!(said.is_ok() || line.is_empty() || said.is_err_and(|text| !text.is_empty()));
        }
        // What it includes are files of this machine, and none of the input.
        if text.lines().any(|line| line.trim_start().starts_with("include")) {
            return;
        }
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("it is ours");
    let pools = [PoolName::new("sqlite", "pool1")];
    let mut config = Backend::Sqlite.read(file.path(), &Overrides::default());
    let rules = Rules::from_config(Backend::Sqlite, &pools, &mut config);
    let count = rules.iter().count();
    assert!(count <= bytes.split(|byte| *byte == b'\n').count(), "a rule is a line");
    for key in Config::read(file.path(), &Overrides::default()).keys("") {
        assert!(!key.is_empty());
    }
    config.finish(true);
}

fn values(text: &str) {
    bool::parse(text);
    usize::parse(text);
    std::time::Duration::parse(text);
    ByteSize::parse(text);
    Limit::parse(text);
    TimeLimit::parse(text);
    Addresses::parse(text);
    Hosts::parse(text);
    OrOff::<ByteSize>::parse(text);
}

/// Whole frames, read in pieces of this size; what is held for one that is not whole stays within the limit.
fn frames(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let (mut frames, mut held) = (Vec::new(), BytesMut::new());
    for piece in bytes.chunks(piece.max(1)) {
        held.extend_from_slice(piece);
        let mut chunk: Bytes = held.split().freeze();
        loop {
            match codec::cut(&mut chunk, PACKET_BYTES_MAX) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
        assert!(chunk.len() + codec::missing(&chunk) <= PACKET_BYTES_MAX);
        held.extend_from_slice(&chunk);
    }
    frames
}
