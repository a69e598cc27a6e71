//! The session: MQTT's rules for one client as pure code. Packets, results and the clock go in, steps come
//! out, in order. No sockets, no clock, no I/O; the broker's connection carries the steps out.

mod connect;
mod eviction;
mod exchange;
mod gates;
mod keep;
mod live;
mod outbound;
mod pages;
mod publish;
mod reader;
mod replay;
mod report;
mod resend;
mod reserved;
mod rest;
mod retained;
mod subscribe;
mod watermark;

use std::collections::{HashMap, VecDeque};
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use foldhash::fast::FixedState;

use crate::model::delivery::{PoolName, Position, Reader, Run, Settled, Ticket, Window};
use crate::model::event::{Backlog, Event};
use crate::model::id::Ids;
use crate::model::message::{Client, Message, Subscription};
use crate::model::reason::Reason;
use crate::model::session::{Keep, Keeping};
use crate::model::topic::{Filter, Topic};
use crate::mqtt::limits::{Limit, Limits};
use crate::mqtt::packet::{AckKind, Outgoing, Packet, Version};

use connect::{Link, PendingWill};
use gates::Gates;
use keep::Keeper;
use outbound::Outbound;
use publish::Received;
use reader::Readers;
pub use report::Depth;
pub use reserved::is_reserved;
use retained::Rounds;
use subscribe::Subscriptions;

/// A map by numbers that are ours or the protocol's 16 bits. Its order is the same in every run.
type Map<K, V> = HashMap<K, V, FixedState>;

/// Names a subscription within its session; never used again.
pub type SubId = u32;

/// Names a question to a store within its session; answers to questions that nobody remembers are dropped.
pub type ReadId = u64;

/// What a session asks its connection to do, in order.
#[derive(Debug)]
pub enum Step {
    /// Plan the rules of this message, open its gate, route it. Tickets are consecutive.
    Publish {
        /// Its gate.
        ticket: Ticket,
        /// The message.
        message: Message,
        /// The packet identifier that has to be kept with it: QoS 2 of a kept session.
        kept: Option<u16>,
    },
    /// Keep this beyond this process (spec C16); the result goes to [`Session::kept`].
    Keep(ReadId, Keep),
    /// Run the rules of this moment.
    Fire(Event),
    /// Run the rules of this subscription and hand their effects to [`Session::subscribed`].
    Subscribed {
        /// The subscription.
        sub: SubId,
        /// The SUBSCRIBE that waits for it, if a client sent one.
        packet_id: Option<u16>,
        /// What happened.
        event: Event,
    },
    /// Add or change a route: from now on matching messages come to [`Session::deliver`].
    Route(SubId, Subscription),
    /// The client came back to a session that was restored: ask the fetch rules what it reads of this
    /// subscription, and hand that to [`Session::returned`].
    Returned(SubId, Event),
    /// Remove a route.
    Unroute(SubId, Subscription),
    /// The routes and rules of this SUBSCRIBE are done: call [`Session::answer`].
    Answer(u16),
    /// Ask where this backlog begins; the answer goes to [`Session::begun`].
    Begin(ReadId, Box<Backlog>),
    /// Read; the answer goes to [`Session::page`].
    Read(ReadId, Source, Window),
    /// Look the operator's subscriptions up; the answer goes to [`Session::apply`].
    Lookup(PoolName),
    /// A reader has acknowledged everything up to here.
    Advance(Reader, Position),
    /// The session's positions end with it.
    Forget,
    /// A member of this group is there: whoever of the group is away is asked to [`Session::offer`].
    Joined(Arc<str>),
    /// Messages of this group wait for a client that is away: where another member is connected, call
    /// [`Session::hand_on`].
    Offer(Arc<str>),
    /// This message is for another member of the group.
    HandOn(Arc<str>, Arc<Run>),
    /// Write a packet.
    Send(Outgoing),
    /// The client ran into a limit: count it.
    Limit(Limit),
    /// Close the socket. What was sent before still leaves.
    Close(Reason),
    /// The store has all of the session: nobody needs it here until its client is back.
    Rest,
    /// The session is over; nothing follows.
    End,
}

/// Where a [`Step::Read`] reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The retained messages that the broker itself keeps.
    Own(Filter),
    /// The retained messages of a pool, behind what this node has queued for it.
    Retained(PoolName, Filter),
    /// What a reader has not read, behind what this node has queued for it.
    Unread(Reader),
}

/// What a session needs to know of the world while it decides.
#[derive(Debug)]
pub struct Now<'a> {
    /// The monotonic clock, for time-outs.
    pub instant: Instant,
    /// The wall clock, for expiry and what is stored.
    pub wall: SystemTime,
    /// New message ids.
    pub ids: Ids<'a>,
    /// Which frequent moments have rules that want every single message.
    pub interest: Interest,
    /// Where sessions are kept beyond this process, if anywhere.
    pub keeps: Option<&'a Keeping>,
}

/// Which frequent moments have rules that want every single message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// `message.delivered`.
    pub delivered: bool,
    /// `message.acked`.
    pub acked: bool,
}

/// The steps of a turn, in order.
pub type Steps = VecDeque<Step>;

/// The books of a session since they were last taken (spec F3): received = acked + refused + open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// PUBLISH received, by QoS; resends of a known message are not counted.
    pub received: [u64; 3],
    /// Positive answers to messages that rules stored.
    pub acked_stored: u64,
    /// Positive answers to messages that no rule stores.
    pub acked_unstored: u64,
    /// Answers with an error.
    pub refused: u64,
    /// PUBLISH sent, by QoS.
    pub sent: [u64; 3],
    /// Live copies left to the store (spec C11).
    pub deferred: u64,
    /// Deliveries dropped because the queue was full.
    pub dropped_queue_full: u64,
    /// Deliveries dropped out of a full queue for newer ones.
    pub dropped_evicted: u64,
    /// Deliveries dropped because the message had expired.
    pub dropped_expired: u64,
    /// QoS 0 deliveries dropped because the client was away.
    pub dropped_offline: u64,
    /// Deliveries dropped because the client accepts smaller packets only.
    pub dropped_too_large: u64,
    /// Messages to topics that only the broker may publish to, dropped without a word.
    pub dropped_reserved: u64,
    /// Sessions whose client did not come back in time.
    pub expired: u64,
}

impl AddAssign for Books {
    fn add_assign(&mut self, other: Self) {
        (0..self.received.len()).for_each(|qos| self.received[qos] += other.received[qos]);
        (0..self.sent.len()).for_each(|qos| self.sent[qos] += other.sent[qos]);
        self.acked_stored += other.acked_stored;
        self.acked_unstored += other.acked_unstored;
        self.refused += other.refused;
        self.deferred += other.deferred;
        self.dropped_queue_full += other.dropped_queue_full;
        self.dropped_evicted += other.dropped_evicted;
        self.dropped_expired += other.dropped_expired;
        self.dropped_offline += other.dropped_offline;
        self.dropped_too_large += other.dropped_too_large;
        self.dropped_reserved += other.dropped_reserved;
        self.expired += other.expired;
    }
}

/// The MQTT state of one client; survives its sockets.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    client: Arc<Client>,
    version: Version,
    link: Option<Link>,
    will: Option<PendingWill>,
    expires_at: Option<Instant>,
    gates: Gates,
    received: Received,
    outbound: Outbound,
    subscriptions: Subscriptions,
    readers: Readers,
    rounds: Rounds,
    positions_due: Option<Instant>,
    next_read: ReadId,
    keeper: Keeper,
    /// When to see whether the store has all of it, so that it needs not stay in memory.
    rests_at: Option<Instant>,
    /// It came from a store and its client has not come back yet: nothing of it is routed.
    is_restored: bool,
    books: Books,
    over: bool,
}

impl Session {
    /// A packet came in.
    pub fn receive(&mut self, packet: Packet, now: &mut Now<'_>, steps: &mut Steps) {
        if let Some(link) = &mut self.link {
            link.heard_at = now.instant;
        }
        self.follow_keeper(now, steps);
        match packet {
            Packet::Publish(publish) => self.publish(publish, now, steps),
            Packet::Ack(ack) if ack.kind == AckKind::PubRel => self.release(ack, steps),
            Packet::Ack(ack) => self.acked(ack, now, steps),
            Packet::Subscribe(subscribe) => self.subscribe(*subscribe, steps),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, now, steps),
            Packet::Ping => steps.push_back(Step::Send(Outgoing::Pong)),
            Packet::Disconnect(disconnect) => self.disconnect(disconnect, now, steps),
            // [MQTT-3.1.0-2], and enhanced authentication was refused with the CONNECT.
            Packet::Connect(_) | Packet::Auth(_) => self.close(Reason::PROTOCOL_ERROR, now, steps),
        }
    }

    /// False while the window of what waits for a store is full: the bytes behind stay undecoded. Asked between packets.
    pub fn wants_input(&self) -> bool {
        let window = usize::from(self.limits.receive_max);
        // An MQTT 5 client knows the window and is told when it breaks it; others are not read on.
        let open = if self.version == Version::V5 {
            0
        } else {
            self.gates.unanswered()
        };
        // Nobody is told a window for SUBSCRIBEs, but their answers may wait for a store, too.
        let waits = self.gates.open_qos0().max(self.subscriptions.unanswered());
        // Everybody's commits stand in one line: one client's changes of its session must not fill it.
        open.max(waits) < window && self.keeper.outstanding() < self.limits.keeps_max
    }

    /// The rules of messages were planned: message `first + i` waits for `waits[i]` stores.
    pub fn planned(&mut self, first: Ticket, waits: impl IntoIterator<Item = u8>, steps: &mut Steps) {
        self.gates.planned(first, waits);
        self.answer_publishers(steps);
    }

    /// One store has settled some gates: what waited for them may leave, in arrival order.
    pub fn settle(&mut self, first: Ticket, results: &[Settled], steps: &mut Steps) {
        self.gates.settle(first, results);
        self.answer_publishers(steps);
    }

    /// Time has passed: time-outs, expiry, delayed wills, gathered positions.
    pub fn tick(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        if self.positions_due.is_some_and(|due| due <= now.instant) {
            self.write_positions(now.instant, steps);
        }
        self.answer_late_subscribers(now, steps);
        self.tick_connection(now, steps);
        self.rest(now.instant, steps);
    }

    /// When [`Session::tick`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let times = [
            self.positions_due,
            self.subscriptions.deadline(),
            self.expires_at,
            self.rests_at,
            self.will.as_ref().and_then(|will| will.at),
            self.link
                .as_ref()
                .filter(|_| self.wants_input())
                .and_then(Link::deadline),
        ];
        times.into_iter().flatten().min()
    }

    /// Who it belongs to, as last connected.
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The protocol of the present connection, or of the last one.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether a client is connected.
    pub fn is_online(&self) -> bool {
        self.link.is_some()
    }

    /// Whether [`Step::End`] was given: nothing may follow.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// PUBLISH of QoS 1 and 2 that have no answer yet.
    pub fn open_gates(&self) -> usize {
        self.gates.unanswered()
    }

    /// Whether every store has settled these gates.
    pub fn are_settled(&self, first: Ticket, count: usize) -> bool {
        self.gates.are_closed(first, count)
    }

    /// Whether a store has still to settle something of ours.
    pub fn awaits_stores(&self) -> bool {
        self.gates.is_any_open()
    }

    /// Numbers gates and questions from here on: a session that follows another must not take its results and
    /// answers for its own.
    pub fn number_from(&mut self, first: (Ticket, ReadId)) {
        self.gates.number_from(first.0);
        self.next_read = first.1;
    }

    /// Where the numbers of gates and questions have come to.
    pub fn numbers(&self) -> (Ticket, ReadId) {
        (self.gates.next_ticket(), self.next_read)
    }

    /// The books since they were last taken.
    pub fn take_books(&mut self) -> Books {
        std::mem::take(&mut self.books)
    }

    /// What it holds and has still to do.
    #[cfg(test)]
    pub(crate) fn load(&self) -> Load {
        let replays = self.subscriptions.subs.values().filter_map(|sub| sub.replay.as_ref());
        Load {
            gates: self.gates.unanswered() + usize::from(self.gates.is_any_open()),
            sent: self.outbound.sent_len(),
            queued: self.outbound.queue_len(),
            held: replays.clone().map(|replay| replay.hold.held.len()).sum(),
            replaying: replays.count(),
        }
    }

    fn new_read(&mut self) -> ReadId {
        self.next_read += 1;
        self.next_read
    }

    /// Schedules a write of gathered positions.
    fn positions_later(&mut self, now: Instant) {
        self.positions_due.get_or_insert(now + self.limits.position_delay);
    }

    /// Writes every position that has moved. Acknowledgements whose commit is under way wait for the next time.
    fn write_positions(&mut self, now: Instant, steps: &mut Steps) {
        self.positions_due = None;
        if self.readers.write_positions(steps) {
            self.positions_later(now);
        }
        // Behind the positions: what they have not passed must still be known after a crash.
        self.end_rounds(steps);
        self.end_exchanges(steps);
        let again = self.readers.may_read_again(now);
        if !again.is_empty() && self.link.is_some() {
            again.into_iter().for_each(|key| self.catch_up(key));
            self.ask_on(steps);
        }
    }
}

/// What a session holds and has still to do.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// PUBLISH without an answer, or not stored yet.
    pub(crate) gates: usize,
    /// Messages in the window.
    pub(crate) sent: usize,
    /// Messages behind it.
    pub(crate) queued: usize,
    /// Live messages that are held back.
    pub(crate) held: usize,
    /// Subscriptions that read from a store.
    pub(crate) replaying: usize,
}

/// A topic alias table: what the client set on this connection.
type Aliases = Map<u16, Topic>;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
