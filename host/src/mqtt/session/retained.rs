//! The retained messages that a SUBSCRIBE asks for (MQTT 3.3.1.3). Until its client has them all the store says that
//! they are owed, so that a session that is read back from there sends them again; and until then exchanges of QoS 2
//! that have ended are remembered, so that it does not send those again.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::model::delivery::Position;
use crate::model::session::{Keep, SessionWrite};

use super::keep::Held;
use super::reader::{ReaderKey, Readers};
use super::{Map, Session, Steps, SubId};

/// Names a round within its session; never used again.
pub(super) type RoundKey = u32;

/// A round that has not ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) key: RoundKey,
    /// It was begun before the session was read from the store: some of its messages may have been sent.
    pub(super) again: bool,
}

/// The retained messages of one SUBSCRIBE.
#[derive(Debug)]
struct Round {
    sub: SubId,
    /// The whole filter of the subscription, as the store knows it.
    filter: String,
    again: bool,
    /// Copies of QoS 1 and 2 that the client has not acknowledged.
    under_way: usize,
    /// There were any.
    has_sent: bool,
    /// Set once everything was read: how far the subscription's readers had read then. A message that is both
    /// retained and unread has been seen by all of them.
    read: Option<SmallVec<[(ReaderKey, Position); 1]>>,
}

/// The rounds that have not ended.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    open: BTreeMap<RoundKey, Round>,
    /// Which is whose: a client may have tens of thousands of subscriptions.
    by_sub: Map<SubId, RoundKey>,
    last: RoundKey,
}

impl Rounds {
    /// Begins the round of a subscription, in the place of an earlier one.
    pub(super) fn begin(&mut self, sub: SubId, filter: String, again: bool) {
        self.end(sub);
        self.last += 1;
        let round = Round {
            sub,
            filter,
            again,
            under_way: 0,
            has_sent: false,
            read: None,
        };
        self.open.insert(self.last, round);
        self.by_sub.insert(sub, self.last);
    }

    /// A subscription that is made again asks for no retained messages: only what is under way is still owed.
    pub(super) fn read_no_more(&mut self, sub: SubId) {
        if self.is_under_way(sub) {
            self.has_read(sub, []);
        } else {
            self.end(sub);
        }
    }

    /// The subscription is over.
    pub(super) fn end(&mut self, sub: SubId) {
        if let Some(key) = self.by_sub.remove(&sub) {
            self.open.remove(&key);
        }
    }

    /// Whether nothing would be sent twice if the session were read from the store.
    pub(super) fn can_rest(&self) -> bool {
        self.open.values().all(|round| !round.has_sent)
    }

    /// The round of a subscription.
    pub(super) fn of(&self, sub: SubId) -> Option<Open> {
        let key = *self.by_sub.get(&sub)?;
        let again = self.open.get(&key)?.again;
        Some(Open { key, again })
    }

    /// Whether messages of this subscription's round are still to be acknowledged.
    pub(super) fn is_under_way(&self, sub: SubId) -> bool {
        let open = self.by_sub.get(&sub).and_then(|key| self.open.get(key));
        open.is_some_and(|round| round.under_way > 0)
    }

    /// A copy is on its way.
    pub(super) fn sends(&mut self, round: Option<RoundKey>) {
        if let Some(round) = round.and_then(|key| self.open.get_mut(&key)) {
            round.under_way += 1;
            round.has_sent = true;
        }
    }

    /// A copy was acknowledged, or cannot be sent. Answers whether that may end the round.
    pub(super) fn acked(&mut self, round: Option<RoundKey>) -> bool {
        let Some(round) = round.and_then(|key| self.open.get_mut(&key)) else {
            return false;
        };
        round.under_way = round.under_way.saturating_sub(1);
        round.under_way == 0
    }

    /// Everything that the subscription had to read was read; its readers stand there. Answers whether that may end a
    /// round.
    pub(super) fn has_read(&mut self, sub: SubId, readers: impl IntoIterator<Item = (ReaderKey, Position)>) -> bool {
        let key = self.by_sub.get(&sub);
        let Some(round) = key.and_then(|key| self.open.get_mut(key)) else {
            return false;
        };
        round.read.get_or_insert_with(|| readers.into_iter().collect());
        true
    }

    /// The latest round that has not ended.
    pub(super) fn latest(&self) -> Option<RoundKey> {
        self.open.last_key_value().map(|(key, _)| *key)
    }

    /// Whether this round and all before it have ended.
    pub(super) fn have_ended(&self, through: Option<RoundKey>) -> bool {
        through.is_none_or(|through| self.open.range(..=through).next().is_none())
    }

    fn take_done(&mut self, readers: &Readers) -> Vec<Round> {
        let is_done = |round: &Round| {
            let mut read = round.read.iter().flatten();
            round.under_way == 0
                && round.read.is_some()
                && read.all(|(key, through)| readers.get(*key).is_none_or(|it| it.is_written_through(*through)))
        };
        let done = self.open.extract_if(.., |_, round| is_done(round));
        let done: Vec<Round> = done.map(|(_, round)| round).collect();
        for round in &done {
            self.by_sub.remove(&round.sub);
        }
        done
    }
}

impl Session {
    /// Ends the rounds whose messages the client has, in the store too.
    pub(super) fn end_rounds(&mut self, steps: &mut Steps) {
        for Round { filter, .. } in self.rounds.take_done(&self.readers) {
            let sent = |client| Keep::Session(SessionWrite::RetainedSent(client, filter));
            self.keep(sent, Held::Nothing, steps);
        }
    }
}
