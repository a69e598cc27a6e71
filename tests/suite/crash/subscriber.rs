//! Who subscribes once, acknowledges in time, late or never, and relies on its session over all crashes.

use std::collections::{HashMap, HashSet, VecDeque};

use rand::Rng;
use rand::rngs::StdRng;

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};

/// A persistent subscriber, over all rounds.
pub(super) struct Subscriber {
    pub(super) name: &'static str,
    mqtt: Mqtt,
    filter: &'static str,
    qos: u8,
    subscribed: bool,
    /// Everything that it was sent.
    pub(super) received: HashSet<String>,
    /// QoS 2 messages between PUBLISH and PUBREL, by packet identifier: what a client keeps of its session.
    unreleased: HashMap<u16, String>,
    /// The highest number of each publisher so far.
    newest: HashMap<String, u32>,
    /// Acknowledgements that it owes.
    owed: VecDeque<(u16, u8)>,
}

impl Subscriber {
    pub(super) fn new(name: &'static str, mqtt: Mqtt, filter: &'static str, qos: u8) -> Self {
        Self {
            name,
            mqtt,
            filter,
            qos,
            subscribed: false,
            received: HashSet::new(),
            unreleased: HashMap::new(),
            newest: HashMap::new(),
            owed: VecDeque::new(),
        }
    }

    /// Connects, and subscribes the first time only: afterwards its session has to be there.
    pub(super) async fn connect(&mut self, host: &Host) -> Raw {
        let mut raw = host.raw(Hello::persistent(self.mqtt, self.name)).await;
        self.owed.clear();
        if self.subscribed {
            assert!(raw.session_present, "{}: its session did not survive", self.name);
        } else {
            assert_eq!(raw.subscribe(self.filter, self.qos).await, []);
            self.subscribed = true;
        }
        raw
    }

    /// Reads until this message comes or the host is gone. Acknowledges most messages at once, some late.
    pub(super) async fn follow(&mut self, raw: &mut Raw, last: &str, random: &mut StdRng) {
        loop {
            match raw.next().await {
                Said::Publish {
                    id, qos, dup, payload, ..
                } => {
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    self.take(id, qos, dup, &text);
                    self.owed.push_back((id, qos));
                    if text == last {
                        return self.acknowledge(raw, self.owed.len()).await;
                    }
                    // A window is never left full: the host would have nothing to say.
                    if self.owed.len() > 20 || random.random_bool(0.7) {
                        self.acknowledge(raw, self.owed.len()).await;
                    } else if random.random_bool(0.3) {
                        // Out of order: the oldest waits.
                        let newest = self.owed.pop_back();
                        self.owed.extend(newest);
                        self.owed.rotate_right(1);
                        self.acknowledge(raw, 1).await;
                    }
                }
                Said::PubRel(id) => {
                    self.unreleased.remove(&id);
                    raw.pubcomp(id).await;
                }
                Said::PubAck(..) => {}
                Said::End => return,
                other => panic!("{} reads {other:?}", self.name),
            }
        }
    }

    async fn acknowledge(&mut self, raw: &mut Raw, count: usize) {
        for (id, qos) in self.owed.drain(..count) {
            match qos {
                1 => raw.puback(id).await,
                2 => raw.pubrec(id).await,
                _ => {}
            }
        }
    }

    /// QoS 2: the same message again only under its packet identifier, and only until it was released. First
    /// deliveries of one publisher come in its order.
    fn take(&mut self, id: u16, qos: u8, dup: bool, text: &str) {
        let name = self.name;
        let known = self.received.contains(text);
        if qos == 2 {
            match self.unreleased.get(&id) {
                Some(before) => {
                    assert_eq!(
                        before, text,
                        "{name}: packet identifier {id} was used again before PUBREL"
                    );
                    assert!(dup, "{name}: {text:?} came again without DUP");
                }
                None => assert!(!known, "{name}: {text:?} came twice at QoS 2"),
            }
            self.unreleased.insert(id, text.to_owned());
        }
        if known {
            return;
        }
        self.received.insert(text.to_owned());
        if let Some((publisher, number)) = text.rsplit_once(' ')
            && let Ok(number) = number.parse()
        {
            let newest = self.newest.insert(publisher.to_owned(), number);
            assert!(
                newest.is_none_or(|newest| newest < number),
                "{name}: {text:?} came after {newest:?}"
            );
        }
    }
}
