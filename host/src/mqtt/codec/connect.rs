//! CONNECT (3.1), read by ourselves: the decoder crate refuses a legal empty client identifier and a legal
//! will expiry of 0, and does not tell an absent session expiry from 0, nor a wrong name from an unknown
//! level.

use bytes::Bytes;
use bytestring::ByteString;

use super::properties::{self, Owner, Value, walk};
use super::publish::{Carried, topic};
use super::wire::Reader;
use super::{Frame, Kind, Malformed, Refusal};
use crate::model::message::Qos;
use crate::model::reason::Reason;
use crate::model::session::Will;
use crate::mqtt::packet::{Connect, Version};

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

/// Reads the first packet of a connection, which must be a CONNECT [MQTT-3.1.0-1].
pub fn connect(frame: &Frame) -> Result<Connect, Refusal> {
    if frame.kind != Kind::Connect {
        return Err(Refusal::of(None, Malformed::protocol("the first packet is no CONNECT")));
    }
    let body = &frame.body;
    let mut reader = Reader::new(body);
    let version = version(&mut reader)?;
    // Before MQTT 5 no return code says "malformed", so nothing is answered [MQTT-3.1.4-1].
    let answer = Some(version).filter(|version| *version == Version::V5);
    read(version, body, reader).map_err(|malformed| Refusal::of(answer, malformed))
}

impl Refusal {
    fn of(answer: Option<Version>, malformed: Malformed) -> Self {
        let Malformed { reason, text } = malformed;
        Self { reason, text, answer }
    }
}

/// Protocol name and level. A name that is not MQTT's gets no answer [MQTT-3.1.2-1], a level that we do not
/// speak gets one in the nearest version [MQTT-3.1.2-2]; bridges of mosquitto set its highest bit.
fn version(reader: &mut Reader<'_>) -> Result<Version, Refusal> {
    let close = |malformed| Refusal::of(None, malformed);
    let name = reader.binary().map_err(close)?;
    if !matches!(name, b"MQTT" | b"MQIsdp") {
        return Err(close(Malformed::protocol(
            "the protocol name is neither MQTT nor MQIsdp",
        )));
    }
    match (name, reader.byte().map_err(close)?) {
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQIsdp", 3) => Ok(Version::V31),
        (name, level) => Err(Refusal {
            reason: Reason::UNSUPPORTED_PROTOCOL_VERSION,
            text: format!("protocol level {level} of {}", name.escape_ascii()).into(),
            answer: Some(if level & 0x7F < 5 || name == b"MQIsdp" {
                Version::V311
            } else {
                Version::V5
            }),
        }),
    }
}

fn read(version: Version, body: &Bytes, mut reader: Reader<'_>) -> Result<Connect, Malformed> {
    let flags = reader.byte()?;
    check_flags(version, flags)?;
    let mut connect = Connect {
        version,
        clean_start: flags & CLEAN_START != 0,
        keep_alive_s: reader.two()?,
        client_id: ByteString::new(),
        will: None,
        username: None,
        password: None,
        session_expiry_s: None,
        receive_max: u16::MAX,
        packet_bytes_max: None,
        topic_alias_max: 0,
        request_problem_info: true,
        request_response_info: false,
        auth_method: None,
    };
    if version == Version::V5 {
        connect.read_properties(reader.section()?)?;
    }
    connect.client_id = reader.text("client identifier")?.into();
    if flags & WILL != 0 {
        // A copy: it lives as long as the session and must not hold a whole chunk.
        connect.will = Some(will(version, flags, body, &mut reader)?.detached());
    }
    // MQTT 3.1 lets the length of the packet take precedence over these two flags.
    let left_out = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
    if flags & USER_NAME != 0 && !left_out(&reader) {
        connect.username = Some(reader.text("user name")?.into());
    }
    if flags & PASSWORD != 0 && !left_out(&reader) {
        connect.password = Some(body.slice_ref(reader.binary()?));
    }
    reader.end()?;
    Ok(connect)
}

fn check_flags(version: Version, flags: u8) -> Result<(), Malformed> {
    let text = if flags & RESERVED != 0 {
        "the reserved flag of CONNECT is set"
    } else if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 {
        "will QoS or will retain without a will"
    } else if flags & WILL_QOS == WILL_QOS {
        "a will of QoS 3"
    } else if version < Version::V5 && flags & (USER_NAME | PASSWORD) == PASSWORD {
        "a password without a user name"
    } else {
        return Ok(());
    };
    Err(Malformed::unparsable(text))
}

fn will(version: Version, flags: u8, body: &Bytes, reader: &mut Reader<'_>) -> Result<Will, Malformed> {
    let carried = match version {
        Version::V5 => Carried::read(Owner::Will, body, reader.section()?)?,
        _ => Carried::default(),
    };
    Ok(Will {
        topic: topic(body, reader.binary()?, "will topic")?,
        payload: body.slice_ref(reader.binary()?),
        qos: Qos::from_bits((flags & WILL_QOS) >> 3).ok_or_else(|| Malformed::unparsable("a will of QoS 3"))?,
        retain: flags & WILL_RETAIN != 0,
        delay_s: carried.delay_s,
        expiry_s: carried.expiry_s,
        properties: carried.properties,
    })
}

impl Connect {
    fn read_properties(&mut self, section: &[u8]) -> Result<(), Malformed> {
        let mut auth_data = false;
        walk(Owner::Connect, section, |found| {
            let number = found.value.number();
            match (found.id, found.value) {
                (properties::SESSION_EXPIRY_INTERVAL, _) => self.session_expiry_s = Some(number),
                (properties::RECEIVE_MAXIMUM, _) => self.receive_max = number as u16,
                (properties::MAXIMUM_PACKET_SIZE, _) => self.packet_bytes_max = Some(number),
                (properties::TOPIC_ALIAS_MAXIMUM, _) => self.topic_alias_max = number as u16,
                (properties::REQUEST_PROBLEM_INFORMATION, _) => self.request_problem_info = number == 1,
                (properties::REQUEST_RESPONSE_INFORMATION, _) => self.request_response_info = number == 1,
                (properties::AUTHENTICATION_METHOD, Value::Text(text)) => self.auth_method = Some(text.into()),
                (properties::AUTHENTICATION_DATA, _) => auth_data = true,
                _ => {}
            }
            Ok(())
        })?;
        if auth_data && self.auth_method.is_none() {
            return Err(Malformed::protocol("authentication data without a method"));
        }
        Ok(())
    }
}
