//! What of a session outlives this process (spec C16): its changes are written to a store, and what a client may
//! hear only when they are there waits for them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::model::delivery::PoolName;
use crate::model::event::Event;
use crate::model::id::MessageId;
use crate::model::message::{Client, ClientId, Subscription};
use crate::model::reason::Reason;
use crate::model::session::{
    Attached, Direction, Exchange, ExchangeKey, Keep, Keeping, SavedSession, SavedSubscription, SessionWrite,
    session_expiry, will_delay,
};
use crate::mqtt::limits::Limits;
use crate::mqtt::packet::{Outgoing, Version};

use super::connect::PendingWill;
use super::{Map, Now, ReadId, Session, Step, Steps};

/// What waits for a commit of the session's own state.
#[derive(Debug)]
pub(super) enum Held {
    /// Nothing but its failure matters.
    Nothing,
    /// The SUBACK of a SUBSCRIBE, which knows for which commits it waits.
    SubAck,
    /// An UNSUBACK of this connection.
    UnsubAck(Outgoing),
    /// The PUBCOMP for this packet identifier.
    PubComp(u16),
    /// The PUBLISH with this packet identifier.
    Publish(u16),
    /// The PUBREL for this packet identifier.
    PubRel(u16),
}

/// Where the session is kept, and what waits for that.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// Where everything of it was written; `None` while it is not kept.
    at: Option<Keeping>,
    /// What the broker said last: compared to notice a reload.
    seen: Option<Keeping>,
    /// A write failed: what the store has is not all there is.
    unsaved: bool,
    held: Map<ReadId, Held>,
}

impl Keeper {
    /// Where the session is kept.
    pub(super) fn pool(&self) -> Option<&PoolName> {
        self.at.as_ref().map(|keeping| &keeping.pool)
    }

    /// Changes that are not there yet.
    pub(super) fn outstanding(&self) -> usize {
        self.held.len()
    }

    /// Whether the store has everything.
    pub(super) fn is_settled(&self) -> bool {
        self.held.is_empty() && !self.unsaved
    }

    /// The connection has gone: whom an answer was meant for.
    pub(super) fn nobody_waits(&mut self) {
        for held in self.held.values_mut() {
            if matches!(held, Held::UnsubAck(_)) {
                *held = Held::Nothing;
            }
        }
    }
}

impl Session {
    /// Whether it outlives this process.
    pub fn is_kept(&self) -> bool {
        self.keeper.at.is_some()
    }

    /// The session as it was kept, without its client; nothing of it is routed yet. What came due meanwhile
    /// happens at the next [`Session::tick`].
    pub fn restore(limits: Arc<Limits>, saved: SavedSession, keeping: Keeping, now: &Now<'_>) -> Self {
        let left_at = saved.left_at.unwrap_or(now.wall);
        let client = Arc::new(saved.client());
        let expiry_s = client.session_expiry_s;
        let version = match client.protocol {
            5 => Version::V5,
            4 => Version::V311,
            _ => Version::V31,
        };
        let mut session = Self::new(limits, client, version);
        let at = |after: Duration| instant_of(left_at + after, now);
        session.will = saved.attached.will.map(|will| PendingWill {
            at: Some(at(will_delay(will.delay_s, expiry_s))),
            will,
        });
        session.expires_at = session_expiry(expiry_s).map(at);
        session.received.restore(saved.received);
        for saved in saved.subscriptions {
            let filter = saved.subscription.full_filter();
            let sub = session.subscriptions.restore(saved.subscription);
            if saved.owes_retained {
                session.rounds.begin(sub, filter, true);
            }
        }
        session
            .outbound
            .restore(saved.sent, &keeping.pool, session.rounds.latest());
        session.give_terms();
        session.keeper.at = Some(keeping.clone());
        session.keeper.seen = Some(keeping);
        session.is_restored = true;
        session
    }

    /// Whether the store has all of it, as far as it has answered.
    pub fn is_saved(&self) -> bool {
        self.is_kept() && !self.keeper.unsaved
    }

    /// Its client comes back, for a longer Session Expiry Interval than before: a client that was told so must find its
    /// session even after a crash. Answers whether that has to be written first.
    pub fn live_longer(&mut self, expiry_s: u32, now: &mut Now<'_>, steps: &mut Steps) -> bool {
        if !self.is_kept() || expiry_s <= self.client.session_expiry_s {
            return false;
        }
        self.client = Arc::new(Client {
            session_expiry_s: expiry_s,
            ..Client::clone(&self.client)
        });
        self.expires_at = session_expiry(expiry_s).map(|expiry| now.instant + expiry);
        self.settle_down(now, steps);
        self.is_kept()
    }

    /// What was sent before a crash is sent again as it was: on the terms of the subscriptions.
    fn give_terms(&mut self) {
        for sent in self.outbound.sent.values_mut() {
            let Some(delivery) = &mut sent.delivery else { continue };
            let message = delivery.message();
            let (topic, retain) = (message.topic.clone(), message.retain);
            let matching = self.subscriptions.subs.values().filter(|sub| {
                let wanted = &sub.subscription;
                wanted.share.is_none() && wanted.filter.matches(topic.as_str())
            });
            let matching: Vec<_> = matching.collect();
            delivery.retain = retain && matching.iter().any(|sub| sub.subscription.retain_as_published);
            let mut identifiers: Vec<u32> = matching
                .iter()
                .flat_map(|sub| sub.identifiers.iter().copied())
                .collect();
            identifiers.sort_unstable();
            delivery.identifiers = identifiers.into();
        }
    }

    /// Keeps something, if the session is kept at all; `held` happens when it is there.
    pub(super) fn keep(
        &mut self,
        what: impl FnOnce(ClientId) -> Keep,
        held: Held,
        steps: &mut Steps,
    ) -> Option<ReadId> {
        self.keeper.at.as_ref()?;
        let id = self.new_read();
        self.keeper.held.insert(id, held);
        steps.push_back(Step::Keep(id, what(self.client.id.clone())));
        Some(id)
    }

    /// The answer to [`Step::Keep`]: whether it is there.
    pub fn kept(&mut self, id: ReadId, there: bool, now: &mut Now<'_>, steps: &mut Steps) {
        let Some(held) = self.keeper.held.remove(&id) else {
            return;
        };
        if !there {
            // What the client has seen is right; what the store has is not. Its next connection mends that.
            self.keeper.unsaved = true;
            return self.close(Reason::IMPLEMENTATION_SPECIFIC_ERROR, now, steps);
        }
        match held {
            Held::Nothing => {}
            Held::SubAck => self.answered(id, now, steps),
            Held::UnsubAck(answer) => steps.push_back(Step::Send(answer)),
            Held::PubComp(packet_id) => self.released(packet_id, steps),
            Held::Publish(packet_id) => self.transmit_kept(packet_id, now, steps),
            Held::PubRel(packet_id) => self.send_release(packet_id, steps),
        }
    }

    /// Notices that sessions are kept elsewhere, or no longer: then everything is written there.
    pub(super) fn follow_keeper(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        if now.keeps == self.keeper.seen.as_ref() {
            return;
        }
        self.settle_down(now, steps);
    }

    /// Makes sure that the store has all of the session, or nothing of one that ends with its connection.
    pub(super) fn settle_down(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        self.keeper.seen = now.keeps.cloned();
        if self.client.session_expiry_s == 0 {
            if now.keeps == self.keeper.at.as_ref() {
                let ended = |client| {
                    let positions = false;
                    Keep::Session(SessionWrite::Ended { client, positions })
                };
                self.keep(ended, Held::Nothing, steps);
            }
            return self.keep_no_longer(now, steps);
        }
        let Some(keeping) = now.keeps else {
            return self.keep_no_longer(now, steps);
        };
        let known = self.keeper.at.as_ref() == Some(keeping) && !self.keeper.unsaved;
        self.keeper.at = Some(keeping.clone());
        self.keeper.unsaved = false;
        self.keep_attached(steps);
        if !known {
            self.keep_all(steps);
        }
    }

    /// What waited for commits need not wait any more.
    fn keep_no_longer(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        if self.keeper.at.take().is_none() {
            return;
        }
        let mut waiting: Vec<ReadId> = self.keeper.held.keys().copied().collect();
        waiting.sort_unstable();
        waiting.into_iter().for_each(|id| self.kept(id, true, now, steps));
        // What waited for a commit that failed has nothing to wait for either.
        for (.., held) in self.outbound.exchanges() {
            match held {
                Held::Publish(packet_id) => self.transmit_kept(packet_id, now, steps),
                Held::PubRel(packet_id) => self.send_release(packet_id, steps),
                _ => {}
            }
        }
        self.received.unreleased();
    }

    fn keep_attached(&mut self, steps: &mut Steps) {
        let epoch = self.keeper.at.as_ref().map_or(0, |keeping| keeping.epoch);
        let attached = Attached {
            client: self.client.id.clone(),
            username: self.client.username.clone(),
            protocol: self.client.protocol,
            connected_at: self.client.connected_at,
            expiry_s: self.client.session_expiry_s,
            will: self.will.as_ref().map(|will| will.will.clone()),
            epoch,
        };
        self.keep(
            |_| Keep::Session(SessionWrite::Attached(Box::new(attached))),
            Held::Nothing,
            steps,
        );
    }

    /// Everything but the row of the session itself. Writing what is there already changes nothing.
    fn keep_all(&mut self, steps: &mut Steps) {
        for (sub, subscription) in self.subscriptions.own() {
            let owes_retained = self.rounds.of(sub).is_some();
            self.keep(
                |client| subscribed(client, subscription, owes_retained),
                Held::Nothing,
                steps,
            );
        }
        for (packet_id, id) in self.received.unreleased() {
            let exchange = |client| exchange(client, Direction::Received, packet_id, id, false);
            self.keep(exchange, Held::Nothing, steps);
        }
        for (packet_id, id, released, held) in self.outbound.exchanges() {
            self.keep(
                |client| exchange(client, Direction::Sent, packet_id, id, released),
                held,
                steps,
            );
        }
    }

    /// The client has gone; `expires` is when the session ends.
    pub(super) fn keep_left(&mut self, now: &Now<'_>, steps: &mut Steps) {
        let expiry_s = self.client.session_expiry_s;
        let expires = session_expiry(expiry_s).map(|expiry| now.wall + expiry);
        let will = self
            .will
            .as_ref()
            .map(|will| now.wall + will_delay(will.will.delay_s, expiry_s));
        let left = |client| {
            Keep::Session(SessionWrite::Left {
                client,
                at: now.wall,
                expiry_s,
                will: will.is_some(),
                due: will.into_iter().chain(expires).min(),
            })
        };
        self.keep(left, Held::Nothing, steps);
    }

    /// The will of an absent client was published.
    pub(super) fn keep_will_done(&mut self, now: &Now<'_>, steps: &mut Steps) {
        let left = self.expires_at.map(|at| at.saturating_duration_since(now.instant));
        let due = left.map(|left| now.wall + left);
        self.keep(
            |client| Keep::Session(SessionWrite::WillDone(client, due)),
            Held::Nothing,
            steps,
        );
    }

    /// The session is over.
    pub(super) fn keep_end(&mut self, steps: &mut Steps) {
        let positions = true;
        let ended = |client| Keep::Session(SessionWrite::Ended { client, positions });
        self.keep(ended, Held::Nothing, steps);
    }

    /// Routes and readers of a session that was restored: made when its client is back, not before.
    pub(super) fn return_to_subscriptions(&mut self, steps: &mut Steps) {
        if !std::mem::take(&mut self.is_restored) {
            return;
        }
        for sub in self.subscriptions.in_order() {
            let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
                continue;
            };
            let subscription = known.subscription.clone();
            known.restart();
            self.subscriptions.replaying.push(sub);
            let client = Arc::clone(&self.client);
            steps.push_back(Step::Route(sub, subscription.clone()));
            steps.push_back(Step::Returned(sub, Event::SessionSubscribed { client, subscription }));
        }
    }
}

/// A subscription that is to be kept.
pub(super) fn subscribed(client: ClientId, subscription: Subscription, owes_retained: bool) -> Keep {
    let saved = SavedSubscription {
        subscription,
        owes_retained,
    };
    Keep::Session(SessionWrite::Subscribed(client, saved))
}

/// A subscription that is kept no longer.
pub(super) fn unsubscribed(client: ClientId, filter: String) -> Keep {
    Keep::Session(SessionWrite::Unsubscribed(client, filter))
}

/// A QoS 2 exchange that is to be kept.
pub(super) fn exchange(client: ClientId, direction: Direction, packet_id: u16, id: MessageId, released: bool) -> Keep {
    let key = ExchangeKey {
        client,
        direction,
        packet_id,
        id,
    };
    Keep::Exchange(Exchange { key, released })
}

/// A QoS 2 exchange that is to be kept no longer.
pub(super) fn end_of_exchange(client: ClientId, direction: Direction, packet_id: u16, id: MessageId) -> Keep {
    Keep::EndExchange(ExchangeKey {
        client,
        direction,
        packet_id,
        id,
    })
}

/// A time of the wall clock on the monotonic one; now, where it has passed.
fn instant_of(at: SystemTime, now: &Now<'_>) -> Instant {
    now.instant + at.duration_since(now.wall).unwrap_or_default()
}
