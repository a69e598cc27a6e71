//! A client that says exactly what it is told, byte by byte where need be, and hides nothing of the answers.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use rmqtt_codec::types::{Protocol, Publish, QoS};
use rmqtt_codec::{MqttCodec, MqttPacket, v3, v5};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::{Decoder, Encoder};

use super::host::Host;
use super::{Mqtt, within};

/// What the host said, the same for every version; before MQTT 5 reasons are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    ConnAck {
        session_present: bool,
        code: u8,
        receive_max: u16,
    },
    Publish {
        id: u16,
        qos: u8,
        dup: bool,
        retain: bool,
        topic: String,
        payload: Bytes,
    },
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16),
    PubComp(u16),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16),
    Pong,
    Disconnect(u8),
    /// The end of the connection.
    End,
}

/// A connection.
pub struct Raw {
    mqtt: Mqtt,
    stream: TcpStream,
    unread: BytesMut,
    codec: MqttCodec,
    ids: u16,
    aliases: HashMap<NonZeroU16, String>,
    /// Messages that came with an alias instead of their topic.
    pub aliased: usize,
    /// Reason strings, server references and response information, as they came (MQTT 5).
    pub texts: Vec<String>,
    /// What its CONNACK said.
    pub session_present: bool,
    /// The Receive Maximum of the host.
    pub receive_max: u16,
}

/// What a raw client says in its CONNECT.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    pub mqtt: Mqtt,
    pub id: &'a str,
    pub clean: bool,
    pub keep_alive_s: u16,
    /// Session Expiry Interval (MQTT 5).
    pub expiry_s: u32,
    pub will: Option<(&'a str, &'a str, u8)>,
    /// Will Delay Interval (MQTT 5).
    pub will_delay_s: u32,
    /// Topic Alias Maximum (MQTT 5).
    pub aliases: u16,
    /// Maximum Packet Size (MQTT 5).
    pub packet_max: Option<u32>,
    /// Request Problem Information and Request Response Information (MQTT 5).
    pub wants: [bool; 2],
}

impl<'a> Hello<'a> {
    /// A clean client.
    pub fn clean(mqtt: Mqtt, id: &'a str) -> Self {
        Self {
            mqtt,
            id,
            clean: true,
            keep_alive_s: 0,
            expiry_s: 0,
            will: None,
            will_delay_s: 0,
            aliases: 0,
            packet_max: None,
            wants: [true, false],
        }
    }

    /// One that resumes a session and leaves one behind.
    pub fn persistent(mqtt: Mqtt, id: &'a str) -> Self {
        Self {
            clean: false,
            expiry_s: 3600,
            ..Self::clean(mqtt, id)
        }
    }

    fn packet(&self) -> MqttPacket {
        match self.mqtt {
            Mqtt::V311 => MqttPacket::V3(v3::Packet::Connect(Box::new(v3::Connect {
                protocol: Protocol(4),
                clean_session: self.clean,
                keep_alive: self.keep_alive_s,
                last_will: self.will.map(|(topic, message, qos)| v3::LastWill {
                    qos: qos_of(qos),
                    retain: false,
                    topic: topic.into(),
                    message: Bytes::copy_from_slice(message.as_bytes()),
                }),
                client_id: self.id.into(),
                ..v3::Connect::default()
            }))),
            Mqtt::V5 => MqttPacket::V5(v5::Packet::Connect(Box::new(self.five()))),
        }
    }

    fn five(&self) -> v5::Connect {
        v5::Connect {
            clean_start: self.clean,
            keep_alive: self.keep_alive_s,
            session_expiry_interval_secs: self.expiry_s,
            last_will: self.will.map(|(topic, message, qos)| v5::LastWill {
                qos: qos_of(qos),
                retain: false,
                topic: topic.into(),
                message: Bytes::copy_from_slice(message.as_bytes()),
                will_delay_interval_sec: Some(self.will_delay_s),
                correlation_data: None,
                message_expiry_interval: None,
                content_type: None,
                user_properties: Vec::new(),
                is_utf8_payload: None,
                response_topic: None,
            }),
            client_id: self.id.into(),
            auth_method: None,
            auth_data: None,
            request_problem_info: self.wants[0],
            request_response_info: self.wants[1],
            receive_max: None,
            topic_alias_max: self.aliases,
            user_properties: Vec::new(),
            max_packet_size: self.packet_max.and_then(NonZeroU32::new),
            username: None,
            password: None,
            cert: None,
        }
    }
}

impl Host {
    /// A raw client, accepted.
    pub async fn raw(&self, hello: Hello<'_>) -> Raw {
        let mut raw = self.dial(hello.mqtt).await;
        match raw.hello(hello).await {
            Said::ConnAck {
                session_present,
                code: 0,
                receive_max,
            } => {
                (raw.session_present, raw.receive_max) = (session_present, receive_max);
                raw
            }
            other => panic!("{hello:?} was answered {other:?}"),
        }
    }

    /// A TCP connection on which nothing has been said yet.
    pub async fn dial(&self, mqtt: Mqtt) -> Raw {
        self.dial_at("127.0.0.1", mqtt).await
    }

    /// The same by way of another address.
    pub async fn dial_at(&self, address: &str, mqtt: Mqtt) -> Raw {
        Raw::dial(address, self.port(), mqtt).await
    }
}

impl Raw {
    /// A TCP connection of the runtime that asks for it, on which nothing has been said yet.
    pub async fn dial(address: &str, port: u16, mqtt: Mqtt) -> Self {
        let stream = within("a TCP connection", TcpStream::connect((address, port))).await;
        let stream = stream.expect("the host listens");
        stream.set_nodelay(true).expect("a fresh socket");
        let codec = match mqtt {
            Mqtt::V311 => MqttCodec::V3(v3::Codec::new(0)),
            Mqtt::V5 => MqttCodec::V5(v5::Codec::new(0, 0)),
        };
        let (unread, ids) = (BytesMut::new(), 0);
        Raw {
            mqtt,
            stream,
            unread,
            codec,
            ids,
            aliases: HashMap::new(),
            aliased: 0,
            texts: Vec::new(),
            session_present: false,
            receive_max: u16::MAX,
        }
    }

    /// Writes a CONNECT and says what is answered.
    pub async fn hello(&mut self, hello: Hello<'_>) -> Said {
        self.send(hello.packet()).await;
        self.next().await
    }

    /// Writes bytes. Where the host has closed the connection, reading is what says so.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.wrote(bytes).await;
    }

    /// Writes bytes; whether the host took them all.
    pub async fn wrote(&mut self, bytes: &[u8]) -> bool {
        within("room in a socket", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Writes a packet.
    pub async fn send(&mut self, packet: MqttPacket) {
        let bytes = self.encoded(packet);
        self.bytes(&bytes).await;
    }

    fn encoded(&mut self, packet: MqttPacket) -> BytesMut {
        let mut bytes = BytesMut::new();
        self.codec.encode(packet, &mut bytes).expect("a well-formed packet");
        bytes
    }

    /// Writes a PUBLISH and goes on.
    pub async fn publish(&mut self, id: u16, qos: u8, topic: &str, payload: impl AsRef<[u8]>) {
        self.send_publish(id, qos, [false, false], topic, payload.as_ref())
            .await;
    }

    /// Writes a PUBLISH with DUP and goes on.
    pub async fn again(&mut self, id: u16, qos: u8, topic: &str, payload: impl AsRef<[u8]>) {
        self.send_publish(id, qos, [true, false], topic, payload.as_ref()).await;
    }

    /// Writes a PUBLISH with RETAIN and goes on.
    pub async fn retain(&mut self, id: u16, qos: u8, topic: &str, payload: impl AsRef<[u8]>) {
        self.send_publish(id, qos, [false, true], topic, payload.as_ref()).await;
    }

    /// Writes QoS 1 messages (packet identifier, topic, payload) at once, so that the host reads them in one turn.
    pub async fn together<'a>(&mut self, messages: impl IntoIterator<Item = (u16, &'a str, &'a str)>) {
        let mut bytes = BytesMut::new();
        for (id, topic, payload) in messages {
            let packet = self.published(id, 1, [false, false], topic, payload.as_bytes());
            bytes.extend_from_slice(&self.encoded(packet));
        }
        self.bytes(&bytes).await;
    }

    async fn send_publish(&mut self, id: u16, qos: u8, flags: [bool; 2], topic: &str, payload: &[u8]) {
        let packet = self.published(id, qos, flags, topic, payload);
        self.send(packet).await;
    }

    fn published(&self, id: u16, qos: u8, [dup, retain]: [bool; 2], topic: &str, payload: &[u8]) -> MqttPacket {
        let publish = Box::new(Publish {
            dup,
            retain,
            qos: qos_of(qos),
            topic: topic.into(),
            packet_id: (qos > 0).then(|| number(id)),
            payload: Bytes::copy_from_slice(payload),
            properties: (self.mqtt == Mqtt::V5).then(Default::default),
        });
        match self.mqtt {
            Mqtt::V311 => MqttPacket::V3(v3::Packet::Publish(publish)),
            Mqtt::V5 => MqttPacket::V5(v5::Packet::Publish(publish)),
        }
    }

    /// Writes a PUBACK.
    pub async fn puback(&mut self, id: u16) {
        self.bytes(&ack(0x40, id)).await;
    }

    /// Writes a PUBREC.
    pub async fn pubrec(&mut self, id: u16) {
        self.bytes(&ack(0x50, id)).await;
    }

    /// Writes a PUBREL.
    pub async fn pubrel(&mut self, id: u16) {
        self.bytes(&ack(0x62, id)).await;
    }

    /// Writes a PUBCOMP.
    pub async fn pubcomp(&mut self, id: u16) {
        self.bytes(&ack(0x70, id)).await;
    }

    /// Subscribes and waits for the SUBACK; says what came before it.
    pub async fn subscribe(&mut self, filter: &str, qos: u8) -> Vec<Said> {
        let id = self.send_subscribe(filter, qos).await;
        self.until(&Said::SubAck(id, vec![qos])).await
    }

    /// Subscribes; says the code of its SUBACK, which must be what comes next.
    pub async fn ask_for(&mut self, filter: &str, qos: u8) -> u8 {
        let id = self.send_subscribe(filter, qos).await;
        match self.next().await {
            Said::SubAck(answered, codes) if answered == id && codes.len() == 1 => codes[0],
            other => panic!("{filter} was answered {other:?}"),
        }
    }

    async fn send_subscribe(&mut self, filter: &str, qos: u8) -> u16 {
        self.ids += 1;
        let id = self.ids;
        self.send(match self.mqtt {
            Mqtt::V311 => MqttPacket::V3(v3::Packet::Subscribe {
                packet_id: number(id),
                topic_filters: vec![(filter.into(), qos_of(qos))],
            }),
            Mqtt::V5 => MqttPacket::V5(v5::Packet::Subscribe(v5::Subscribe {
                packet_id: number(id),
                id: None,
                user_properties: Vec::new(),
                topic_filters: vec![(
                    filter.into(),
                    v5::SubscriptionOptions {
                        qos: qos_of(qos),
                        ..v5::SubscriptionOptions::default()
                    },
                )],
            })),
        })
        .await;
        id
    }

    /// Writes a DISCONNECT with this reason (MQTT 5).
    pub async fn disconnect(&mut self, reason: u8) {
        match self.mqtt {
            Mqtt::V311 => self.bytes(&[0xE0, 0]).await,
            Mqtt::V5 => self.bytes(&[0xE0, 1, reason]).await,
        }
    }

    /// Writes a PINGREQ and says what came before its answer: all that the host had to say so far.
    pub async fn ping(&mut self) -> Vec<Said> {
        self.bytes(&[0xC0, 0]).await;
        self.until(&Said::Pong).await
    }

    /// The next packet as its bytes.
    pub async fn frame(&mut self) -> Bytes {
        within("a packet", async {
            loop {
                if let Some(length) = whole_packet(&self.unread) {
                    return self.unread.split_to(length).freeze();
                }
                let read = self.stream.read_buf(&mut self.unread).await;
                assert!(
                    matches!(read, Ok(1..)),
                    "the host closed the connection within {:?}",
                    self.unread
                );
            }
        })
        .await
    }

    /// The next packet, or the end.
    pub async fn next(&mut self) -> Said {
        within("a packet", self.read()).await
    }

    /// Everything up to the end of the connection.
    pub async fn rest(&mut self) -> Vec<Said> {
        let mut before = self.until(&Said::End).await;
        before.retain(|said| *said != Said::Pong);
        before
    }

    /// Everything before `wanted`, which must come.
    pub async fn until(&mut self, wanted: &Said) -> Vec<Said> {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                said if said == *wanted => return before,
                Said::End => panic!("the host closed the connection before {wanted:?}, after {before:?}"),
                said => before.push(said),
            }
        }
    }

    /// Gives a message its topic back that came as an alias.
    fn resolve(&mut self, publish: &mut Publish) {
        let Some(alias) = publish.properties.as_ref().and_then(|it| it.topic_alias) else {
            return;
        };
        if publish.topic.is_empty() {
            publish.topic = self.aliases[&alias].as_str().into();
            self.aliased += 1;
        } else {
            self.aliases.insert(alias, publish.topic.to_string());
        }
    }

    async fn read(&mut self) -> Said {
        loop {
            let packet = self.codec.decode(&mut self.unread);
            if let Some((mut packet, _)) = packet.expect("the host writes well-formed packets") {
                if let MqttPacket::V5(v5::Packet::Publish(publish)) = &mut packet {
                    self.resolve(publish);
                }
                if let MqttPacket::V5(packet) = &packet {
                    self.texts.extend(texts(packet));
                }
                return said(packet);
            }
            // A host that is killed may reset the connection; to a client that is an end like any other.
            if matches!(self.stream.read_buf(&mut self.unread).await, Ok(0) | Err(_)) {
                return Said::End;
            }
        }
    }
}

/// How many bytes the first packet takes, once all of them are there.
fn whole_packet(bytes: &[u8]) -> Option<usize> {
    let (mut remaining, mut header) = (0, 1);
    loop {
        let byte = *bytes.get(header)?;
        remaining |= usize::from(byte & 0x7F) << (7 * (header - 1));
        header += 1;
        if byte < 0x80 {
            let length = header + remaining;
            return (bytes.len() >= length).then_some(length);
        }
    }
}

/// What a packet says in words.
fn texts(packet: &v5::Packet) -> Vec<String> {
    let texts = match packet {
        v5::Packet::ConnectAck(ack) => vec![&ack.reason_string, &ack.server_reference, &ack.response_info],
        v5::Packet::PublishAck(ack) => vec![&ack.reason_string],
        v5::Packet::PublishReceived(ack) => vec![&ack.reason_string],
        v5::Packet::SubscribeAck(ack) => vec![&ack.reason_string],
        v5::Packet::Disconnect(packet) => vec![&packet.reason_string, &packet.server_reference],
        _ => vec![],
    };
    texts.into_iter().flatten().map(ToString::to_string).collect()
}

fn ack(kind: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [kind, 2, high, low]
}

fn qos_of(qos: u8) -> QoS {
    QoS::try_from(qos).expect("0, 1 or 2")
}

fn number(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("packet identifiers are not 0")
}

fn said(packet: MqttPacket) -> Said {
    match packet {
        MqttPacket::V3(packet) => three(packet),
        MqttPacket::V5(packet) => five(packet),
        MqttPacket::Version(_) => panic!("only servers negotiate"),
    }
}

fn publish(publish: &Publish) -> Said {
    Said::Publish {
        id: publish.packet_id.map_or(0, NonZeroU16::get),
        qos: publish.qos.value(),
        dup: publish.dup,
        retain: publish.retain,
        topic: publish.topic.to_string(),
        payload: publish.payload.clone(),
    }
}

fn three(packet: v3::Packet) -> Said {
    match packet {
        v3::Packet::ConnectAck(ack) => Said::ConnAck {
            session_present: ack.session_present,
            code: ack.return_code.into(),
            receive_max: u16::MAX,
        },
        v3::Packet::Publish(packet) => publish(&packet),
        v3::Packet::PublishAck { packet_id } => Said::PubAck(packet_id.get(), 0),
        v3::Packet::PublishReceived { packet_id } => Said::PubRec(packet_id.get(), 0),
        v3::Packet::PublishRelease { packet_id } => Said::PubRel(packet_id.get()),
        v3::Packet::PublishComplete { packet_id } => Said::PubComp(packet_id.get()),
        v3::Packet::SubscribeAck { packet_id, status } => {
            let code = |status: &v3::SubscribeReturnCode| match status {
                v3::SubscribeReturnCode::Success(qos) => qos.value(),
                v3::SubscribeReturnCode::Failure => 0x80,
            };
            Said::SubAck(packet_id.get(), status.iter().map(code).collect())
        }
        v3::Packet::UnsubscribeAck { packet_id } => Said::UnsubAck(packet_id.get()),
        v3::Packet::PingResponse => Said::Pong,
        other => panic!("a server does not say {other:?}"),
    }
}

/// 0 for every success: "no matching subscribers" says more than these stories ask.
fn refusal(reason: v5::PublishAckReason) -> u8 {
    match u8::from(reason) {
        code @ 0x80.. => code,
        _ => 0,
    }
}

fn five(packet: v5::Packet) -> Said {
    match packet {
        v5::Packet::ConnectAck(ack) => Said::ConnAck {
            session_present: ack.session_present,
            code: ack.reason_code.into(),
            receive_max: ack.receive_max.get(),
        },
        v5::Packet::Publish(packet) => publish(&packet),
        v5::Packet::PublishAck(ack) => Said::PubAck(ack.packet_id.get(), refusal(ack.reason_code)),
        v5::Packet::PublishReceived(ack) => Said::PubRec(ack.packet_id.get(), refusal(ack.reason_code)),
        v5::Packet::PublishRelease(ack) => Said::PubRel(ack.packet_id.get()),
        v5::Packet::PublishComplete(ack) => Said::PubComp(ack.packet_id.get()),
        v5::Packet::SubscribeAck(ack) => Said::SubAck(
            ack.packet_id.get(),
            ack.status.iter().map(|&status| status.into()).collect(),
        ),
        v5::Packet::UnsubscribeAck(ack) => Said::UnsubAck(ack.packet_id.get()),
        v5::Packet::PingResponse => Said::Pong,
        v5::Packet::Disconnect(packet) => Said::Disconnect(packet.reason_code.into()),
        other => panic!("a server does not say {other:?}"),
    }
}
