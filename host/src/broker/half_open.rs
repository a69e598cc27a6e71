//! Sockets that have not sent their CONNECT. There is room for a number of them; when one more comes, the oldest
//! goes: whoever says nothing cannot keep those out who will. There is room for so many bytes of CONNECTs that are
//! not whole, too; when that is full, the one that holds most of it goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The room.
pub(super) struct HalfOpen {
    waiting: Mutex<Waiting>,
    max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    /// By order of arrival.
    places: BTreeMap<u64, Place>,
    next: u64,
    bytes: usize,
}

struct Place {
    taken: CancellationToken,
    bytes: usize,
}

/// A place in it.
pub(super) struct Seat {
    room: Arc<HalfOpen>,
    number: u64,
    taken: CancellationToken,
}

impl HalfOpen {
    /// Room for `max` sockets, at least one, and for so many bytes of all of them together.
    pub(super) fn new(max: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            max: max.max(1),
            bytes_max,
        })
    }

    /// Lets a socket in; where the room is full, the oldest has to go.
    pub(super) fn enter(self: &Arc<Self>) -> Seat {
        let taken = CancellationToken::new();
        let mut waiting = self.waiting.lock();
        waiting.next += 1;
        let number = waiting.next;
        if waiting.places.len() >= self.max
            && let Some(oldest) = waiting.places.keys().next().copied()
        {
            waiting.leave(oldest);
        }
        let place = Place {
            taken: taken.clone(),
            bytes: 0,
        };
        waiting.places.insert(number, place);
        Seat {
            room: Arc::clone(self),
            number,
            taken,
        }
    }

    /// How many are in it.
    pub(super) fn count(&self) -> usize {
        self.waiting.lock().places.len()
    }
}

impl Waiting {
    /// Takes a place away; its socket is told, if it is not the one that leaves.
    fn leave(&mut self, number: u64) {
        if let Some(gone) = self.places.remove(&number) {
            self.bytes -= gone.bytes;
            gone.taken.cancel();
        }
    }
}

impl Seat {
    /// Waits until somebody else has got this place.
    pub(super) async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// So much at least has come, and the CONNECT is not whole. Where that is too much of all together, whoever holds
    /// most of it has to go.
    pub(super) fn hold(&self, bytes: usize) {
        let mut waiting = self.room.waiting.lock();
        let Some(place) = waiting.places.get_mut(&self.number) else {
            return;
        };
        let more = bytes.saturating_sub(place.bytes);
        place.bytes += more;
        waiting.bytes += more;
        while waiting.bytes > self.room.bytes_max
            && let Some((largest, _)) = waiting.places.iter().max_by_key(|(_, place)| place.bytes)
        {
            let largest = *largest;
            waiting.leave(largest);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.waiting.lock().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(seat: &Seat) -> bool {
        seat.taken.is_cancelled()
    }

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let room = HalfOpen::new(2, 1000);
        let [first, second] = [room.enter(), room.enter()];
        let third = room.enter();
        assert_eq!((gone(&first), gone(&second), gone(&third)), (true, false, false));
        drop(second);
        assert_eq!(room.count(), 1);
        let fourth = room.enter();
        drop(first);
        assert_eq!((gone(&third), gone(&fourth), room.count()), (false, false, 2));
    }

    #[test]
    fn whoever_holds_most_goes_when_there_are_too_many_bytes() {
        let room = HalfOpen::new(10, 1000);
        let [small, large, late] = [room.enter(), room.enter(), room.enter()];
        small.hold(100);
        large.hold(500);
        large.hold(900);
        assert_eq!(
            (gone(&small), gone(&large), room.waiting.lock().bytes),
            (false, false, 1000)
        );
        late.hold(1);
        assert_eq!((gone(&small), gone(&large), gone(&late)), (false, true, false));
        large.hold(950);
        assert_eq!(room.waiting.lock().bytes, 101, "who has gone holds nothing");
        drop((small, late));
        assert_eq!(room.count(), 0);
        assert_eq!(room.waiting.lock().bytes, 0);
    }
}
