//! Packets to bytes. PUBLISH and acknowledgements are written by ourselves, the rest by the encoder crate;
//! limits are kept here, for the crate counts a header of five bytes where two are sent.

use std::num::NonZeroU16;

use bytestring::ByteString;
use rmqtt_codec::error::EncodeError;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Encoder as _;

use super::advice::{Carrier, advice};
use super::outbox::Outbox;
use super::write;
use crate::model::reason::Reason;
use crate::mqtt::packet::{Ack, AckKind, ConnAck, Connect, Outgoing, Version};

/// A packet is larger than its receiver accepts: it was not written [MQTT-3.1.2-25].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {bytes} bytes, where the client accepts {bytes_max}")]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
    /// The client's Maximum Packet Size.
    pub bytes_max: usize,
}

/// Writes what is sent to one client.
#[derive(Clone, Copy, Debug)]
pub struct Encoder {
    /// The version that it speaks.
    pub version: Version,
    /// Maximum Packet Size, as the client said.
    pub packet_bytes_max: Option<u32>,
    /// Whether it wants reason strings.
    pub problem_info: bool,
}

impl From<&Connect> for Encoder {
    fn from(connect: &Connect) -> Self {
        Self {
            version: connect.version,
            packet_bytes_max: connect.packet_bytes_max,
            problem_info: connect.request_problem_info,
        }
    }
}

impl Encoder {
    /// For a client of which nothing but its version is known.
    pub const fn new(version: Version) -> Self {
        Self {
            version,
            packet_bytes_max: None,
            problem_info: true,
        }
    }

    /// Appends `packet` to `out`, or nothing of it. A reason string that does not fit is left out.
    pub fn encode(&self, packet: &Outgoing, out: &mut Outbox) -> Result<(), TooLarge> {
        match packet {
            Outgoing::Publish(copy) => write::publish(self.version, copy, self.bytes_max(), out),
            Outgoing::Ack(ack) => self.ack(ack, out),
            Outgoing::Pong => self.small(&[0xD0, 0], out),
            Outgoing::ConnAck(ack) => self.conn_ack(ack, out),
            Outgoing::SubAck { packet_id, reasons } => self.sub_ack(*packet_id, reasons, out),
            Outgoing::UnsubAck { packet_id, reasons } => self.unsub_ack(*packet_id, reasons, out),
            Outgoing::Disconnect {
                reason,
                text,
                server_reference,
            } => self.disconnect(*reason, text.as_deref(), server_reference.as_deref(), out),
        }
    }

    fn bytes_max(&self) -> usize {
        self.packet_bytes_max.map_or(usize::MAX, |bytes| bytes as usize)
    }

    fn small(&self, packet: &[u8], out: &mut Outbox) -> Result<(), TooLarge> {
        if packet.len() > self.bytes_max() {
            return Err(self.too_large(packet.len()));
        }
        out.small(packet.len()).extend_from_slice(packet);
        Ok(())
    }

    fn too_large(&self, bytes: usize) -> TooLarge {
        let bytes_max = self.bytes_max();
        TooLarge { bytes, bytes_max }
    }

    fn ack(&self, ack: &Ack, out: &mut Outbox) -> Result<(), TooLarge> {
        let first = match ack.kind {
            AckKind::PubAck => 0x40,
            AckKind::PubRec => 0x50,
            AckKind::PubRel => 0x62,
            AckKind::PubComp => 0x70,
        };
        let [high, low] = ack.packet_id.to_be_bytes();
        match ack.reason {
            reason if self.version == Version::V5 && reason != Reason::SUCCESS => {
                let text = match ack.kind {
                    AckKind::PubAck | AckKind::PubRec => advice(Carrier::Publish, reason),
                    AckKind::PubRel | AckKind::PubComp => None,
                };
                if let Some(text) = text.filter(|_| self.problem_info) {
                    // No text of ours makes a length that takes two bytes.
                    let length = text.len() as u8;
                    let head = [
                        first,
                        7 + length,
                        high,
                        low,
                        reason.0,
                        3 + length,
                        REASON_STRING,
                        0,
                        length,
                    ];
                    if self.small(&[&head[..], text.as_bytes()].concat(), out).is_ok() {
                        return Ok(());
                    }
                }
                self.small(&[first, 3, high, low, reason.0], out)
            }
            _ => self.small(&[first, 2, high, low], out),
        }
    }

    fn conn_ack(&self, ack: &ConnAck, out: &mut Outbox) -> Result<(), TooLarge> {
        // [MQTT-3.2.2-6]; in MQTT 3.1 the flag is a reserved byte.
        let session_present = ack.session_present && ack.reason == Reason::SUCCESS && self.version > Version::V31;
        if self.version < Version::V5 {
            let return_code = return_code(ack.reason);
            let packet = v3::ConnectAck {
                return_code,
                session_present,
            };
            return self.write_v3(v3::Packet::ConnectAck(packet), out);
        }
        let packet = |reason_string| v5::ConnectAck {
            session_present,
            reason_code: code(ack.reason, v5::ConnectAckReason::UnspecifiedError),
            session_expiry_interval_secs: ack.session_expiry_s,
            receive_max: NonZeroU16::new(ack.receive_max).unwrap_or(NonZeroU16::MAX),
            // What everybody accepts need not be said; a refusal says nothing of us.
            max_packet_size: Some(ack.packet_bytes_max).filter(|bytes| *bytes < u32::MAX),
            max_qos: v3::QoS::try_from(ack.qos_max as u8).unwrap_or(v3::QoS::ExactlyOnce),
            assigned_client_id: ack.assigned_client_id.as_deref().map(Into::into),
            topic_alias_max: ack.topic_alias_max,
            server_keepalive_sec: ack.server_keep_alive_s,
            response_info: ack.response_info.as_deref().map(Into::into),
            server_reference: ack.server_reference.as_deref().map(Into::into),
            reason_string,
            ..v5::ConnectAck::default()
        };
        self.write_with_text(ack.text.as_deref(), |text| packet(text).into(), out)
    }

    fn sub_ack(&self, packet_id: u16, reasons: &[Reason], out: &mut Outbox) -> Result<(), TooLarge> {
        let packet_id = not_zero(packet_id);
        if self.version < Version::V5 {
            let status = reasons.iter().map(|reason| match v3::QoS::try_from(reason.0) {
                Ok(qos) => v3::SubscribeReturnCode::Success(qos),
                Err(_) => v3::SubscribeReturnCode::Failure,
            });
            let status = status.collect();
            return self.write_v3(v3::Packet::SubscribeAck { packet_id, status }, out);
        }
        let codes = reasons.iter();
        let status = codes.map(|reason| code(*reason, v5::SubscribeAckReason::UnspecifiedError));
        let status: Vec<_> = status.collect();
        let packet = |reason_string| v5::SubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string,
            status: status.clone(),
        };
        self.write_with_text(first_advice(reasons), |text| packet(text).into(), out)
    }

    fn unsub_ack(&self, packet_id: u16, reasons: &[Reason], out: &mut Outbox) -> Result<(), TooLarge> {
        let packet_id = not_zero(packet_id);
        if self.version < Version::V5 {
            return self.write_v3(v3::Packet::UnsubscribeAck { packet_id }, out);
        }
        let codes = reasons.iter();
        let status = codes.map(|reason| code(*reason, v5::UnsubscribeAckReason::UnspecifiedError));
        let status: Vec<_> = status.collect();
        let packet = |reason_string| v5::UnsubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string,
            status: status.clone(),
        };
        self.write_with_text(first_advice(reasons), |text| packet(text).into(), out)
    }

    fn disconnect(
        &self,
        reason: Reason,
        text: Option<&str>,
        server_reference: Option<&str>,
        out: &mut Outbox,
    ) -> Result<(), TooLarge> {
        if self.version < Version::V5 {
            return Ok(()); // before MQTT 5 a server only closes
        }
        let reason_code = code(reason, v5::DisconnectReasonCode::UnspecifiedError);
        let packet = |reason_string| v5::Disconnect {
            reason_string,
            server_reference: server_reference.map(Into::into),
            ..v5::Disconnect::new(reason_code)
        };
        let text = text.or_else(|| advice(Carrier::Disconnect, reason));
        self.write_with_text(text, |text| packet(text).into(), out)
    }

    fn write_with_text(
        &self,
        text: Option<&str>,
        packet: impl Fn(Option<ByteString>) -> v5::Packet,
        out: &mut Outbox,
    ) -> Result<(), TooLarge> {
        if let Some(text) = text.filter(|_| self.problem_info)
            && self.write_v5(packet(Some(text.into())), out).is_ok()
        {
            return Ok(());
        }
        self.write_v5(packet(None), out)
    }

    fn write_v5(&self, packet: v5::Packet, out: &mut Outbox) -> Result<(), TooLarge> {
        let buffer = out.small(SMALL_BYTES);
        let start = buffer.len();
        let written = v5::Codec::default().encode(packet, buffer);
        self.keep(written, start, out)
    }

    fn write_v3(&self, packet: v3::Packet, out: &mut Outbox) -> Result<(), TooLarge> {
        let buffer = out.small(SMALL_BYTES);
        let start = buffer.len();
        let written = v3::Codec::default().encode(packet, buffer);
        self.keep(written, start, out)
    }

    /// Takes back what the crate wrote if it is too large, or if a text in it is too long for its length.
    fn keep(&self, written: Result<(), EncodeError>, start: usize, out: &mut Outbox) -> Result<(), TooLarge> {
        let buffer = out.small(0);
        let bytes = buffer.len() - start;
        if written.is_ok() && bytes <= self.bytes_max() {
            return Ok(());
        }
        buffer.truncate(start);
        Err(self.too_large(bytes))
    }
}

/// The property of that name.
const REASON_STRING: u8 = 0x1F;

/// What to do about the first failure of several.
fn first_advice(reasons: &[Reason]) -> Option<&'static str> {
    let failures = reasons.iter().filter(|reason| reason.is_error());
    failures
        .into_iter()
        .find_map(|reason| advice(Carrier::Subscribe, *reason))
}

/// What the packets that the crate writes usually take.
const SMALL_BYTES: usize = 64;

fn not_zero(packet_id: u16) -> NonZeroU16 {
    NonZeroU16::new(packet_id).expect("the decoder refuses packet identifier 0")
}

/// The crate's name for a reason, or `other` where the packet cannot carry the reason.
fn code<T: TryFrom<u8>>(reason: Reason, other: T) -> T {
    T::try_from(reason.0).unwrap_or(other)
}

/// The return codes of MQTT 3 (3.1.1, 3.2.2.3).
fn return_code(reason: Reason) -> v3::ConnectAckReason {
    match reason {
        Reason::SUCCESS => v3::ConnectAckReason::ConnectionAccepted,
        Reason::UNSUPPORTED_PROTOCOL_VERSION => v3::ConnectAckReason::UnacceptableProtocolVersion,
        Reason::CLIENT_IDENTIFIER_NOT_VALID => v3::ConnectAckReason::IdentifierRejected,
        Reason::BAD_USER_NAME_OR_PASSWORD => v3::ConnectAckReason::BadUserNameOrPassword,
        Reason::NOT_AUTHORIZED | Reason::BANNED | Reason::BAD_AUTHENTICATION_METHOD => {
            v3::ConnectAckReason::NotAuthorized
        }
        _ => v3::ConnectAckReason::ServiceUnavailable,
    }
}
