//! Floods of packets that are each allowed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::host::{Host, Plan};
use crate::harness::memory::Bytes;
use crate::harness::within;

use super::alone;
use super::attacker::{Attacker, PING, packet, publish, subscribe, unsubscribe};
use super::pair::Pair;

const SLACK: Bytes = Bytes::mib(24);

/// A host with its pair, and what it holds when it has nothing to do.
async fn quiet() -> (Host, Pair, Bytes) {
    with_pair(Host::plan()).await
}

async fn with_pair(plan: Plan) -> (Host, Pair, Bytes) {
    let host = plan.start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    (host, pair, before)
}

#[tokio::test]
async fn tens_of_thousands_of_filters_slow_nobody_down() {
    const FILTERS: usize = 20_000;
    let _alone = alone().await;
    let (host, pair, before) = with_pair(Host::plan().set("zone.external.max_subscriptions", "0")).await;
    let names: Vec<String> = (0..FILTERS).map(|number| format!("{number:x}")).collect();
    for qos in 0..2 {
        let mut greedy = Attacker::connect(&host, "greedy").await;
        greedy.say(&subscribe(1, qos, &names)).await;
        let answer = greedy.read(4 + 2 + FILTERS - 2).await;
        assert_eq!(answer[0], 0x90, "a SUBACK");
        host.metric_becomes("subscriptions", 1.0 + FILTERS as f64).await;
        println!(
            "{FILTERS} filters with QoS {qos}: {before}, {} with them",
            host.memory()
        );
        greedy.say(&unsubscribe(2, &names)).await;
        host.metric_becomes("subscriptions", 1.0).await;
    }
    host.metric_becomes("sessions", 2.0).await;
    pair.judge("many filters").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn a_flood_of_subscribes_that_reads_no_answers_is_stopped() {
    let _alone = alone().await;
    let (host, pair, before) = quiet().await;
    let mut deaf = Attacker::connect(&host, "deaf").await;
    let one = [subscribe(1, 1, ["a", "b/#", "+"]), unsubscribe(2, ["a", "+"])].concat();
    let written = deaf.pour(&one.repeat(20_000)).await;
    println!(
        "{written} bytes of SUBSCRIBE and UNSUBSCRIBE: {before}, {} with them",
        host.memory()
    );
    drop(deaf);
    host.metric_becomes("sessions", 2.0).await;
    pair.judge("a flood of SUBSCRIBEs").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_as_fast_as_it_reads() {
    let _alone = alone().await;
    let (host, pair, before) = quiet().await;
    let peak = host.watch_memory();
    let mut reading = Attacker::connect(&host, "reading").await;
    let pings = PING.repeat(10_000);
    for _ in 0..20 {
        reading.say(&pings).await;
        reading.read(pings.len()).await;
    }
    let mut deaf = Attacker::connect(&host, "deaf").await;
    let all = PING.repeat(16 << 20);
    let written = deaf.pour(&all).await;
    assert!(written < all.len(), "who reads nothing is not read for ever");
    drop((reading, deaf));
    host.metric_becomes("sessions", 2.0).await;
    pair.judge("a flood of PINGREQs").await;
    println!("{written} bytes of PINGREQ: {before}, {} at most", peak.so_far());
    assert!(
        peak.so_far().0 - before.0 < SLACK.0,
        "{before}, {} at most",
        peak.so_far()
    );
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn who_has_flooded_once_holds_no_more_than_anybody_else() {
    let _alone = alone().await;
    let (host, pair, before) = quiet().await;
    let peak = host.watch_memory();
    let (mut there, pings) = (Vec::new(), PING.repeat(32 << 10));
    for number in 0..100 {
        let mut flooding = Attacker::connect(&host, &format!("flooding-{number}")).await;
        flooding.say(&pings).await;
        flooding.read(pings.len()).await;
        there.push(flooding);
    }
    println!("{} floods: {before}, {} at most", there.len(), peak.so_far());
    assert!(
        peak.so_far().0 - before.0 < SLACK.0,
        "{before}, {} at most",
        peak.so_far()
    );
    drop(there);
    pair.judge("many short floods").await;
}

#[tokio::test]
async fn messages_that_are_never_released_are_remembered_by_their_number_only() {
    const COUNT: u16 = 5000;
    let _alone = alone().await;
    let (host, pair, before) = quiet().await;
    let mut keeping = Attacker::connect(&host, "keeping").await;
    let all: Vec<u8> = (1..=COUNT)
        .flat_map(|id| publish(id, 2, false, "q2/t", &[b'x'; 1000]))
        .collect();
    let (mut read, mut write) = keeping.stream.split();
    let mut answers = vec![0; 4 * usize::from(COUNT)];
    let both = async { tokio::join!(write.write_all(&all), read.read_exact(&mut answers)) };
    let (said, heard) = within("a PUBREC for each", both).await;
    said.and(heard.map(|_| ())).expect("the host answers");
    assert!(answers.chunks(4).all(|answer| answer[0] == 0x50), "PUBRECs only");
    drop(keeping);
    host.metric_becomes("sessions", 2.0).await;
    pair.judge("QoS 2 without PUBREL").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn the_deepest_topics_hurt_nobody() {
    let _alone = alone().await;
    let (host, pair, before) = with_pair(Host::plan().set("mqtt.max_topic_levels", "0")).await;
    let peak = host.watch_memory();
    // A thousand levels are the most that can be configured; unit tests of the routes go to 65,536.
    let deep = "/".repeat(998);
    let mut diver = Attacker::connect(&host, "diver").await;
    for (id, filter) in [
        (1, format!("{deep}+")),
        (2, format!("{deep}#")),
        (3, format!("+{deep}")),
    ] {
        diver.say(&subscribe(id, 1, [&filter])).await;
        assert_eq!(diver.read(5).await, [0x90, 3, 0, id as u8, 1]);
    }
    diver.say(&publish(1, 1, true, &deep, b"x")).await;
    // One copy for all three, and the PUBACK; in which order is the host's affair.
    let copy = publish(1, 1, false, &deep, b"x").len();
    diver.read(copy + 4).await;
    diver.say(&packet(0x40, &[0, 1])).await;
    diver.say(&unsubscribe(4, [format!("{deep}+")])).await;
    drop(diver);
    host.metric_becomes("subscriptions", 1.0).await;
    println!("topics of 999 levels: {before}, {} at most", peak.so_far());
    pair.judge("deep topics").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}

#[tokio::test]
async fn a_flood_of_retained_messages_is_read_page_by_page() {
    const COUNT: usize = 20_000;
    let _alone = alone().await;
    // The broker keeps them itself: no rule does.
    let host = Host::plan().rules(&[]).start().await;
    let pair = Pair::start(&host);
    host.metric_becomes("connections", 2.0).await;
    let before = host.memory();
    let mut filling = Attacker::connect(&host, "filling").await;
    for number in 0..COUNT {
        let topic = format!("retained/{}", number * 7919 % COUNT);
        filling.say(&publish(0, 0, true, &topic, b"kept")).await;
    }
    host.metric_becomes("retained_messages", COUNT as f64).await;
    println!("{COUNT} retained messages: {before}, {} with them", host.memory());
    let mut readers = Vec::new();
    for number in 0..4 {
        let mut reader = Attacker::connect(&host, &format!("reader-{number}")).await;
        reader.say(&subscribe(1, 0, ["retained/#"])).await;
        readers.push(reader);
    }
    let one = |number: usize| publish(0, 0, true, &format!("retained/{number}"), b"kept").len();
    let whole: usize = 5 + (0..COUNT).map(one).sum::<usize>();
    for reader in &mut readers {
        reader.read(whole).await;
    }
    for number in 0..COUNT {
        filling
            .say(&publish(0, 0, true, &format!("retained/{number}"), b""))
            .await;
    }
    host.metric_becomes("retained_messages", 0.0).await;
    drop((filling, readers));
    pair.judge("retained messages").await;
    host.memory_returns(Bytes(before.0 + SLACK.0)).await;
}
