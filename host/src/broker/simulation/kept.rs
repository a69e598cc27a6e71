//! Kept sessions (spec C16) as the store in memory has them: what a database would answer, to the second.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::delivery::Position;
use crate::model::id::MessageId;
use crate::model::message::{ClientId, Message};
use crate::model::session::{
    Attached, Direction, Exchange, ExchangeKey, SavedSent, SavedSession, SavedSubscription, SessionWrite, Will,
    session_expiry, will_delay,
};

/// Every kept session, by client.
#[derive(Default)]
pub(super) struct Kept {
    sessions: BTreeMap<ClientId, Row>,
    subscriptions: BTreeMap<ClientId, Vec<SavedSubscription>>,
    exchanges: BTreeMap<ClientId, Vec<Exchange>>,
}

struct Row {
    attached: Attached,
    left_at: Option<SystemTime>,
    due: Option<SystemTime>,
}

impl Kept {
    pub(super) fn change(&mut self, change: &SessionWrite) {
        match change {
            SessionWrite::Attached(attached) => {
                let row = Row {
                    attached: Attached {
                        connected_at: down(attached.connected_at),
                        ..Attached::clone(attached)
                    },
                    left_at: None,
                    due: None,
                };
                self.sessions.insert(attached.client.clone(), row);
            }
            SessionWrite::Left {
                client,
                at,
                expiry_s,
                will,
                due,
            } => {
                if let Some(row) = self.sessions.get_mut(client) {
                    (row.left_at, row.due) = (Some(down(*at)), due.map(up));
                    row.attached.expiry_s = *expiry_s;
                    row.attached.will.take_if(|_| !will);
                }
            }
            SessionWrite::WillDone(client, due) => {
                if let Some(row) = self.sessions.get_mut(client) {
                    row.attached.will = None;
                    row.due = due.map(up);
                }
            }
            SessionWrite::Subscribed(client, saved) => {
                let all = self.subscriptions.entry(client.clone()).or_default();
                let name = saved.subscription.full_filter();
                match all.iter_mut().find(|known| known.subscription.full_filter() == name) {
                    Some(known) => known.clone_from(saved),
                    None => all.push(saved.clone()),
                }
            }
            SessionWrite::RetainedSent(client, filter) => {
                let all = self.subscriptions.get_mut(client).into_iter().flatten();
                for known in all.filter(|known| known.subscription.full_filter() == *filter) {
                    known.owes_retained = false;
                }
            }
            SessionWrite::Unsubscribed(client, filter) => {
                if let Some(all) = self.subscriptions.get_mut(client) {
                    all.retain(|known| known.subscription.full_filter() != *filter);
                }
            }
            SessionWrite::Ended { client, .. } => {
                self.sessions.remove(client);
                self.subscriptions.remove(client);
                self.exchanges.remove(client);
            }
        }
    }

    pub(super) fn exchange(&mut self, exchange: &Exchange) {
        let all = self.exchanges.entry(exchange.key.client.clone()).or_default();
        let is_same = |known: &&mut Exchange| known.key == exchange.key;
        match all.iter_mut().find(is_same) {
            Some(known) => known.clone_from(exchange),
            None => all.push(exchange.clone()),
        }
    }

    pub(super) fn end_exchange(&mut self, ended: &ExchangeKey) {
        if let Some(all) = self.exchanges.get_mut(&ended.client) {
            all.retain(|known| known.key != *ended);
        }
    }

    /// A session, its sent messages as `find` finds them.
    pub(super) fn session(
        &self,
        client: &ClientId,
        find: impl Fn(MessageId) -> Option<(Position, Message)>,
    ) -> Option<SavedSession> {
        let Row { attached, left_at, .. } = self.sessions.get(client)?;
        let exchanges = self.exchanges.get(client).map_or(&[][..], Vec::as_slice);
        let of = |direction| exchanges.iter().filter(move |it| it.key.direction == direction);
        let sent = |it: &Exchange| SavedSent {
            packet_id: it.key.packet_id,
            id: it.key.id,
            released: it.released,
            message: find(it.key.id),
        };
        Some(SavedSession {
            attached: attached.clone(),
            left_at: *left_at,
            subscriptions: self.subscriptions.get(client).cloned().unwrap_or_default(),
            received: of(Direction::Received)
                .map(|it| (it.key.packet_id, it.key.id))
                .collect(),
            sent: of(Direction::Sent).map(sent).collect(),
        })
    }

    /// Whether this subscription is kept with this QoS.
    pub(super) fn has_subscription(&self, client: &ClientId, filter: &str, qos: u8) -> bool {
        let all = self.subscriptions.get(client).map_or(&[][..], Vec::as_slice);
        let mut all = all.iter().map(|known| &known.subscription);
        all.any(|known| known.full_filter() == filter && known.qos as u8 == qos)
    }

    /// The exchanges that are kept under this packet identifier.
    pub(super) fn of_packet(
        &self,
        client: &ClientId,
        direction: Direction,
        packet_id: u16,
    ) -> impl Iterator<Item = &Exchange> {
        let all = self.exchanges.get(client).map_or(&[][..], Vec::as_slice);
        all.iter()
            .filter(move |it| it.key.direction == direction && it.key.packet_id == packet_id)
    }

    pub(super) fn will(&self, client: &ClientId) -> Option<&Will> {
        self.sessions.get(client)?.attached.will.as_ref()
    }

    pub(super) fn after(&self, after: Option<&ClientId>, limit: usize) -> Vec<ClientId> {
        let behind = self
            .sessions
            .keys()
            .filter(|client| after.is_none_or(|after| *client > after));
        behind.take(limit).cloned().collect()
    }

    pub(super) fn due(&self, now: SystemTime, limit: usize) -> Vec<ClientId> {
        let now = down(now);
        let due = self
            .sessions
            .iter()
            .filter_map(|(client, row)| Some((row.due?, client)));
        let mut due: Vec<_> = due.filter(|(due, _)| *due <= now).collect();
        due.sort();
        due.into_iter().take(limit).map(|(_, client)| client.clone()).collect()
    }

    pub(super) fn mark_left(&mut self, epoch: u32, at: SystemTime) -> u64 {
        let mut marked = 0;
        let rows = self.sessions.values_mut();
        for row in rows.filter(|row| row.left_at.is_none() && row.attached.epoch != epoch) {
            let expiry_s = row.attached.expiry_s;
            row.left_at = Some(down(at));
            row.due = match &row.attached.will {
                Some(will) => Some(down(at) + will_delay(will.delay_s, expiry_s)),
                None => session_expiry(expiry_s).map(|expiry| down(at) + expiry),
            };
            marked += 1;
        }
        marked
    }

    /// Whether nothing is left of any exchange.
    pub(super) fn is_quiet(&self) -> bool {
        let mut all = self.exchanges.values().flatten();
        // A client that has lost its own session does not end what it has sent.
        all.all(|it| it.key.direction == Direction::Received)
    }
}

/// Whole seconds, down.
fn down(time: SystemTime) -> SystemTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

/// Whole seconds, up.
fn up(time: SystemTime) -> SystemTime {
    let down = down(time);
    if down == time {
        down
    } else {
        down + Duration::from_secs(1)
    }
}
