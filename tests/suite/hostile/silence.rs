//! Subscribers that do not read, or hardly.

use crate::harness::host::Host;
use crate::harness::memory::Bytes;

use super::alone;
use super::attacker::{Attacker, publish, subscribe};
use super::pair::Pair;

const SLACK: Bytes = Bytes::mib(24);
const PAYLOAD_BYTES: usize = 16 * 1024;

#[tokio::test]
async fn a_flood_of_qos_0_to_clients_that_never_read_is_bounded_and_counted() {
    const CLIENTS: usize = 10;
    const MESSAGES: usize = 10_000;
    let _alone = alone().await;
    let host = Host::start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    let peak = host.watch_memory();
    let mut deaf = Vec::new();
    for number in 0..CLIENTS {
        let mut client = Attacker::connect(&host, &format!("deaf-{number}")).await;
        client.say(&subscribe(1, 0, ["flood/#"])).await;
        client.read(5).await;
        deaf.push(client);
    }
    let mut hearing = Attacker::connect(&host, "hearing").await;
    hearing.say(&subscribe(1, 0, ["end"])).await;
    hearing.read(5).await;
    let mut flooding = Attacker::connect(&host, "flooding").await;
    let one = publish(0, 0, false, "flood/t", &[b'f'; PAYLOAD_BYTES]);
    for _ in 0..MESSAGES {
        flooding.say(&one).await;
    }
    let end = publish(0, 0, false, "end", b"!");
    flooding.say(&end).await;
    assert_eq!(hearing.read(end.len()).await, end, "the publisher was read to its end");
    host.metric_exceeds(r#"messages_dropped_total{reason="mailbox_full"}"#, 0.0)
        .await;
    let (most, dropped) = (peak.so_far(), host.metric("messages_dropped_total").await);
    println!(
        "{MESSAGES} messages of {PAYLOAD_BYTES} bytes to {CLIENTS} that never read: {before}, {most} at most, {dropped} dropped"
    );
    // What waits is shared between them; each has its window, its mailbox and its outbox beside it.
    assert!(most.0 - before.0 < Bytes::mib(64).0, "{before}, {most} at most");
    drop(deaf);
    host.metric_becomes("connections", 4.0).await;
    pair.judge("clients that never read").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn who_reads_a_byte_at_a_time_gets_it_all_and_holds_nobody_up() {
    const MESSAGES: u16 = 300;
    let _alone = alone().await;
    let host = Host::start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    let mut slow = Attacker::connect(&host, "slow").await;
    slow.say(&subscribe(1, 1, ["slow/t"])).await;
    slow.read(5).await;
    let mut sensor = Attacker::connect(&host, "sensor").await;
    for id in 1..=MESSAGES {
        sensor.say(&publish(id, 1, false, "slow/t", &id.to_be_bytes())).await;
    }
    sensor.read(4 * usize::from(MESSAGES)).await;
    for id in 1..=MESSAGES {
        let wanted = publish(id, 1, false, "slow/t", &id.to_be_bytes());
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            got.extend(slow.read(1).await);
        }
        assert_eq!(got, wanted);
        slow.say(&[&[0x40, 2][..], &id.to_be_bytes()].concat()).await;
    }
    pair.judge("a slow reader").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}
