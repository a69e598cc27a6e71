//! Sockets that have not sent their CONNECT. There is room for a number of them; when one more comes, the oldest
//! goes: whoever says nothing cannot keep those out who will.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The room.
pub(super) struct HalfOpen {
    waiting: Mutex<Waiting>,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    /// By order of arrival.
    seats: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// A place in it.
pub(super) struct Seat {
    room: Arc<HalfOpen>,
    number: u64,
    taken: CancellationToken,
}

impl HalfOpen {
    /// Room for `max` sockets, at least one.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            max: max.max(1),
        })
    }

    /// Lets a socket in; where the room is full, the oldest has to go.
    pub(super) fn enter(self: &Arc<Self>) -> Seat {
        let taken = CancellationToken::new();
        let mut waiting = self.waiting.lock();
        waiting.next += 1;
        let number = waiting.next;
        let oldest = match waiting.seats.len() < self.max {
            true => None,
            false => waiting.seats.pop_first(),
        };
        waiting.seats.insert(number, taken.clone());
        drop(waiting);
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Seat {
            room: Arc::clone(self),
            number,
            taken,
        }
    }

    /// How many are in it.
    pub(super) fn count(&self) -> usize {
        self.waiting.lock().seats.len()
    }
}

impl Seat {
    /// Waits until somebody else has got this place.
    pub(super) async fn taken(&self) {
        self.taken.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.waiting.lock().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_there_is_no_room() {
        let room = HalfOpen::new(2);
        let seats = [room.enter(), room.enter()];
        let third = room.enter();
        let gone = |seat: &Seat| seat.taken.is_cancelled();
        assert_eq!((gone(&seats[0]), gone(&seats[1]), gone(&third)), (true, false, false));
        let [first, second] = seats;
        drop(second);
        assert_eq!(room.count(), 1);
        let fourth = room.enter();
        drop(first);
        assert_eq!((gone(&third), gone(&fourth), room.count()), (false, false, 2));
    }
}
