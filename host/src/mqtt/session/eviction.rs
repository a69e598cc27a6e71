//! A full line of waiting messages: which of them go so that a newer one finds room (`zone.external.mqueue_full`).
//! What a store has never goes: its readers' positions count on it, and catching up loses nothing.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::model::id::MessageId;
use crate::mqtt::limits::{Limits, QueueFull};

use super::Session;
use super::outbound::Delivery;

/// Makes room in `line`, which holds `bytes`, for this delivery. Answers who had to go: the oldest that no store has.
/// `None`, and nobody goes, where there is no room for it.
pub(super) fn make_room(
    line: &mut VecDeque<Delivery>,
    bytes: &mut usize,
    delivery: &Delivery,
    limits: &Limits,
) -> Option<Vec<Delivery>> {
    let size = delivery.message().size_bytes();
    let fits = |len: usize, bytes: usize| len < limits.queue_len_max && bytes + size <= limits.queue_bytes_max;
    if fits(line.len(), *bytes) {
        return Some(Vec::new());
    }
    // What the store has waits there, and needs nobody's place.
    if limits.queue_full == QueueFull::DropNew || delivery.can_be_read_again() {
        return None;
    }
    let (mut len, mut left) = (line.len(), *bytes);
    let mut victims: SmallVec<[usize; 4]> = SmallVec::new();
    for (index, waiting) in line.iter().enumerate() {
        if fits(len, left) {
            break;
        }
        if !waiting.can_be_read_again() {
            (len, left) = (len - 1, left - waiting.message().size_bytes());
            victims.push(index);
        }
    }
    if !fits(len, left) {
        return None;
    }
    *bytes = left;
    // Whoever stood before the next one has gone already.
    let gone = victims.iter().enumerate();
    gone.map(|(before, index)| line.remove(index - before)).collect()
}

impl Session {
    /// These messages had to go for newer ones.
    pub(super) fn evicted(&mut self, gone: Vec<Delivery>) {
        self.books.dropped_evicted += gone.len() as u64;
        // Of these a store may have another copy.
        let retained = gone.iter().filter(|delivery| delivery.retain);
        retained.for_each(|delivery| self.was_not_sent(delivery.message().id));
    }

    /// The copy of this message that was read with the retained ones did not go out: another copy has to.
    pub(super) fn was_not_sent(&mut self, id: MessageId) {
        for sub in self.subscriptions.subs.values_mut() {
            sub.was_not_sent(id);
        }
    }
}
