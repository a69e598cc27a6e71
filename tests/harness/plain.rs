//! A client made of bytes: what it says is built byte by byte, and what it hears is shown as it came. Its packets
//! are written and read by nothing but this file, so that the standard is checked by a second pair of eyes.

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::host::Host;
use super::{Mqtt, within};

/// Identifiers of properties (MQTT 5, 2.2.2.2).
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

/// A property that holds one byte.
pub fn one(id: u8, value: u8) -> Vec<u8> {
    vec![id, value]
}

/// A property that holds two bytes.
pub fn two(id: u8, value: u16) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

/// A property that holds four bytes.
pub fn four(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

/// A property that holds a variable byte integer.
pub fn varint(id: u8, value: usize) -> Vec<u8> {
    [&[id][..], &length(value)].concat()
}

/// A property that holds text or binary data.
pub fn text(id: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    [&[id][..], &string(value)].concat()
}

/// A user property.
pub fn pair(name: &str, value: &str) -> Vec<u8> {
    [&[id::USER_PROPERTY][..], &string(name), &string(value)].concat()
}

/// A string or binary data with its length in front (1.5.4).
pub fn string(value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let length = u16::try_from(value.len()).expect("a string is at most 65,535 bytes long");
    [&length.to_be_bytes()[..], value].concat()
}

fn length(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A packet from its first byte and what follows the length.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first][..], &length(body.len()), body].concat()
}

/// Properties with their length in front, which only MQTT 5 has.
fn section(mqtt: Mqtt, properties: &[u8]) -> Vec<u8> {
    match mqtt {
        Mqtt::V5 => [&length(properties.len())[..], properties].concat(),
        Mqtt::V311 => Vec::new(),
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its first byte.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// An acknowledgement with a reason (MQTT 5).
pub fn ack_with(first: u8, id: u16, reason: u8) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()[..], &[reason]].concat())
}

/// SUBSCRIBE: filters with their options, in MQTT 5 with properties.
pub fn subscribe(mqtt: Mqtt, id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let filters = filters
        .iter()
        .map(|(filter, options)| [&string(filter)[..], &[*options]].concat());
    let filters: Vec<u8> = filters.flatten().collect();
    packet(
        0x82,
        &[&id.to_be_bytes()[..], &section(mqtt, properties), &filters].concat(),
    )
}

/// UNSUBSCRIBE.
pub fn unsubscribe(mqtt: Mqtt, id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(string).collect();
    packet(0xA2, &[&id.to_be_bytes()[..], &section(mqtt, &[]), &filters].concat())
}

/// DISCONNECT with a reason and properties (MQTT 5).
pub fn disconnect(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xE0, &[&[reason][..], &section(Mqtt::V5, properties)].concat())
}

/// A PUBLISH to be written.
#[derive(Clone, Default)]
pub struct Publish {
    topic: Vec<u8>,
    payload: Vec<u8>,
    flags: u8,
    id: u16,
    properties: Vec<u8>,
}

/// A PUBLISH of QoS 0.
pub fn publish(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Publish {
    Publish {
        topic: topic.as_ref().to_vec(),
        payload: payload.as_ref().to_vec(),
        ..Publish::default()
    }
}

impl Publish {
    /// With this QoS and packet identifier.
    pub fn qos(mut self, qos: u8, id: u16) -> Self {
        (self.flags, self.id) = (self.flags | qos << 1, id);
        self
    }

    /// With RETAIN.
    pub fn retain(mut self) -> Self {
        self.flags |= 1;
        self
    }

    /// With DUP.
    pub fn dup(mut self) -> Self {
        self.flags |= 8;
        self
    }

    /// With one more property (MQTT 5).
    pub fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }

    /// As it stands on the wire.
    pub fn bytes(&self, mqtt: Mqtt) -> Vec<u8> {
        let id = if self.flags & 6 == 0 {
            vec![]
        } else {
            self.id.to_be_bytes().to_vec()
        };
        let parts = [
            string(&self.topic),
            id,
            section(mqtt, &self.properties),
            self.payload.clone(),
        ];
        packet(0x30 | self.flags, &parts.concat())
    }
}

/// A CONNECT to be written.
#[derive(Clone)]
pub struct Connect {
    mqtt: Mqtt,
    id: String,
    flags: u8,
    keep_alive_s: u16,
    properties: Vec<u8>,
    will_properties: Vec<u8>,
    will: Vec<u8>,
}

impl Connect {
    /// Of a client that begins a session which ends with its connection.
    pub fn clean(mqtt: Mqtt, id: &str) -> Self {
        Self {
            mqtt,
            id: id.to_owned(),
            flags: 0b10,
            keep_alive_s: 0,
            properties: Vec::new(),
            will_properties: Vec::new(),
            will: Vec::new(),
        }
    }

    /// Of a client that resumes a session and leaves one behind.
    pub fn persistent(mqtt: Mqtt, id: &str) -> Self {
        let connect = Self {
            flags: 0,
            ..Self::clean(mqtt, id)
        };
        match mqtt {
            Mqtt::V5 => connect.with(four(id::SESSION_EXPIRY, 3600)),
            Mqtt::V311 => connect,
        }
    }

    /// Of an MQTT 5 client that resumes a session, or begins one, without saying how long it lasts.
    pub fn resuming(id: &str) -> Self {
        Self {
            flags: 0,
            ..Self::clean(Mqtt::V5, id)
        }
    }

    /// With one more property (MQTT 5).
    pub fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.extend(property);
        self
    }

    /// With a Keep Alive in seconds.
    pub fn keep_alive(self, keep_alive_s: u16) -> Self {
        Self { keep_alive_s, ..self }
    }

    /// With a will.
    pub fn will(mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> Self {
        self.flags |= 0b100 | qos << 3 | u8::from(retain) << 5;
        self.will = [string(topic), string(payload)].concat();
        self
    }

    /// With one more property of the will (MQTT 5).
    pub fn will_with(mut self, property: Vec<u8>) -> Self {
        self.will_properties.extend(property);
        self
    }

    /// As it stands on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let level = if self.mqtt == Mqtt::V5 { 5 } else { 4 };
        let [high, low] = self.keep_alive_s.to_be_bytes();
        let will_properties = match self.will.is_empty() {
            true => Vec::new(),
            false => section(self.mqtt, &self.will_properties),
        };
        let parts = [
            string("MQTT"),
            vec![level, self.flags, high, low],
            section(self.mqtt, &self.properties),
            string(&self.id),
            will_properties,
            self.will.clone(),
        ];
        packet(0x10, &parts.concat())
    }
}

/// A message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    pub topic: String,
    /// 0 where it has none.
    pub id: u16,
    /// Identifiers and values, in their order.
    pub properties: Vec<(u8, Vec<u8>)>,
    pub payload: Vec<u8>,
}

impl Message {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The values of a property, in their order.
    pub fn values(&self, id: u8) -> Vec<Vec<u8>> {
        let found = self.properties.iter().filter(|(known, _)| *known == id);
        found.map(|(_, value)| value.clone()).collect()
    }

    fn read(mqtt: Mqtt, bytes: &[u8]) -> Self {
        assert_eq!(
            bytes.first().map(|first| first >> 4),
            Some(3),
            "a PUBLISH, not {bytes:02x?}"
        );
        let flags = bytes[0] & 0x0F;
        let qos = flags >> 1 & 3;
        let mut rest = body(bytes);
        let topic = String::from_utf8(take_string(&mut rest)).expect("a topic is UTF-8");
        let id = if qos > 0 { take_two(&mut rest) } else { 0 };
        let mut properties = Vec::new();
        if mqtt == Mqtt::V5 {
            let length = take_varint(&mut rest);
            properties = read_properties(&rest[..length]);
            rest = &rest[length..];
        }
        Self {
            dup: flags & 8 != 0,
            qos,
            retain: flags & 1 != 0,
            topic,
            id,
            properties,
            payload: rest.to_vec(),
        }
    }
}

/// What follows the length of a whole packet.
pub fn body(packet: &[u8]) -> &[u8] {
    let mut rest = &packet[1..];
    let length = take_varint(&mut rest);
    assert_eq!(rest.len(), length, "the length of {packet:02x?}");
    rest
}

/// The properties of a CONNACK, a DISCONNECT or an acknowledgement of MQTT 5, which begin at this place of its body.
pub fn properties(packet: &[u8], at: usize) -> Vec<(u8, Vec<u8>)> {
    let Some(mut rest) = body(packet).get(at..).filter(|rest| !rest.is_empty()) else {
        return Vec::new();
    };
    let length = take_varint(&mut rest);
    read_properties(&rest[..length])
}

fn read_properties(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut properties = Vec::new();
    while let Some((id, after)) = rest.split_first() {
        rest = after;
        let length = match *id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
            0x13 | 0x21 | 0x22 | 0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            id::SUBSCRIPTION_IDENTIFIER => rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1,
            id::USER_PROPERTY => {
                let name = 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]));
                name + 2 + usize::from(u16::from_be_bytes([rest[name], rest[name + 1]]))
            }
            _ => 2 + usize::from(u16::from_be_bytes([rest[0], rest[1]])),
        };
        properties.push((*id, rest[..length].to_vec()));
        rest = &rest[length..];
    }
    properties
}

fn take_two(rest: &mut &[u8]) -> u16 {
    let (taken, after) = rest.split_at(2);
    *rest = after;
    u16::from_be_bytes([taken[0], taken[1]])
}

fn take_string(rest: &mut &[u8]) -> Vec<u8> {
    let length = take_two(rest).into();
    let (taken, after) = rest.split_at(length);
    *rest = after;
    taken.to_vec()
}

fn take_varint(rest: &mut &[u8]) -> usize {
    let mut value = 0;
    for shift in [0, 7, 14, 21] {
        let byte = rest[0];
        *rest = &rest[1..];
        value |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// A connection.
pub struct Plain {
    mqtt: Mqtt,
    stream: TcpStream,
    unread: Vec<u8>,
    /// Whole packets that came while another was waited for.
    waiting: VecDeque<Vec<u8>>,
    ids: u16,
    /// The CONNACK, where one came.
    pub connack: Vec<u8>,
}

impl Host {
    /// A TCP connection on which nothing has been said yet.
    pub async fn plain(&self, mqtt: Mqtt) -> Plain {
        let stream = within("a TCP connection", TcpStream::connect(("127.0.0.1", self.port()))).await;
        let stream = stream.expect("the host listens");
        stream.set_nodelay(true).expect("a fresh socket");
        Plain {
            mqtt,
            stream,
            unread: Vec::new(),
            waiting: VecDeque::new(),
            ids: 1000,
            connack: Vec::new(),
        }
    }

    /// A client that said this CONNECT and was let in.
    pub async fn admit(&self, connect: Connect) -> Plain {
        let client = self.ask(&connect).await;
        assert_eq!(
            client.connack.get(3),
            Some(&0),
            "{}: {:02x?}",
            connect.id,
            client.connack
        );
        client
    }

    /// A client that said this CONNECT, and the answer.
    pub async fn ask(&self, connect: &Connect) -> Plain {
        let mut client = self.plain(connect.mqtt).await;
        client.say(&connect.bytes()).await;
        client.connack = client.next().await;
        client
    }

    /// A clean client, let in.
    pub async fn join(&self, mqtt: Mqtt, id: &str) -> Plain {
        self.admit(Connect::clean(mqtt, id)).await
    }
}

impl Plain {
    /// Whether its CONNACK said that there was a session.
    pub fn session_present(&self) -> bool {
        self.connack[2] & 1 == 1
    }

    /// The properties of its CONNACK.
    pub fn connack_properties(&self) -> Vec<(u8, Vec<u8>)> {
        properties(&self.connack, 2)
    }

    /// Writes bytes. Where the host has closed the connection, reading is what says so.
    pub async fn say(&mut self, bytes: &[u8]) {
        within("room in a socket", self.stream.write_all(bytes)).await.ok();
    }

    /// Writes a PUBLISH and goes on.
    pub async fn publish(&mut self, publish: Publish) {
        self.say(&publish.bytes(self.mqtt)).await;
    }

    /// Publishes a message of QoS 1 and waits for its acknowledgement, which must be the next packet.
    pub async fn tell(&mut self, publish: Publish) {
        self.ids += 1;
        let id = self.ids;
        self.publish(publish.qos(1, id)).await;
        let heard = self.next().await;
        let refused = heard.get(4).is_some_and(|reason| *reason >= 0x80);
        let expected = heard.starts_with(&[0x40]) && body(&heard).starts_with(&id.to_be_bytes());
        assert!(expected && !refused, "PUBACK of {id}, not {}", show(&heard));
    }

    /// Subscribes to one filter with these options, which must be granted.
    pub async fn subscribe(&mut self, filter: &str, options: u8) {
        self.subscribe_with(&[], filter, options).await;
    }

    /// The same with properties.
    pub async fn subscribe_with(&mut self, properties: &[u8], filter: &str, options: u8) {
        self.ids += 1;
        let id = self.ids;
        self.say(&subscribe(self.mqtt, id, properties, &[(filter, options)]))
            .await;
        self.hear(&suback(self.mqtt, id, &[options & 3])).await;
    }

    /// The next packet as it came; nothing at the end of the connection.
    pub async fn next(&mut self) -> Vec<u8> {
        match self.waiting.pop_front() {
            Some(packet) => packet,
            None => within("a packet", self.read()).await,
        }
    }

    async fn read(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = whole(&self.unread) {
                let rest = self.unread.split_off(length);
                return std::mem::replace(&mut self.unread, rest);
            }
            if matches!(self.stream.read_buf(&mut self.unread).await, Ok(0) | Err(_)) {
                assert!(
                    self.unread.is_empty(),
                    "the end comes within a packet: {:02x?}",
                    self.unread
                );
                return Vec::new();
            }
        }
    }

    /// The next packet must be this one.
    #[track_caller]
    pub fn hear<'a>(&'a mut self, wanted: &'a [u8]) -> impl Future<Output = ()> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let heard = self.next().await;
            assert_eq!(show(&heard), show(wanted), "at {caller}");
        }
    }

    /// The next packet must be a message.
    pub async fn message(&mut self) -> Message {
        let heard = self.next().await;
        Message::read(self.mqtt, &heard)
    }

    /// The next packet must be a message with this payload; acknowledges it.
    #[track_caller]
    pub fn receive<'a>(&'a mut self, payload: &'a str) -> impl Future<Output = Message> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let message = self.message().await;
            assert_eq!(message.text(), payload, "at {caller}");
            self.accept(&message).await;
            message
        }
    }

    /// Acknowledges a message to the end.
    pub async fn accept(&mut self, message: &Message) {
        match message.qos {
            1 => self.say(&ack(0x40, message.id)).await,
            2 => {
                self.say(&ack(0x50, message.id)).await;
                self.until(&ack(0x62, message.id)).await;
                self.say(&ack(0x70, message.id)).await;
            }
            _ => {}
        }
    }

    /// Waits for this packet; what comes before it is kept.
    pub async fn until(&mut self, wanted: &[u8]) {
        if let Some(at) = self.waiting.iter().position(|packet| packet == wanted) {
            self.waiting.remove(at);
            return;
        }
        loop {
            let heard = within(show(wanted), self.read()).await;
            if heard == wanted {
                return;
            }
            assert!(!heard.is_empty(), "the connection ends before {}", show(wanted));
            self.waiting.push_back(heard);
        }
    }

    /// Nothing is on its way: what was routed to it before has been written before the second answer.
    #[track_caller]
    pub fn silence(&mut self) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            for _ in 0..2 {
                self.say(&[0xC0, 0]).await;
                let heard = self.next().await;
                assert_eq!(show(&heard), show(&[0xD0, 0]), "at {caller}");
            }
        }
    }

    /// The host ends the connection: MQTT 5 is told why, before that it only closes.
    #[track_caller]
    pub fn sent_away(&mut self, reason: u8) -> impl Future<Output = ()> + '_ {
        let caller = std::panic::Location::caller();
        async move {
            if self.mqtt == Mqtt::V5 {
                let heard = self.next().await;
                let said = (heard.first() == Some(&0xE0)).then(|| body(&heard)[0]);
                assert_eq!(said, Some(reason), "a DISCONNECT, not {} at {caller}", show(&heard));
            }
            let heard = self.next().await;
            assert!(heard.is_empty(), "the end, not {} at {caller}", show(&heard));
        }
    }

    /// Leaves with a DISCONNECT and waits until the host has let go.
    pub async fn leave(mut self) {
        self.say(&[0xE0, 0]).await;
        self.hear(&[]).await;
    }
}

/// SUBACK as the host ought to write it.
pub fn suback(mqtt: Mqtt, id: u16, reasons: &[u8]) -> Vec<u8> {
    packet(0x90, &[&id.to_be_bytes()[..], &section(mqtt, &[]), reasons].concat())
}

/// The reasons of a SUBACK or UNSUBACK for this identifier, whatever its properties say.
pub fn reasons(mqtt: Mqtt, packet: &[u8], id: u16) -> Vec<u8> {
    let mut rest = body(packet);
    assert!(matches!(packet[0], 0x90 | 0xB0), "{}", show(packet));
    assert_eq!(take_two(&mut rest), id, "{}", show(packet));
    if mqtt == Mqtt::V5 {
        let length = take_varint(&mut rest);
        rest = &rest[length..];
    }
    rest.to_vec()
}

/// UNSUBACK as the host ought to write it; before MQTT 5 it has no reasons.
pub fn unsuback(mqtt: Mqtt, id: u16, reasons: &[u8]) -> Vec<u8> {
    let reasons = if mqtt == Mqtt::V5 { reasons } else { &[] };
    packet(0xB0, &[&id.to_be_bytes()[..], &section(mqtt, &[]), reasons].concat())
}

/// The length of the whole packet at the start of `bytes`, if there is one.
fn whole(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for at in 1..5 {
        let byte = bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        if byte & 0x80 == 0 {
            let total = at + 1 + length;
            return (bytes.len() >= total).then_some(total);
        }
    }
    panic!("a length of more than four bytes: {bytes:02x?}");
}

fn show(bytes: &[u8]) -> String {
    match bytes {
        [] => "the end of the connection".to_owned(),
        _ => bytes.iter().map(|byte| format!("{byte:02x} ")).collect(),
    }
}
