//! What the tests of the session are built from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use crate::model::delivery::{PoolName, Position, Run, Stored};
use crate::model::id::MessageId;
use crate::model::message::{Client, Message, Qos};
use crate::model::properties::Properties;
use crate::model::topic::Topic;

pub(crate) fn pool() -> PoolName {
    PoolName::new("sqlite", "pool1")
}

pub(crate) fn message(id: u128, topic: &str, payload: &str, qos: Qos) -> Message {
    Message {
        id: MessageId::from_bits(id),
        topic: Topic::new(topic.to_owned()).expect("a good topic"),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        from: "publisher".into(),
        at: UNIX_EPOCH,
        properties: Properties::default(),
        expires: None,
    }
}

/// A run of QoS 1 messages `m1`, `m2`, … to `t` that the pool is about to store.
pub(crate) fn run_of(count: usize) -> Arc<Run> {
    run_from(1, count)
}

/// The same with ids from `first` on.
pub(crate) fn run_from(first: usize, count: usize) -> Arc<Run> {
    let ids = first..first + count;
    let messages = ids
        .map(|id| message(id as u128, "t", &format!("m{id}"), Qos::AtLeastOnce))
        .collect();
    Arc::new(Run::new(messages, vec![Stored::new(pool(), (0..count).map(|_| true))]))
}

/// The commit of one message of a run has settled.
pub(crate) fn settle(run: &Run, index: usize, row: u128) {
    run.stored[0].settle_at(index, Position(row));
}

pub(crate) fn client(id: &str, protocol: u8, session_expiry_s: u32) -> Arc<Client> {
    Arc::new(Client {
        id: id.into(),
        username: None,
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        protocol,
        clean_start: session_expiry_s == 0,
        keep_alive_s: 60,
        session_expiry_s,
        connected_at: UNIX_EPOCH,
    })
}
