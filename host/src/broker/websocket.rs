//! MQTT over WebSocket (MQTT 5.0, 6): an HTTP handshake, then binary messages as a stream of bytes. Where packets begin
//! and where messages do has nothing to do with each other.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response, write_response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, Uri, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};

use super::half_open::Seat;
use super::wire::Socket;
use crate::model::reason::Reason;
use crate::mqtt::codec::Malformed;

/// Where clients find MQTT, as everywhere else.
pub(super) const PATH: &str = "/mqtt";
/// The subprotocol [MQTT-6.0.0-3], and what it was called before MQTT 3.1.1; preferred in this order.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A message may always be so large, however small packets are: there may be many packets in it.
const MESSAGE_BYTES: usize = 64 * 1024;
/// The fixed header of a packet, which `mqtt.max_packet_size` does not count.
const HEADER_BYTES: usize = 5;
/// What one read of the socket takes; every connection has a buffer of this size.
const READ_BYTES: usize = 4 * 1024;
/// The largest message that we send.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Answers the handshake of a client. `local_only`: a page that a browser on this machine has from elsewhere is
/// turned away.
///
/// # Errors
/// Why there is no WebSocket, for the log. The client has been told, if it still was there.
pub(super) async fn open(
    socket: Box<dyn Socket>,
    seat: Weak<Seat>,
    packet_bytes_max: usize,
    local_only: bool,
) -> Result<Box<dyn Socket>, String> {
    let message_bytes_max = Some(MESSAGE_BYTES.max(packet_bytes_max.saturating_add(HEADER_BYTES)));
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * WRITE_BYTES_MAX)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max);
    let mut below = Below {
        socket,
        seat,
        bytes: 0,
        head_bytes_max: HEAD_BYTES_MAX,
    };
    let shaken = accept_hdr_async_with_config(&mut below, Doorkeeper { local_only }, Some(config)).await;
    match shaken {
        Ok(_) => {}
        Err(Error::Http(answered)) => {
            // Nothing depends on whether the client was still there.
            below.shutdown().await.unwrap_or_default();
            let text = answered.into_body().unwrap_or_default();
            return Err(String::from_utf8_lossy(&text).trim_end().to_owned());
        }
        Err(error) => return Err(below.answer(error).await),
    }
    below.head_bytes_max = usize::MAX;
    Ok(Box::new(WebSocket {
        messages: WebSocketStream::from_raw_socket(below, Role::Server, Some(config)).await,
        unread: Bytes::new(),
        in_flight: None,
        code: CloseCode::Normal,
        closing: false,
    }))
}

/// Decides whether a well-formed request is for us.
struct Doorkeeper {
    local_only: bool,
}

impl Callback for Doorkeeper {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        let path = request.uri().path();
        if path != PATH {
            let text = format!("there is nothing at {path}: MQTT is at {PATH}");
            return Err(refusal(StatusCode::NOT_FOUND, text));
        }
        if self.local_only
            && let Some(origin) = request.headers().get(header::ORIGIN)
            && !is_local(origin)
        {
            let text = "pages from elsewhere are not let in: only this machine is (allow_anonymous)".to_owned();
            return Err(refusal(StatusCode::FORBIDDEN, text));
        }
        let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let offers = || offers.iter().filter_map(|value| value.to_str().ok());
        let offered = |name: &&str| offers().any(|value| value.split(',').any(|one| one.trim() == *name));
        let Some(name) = SUBPROTOCOLS.into_iter().find(offered) else {
            let text = "expected the subprotocol mqtt (Sec-WebSocket-Protocol: mqtt)".to_owned();
            return Err(refusal(StatusCode::BAD_REQUEST, text));
        };
        let headers = response.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        Ok(response)
    }
}

/// Whether a page comes from this machine.
fn is_local(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let Some(host) = uri.as_ref().and_then(Uri::host) else {
        return false;
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

fn refusal(status: StatusCode, text: String) -> ErrorResponse {
    let body = text + "\n";
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    *response.body_mut() = Some(body);
    response
}

/// The socket below. While its client has not sent a CONNECT, all bytes that came count as held for it: how many of
/// them still are is known to the library alone.
struct Below {
    socket: Box<dyn Socket>,
    /// Gone when the CONNECT is whole.
    seat: Weak<Seat>,
    /// Bytes that came while the seat was there.
    bytes: usize,
    /// Until the handshake is done, more is refused.
    head_bytes_max: usize,
}

impl Below {
    /// Answers a request that the library could not. Says why, for the log.
    async fn answer(&mut self, error: Error) -> String {
        let (status, text) = match error {
            Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => return error.to_string(),
            Error::Io(error) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error.to_string()),
            Error::Protocol(ProtocolError::HandshakeIncomplete) => return error.to_string(),
            error => (
                StatusCode::BAD_REQUEST,
                format!("expected a WebSocket handshake: {error}"),
            ),
        };
        let response = refusal(status, text.clone());
        let mut bytes = Vec::new();
        if write_response(&mut bytes, &response).is_ok() {
            bytes.extend(response.into_body().unwrap_or_default().into_bytes());
            // Nothing depends on whether the client was still there.
            self.socket.write_all(&bytes).await.unwrap_or_default();
            self.socket.shutdown().await.unwrap_or_default();
        }
        text
    }
}

impl AsyncRead for Below {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        if let Some(seat) = self.seat.upgrade() {
            self.bytes += buffer.filled().len() - before;
            if self.bytes > self.head_bytes_max {
                let text = format!("the head of the request is larger than {HEAD_BYTES_MAX} bytes");
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
            }
            seat.hold(self.bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Below {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A WebSocket as a stream of bytes.
///
/// A write is a message, and ready when the message has left: until then it has to be asked again with the same bytes
/// in front, as `Wire` does. Nothing is buffered here that nobody would send on.
struct WebSocket {
    messages: WebSocketStream<Below>,
    /// The rest of a message.
    unread: Bytes,
    /// Bytes of the message that is leaving.
    in_flight: Option<usize>,
    /// Why we close, if we do.
    code: CloseCode,
    /// We have said that we close; what still comes in is not looked at.
    closing: bool,
}

impl WebSocket {
    /// The client did what it must not: its connection ends, with this code in our Close.
    fn refuse(&mut self, code: CloseCode, reason: Reason, text: String) -> io::Error {
        self.code = code;
        let text = text.into();
        io::Error::new(io::ErrorKind::InvalidData, Malformed { reason, text })
    }

    /// What an error in reading means.
    fn ended_by(&mut self, error: Error) -> io::Result<()> {
        let text = error.to_string();
        Err(match error {
            Error::Io(error) => error,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Ok(()),
            Error::Capacity(_) => self.refuse(CloseCode::Size, Reason::PACKET_TOO_LARGE, text),
            Error::Utf8(_) => self.text_frame(),
            _ => self.refuse(CloseCode::Protocol, Reason::MALFORMED_PACKET, text),
        })
    }

    /// [MQTT-6.0.0-1].
    fn text_frame(&mut self) -> io::Error {
        let text = "a text frame: MQTT packets travel in binary frames".to_owned();
        self.refuse(CloseCode::Unsupported, Reason::MALFORMED_PACKET, text)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.in_flight.is_none() {
            ready!(Pin::new(&mut self.messages).poll_ready(cx)).map_err(io_error)?;
            let whole: usize = slices.iter().map(|slice| slice.len()).sum();
            let mut message = BytesMut::with_capacity(whole.min(WRITE_BYTES_MAX));
            for slice in slices {
                let room = WRITE_BYTES_MAX - message.len();
                message.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            self.in_flight = Some(message.len());
            Pin::new(&mut self.messages)
                .start_send(Message::Binary(message.freeze()))
                .map_err(io_error)?;
        }
        ready!(Pin::new(&mut self.messages).poll_flush(cx)).map_err(io_error)?;
        Poll::Ready(Ok(self.in_flight.take().unwrap_or_default()))
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, error),
    }
}

impl AsyncRead for WebSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closing {
            return Pin::new(self.messages.get_mut()).poll_read(cx, buffer);
        }
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.messages).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(self.text_frame())),
                // A Ping, which the library answers, or a Close, behind which the end comes.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(self.ended_by(error)),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..taken]);
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.messages).poll_flush(cx).map_err(io_error)
    }

    /// Says Close, then closes our half of the connection.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            self.closing = true;
            let frame = CloseFrame {
                code: self.code,
                reason: Default::default(),
            };
            Pin::new(&mut self.messages)
                .start_send(Message::Close(Some(frame)))
                .map_err(io_error)?;
        }
        ready!(Pin::new(&mut self.messages).poll_flush(cx)).map_err(io_error)?;
        Pin::new(self.messages.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use tokio::io::AsyncReadExt;
    use tokio::time::timeout;
    use tokio_tungstenite::client_async;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    use super::*;
    use crate::broker::half_open::HalfOpen;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn nothing_is_lost_or_sent_twice_where_the_socket_takes_little_at_a_time() {
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        for pipe_bytes in [200, 1000, 100_000] {
            let (theirs, ours) = tokio::io::duplex(pipe_bytes);
            let room = HalfOpen::new(1, usize::MAX);
            let seat = std::sync::Arc::new(room.enter());
            let mut request = "ws://host/mqtt".into_client_request().expect("a request");
            let name = HeaderValue::from_static("mqtt");
            request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
            let weak = std::sync::Arc::downgrade(&seat);
            let opened = open(Box::new(ours), weak, 1024, true);
            let shake = async { tokio::join!(opened, client_async(request, theirs)) };
            let (opened, shaken) = timeout(PATIENCE, shake).await.expect("a handshake in time");
            let (mut socket, (mut client, _)) = (opened.expect("it is let in"), shaken.expect("it is answered"));
            let write = async {
                for piece in sent.chunks(100_000) {
                    // Three slices a write, as a `Wire` has them.
                    let mut rest = piece;
                    while !rest.is_empty() {
                        let third = rest.len() / 3;
                        let slices = [&rest[..third], &rest[third..2 * third], &rest[2 * third..]].map(IoSlice::new);
                        rest = &rest[socket.write_vectored(&slices).await.expect("it is there")..];
                    }
                }
                socket.shutdown().await.expect("it is there");
                while socket.read(&mut [0; 100]).await.is_ok_and(|read| read > 0) {}
            };
            let read = async {
                let mut came = Vec::new();
                loop {
                    match client.next().await.expect("a Close first").expect("a frame") {
                        Message::Binary(bytes) => came.extend_from_slice(&bytes),
                        Message::Close(frame) => return (came, frame.map(|frame| frame.code)),
                        other => panic!("a binary frame, not {other:?}"),
                    }
                }
            };
            let (came, code) = tokio::select! {
                read = timeout(PATIENCE, read) => read.expect("all of it in time"),
                () = async { write.await; std::future::pending().await } => unreachable!(),
            };
            assert_eq!(code, Some(CloseCode::Normal));
            assert!(came == sent, "a pipe of {pipe_bytes} bytes");
        }
    }
}
