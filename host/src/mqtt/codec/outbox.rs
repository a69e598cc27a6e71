//! What waits to be written to a socket: small things gathered in one buffer, large payloads referenced
//! where they lie, all of it in order for one vectored write.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Payloads from this size on are referenced: copying them costs more than one slice more in the write.
pub(super) const SHARED_FROM_BYTES: usize = 4096;
/// What an outbox keeps when everything is written. Idle connections are many, allocations are cheap.
const KEPT_BYTES: usize = 512;
/// The first step of growth beyond that.
const GROWN_BYTES: usize = 4096;

/// Bytes on their way to one client.
#[derive(Debug, Default)]
pub struct Outbox {
    small: BytesMut,
    /// How many small bytes went out before those in `small`, since it was last empty.
    gone: usize,
    /// Payloads, and behind how many small bytes each stands.
    large: VecDeque<(usize, Bytes)>,
    large_bytes: usize,
}

impl Outbox {
    /// An empty one, which holds no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.small.len() + self.large_bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty()
    }

    /// Fills `slices` with what waits, first things first; answers how many it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut rest: &[u8] = &self.small;
        let mut position = self.gone;
        let parts = self.large.iter().flat_map(|(at, payload)| {
            let (before, after) = rest.split_at(at - position);
            (rest, position) = (after, *at);
            [before, payload]
        });
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        if let (Some(slice), false) = (slices.get_mut(count), rest.is_empty()) {
            *slice = IoSlice::new(rest);
            count += 1;
        }
        count
    }

    /// The first `count` bytes were written.
    pub fn advance(&mut self, count: usize) {
        let mut count = count.min(self.len());
        while let Some((at, payload)) = self.large.front_mut() {
            let small = count.min(*at - self.gone);
            self.small.advance(small);
            self.gone += small;
            let large = (count - small).min(payload.len());
            payload.advance(large);
            self.large_bytes -= large;
            count -= small + large;
            if !payload.is_empty() {
                return;
            }
            self.large.pop_front();
        }
        self.small.advance(count);
        self.gone += count;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets what waits, and gives back what a burst made it hold.
    pub fn clear(&mut self) {
        self.small.clear();
        if self.small.capacity() > KEPT_BYTES {
            self.small = BytesMut::new();
        }
        if self.large.capacity() > KEPT_BYTES / size_of::<(usize, Bytes)>() {
            self.large = VecDeque::new();
        }
        self.large.clear();
        self.large_bytes = 0;
        self.gone = 0;
    }

    /// Where `more` small bytes can be appended.
    pub(super) fn small(&mut self, more: usize) -> &mut BytesMut {
        if self.small.capacity() - self.small.len() < more {
            let grow = if self.small.is_empty() && more <= KEPT_BYTES {
                more
            } else {
                more.max(GROWN_BYTES)
            };
            self.small.reserve(grow);
        }
        &mut self.small
    }

    /// Appends a payload without copying it.
    pub(super) fn share(&mut self, payload: Bytes) {
        self.large_bytes += payload.len();
        self.large.push_back((self.gone + self.small.len(), payload));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> (Outbox, Vec<u8>) {
        let mut outbox = Outbox::new();
        outbox.small(3).extend_from_slice(b"abc");
        outbox.share(Bytes::from(vec![b'1'; 5000]));
        outbox.share(Bytes::from(vec![b'2'; 4096]));
        outbox.small(2).extend_from_slice(b"de");
        outbox.share(Bytes::from(vec![b'3'; 4097]));
        outbox.small(1).extend_from_slice(b"f");
        let mut whole = b"abc".to_vec();
        whole.extend([b'1'; 5000]);
        whole.extend([b'2'; 4096]);
        whole.extend(b"de");
        whole.extend([b'3'; 4097]);
        whole.extend(b"f");
        (outbox, whole)
    }

    fn gathered(outbox: &Outbox, slices: usize) -> Vec<u8> {
        let mut parts = vec![IoSlice::new(&[]); slices];
        let count = outbox.slices(&mut parts);
        parts[..count].iter().flat_map(|part| part.to_vec()).collect()
    }

    #[test]
    fn everything_leaves_in_order_however_the_socket_takes_it() {
        for (step, slices) in [(1, 1), (7, 2), (4096, 3), (5000, 8), (usize::MAX, 8)] {
            let (mut outbox, whole) = filled();
            assert_eq!(outbox.len(), whole.len());
            let mut written = Vec::new();
            while !outbox.is_empty() {
                let part = gathered(&outbox, slices);
                let part = &part[..part.len().min(step)];
                written.extend_from_slice(part);
                outbox.advance(part.len());
                assert_eq!(outbox.len(), whole.len() - written.len());
            }
            assert!(written == whole, "steps of {step}");
        }
    }

    #[test]
    fn large_payloads_are_not_copied_and_what_follows_a_partial_write_stays_behind_it() {
        let payload = Bytes::from(vec![7; 10_000]);
        let mut outbox = Outbox::new();
        outbox.share(payload.clone());
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(outbox.slices(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), payload.as_ptr());
        outbox.advance(9_999);
        outbox.small(1).extend_from_slice(b"x");
        assert_eq!(gathered(&outbox, 4), b"\x07x");
    }

    #[test]
    fn a_burst_does_not_stay_in_memory() {
        let mut outbox = Outbox::new();
        for _ in 0..1000 {
            outbox.small(100).extend_from_slice(&[0; 100]);
            outbox.share(Bytes::from_static(&[0; 4096]));
        }
        outbox.advance(outbox.len());
        assert!(outbox.is_empty());
        assert!(outbox.small.capacity() <= KEPT_BYTES);
        assert!(outbox.large.capacity() * size_of::<(usize, Bytes)>() <= KEPT_BYTES);
    }
}
