//! Bytes to packets and back. [`cut`] takes whole frames off what a socket delivered, [`connect()`] and
//! [`Decoder`] check and read them, [`Encoder`] writes into an [`Outbox`]. No socket, no clock, no I/O.

use std::borrow::Cow;

use super::packet::Version;
use crate::model::reason::Reason;

mod advice;
mod aliases;
mod connect;
mod decode;
mod encode;
mod frame;
mod outbox;
mod properties;
mod publish;
mod strict;
#[cfg(test)]
mod tests;
mod wire;
mod write;

pub use aliases::Aliases;
pub use connect::connect;
pub use decode::Decoder;
pub use encode::{Encoder, TooLarge};
pub use frame::{Frame, Kind, cut, cut_connect, missing};
pub use outbox::Outbox;
pub use write::publish_bytes;

/// What a client sent is not MQTT: the connection ends with this reason (4.13).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {text}")]
pub struct Malformed {
    /// The standard's code for it.
    pub reason: Reason,
    /// What is wrong, for the log and the reason string.
    pub text: Cow<'static, str>,
}

impl Malformed {
    /// What cannot be parsed as the standard says.
    fn unparsable(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::MALFORMED_PACKET, text)
    }

    /// What can be parsed, and holds what the protocol does not allow.
    fn protocol(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, text)
    }

    fn new(reason: Reason, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

/// The first packet is no CONNECT that we can serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {text}")]
pub struct Refusal {
    /// The standard's code for it.
    pub reason: Reason,
    /// What is wrong, for the log and the reason string.
    pub text: Cow<'static, str>,
    /// The version whose CONNACK carries the reason; `None`: close without an answer.
    pub answer: Option<Version>,
}
