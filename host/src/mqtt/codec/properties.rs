//! The properties that clients send (2.2.2): which there are, what they hold, where they may stand.

use std::ops::Range;

use super::Malformed;
use super::wire::Reader;
use crate::model::properties::id;
use crate::model::reason::Reason;

pub(super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(super) const AUTHENTICATION_DATA: u8 = 0x16;
pub(super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
pub(super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
pub(super) const SERVER_REFERENCE: u8 = 0x1C;
pub(super) const REASON_STRING: u8 = 0x1F;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// Where a property section stands. The values are bits of [`Rule::owners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Connect = 1,
    Will = 2,
    Publish = 4,
    Ack = 8,
    Subscribe = 16,
    Unsubscribe = 32,
    Disconnect = 64,
    Auth = 128,
}

/// The value of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u32),
    Text(&'a str),
    /// Binary data and user properties: checked, and read by nobody here.
    Opaque,
}

impl Value<'_> {
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Number(number) => number,
            _ => 0,
        }
    }
}

/// One property of a section: what it is, and where it stands, identifier included.
pub(super) struct Found<'a> {
    pub(super) id: u8,
    pub(super) value: Value<'a>,
    pub(super) place: Range<usize>,
}

enum Type {
    /// 0 or 1.
    Flag,
    Two,
    Four,
    Varint,
    Text,
    /// A topic name, so without wildcards.
    Topic,
    Binary,
    Pair,
}

struct Rule {
    name: &'static str,
    holds: Type,
    /// The sections that it may stand in.
    owners: u8,
    /// Whether 0 is an error, and which.
    zero: Option<Reason>,
}

/// The table of 2.2.2.2, as far as clients send it.
fn rule(id: u8) -> Option<Rule> {
    const MESSAGE: u8 = Owner::Publish as u8 | Owner::Will as u8;
    const CONNECT: u8 = Owner::Connect as u8;
    const REASONS: u8 = Owner::Ack as u8 | Owner::Disconnect as u8 | Owner::Auth as u8;
    const PROTOCOL: Option<Reason> = Some(Reason::PROTOCOL_ERROR);
    let (name, holds, owners, zero) = match id {
        id::PAYLOAD_FORMAT_INDICATOR => ("payload format indicator", Type::Flag, MESSAGE, None),
        id::MESSAGE_EXPIRY_INTERVAL => ("message expiry interval", Type::Four, MESSAGE, None),
        id::CONTENT_TYPE => ("content type", Type::Text, MESSAGE, None),
        id::RESPONSE_TOPIC => ("response topic", Type::Topic, MESSAGE, None),
        id::CORRELATION_DATA => ("correlation data", Type::Binary, MESSAGE, None),
        // In a PUBLISH it is known, and wrong when a client sends it [MQTT-3.3.4-6]: see `publish`.
        id::SUBSCRIPTION_IDENTIFIER => {
            let owners = Owner::Subscribe as u8 | Owner::Publish as u8;
            ("subscription identifier", Type::Varint, owners, PROTOCOL)
        }
        SESSION_EXPIRY_INTERVAL => {
            let owners = CONNECT | Owner::Disconnect as u8;
            ("session expiry interval", Type::Four, owners, None)
        }
        AUTHENTICATION_METHOD => ("authentication method", Type::Text, CONNECT | Owner::Auth as u8, None),
        AUTHENTICATION_DATA => ("authentication data", Type::Binary, CONNECT | Owner::Auth as u8, None),
        REQUEST_PROBLEM_INFORMATION => ("request problem information", Type::Flag, CONNECT, None),
        id::WILL_DELAY_INTERVAL => ("will delay interval", Type::Four, Owner::Will as u8, None),
        REQUEST_RESPONSE_INFORMATION => ("request response information", Type::Flag, CONNECT, None),
        SERVER_REFERENCE => ("server reference", Type::Text, Owner::Disconnect as u8, None),
        REASON_STRING => ("reason string", Type::Text, REASONS, None),
        RECEIVE_MAXIMUM => ("receive maximum", Type::Two, CONNECT, PROTOCOL),
        TOPIC_ALIAS_MAXIMUM => ("topic alias maximum", Type::Two, CONNECT, None),
        id::TOPIC_ALIAS => {
            let zero = Some(Reason::TOPIC_ALIAS_INVALID);
            ("topic alias", Type::Two, Owner::Publish as u8, zero)
        }
        id::USER_PROPERTY => ("user property", Type::Pair, u8::MAX, None),
        MAXIMUM_PACKET_SIZE => ("maximum packet size", Type::Four, CONNECT, PROTOCOL),
        _ => return None,
    };
    Some(Rule {
        name,
        holds,
        owners,
        zero,
    })
}

/// Checks a whole section and hands over its properties, in their order.
pub(super) fn walk<'a>(
    owner: Owner,
    section: &'a [u8],
    mut each: impl FnMut(Found<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(section);
    let mut seen = 0_u64;
    let mut start = 0;
    while !reader.is_empty() {
        let id = reader.byte()?;
        let rule = rule(id)
            .filter(|rule| rule.owners & owner as u8 != 0)
            .ok_or_else(|| Malformed::unparsable(format!("property {id:#04x} has no place in this packet")))?;
        // Every identifier of the table is below 64. A user property may come again, nothing else may.
        if seen & 1 << id != 0 && id != id::USER_PROPERTY {
            return Err(Malformed::protocol(format!("a second {}", rule.name)));
        }
        seen |= 1 << id;
        let value = rule.read(&mut reader)?;
        let end = section.len() - reader.left();
        each(Found {
            id,
            value,
            place: start..end,
        })?;
        start = end;
    }
    Ok(())
}

impl Rule {
    fn read<'a>(&self, reader: &mut Reader<'a>) -> Result<Value<'a>, Malformed> {
        let number = match self.holds {
            Type::Flag => reader.byte()?.into(),
            Type::Two => reader.two()?.into(),
            Type::Four => reader.four()?,
            Type::Varint => reader.varint()?,
            Type::Text => return Ok(Value::Text(reader.text(self.name)?)),
            Type::Topic => return self.topic(reader),
            Type::Binary => return reader.binary().map(|_| Value::Opaque),
            Type::Pair => {
                reader.text("name of a user property")?;
                reader.text("value of a user property")?;
                return Ok(Value::Opaque);
            }
        };
        if let (0, Some(reason)) = (number, self.zero) {
            return Err(Malformed::new(reason, format!("a {} of 0", self.name)));
        }
        if number > 1 && matches!(self.holds, Type::Flag) {
            return Err(Malformed::protocol(format!("the {} must be 0 or 1", self.name)));
        }
        Ok(Value::Number(number))
    }

    /// [MQTT-3.3.2-14], [MQTT-4.7.3-1].
    fn topic<'a>(&self, reader: &mut Reader<'a>) -> Result<Value<'a>, Malformed> {
        match reader.text(self.name)? {
            "" => Err(Malformed::protocol(format!("the {} is empty", self.name))),
            text if text.contains(['+', '#']) => {
                Err(Malformed::protocol(format!("the {} contains a wildcard", self.name)))
            }
            text => Ok(Value::Text(text)),
        }
    }
}
