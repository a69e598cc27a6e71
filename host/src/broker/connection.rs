//! One task a session: it reads, lets the session decide, carries the steps out, writes. It owns the session
//! and, while the client is there, its socket.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::Sleep;

use super::Broker;
use super::arrival::Waiting;
use super::figures::{self, Figures};

use super::mailbox::{Item, Keeps, Live, Mailbox};
use super::quota::Quota;
use super::registry::Deleting;
use super::wills::Room;
use super::wire::{self, Wire};
use crate::bus::Link;
use crate::model::clock;
use crate::model::delivery::{Run, Settle, Settled, Ticket, Window};
use crate::model::event::micros;
use crate::model::id::{Ids, MessageId, Stock};
use crate::model::message::{ClientId, Message};
use crate::model::reason::Reason;
use crate::model::session::Keeping;
use crate::mqtt::codec::Malformed;
use crate::mqtt::limits::Limit;
use crate::mqtt::packet::Packet;
use crate::mqtt::session::{Interest, Now, ReadId, Session, Source, Step, Steps};

/// How often the old socket of a client that connects again is read before it is closed.
const READS_BEFORE_TAKE_OVER: usize = 4;
/// A connection's lists keep room for so many entries between turns.
const KEPT_CAPACITY: usize = 64;
/// At shutdown a client's open gates get so long to settle.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The task of one session.
pub(super) struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) id: ClientId,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) settle: Arc<dyn Settle>,
    /// Where the results of what the session keeps come in, and how many are awaited.
    pub(super) keeps: Arc<dyn Settle>,
    pub(super) keeping: usize,
    /// A client that waits for the store before it is let in.
    pub(super) waiting: Option<Waiting>,
    /// The store was asked for the session that it keeps.
    pub(super) loading: bool,
    /// Operators who wait until nothing is left of the session.
    pub(super) deleting: Vec<Deleting>,
    pub(super) link: Box<dyn Link>,
    pub(super) session: Option<Session>,
    /// Sessions that ended before their messages were stored: their results are counted, and routed for.
    pub(super) former: Vec<Session>,
    /// Where the numbers of the next session begin.
    pub(super) numbers: (Ticket, ReadId),
    pub(super) wire: Option<Wire>,
    /// Orders that were taken out of the mailbox.
    pub(super) inbox: Vec<Item>,
    /// Live messages that were taken out of the mailbox and wait for the socket.
    pub(super) live: std::vec::IntoIter<Live>,
    pub(super) steps: Steps,
    /// Messages of this turn that were not planned yet, by topic.
    pub(super) received: Vec<Received>,
    pub(super) batch: Vec<Arc<Run>>,
    /// Runs that are routed when their gates have settled, in arrival order.
    pub(super) withheld: VecDeque<(Ticket, Arc<Run>)>,
    /// Reads that wait for room behind what waits to be written.
    pub(super) postponed: Vec<(ReadId, Source, Window)>,
    pub(super) alarm: Pin<Box<Sleep>>,
    /// Reading was paused, by the session's window or by a pool.
    pub(super) paused: bool,
    /// Another connection of the client has come: what this one has sent is read to its end.
    pub(super) hears_out: bool,
    /// A pool's queue was full; ready when it has room again.
    pub(super) relief: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// When the shutdown stops waiting for gates.
    pub(super) leave_at: Option<Instant>,
    pub(super) figures: Figures,
    /// How much the client may send, where that is limited.
    pub(super) quota: Option<Box<Quota>>,
    /// What the session's will takes.
    pub(super) will_room: Option<Room>,
    pub(super) present: Present,
}

/// Consecutive messages of one topic, from this ticket on.
pub(super) struct Received {
    pub(super) first: Ticket,
    pub(super) messages: Vec<Message>,
    /// Those of QoS 2 whose packet identifier is kept with them.
    pub(super) kept: Vec<(usize, u16)>,
}

/// What a turn begins with.
#[derive(Debug, Default)]
struct Woken {
    /// Bytes came in, or the socket ended.
    read: Option<std::io::Result<usize>>,
    write_failed: bool,
    overflowed: bool,
    alarm: bool,
}

impl Connection {
    pub(super) fn new(broker: Arc<Broker>, id: ClientId, mailbox: Arc<Mailbox>) -> Self {
        let present = Present::of(&broker);
        Self {
            link: broker.bus.link(),
            settle: Arc::clone(&mailbox) as Arc<dyn Settle>,
            keeps: Arc::new(Keeps(Arc::clone(&mailbox))),
            keeping: 0,
            waiting: None,
            loading: false,
            deleting: Vec::new(),
            broker,
            id,
            mailbox,
            session: None,
            former: Vec::new(),
            numbers: (0, 0),
            wire: None,
            inbox: Vec::new(),
            live: Vec::new().into_iter(),
            steps: Steps::new(),
            received: Vec::new(),
            batch: Vec::new(),
            withheld: VecDeque::new(),
            postponed: Vec::new(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            paused: false,
            hears_out: false,
            relief: None,
            leave_at: None,
            figures: Figures::default(),
            quota: None,
            will_room: None,
            present,
        }
    }

    /// Runs until the session is over.
    pub(super) async fn run(mut self) {
        loop {
            let woken = std::future::poll_fn(|cx| self.poll(cx)).await;
            self.turn(woken).await;
            self.count();
            if self.is_over() && self.broker.clients.leave(&self.id, &self.mailbox) {
                return;
            }
        }
    }

    /// Whether nothing of this client is left here. What it keeps must be in the store: its next task reads it there.
    fn is_over(&self) -> bool {
        let over = self.session.as_ref().is_none_or(Session::is_over) && self.wire.is_none();
        let written = self.keeping == 0 || self.leave_at.is_some();
        over && written && self.former.is_empty() && self.waiting.is_none() && self.deleting.is_empty() && !self.loading
    }

    /// Waits for anything that gives this session something to do. Everything polled here is safe to drop.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        let mut woken = Woken::default();
        let mut ready = !self.is_full() && (self.live.len() > 0 || !self.postponed.is_empty());
        let mut live = Vec::new();
        let takes_live = (self.live.len() == 0).then_some(&mut live);
        woken.overflowed = self.mailbox.drain(cx, &mut self.inbox, takes_live);
        ready |= woken.overflowed || !self.inbox.is_empty() || !live.is_empty();
        if self.live.len() == 0 {
            self.live = live.into_iter();
        }
        if let Some(relief) = &mut self.relief
            && relief.as_mut().poll(cx).is_ready()
        {
            (self.relief, ready) = (None, true);
        }
        let wants_input = self.wants_input();
        if let Some(wire) = &mut self.wire {
            if wire.has_output() {
                match wire.poll_write(cx) {
                    Poll::Ready(Ok(written)) => {
                        self.figures.bytes_out += written as u64;
                        ready = true;
                    }
                    Poll::Ready(Err(_)) => (woken.write_failed, ready) = (true, true),
                    Poll::Pending => {}
                }
            }
            if wants_input && wire.has_input() {
                ready = true;
            } else if wants_input && let Poll::Ready(read) = wire.poll_read(cx) {
                (woken.read, ready) = (Some(read), true);
            }
        }
        if let Some(deadline) = self.deadline() {
            if self.alarm.deadline().into_std() != deadline {
                self.alarm.as_mut().reset(deadline.into());
            }
            if self.alarm.as_mut().poll(cx).is_ready() {
                (woken.alarm, ready) = (true, true);
            }
        }
        if ready { Poll::Ready(woken) } else { Poll::Pending }
    }

    fn wants_input(&self) -> bool {
        if self.hears_out {
            return self.session.is_some();
        }
        self.leave_at.is_none()
            && self.relief.is_none()
            && self.throttled_until().is_none()
            && !self.is_full()
            && self.session.as_ref().is_some_and(Session::wants_input)
    }

    pub(super) fn is_full(&self) -> bool {
        self.wire.as_ref().is_some_and(Wire::is_full)
    }

    /// Until when the client is not read because it sends too much.
    fn throttled_until(&self) -> Option<Instant> {
        self.quota.as_ref().and_then(|quota| quota.reads_again_at())
    }

    fn deadline(&self) -> Option<Instant> {
        self.session
            .as_ref()
            .and_then(Session::deadline)
            .into_iter()
            .chain(self.waiting.as_ref().map(|waiting| waiting.until))
            .chain(self.leave_at)
            .chain(self.throttled_until())
            .min()
    }

    /// One turn: what lies in the mailbox, then what came in, then everything that follows from it.
    async fn turn(&mut self, woken: Woken) {
        self.present = Present::of(&self.broker);
        if woken.write_failed {
            // It may have said goodbye before it stopped to listen.
            self.hear_out().await;
            self.drop_wire(Reason::UNSPECIFIED_ERROR).await;
        }
        match woken.read {
            Some(Ok(0)) => self.drop_wire(Reason::UNSPECIFIED_ERROR).await,
            Some(Err(error)) => match wire::malformed(error) {
                Some(malformed) => self.bad_packet(malformed).await,
                None => self.drop_wire(Reason::UNSPECIFIED_ERROR).await,
            },
            Some(Ok(read)) => self.heard(read),
            None => {}
        }
        if woken.overflowed {
            self.act(|session, _, steps| session.overflowed(steps));
        }
        for item in std::mem::take(&mut self.inbox) {
            self.handle(item).await;
        }
        while !self.is_full()
            && let Some((read, source, window)) = self.postponed.pop()
        {
            self.read(read, source, window);
            self.carry_out().await;
        }
        while !self.is_full()
            && let Some((run, subs)) = self.live.next()
        {
            self.act(|session, now, steps| session.deliver(&run, &subs, now, steps));
            self.carry_out().await;
        }
        self.read_packets().await;
        if woken.alarm {
            if self.relief.is_some() || self.throttled_until().is_some() {
                // A client's silence is ours while a pool, or its quota, keeps us from reading it.
                self.act(|session, now, _| session.resume_reading(now));
            }
            if let Some(quota) = &mut self.quota {
                quota.tick(self.present.instant);
            }
            self.act(|session, now, steps| session.tick(now, steps));
            if let Some(late) = self.waiting.take_if(|waiting| waiting.until <= clock::instant()) {
                self.turn_away(late);
            }
        }
        self.leave_if_done();
        self.carry_out().await;
        self.give_back_room();
        if !self.session.as_ref().is_some_and(Session::has_will) {
            self.will_room = None;
        }
        self.wait_for_pools();
    }

    async fn read_packets(&mut self) {
        if self.paused && self.wants_input() {
            self.paused = false;
            self.act(|session, now, _| session.resume_reading(now));
        }
        while self.wants_input() {
            let Some(wire) = &mut self.wire else { return };
            match wire.packet() {
                Ok(Some(packet)) => {
                    if let (Packet::Publish(_), Some(quota)) = (&packet, &mut self.quota)
                        && let Some(limit) = quota.published(self.present.instant)
                    {
                        figures::hit(limit);
                    }
                    self.figures.packets_in += 1;
                    self.act(|session, now, steps| session.receive(packet, now, steps));
                    // Publishes gather over the turn; anything but an answer keeps its place among them.
                    if !self.carry_out_what_gathers() {
                        self.carry_out().await;
                    }
                }
                Ok(None) => return,
                Err(malformed) => return self.bad_packet(malformed).await,
            }
        }
        self.paused = true;
    }

    /// What came in is not MQTT: the client is told, and goes.
    async fn bad_packet(&mut self, malformed: Malformed) {
        if malformed.reason == Reason::PACKET_TOO_LARGE {
            figures::hit(Limit::PacketSize);
        }
        tracing::info!(client.id = %self.id, reason = %malformed.reason, text = %malformed.text, "bad packet");
        self.act(|session, now, steps| {
            session.close_saying(malformed.reason, &malformed.text, now, steps);
        });
        self.carry_out().await;
    }

    /// Bytes came in.
    fn heard(&mut self, bytes: usize) {
        self.figures.bytes_in += bytes as u64;
        if let Some(quota) = &mut self.quota
            && let Some(limit) = quota.read(bytes, self.present.instant)
        {
            figures::hit(limit);
        }
    }

    async fn handle(&mut self, item: Item) {
        match item {
            // A question that the stop has cut short is no answer: no SUBACK leaves for it, and no reader is given up.
            Item::Begun(_, None) | Item::Page(_, None) if self.broker.stop.is_cancelled() => {}
            Item::Stored(first, count) => self.settle(first, &vec![Settled::Stored; count as usize]).await,
            Item::Settled(first, results) => self.settle(first, &results).await,
            Item::Begun(read, position) => self.act(|session, now, steps| session.begun(read, position, now, steps)),
            Item::Page(read, page) => self.act(|session, now, steps| session.page(read, page, now, steps)),
            Item::Effect(effect) => self.act(|session, now, steps| session.apply(effect, now, steps)),
            Item::Kept(id, there) => {
                self.keeping = self.keeping.saturating_sub(1);
                self.act(|session, now, steps| session.kept(id, there, now, steps));
                self.go_on_arriving().await;
            }
            // What is rare lives on the heap while it lasts: every task has room for the rest all its life.
            Item::Loaded(loaded) => Box::pin(self.loaded(loaded)).await,
            Item::Due => self.look_after(),
            Item::Offer(group) => self.act(|session, _, steps| session.offer(&group, steps)),
            Item::Report(depth, answer) => self.report(depth, answer),
            Item::Kick(answer) => self.kick(answer),
            Item::Delete(answer) => Box::pin(self.delete(answer)).await,
            Item::Arrival(arrival) => Box::pin(self.arrive(arrival)).await,
            #[cfg(test)]
            Item::Look(asker) => {
                let load = self.session.as_ref().map(Session::load).unwrap_or_default();
                asker.send(load).unwrap_or_default();
            }
            Item::ShutDown(patience) => self.leave_at = Some(clock::instant() + patience.min(LAST_ANSWERS)),
        }
    }

    /// What the old socket still holds came before the new connection: a DISCONNECT there counts, also where it lies
    /// behind what the client was not read on for. That is little: no more than some reads.
    pub(super) async fn hear_out(&mut self) {
        self.hears_out = true;
        for _ in 0..READS_BEFORE_TAKE_OVER {
            self.read_packets().await;
            let Some(wire) = &mut self.wire else { break };
            let read = std::future::poll_fn(|cx| Poll::Ready(wire.poll_read(cx))).await;
            if !matches!(read, Poll::Ready(Ok(read)) if read > 0) {
                break;
            }
        }
        self.hears_out = false;
    }

    pub(super) fn act(&mut self, act: impl FnOnce(&mut Session, &mut Now<'_>, &mut Steps)) {
        if let Some(session) = &mut self.session {
            let mut now = self.present.now(&self.broker);
            act(session, &mut now, &mut self.steps);
            let stock = now.ids.stock();
            self.present.stock = stock;
        }
    }

    /// The client is there, or is not any more.
    pub(super) fn set_online(&self, online: bool) {
        if self.mailbox.set_online(online) != online {
            self.broker.clients.note_online(online);
        }
    }

    /// A new message id of this turn.
    pub(super) fn new_id(&mut self) -> MessageId {
        let mut now = self.present.now(&self.broker);
        let id = now.ids.take();
        self.present.stock = now.ids.stock();
        id
    }

    /// At shutdown: the client is told to go once its gates have settled, or after a while.
    fn leave_if_done(&mut self) {
        let Some(leave_at) = self.leave_at else { return };
        if leave_at <= clock::instant() {
            self.former.clear();
        }
        if let Some(waiting) = self.waiting.take() {
            self.turn_away(waiting);
        }
        let open = self
            .session
            .as_ref()
            .is_some_and(|session| session.is_online() && session.open_gates() > 0);
        if !open || leave_at <= clock::instant() {
            self.act(|session, now, steps| {
                session.shut_down(now, steps);
                steps.push_back(Step::End);
            });
        }
    }

    /// While a pool's queue is full, whoever has something for it is not read on: its bytes stay in its socket.
    fn wait_for_pools(&mut self) {
        if self.relief.is_none()
            && self.figures.published()
            && let Some(pool) = self.broker.hooks.pressed()
        {
            self.paused = true;
            self.relief = Some(Box::pin(async move { pool.batcher().relieved().await }));
        }
    }

    /// A turn with many packets needs much room, and the next may come in a day.
    fn give_back_room(&mut self) {
        self.steps.shrink_to(KEPT_CAPACITY);
        self.received.shrink_to(KEPT_CAPACITY);
        self.batch.shrink_to(KEPT_CAPACITY);
    }

    fn count(&mut self) {
        if let Some(session) = &mut self.session {
            self.figures.add(session.take_books());
        }
        self.figures.flush();
    }
}

/// The present, read once a turn, and the ids that the turn has reserved.
pub(super) struct Present {
    instant: Instant,
    wall: SystemTime,
    interest: Interest,
    keeping: Option<Keeping>,
    stock: Stock,
}

impl Present {
    fn of(broker: &Broker) -> Self {
        let (instant, wall) = (clock::instant(), clock::wall());
        Self {
            instant,
            wall,
            interest: broker.hooks.interest(),
            keeping: broker.hooks.keeping(),
            stock: Stock::default(),
        }
    }

    /// The present, as sessions see it.
    pub(super) fn now<'a>(&'a self, broker: &'a Broker) -> Now<'a> {
        let ids = Ids::with_stock(&broker.ids, micros(self.wall), self.stock);
        Now {
            instant: self.instant,
            wall: self.wall,
            ids,
            interest: self.interest,
            keeps: self.keeping.as_ref(),
        }
    }
}
