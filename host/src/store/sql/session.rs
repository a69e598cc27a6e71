//! Kept sessions in SQL (spec C16): three tables, `mqtt_session`, `mqtt_session_sub` and `mqtt_session_qos2`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::dialect::{Change, Dialect};
use super::row::{self, BadRow, Row};
use super::script::Problem;
use super::statements::{MESSAGE, Rowed, render};
use super::{Driver, Fault, Sql, SqlStore, Transaction};
use crate::model::delivery::Position;
use crate::model::event::seconds;
use crate::model::id::MessageId;
use crate::model::message::{ClientId, Qos, Subscription};
use crate::model::properties::Properties;
use crate::model::session::{
    Attached, Direction, Exchange, ExchangeKey, SavedSent, SavedSession, SavedSubscription, SessionWrite, Will,
};
use crate::model::topic::{Filter, Topic};
use crate::model::value::Value;
use crate::store::{Error, Kind, Result, Write, Written};

/// The columns of a session that its client's CONNECT fills, in the order of `attached_row`.
const ATTACHED: [&str; 15] = [
    "clientid",
    "username",
    "protocol",
    "connected_at",
    "expiry",
    "will_topic",
    "will_payload",
    "will_qos",
    "will_retain",
    "will_delay",
    "will_expiry",
    "will_props",
    "node",
    "epoch",
    "left_at",
];

/// Every statement about kept sessions.
pub(super) struct Sessions {
    attached: Sql,
    left: Sql,
    will_done: Sql,
    subscribed: Sql,
    retained_sent: Sql,
    unsubscribed: Sql,
    ended: [Sql; 3],
    pub(super) exchange: Rowed,
    pub(super) end_exchange: Rowed,
    of_client: Sql,
    subscriptions: Sql,
    exchanges: Sql,
    pub(super) after: Sql,
    pub(super) due: Sql,
    pub(super) mark_left: Sql,
    pub(super) positions: Sql,
}

impl Sessions {
    pub(super) fn new(dialect: &Dialect) -> Self {
        let one = |text: &str| -> Sql { render(dialect, text).into() };
        let message: Vec<String> = MESSAGE.split(", ").map(|column| format!("m.{column}")).collect();
        Self {
            attached: one(&upsert(
                dialect,
                "INSERT INTO mqtt_session",
                "clientid",
                &ATTACHED,
                &["due_at"],
            )),
            left: one("UPDATE mqtt_session SET left_at = ?, expiry = ?, due_at = ?, \
                       will_topic = CASE WHEN ? = 1 THEN will_topic END WHERE clientid = ?"),
            will_done: one("UPDATE mqtt_session SET will_topic = NULL, due_at = ? WHERE clientid = ?"),
            subscribed: one(&upsert(
                dialect,
                "INSERT INTO mqtt_session_sub",
                "clientid, topic",
                &[
                    "clientid",
                    "topic",
                    "qos",
                    "no_local",
                    "retain_as_published",
                    "retain_handling",
                    "identifier",
                    "owes_retained",
                ],
                &[],
            )),
            retained_sent: one("UPDATE mqtt_session_sub SET owes_retained = 0 WHERE clientid = ? AND topic = ?"),
            unsubscribed: one("DELETE FROM mqtt_session_sub WHERE clientid = ? AND topic = ?"),
            ended: ["mqtt_session_qos2", "mqtt_session_sub", "mqtt_session"]
                .map(|table| one(&format!("DELETE FROM {table} WHERE clientid = ?"))),
            exchange: Rowed::new(dialect, &exchange(dialect), "(?, ?, ?, ?, ?)"),
            end_exchange: Rowed::new(
                dialect,
                "DELETE FROM mqtt_session_qos2 WHERE (clientid, direction, packetid, msgid) IN (VALUES {rows})",
                "(?, ?, ?, ?)",
            ),
            of_client: one(&format!(
                "SELECT id, {} FROM mqtt_session WHERE clientid = ?",
                ATTACHED.join(", ")
            )),
            subscriptions: one(
                "SELECT id, topic, qos, no_local, retain_as_published, retain_handling, identifier, owes_retained \
                                FROM mqtt_session_sub WHERE clientid = ? ORDER BY id",
            ),
            exchanges: one(&format!(
                "SELECT q.id, q.direction, q.packetid, q.msgid, q.released, {} FROM mqtt_session_qos2 AS q \
                 LEFT JOIN mqtt_msg AS m ON m.msgid = q.msgid WHERE q.clientid = ? ORDER BY q.id",
                message.join(", ")
            )),
            after: one("SELECT clientid FROM mqtt_session WHERE clientid > ? ORDER BY clientid LIMIT ? + 0"),
            due: one("SELECT clientid FROM mqtt_session WHERE due_at <= ? ORDER BY due_at LIMIT ? + 0"),
            mark_left: one(&format!(
                "UPDATE mqtt_session SET left_at = ?, due_at = CASE \
                 WHEN will_topic IS NOT NULL THEN ? + CASE WHEN will_delay < expiry THEN will_delay ELSE expiry END \
                 WHEN expiry = {never} THEN NULL ELSE ? + expiry END \
                 WHERE node = ? AND left_at IS NULL AND epoch <> ?",
                never = u32::MAX
            )),
            positions: one("SELECT topic, mid FROM mqtt_acked WHERE clientid = ? ORDER BY topic"),
        }
    }
}

/// An insert that takes the place of the row with the same key; `cleared` become NULL.
fn upsert(dialect: &Dialect, insert: &str, key: &str, columns: &[&'static str], cleared: &[&'static str]) -> String {
    let marks = vec!["?"; columns.len()].join(", ");
    let taken = columns
        .iter()
        .filter(|column| !key.split(", ").any(|key| key == **column));
    let changes = taken.map(|column| Change {
        column,
        to: (dialect.incoming)(column),
    });
    let cleared = cleared.iter().map(|column| Change {
        column,
        to: "NULL".into(),
    });
    let changes: Vec<Change> = changes.chain(cleared).collect();
    format!(
        "{insert} ({}) VALUES ({marks}) {}",
        columns.join(", "),
        (dialect.upsert)(key, &changes, None)
    )
}

fn exchange(dialect: &Dialect) -> String {
    let changes = [Change {
        column: "released",
        to: (dialect.incoming)("released"),
    }];
    format!(
        "INSERT INTO mqtt_session_qos2 (clientid, direction, packetid, msgid, released) VALUES {{rows}} {}",
        (dialect.upsert)("clientid, direction, packetid, msgid", &changes, None)
    )
}

impl<D: Driver> SqlStore<D> {
    pub(super) async fn session_change(
        &self,
        transaction: &mut Box<dyn Transaction>,
        change: &SessionWrite,
    ) -> std::result::Result<Written, Problem> {
        let sql = &self.sql.sessions;
        let client = || Value::from(change.client().as_str());
        let statements = match change {
            SessionWrite::Attached(attached) => vec![(&sql.attached, self.attached_row(attached))],
            SessionWrite::Left {
                at,
                expiry_s,
                will,
                due,
                ..
            } => {
                let due = due.map(seconds_up).into();
                let (at, expiry) = (Value::Int(seconds(*at)), Value::Int((*expiry_s).into()));
                vec![(&sql.left, vec![at, expiry, due, Value::Int((*will).into()), client()])]
            }
            SessionWrite::WillDone(_, due) => vec![(&sql.will_done, vec![due.map(seconds_up).into(), client()])],
            SessionWrite::Subscribed(_, saved) => {
                vec![(&sql.subscribed, subscription_row(change.client(), saved))]
            }
            SessionWrite::RetainedSent(_, filter) => {
                vec![(&sql.retained_sent, vec![client(), filter.as_str().into()])]
            }
            SessionWrite::Unsubscribed(_, filter) => {
                vec![(&sql.unsubscribed, vec![client(), filter.as_str().into()])]
            }
            SessionWrite::Ended { positions, .. } => {
                let positions = positions.then_some(&self.sql.forget_client);
                let tables = sql.ended.iter().chain(positions);
                tables.map(|sql| (sql, vec![client()])).collect()
            }
        };
        for (sql, params) in statements {
            let done = transaction.run(sql, params).await;
            done.map_err(|fault: Fault| Problem::of(fault, &Write::Session(change.clone())))?;
        }
        Ok(Written::Done)
    }

    fn attached_row(&self, attached: &Attached) -> Vec<Value> {
        let will = attached.will.as_ref();
        let number = |number: u32| Value::Int(number.into());
        vec![
            attached.client.as_str().into(),
            attached.username.as_deref().into(),
            Value::Int(attached.protocol.into()),
            Value::Int(seconds(attached.connected_at)),
            number(attached.expiry_s),
            will.map(|will| will.topic.as_str()).into(),
            will.map(|will| will.payload.clone()).into(),
            will.map(|will| will.qos as i64).into(),
            will.map(|will| i64::from(will.retain)).into(),
            will.map(|will| i64::from(will.delay_s)).into(),
            will.and_then(|will| will.expiry_s).map(i64::from).into(),
            will.map(|will| will.properties.as_bytes().clone()).into(),
            (*self.node).into(),
            number(attached.epoch),
            Value::Null,
        ]
    }

    pub(super) fn exchange_row(&self, exchange: &Exchange) -> Vec<Value> {
        let mut row: Vec<Value> = self.exchange_key(&exchange.key).into();
        row.push(Value::Int(exchange.released.into()));
        row
    }

    pub(super) fn exchange_key(&self, key: &ExchangeKey) -> [Value; 4] {
        [
            key.client.as_str().into(),
            Value::Int(key.direction as i64),
            Value::Int(key.packet_id.into()),
            self.form.id(key.id),
        ]
    }

    pub(super) async fn clients(&self, verb: &'static str, sql: &Sql, params: Vec<Value>) -> Result<Vec<ClientId>> {
        let rows = self.rows(verb, sql, params).await?;
        let client = |row: Vec<Value>| match row.into_iter().next() {
            Some(Value::Text(client)) => Ok(client.as_str().into()),
            _ => Err(Error::because(Kind::Corrupt, verb, "mqtt_session: clientid is no text")),
        };
        rows.into_iter().map(client).collect()
    }

    pub(super) async fn saved_session(&self, client: &ClientId) -> Result<Option<SavedSession>> {
        let sql = &self.sql.sessions;
        let params = || vec![client.as_str().into()];
        let rows = self.rows("session", &sql.of_client, params()).await?;
        let Some(row) = rows.into_iter().next() else {
            return Ok(None);
        };
        let bad = |table: &'static str| {
            move |bad: BadRow| Error::because(Kind::Corrupt, "session", format!("{table}: {bad}"))
        };
        let (attached, left_at) = attached(row).map_err(bad("mqtt_session"))?;
        let rows = self.rows("session", &sql.subscriptions, params()).await?;
        let subscriptions: std::result::Result<_, BadRow> = rows.into_iter().map(subscription).collect();
        let mut saved = SavedSession {
            attached,
            left_at,
            subscriptions: subscriptions.map_err(bad("mqtt_session_sub"))?,
            received: Vec::new(),
            sent: Vec::new(),
        };
        for row in self.rows("session", &sql.exchanges, params()).await? {
            self::saved_exchange(row, &mut saved).map_err(bad("mqtt_session_qos2"))?;
        }
        Ok(Some(saved))
    }
}

fn subscription_row(client: &ClientId, saved: &SavedSubscription) -> Vec<Value> {
    let subscription = &saved.subscription;
    vec![
        client.as_str().into(),
        subscription.full_filter().into(),
        Value::Int(subscription.qos as i64),
        Value::Int(subscription.no_local.into()),
        Value::Int(subscription.retain_as_published.into()),
        Value::Int(subscription.retain_handling.into()),
        subscription.identifier.map(i64::from).into(),
        Value::Int(saved.owes_retained.into()),
    ]
}

fn attached(row: Vec<Value>) -> std::result::Result<(Attached, Option<SystemTime>), BadRow> {
    let mut row = Row::new(row)?;
    let client = row.text("clientid")?.unwrap_or_default().as_str().into();
    let username = row.text("username")?.map(Into::into);
    let protocol = row.int("protocol")?;
    let protocol = u8::try_from(protocol).map_err(|_| row.bad("protocol", "another number", "3, 4 or 5"))?;
    let connected_at = time(row.int("connected_at")?);
    let expiry_s = row.unsigned("expiry")?.unwrap_or(0);
    let will = will(&mut row)?;
    row.text("node")?;
    let epoch = row.unsigned("epoch")?.unwrap_or(0);
    let left_at = row.whole("left_at")?.map(time);
    let attached = Attached {
        client,
        username,
        protocol,
        connected_at,
        expiry_s,
        will,
        epoch,
    };
    Ok((attached, left_at))
}

fn will(row: &mut Row) -> std::result::Result<Option<Will>, BadRow> {
    let topic = row.text("will_topic")?;
    let payload = row.bytes("will_payload")?;
    let qos = row.qos("will_qos")?;
    let retain = row.truth("will_retain")?;
    let delay_s = row.unsigned("will_delay")?.unwrap_or(0);
    let expiry_s = row.unsigned("will_expiry")?;
    let properties = Properties::from_checked(row.bytes("will_props")?);
    let Some(topic) = topic else { return Ok(None) };
    let topic = Topic::new(topic).map_err(|_| row.bad("will_topic", "something else", "a topic name"))?;
    Ok(Some(Will {
        topic,
        payload,
        qos,
        retain,
        delay_s,
        expiry_s,
        properties,
    }))
}

fn subscription(row: Vec<Value>) -> std::result::Result<SavedSubscription, BadRow> {
    let mut row = Row::new(row)?;
    let (share, filter) = row.parsed("topic", "a topic filter", |text| {
        let (share, filter) = Filter::parse_subscription(text).ok()?;
        Some((share.map(Into::into), filter))
    })?;
    let qos: Qos = row.qos("qos")?;
    let subscription = Subscription {
        share,
        filter,
        qos,
        no_local: row.truth("no_local")?,
        retain_as_published: row.truth("retain_as_published")?,
        retain_handling: row.unsigned("retain_handling")?.map_or(0, |handling| handling as u8),
        identifier: row.unsigned("identifier")?,
    };
    Ok(SavedSubscription {
        subscription,
        owes_retained: row.truth("owes_retained")?,
    })
}

fn saved_exchange(mut values: Vec<Value>, saved: &mut SavedSession) -> std::result::Result<(), BadRow> {
    let message = values.split_off(5.min(values.len()));
    let mut row = Row::new(values)?;
    let direction = row.int("direction")?;
    let packet_id = row.int("packetid")?;
    let packet_id =
        u16::try_from(packet_id).map_err(|_| row.bad("packetid", "another number", "a packet identifier"))?;
    let id = row.parsed("msgid", "a message id", MessageId::parse)?;
    let released = row.truth("released")?;
    if direction == Direction::Received as i64 {
        saved.received.push((packet_id, id));
        return Ok(());
    }
    let is_there = !matches!(message.first(), None | Some(Value::Null));
    let message = is_there.then(|| row::message(message)).transpose()?;
    saved.sent.push(SavedSent {
        packet_id,
        id,
        released,
        message,
    });
    Ok(())
}

/// Rows of a filter and how far it was read.
pub(super) fn positions(rows: Vec<Vec<Value>>) -> Result<Vec<(String, Position)>> {
    let pair = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Text(filter), Value::Int(place)]) => Ok((filter, row::position(place))),
        Ok([Value::Text(filter), Value::Null]) => Ok((filter, Position::START)),
        _ => Err(Error::because(
            Kind::Corrupt,
            "positions",
            "mqtt_acked: expected a text and a whole number",
        )),
    };
    rows.into_iter().map(pair).collect()
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Whole seconds, up: nothing is due before its time.
fn seconds_up(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}
