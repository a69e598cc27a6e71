//! One socket: bytes in, frames out, and back. Reads once and writes at most once a turn.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::listener::Permit;
use crate::mqtt::codec::{self, Aliases, Decoder, Encoder, Malformed, Outbox};
use crate::mqtt::limits::Limits;
use crate::mqtt::packet::{Connect, Outgoing, Packet};

/// A read takes at most so much: larger than what usually waits, so that a short read tells the end.
const READ_BYTES: usize = 64 * 1024;
/// From this size on a frame has a buffer of its own.
const LARGE_BYTES: usize = 16 * 1024;
/// While so much waits to be written, nothing more is put behind it.
const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// Slices of one vectored write.
const SLICES: usize = 64;
/// How long a client may take to read our last words, and to close after them.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    /// One read buffer a thread; a connection keeps only what it could not decode yet.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A stream of bytes to and from a client, whatever carries it.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What an error of a socket says about the client, where the carrier found it at fault; `None` where the connection
/// is lost.
pub(super) fn malformed(error: io::Error) -> Option<Malformed> {
    error.into_inner()?.downcast::<Malformed>().ok().map(|it| *it)
}

/// A client's socket with what was read and not decoded, and what waits to be written.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    /// Read and not decoded: whole frames while the session is paused, else the start of one.
    unread: Bytes,
    /// How large the buffer is that what was last decoded, and is not yet, lies in.
    chunk_bytes: usize,
    /// A frame that is still coming in.
    partial: BytesMut,
    outbox: Outbox,
    decoder: Decoder,
    encoder: Encoder,
    /// Topic aliases that we set, where the client accepts them.
    aliases: Option<Box<Aliases>>,
    packet_bytes_max: usize,
    /// Held as long as the socket is.
    permit: Permit,
}

impl Wire {
    /// A socket whose CONNECT was read, with the bytes behind it.
    pub(super) fn new(
        socket: Box<dyn Socket>,
        permit: Permit,
        connect: &Connect,
        behind: Bytes,
        limits: &Limits,
    ) -> Self {
        let wire = Self::unconnected(socket, permit, Encoder::from(connect));
        Self {
            chunk_bytes: behind.len(),
            unread: behind,
            packet_bytes_max: limits.packet_bytes_max,
            aliases: Aliases::new(connect.topic_alias_max, limits.topic_alias_out_max),
            ..wire
        }
    }

    /// A socket whose CONNECT we refuse.
    pub(super) fn unconnected(socket: Box<dyn Socket>, permit: Permit, encoder: Encoder) -> Self {
        Self {
            socket,
            unread: Bytes::new(),
            chunk_bytes: 0,
            partial: BytesMut::new(),
            outbox: Outbox::new(),
            decoder: Decoder::new(encoder.version),
            encoder,
            aliases: None,
            packet_bytes_max: 0,
            permit,
        }
    }

    /// The next packet that has come in whole.
    pub(super) fn packet(&mut self) -> Result<Option<Packet>, Malformed> {
        match codec::cut(&mut self.unread, self.packet_bytes_max)? {
            Some(frame) => self.decoder.decode(frame).map(Some),
            None => Ok(None),
        }
    }

    /// Puts a packet behind what waits to be written; false where it is too large for the client, and is dropped:
    /// the session has seen to it for messages, and the rest has nothing that could be left out.
    pub(super) fn put(&mut self, mut packet: Outgoing) -> bool {
        if self.put_with_alias(&mut packet) {
            return true;
        }
        let written = self.encoder.encode(&packet, &mut self.outbox);
        if let Err(error) = &written {
            tracing::debug!(
                bytes = error.bytes,
                bytes_max = error.bytes_max,
                "packet larger than the client accepts"
            );
        }
        written.is_ok()
    }

    /// Puts a message with a topic alias, where there is one for it. False where nothing was put.
    fn put_with_alias(&mut self, packet: &mut Outgoing) -> bool {
        let (Some(aliases), Outgoing::Publish(copy)) = (&mut self.aliases, &mut *packet) else {
            return false;
        };
        copy.alias = aliases.choose(copy.message().topic.as_str());
        if copy.alias.is_none() {
            return false;
        }
        if self.encoder.encode(packet, &mut self.outbox).is_ok() {
            return true;
        }
        // The property was too much: the packet goes without it, and nothing was set.
        if let (Some(aliases), Outgoing::Publish(copy)) = (&mut self.aliases, packet) {
            aliases.unset(copy.message().topic.as_str());
            copy.alias = None;
        }
        false
    }

    /// How large the buffer is that the last packets lie in.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Whether there is no room behind what waits to be written.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.len() >= OUTBOX_BYTES_MAX
    }

    /// Whether something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Whether whole frames wait to be decoded.
    pub(super) fn has_input(&self) -> bool {
        !self.unread.is_empty() && codec::missing(&self.unread) == 0
    }

    /// Reads once. Answers how many bytes came in; 0 is the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = self.wanted();
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..wanted]);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let read = buffer.filled();
            if !self.unread.is_empty() {
                // The start of a frame: from here on it gathers until it is whole, so that it is copied once.
                self.partial
                    .reserve(self.unread.len() + codec::missing(&self.unread).min(self.packet_bytes_max));
                self.partial.extend_from_slice(&std::mem::take(&mut self.unread));
            }
            if self.partial.is_empty() {
                self.unread = Bytes::copy_from_slice(read);
            } else {
                self.partial.extend_from_slice(read);
                match codec::missing(&self.partial) {
                    0 => self.unread = self.partial.split().freeze(),
                    missing => self.partial.reserve(missing.min(self.packet_bytes_max)),
                }
            }
            if !self.unread.is_empty() {
                self.chunk_bytes = self.unread.len();
            }
            Poll::Ready(Ok(read.len()))
        })
    }

    /// How much the next read may take. A large frame is read to its end and no further: what came behind it
    /// would make its buffer grow, and keep it as long as a message of a few bytes lives.
    fn wanted(&self) -> usize {
        let started: &[u8] = if self.partial.is_empty() {
            &self.unread
        } else {
            &self.partial
        };
        match codec::missing(started) {
            // Whole frames that the session does not want yet.
            0 => READ_BYTES,
            missing if started.len() + missing < LARGE_BYTES => READ_BYTES,
            missing => missing.min(READ_BYTES),
        }
    }

    /// Writes once. Ready when something was written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = self.outbox.slices(&mut slices);
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.outbox.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Writes what is left, then lets the client read it: closing a socket with unread input would reset it
    /// and take our DISCONNECT along.
    pub(super) async fn linger(mut self) {
        let _permit = self.permit;
        let last_words = async {
            let mut slices = [IoSlice::new(&[]); SLICES];
            while !self.outbox.is_empty() {
                let count = self.outbox.slices(&mut slices);
                let written = self.socket.write_vectored(&slices[..count]).await?;
                slices = [IoSlice::new(&[]); SLICES];
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                self.outbox.advance(written);
            }
            self.socket.shutdown().await
        };
        if !matches!(timeout(LINGER, last_words).await, Ok(Ok(()))) {
            return;
        }
        let mut rest = [0; 4096];
        let until_it_closes = async { while self.socket.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
        // The client has had its time; nothing depends on how it used it.
        timeout(LINGER, until_it_closes).await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::task::Waker;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::mqtt::packet::Version;

    const PACKET_BYTES_MAX: usize = 200 * 1024;

    /// A socket out of which these pieces come, one or a part of one a read.
    struct Pieces(VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let Some(piece) = self.0.front_mut() else {
                return Poll::Pending;
            };
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(piece);
            *piece = rest;
            if piece.is_empty() {
                self.0.pop_front();
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn wire(pieces: impl IntoIterator<Item = Vec<u8>>) -> Wire {
        let permits = Arc::new(Semaphore::new(1));
        let permit = Permit::new(permits.try_acquire_owned().expect("there is one"));
        let mut wire = Wire::unconnected(
            Box::new(Pieces(pieces.into_iter().collect())),
            permit,
            Encoder::new(Version::V311),
        );
        wire.packet_bytes_max = PACKET_BYTES_MAX;
        wire
    }

    /// Reads to the end of the pieces or to an error; answers the payloads of what came, and the most that was
    /// held for frames that were not whole.
    fn read(mut wire: Wire) -> (Vec<Bytes>, usize) {
        let (mut payloads, mut held) = (Vec::new(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(read) = wire.poll_read(&mut cx) {
            assert!(read.is_ok_and(|count| count > 0), "pieces are never empty");
            loop {
                match wire.packet() {
                    Ok(Some(Packet::Publish(publish))) => payloads.push(publish.payload),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return (payloads, held),
                }
            }
            held = held.max(wire.unread.len() + wire.partial.capacity());
        }
        (payloads, held)
    }

    fn publish(payload_bytes: usize) -> Vec<u8> {
        let mut outbox = BytesMut::from(&b"\x30"[..]);
        let mut length = 3 + payload_bytes;
        while length > 127 {
            outbox.extend_from_slice(&[length as u8 | 0x80]);
            length >>= 7;
        }
        outbox.extend_from_slice(&[length as u8, 0, 1, b't']);
        outbox.resize(outbox.len() + payload_bytes, b'p');
        outbox.to_vec()
    }

    #[test]
    fn a_large_frame_has_a_buffer_of_its_own_size() {
        let large = publish(PACKET_BYTES_MAX - 10);
        let small = publish(1);
        let bytes = [small.clone(), large, small].concat();
        for piece in [1000, READ_BYTES, 1 << 20] {
            let (payloads, held) = read(wire(bytes.chunks(piece).map(<[u8]>::to_vec)));
            assert_eq!(payloads.len(), 3);
            assert!(
                held <= PACKET_BYTES_MAX + READ_BYTES,
                "{held} bytes held in pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_length_with_nothing_behind_it_makes_no_more_than_the_limit() {
        let mut endless = publish(0);
        endless.splice(1..2, [0xFF, 0xFF, 0xFF, 0x7F]);
        assert!(read(wire([endless])).1 <= READ_BYTES);
        let mut promise = publish(PACKET_BYTES_MAX - 10);
        promise.truncate(10);
        let one_by_one = promise.iter().map(|byte| vec![*byte]);
        assert!(read(wire(one_by_one)).1 <= PACKET_BYTES_MAX + READ_BYTES);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn frames_come_whole_whatever_the_pieces_and_hold_no_more_than_the_limit(
            sizes in vec(prop_oneof![0..200_usize, 10_000..20_000_usize, 60_000..200_000_usize], 1..6),
            pieces in vec(prop_oneof![1..100_usize, 1000..200_000_usize], 1..20),
        ) {
            let bytes: Vec<u8> = sizes.iter().flat_map(|size| publish(*size)).collect();
            let (mut rest, mut cut) = (bytes.as_slice(), Vec::new());
            for piece in pieces.iter().cycle() {
                let (piece, behind) = rest.split_at((*piece).min(rest.len()));
                cut.push(piece.to_vec());
                rest = behind;
                if rest.is_empty() || cut.len() > 1000 {
                    break;
                }
            }
            cut.extend((!rest.is_empty()).then(|| rest.to_vec()));
            let (payloads, held) = read(wire(cut));
            let came: Vec<usize> = payloads.iter().map(Bytes::len).collect();
            prop_assert_eq!(came, sizes);
            prop_assert!(held <= PACKET_BYTES_MAX + READ_BYTES, "{held} bytes held");
        }
    }
}
