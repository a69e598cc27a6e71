//! A client that writes bytes, reads as much as it likes and keeps no rule. MQTT 3.1.1 unless told otherwise.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::host::Host;
use crate::harness::within;

/// A connection.
pub struct Attacker {
    pub stream: TcpStream,
}

impl Attacker {
    /// A connection on which nothing has been said.
    pub async fn dial(host: &Host) -> Self {
        Self::dial_port(host.port()).await
    }

    /// The same by port.
    pub async fn dial_port(port: u16) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(("127.0.0.1", port))).await;
        let stream = stream.expect("the host listens");
        // A reset instead of minutes in TIME_WAIT: there are only so many ports.
        stream.set_zero_linger().expect("a fresh socket");
        Self { stream }
    }

    /// A client that was let in.
    pub async fn connect(host: &Host, id: &str) -> Self {
        let mut attacker = Self::dial(host).await;
        attacker.say(&connect(id, None)).await;
        assert_eq!(attacker.read(4).await, [0x20, 2, 0, 0], "{id} is let in");
        attacker
    }

    /// Writes everything; the host must take it.
    pub async fn say(&mut self, bytes: &[u8]) {
        let said = within("room in a socket", self.stream.write_all(bytes)).await;
        said.expect("the host listens");
    }

    /// Writes until everything is written, or the host takes no more for a while or closes. Answers how much.
    pub async fn pour(&mut self, bytes: &[u8]) -> usize {
        let patience = std::time::Duration::from_millis(300);
        let mut written = 0;
        while written < bytes.len() {
            match tokio::time::timeout(patience, self.stream.write(&bytes[written..])).await {
                Ok(Ok(count)) if count > 0 => written += count,
                _ => break,
            }
        }
        written
    }

    /// Reads exactly so many bytes.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = within("an answer", self.stream.read_exact(&mut bytes)).await;
        read.expect("the host answers");
        bytes
    }

    /// Waits until the host closes the connection, whatever it says before.
    pub async fn until_closed(&mut self) {
        let mut rest = vec![0; 4096];
        let closed = async { while self.stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        within("the end of a connection", closed).await;
    }

    /// Whether the host has closed the connection already.
    pub fn is_closed(&self) -> bool {
        match self.stream.try_read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// A packet: first byte, length, body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, body.len());
    bytes.extend_from_slice(body);
    bytes
}

/// A fixed header that promises so many bytes.
pub fn header(first: u8, mut length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    loop {
        let more = u8::from(length > 127) << 7;
        bytes.push(more | (length & 0x7F) as u8);
        length >>= 7;
        if length == 0 {
            return bytes;
        }
    }
}

/// A string or binary data with its length.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let length = u16::try_from(text.len()).expect("65,535 bytes at most");
    [&length.to_be_bytes(), text].concat()
}

/// CONNECT with a clean session and perhaps a will of QoS 1.
pub fn connect(id: &str, will: Option<(&str, &[u8])>) -> Vec<u8> {
    let flags = if will.is_some() { 0x0E } else { 0x02 };
    let mut body = [b"\x00\x04MQTT\x04".as_slice(), &[flags, 0, 0], &text(id)].concat();
    if let Some((topic, payload)) = will {
        body.extend(text(topic));
        body.extend(text(payload));
    }
    packet(0x10, &body)
}

/// PUBLISH.
pub fn publish(id: u16, qos: u8, retain: bool, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | u8::from(retain), &body)
}

/// SUBSCRIBE to all of these.
pub fn subscribe(id: u16, qos: u8, filters: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for filter in filters {
        body.extend(text(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE from all of these.
pub fn unsubscribe(id: u16, filters: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    filters.into_iter().for_each(|filter| body.extend(text(filter)));
    packet(0xA2, &body)
}

/// PINGREQ.
pub const PING: [u8; 2] = [0xC0, 0];
