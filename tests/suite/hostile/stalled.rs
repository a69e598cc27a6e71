//! A subscriber that stops reading while far more is published to it than fits into memory.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::memory::Bytes;
use crate::harness::raw::{Hello, Said};
use crate::harness::within;

use super::alone;
use super::attacker::{Attacker, publish};
use super::pair::Pair;

const PAYLOAD_BYTES: usize = 64 * 1024;
/// Messages that the publisher sends ahead of their acknowledgements, as mosquitto's clients do. They are its own
/// memory in the host, and not the subscriber's.
const WINDOW: usize = 20;
/// How much is published, in MiB; `tests/run` publishes 1024.
const MIB: &str = "HOOKLINE_TEST_STALLED_MIB";

#[tokio::test]
async fn a_stalled_subscriber_costs_no_memory_and_gets_everything_in_order() {
    let _alone = alone().await;
    let mib = std::env::var(MIB)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(256);
    let count = mib * (1 << 20) / PAYLOAD_BYTES;
    let host = Host::start().await;
    let pair = Pair::start(&host);
    let mut stalled = host.raw(Hello::persistent(Mqtt::V5, "stalled")).await;
    stalled.subscribe("large/t", 1).await;
    let before = host.memory();
    let peak = host.watch_memory();
    let start = Instant::now();
    flood(&host, count).await;
    let (published, most) = (start.elapsed(), peak.so_far());
    for number in 0..count {
        match stalled.next().await {
            Said::Publish { id, payload, .. } => {
                assert_eq!(payload[..8], number.to_be_bytes(), "in order, and nothing is missing");
                stalled.puback(id).await;
            }
            other => panic!("message {number}, and not {other:?}"),
        }
    }
    assert_eq!(stalled.ping().await, [], "and nothing comes twice");
    println!(
        "{mib} MiB to a stalled subscriber: {before}, {most} while it slept, {} at most; published in {published:.1?}, \
         read {:.1?} later",
        peak.so_far(),
        start.elapsed() - published
    );
    pair.judge("a stalled subscriber").await;
    let log = std::fs::metadata(host.data().join("hookline.db-wal")).map_or(0, |log| log.len() as usize);
    println!("SQLite's log: {}", Bytes(log));
    assert!(
        log < Bytes::mib(128).0,
        "readers let SQLite's log be taken in: {}",
        Bytes(log)
    );
    let grown = peak.so_far().0 - before.0;
    assert!(grown < Bytes::mib(64).0, "resident memory grew by {}", Bytes(grown));
}

/// Each of the small messages comes among large ones that nobody wants: all of them lie in one buffer.
#[tokio::test]
async fn small_messages_that_wait_do_not_keep_what_came_beside_them() {
    const SMALL: usize = 4000;
    let _alone = alone().await;
    let host = Host::plan()
        .rules(&[])
        .set("zone.external.max_mqueue_len", &SMALL.to_string())
        .start()
        .await;
    let mut stalled = host.raw(Hello::clean(Mqtt::V5, "stalled")).await;
    stalled.subscribe("small/t", 1).await;
    let mut publisher = Attacker::connect(&host, "publisher").await;
    let unwanted = publish(0, 0, false, "unwanted/t", &[b'u'; 15_000]).repeat(4);
    let before = host.memory();
    let peak = host.watch_memory();
    for number in 0..SMALL {
        let small = publish((number + 1) as u16, 1, false, "small/t", &number.to_be_bytes());
        publisher.say(&[small, unwanted.clone()].concat()).await;
        publisher.read(4).await;
    }
    println!("{SMALL} small messages: {before}, {} at most", peak.so_far());
    let grown = peak.so_far().0 - before.0;
    assert!(grown < Bytes::mib(64).0, "resident memory grew by {}", Bytes(grown));
    for number in 0..SMALL {
        match stalled.next().await {
            Said::Publish { id, payload, .. } => {
                assert_eq!(
                    payload,
                    number.to_be_bytes().as_slice(),
                    "in order, and nothing is missing"
                );
                stalled.puback(id).await;
            }
            other => panic!("message {number}, and not {other:?}"),
        }
    }
}

/// Publishes numbered messages with QoS 1, some ahead of their acknowledgements.
async fn flood(host: &Host, count: usize) {
    let mut flooding = Attacker::connect(host, "flooding").await;
    let (mut read, mut write) = flooding.stream.split();
    let mut payload = vec![b'l'; PAYLOAD_BYTES];
    let mut acks = [0; 4 * WINDOW];
    for first in (0..count).step_by(WINDOW) {
        let last = count.min(first + WINDOW);
        let sending = async {
            for number in first..last {
                payload[..8].copy_from_slice(&number.to_be_bytes());
                let id = (number % 60_000 + 1) as u16;
                write.write_all(&publish(id, 1, false, "large/t", &payload)).await?;
            }
            Ok::<(), std::io::Error>(())
        };
        let both = async { tokio::join!(sending, read.read_exact(&mut acks[..4 * (last - first)])) };
        let (sent, acked) = within("the acknowledgements of a window", both).await;
        sent.and(acked.map(|_| ())).expect("the host goes on reading");
    }
}
