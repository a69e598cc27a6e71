//! SUBSCRIBE, UNSUBSCRIBE and subscriptions that the operator makes for a client.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::model::event::{Effect, Event};
use crate::model::id::MessageId;
use crate::model::message::{Qos, Subscription};
use crate::model::reason::Reason;
use crate::model::topic::TopicError;
use crate::mqtt::limits::Limit;
use crate::mqtt::packet::{Outgoing, Subscribe, Unsubscribe};

use super::keep::{Held, subscribed, unsubscribed};
use super::outbound::Delivery;
use super::reader::ReaderKey;
use super::replay::{Occasion, Replay};
use super::{Map, Now, ReadId, Session, Step, Steps, SubId};

/// One subscription and what it reads.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) subscription: Subscription,
    /// What is sent back with every match: none or one identifier.
    pub(super) identifiers: Arc<[u32]>,
    pub(super) readers: Vec<ReaderKey>,
    /// Its whole filter, where it is shared: its group.
    pub(super) share: Option<Arc<str>>,
    /// While it is there, live messages wait or are left to the store.
    pub(super) replay: Option<Replay>,
    /// Whether the subscription was new when it was last made (Retain Handling 1).
    pub(super) is_new: bool,
    /// The client itself subscribed; otherwise the operator did (spec C4), who keeps that.
    own: bool,
    /// It waits for its turn to read.
    pub(super) waits_for_turn: bool,
    /// Messages that were lately sent from a store: their live copies may still be on the way.
    recent: VecDeque<MessageId>,
}

/// Messages that are remembered as lately sent from a store.
const RECENT_MAX: usize = 1024;
/// How long a live copy may be on the way, in microseconds of message ids.
const ON_THE_WAY_MICROS: u64 = 30_000_000;

impl Sub {
    fn new(subscription: Subscription, own: bool) -> Self {
        let share = subscription.share.is_some().then(|| subscription.full_filter().into());
        Self {
            share,
            identifiers: subscription.identifier.into_iter().collect(),
            subscription,
            readers: Vec::new(),
            replay: None,
            is_new: false,
            own,
            waits_for_turn: false,
            recent: VecDeque::new(),
        }
    }

    /// Whether the client itself subscribed.
    pub(super) fn is_own(&self) -> bool {
        self.own
    }

    /// Whether the SUBSCRIBE that made it asks for retained messages ([MQTT-3.3.1-9] and on).
    pub(super) fn asks_for_retained(&self) -> bool {
        self.subscription.asks_for_retained(self.is_new)
    }

    /// This message was sent from a store.
    pub(super) fn sent_from_store(&mut self, id: MessageId) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
    }

    /// The copy of this message that was read with the retained ones did not go out after all.
    pub(super) fn was_not_sent(&mut self, id: MessageId) {
        self.recent.retain(|sent| *sent != id);
        if let Some(replay) = &mut self.replay {
            replay.retained_sent.remove(&id);
        }
    }

    /// Whether the live copy of this message comes too late: the replay was faster.
    pub(super) fn has_sent(&mut self, id: MessageId) -> bool {
        let Some(newest) = self.recent.back() else { return false };
        if id.micros() > newest.micros() + ON_THE_WAY_MICROS {
            self.recent.clear();
            return false;
        }
        self.recent.contains(&id)
    }
}

/// A SUBACK on its way.
#[derive(Debug)]
struct Waiting {
    packet_id: u16,
    reasons: Vec<Reason>,
    /// The subscriptions that the packet made.
    subs: Vec<SubId>,
    /// Questions that must be answered first: where a reader begins.
    begins: VecDeque<ReadId>,
    /// Commits of the subscriptions themselves, which nothing replaces.
    keeps: VecDeque<ReadId>,
    /// When it no longer waits for questions; set once everything was asked.
    due: Option<Instant>,
}

impl Waiting {
    /// Whether everything was asked and answered.
    fn is_done(&self) -> bool {
        self.due.is_some() && self.begins.is_empty() && self.keeps.is_empty()
    }
}

/// The subscriptions of a session.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) subs: Map<SubId, Sub>,
    names: HashMap<String, SubId, RandomState>,
    next: SubId,
    waiting: VecDeque<Waiting>,
    /// The subscriptions that replay, and perhaps some that no longer do.
    pub(super) replaying: Vec<SubId>,
}

impl Subscriptions {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let asking = self.waiting.iter().filter(|waiting| !waiting.begins.is_empty());
        asking.filter_map(|waiting| waiting.due).min()
    }

    /// The connection has gone: nobody awaits a SUBACK.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// What was found in a store.
    pub(super) fn restore(&mut self, found: Subscription) -> SubId {
        self.next += 1;
        self.names.insert(found.full_filter(), self.next);
        self.subs.insert(self.next, Sub::new(found, true));
        self.next
    }

    /// Every subscription, in the order in which they were first made.
    pub(super) fn in_order(&self) -> Vec<SubId> {
        let mut subs: Vec<SubId> = self.subs.keys().copied().collect();
        subs.sort_unstable();
        subs
    }

    /// What the client itself subscribed to.
    pub(super) fn own(&self) -> Vec<(SubId, Subscription)> {
        let known = self.in_order().into_iter();
        let known = known.filter_map(|id| Some((id, self.subs.get(&id).filter(|sub| sub.own)?)));
        known.map(|(id, sub)| (id, sub.subscription.clone())).collect()
    }

    /// The subscription to exactly this filter that is not shared.
    fn of_filter(&self, filter: &str) -> Option<SubId> {
        self.names.get(filter).copied()
    }

    /// The subscriptions with wildcards that are not shared, for [`Subscriptions::matching`].
    pub(super) fn wild(&self) -> Vec<SubId> {
        let wild = |sub: &Sub| sub.subscription.share.is_none() && !sub.subscription.filter.is_exact();
        let found = self.subs.iter().filter(|(_, sub)| wild(sub));
        found.map(|(id, _)| *id).collect()
    }

    /// The subscriptions, not shared, that match a topic; `wild` are those with wildcards.
    pub(super) fn matching(&self, topic: &str, wild: &[SubId]) -> SmallVec<[SubId; 4]> {
        let matches = |id: &SubId| {
            let sub = self.subs.get(id);
            sub.is_some_and(|sub| sub.subscription.filter.matches(topic))
        };
        let wild = wild.iter().copied().filter(matches);
        self.of_filter(topic).into_iter().chain(wild).collect()
    }

    /// The SUBACK of this packet waits for the answer to this question.
    pub(super) fn wait_for(&mut self, packet_id: Option<u16>, read: ReadId) {
        if let Some(waiting) = packet_id.and_then(|packet_id| self.being_asked(packet_id)) {
            waiting.begins.push_back(read);
        }
    }

    /// The same for a question that it may wait for already: its answer comes once.
    pub(super) fn wait_again_for(&mut self, packet_id: Option<u16>, read: ReadId) {
        let waiting = packet_id.and_then(|packet_id| self.being_asked(packet_id));
        if !waiting.is_some_and(|waiting| waiting.begins.contains(&read)) {
            self.wait_for(packet_id, read);
        }
    }

    /// The SUBACK of the SUBSCRIBE whose questions are being asked. A client may have used its identifier for
    /// an earlier one that still waits; that one has been asked for.
    fn being_asked(&mut self, packet_id: u16) -> Option<&mut Waiting> {
        let mut waiting = self.waiting.iter_mut();
        waiting.find(|waiting| waiting.packet_id == packet_id && waiting.due.is_none())
    }

    /// SUBSCRIBEs that have no SUBACK yet.
    pub(super) fn unanswered(&self) -> usize {
        self.waiting.len()
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, packet: Subscribe, steps: &mut Steps) {
        let packet_id = packet.packet_id;
        let mut waiting = Waiting {
            packet_id,
            reasons: Vec::new(),
            subs: Vec::new(),
            begins: VecDeque::new(),
            keeps: VecDeque::new(),
            due: None,
        };
        for asked in packet.filters {
            match self.grant(asked) {
                Ok(mut subscription) => {
                    subscription.identifier = packet.identifier;
                    waiting.reasons.push(Reason(subscription.qos as u8));
                    let (kept, owes_retained) = (subscription.clone(), self.will_owe_retained(&subscription));
                    let keep = |client| subscribed(client, kept, owes_retained);
                    waiting.keeps.extend(self.keep(keep, Held::SubAck, steps));
                    waiting.subs.push(self.add(subscription, Some(packet_id), steps));
                }
                Err((reason, limit)) => {
                    waiting.reasons.push(reason);
                    steps.extend(limit.map(Step::Limit));
                }
            }
        }
        self.subscriptions.waiting.push_back(waiting);
        steps.push_back(Step::Answer(packet_id));
    }

    /// What the client gets of what it asked for.
    fn grant(&self, asked: Result<Subscription, TopicError>) -> Result<Subscription, (Reason, Option<Limit>)> {
        let asked = asked.map_err(|_| (Reason::TOPIC_FILTER_INVALID, None))?;
        let Subscriptions { subs, names, .. } = &self.subscriptions;
        if let Some(limit) = self.limits.exceeded_by(asked.filter.as_str()) {
            return Err((Reason::TOPIC_FILTER_INVALID, Some(limit)));
        }
        let full = self.limits.subscriptions_max > 0 && subs.len() >= self.limits.subscriptions_max;
        if full && !names.contains_key(&asked.full_filter()) {
            return Err((Reason::QUOTA_EXCEEDED, Some(Limit::Subscriptions)));
        }
        Ok(Subscription {
            qos: asked.qos.min(self.limits.qos_max),
            ..asked
        })
    }

    /// Whether the client will not have every retained message that it asks for, or asked for before, with this
    /// subscription. What is sent with QoS 0 is not owed.
    fn will_owe_retained(&self, subscription: &Subscription) -> bool {
        let known = self.subscriptions.names.get(&subscription.full_filter());
        let asks = subscription.asks_for_retained(known.is_none()) && subscription.qos > Qos::AtMostOnce;
        asks || known.is_some_and(|sub| self.rounds.is_under_way(*sub))
    }

    /// Makes or replaces a subscription: the route first, then the rules.
    fn add(&mut self, subscription: Subscription, packet_id: Option<u16>, steps: &mut Steps) -> SubId {
        let name = subscription.full_filter();
        let known = self.subscriptions.names.get(&name).copied();
        let sub = known.unwrap_or_else(|| {
            self.subscriptions.next += 1;
            self.subscriptions.names.insert(name, self.subscriptions.next);
            self.subscriptions.next
        });
        let own = packet_id.is_some();
        let entry = self.subscriptions.subs.entry(sub);
        let entry = entry.or_insert_with(|| Sub::new(subscription.clone(), own));
        entry.subscription = subscription.clone();
        entry.identifiers = subscription.identifier.into_iter().collect();
        entry.is_new = known.is_none();
        entry.own |= own;
        entry.restart();
        let share = entry.share.clone();
        let asks = entry.asks_for_retained() && entry.own && subscription.qos > Qos::AtMostOnce;
        match asks {
            true => self.rounds.begin(sub, subscription.full_filter(), false),
            false => self.rounds.read_no_more(sub),
        }
        self.subscriptions.replaying.push(sub);
        steps.push_back(Step::Route(sub, subscription.clone()));
        steps.extend(share.map(Step::Joined));
        let client = Arc::clone(&self.client);
        steps.push_back(Step::Subscribed {
            sub,
            packet_id,
            event: Event::SessionSubscribed { client, subscription },
        });
        sub
    }

    /// Subscribes on the operator's behalf (spec C4): as if the client had asked, without a SUBACK.
    pub(super) fn subscribe_for(&mut self, subscriptions: Vec<Subscription>, steps: &mut Steps) {
        for subscription in subscriptions {
            let name = subscription.full_filter();
            let same = self.subscriptions.names.get(&name).filter(|sub| {
                let known = self.subscriptions.subs.get(sub);
                known.is_some_and(|known| known.subscription.qos == subscription.qos)
            });
            if same.is_some() && self.readings_of(&name) {
                continue; // its readers go on; a second replay would only find what they know
            }
            if let Ok(subscription) = self.grant(Ok(subscription)) {
                let sub = self.add(subscription, None, steps);
                self.subscriptions.subs.entry(sub).and_modify(Sub::allow_replay);
            }
        }
    }

    fn readings_of(&self, name: &str) -> bool {
        let sub = self
            .subscriptions
            .of_filter(name)
            .and_then(|sub| self.subscriptions.subs.get(&sub));
        sub.is_some_and(|sub| !sub.readers.is_empty())
    }

    /// The rules of a subscription have run; this is what they ask for.
    pub fn subscribed(
        &mut self,
        sub: SubId,
        packet_id: Option<u16>,
        effects: Vec<Effect>,
        now: &mut Now<'_>,
        steps: &mut Steps,
    ) {
        self.begin_replay(sub, Occasion::Subscribe(packet_id), effects, now, steps);
        if packet_id.is_none() {
            self.drive(sub, now, steps);
        }
    }

    /// An effect that names its filter: a component's, outside a SUBSCRIBE.
    pub(super) fn apply_to_filter(&mut self, effect: Effect, now: &mut Now<'_>, steps: &mut Steps) {
        let filter = match &effect {
            Effect::Retained(filter, ..) => filter.clone(),
            Effect::Backlog(backlog) => backlog.reader.filter.clone(),
            Effect::Lookup(_) | Effect::Subscribe(_) => return,
        };
        if let Some(sub) = self.subscriptions.of_filter(filter.as_str()) {
            self.subscribed(sub, None, vec![effect], now, steps);
        }
    }

    /// The routes and rules of this SUBSCRIBE are done: its SUBACK leaves, unless a row must be there first.
    pub fn answer(&mut self, packet_id: u16, now: &mut Now<'_>, steps: &mut Steps) {
        let due = now.instant + self.limits.suback_patience;
        if let Some(waiting) = self.subscriptions.being_asked(packet_id) {
            waiting.due = Some(due);
        }
        self.answer_subscribers(now, steps);
    }

    /// A question or a commit that a SUBACK may wait for was answered.
    pub(super) fn answered(&mut self, read: ReadId, now: &mut Now<'_>, steps: &mut Steps) {
        for waiting in &mut self.subscriptions.waiting {
            // Answers come in the order of the questions, more or less.
            for questions in [&mut waiting.begins, &mut waiting.keeps] {
                if let Some(at) = questions.iter().position(|asked| *asked == read) {
                    questions.remove(at);
                }
            }
        }
        self.answer_subscribers(now, steps);
    }

    fn answer_subscribers(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        // SUBACKs leave in the order of their SUBSCRIBEs ([MQTT-4.6.0] leaves it open; clients expect it).
        while self.subscriptions.waiting.front().is_some_and(Waiting::is_done) {
            self.send_first_suback(steps);
            self.drive_replays_now(now, steps);
        }
    }

    pub(super) fn answer_late_subscribers(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        for waiting in &mut self.subscriptions.waiting {
            if waiting.due.is_some_and(|due| due <= now.instant) {
                waiting.begins.clear();
            }
        }
        let mut sent = false;
        while self.subscriptions.waiting.front().is_some_and(Waiting::is_done) {
            self.send_first_suback(steps);
            sent = true;
        }
        if sent {
            self.drive_replays_now(now, steps);
        }
    }

    fn send_first_suback(&mut self, steps: &mut Steps) {
        let Some(Waiting {
            packet_id,
            reasons,
            subs,
            ..
        }) = self.subscriptions.waiting.pop_front()
        else {
            return;
        };
        steps.push_back(Step::Send(Outgoing::SubAck { packet_id, reasons }));
        for sub in subs {
            self.subscriptions.subs.entry(sub).and_modify(Sub::allow_replay);
        }
    }

    pub(super) fn unsubscribe(&mut self, packet: Unsubscribe, now: &mut Now<'_>, steps: &mut Steps) {
        let packet_id = packet.packet_id;
        let (mut kept, mut held) = (Vec::new(), VecDeque::new());
        let reasons = packet.filters.into_iter().map(|wanted| {
            let Ok((share, filter)) = wanted else {
                return Reason::TOPIC_FILTER_INVALID;
            };
            let name = Subscription {
                share,
                ..Subscription::new(filter.clone(), Qos::AtMostOnce)
            }
            .full_filter();
            let Some(sub) = self.subscriptions.names.remove(&name) else {
                return Reason::NO_SUBSCRIPTION_EXISTED;
            };
            if self.subscriptions.subs.get(&sub).is_some_and(|sub| sub.own) {
                kept.push(name);
            }
            held.append(&mut self.remove(sub, steps));
            let event = Event::SessionUnsubscribed {
                client: Arc::clone(&self.client),
                filter,
            };
            steps.push_back(Step::Fire(event));
            Reason::SUCCESS
        });
        let reasons = reasons.collect();
        // What waited for delivery may be delivered (3.10.4), and another subscription may match it.
        held.into_iter()
            .for_each(|delivery| self.enqueue_or_defer(delivery, now, steps));
        let answer = Outgoing::UnsubAck { packet_id, reasons };
        let Some(last) = kept.pop().filter(|_| self.is_kept()) else {
            return steps.push_back(Step::Send(answer));
        };
        // Commits come in order: the last one stands for all.
        for filter in kept {
            self.keep(|client| unsubscribed(client, filter), Held::Nothing, steps);
        }
        self.keep(|client| unsubscribed(client, last), Held::UnsubAck(answer), steps);
    }

    /// The client is there again: its groups are told.
    pub(super) fn rejoin_groups(&self, steps: &mut Steps) {
        let groups = self.subscriptions.subs.values().filter_map(|sub| sub.share.clone());
        steps.extend(groups.map(Step::Joined));
    }

    /// Removes every route, because the session ends.
    pub(super) fn unroute_all(&mut self, steps: &mut Steps) {
        // Nothing of a session that was restored and whose client never came back is routed.
        if !self.is_restored {
            let subs = self.subscriptions.in_order();
            subs.into_iter().for_each(|sub| _ = self.remove(sub, steps));
        }
        self.subscriptions.names.clear();
    }

    /// Ends a subscription. Answers what it held and no store has.
    fn remove(&mut self, sub: SubId, steps: &mut Steps) -> VecDeque<Delivery> {
        let (others, held) = self.stop_reading(sub);
        if let Some(sub_gone) = self.subscriptions.subs.remove(&sub) {
            steps.push_back(Step::Unroute(sub, sub_gone.subscription));
            if let Some(group) = sub_gone.share {
                self.hand_on_unsent(&group, steps);
            }
        }
        self.read_later(others, steps);
        held
    }

    /// Answers the readers of other subscriptions for which this one held messages, and those that no store has.
    fn stop_reading(&mut self, sub: SubId) -> (Vec<ReaderKey>, VecDeque<Delivery>) {
        self.rounds.end(sub);
        let Some(known) = self.subscriptions.subs.get_mut(&sub) else {
            return Default::default();
        };
        let mut hold = known.replay.take().map(|replay| replay.hold).unwrap_or_default();
        let mut others = hold.overflow();
        others.retain(|key| !known.readers.contains(key));
        known.readers.drain(..).for_each(|key| self.readers.remove(key));
        (others, hold.held)
    }
}
