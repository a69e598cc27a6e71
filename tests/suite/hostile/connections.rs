//! Connections that come to nothing: half open, stolen, announced and never filled, or lost with a large will.

use crate::harness::host::{Host, Plan};
use crate::harness::memory::{Bytes, open_as_many_files_as_allowed};
use crate::harness::within;

use super::alone;
use super::attacker::{Attacker, connect, header};
use super::pair::Pair;

/// Files that the test and the host need beside the connections.
const FILES_BESIDE: usize = 500;
/// What may stay behind: pages that the allocator keeps for the next burst.
const SLACK: Bytes = Bytes::mib(16);

/// Connections come in as fast as they can.
fn open_door() -> Plan {
    Host::plan().set("listener.tcp.external.max_conn_rate", "100000")
}

#[tokio::test]
async fn ten_thousand_half_open_connections_are_thrown_out_and_leave_nothing() {
    let _alone = alone().await;
    let count = 10_000.min(open_as_many_files_as_allowed() - FILES_BESIDE);
    if count < 10_000 {
        eprintln!("only {count} half-open connections: more files may not be opened (ulimit -Hn)");
    }
    let host = open_door()
        .set("zone.external.idle_timeout", "4s")
        .set("listener.tcp.external.max_half_open", "20000")
        .start()
        .await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    let mut half_open = Vec::new();
    for _ in 0..count {
        half_open.push(Attacker::dial(&host).await);
    }
    // Every tenth sends its CONNECT byte by byte, and never the last one.
    let slow = connect("slow", None);
    for byte in &slow[..slow.len() - 1] {
        for attacker in half_open
            .iter_mut()
            .step_by(10)
            .filter(|attacker| !attacker.is_closed())
        {
            attacker.pour(&[*byte]).await;
        }
    }
    let peak = host.memory();
    println!("{count} half-open connections: {before}, {peak} with them");
    for attacker in &mut half_open {
        attacker.until_closed().await;
    }
    host.metric_becomes("connections", 2.0).await;
    pair.judge("half-open connections").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
    assert!(
        peak.0 - before.0 < count * 8 * 1024,
        "a half-open connection costs less than 8 KiB: {before} and {peak}"
    );
}

#[tokio::test]
async fn a_storm_of_connects_with_one_id_leaves_one_session() {
    let _alone = alone().await;
    let host = open_door().start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("sessions", 2.0).await;
    let before = host.memory();
    let hello = connect("the one", None);
    for _ in 0..10 {
        let mut storm = Vec::new();
        for _ in 0..100 {
            let mut attacker = Attacker::dial(&host).await;
            attacker.pour(&hello).await;
            storm.push(attacker);
        }
        // Some leave at once, some wait for the one that throws them out.
        storm.truncate(50);
    }
    // Connections are accepted in order: when this one is let in, all of the storm were accepted.
    drop(Attacker::connect(&host, "behind the storm").await);
    host.metric_becomes("connections", 2.0).await;
    let mut last = Attacker::connect(&host, "the one").await;
    host.metric_becomes("sessions", 3.0).await;
    host.metric_becomes("connections", 3.0).await;
    last.say(&super::attacker::PING).await;
    assert_eq!(last.read(2).await, [0xD0, 0], "the last one is served");
    pair.judge("a storm of CONNECTs").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn a_length_with_nothing_behind_costs_nothing() {
    const CLIENTS: usize = 1000;
    let _alone = alone().await;
    open_as_many_files_as_allowed();
    let host = open_door().set("mqtt.max_packet_size", "1MB").start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    let mut attackers = Vec::new();
    for number in 0..CLIENTS {
        let mut attacker = match number % 2 {
            // As a first packet, or behind the CONNECT.
            0 => Attacker::dial(&host).await,
            _ => Attacker::connect(&host, &format!("promising-{number}")).await,
        };
        let first = if number % 2 == 0 { 0x10 } else { 0x30 };
        attacker.say(&header(first, (1 << 20) - 5)).await;
        attacker.say(&[0]).await;
        attackers.push(attacker);
    }
    let peak = host.memory();
    println!("{CLIENTS} announced packets of 1 MiB: {before}, {peak} with them");
    assert!(
        peak.0 - before.0 < CLIENTS * 32 * 1024,
        "{before}, {peak} with {CLIENTS} promises"
    );
    let mut greedy = Attacker::connect(&host, "greedy").await;
    greedy.say(&header(0x30, 268_435_455)).await;
    greedy.until_closed().await;
    drop(attackers);
    host.metric_becomes("connections", 2.0).await;
    pair.judge("lengths with nothing behind").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn a_thousand_wills_at_once_are_published_and_forgotten() {
    const CLIENTS: usize = 1000;
    const WILL_BYTES: usize = 32 * 1024;
    let _alone = alone().await;
    open_as_many_files_as_allowed();
    let host = open_door().start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    let peak = host.watch_memory();
    let mut dying = Vec::new();
    for number in 0..CLIENTS {
        let mut attacker = Attacker::dial(&host).await;
        let will = vec![b'w'; WILL_BYTES];
        attacker
            .say(&connect(&format!("dying-{number}"), Some(("wills/t", &will))))
            .await;
        assert_eq!(attacker.read(4).await, [0x20, 2, 0, 0]);
        dying.push(attacker);
    }
    drop(dying);
    host.metric_becomes("sessions", 2.0).await;
    let wills = "select count(*) from mqtt_msg where topic = 'wills/t'";
    host.eventually(wills, &[&CLIENTS.to_string()]).await;
    pair.judge("wills").await;
    within("the memory of wills", host.memory_returns(Bytes(before.0 + SLACK.0))).await;
    println!(
        "{CLIENTS} wills of {WILL_BYTES} bytes: {before}, {} at most",
        peak.so_far()
    );
    // Once in its session, and once on its way into the store.
    assert!(
        peak.so_far().0 - before.0 < 3 * CLIENTS * WILL_BYTES + SLACK.0,
        "{before}, {}",
        peak.so_far()
    );
}
