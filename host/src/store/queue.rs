//! What waits for a commit: in the order it came, newer states in the place of older ones. No I/O, no clock.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::Write;
use super::settle::Slip;
use crate::model::delivery::Reader;
use crate::model::message::ClientId;

/// One write and who waits for it.
pub(super) struct Entry {
    /// Its place in the order of arrival.
    pub(super) seq: u64,
    pub(super) write: Write,
    pub(super) slip: Slip,
}

/// The writes of one pool that wait.
#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    next_seq: u64,
    bytes: usize,
    /// Where the newest waiting state of a client or reader stands.
    states: HashMap<Key, u64, RandomState>,
    /// No writer takes from here any more.
    pub(super) closed: bool,
}

/// Whose state a write is; only the newest one matters.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Client(ClientId),
    Reader(Reader),
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number that the next entry gets.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The number of the first entry that waits.
    pub(super) fn first_seq(&self) -> u64 {
        self.entries.front().map_or(self.next_seq, |entry| entry.seq)
    }

    pub(super) fn push(&mut self, write: Write, slip: Slip) {
        self.bytes += write.size_bytes();
        let seq = self.next_seq;
        self.entries.push_back(Entry { seq, write, slip });
        self.next_seq += 1;
    }

    /// Like [`Queue::push`] for a write that nobody waits for: a newer state takes the older one's place.
    pub(super) fn push_state(&mut self, write: Write, slip: Slip) {
        self.end_states(&write);
        let Some(key) = Key::of(&write) else {
            return self.push(write, slip);
        };
        if let Some(at) = self.states.get(&key).and_then(|seq| self.find(*seq)) {
            let entry = &mut self.entries[at];
            self.bytes = (self.bytes + write.size_bytes()).saturating_sub(entry.write.size_bytes());
            merge(&mut entry.write, write);
            return;
        }
        self.states.insert(key, self.next_seq);
        self.push(write, slip);
    }

    /// A state that comes after a `Forget` must not slip before it.
    fn end_states(&mut self, write: &Write) {
        match write {
            Write::Forget(reader) => {
                self.states.remove(&Key::Reader(reader.clone()));
            }
            Write::ForgetClient(client) => self
                .states
                .retain(|key, _| !matches!(key, Key::Reader(reader) if reader.client == *client)),
            _ => {}
        }
    }

    fn find(&self, seq: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }

    /// Takes up to `limit` writes from the front, and more only to keep the writes of one message together.
    pub(super) fn take(&mut self, limit: usize) -> Vec<Entry> {
        let mut taken: Vec<Entry> = Vec::with_capacity(limit.min(self.entries.len()));
        while let Some(next) = self.entries.front() {
            let full = taken.len() >= limit;
            if full && !taken.last().is_some_and(|last| last.slip.shares_message(&next.slip)) {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            self.forget_place(&entry);
            taken.push(entry);
        }
        self.bytes = self.bytes.saturating_sub(size(&taken));
        taken
    }

    /// Puts back what a commit did not do, before everything that came later.
    pub(super) fn give_back(&mut self, entries: Vec<Entry>) {
        self.bytes += size(&entries);
        for entry in entries.into_iter().rev() {
            self.entries.push_front(entry);
        }
    }

    /// Takes out what has waited too long.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Entry> {
        if !self.entries.iter().any(|entry| entry.slip.until <= now) {
            return Vec::new();
        }
        let (due, kept): (Vec<Entry>, Vec<Entry>) = self.entries.drain(..).partition(|entry| entry.slip.until <= now);
        self.entries = kept.into();
        due.iter().for_each(|entry| self.forget_place(entry));
        self.bytes = self.bytes.saturating_sub(size(&due));
        due
    }

    /// When the next entry has waited too long.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.iter().map(|entry| entry.slip.until).min()
    }

    fn forget_place(&mut self, entry: &Entry) {
        if self.states.is_empty() {
            return;
        }
        if let Some(key) = Key::of(&entry.write)
            && self.states.get(&key) == Some(&entry.seq)
        {
            self.states.remove(&key);
        }
    }
}

impl Key {
    fn of(write: &Write) -> Option<Self> {
        match write {
            Write::Client(state) => Some(Self::Client(state.client.clone())),
            Write::Advance(reader, _) => Some(Self::Reader(reader.clone())),
            _ => None,
        }
    }
}

/// Positions never go back; of client states the newest counts.
fn merge(older: &mut Write, newer: Write) {
    match (older, newer) {
        (Write::Advance(_, position), Write::Advance(_, newer)) => *position = (*position).max(newer),
        (older, newer) => *older = newer,
    }
}

fn size(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.write.size_bytes()).sum()
}
