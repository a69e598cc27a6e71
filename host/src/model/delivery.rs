//! What sessions, hooks and stores say to each other about storing and reading messages.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::id::MessageId;
use super::message::{ClientId, Message, Qos};
use super::reason::Reason;
use super::topic::{Filter, Topic};

/// The name of a pool, backend included: `sqlite.pool1`. Rules, sessions and stores meet in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(Arc<str>);

impl PoolName {
    /// The pool `pool` of `backend`.
    pub fn new(backend: &str, pool: &str) -> Self {
        Self(format!("{backend}.{pool}").into())
    }

    /// `backend.pool`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The backend: `sqlite`.
    pub fn backend(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(backend, _)| backend)
    }

    /// The pool within its backend: `pool1`.
    pub fn pool(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, pool)| pool)
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of an open gate: consecutive within a session, one for every PUBLISH received.
pub type Ticket = u64;

/// A place in a store's order of messages, only ever compared: a row id, or a message id where the store
/// orders by that. [`Position::START`] lies before every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u128);

impl Position {
    /// Before the first message.
    pub const START: Self = Self(0);
}

/// How the backlog of a subscription is kept (spec C7, C8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// One-to-one: the first acknowledgement deletes the message.
    Queue,
    /// Each reader has a position of its own; messages stay.
    Pubsub,
}

/// Somebody who reads stored messages: one client through one filter from one pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    /// Where the messages are stored.
    pub pool: PoolName,
    /// The subscriber.
    pub client: ClientId,
    /// Its filter; the position's row is named by it.
    pub filter: Filter,
    /// How its backlog is kept.
    pub delivery: Delivery,
}

/// What to read next of a backlog or of the retained messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Read messages behind this position.
    pub after: Position,
    /// At most so many.
    pub limit: usize,
    /// Ignore messages that arrived earlier (`time_range`).
    pub since: Option<SystemTime>,
}

/// An answer to a [`Window`]: messages in the store's order.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages that match, each with its place.
    pub messages: Vec<(Position, Message)>,
    /// Everything up to here was looked at, whether or not it matched.
    pub scanned: Position,
    /// Whether nothing was left behind `scanned` when it was read.
    pub end: bool,
    /// Of retained messages those that the store has among the messages, too, and where.
    pub places: HashMap<MessageId, Position>,
}

/// What became of a gated message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Every rule that stores it has committed.
    Stored,
    /// A rule or its store refused it; the publisher hears the reason.
    Refused(Reason),
    /// It waited longer than `ack_timeout` or `retry_max_age` and was taken out of the queue.
    Cancelled,
}

/// Where the results of gates go: a session's mailbox.
pub trait Settle: Send + Sync {
    /// The gates `first`, `first + 1`, … have these results.
    fn settle(&self, first: Ticket, results: &[Settled]);
}

/// Consecutive messages of one publisher to one topic: what travels through gates, bus and mailboxes.
#[derive(Debug)]
pub struct Run {
    /// The messages, at least one, all of one topic.
    pub messages: Vec<Message>,
    /// For every pool that stores some of them, where they came to lie.
    pub stored: Vec<Stored>,
    /// How many of its messages were written to subscribers, as far as it matters.
    written: AtomicUsize,
    /// What many subscribers share: for every message, its encodings, each made when first asked for.
    shared: OnceLock<Forms>,
    /// How large the buffer was that its messages were read into, where that is known.
    chunk_bytes: AtomicUsize,
    /// They are a small part of it.
    is_fragment: AtomicBool,
    /// The messages in buffers of their own, each made when first asked for.
    apart: OnceLock<Box<[OnceLock<Arc<Run>>]>>,
}

/// A message is a slice of the buffer that it was read into. Whoever keeps messages for long takes them out of a buffer
/// that is so many times larger than what counts as their memory.
const PINNED_TIMES_MAX: usize = 4;
/// A smaller buffer is never worth a copy.
const CHUNK_BYTES: usize = 1024;

type Forms = Box<[OnceLock<Box<[u8]>>]>;

/// The distinct forms of a message on the wire: MQTT 3 or 5, without or with a packet identifier.
const FORMS: usize = 4;

/// A run that went to so many subscribers will go to more: from here on an encoding is made to be shared.
/// Earlier it would cost more than it saves.
const SHARED_FROM_SUBSCRIBERS: usize = 4;

impl Run {
    /// A run of `messages`, at least one, all of one topic.
    pub fn new(messages: Vec<Message>, stored: Vec<Stored>) -> Self {
        Self {
            messages,
            stored,
            written: AtomicUsize::new(0),
            shared: OnceLock::new(),
            chunk_bytes: AtomicUsize::new(0),
            is_fragment: AtomicBool::new(false),
            apart: OnceLock::new(),
        }
    }

    /// Its messages were read into a buffer of this size, with others.
    pub fn came_in(&self, chunk_bytes: usize) {
        if chunk_bytes >= CHUNK_BYTES {
            // QoS 0 does not wait, so it does not share the memory of what does.
            let waits = self.messages.iter().filter(|message| message.qos > Qos::AtMostOnce);
            let bytes: usize = waits.map(Message::size_bytes).sum();
            self.chunk_bytes.store(chunk_bytes, Ordering::Relaxed);
            self.is_fragment
                .store(chunk_bytes > PINNED_TIMES_MAX * bytes, Ordering::Relaxed);
        }
    }

    /// The size of the buffer that its messages keep, where they are a small part of it; else 0.
    pub fn kept_bytes(&self) -> usize {
        match self.is_fragment.load(Ordering::Relaxed) {
            true => self.chunk_bytes.load(Ordering::Relaxed),
            false => 0,
        }
    }

    /// One of its messages as a run of its own that nobody stores.
    pub fn single(&self, index: usize) -> Self {
        let single = Self::new(vec![self.messages[index].clone()], Vec::new());
        single.came_in(self.chunk_bytes.load(Ordering::Relaxed));
        single
    }

    /// The message that has this index as a run of its own and in a buffer of its own, where it would keep one that is
    /// much larger. The same for everybody who asks.
    pub fn apart(&self, index: usize) -> Option<Arc<Self>> {
        if !self.is_fragment.load(Ordering::Relaxed) {
            return None;
        }
        let all = self.apart.get_or_init(|| {
            let count = self.messages.len();
            std::iter::repeat_with(OnceLock::new).take(count).collect()
        });
        let apart = all[index].get_or_init(|| {
            let stored = self.stored.iter().map(|stored| stored.only(index));
            Arc::new(Self::new(vec![self.messages[index].detached()], stored.collect()))
        });
        Some(Arc::clone(apart))
    }

    /// The encoding in `form` (below 4) of the message that has this index, once the run has gone to several
    /// subscribers; `None` before. `encode` makes it where nobody has.
    pub fn shared_form(&self, index: usize, form: usize, encode: impl FnOnce() -> Box<[u8]>) -> Option<&[u8]> {
        // Counted without a locked instruction: a lost count delays the sharing, which is all that it decides.
        let written = self.written.load(Ordering::Relaxed);
        if written < SHARED_FROM_SUBSCRIBERS * self.messages.len() {
            self.written.store(written + 1, Ordering::Relaxed);
            return None;
        }
        let forms = self.shared.get_or_init(|| {
            let count = FORMS * self.messages.len();
            std::iter::repeat_with(OnceLock::new).take(count).collect()
        });
        Some(forms[FORMS * index + form].get_or_init(encode))
    }

    /// The topic of all its messages.
    pub fn topic(&self) -> &Topic {
        &self.messages[0].topic
    }

    /// The places of its messages in `pool`, if a rule stores them there.
    pub fn stored_in(&self, pool: &PoolName) -> Option<&Stored> {
        self.stored.iter().find(|stored| stored.pool == *pool)
    }

    /// Memory that it holds, in bytes, to count against limits.
    pub fn size_bytes(&self) -> usize {
        self.messages.iter().map(Message::size_bytes).sum()
    }
}

/// Where the messages of a run came to lie in one pool. Routing does not wait for the commit, so a place
/// becomes known later, in ascending order, once.
#[derive(Debug)]
pub struct Stored {
    /// The pool.
    pub pool: PoolName,
    /// Those of all messages that were stored together.
    places: Arc<[AtomicU64]>,
    /// Where those of this run begin.
    first: usize,
}

/// One message's place in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Its commit is still under way.
    Pending,
    /// It is stored there.
    At(Position),
    /// It is not, and will not be, stored in this pool.
    Nowhere,
}

const PENDING: u64 = u64::MAX;
const NOWHERE: u64 = u64::MAX - 1;
/// The store orders by message id, so the place is the id itself; ids never fit into 64 bits, row ids do.
const BY_ID: u64 = u64::MAX - 2;

impl Stored {
    /// Places for `messages` in `pool`: pending where `stores` says so, nowhere elsewhere.
    pub fn new(pool: PoolName, stores: impl Iterator<Item = bool>) -> Self {
        let places = stores
            .map(|stores| AtomicU64::new(if stores { PENDING } else { NOWHERE }))
            .collect();
        Self { pool, places, first: 0 }
    }

    /// The place of this message alone, which becomes known when that of the run does.
    fn only(&self, index: usize) -> Self {
        Self {
            pool: self.pool.clone(),
            places: Arc::clone(&self.places),
            first: self.first + index,
        }
    }

    /// The place of the message that has this index in the run, and this id.
    pub fn place(&self, index: usize, id: MessageId) -> Place {
        match self.places[self.first + index].load(Ordering::Acquire) {
            PENDING => Place::Pending,
            NOWHERE => Place::Nowhere,
            BY_ID => Place::At(Position(id.bits())),
            row => Place::At(Position(row.into())),
        }
    }

    /// The message was committed at this position. Called in ascending order of positions.
    pub fn settle_at(&self, index: usize, position: Position) {
        let place = u64::try_from(position.0)
            .ok()
            .filter(|row| *row < BY_ID)
            .unwrap_or(BY_ID);
        self.places[self.first + index].store(place, Ordering::Release);
    }

    /// The message was refused or cancelled.
    pub fn settle_nowhere(&self, index: usize) {
        self.places[self.first + index].store(NOWHERE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::properties::Properties;

    fn message(id: u128, qos: Qos, payload: Bytes) -> Message {
        Message {
            id: MessageId::from_bits(id),
            topic: Topic::new("t").unwrap(),
            payload,
            qos,
            retain: false,
            from: "publisher".into(),
            at: SystemTime::UNIX_EPOCH,
            properties: Properties::default(),
            expires: None,
        }
    }

    #[test]
    fn an_encoding_is_shared_once_a_run_goes_to_several_subscribers_and_made_once() {
        let message = message(1, Qos::AtMostOnce, Bytes::new());
        let run = Run::new(vec![message.clone(), message], Vec::new());
        let mut made = 0;
        for subscriber in 1..=10 {
            for index in 0..2 {
                let shared = run.shared_form(index, FORMS - 1, || {
                    made += 1;
                    [index as u8].into()
                });
                let expected = (subscriber > SHARED_FROM_SUBSCRIBERS).then(|| vec![index as u8]);
                assert_eq!(shared.map(<[u8]>::to_vec), expected, "subscriber {subscriber}");
            }
        }
        assert_eq!(made, 2);
    }

    #[test]
    fn a_message_that_keeps_a_much_larger_buffer_is_taken_out_of_it_once() {
        let chunk = Bytes::from(vec![7; 64 * 1024]);
        let run = |waits: usize| {
            let qos = |index: usize| {
                if index < waits {
                    Qos::AtLeastOnce
                } else {
                    Qos::AtMostOnce
                }
            };
            let messages = (0..100).map(|index| message(index as u128, qos(index), chunk.slice(index..index + 1)));
            let pool = PoolName::new("sqlite", "pool1");
            Run::new(messages.collect(), vec![Stored::new(pool, (0..100).map(|_| true))])
        };
        let few = run(10);
        assert!(few.apart(3).is_none(), "nobody knows what it came in");
        few.came_in(chunk.len());
        let (apart, again) = (few.apart(3).expect("it is"), few.apart(3).expect("it is"));
        assert!(Arc::ptr_eq(&apart, &again) && apart.apart(0).is_none());
        assert_eq!(apart.messages, few.messages[3..4]);
        assert!(!chunk.as_ptr_range().contains(&apart.messages[0].payload.as_ptr()));
        let place = |run: &Run, index| run.stored[0].place(index, run.messages[index].id);
        assert_eq!(place(&apart, 0), Place::Pending);
        few.stored[0].settle_at(3, Position(8));
        few.stored[0].settle_nowhere(4);
        assert_eq!(
            place(&apart, 0),
            Place::At(Position(8)),
            "it learns its place with the others"
        );
        assert_eq!(place(&few.apart(4).expect("it is"), 0), Place::Nowhere);

        let many = run(100);
        many.came_in(chunk.len());
        assert!(many.apart(3).is_none(), "together they are worth their buffer");
        assert!(many.single(3).apart(0).is_some(), "alone it is not");
    }
}
