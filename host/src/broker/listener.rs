//! Sockets come in here: a permit a connection, CONNECT within its time, then over to the client's session.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::Broker;
use super::arrival::Arrival;
use super::figures;
use super::half_open::Seat;
use super::websocket;
use super::wills::Room;
use super::wire::{Socket, Wire, malformed};
use crate::model::clock;
use crate::model::message::Client;
use crate::model::reason::Reason;
use crate::model::session::Will;
use crate::mqtt::codec::{self, Encoder, Malformed, Refusal};
use crate::mqtt::limits::Limit;
use crate::mqtt::packet::{ConnAck, Connect, Outgoing, Version};
use crate::mqtt::session::is_reserved;
use crate::telemetry;

/// The longest fixed header (MQTT 2.1).
const HEADER_BYTES: usize = 5;

/// Whose connections are let in without a name (`allow_anonymous`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Those that come over the loopback interface.
    #[default]
    Loopback,
    /// Everybody's.
    Everybody,
    /// Nobody's.
    Nobody,
}

/// What carries MQTT's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A TCP connection.
    Tcp,
    /// Binary messages of a WebSocket (MQTT 5.0, 6).
    WebSocket,
}

/// Where clients connect, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// What carries their bytes.
    pub carrier: Carrier,
    /// The address, with the port that was free where 0 was asked for.
    pub address: SocketAddr,
}

/// As clients write it: `mqtt://127.0.0.1:1883`, `ws://127.0.0.1:8083/mqtt`.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        match self.carrier {
            Carrier::Tcp => write!(f, "mqtt://{address}"),
            Carrier::WebSocket => write!(f, "ws://{address}{}", websocket::PATH),
        }
    }
}

/// The right to have a socket open, counted.
pub(crate) struct Permit(#[allow(dead_code, reason = "it is held, never looked at")] OwnedSemaphorePermit);

impl Permit {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(telemetry::CONNECTIONS).increment(1);
        Self(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::CONNECTIONS).decrement(1);
    }
}

/// Accepts connections until the broker stops.
pub(super) async fn accept(broker: Arc<Broker>, carrier: Carrier, listener: TcpListener, permits: Arc<Semaphore>) {
    let (mut second, mut accepted_in_second) = (Instant::now(), 0);
    loop {
        if second.elapsed() >= Duration::from_secs(1) {
            (second, accepted_in_second) = (Instant::now(), 0);
        } else if accepted_in_second >= broker.settings.connection_rate_max {
            figures::hit(Limit::ConnectionRate);
            tokio::time::sleep_until(second + Duration::from_secs(1)).await;
            continue;
        }
        // One that we have no room for waits here, those behind it in the kernel's queue. The permit comes second: a
        // listener that nobody knocks at must not keep the last one from the others.
        let next = async {
            let (socket, peer) = listener.accept().await?;
            if permits.available_permits() == 0 {
                figures::hit(Limit::Connections);
            }
            let permit = Arc::clone(&permits).acquire_owned().await;
            std::io::Result::Ok((socket, peer, permit.expect("the semaphore is never closed")))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = broker.stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer, permit)) => {
                let permit = Permit::new(permit);
                accepted_in_second += 1;
                // Small packets must not wait for each other's acknowledgements. Where it fails they only wait.
                socket.set_nodelay(true).unwrap_or_default();
                broker.let_in(carrier, Box::new(socket), peer, permit);
            }
            Err(error) => {
                // Out of descriptors, or the client has gone already: neither ends the listener.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Broker {
    /// Lets a stream in, whatever carries it: its CONNECT is read and decided upon in a task of its own.
    pub(super) fn let_in(
        self: &Arc<Self>,
        carrier: Carrier,
        socket: Box<dyn Socket>,
        peer: SocketAddr,
        permit: Permit,
    ) {
        let seat = Arc::new(self.half_open.enter());
        let broker = Arc::clone(self);
        self.tracker.spawn(broker.welcome(carrier, socket, peer, permit, seat));
    }

    async fn welcome(
        self: Arc<Self>,
        carrier: Carrier,
        socket: Box<dyn Socket>,
        peer: SocketAddr,
        permit: Permit,
        seat: Arc<Seat>,
    ) {
        let greeted = tokio::select! {
            biased;
            greeted = timeout(self.settings.idle_timeout, self.greet(carrier, socket, &seat)) => greeted,
            () = seat.taken() => return figures::hit(Limit::HalfOpen),
            () = self.stop.cancelled() => return,
        };
        drop(seat);
        match greeted {
            Ok(Ok((socket, Ok(Some((connect, behind)))))) => self.admit(socket, peer, connect, behind, permit).await,
            Ok(Ok((_, Ok(None)))) => {}
            Ok(Err(text)) => tracing::info!(%peer, %text, "no WebSocket"),
            Ok(Ok((socket, Err(refusal)))) => {
                if refusal.reason == Reason::PACKET_TOO_LARGE {
                    figures::hit(Limit::PacketSize);
                }
                tracing::info!(%peer, reason = %refusal.reason, text = %refusal.text, "connection refused");
                let answer = refusal.answer.map(Encoder::new);
                let ack = ConnAck::refusal(refusal.reason, &refusal.text);
                self.refuse(socket, answer, ack, permit).await;
            }
            Err(_) => {
                figures::hit(Limit::ConnectTime);
                tracing::info!(%peer, "no CONNECT in time");
            }
        }
    }

    /// Reads up to the CONNECT, which comes behind a handshake where the carrier has one. An error says why there is
    /// none: the client has been answered, or has left.
    async fn greet(&self, carrier: Carrier, socket: Box<dyn Socket>, seat: &Arc<Seat>) -> Result<Greeted, String> {
        let bytes_max = self.limits.packet_bytes_max;
        let mut socket = match carrier {
            Carrier::Tcp => socket,
            Carrier::WebSocket => {
                let local_only = self.settings.anonymous == Anonymous::Loopback;
                websocket::open(socket, Arc::downgrade(seat), bytes_max, local_only).await?
            }
        };
        let read = read_connect(&mut *socket, bytes_max, seat).await;
        Ok((socket, read))
    }

    /// Decides on a CONNECT and hands it to its session.
    async fn admit(
        self: Arc<Self>,
        socket: Box<dyn Socket>,
        peer: SocketAddr,
        connect: Connect,
        behind: Bytes,
        permit: Permit,
    ) {
        let judged = self
            .judge(&connect, peer)
            .and_then(|()| self.room_for(connect.will.as_ref()));
        let will_room = match judged {
            Ok(room) => room,
            Err((reason, text)) => {
                // No more of the identifier than is let in: it may be what is too long.
                let id = connect.client_id.chars().take(self.limits.client_id_bytes_max);
                tracing::info!(%peer, client.id = %id.collect::<String>(), %reason, text, "connection refused");
                let ack = ConnAck {
                    server_reference: self
                        .limits
                        .server_reference
                        .clone()
                        .filter(|_| Some(reason) == self.settings.redirect),
                    ..ConnAck::refusal(reason, text)
                };
                // Before MQTT 5 no return code speaks of QoS [MQTT-3.2.2-6 of 3.1.1].
                let unspeakable = connect.version < Version::V5 && reason == Reason::QOS_NOT_SUPPORTED;
                let answer = (!unspeakable).then(|| Encoder::from(&connect));
                // Its last words may take a while, and nothing bounds the wills of those who are not let in.
                drop((connect, behind));
                return self.refuse(socket, answer, ack, permit).await;
            }
        };
        let assigned = connect.client_id.is_empty();
        let id = match assigned {
            true => format!("hookline-{:016x}", rand::random::<u64>()).into(),
            false => connect.client_id.to_string().into(),
        };
        let max = self.limits.session_expiry_max_s;
        let session_expiry_s = match (connect.version, connect.clean_start) {
            (Version::V5, _) => connect.session_expiry_s.unwrap_or(0).min(max),
            (_, true) => 0,
            (_, false) => max,
        };
        let client = Arc::new(Client {
            id,
            username: connect.username.as_ref().map(|name| name.to_string().into()),
            peer,
            protocol: connect.version as u8,
            clean_start: connect.clean_start,
            keep_alive_s: connect.keep_alive_s,
            session_expiry_s,
            connected_at: clock::wall(),
        });
        let arrival = Arrival {
            socket,
            permit,
            connect,
            client,
            assigned,
            will_room,
            behind,
        };
        self.seat(Box::new(arrival));
    }

    /// Why this CONNECT is not let in, if it is not.
    fn judge(&self, connect: &Connect, peer: SocketAddr) -> Result<(), (Reason, &'static str)> {
        if let Some(redirect) = self.settings.redirect {
            return Err((
                redirect,
                "connect to the server of the Server Reference (mqtt.redirect)",
            ));
        }
        let loopback = peer.ip().to_canonical().is_loopback();
        let welcome = match self.settings.anonymous {
            Anonymous::Everybody => true,
            Anonymous::Loopback => loopback,
            Anonymous::Nobody => false,
        };
        if connect.auth_method.is_some() {
            return Err((
                Reason::BAD_AUTHENTICATION_METHOD,
                "no authentication method is supported",
            ));
        }
        if !welcome {
            return Err((
                Reason::NOT_AUTHORIZED,
                "anonymous clients are not let in from here (allow_anonymous)",
            ));
        }
        if connect.client_id.len() > self.limits.client_id_bytes_max {
            figures::hit(Limit::ClientIdLength);
            return Err((
                Reason::CLIENT_IDENTIFIER_NOT_VALID,
                "the client identifier is too long (mqtt.max_clientid_len)",
            ));
        }
        if connect.client_id.is_empty() && connect.version == Version::V31 {
            return Err((
                Reason::CLIENT_IDENTIFIER_NOT_VALID,
                "MQTT 3.1 needs a client identifier",
            ));
        }
        if connect.client_id.is_empty() && connect.version < Version::V5 && !connect.clean_start {
            // [MQTT-3.1.3-8] of 3.1.1: a session that nobody could come back to.
            return Err((
                Reason::CLIENT_IDENTIFIER_NOT_VALID,
                "an empty client identifier needs a clean session",
            ));
        }
        if let Some(will) = &connect.will
            && will.qos > self.limits.qos_max
        {
            return Err((
                Reason::QOS_NOT_SUPPORTED,
                "the will's QoS is higher than mqtt.max_qos_allowed",
            ));
        }
        if let Some(will) = &connect.will
            && connect.version == Version::V5
            && is_reserved(will.topic.as_str())
        {
            return Err((Reason::NOT_AUTHORIZED, "the will's topic is the broker's own ($SYS)"));
        }
        if let Some(will) = &connect.will
            && let Some(limit) = self.limits.exceeded_by(will.topic.as_str())
        {
            figures::hit(limit);
            return Err((
                Reason::TOPIC_NAME_INVALID,
                "the will's topic is too long or has too many levels (mqtt.max_topic_len, mqtt.max_topic_levels)",
            ));
        }
        Ok(())
    }

    /// What the will takes, or why it is too much.
    fn room_for(&self, will: Option<&Will>) -> Result<Option<Room>, (Reason, &'static str)> {
        let Some(will) = will else { return Ok(None) };
        let room = self.wills.take(will);
        if room.is_none() {
            figures::hit(Limit::WillBytes);
        }
        room.map(Some).ok_or((
            Reason::QUOTA_EXCEEDED,
            "the wills of all clients hold as much as they may (broker.max_wills_bytes)",
        ))
    }

    /// Answers a refused CONNECT where an answer can be written, then lets the client go.
    async fn refuse(&self, socket: Box<dyn Socket>, answer: Option<Encoder>, ack: ConnAck, permit: Permit) {
        metrics::counter!(telemetry::DISCONNECTS, "reason" => ack.reason.to_string()).increment(1);
        let encoder = answer.unwrap_or(Encoder::new(Version::V311));
        let mut wire = Wire::unconnected(socket, permit, encoder);
        if answer.is_some() {
            wire.put(Outgoing::ConnAck(Box::new(ack)));
        }
        wire.linger().await;
    }
}

/// A CONNECT and what came behind it; `None` where the client left.
type Read = Result<Option<(Connect, Bytes)>, Refusal>;
type Greeted = (Box<dyn Socket>, Read);

/// Reads until the CONNECT is whole.
async fn read_connect(socket: &mut dyn Socket, bytes_max: usize, seat: &Seat) -> Read {
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        match socket.read_buf(&mut buffer).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return malformed(error).map_or(Ok(None), |malformed| Err(unanswered(malformed))),
        }
        // The header alone tells what can never become a CONNECT; the rest is copied once, when it is whole.
        let whole = codec::missing(&buffer) == 0;
        let mut chunk = Bytes::copy_from_slice(if whole {
            &buffer
        } else {
            &buffer[..buffer.len().min(HEADER_BYTES)]
        });
        if let Some(frame) = codec::cut_connect(&mut chunk, bytes_max).map_err(unanswered)? {
            return Ok(Some((codec::connect(&frame)?, chunk)));
        }
        seat.hold(buffer.len());
    }
}

/// The version of what is not even a CONNECT is not known, so there is nothing to say.
fn unanswered(malformed: Malformed) -> Refusal {
    Refusal {
        reason: malformed.reason,
        text: malformed.text,
        answer: None,
    }
}
