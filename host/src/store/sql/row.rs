//! Messages into rows and back. A row that cannot be read is an error that names it, never skipped.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::model::delivery::Position;
use crate::model::event::seconds;
use crate::model::id::{IdFormat, MessageId};
use crate::model::message::{Message, Qos};
use crate::model::properties::Properties;
use crate::model::topic::Topic;
use crate::model::value::Value;

/// Why a row is no message.
#[derive(Debug, thiserror::Error)]
#[error("row {id}: {column} is {found}, expected {expected}")]
pub(super) struct BadRow {
    id: i64,
    column: &'static str,
    found: String,
    expected: &'static str,
}

/// How this pool writes messages.
pub(super) struct Form {
    pub(super) ids: IdFormat,
    pub(super) node: Option<Arc<str>>,
}

impl Form {
    pub(super) fn id(&self, id: MessageId) -> Value {
        id.text(self.ids).into()
    }

    /// The columns of `save`.
    pub(super) fn message(&self, message: &Message) -> [Value; 10] {
        let [topic, id, sender, node, qos, payload, arrived, props, expires] = self.retained(message);
        let retain = Value::Int(message.retain.into());
        [id, topic, sender, node, qos, retain, payload, arrived, props, expires]
    }

    /// The columns of `retain`.
    pub(super) fn retained(&self, message: &Message) -> [Value; 9] {
        let props = message.properties.as_bytes();
        [
            message.topic.as_str().into(),
            self.id(message.id),
            message.from.as_str().into(),
            self.node.as_deref().into(),
            Value::Int(message.qos as i64),
            message.payload.clone().into(),
            Value::Int(seconds(message.at)),
            (!props.is_empty()).then(|| props.clone()).into(),
            message.expires.map(seconds).into(),
        ]
    }
}

/// A row of [`super::statements::Reads`] as a message and its place.
pub(super) fn message(row: Vec<Value>) -> Result<(Position, Message), BadRow> {
    let mut row = Row::new(row)?;
    let id = row.parsed("msgid", "a message id", MessageId::parse)?;
    let topic = row.parsed("topic", "a topic name", |text| Topic::new(text.to_owned()).ok())?;
    let from = row.text("sender")?.unwrap_or_default().as_str().into();
    let qos = row.qos("qos")?;
    let retain = row.truth("retain")?;
    let payload = row.bytes("payload")?;
    let arrived = row.int("arrived")?;
    let properties = Properties::from_checked(row.bytes("props")?);
    let expire_at = row.whole("expire_at")?;
    let at = arrival(id, arrived);
    let expires = expire_at.map(|expire_at| match u64::try_from(expire_at - arrived) {
        // The same number of seconds after the arrival as when it was published.
        Ok(lifetime) => at + Duration::from_secs(lifetime),
        Err(_) => since_epoch(expire_at),
    });
    let message = Message {
        id,
        topic,
        payload,
        qos,
        retain,
        from,
        at,
        properties,
        expires,
    };
    Ok((position(row.id), message))
}

/// A row id as a place.
pub(super) fn position(id: i64) -> Position {
    Position(u128::try_from(id).unwrap_or(0))
}

/// A place as a row id.
pub(super) fn id(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

/// The column has seconds; an id taken at that time knows the microseconds.
fn arrival(id: MessageId, arrived: i64) -> SystemTime {
    let taken = Duration::from_micros(id.micros());
    match u64::try_from(arrived) {
        Ok(arrived) if taken.as_secs().abs_diff(arrived) <= 1 => UNIX_EPOCH + taken,
        _ => since_epoch(arrived),
    }
}

fn since_epoch(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Reads the values of one row in their order. Readers are generous: other programs write these tables, too.
pub(super) struct Row {
    id: i64,
    values: std::vec::IntoIter<Value>,
}

impl Row {
    /// A row whose first column is its id.
    pub(super) fn new(values: Vec<Value>) -> Result<Self, BadRow> {
        let mut row = Self {
            id: 0,
            values: values.into_iter(),
        };
        row.id = row.int("id")?;
        Ok(row)
    }

    pub(super) fn bad(&self, column: &'static str, found: impl Into<String>, expected: &'static str) -> BadRow {
        let found = found.into();
        BadRow {
            id: self.id,
            column,
            found,
            expected,
        }
    }

    fn next(&mut self) -> Value {
        self.values.next().unwrap_or(Value::Null)
    }

    pub(super) fn whole(&mut self, column: &'static str) -> Result<Option<i64>, BadRow> {
        match self.next() {
            Value::Int(value) => Ok(Some(value)),
            Value::Bool(value) => Ok(Some(value.into())),
            Value::Null => Ok(None),
            other => Err(self.bad(column, kind(&other), "a whole number")),
        }
    }

    pub(super) fn int(&mut self, column: &'static str) -> Result<i64, BadRow> {
        self.whole(column).map(Option::unwrap_or_default)
    }

    /// A number that fits into 32 bits.
    pub(super) fn unsigned(&mut self, column: &'static str) -> Result<Option<u32>, BadRow> {
        let whole = self.whole(column)?.map(u32::try_from).transpose();
        whole.map_err(|_| self.bad(column, "another number", "0 to 4294967295"))
    }

    pub(super) fn qos(&mut self, column: &'static str) -> Result<Qos, BadRow> {
        let qos = u8::try_from(self.int(column)?).ok().and_then(Qos::from_bits);
        qos.ok_or_else(|| self.bad(column, "another number", "0, 1 or 2"))
    }

    pub(super) fn text(&mut self, column: &'static str) -> Result<Option<String>, BadRow> {
        match self.next() {
            Value::Text(text) => Ok(Some(text)),
            Value::Null => Ok(None),
            other => Err(self.bad(column, kind(&other), "text")),
        }
    }

    pub(super) fn parsed<T>(
        &mut self,
        column: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, BadRow> {
        let text = self.text(column)?;
        let found = text.as_deref().and_then(parse);
        found.ok_or_else(|| self.bad(column, text.map_or("NULL".into(), |text| format!("{text:?}")), expected))
    }

    /// Spec C1.4: 0, 1, true, false or NULL.
    pub(super) fn truth(&mut self, column: &'static str) -> Result<bool, BadRow> {
        match self.next() {
            Value::Null => Ok(false),
            Value::Int(value) => Ok(value != 0),
            Value::Bool(value) => Ok(value),
            Value::Text(text) => match text.as_str() {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(self.bad(column, format!("{text:?}"), "0, 1, true, false or NULL")),
            },
            other => Err(self.bad(column, kind(&other), "0, 1, true, false or NULL")),
        }
    }

    pub(super) fn bytes(&mut self, column: &'static str) -> Result<Bytes, BadRow> {
        match self.next() {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Text(text) => Ok(text.into()),
            Value::Null => Ok(Bytes::new()),
            // Typed by hand: `INSERT … VALUES (…, 21.5)`.
            Value::Int(number) => Ok(number.to_string().into()),
            Value::Float(number) => Ok(number.to_string().into()),
            other => Err(self.bad(column, kind(&other), "bytes or text")),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL",
        Value::Bool(_) => "a truth value",
        Value::Int(_) => "a whole number",
        Value::Float(_) => "a floating-point number",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(msgid: Value, topic: &str, qos: i64, retain: Value, payload: Value) -> Vec<Value> {
        let (arrived, props, expires) = (Value::Int(100), Value::Null, Value::Int(160));
        vec![
            Value::Int(7),
            msgid,
            topic.into(),
            Value::Null,
            Value::Int(qos),
            retain,
            payload,
            arrived,
            props,
            expires,
        ]
    }

    #[test]
    fn rows_of_other_writers_are_read() {
        let id = MessageId::from_bits((100_250_000u128 << 64) | 9);
        for (msgid, retain, payload, expected) in [
            (IdFormat::Base62, Value::Null, Value::from("21°C"), (false, "21°C")),
            (IdFormat::Hex, "true".into(), Value::Int(21), (true, "21")),
            (IdFormat::Base64, Value::Int(1), Value::Null, (true, "")),
        ] {
            // Hexadecimal is only told by its length: today's ids have 29 digits.
            let id = if msgid == IdFormat::Hex {
                MessageId::from_bits(1 << 113)
            } else {
                id
            };
            let (place, read) = message(row(id.text(msgid).into(), "t", 1, retain, payload)).expect("a good row");
            assert_eq!((place, read.id), (Position(7), id));
            assert_eq!((read.retain, &*read.payload), (expected.0, expected.1.as_bytes()));
        }
    }

    #[test]
    fn microseconds_and_lifetime_come_back_from_the_id() {
        let id = MessageId::from_bits(100_250_000 << 64);
        let (_, read) = message(row(id.text(IdFormat::Base62).into(), "t", 1, Value::Null, Value::Null)).expect("good");
        assert_eq!(read.at, UNIX_EPOCH + Duration::from_micros(100_250_000));
        assert_eq!(read.expires, Some(UNIX_EPOCH + Duration::from_micros(160_250_000)));
    }

    #[test]
    fn a_row_that_is_no_message_is_named() {
        let id = Value::from("2PguFrHsrzEvIIBdctmb");
        for (row, expected) in [
            (
                row(Value::Null, "t", 1, Value::Null, Value::Null),
                "row 7: msgid is NULL, expected a message id",
            ),
            (
                row(id.clone(), "a/+", 1, Value::Null, Value::Null),
                "row 7: topic is \"a/+\", expected a topic name",
            ),
            (
                row(id.clone(), "t", 3, Value::Null, Value::Null),
                "row 7: qos is another number, expected 0, 1 or 2",
            ),
            (
                row(id, "t", 1, "x".into(), Value::Null),
                "row 7: retain is \"x\", expected 0, 1, true, false or NULL",
            ),
        ] {
            assert_eq!(message(row).expect_err("a bad row").to_string(), expected);
        }
    }
}
