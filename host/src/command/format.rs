//! `-F` of `hookline sub`: what is printed of a message, in mosquitto_sub's notation.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use rumqttc::v5::mqttbytes::v5::Publish;

/// A template, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Field(Field),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Topic,
    Payload,
    HexLower,
    HexUpper,
    PayloadBytes,
    PacketId,
    Qos,
    Retain,
    ContentType,
    CorrelationData,
    ExpiryInterval,
    PayloadFormat,
    UserProperties,
    ResponseTopic,
    SubscriptionIds,
    UnixTime,
}

impl Field {
    const fn of(letter: char) -> Option<Self> {
        Some(match letter {
            't' => Self::Topic,
            'p' => Self::Payload,
            'x' => Self::HexLower,
            'X' => Self::HexUpper,
            'l' => Self::PayloadBytes,
            'm' => Self::PacketId,
            'q' => Self::Qos,
            'r' => Self::Retain,
            'C' => Self::ContentType,
            'D' => Self::CorrelationData,
            'E' => Self::ExpiryInterval,
            'F' => Self::PayloadFormat,
            'P' => Self::UserProperties,
            'R' => Self::ResponseTopic,
            'S' => Self::SubscriptionIds,
            'U' => Self::UnixTime,
            _ => return None,
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(template: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = Vec::new();
        let mut letters = template.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '%' => match letters.next() {
                    Some('%') => text.push(b'%'),
                    Some(letter) => {
                        let field = Field::of(letter).ok_or_else(|| unknown(letter))?;
                        pieces.extend([Piece::Text(std::mem::take(&mut text)), Piece::Field(field)]);
                    }
                    None => return Err("a % at the end: write %% for a percent sign".to_owned()),
                },
                '\\' => text.push(escaped(letters.next())?),
                plain => text.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        pieces.push(Piece::Text(text));
        pieces.retain(|piece| *piece != Piece::Text(Vec::new()));
        Ok(Self(pieces))
    }
}

fn unknown(letter: char) -> String {
    format!("%{letter} is not one of %t %p %x %X %l %m %q %r %C %D %E %F %P %R %S %U and %%")
}

fn escaped(letter: Option<char>) -> Result<u8, String> {
    Ok(match letter {
        Some('\\') => b'\\',
        Some('0') => 0,
        Some('a') => 0x07,
        Some('e') => 0x1b,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 0x0b,
        Some(other) => return Err(format!("\\{other} is not one of \\n \\r \\t \\v \\a \\e \\0 and \\\\")),
        None => return Err("a \\ at the end: write \\\\ for a backslash".to_owned()),
    })
}

impl Format {
    /// Appends what the template says of a message that came at `now`.
    pub(super) fn write(&self, message: &Publish, now: SystemTime, out: &mut Vec<u8>) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Field(field) => out.extend_from_slice(&field.value(message, now)),
            }
        }
    }
}

impl Field {
    fn value(self, message: &Publish, now: SystemTime) -> Cow<'_, [u8]> {
        let properties = message.properties.as_ref();
        match self {
            Self::Topic => Cow::Borrowed(&message.topic),
            Self::Payload => Cow::Borrowed(&message.payload),
            Self::HexLower => text(hex(&message.payload, |text, byte| write!(text, "{byte:02x}"))),
            Self::HexUpper => text(hex(&message.payload, |text, byte| write!(text, "{byte:02X}"))),
            Self::PayloadBytes => text(message.payload.len()),
            Self::PacketId => text(message.pkid),
            Self::Qos => text(message.qos as u8),
            Self::Retain => text(u8::from(message.retain)),
            Self::ContentType => or_nothing(properties.and_then(|all| all.content_type.as_ref())),
            Self::ResponseTopic => or_nothing(properties.and_then(|all| all.response_topic.as_ref())),
            Self::ExpiryInterval => or_nothing(properties.and_then(|all| all.message_expiry_interval)),
            Self::PayloadFormat => or_nothing(properties.and_then(|all| all.payload_format_indicator)),
            Self::CorrelationData => Cow::Borrowed(
                properties
                    .and_then(|all| all.correlation_data.as_deref())
                    .unwrap_or_default(),
            ),
            Self::UserProperties => {
                let pairs = properties.map_or(&[][..], |all| &all.user_properties);
                spaced(pairs.iter().map(|(key, value)| format!("{key}:{value}")))
            }
            Self::SubscriptionIds => {
                let ids = properties.map_or(&[][..], |all| &all.subscription_identifiers);
                spaced(ids.iter().map(usize::to_string))
            }
            Self::UnixTime => {
                let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
                text(format_args!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
            }
        }
    }
}

fn text(value: impl ToString) -> Cow<'static, [u8]> {
    Cow::Owned(value.to_string().into_bytes())
}

fn or_nothing(value: Option<impl ToString>) -> Cow<'static, [u8]> {
    value.map_or(Cow::Borrowed(&[]), text)
}

fn spaced(items: impl Iterator<Item = String>) -> Cow<'static, [u8]> {
    text(items.collect::<Vec<_>>().join(" "))
}

fn hex(bytes: &[u8], digits: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // A String takes everything.
            let _ = digits(&mut text, *byte);
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::PublishProperties;
    use std::time::Duration;

    fn message() -> Publish {
        let properties = PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(60),
            response_topic: Some("back".to_owned()),
            correlation_data: Some(Bytes::from_static(b"\xff42")),
            user_properties: vec![("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d e".to_owned())],
            subscription_identifiers: vec![3, 7],
            content_type: Some("text/plain".to_owned()),
            ..PublishProperties::default()
        };
        let mut message = Publish::new("rooms/ä", QoS::AtLeastOnce, &b"\x00\xabz"[..], Some(properties));
        message.pkid = 12;
        message.retain = true;
        message
    }

    #[test]
    fn a_template_says_of_a_message_what_mosquitto_sub_says() {
        let now = UNIX_EPOCH + Duration::new(1_700_000_000, 12_000);
        for (template, expected) in [
            ("%t", "rooms/ä".as_bytes()),
            ("%p", b"\x00\xabz"),
            ("%x %X", b"00ab7a 00AB7A"),
            ("%l|%m|%q|%r", b"3|12|1|1"),
            ("%C %E %F %R", b"text/plain 60 1 back"),
            ("%D", b"\xff42"),
            ("%P", b"a:b c:d e"),
            ("%S", b"3 7"),
            ("%U", b"1700000000.000012000"),
            ("100%% %q\\t\\\\\\n\\0", b"100% 1\t\\\n\x00"),
            ("\u{e4}", "\u{e4}".as_bytes()),
            ("", b""),
        ] {
            let mut out = Vec::new();
            let format: Format = template.parse().expect(template);
            format.write(&message(), now, &mut out);
            assert_eq!(out, expected, "{template}");
        }
    }

    #[test]
    fn a_message_without_properties_leaves_their_places_empty() {
        let mut out = Vec::new();
        let format: Format = "[%C%D%E%F%P%R%S]".parse().expect("a template");
        format.write(&Publish::new("t", QoS::AtMostOnce, "x", None), UNIX_EPOCH, &mut out);
        assert_eq!(out, b"[]");
    }

    #[test]
    fn a_template_with_a_mistake_says_what_is_known() {
        for (template, expected) in [
            ("%z", "%z is not one of %t %p"),
            ("50%", "a % at the end"),
            ("\\q", "\\q is not one of \\n"),
            ("\\", "a \\ at the end"),
        ] {
            let error = template.parse::<Format>().expect_err(template);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
