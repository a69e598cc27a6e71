//! kill -9 at random moments under load: no acknowledged message is lost, no QoS 2 message comes twice, sessions are
//! there again, and wills of those who were connected are published when their delay is over.

mod publisher;
mod subscriber;

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw};

use publisher::{Publisher, Round};
use subscriber::Subscriber;

const ROUNDS: u32 = 20;
const ACKNOWLEDGED_MIN: u32 = 1000;
/// Every so many rounds a client with a will is connected when the power goes, and does not come back.
const WILL_EVERY: u32 = 5;

#[tokio::test]
async fn no_acknowledged_message_is_lost_in_twenty_crashes_under_load() {
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("later than 1970")
        .as_secs();
    let seed = std::env::var("CRASH_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(clock);
    println!("seed {seed}: repeat with CRASH_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    // Every round looks for all that was ever acknowledged: nothing may be deleted, however long a round takes.
    let mut host = Host::plan()
        .set("backend.sqlite.pool1.purge_acknowledged", "off")
        .start()
        .await;
    let mut publishers = [
        Publisher::new("one", Mqtt::V311, 1, false),
        Publisher::new("one-retained", Mqtt::V5, 1, true),
        Publisher::new("two", Mqtt::V5, 2, false),
        Publisher::new("two-retained", Mqtt::V311, 2, true),
    ];
    let mut subscribers = [
        Subscriber::new("everything", Mqtt::V5, "crash/#", 2),
        Subscriber::new("one level", Mqtt::V311, "crash/+", 2),
        Subscriber::new("at least once", Mqtt::V5, "crash/+", 1),
        Subscriber::new("exact", Mqtt::V311, "crash/two", 2),
    ];
    // Positions start at the newest message: they subscribe before anything is there, and never again.
    for subscriber in &mut subscribers {
        subscriber.connect(&host).await;
    }
    for number in 1..=ROUNDS {
        crash(number, &mut host, &mut publishers, &mut subscribers, &mut random).await;
        host.restart().await;
        all_acknowledged_is_stored(&host, &publishers).await;
        // Whose will has a long delay comes back in time.
        host.raw(mourner("returns", 3600)).await.disconnect(0).await;
        for subscriber in &mut subscribers {
            read_up(number, &host, subscriber, &publishers, &mut random).await;
        }
    }
    for subscriber in &subscribers {
        assert!(!subscriber.received.contains("will of returns"), "{}", subscriber.name);
    }
}

/// A client that leaves a will behind.
fn mourner(name: &'static str, delay_s: u32) -> Hello<'static> {
    let will = match name {
        "returns" => "will of returns",
        _ => "will of stays away",
    };
    Hello {
        will: Some(("crash/will", will, 1)),
        will_delay_s: delay_s,
        ..Hello::persistent(Mqtt::V5, name)
    }
}

/// The subscriber is back: it gets what it missed, once, and the will of the client that did not come back.
async fn read_up(number: u32, host: &Host, subscriber: &mut Subscriber, publishers: &[Publisher], random: &mut StdRng) {
    let mut raw = subscriber.connect(host).await;
    let waits_for_will = number.is_multiple_of(WILL_EVERY) && subscriber.name == "everything";
    if waits_for_will {
        subscriber.follow(&mut raw, "will of stays away", random).await;
    }
    let (last, topic) = (format!("end of round {number} for {}", subscriber.name), "crash/two");
    raw.publish(60_001, 1, topic, &last).await;
    subscriber.follow(&mut raw, &last, random).await;
    let reads = |publisher: &&Publisher| subscriber.name != "exact" || publisher.topic() == topic;
    for publisher in publishers.iter().filter(reads) {
        let lost = publisher.acknowledged.iter().map(|&number| publisher.payload(number));
        let lost: Vec<String> = lost.filter(|payload| !subscriber.received.contains(payload)).collect();
        assert!(
            lost.is_empty(),
            "round {number}: acknowledged and never delivered to {}: {lost:?}",
            subscriber.name
        );
    }
}

/// One round: load from all publishers, some of the subscribers online, until the power goes.
async fn crash(
    number: u32,
    host: &mut Host,
    publishers: &mut [Publisher],
    subscribers: &mut [Subscriber],
    random: &mut StdRng,
) {
    let round = Round {
        acknowledged: Cell::new(0),
        target: random.random_range(ACKNOWLEDGED_MIN..ACKNOWLEDGED_MIN * 3 / 2),
        due: Notify::new(),
    };
    let mut connections = Vec::new();
    for publisher in publishers.iter_mut() {
        let raw = host.raw(Hello::persistent(publisher.mqtt, publisher.name)).await;
        publisher.window = random.random_range(1..=50).min(raw.receive_max.into());
        connections.push(raw);
    }
    let mut mourners: Vec<Raw> = vec![host.raw(mourner("returns", 3600)).await];
    if number.is_multiple_of(WILL_EVERY) {
        mourners.push(host.raw(mourner("stays away", 1)).await);
    }
    let mut listeners = Vec::new();
    for subscriber in subscribers {
        if random.random_bool(0.6) {
            let raw = subscriber.connect(host).await;
            listeners.push((subscriber, raw, StdRng::seed_from_u64(random.random())));
        }
    }
    let load = publishers.iter_mut().zip(connections);
    let load = join_all(load.map(|(publisher, raw)| publisher.publish_until_the_end(raw, &round)));
    let listen = listeners
        .into_iter()
        .map(|(subscriber, mut raw, mut random)| async move {
            subscriber.follow(&mut raw, "nothing says this", &mut random).await;
        });
    let end = async {
        round.due.notified().await;
        host.kill9().await;
    };
    tokio::join!(load, join_all(listen), end);
}

async fn all_acknowledged_is_stored(host: &Host, publishers: &[Publisher]) {
    for publisher in publishers {
        let topic = publisher.topic();
        let stored = host
            .sql(&format!("select payload from mqtt_msg where topic = '{topic}'"))
            .await;
        let known: HashSet<&str> = stored.iter().map(String::as_str).collect();
        let lost = publisher.acknowledged.iter().map(|&number| publisher.payload(number));
        let lost: Vec<String> = lost.filter(|payload| !known.contains(payload.as_str())).collect();
        assert!(lost.is_empty(), "acknowledged and not stored: {lost:?}");
        assert!(
            publisher.qos < 2 || stored.len() == known.len(),
            "{}: a QoS 2 message is stored twice",
            publisher.name
        );
        if publisher.retain {
            let retained = host
                .sql(&format!("select payload from mqtt_retain where topic = '{topic}'"))
                .await;
            let newest = publisher
                .acknowledged
                .last()
                .expect("each publisher was acknowledged something");
            let number = retained
                .first()
                .and_then(|payload| payload.rsplit(' ').next()?.parse::<u32>().ok());
            assert!(
                number.is_some_and(|number| number >= *newest),
                "{topic} retains {retained:?}, not {newest}"
            );
        }
    }
}
