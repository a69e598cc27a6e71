//! A store in memory: what it has committed survives crashes. It can be late, out of reach, commit without
//! anybody hearing of it, and refuse rows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::kept::Kept;
use super::scenario::{Mood, Weather};
use crate::model::clock;
use crate::model::delivery::{Page, Position, Reader, Window};
use crate::model::event::Start;
use crate::model::id::MessageId;
use crate::model::message::{ClientId, Message};
use crate::model::session::{Direction, SavedSession, SessionWrite};
use crate::model::topic::Filter;
use crate::model::value::{Rows, Value};
use crate::store::{Error, Kind, Result, Store, Write, Written};

/// The store, and what the weather does to it.
pub(super) struct Memory {
    rows: Mutex<Rowset>,
    fate: Mutex<Fate>,
    /// Rows that one read looks at.
    look: usize,
}

/// What is committed.
#[derive(Default)]
struct Rowset {
    messages: BTreeMap<u128, Message>,
    places: BTreeMap<MessageId, u128>,
    payloads: BTreeSet<String>,
    newest: u128,
    retained: BTreeMap<String, (u128, Message)>,
    newest_retained: u128,
    positions: BTreeMap<(ClientId, String), Position>,
    kept: Kept,
}

/// What is going to happen to calls.
struct Fate {
    weather: Weather,
    refusals_due: u8,
    /// Payloads of refused rows.
    refused: BTreeSet<String>,
    /// Message ids that were refused once are refused for good.
    refused_ids: BTreeSet<MessageId>,
    state: u64,
}

impl Fate {
    /// A number below `bound`, the next of the seed's.
    fn draw(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What happens to one call.
struct Call {
    before: Duration,
    after: Duration,
    reaches: bool,
    is_heard: bool,
}

impl Memory {
    pub(super) fn new(seed: u64, look: usize) -> Self {
        Self {
            rows: Mutex::default(),
            fate: Mutex::new(Fate {
                weather: Weather::default(),
                refusals_due: 0,
                refused: BTreeSet::new(),
                refused_ids: BTreeSet::new(),
                state: seed,
            }),
            look,
        }
    }

    /// From now on it is like this.
    pub(super) fn turn(&self, weather: Weather) {
        self.fate.lock().weather = weather;
    }

    pub(super) fn weather(&self) -> Weather {
        self.fate.lock().weather
    }

    /// The next messages to be saved are refused.
    pub(super) fn refuse(&self, count: u8) {
        self.fate.lock().refusals_due = count;
    }

    /// Whether a message with this payload is committed.
    pub(super) fn holds(&self, payload: &str) -> bool {
        self.rows.lock().payloads.contains(payload)
    }

    /// Whether a message with this payload was refused.
    pub(super) fn has_refused(&self, payload: &str) -> bool {
        self.fate.lock().refused.contains(payload)
    }

    pub(super) fn has_refused_any(&self) -> bool {
        !self.fate.lock().refused.is_empty()
    }

    /// The payloads of the retained messages that match.
    pub(super) fn retained_for(&self, filter: &str) -> Vec<String> {
        let filter = Filter::new(filter.to_owned()).expect("a good filter");
        let rows = self.rows.lock();
        let matching = rows.retained.iter().filter(|(topic, _)| filter.matches(topic));
        let payload = |message: &Message| String::from_utf8_lossy(&message.payload).into_owned();
        matching.map(|(_, (_, message))| payload(message)).collect()
    }

    /// Whether it is known how far this client has read through this filter.
    pub(super) fn knows_reader(&self, client: &str, filter: &str) -> bool {
        let key = (ClientId::from(client), filter.to_owned());
        self.rows.lock().positions.contains_key(&key)
    }

    /// Whether this will is kept with the session of its client.
    pub(super) fn keeps_will(&self, client: &str, payload: &str) -> bool {
        self.rows
            .lock()
            .kept
            .will(&client.into())
            .is_some_and(|will| will.payload == payload)
    }

    /// Whether this subscription is kept with the session of its client.
    pub(super) fn keeps_subscription(&self, client: &str, filter: &str, qos: u8) -> bool {
        self.rows.lock().kept.has_subscription(&client.into(), filter, qos)
    }

    /// Whether a message that this client has sent under this packet identifier is kept as not released.
    pub(super) fn keeps_received(&self, client: &str, packet_id: u16) -> bool {
        let (rows, client) = (self.rows.lock(), client.into());
        let mut known = rows.kept.of_packet(&client, Direction::Received, packet_id);
        known.next().is_some()
    }

    /// Whether it is kept that a message was sent to this client under this packet identifier, and `released` where
    /// that is asked. A message that the store does not have is known by its packet identifier alone.
    pub(super) fn keeps_sent(&self, client: &str, packet_id: u16, payload: &str, released: bool) -> bool {
        let (rows, client) = (self.rows.lock(), client.into());
        let is_it = |id: MessageId| {
            let place = rows.places.get(&id);
            let message = place.and_then(|place| rows.messages.get(place));
            message.is_none_or(|message| message.payload == payload.as_bytes())
        };
        let mut known = rows.kept.of_packet(&client, Direction::Sent, packet_id);
        known.any(|it| is_it(it.key.id) && it.released >= released)
    }

    /// Whether every QoS 2 exchange that was kept has ended.
    pub(super) fn is_quiet(&self) -> bool {
        self.rows.lock().kept.is_quiet()
    }

    /// The payloads that this reader has not acknowledged.
    pub(super) fn unread_by(&self, client: &str, filter: &str) -> Vec<String> {
        let rows = self.rows.lock();
        let key = (ClientId::from(client), filter.to_owned());
        let Some(position) = rows.positions.get(&key) else {
            return Vec::new();
        };
        let filter = Filter::new(filter.to_owned()).expect("a good filter");
        let unread = rows.messages.range(position.0 + 1..).map(|(_, message)| message);
        let matching = unread.filter(|message| filter.matches(message.topic.as_str()));
        matching
            .map(|message| String::from_utf8_lossy(&message.payload).into())
            .collect()
    }

    fn call(&self) -> Call {
        let mut fate = self.fate.lock();
        let Weather { late_ms, mood } = fate.weather;
        let mut part = || Duration::from_millis(fate.draw(u64::from(late_ms) / 2 + 1));
        let (before, after) = (part(), part());
        let chance = match mood {
            Mood::Fair => 2,
            Mood::Down => 0,
            Mood::Mute => 1,
            Mood::Flaky => fate.draw(3),
        };
        Call {
            before,
            after,
            reaches: chance > 0,
            is_heard: chance > 1,
        }
    }

    async fn read<T>(&self, verb: &'static str, read: impl FnOnce(&Rowset) -> T) -> Result<T> {
        let call = self.call();
        sleep(call.before).await;
        let answer = call.is_heard.then(|| read(&self.rows.lock()));
        sleep(call.after).await;
        answer.ok_or_else(|| Error::new(Kind::Unavailable, verb))
    }

    /// Whether the row of this message is refused, now and whenever it is tried again.
    fn refuses(&self, message: &Message) -> bool {
        let mut fate = self.fate.lock();
        if fate.refusals_due > 0 && !fate.refused_ids.contains(&message.id) {
            fate.refusals_due -= 1;
            fate.refused_ids.insert(message.id);
            fate.refused
                .insert(String::from_utf8_lossy(&message.payload).into_owned());
        }
        fate.refused_ids.contains(&message.id)
    }
}

#[async_trait]
impl Store for Memory {
    async fn write(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let call = self.call();
        sleep(call.before).await;
        let away = |write: &Write| Err(Error::new(Kind::Unavailable, write.label()));
        if !call.reaches {
            return writes.iter().map(away).collect();
        }
        let answers: Vec<_> = {
            let mut rows = self.rows.lock();
            let mut refused = BTreeSet::new();
            let commit = |write: &Write| match write {
                Write::Save(message) if self.refuses(message) => {
                    refused.insert(message.id);
                    Err(Error::new(Kind::Rejected, "save"))
                }
                Write::Exchange(it) if it.key.direction == Direction::Received && refused.contains(&it.key.id) => {
                    Err(Error::new(Kind::Rejected, "exchange"))
                }
                write => Ok(rows.commit(write)),
            };
            writes.iter().map(commit).collect()
        };
        sleep(call.after).await;
        match call.is_heard {
            true => answers,
            false => writes.iter().map(away).collect(),
        }
    }

    async fn subscriptions(&self, _client: &ClientId) -> Result<Vec<(String, i64)>> {
        self.read("subscriptions", |_| Vec::new()).await
    }

    async fn unread(&self, reader: &Reader, window: Window) -> Result<Page> {
        let look = self.look;
        self.read("unread", |rows| {
            let all = rows.messages.range(window.after.0 + 1..);
            page(
                all.map(|(place, message)| (*place, message)),
                &reader.filter,
                window,
                look,
            )
        })
        .await
    }

    async fn retained(&self, filter: &Filter, window: Window) -> Result<Page> {
        let look = self.look;
        self.read("retained", |rows| {
            let mut all: Vec<_> = rows
                .retained
                .values()
                .map(|(place, message)| (*place, message))
                .filter(|(place, _)| *place > window.after.0)
                .collect();
            all.sort_by_key(|(place, _)| *place);
            let mut page = page(all.into_iter(), filter, window, look);
            let ids = page.messages.iter().map(|(_, message)| message.id);
            let places = ids.filter_map(|id| Some((id, Position(*rows.places.get(&id)?))));
            page.places = places.collect();
            page
        })
        .await
    }

    async fn query(&self, _statement: &str, _params: &[Value]) -> Result<Rows> {
        Err(Error::new(Kind::Rejected, "query"))
    }

    async fn ping(&self) -> Result<()> {
        self.read("ping", |_| ()).await
    }

    async fn mark_offline(&self, _node: &str, _before: SystemTime) -> Result<u64> {
        self.read("mark_offline", |_| 0).await
    }

    async fn session(&self, client: &ClientId) -> Result<Option<SavedSession>> {
        self.read("session", |rows| {
            let find = |id| {
                let place = *rows.places.get(&id)?;
                Some((Position(place), rows.messages.get(&place)?.clone()))
            };
            rows.kept.session(client, find)
        })
        .await
    }

    async fn sessions(&self, after: Option<&ClientId>, limit: usize) -> Result<Vec<ClientId>> {
        self.read("sessions", |rows| rows.kept.after(after, limit)).await
    }

    async fn due_sessions(&self, now: SystemTime, limit: usize) -> Result<Vec<ClientId>> {
        self.read("due_sessions", |rows| rows.kept.due(now, limit)).await
    }

    async fn mark_left(&self, _node: &str, epoch: u32, at: SystemTime) -> Result<u64> {
        let call = self.call();
        sleep(call.before).await;
        let marked = call.reaches.then(|| self.rows.lock().kept.mark_left(epoch, at));
        sleep(call.after).await;
        marked
            .filter(|_| call.is_heard)
            .ok_or_else(|| Error::new(Kind::Unavailable, "mark_left"))
    }

    async fn positions(&self, client: &ClientId) -> Result<Vec<(String, Position)>> {
        self.read("positions", |rows| {
            let of_client = rows.positions.iter().filter(|((other, _), _)| other == client);
            of_client.map(|((_, filter), place)| (filter.clone(), *place)).collect()
        })
        .await
    }

    async fn facts(&self) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    async fn close(&self) {}
}

impl Rowset {
    fn commit(&mut self, write: &Write) -> Written {
        match write {
            Write::Save(message) => return Written::At(Position(self.save(message))),
            Write::Begin { reader, start, durable } => {
                let key = (reader.client.clone(), reader.filter.to_string());
                let place = self.positions.get(&key).copied().unwrap_or(match start {
                    Start::Earliest => Position::START,
                    Start::Latest => Position(self.newest),
                });
                if *durable {
                    self.positions.insert(key, place);
                }
                return Written::At(place);
            }
            Write::Retain(message) => self.retain(message),
            Write::ClearRetained(topic, id) => {
                let older = self
                    .retained
                    .get(topic.as_str())
                    .is_some_and(|(_, known)| known.id <= *id);
                if older {
                    self.retained.remove(topic.as_str());
                }
            }
            Write::Advance(reader, place) => {
                let key = (reader.client.clone(), reader.filter.to_string());
                let known = self.positions.entry(key).or_insert(*place);
                *known = (*known).max(*place);
            }
            Write::Delete(_, id) => {
                if let Some(place) = self.places.remove(id) {
                    self.messages.remove(&place);
                }
            }
            Write::Forget(reader) => {
                self.positions
                    .remove(&(reader.client.clone(), reader.filter.to_string()));
            }
            Write::ForgetClient(client) => self.positions.retain(|(other, _), _| other != client),
            Write::Purge(places) => {
                let removed = places.iter().filter(|place| self.messages.remove(&place.0).is_some());
                return Written::Removed(removed.count() as u64);
            }
            Write::Session(change) => {
                self.kept.change(change);
                if let SessionWrite::Ended {
                    client,
                    positions: true,
                } = change
                {
                    self.positions.retain(|(other, _), _| other != client);
                }
            }
            Write::Exchange(exchange) => self.kept.exchange(exchange),
            Write::EndExchange(key) => self.kept.end_exchange(key),
            Write::Client(_) | Write::Statements(..) => {}
        }
        Written::Done
    }

    fn save(&mut self, message: &Message) -> u128 {
        if let Some(known) = self.places.get(&message.id) {
            return *known;
        }
        self.newest += 1;
        self.places.insert(message.id, self.newest);
        self.payloads.insert(String::from_utf8_lossy(&message.payload).into());
        self.messages.insert(self.newest, message.detached());
        self.newest
    }

    fn retain(&mut self, message: &Message) {
        let topic = message.topic.as_str();
        match self.retained.get_mut(topic) {
            Some((_, known)) if known.id > message.id => {}
            Some((_, known)) => *known = message.detached(),
            None => {
                self.newest_retained += 1;
                let row = (self.newest_retained, message.detached());
                self.retained.insert(topic.to_owned(), row);
            }
        }
    }
}

/// A page of rows in ascending order: no more than `look` of them are looked at.
fn page<'a>(rows: impl Iterator<Item = (u128, &'a Message)>, filter: &Filter, window: Window, look: usize) -> Page {
    let mut page = Page {
        messages: Vec::new(),
        scanned: window.after,
        end: true,
        ..Page::default()
    };
    let now = clock::wall();
    for (looked, (place, message)) in rows.enumerate() {
        if looked >= look || page.messages.len() >= window.limit {
            page.end = false;
            break;
        }
        page.scanned = Position(place);
        if filter.matches(message.topic.as_str()) && !message.expired(now) {
            page.messages.push((Position(place), message.clone()));
        }
    }
    page
}
