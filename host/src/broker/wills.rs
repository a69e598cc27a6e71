//! The memory of wills: each may be as large as a packet, and lasts as long as its connection and its delay. All of
//! them together have one bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::model::session::Will;

/// What all wills hold together.
pub(super) struct Wills {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// The room of one will, as long as it is held.
pub(crate) struct Room {
    wills: Arc<Wills>,
    bytes: usize,
}

impl Wills {
    pub(super) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            bytes_max,
        })
    }

    /// Room for this will, where there is some.
    pub(super) fn take(self: &Arc<Self>, will: &Will) -> Option<Room> {
        let bytes = will.size_bytes();
        let more = |held: usize| Some(held + bytes).filter(|all| *all <= self.bytes_max);
        let taken = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Room {
            wills: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.wills.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::message::Qos;
    use crate::model::properties::Properties;
    use crate::model::topic::Topic;

    #[test]
    fn room_is_taken_as_far_as_it_goes_and_given_back() {
        let will = |bytes: usize| Will {
            topic: Topic::new("t").expect("a good topic"),
            payload: Bytes::from(vec![0; bytes]),
            qos: Qos::AtMostOnce,
            retain: false,
            delay_s: 0,
            expiry_s: None,
            properties: Properties::default(),
        };
        let wills = Wills::new(2 * will(1000).size_bytes());
        let first = wills.take(&will(1000));
        assert!(first.is_some());
        assert!(wills.take(&will(1001)).is_none());
        let second = wills.take(&will(1000));
        assert!(second.is_some() && wills.take(&will(0)).is_none());
        drop((first, second));
        assert_eq!(wills.bytes.load(Ordering::Relaxed), 0);
    }
}
