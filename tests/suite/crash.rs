//! kill -9 at random moments under load: no acknowledged message is lost, no QoS 2 message comes twice within a
//! connection.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};

const ROUNDS: u32 = 20;
const ACKNOWLEDGED_MIN: u32 = 1000;

/// One publisher's story over all rounds. Its n-th message says "name n".
struct Publisher {
    name: &'static str,
    mqtt: Mqtt,
    qos: u8,
    retain: bool,
    window: usize,
    sent: u32,
    /// Sent and not acknowledged, by packet identifier.
    open: BTreeMap<u16, u32>,
    acknowledged: BTreeSet<u32>,
}

/// What the publishers of one round share.
struct Round {
    acknowledged: Cell<u32>,
    target: u32,
    due: Notify,
}

impl Publisher {
    fn new(name: &'static str, mqtt: Mqtt, qos: u8, retain: bool) -> Self {
        let (open, acknowledged) = (BTreeMap::new(), BTreeSet::new());
        Self {
            name,
            mqtt,
            qos,
            retain,
            window: 1,
            sent: 0,
            open,
            acknowledged,
        }
    }

    fn topic(&self) -> String {
        format!("crash/{}", self.name)
    }

    fn payload(&self, number: u32) -> String {
        format!("{} {number}", self.name)
    }

    /// Publishes with a full window until the host is gone.
    async fn publish_until_the_end(&mut self, mut raw: Raw, round: &Round) {
        self.resend(&mut raw).await;
        loop {
            while self.open.len() < self.window {
                self.publish(&mut raw).await;
            }
            match raw.next().await {
                Said::PubAck(id, 0) => self.note(id, round),
                Said::PubRec(id, 0) => {
                    self.note(id, round);
                    raw.pubrel(id).await;
                }
                Said::PubComp(_) => {}
                Said::End => return,
                other => panic!("{} was answered {other:?}", self.name),
            }
        }
    }

    /// What a client does that reconnects. A QoS 2 message goes with the session that knew its number.
    async fn resend(&mut self, raw: &mut Raw) {
        if self.qos == 2 && !raw.session_present {
            self.open.clear();
        }
        for (&id, &number) in &self.open {
            raw.again(id, self.qos, &self.topic(), self.payload(number)).await;
        }
    }

    async fn publish(&mut self, raw: &mut Raw) {
        self.sent += 1;
        let id = u16::try_from(self.sent % 60_000 + 1).expect("it is less than 65,536");
        self.open.insert(id, self.sent);
        let (topic, payload) = (self.topic(), self.payload(self.sent));
        match self.retain {
            true => raw.retain(id, self.qos, &topic, payload).await,
            false => raw.publish(id, self.qos, &topic, payload).await,
        }
    }

    fn note(&mut self, id: u16, round: &Round) {
        let number = self
            .open
            .remove(&id)
            .unwrap_or_else(|| panic!("{}: {id} is acknowledged twice", self.name));
        self.acknowledged.insert(number);
        round.acknowledged.set(round.acknowledged.get() + 1);
        if round.acknowledged.get() == round.target {
            round.due.notify_one();
        }
    }
}

/// The persistent subscriber, over all rounds.
#[derive(Default)]
struct Subscriber {
    received: HashSet<String>,
}

impl Subscriber {
    async fn connect(host: &Host) -> Raw {
        let mut raw = host.raw(Hello::persistent(Mqtt::V5, "app")).await;
        raw.bytes(b"\x82\x0d\x00\x01\x00\x00\x07crash/#\x02").await;
        raw
    }

    /// Reads and acknowledges until this message comes or the host is gone.
    async fn follow(&mut self, raw: &mut Raw, last: &str) {
        let mut exactly_once = HashSet::new();
        loop {
            match raw.next().await {
                Said::Publish {
                    id,
                    qos,
                    retain,
                    payload,
                    ..
                } => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    // The retained copy of a subscription is one more on purpose.
                    let new = qos < 2 || retain || exactly_once.insert(text.clone());
                    assert!(new, "{text:?} came twice at QoS 2 within a connection");
                    match qos {
                        1 => raw.puback(id).await,
                        2 => raw.pubrec(id).await,
                        _ => {}
                    }
                    if text == last {
                        return;
                    }
                    self.received.insert(text);
                }
                Said::PubRel(id) => raw.pubcomp(id).await,
                Said::PubAck(..) | Said::SubAck(..) => {}
                Said::End => return,
                other => panic!("the subscriber reads {other:?}"),
            }
        }
    }
}

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
    let mut host = Host::plan().start().await;
    let mut publishers = [
        Publisher::new("one", Mqtt::V311, 1, false),
        Publisher::new("one-retained", Mqtt::V5, 1, true),
        Publisher::new("two", Mqtt::V5, 2, false),
        Publisher::new("two-retained", Mqtt::V311, 2, true),
    ];
    let mut subscriber = Subscriber::default();
    // The position starts at the newest message: subscribe before anything is there.
    let mut raw = Subscriber::connect(&host).await;
    assert_eq!(raw.until(&Said::SubAck(1, vec![2])).await, []);
    drop(raw);

    for number in 1..=ROUNDS {
        crash(&mut host, &mut publishers, &mut subscriber, &mut random).await;
        host.restart().await;
        all_acknowledged_is_stored(&host, &publishers).await;
        let mut raw = Subscriber::connect(&host).await;
        let last = format!("end of round {number}");
        raw.publish(60_001, 1, "crash/end", &last).await;
        subscriber.follow(&mut raw, &last).await;
        for publisher in &publishers {
            let lost = publisher.acknowledged.iter().map(|&number| publisher.payload(number));
            let lost: Vec<String> = lost.filter(|payload| !subscriber.received.contains(payload)).collect();
            assert!(
                lost.is_empty(),
                "seed {seed}, round {number}: acknowledged and never delivered: {lost:?}"
            );
        }
    }
}

/// One round: load from all publishers, every other time with the subscriber online, until the power goes.
async fn crash(host: &mut Host, publishers: &mut [Publisher], subscriber: &mut Subscriber, random: &mut StdRng) {
    let target = random.random_range(ACKNOWLEDGED_MIN..ACKNOWLEDGED_MIN * 3 / 2);
    let round = Round {
        acknowledged: Cell::new(0),
        target,
        due: Notify::new(),
    };
    let online = random.random_bool(0.5);
    let mut connections = Vec::new();
    for publisher in publishers.iter_mut() {
        let raw = host.raw(Hello::persistent(publisher.mqtt, publisher.name)).await;
        publisher.window = random.random_range(1..=50).min(raw.receive_max.into());
        connections.push(raw);
    }
    let mut listener = if online {
        Some(Subscriber::connect(host).await)
    } else {
        None
    };
    let load = publishers.iter_mut().zip(connections);
    let load = join_all(load.map(|(publisher, raw)| publisher.publish_until_the_end(raw, &round)));
    let listen = async {
        if let Some(raw) = &mut listener {
            subscriber.follow(raw, "nothing says this").await;
        }
    };
    let end = async {
        round.due.notified().await;
        host.kill9().await;
    };
    tokio::join!(load, listen, end);
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
