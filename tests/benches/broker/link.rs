//! One socket of the generator: what arrived in part, what still has to leave, and the polite beginnings and ends.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::wire::{self, Packet};

/// How long a broker may take to answer a greeting or a farewell.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connected client.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) name: String,
    /// Bytes of packets that have not arrived completely.
    inbox: Vec<u8>,
    /// Bytes that wait to be written.
    pub(crate) outbox: Vec<u8>,
    /// Whether the socket refused some of them.
    pub(crate) blocked: bool,
}

impl Link {
    /// Connects; says whether the broker had a session for it.
    pub(crate) fn open(address: SocketAddr, name: String, clean_session: bool) -> Result<(Self, bool)> {
        let stream = TcpStream::connect(address).with_context(|| format!("{name} cannot reach {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut link = Self {
            stream,
            name,
            inbox: Vec::new(),
            outbox: Vec::new(),
            blocked: false,
        };
        let connect = wire::connect(&link.name, clean_session);
        let session_present = link.ask(&connect, |answer| match answer {
            Packet::ConnAck {
                session_present,
                code: 0,
            } => Some(session_present),
            _ => None,
        })?;
        Ok((link, session_present))
    }

    /// Subscribes with QoS 1 and waits for the answer.
    pub(crate) fn subscribe(&mut self, topic: &str) -> Result<()> {
        self.ask(&wire::subscribe(topic), |answer| {
            (answer == Packet::SubAck { code: 1 }).then_some(())
        })
    }

    /// Sends DISCONNECT and waits until the broker has closed the connection, so that it has let go of the client.
    pub(crate) fn leave(mut self) -> Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(&wire::DISCONNECT)?;
        let mut rest = [0; 256];
        match self.stream.read(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => bail!("{}: the broker says more after all was done", self.name),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{}: no end after DISCONNECT", self.name)),
        }
    }

    /// Writes a request and waits for its answer; what comes behind it stays in the inbox.
    fn ask<T>(&mut self, request: &[u8], expected: impl Fn(Packet<'_>) -> Option<T>) -> Result<T> {
        self.stream.write_all(request)?;
        let mut scratch = [0; 4096];
        loop {
            if let Some((packet, length)) = wire::cut(&self.inbox)? {
                let answer = expected(packet).with_context(|| format!("{}: refused with {packet:?}", self.name))?;
                self.inbox.drain(..length);
                return Ok(answer);
            }
            let length = self.stream.read(&mut scratch)?;
            ensure!(length > 0, "{}: the broker hung up on the handshake", self.name);
            self.inbox.extend_from_slice(&scratch[..length]);
        }
    }

    /// Reads once and hands on every complete packet, with the outbox for what is to be answered.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        mut each: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let length = match self.stream.read(scratch) {
            Ok(0) => bail!("{}: the broker hung up", self.name),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).with_context(|| self.name.clone()),
        };
        if self.inbox.is_empty() {
            let used = cut_all(&scratch[..length], &mut self.outbox, &mut each)?;
            self.inbox.extend_from_slice(&scratch[used..length]);
        } else {
            self.inbox.extend_from_slice(&scratch[..length]);
            let used = cut_all(&self.inbox, &mut self.outbox, &mut each)?;
            self.inbox.drain(..used);
        }
        Ok(())
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let written = match self.stream.write(&self.outbox) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).with_context(|| self.name.clone()),
        };
        self.outbox.drain(..written);
        self.blocked = !self.outbox.is_empty();
        Ok(())
    }
}

fn cut_all(
    bytes: &[u8],
    outbox: &mut Vec<u8>,
    each: &mut impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<()>,
) -> Result<usize> {
    let mut used = 0;
    while let Some((packet, length)) = wire::cut(&bytes[used..])? {
        each(packet, outbox)?;
        used += length;
    }
    Ok(used)
}
