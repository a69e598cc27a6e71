//! Writing a batch: one transaction, each write its own result. A statement that fails as a whole is done
//! again row by row, so that a refused row never fails its neighbours.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use super::plan::{Group, one_by_one, plan};
use super::row::{id, position};
use super::script::{self, Problem};
use super::statements::Rowed;
use super::{Driver, Fault, Nature, Sql, SqlStore, Transaction};
use crate::model::delivery::{Position, Reader};
use crate::model::event::{Start, seconds};
use crate::model::id::{IdFormat, MessageId};
use crate::model::message::Message;
use crate::model::session::{Direction, Exchange};
use crate::model::topic::Topic;
use crate::model::value::Value;
use crate::store::{ClientState, Error, Kind, Result, Write, WriteKind, Written};

/// Why a batch was not committed.
enum Stop {
    /// Not now. A failed transaction did nothing, so everything in it may be tried again, the operator's
    /// statements included.
    Passing(Fault),
    /// This write ended the whole transaction (`INSERT OR ROLLBACK`, a trigger that raises ROLLBACK).
    Ended(usize, Error),
    /// One of several writes in a statement did.
    EndedBySome,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Passing(fault)
    }
}

type Answers = Vec<Option<Result<Written>>>;

/// A batch on its way.
struct Batch<'a> {
    writes: &'a [Write],
    transaction: Box<dyn Transaction>,
    answers: Answers,
}

impl<D: Driver> SqlStore<D> {
    /// Tries until the batch is committed without the writes that end transactions, or cannot be for now.
    pub(super) async fn write_all(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let mut groups = plan(writes);
        let mut enders: BTreeMap<usize, Error> = BTreeMap::new();
        loop {
            match self.attempt(writes, &groups, &enders).await {
                Ok(mut answers) => {
                    for (at, error) in enders {
                        answers[at] = Some(Err(error));
                    }
                    let answered = answers.into_iter().zip(writes);
                    return answered
                        .map(|(answer, write)| answer.unwrap_or_else(|| Err(unanswered(write))))
                        .collect();
                }
                Err(Stop::Passing(fault)) => return everywhere(writes, fault),
                Err(Stop::EndedBySome) => groups = one_by_one(writes),
                Err(Stop::Ended(at, error)) => {
                    enders.insert(at, error);
                    groups = one_by_one(writes);
                }
            }
            groups.retain(|group| !group.of.iter().any(|at| enders.contains_key(at)));
        }
    }

    /// One transaction, without the writes that end it.
    async fn attempt(
        &self,
        writes: &[Write],
        groups: &[Group],
        enders: &BTreeMap<usize, Error>,
    ) -> std::result::Result<Answers, Stop> {
        let mut batch = Batch {
            writes,
            transaction: self.driver.begin().await?,
            answers: writes.iter().map(|_| None).collect(),
        };
        for group in groups {
            if let Err(stop) = self.apply(&mut batch, group).await {
                batch.transaction.rollback().await;
                return Err(stop);
            }
        }
        if let Err(fault) = self.take_back_exchanges(&mut batch, enders).await {
            batch.transaction.rollback().await;
            return Err(fault.into());
        }
        batch.transaction.commit().await?;
        Ok(batch.answers)
    }

    /// What was received and refused must not be known after a crash: a resend would be answered, with nothing stored.
    async fn take_back_exchanges(
        &self,
        batch: &mut Batch<'_>,
        enders: &BTreeMap<usize, Error>,
    ) -> std::result::Result<(), Fault> {
        let writes = batch.writes;
        let is_refused = |at: usize| matches!(batch.answers[at], Some(Err(_))) || enders.contains_key(&at);
        let refused: HashSet<MessageId> = (0..writes.len())
            .filter(|at| is_refused(*at))
            .filter_map(|at| Some(saved(&writes[at])?.id))
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        for (at, write) in writes.iter().enumerate() {
            let Write::Exchange(Exchange { key, .. }) = write else {
                continue;
            };
            if key.direction == Direction::Received && refused.contains(&key.id) && !enders.contains_key(&at) {
                let key = self.exchange_key(key);
                let end = self.sql.sessions.end_exchange.single();
                batch.transaction.run(end, key.into()).await?;
                batch.answers[at] = Some(Err(Error::because(
                    Kind::Rejected,
                    write.label(),
                    "its message was refused",
                )));
            }
        }
        Ok(())
    }

    async fn apply(&self, batch: &mut Batch<'_>, group: &Group) -> std::result::Result<(), Stop> {
        match group.kind {
            WriteKind::Save => self.rowed(batch, group, &self.sql.save).await,
            WriteKind::Retain => self.rowed(batch, group, &self.sql.retain).await,
            WriteKind::Advance => self.rowed(batch, group, &self.sql.advance).await,
            WriteKind::Delete => self.rowed(batch, group, &self.sql.delete).await,
            WriteKind::Client => self.rowed(batch, group, &self.sql.client).await,
            WriteKind::Exchange => self.rowed(batch, group, &self.sql.sessions.exchange).await,
            WriteKind::EndExchange => self.rowed(batch, group, &self.sql.sessions.end_exchange).await,
            WriteKind::Purge
            | WriteKind::ClearRetained
            | WriteKind::Begin
            | WriteKind::Forget
            | WriteKind::ForgetClient
            | WriteKind::Session
            | WriteKind::Statements => {
                for at in &group.of {
                    let done = self.alone(batch, &batch.writes[*at]).await;
                    batch.answer(*at, done).await?;
                }
                Ok(())
            }
        }
    }

    /// Many rows a statement; where it fails for its values, the rows one by one.
    async fn rowed(&self, batch: &mut Batch<'_>, group: &Group, sql: &Rowed) -> std::result::Result<(), Stop> {
        for (piece, text) in sql.pieces(group.of.len()) {
            let of = &group.of[piece];
            match self.piece(batch, text, of).await {
                Ok(()) => {}
                Err(fault) if fault.nature != Nature::Row => return Err(fault.into()),
                Err(fault) if of.len() == 1 => {
                    let error = fault.ours(batch.writes[of[0]].label());
                    batch.answer(of[0], Err(Problem::Refused(error))).await?;
                }
                Err(_) if !batch.transaction.lives().await => return Err(Stop::EndedBySome),
                Err(_) => {
                    for at in of {
                        let alone = self.piece(batch, sql.single(), &[*at]).await;
                        let label = batch.writes[*at].label();
                        match alone {
                            Ok(()) => {}
                            Err(fault) if fault.nature != Nature::Row => return Err(fault.into()),
                            Err(fault) => batch.answer(*at, Err(Problem::Refused(fault.ours(label)))).await?,
                        }
                    }
                }
            }
        }
        Ok(())
    }

    async fn piece(&self, batch: &mut Batch<'_>, text: &Sql, of: &[usize]) -> std::result::Result<(), Fault> {
        let writes = batch.writes;
        let params: Vec<Value> = of.iter().flat_map(|at| self.params(&writes[*at])).collect();
        if let Write::Save(_) = &writes[of[0]] {
            return self.save(batch, text, params, of).await;
        }
        batch.transaction.run(text, params).await?;
        for at in of {
            batch.answers[*at] = Some(Ok(Written::Done));
        }
        Ok(())
    }

    /// The values of one row of a statement for many.
    fn params(&self, write: &Write) -> Vec<Value> {
        match write {
            Write::Save(message) => self.form.message(message).into(),
            Write::Retain(message) => self.form.retained(message).into(),
            Write::Advance(reader, place) => position_row(reader, *place),
            Write::Client(state) => client_row(state),
            Write::Exchange(exchange) => self.exchange_row(exchange),
            Write::EndExchange(key) => self.exchange_key(key).into(),
            // Whatever form it was stored in, by us or by EMQ X.
            Write::Delete(_, message) => [IdFormat::Base62, IdFormat::Hex, IdFormat::Base64]
                .map(|form| message.text(form).into())
                .into(),
            Write::Purge(_)
            | Write::ClearRetained(..)
            | Write::Begin { .. }
            | Write::Forget(_)
            | Write::ForgetClient(_)
            | Write::Session(_)
            | Write::Statements(..) => Vec::new(),
        }
    }

    /// What the insert did not take and a look-up finds is a duplicate, which is a success; what it does not
    /// find was refused.
    async fn save(
        &self,
        batch: &mut Batch<'_>,
        text: &Sql,
        params: Vec<Value>,
        of: &[usize],
    ) -> std::result::Result<(), Fault> {
        let mut places = places(batch.transaction.query(text, params).await?.rows);
        let ids: Vec<(usize, String)> = of
            .iter()
            .filter_map(|at| Some((*at, saved(&batch.writes[*at])?.id.text(self.form.ids))))
            .collect();
        let missing: Vec<&str> = ids
            .iter()
            .map(|(_, id)| id.as_str())
            .filter(|id| !places.contains_key(*id))
            .collect();
        let mut found = HashMap::new();
        for (piece, sql) in self.sql.find.pieces(missing.len()) {
            let params = missing[piece].iter().map(|id| Value::from(*id)).collect();
            found.extend(self::places(batch.transaction.query(sql, params).await?.rows));
        }
        places.extend(found);
        for (at, id) in ids {
            batch.answers[at] = Some(match places.get(&id) {
                Some(place) => Ok(Written::At(position(*place))),
                None => Err(Error::because(
                    Kind::Rejected,
                    "save",
                    format!("mqtt_msg refused the row {id}"),
                )),
            });
        }
        Ok(())
    }

    /// The verbs that take a statement of their own.
    async fn alone(&self, batch: &mut Batch<'_>, write: &Write) -> std::result::Result<Written, Problem> {
        let transaction = &mut batch.transaction;
        let (sql, params) = match write {
            Write::ClearRetained(topic, id) => (&self.sql.clear_retained, self.clear_params(topic, *id)),
            Write::Forget(reader) => (&self.sql.forget, reader_key(reader)),
            Write::ForgetClient(client) => (&self.sql.forget_client, vec![client.as_str().into()]),
            Write::Begin { reader, start, durable } => {
                let begun = self.begin(transaction, reader, *start, *durable).await;
                return begun.map_err(|fault| Problem::of(fault, write));
            }
            Write::Session(change) => return self.session_change(transaction, change).await,
            Write::Purge(places) => {
                let purged = self.purge(transaction, places).await;
                return purged.map_err(|fault| Problem::of(fault, write));
            }
            Write::Statements(script, params) => return script::run(transaction, script, params).await,
            // These come in rows (see `apply`).
            Write::Save(_)
            | Write::Retain(_)
            | Write::Advance(..)
            | Write::Delete(..)
            | Write::Client(_)
            | Write::Exchange(_)
            | Write::EndExchange(..) => {
                return Err(Problem::Refused(unanswered(write)));
            }
        };
        let done = transaction.run(sql, params).await;
        done.map(|_| Written::Done).map_err(|fault| Problem::of(fault, write))
    }

    async fn purge(
        &self,
        transaction: &mut Box<dyn Transaction>,
        places: &[Position],
    ) -> std::result::Result<Written, Fault> {
        let mut removed = 0;
        for (piece, sql) in self.sql.purge.pieces(places.len()) {
            let params = places[piece].iter().map(|place| Value::Int(id(*place))).collect();
            removed += transaction.run(sql, params).await?;
        }
        Ok(Written::Removed(removed))
    }

    fn clear_params(&self, topic: &Topic, id: MessageId) -> Vec<Value> {
        let topic = topic.as_str().into();
        match self.sql.ids_sort {
            true => vec![topic, self.form.id(id), self.form.id(id)],
            false => vec![topic],
        }
    }

    async fn begin(
        &self,
        transaction: &mut Box<dyn Transaction>,
        reader: &Reader,
        start: Start,
        durable: bool,
    ) -> std::result::Result<Written, Fault> {
        let known = transaction.query(&self.sql.position, reader_key(reader)).await?;
        if let Some(row) = known.rows.first() {
            return Ok(Written::At(position(whole(row.first()))));
        }
        let place = match start {
            Start::Earliest => Position::START,
            Start::Latest => {
                let newest = transaction.query(&self.sql.newest, Vec::new()).await?;
                position(whole(newest.rows.first().and_then(|row| row.first())))
            }
        };
        if durable {
            transaction.run(&self.sql.begin, position_row(reader, place)).await?;
        }
        Ok(Written::At(place))
    }
}

impl Batch<'_> {
    /// Notes one write's answer. After a refusal it asks whether the transaction still goes on: going on
    /// without one would commit every further statement by itself.
    async fn answer(
        &mut self,
        at: usize,
        done: std::result::Result<Written, Problem>,
    ) -> std::result::Result<(), Stop> {
        let error = match done {
            Ok(written) => {
                self.answers[at] = Some(Ok(written));
                return Ok(());
            }
            Err(Problem::Passing(fault)) => return Err(fault.into()),
            Err(Problem::Refused(error)) => error,
        };
        if !self.transaction.lives().await {
            return Err(Stop::Ended(at, error));
        }
        self.answers[at] = Some(Err(error));
        Ok(())
    }
}

fn saved(write: &Write) -> Option<&Message> {
    match write {
        Write::Save(message) => Some(message),
        _ => None,
    }
}

/// Rows of id and msgid.
/// Where messages lie, by the text of their ids.
pub(super) fn places(rows: Vec<Vec<Value>>) -> HashMap<String, i64> {
    let place = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Int(id), Value::Text(msgid)]) => Some((msgid, id)),
        _ => None,
    };
    rows.into_iter().filter_map(place).collect()
}

fn whole(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::Int(value)) => *value,
        _ => 0,
    }
}

fn reader_key(reader: &Reader) -> Vec<Value> {
    vec![reader.client.as_str().into(), reader.filter.as_str().into()]
}

fn position_row(reader: &Reader, place: Position) -> Vec<Value> {
    let now = Value::Int(seconds(SystemTime::now()));
    [reader_key(reader), vec![Value::Int(id(place)), now]].concat()
}

fn client_row(state: &ClientState) -> Vec<Value> {
    let online_at = Value::Int(seconds(state.online_at));
    vec![
        state.client.as_str().into(),
        Value::Int(state.offline_at.is_none().into()),
        (*state.node).into(),
        online_at.clone(),
        state.offline_at.map(seconds).into(),
        online_at,
    ]
}

/// The same failure for every write; only the first carries what the engine said.
fn everywhere(writes: &[Write], fault: Fault) -> Vec<Result<Written>> {
    let first = fault.ours("write");
    let kind = first.kind;
    let kind = if kind.is_passing() { kind } else { Kind::Unavailable };
    let rest = writes.iter().skip(1).map(|write| Err(Error::new(kind, write.label())));
    std::iter::once(Err(Error { kind, ..first }))
        .chain(rest)
        .take(writes.len())
        .collect()
}

fn unanswered(write: &Write) -> Error {
    Error::because(Kind::Unavailable, write.label(), "no statement was run for this write")
}
