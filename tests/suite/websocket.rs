//! MQTT over WebSocket: the handshake, packets and frames that know nothing of each other, and how it ends.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response, StatusCode};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::host::{Host, Plan};
use crate::harness::plain::{Connect, publish, suback, subscribe};
use crate::harness::{BOTH, Mqtt, within};

/// A client that sends frames as it is told.
struct Web {
    mqtt: Mqtt,
    socket: WebSocketStream<TcpStream>,
    unread: Vec<u8>,
}

/// What a request says beside what every WebSocket says.
#[derive(Clone, Copy)]
struct Ask<'a> {
    path: &'a str,
    subprotocol: Option<&'a str>,
    origin: Option<&'a str>,
}

const ASK: Ask = Ask {
    path: "/mqtt",
    subprotocol: Some("mqtt"),
    origin: None,
};

fn plan() -> Plan {
    Host::plan().set("listener.ws.external", "127.0.0.1:0")
}

fn port(host: &Host) -> u16 {
    let (_, rest) = host.ready().split_once("ws://127.0.0.1:").expect("it is in the line");
    let (port, _) = rest.split_once("/mqtt ").expect("the path is, too");
    port.parse().expect("a port")
}

async fn dial(host: &Host) -> TcpStream {
    let stream = within("a TCP connection", TcpStream::connect(("127.0.0.1", port(host)))).await;
    let stream = stream.expect("the host listens");
    stream.set_nodelay(true).expect("a fresh socket");
    stream
}

/// The socket and the head of the answer, or the answer that was no handshake.
async fn shake(
    host: &Host,
    ask: Ask<'_>,
) -> Result<(WebSocketStream<TcpStream>, Response<Option<Vec<u8>>>), Response<Option<Vec<u8>>>> {
    let url = format!("ws://127.0.0.1:{}{}", port(host), ask.path);
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in [("sec-websocket-protocol", ask.subprotocol), ("origin", ask.origin)] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).expect("plain text");
            request.headers_mut().insert(name, value);
        }
    }
    match within("an answer", client_async(request, dial(host).await)).await {
        Ok(shaken) => Ok(shaken),
        Err(Error::Http(response)) => Err(*response),
        Err(error) => panic!("no answer: {error}"),
    }
}

async fn open(host: &Host, mqtt: Mqtt) -> Web {
    let (socket, _) = shake(host, ASK).await.expect("it is let in");
    Web {
        mqtt,
        socket,
        unread: Vec::new(),
    }
}

/// A clean client, let in.
async fn join(host: &Host, mqtt: Mqtt, id: &str) -> Web {
    let mut web = open(host, mqtt).await;
    web.say(Connect::clean(mqtt, id).bytes()).await;
    web.admitted().await;
    web
}

impl Web {
    /// Sends a binary frame.
    async fn say(&mut self, bytes: impl Into<Bytes>) {
        let sent = within("room in a socket", self.socket.send(Message::Binary(bytes.into()))).await;
        sent.expect("the host is there");
    }

    /// The next packet, whatever the frames are.
    async fn next(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = whole(&self.unread) {
                let rest = self.unread.split_off(length);
                return std::mem::replace(&mut self.unread, rest);
            }
            match within("a packet", self.socket.next()).await {
                Some(Ok(Message::Binary(bytes))) => self.unread.extend_from_slice(&bytes),
                other => panic!("a binary frame, not {other:?}"),
            }
        }
    }

    async fn admitted(&mut self) {
        let connack = self.next().await;
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
    }

    async fn subscribe(&mut self, filter: &str, qos: u8) {
        self.say(subscribe(self.mqtt, 7, &[], &[(filter, qos)])).await;
        assert_eq!(self.next().await, suback(self.mqtt, 7, &[qos]));
    }

    /// What the host's Close says, behind the packets that come before it.
    async fn closed(&mut self) -> CloseCode {
        loop {
            match within("the end", self.socket.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    assert!(within("the end", self.socket.next()).await.is_none());
                    return frame.code;
                }
                Some(Ok(Message::Binary(bytes))) => self.unread.extend_from_slice(&bytes),
                other => panic!("a Close, not {other:?}"),
            }
        }
    }
}

/// The length of the packet in front, if it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let digits = 1 + bytes.get(1..)?.iter().position(|byte| byte & 0x80 == 0)?;
    let length = bytes[1..=digits]
        .iter()
        .rev()
        .fold(0, |length, byte| length << 7 | usize::from(byte & 0x7F));
    let length = 1 + digits + length;
    (bytes.len() >= length).then_some(length)
}

/// A message of QoS 1 as the host sends it first.
fn message(mqtt: Mqtt, topic: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    publish(topic, payload).qos(1, 1).bytes(mqtt)
}

#[tokio::test]
async fn a_message_crosses_from_tcp_to_websocket_and_back() {
    let host = plan().start().await;
    for mqtt in BOTH {
        let mut page = join(&host, mqtt, "page").await;
        page.subscribe("to/page", 1).await;
        let mut sensor = host.join(mqtt, "sensor").await;
        sensor.subscribe("to/sensor", 1).await;
        sensor.publish(publish("to/page", "hot").qos(1, 9)).await;
        assert_eq!(page.next().await, message(mqtt, "to/page", "hot"));
        page.say([0x40, 2, 0, 1].to_vec()).await;
        page.say(publish("to/sensor", "cool").qos(1, 8).bytes(mqtt)).await;
        assert_eq!(page.next().await[..4], [0x40, 2, 0, 8]);
        sensor.hear(&[0x40, 2, 0, 9]).await;
        assert_eq!(sensor.message().await.text(), "cool");
        sensor.leave().await;
    }
}

/// More than one frame of ours can hold, and than the socket takes at once.
#[tokio::test]
async fn a_large_message_comes_whole() {
    let host = plan().start().await;
    let mut page = join(&host, Mqtt::V5, "page").await;
    page.subscribe("large", 1).await;
    let payload: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    page.say(publish("large", &payload).qos(1, 5).bytes(Mqtt::V5)).await;
    let (mut acknowledged, mut arrived) = (false, false);
    while !(acknowledged && arrived) {
        let packet = page.next().await;
        match packet[0] >> 4 {
            4 => acknowledged = true,
            _ => arrived = packet == message(Mqtt::V5, "large", &payload),
        }
    }
}

/// [5:MQTT-6.0.0-2] [3:MQTT-6.0.0-2]
#[tokio::test]
async fn packets_are_cut_into_frames_at_every_byte() {
    let host = plan().start().await;
    for mqtt in BOTH {
        let said = [
            Connect::clean(mqtt, "page").bytes(),
            subscribe(mqtt, 7, &[], &[("t", 1)]),
            publish("t", "payload").qos(1, 5).bytes(mqtt),
        ]
        .concat();
        let every_byte = said.iter().map(std::slice::from_ref).collect();
        let at_each = (1..said.len()).map(|at| vec![&said[..at], &said[at..]]);
        for frames in at_each.chain([every_byte]) {
            let mut page = open(&host, mqtt).await;
            for frame in frames {
                page.say(frame.to_vec()).await;
                page.say(Vec::new()).await;
            }
            page.admitted().await;
            assert_eq!(page.next().await, suback(mqtt, 7, &[1]));
            let mut came = [page.next().await, page.next().await];
            came.sort();
            assert_eq!(came[0], message(mqtt, "t", "payload"));
            assert_eq!(came[1][..4], [0x40, 2, 0, 5]);
        }
    }
}

/// [5:MQTT-6.0.0-2] [3:MQTT-6.0.0-2]
#[tokio::test]
async fn many_packets_share_a_frame() {
    // Far more than a packet may have.
    let host = plan().set("mqtt.max_packet_size", "64").start().await;
    for mqtt in BOTH {
        let messages = (1..=500_u16).map(|id| publish("t", id.to_string()).qos(1, id).bytes(mqtt));
        let frame: Vec<u8> = [Connect::clean(mqtt, "page").bytes()]
            .into_iter()
            .chain(messages)
            .flatten()
            .collect();
        let mut page = open(&host, mqtt).await;
        page.say(frame).await;
        page.admitted().await;
        for id in 1..=500_u16 {
            assert_eq!(page.next().await[2..4], id.to_be_bytes());
        }
    }
}

/// A will tells that the session has noticed.
///
/// [5:MQTT-6.0.0-1] [3:MQTT-6.0.0-1]
#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    let host = plan().start().await;
    for mqtt in BOTH {
        let mut watcher = host.join(mqtt, "watcher").await;
        watcher.subscribe("gone", 0).await;
        let mut page = open(&host, mqtt).await;
        page.say(Connect::clean(mqtt, "page").will("gone", "page", 0, false).bytes())
            .await;
        page.admitted().await;
        page.socket
            .send(Message::text("text"))
            .await
            .expect("the host is there");
        assert_eq!(page.closed().await, CloseCode::Unsupported);
        assert_eq!(watcher.message().await.text(), "page");
        // MQTT 5 has words for it.
        match mqtt {
            Mqtt::V311 => assert!(page.unread.is_empty(), "{:02x?}", page.unread),
            Mqtt::V5 => assert_eq!((page.unread[0], page.unread[2]), (0xE0, 0x81)),
        }
        watcher.leave().await;
        let mut page = open(&host, mqtt).await;
        page.socket
            .send(Message::text("hello"))
            .await
            .expect("the host is there");
        assert_eq!(page.closed().await, CloseCode::Unsupported, "before its CONNECT");
    }
}

/// [5:MQTT-6.0.0-4] [3:MQTT-6.0.0-4]
#[tokio::test]
async fn the_subprotocol_is_mqtt() {
    let host = plan().start().await;
    for (offered, answered) in [
        ("mqtt", "mqtt"),
        ("mqttv3.1, mqtt", "mqtt"),
        ("chat,mqttv3.1", "mqttv3.1"),
    ] {
        let ask = Ask {
            subprotocol: Some(offered),
            ..ASK
        };
        let (_, response) = shake(&host, ask).await.expect("it is let in");
        assert_eq!(response.headers()["sec-websocket-protocol"], answered);
    }
    let (other, none) = (Some("chat, MQTT5"), None);
    for subprotocol in [other, none] {
        // The client's library refuses a server that ignores what it offers, so this is the answer itself.
        let refused = refused(&host, Ask { subprotocol, ..ASK }).await;
        assert_eq!(refused.0, StatusCode::BAD_REQUEST);
        assert!(refused.1.contains("expected the subprotocol mqtt"), "{}", refused.1);
    }
}

async fn refused(host: &Host, ask: Ask<'_>) -> (StatusCode, String) {
    let Err(response) = shake(host, ask).await else {
        panic!("it was let in");
    };
    let (head, body) = response.into_parts();
    (
        head.status,
        String::from_utf8(body.unwrap_or_default()).expect("it is text"),
    )
}

#[tokio::test]
async fn another_path_and_a_plain_request_are_told_what_is_expected() {
    let host = plan().start().await;
    let (status, text) = refused(&host, Ask { path: "/", ..ASK }).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(text.contains("MQTT is at /mqtt"), "{text}");

    let long = format!("GET /mqtt HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    for (request, expected) in [
        ("GET /mqtt HTTP/1.1\r\nHost: here\r\n\r\n", "HTTP/1.1 400"),
        ("POST /mqtt HTTP/1.1\r\nHost: here\r\n\r\n", "HTTP/1.1 400"),
        ("\u{10}\u{10}\0\u{4}MQTT\r\n\r\n", "HTTP/1.1 400"),
        (&long, "HTTP/1.1 431"),
    ] {
        let mut stream = dial(&host).await;
        stream.write_all(request.as_bytes()).await.expect("the host is there");
        let mut answer = vec![0; expected.len()];
        let read = within("an answer", stream.read_exact(&mut answer)).await;
        read.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
    host.metric_becomes("connections", 0.0).await;
}

#[tokio::test]
async fn pages_from_elsewhere_are_not_of_this_machine() {
    let from = |origin| Ask {
        origin: Some(origin),
        ..ASK
    };
    let host = plan().start().await;
    for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"] {
        assert!(shake(&host, from(origin)).await.is_ok(), "{origin}");
    }
    for origin in ["https://example.org", "http://localhost.example.org", "null"] {
        let (status, text) = refused(&host, from(origin)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
        assert!(text.contains("allow_anonymous"), "{text}");
    }
    let host = plan().set("allow_anonymous", "true").start().await;
    assert!(shake(&host, from("https://example.org")).await.is_ok());
}

#[tokio::test]
async fn a_half_open_websocket_is_closed_in_time() {
    let host = plan().set("zone.external.idle_timeout", "300ms").start().await;
    let mut silent = dial(&host).await;
    let mut halfway = dial(&host).await;
    halfway.write_all(b"GET /mqtt HTTP/1.1\r\n").await.expect("written");
    for stream in [&mut silent, &mut halfway] {
        let mut rest = Vec::new();
        let read = within("the end", stream.read_to_end(&mut rest)).await;
        assert_eq!((read.expect("the end"), rest), (0, Vec::new()));
    }
    // Its CONNECT is not whole, and Pings are no CONNECT.
    let mut page = open(&host, Mqtt::V5).await;
    page.say(vec![0x10]).await;
    page.socket
        .send(Message::Ping(Bytes::from_static(b"?")))
        .await
        .expect("the host is there");
    let pong = within("a pong", page.socket.next()).await;
    assert_eq!(
        pong.expect("an answer").expect("an answer"),
        Message::Pong(Bytes::from_static(b"?"))
    );
    assert!(!matches!(
        within("the end", page.socket.next()).await,
        Some(Ok(Message::Binary(_)))
    ));
    let hits = host.metric(r#"limits_hit_total{limit="connect_time"}"#).await;
    assert_eq!(hits, 3.0);
    host.metric_becomes("connections", 0.0).await;
}

/// The handshake is no way around the bounds that hold before a CONNECT.
#[tokio::test]
async fn frames_before_the_connect_count_among_what_is_half_open() {
    let host = plan().start().await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = open(&host, Mqtt::V5).await.socket.into_inner();
        // The header of a frame of a million bytes, and nine tenths of it.
        let head = [&[0x82, 0xFF][..], &1_000_000_u64.to_be_bytes(), &[0; 4]].concat();
        stream.write_all(&head).await.expect("the host is there");
        // Where its turn has come, it has been closed.
        stream.write_all(&[0x10; 900_000]).await.unwrap_or_default();
        slow.push(stream);
    }
    host.metric_exceeds(r#"limits_hit_total{limit="half_open"}"#, 0.0).await;
    let mut page = join(&host, Mqtt::V5, "page").await;
    page.subscribe("t", 0).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_from_its_header() {
    let host = plan().set("mqtt.max_packet_size", "100KB").start().await;
    let mut page = join(&host, Mqtt::V5, "page").await;
    page.say(vec![0xC0, 0]).await;
    assert_eq!(page.next().await, [0xD0, 0]);
    let header = [&[0x82, 0xFF][..], &200_000_u64.to_be_bytes(), &[0; 4]].concat();
    page.socket
        .get_mut()
        .write_all(&header)
        .await
        .expect("the host is there");
    assert_eq!(page.closed().await, CloseCode::Size);
    assert_eq!((page.unread[0], page.unread[2]), (0xE0, 0x95));
}

#[tokio::test]
async fn both_sides_can_say_close() {
    let mut host = plan().set("drain_timeout", "5s").start().await;
    // MQTT's own goodbye is answered with a Close.
    let mut page = join(&host, Mqtt::V5, "page").await;
    page.say(vec![0xE0, 0]).await;
    assert_eq!(page.closed().await, CloseCode::Normal);
    // The client's Close is answered, too.
    let mut page = join(&host, Mqtt::V5, "page").await;
    page.socket.close(None).await.expect("the host is there");
    assert!(matches!(
        within("the answer", page.socket.next()).await,
        Some(Ok(Message::Close(_)))
    ));
    host.metric_becomes("connections", 0.0).await;
    // A stop says DISCONNECT, then Close.
    let mut page = join(&host, Mqtt::V5, "page").await;
    host.ask_to_end();
    assert_eq!(page.closed().await, CloseCode::Normal);
    assert_eq!((page.unread[0], page.unread[2]), (0xE0, 0x8B));
    drop(page);
    assert!(within("the end", host.ended()).await.success());
}

#[tokio::test]
async fn a_listener_that_nobody_knocks_at_keeps_no_room_from_the_other() {
    let host = plan().set("listener.tcp.external.max_connections", "1").start().await;
    for _ in 0..3 {
        drop(join(&host, Mqtt::V5, "page").await);
        drop(host.join(Mqtt::V311, "sensor").await);
    }
}

#[tokio::test]
async fn sockets_of_both_listeners_share_their_number() {
    let host = plan().set("listener.tcp.external.max_connections", "2").start().await;
    let page = join(&host, Mqtt::V5, "page").await;
    let _sensor = host.join(Mqtt::V311, "sensor").await;
    let mut third = dial(&host).await;
    third
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("it is in the kernel's queue");
    host.metric_exceeds(r#"limits_hit_total{limit="connections"}"#, 0.0)
        .await;
    assert_eq!(host.metric("connections").await, 2.0);
    drop(page);
    let mut answer = [0; 12];
    let read = within("room", third.read_exact(&mut answer)).await;
    read.expect("an answer");
    assert_eq!(answer, *b"HTTP/1.1 400");
}
