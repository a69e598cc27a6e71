//! Who publishes under load, remembers what was acknowledged, and goes on after a crash where it was.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::Notify;

use crate::harness::Mqtt;
use crate::harness::raw::{Raw, Said};

/// One publisher's story over all rounds. Its n-th message says "name n".
pub(super) struct Publisher {
    pub(super) name: &'static str,
    pub(super) mqtt: Mqtt,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) window: usize,
    sent: u32,
    /// Sent and not acknowledged, by packet identifier.
    open: BTreeMap<u16, u32>,
    /// PUBREC heard and PUBCOMP not, by packet identifier.
    unreleased: BTreeSet<u16>,
    pub(super) acknowledged: BTreeSet<u32>,
}

/// What the publishers of one round share.
pub(super) struct Round {
    pub(super) acknowledged: Cell<u32>,
    pub(super) target: u32,
    pub(super) due: Notify,
}

impl Publisher {
    pub(super) fn new(name: &'static str, mqtt: Mqtt, qos: u8, retain: bool) -> Self {
        let (open, unreleased, acknowledged) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self {
            name,
            mqtt,
            qos,
            retain,
            window: 1,
            sent: 0,
            open,
            unreleased,
            acknowledged,
        }
    }

    pub(super) fn topic(&self) -> String {
        format!("crash/{}", self.name)
    }

    pub(super) fn payload(&self, number: u32) -> String {
        format!("{} {number}", self.name)
    }

    /// Publishes with a full window until the host is gone.
    pub(super) async fn publish_until_the_end(&mut self, mut raw: Raw, round: &Round) {
        self.resend(&mut raw).await;
        loop {
            while self.open.len() < self.window {
                self.publish(&mut raw).await;
            }
            match raw.next().await {
                Said::PubAck(id, 0) => self.note(id, round),
                Said::PubRec(id, 0) => {
                    self.note(id, round);
                    self.unreleased.insert(id);
                    raw.pubrel(id).await;
                }
                Said::PubComp(id) => {
                    self.unreleased.remove(&id);
                }
                Said::End => return,
                other => panic!("{} was answered {other:?}", self.name),
            }
        }
    }

    /// What a client does that reconnects to its session.
    async fn resend(&mut self, raw: &mut Raw) {
        assert!(
            raw.session_present || self.sent == 0,
            "{}: its session did not survive",
            self.name
        );
        for (&id, &number) in &self.open {
            raw.again(id, self.qos, &self.topic(), self.payload(number)).await;
        }
        for &id in &self.unreleased {
            raw.pubrel(id).await;
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
