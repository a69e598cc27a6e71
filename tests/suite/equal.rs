//! What is delivered from the store equals live delivery byte for byte, except for what the standard changes: packet
//! identifier, DUP, what is left of the expiry, and RETAIN of what is sent as a retained message.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};

/// A message as its publisher writes it.
struct Case {
    name: &'static str,
    qos: u8,
    retain: bool,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

const EXPIRY_S: u32 = 600;

fn text(id: u8, text: &[u8]) -> Vec<u8> {
    [&[id][..], &(text.len() as u16).to_be_bytes(), text].concat()
}

fn user(key: &str, value: &str) -> Vec<u8> {
    let value = text(0, value.as_bytes());
    [text(0x26, key.as_bytes()), value[1..].to_vec()].concat()
}

fn expiry() -> Vec<u8> {
    [&[0x02][..], &EXPIRY_S.to_be_bytes()].concat()
}

fn cases() -> Vec<Case> {
    let every = [
        user("z", "1"),
        text(0x03, "text/plain; charset=utf-8".as_bytes()),
        user("a", "2"),
        user("z", "1"),
        text(0x09, &[0, 1, 0xFF, 0]),
        expiry(),
        user("", ""),
        text(0x08, "answers/🐦".as_bytes()),
        vec![0x01, 0],
        user("a", "🐦"),
    ];
    let all_bytes: Vec<u8> = (0..=255).collect();
    let mut cases = Vec::new();
    for qos in 1..=2 {
        for retain in [false, true] {
            let mut case = |name, properties: &[&[u8]], payload: &[u8]| {
                cases.push(Case {
                    name,
                    qos,
                    retain,
                    properties: properties.concat(),
                    payload: payload.to_vec(),
                });
            };
            case("plain", &[], b"21.5");
            case("every property", &every.each_ref().map(Vec::as_slice), b"x");
            case("format 0", &[&[0x01, 0]], &all_bytes);
            case("format 1", &[&[0x01, 1]], "21,5 °C 🐦".as_bytes());
            case("expiry only", &[&expiry()], &all_bytes);
            case("empty texts", &[&text(0x03, b""), &text(0x09, b"")], b"x");
            case("large", &[&user("k", &"v".repeat(40_000))], &vec![7; 100_000]);
            if !retain {
                case("empty payload", &[&user("k", "v")], b"");
            }
        }
    }
    cases
}

impl Case {
    fn topic(&self) -> String {
        format!("t/🐦/{}/{}/{}", self.name, self.qos, self.retain)
    }

    fn packet(&self, id: u16) -> Vec<u8> {
        let topic = self.topic();
        let mut rest = text(0, topic.as_bytes())[1..].to_vec();
        rest.extend(id.to_be_bytes());
        rest.extend(varint(self.properties.len()));
        rest.extend(&self.properties);
        rest.extend(&self.payload);
        packet(0x30 | self.qos << 1 | u8::from(self.retain), &rest)
    }
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number % 128) as u8;
        number /= 128;
        bytes.push(if number > 0 { byte | 0x80 } else { byte });
        if number == 0 {
            return bytes;
        }
    }
}

fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
    [&[first][..], &varint(rest.len()), rest].concat()
}

/// How somebody subscribes.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    mqtt: Mqtt,
    filter: &'static str,
    /// The options byte of MQTT 5; QoS alone before.
    options: u8,
    identifier: Option<u8>,
}

impl Subscription {
    async fn make(self, client: &mut Raw, id: u16) {
        let mut rest = id.to_be_bytes().to_vec();
        if self.mqtt == Mqtt::V5 {
            let properties = self.identifier.map_or(Vec::new(), |identifier| vec![0x0B, identifier]);
            rest.extend(varint(properties.len()));
            rest.extend(properties);
        }
        rest.extend(&text(0, self.filter.as_bytes())[1..]);
        rest.push(self.options);
        client.bytes(&packet(0x82, &rest)).await;
        let granted = Said::SubAck(id, vec![self.options & 3]);
        assert_eq!(client.until(&granted).await, [], "{self:?}");
    }
}

/// Publishes and waits for the acknowledgement.
async fn publish(sensor: &mut Raw, case: &Case, id: u16) {
    sensor.bytes(&case.packet(id)).await;
    if case.qos == 1 {
        assert_eq!(sensor.until(&Said::PubAck(id, 0)).await, []);
        return;
    }
    assert_eq!(sensor.until(&Said::PubRec(id, 0)).await, []);
    sensor.pubrel(id).await;
    assert_eq!(sensor.until(&Said::PubComp(id)).await, []);
}

/// Once these have a message, their subscriptions have been sent all that was retained when they were made.
async fn settle<const N: usize>(sensor: &mut Raw, clients: [&mut Raw; N]) {
    let first = Case {
        name: "first",
        ..cases().remove(0)
    };
    publish(sensor, &first, 1).await;
    for client in clients {
        take(client, 1).await;
    }
}

/// The next PUBLISH packets, each acknowledged to the end.
async fn take(client: &mut Raw, count: usize) -> Vec<Bytes> {
    let (mut taken, mut open) = (Vec::new(), 0);
    while taken.len() < count || open > 0 {
        let frame = client.frame().await;
        match frame[0] >> 4 {
            3 => {
                let seen = Seen::new(&frame, Mqtt::V311);
                match seen.qos {
                    1 => client.puback(seen.id).await,
                    _ => {
                        client.pubrec(seen.id).await;
                        open += 1;
                    }
                }
                taken.push(frame);
            }
            6 => {
                client.pubcomp(u16::from_be_bytes([frame[2], frame[3]])).await;
                open -= 1;
            }
            _ => panic!("a PUBLISH or a PUBREL, not {frame:?}"),
        }
    }
    taken
}

/// A PUBLISH without what the standard lets differ.
struct Seen {
    topic: String,
    id: u16,
    qos: u8,
    retain: bool,
    same: Vec<u8>,
}

impl Seen {
    fn new(frame: &[u8], mqtt: Mqtt) -> Self {
        let header = 1 + frame[1..].iter().position(|byte| *byte < 0x80).expect("a length") + 1;
        let qos = frame[0] >> 1 & 3;
        let mut same = frame.to_vec();
        same[0] &= !0x08;
        let length = usize::from(u16::from_be_bytes([frame[header], frame[header + 1]]));
        let topic = String::from_utf8(frame[header + 2..header + 2 + length].to_vec()).expect("a topic");
        let at = header + 2 + length;
        let id = u16::from_be_bytes([frame[at], frame[at + 1]]);
        same[at..at + 2].fill(0);
        if mqtt == Mqtt::V5 {
            // The host writes what it adds first: an expiry is the first property.
            let section = at + 2 + frame[at + 2..].iter().position(|byte| *byte < 0x80).expect("a length") + 1;
            if frame.get(section) == Some(&0x02) && frame[at + 2] > 0 {
                let left = u32::from_be_bytes(frame[section + 1..section + 5].try_into().expect("four bytes"));
                assert!((1..=EXPIRY_S).contains(&left), "{left}");
                same[section + 1..section + 5].fill(0);
            }
        }
        Self {
            topic,
            id,
            qos,
            retain: frame[0] & 1 == 1,
            same,
        }
    }
}

fn by_topic(frames: &[Bytes], mqtt: Mqtt) -> BTreeMap<String, Seen> {
    let seen = frames.iter().map(|frame| Seen::new(frame, mqtt));
    seen.map(|seen| (seen.topic.clone(), seen)).collect()
}

fn equal(how: &str, sub: Subscription, live: &BTreeMap<String, Seen>, other: &BTreeMap<String, Seen>) {
    let topics = |seen: &BTreeMap<String, Seen>| seen.keys().cloned().collect::<Vec<_>>();
    assert_eq!(topics(other), topics(live), "{how} {sub:?}");
    for (topic, live) in live {
        let other = &other[topic];
        let short = |bytes: &[u8]| Bytes::copy_from_slice(&bytes[..bytes.len().min(300)]);
        assert!(
            other.same == live.same,
            "{how} {sub:?} {topic}:\n live {:?}\nother {:?}",
            short(&live.same),
            short(&other.same)
        );
    }
}

#[tokio::test]
async fn what_comes_from_the_store_is_what_came_live() {
    const RETAIN_AS_PUBLISHED: u8 = 0x08;
    let subscription = |mqtt, options, identifier| Subscription {
        mqtt,
        filter: "t/#",
        options,
        identifier,
    };
    for sub in [
        subscription(Mqtt::V5, 2, None),
        subscription(Mqtt::V5, 2 | RETAIN_AS_PUBLISHED, Some(7)),
        subscription(Mqtt::V5, 1, Some(127)),
        subscription(Mqtt::V311, 2, None),
    ] {
        let host = Host::plan()
            .set("zone.external.max_inflight", "1")
            .set("zone.external.max_mqueue_len", "2")
            .start()
            .await;
        let cases = cases();
        let mqtt = sub.mqtt;
        let mut live = host.raw(Hello::clean(mqtt, "live")).await;
        let mut slow = host.raw(Hello::clean(mqtt, "slow")).await;
        let mut away = host.raw(Hello::persistent(mqtt, "away")).await;
        for client in [&mut live, &mut slow, &mut away] {
            sub.make(client, 1).await;
        }
        let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
        settle(&mut sensor, [&mut live, &mut slow, &mut away]).await;
        away.disconnect(0).await;
        away.rest().await;
        let mut frames = Vec::new();
        for (case, id) in cases.iter().zip(1..) {
            publish(&mut sensor, case, id).await;
            frames.extend(take(&mut live, 1).await);
        }
        let live = by_topic(&frames, mqtt);
        assert_eq!(live.len(), cases.len());
        for case in &cases {
            let kept = case.retain && sub.options & RETAIN_AS_PUBLISHED > 0;
            assert_eq!(live[&case.topic()].retain, kept, "{sub:?} {}", case.topic());
        }

        let mut away = host.raw(Hello::persistent(mqtt, "away")).await;
        assert!(away.session_present);
        equal(
            "offline",
            sub,
            &live,
            &by_topic(&take(&mut away, cases.len()).await, mqtt),
        );
        host.metric_exceeds("messages_deferred_total", 0.0).await;
        equal(
            "catching up",
            sub,
            &live,
            &by_topic(&take(&mut slow, cases.len()).await, mqtt),
        );

        let mut late = host.raw(Hello::clean(mqtt, "late")).await;
        sub.make(&mut late, 1).await;
        let retained = take(&mut late, cases.iter().filter(|case| case.retain).count()).await;
        let mut retained = by_topic(&retained, mqtt);
        for seen in retained.values_mut() {
            assert!(seen.retain, "{sub:?} {}", seen.topic);
            seen.same[0] = seen.same[0] & !1 | u8::from(live[&seen.topic].retain);
        }
        let live = live.into_iter().filter(|(topic, _)| topic.ends_with("true")).collect();
        equal("retained", sub, &live, &retained);
    }
}

#[tokio::test]
async fn subscriptions_that_overlap_give_one_copy_with_all_their_identifiers_from_the_store_too() {
    let host = Host::start().await;
    let subs = [("t/#", 1, 1), ("t/🐦/#", 2 | 0x08, 2), ("t/+/plain/#", 0, 3)];
    let subs = subs.map(|(filter, options, identifier)| Subscription {
        mqtt: Mqtt::V5,
        filter,
        options,
        identifier: Some(identifier),
    });
    let mut live = host.raw(Hello::clean(Mqtt::V5, "live")).await;
    let mut away = host.raw(Hello::persistent(Mqtt::V5, "away")).await;
    for (sub, id) in subs.iter().zip(1..) {
        sub.make(&mut live, id).await;
        sub.make(&mut away, id).await;
    }
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    settle(&mut sensor, [&mut live, &mut away]).await;
    away.disconnect(0).await;
    away.rest().await;
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.name == "plain").collect();
    for (case, id) in cases.iter().zip(1..) {
        publish(&mut sensor, case, id).await;
    }
    let live = by_topic(&take(&mut live, cases.len()).await, Mqtt::V5);
    assert!(live.values().all(|seen| seen.qos > 0), "the highest QoS counts");
    let mut away = host.raw(Hello::persistent(Mqtt::V5, "away")).await;
    equal(
        "offline",
        subs[0],
        &live,
        &by_topic(&take(&mut away, cases.len()).await, Mqtt::V5),
    );
    assert_eq!(away.ping().await, [], "one copy");
}

#[tokio::test]
async fn who_was_away_hears_that_a_retained_message_was_cleared() {
    let sub = Subscription {
        mqtt: Mqtt::V5,
        filter: "t/#",
        options: 2 | 0x08,
        identifier: None,
    };
    let host = Host::start().await;
    let mut live = host.raw(Hello::clean(Mqtt::V5, "live")).await;
    let mut away = host.raw(Hello::persistent(Mqtt::V5, "away")).await;
    sub.make(&mut live, 1).await;
    sub.make(&mut away, 1).await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    settle(&mut sensor, [&mut live, &mut away]).await;
    away.disconnect(0).await;
    away.rest().await;
    let mut clear = cases().remove(0);
    (clear.retain, clear.payload) = (true, Vec::new());
    publish(&mut sensor, &clear, 1).await;
    let live = by_topic(&take(&mut live, 1).await, Mqtt::V5);
    let mut away = host.raw(Hello::persistent(Mqtt::V5, "away")).await;
    equal("offline", sub, &live, &by_topic(&take(&mut away, 1).await, Mqtt::V5));
}

#[tokio::test]
async fn what_the_broker_itself_retains_is_what_came_live() {
    let sub = Subscription {
        mqtt: Mqtt::V5,
        filter: "t/#",
        options: 2 | 0x08,
        identifier: Some(7),
    };
    let host = Host::plan().rules(&[]).start().await;
    let mut live = host.raw(Hello::clean(Mqtt::V5, "live")).await;
    sub.make(&mut live, 1).await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    settle(&mut sensor, [&mut live]).await;
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.retain).collect();
    for (case, id) in cases.iter().zip(1..) {
        publish(&mut sensor, case, id).await;
    }
    let live = by_topic(&take(&mut live, cases.len()).await, Mqtt::V5);
    let mut late = host.raw(Hello::clean(Mqtt::V5, "late")).await;
    sub.make(&mut late, 1).await;
    let retained = by_topic(&take(&mut late, cases.len()).await, Mqtt::V5);
    equal("retained", sub, &live, &retained);
}
