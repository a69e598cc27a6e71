//! A client: it publishes, acknowledges as it is told, resends what was not answered, and tells the judge
//! everything that it does and sees.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::judge::{Judge, name};
use super::packets::{Heard, Parcel, Pen, hear};
use super::scenario::{Habit, Hello, Order, Post, Who};
use super::store::Memory;
use super::trace::Trace;

/// A SUBACK that comes sooner has waited for the reader's row.
const SUBACK_PATIENCE: Duration = Duration::from_secs(5);

/// What a client does and sees is told to these.
pub(super) struct Court<'a> {
    pub(super) judge: &'a mut Judge,
    pub(super) store: &'a Memory,
    pub(super) trace: &'a mut Trace,
    pub(super) now: Duration,
}

/// A client with its session, and its socket while it is connected.
pub(super) struct Client {
    who: Who,
    v5: bool,
    pipe: Option<DuplexStream>,
    /// A connection that was taken over: open, but nobody looks at it.
    abandoned: Option<DuplexStream>,
    unread: BytesMut,
    pen: Pen,
    connected: bool,
    hello: Option<Hello>,
    reads: bool,
    silent: bool,
    ping_at: Option<Duration>,
    /// When it last sent something.
    spoke_at: Duration,
    /// Whether it has published on this connection what is never answered.
    published_qos0: bool,
    /// The DISCONNECT that waits to leave: whether it asks for the will.
    goodbye: Option<bool>,
    last_id: u16,
    session: u32,
    /// What was published and is not answered, in order.
    unanswered: VecDeque<Unanswered>,
    asked: BTreeMap<u16, (&'static str, Duration)>,
    habit: Habit,
    held: VecDeque<Held>,
    /// QoS 2 messages between PUBLISH and PUBREL.
    received: BTreeSet<u16>,
    /// Messages of QoS 1 and 2 of this connection that are not done.
    open: BTreeMap<u16, u32>,
    window: usize,
    server_window: usize,
}

/// A message that the broker has not answered to the end.
struct Unanswered {
    id: u16,
    number: u32,
    post: Post,
    /// PUBREC has come.
    released: bool,
}

/// An acknowledgement that has not left.
struct Held {
    first: u8,
    id: u16,
    due: Option<Duration>,
}

impl Client {
    pub(super) fn new(who: Who, v5: bool, inflight_max: u16, receive_max: u16) -> Self {
        Self {
            who,
            v5,
            pipe: None,
            abandoned: None,
            unread: BytesMut::new(),
            pen: Pen {
                v5,
                bytes: BytesMut::new(),
            },
            connected: false,
            hello: None,
            reads: true,
            silent: false,
            ping_at: None,
            spoke_at: Duration::ZERO,
            published_qos0: false,
            goodbye: None,
            last_id: 0,
            session: 0,
            unanswered: VecDeque::new(),
            asked: BTreeMap::new(),
            habit: Habit::Promptly,
            held: VecDeque::new(),
            received: BTreeSet::new(),
            open: BTreeMap::new(),
            window: inflight_max.into(),
            server_window: receive_max.into(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected && self.goodbye.is_none()
    }

    pub(super) fn is_offline(&self) -> bool {
        self.pipe.is_none()
    }

    /// Whether nothing is under way, in either direction.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.held.is_empty() && self.open.is_empty() && self.pen.bytes.is_empty()
    }

    /// Answers whether CONNECT may be sent now: a clean one is not given up half-way, for nobody could tell
    /// afterwards which session is left.
    pub(super) fn may_connect(&self) -> bool {
        let half_way = self.pipe.is_some() && !self.connected;
        !half_way || self.hello.as_ref().is_some_and(|hello| !hello.clean)
    }

    /// Sends CONNECT over this pipe.
    pub(super) fn connect(&mut self, pipe: DuplexStream, hello: &Hello, court: &mut Court<'_>) {
        self.doubt(court);
        self.abandoned = self.pipe.take();
        self.reset();
        self.pipe = Some(pipe);
        self.spoke_at = court.now;
        self.hello = Some(hello.clone());
        let payload = court.judge.connects(self.who, hello, court.now);
        self.forget_other_sessions(court);
        let will = hello.will.and_then(|will| Some((will.topic, payload.as_deref()?)));
        self.pen.connect(&name(self.who), hello, will);
    }

    /// What belonged to a session that is over is not sent again.
    fn forget_other_sessions(&mut self, court: &Court<'_>) {
        let session = court.judge.session_of(self.who);
        if std::mem::replace(&mut self.session, session) != session {
            self.unanswered.clear();
            self.received.clear();
        }
    }

    /// What belongs to a connection and ends with it.
    fn reset(&mut self) {
        self.unread.clear();
        self.pen.bytes.clear();
        self.connected = false;
        self.ping_at = None;
        self.published_qos0 = false;
        self.goodbye = None;
        self.asked.clear();
        self.held.clear();
        self.open.clear();
        self.reads = true;
    }

    /// The socket is closed without a word.
    pub(super) fn cut(&mut self, court: &mut Court<'_>) {
        if self.pipe.is_some() && self.goodbye.is_none() && self.may_connect() {
            self.doubt(court);
            court.judge.gone(self.who, court.now);
            self.orphaned();
        }
    }

    /// Where it was silent for too long, the broker may have closed the connection already.
    fn doubt(&mut self, court: &mut Court<'_>) {
        let keep_alive_s = self.hello.as_ref().map_or(0, |hello| hello.keep_alive_s);
        let patience = Duration::from_secs(keep_alive_s.into());
        let is_silent = keep_alive_s > 0 && court.now > self.spoke_at + patience;
        let is_deaf = !self.reads && court.store.has_refused_any();
        if self.pipe.is_some() && (is_silent || is_deaf) {
            court.judge.closed(self.who, true, None, court.now);
        }
    }

    /// The broker is gone, and every connection with it.
    pub(super) fn orphaned(&mut self) {
        self.pipe = None;
        self.abandoned = None;
        self.reset();
    }

    pub(super) fn disconnect(&mut self, with_will: bool) {
        if self.is_connected() {
            self.pen.disconnect(with_will);
            self.goodbye = Some(with_will && self.v5);
        }
    }

    pub(super) fn subscribe(&mut self, filter: &'static str, qos: u8, court: &mut Court<'_>) {
        if !self.is_connected() {
            return;
        }
        court.judge.subscribes(self.who, filter, qos);
        self.asked.retain(|_, (asked, _)| *asked != filter);
        let id = self.new_id();
        self.asked.insert(id, (filter, court.now));
        self.pen.subscribe(id, filter, qos);
    }

    pub(super) fn unsubscribe(&mut self, filter: &'static str, court: &mut Court<'_>) {
        if !self.is_connected() {
            return;
        }
        court.judge.unsubscribes(self.who, filter);
        self.asked.retain(|_, (asked, _)| *asked != filter);
        let id = self.new_id();
        self.pen.unsubscribe(id, filter);
    }

    pub(super) fn publish(&mut self, post: Post, court: &mut Court<'_>) {
        for _ in 0..post.count {
            let full = post.qos > 0 && self.v5 && self.unanswered.len() >= self.server_window;
            if !self.is_connected() || full {
                return;
            }
            let number = court.judge.publishes(self.who, post, court.now);
            let id = if post.qos > 0 { self.new_id() } else { 0 };
            let message = Unanswered {
                id,
                number,
                post,
                released: false,
            };
            court.trace.add(court.now, || {
                format!("{} > PUBLISH {number} {post:?} id {id}", name(self.who))
            });
            self.pen.publish(&message.parcel(false));
            match post.qos {
                0 => self.published_qos0 = true,
                _ => self.unanswered.push_back(message),
            }
        }
    }

    fn new_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % 50 + 1; // small, so that they come again
            let id = self.last_id;
            if !self.unanswered.iter().any(|it| it.id == id) && !self.asked.contains_key(&id) {
                return id;
            }
            if self.unanswered.len() + self.asked.len() >= 50 {
                return 1000 + self.unanswered.back().map_or(0, |it| it.number as u16 % 60_000);
            }
        }
    }

    pub(super) fn set_habit(&mut self, habit: Habit, court: &mut Court<'_>) {
        self.habit = habit;
        if habit == Habit::Promptly {
            self.answer(Order::Forwards, court);
        }
    }

    pub(super) fn set_reading(&mut self, reads: bool) {
        self.reads = reads;
    }

    pub(super) fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// Sends acknowledgements that were held back.
    pub(super) fn answer(&mut self, order: Order, court: &mut Court<'_>) {
        let mut held: Vec<Held> = match order {
            Order::Newest => self.held.pop_back().into_iter().collect(),
            Order::Forwards | Order::Backwards => self.held.drain(..).collect(),
        };
        if order == Order::Backwards {
            held.reverse();
        }
        held.into_iter().for_each(|ack| self.send_ack(&ack, court));
    }

    /// When it wants to do something by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        let acks = self.held.iter().filter_map(|held| held.due);
        let ping = self.ping_at.filter(|_| !self.silent);
        acks.chain(ping).min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, court: &mut Court<'_>) {
        let now = court.now;
        let (due, rest): (VecDeque<Held>, _) = self
            .held
            .drain(..)
            .partition(|held| held.due.is_some_and(|due| due <= now));
        self.held = rest;
        due.into_iter().for_each(|ack| self.send_ack(&ack, court));
        if self.ping_at.is_some_and(|at| at <= now) && !self.silent {
            self.ping_later(now);
            self.pen.ping();
        }
    }

    fn ping_later(&mut self, now: Duration) {
        let keep_alive_s = self.hello.as_ref().map_or(0, |hello| hello.keep_alive_s);
        self.ping_at = (keep_alive_s > 0).then(|| now + Duration::from_secs(keep_alive_s.into()) / 2);
    }

    fn send_ack(&mut self, ack: &Held, court: &mut Court<'_>) {
        let Held { first, id, .. } = *ack;
        court
            .trace
            .add(court.now, || format!("{} > {first:02X} id {id}", name(self.who)));
        self.pen.ack(first, id);
        if let Some(number) = self.open.get(&id) {
            court.judge.acknowledged(self.who, *number);
        }
        if matches!(first, PUBACK | PUBCOMP) {
            self.open.remove(&id);
        }
    }

    /// Writes and reads what can be written and read now. Answers whether anything was.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, court: &mut Court<'_>) -> bool {
        let mut moved = false;
        loop {
            let wrote = self.write(cx, court);
            let read = self.read(cx, court);
            if !wrote && !read {
                return moved;
            }
            moved = true;
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, court: &mut Court<'_>) -> bool {
        let mut moved = false;
        while !self.pen.bytes.is_empty()
            && let Some(pipe) = &mut self.pipe
        {
            match Pin::new(pipe).poll_write(cx, &self.pen.bytes) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.pen.bytes.advance(written);
                    self.spoke_at = court.now;
                }
                // It is closed: what can still be read tells.
                Poll::Ready(_) => self.pen.bytes.clear(),
                Poll::Pending => break,
            }
            moved = true;
        }
        if self.pen.bytes.is_empty()
            && self.pipe.is_some()
            && let Some(with_will) = self.goodbye
        {
            // Where the broker has stopped reading, a take-over may come before what it has not read.
            let is_heard = self.unanswered.is_empty() && self.asked.is_empty() && !self.published_qos0;
            let never_silent = self.hello.as_ref().is_some_and(|hello| hello.keep_alive_s == 0);
            court
                .judge
                .says_goodbye(self.who, with_will, is_heard && never_silent, court.now);
            self.orphaned();
        }
        moved
    }

    fn read(&mut self, cx: &mut Context<'_>, court: &mut Court<'_>) -> bool {
        if !self.reads || self.goodbye.is_some() {
            return false;
        }
        let Some(pipe) = &mut self.pipe else { return false };
        let mut space = [0; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        match Pin::new(pipe).poll_read(cx, &mut buffer) {
            Poll::Pending => return false,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => self.unread.extend_from_slice(buffer.filled()),
            Poll::Ready(_) => self.closed(None, court),
        }
        while self.pipe.is_some()
            && let Some(heard) = hear(&mut self.unread, self.v5)
        {
            court.trace.add(court.now, || format!("{} < {heard:?}", name(self.who)));
            if !self.connected && !matches!(heard, Heard::ConnAck { .. }) {
                let text = format!("{} got {heard:?}", name(self.who));
                court.judge.wrong("the first packet is CONNACK", text);
            }
            self.take(heard, court);
        }
        true
    }

    fn closed(&mut self, reason: Option<u8>, court: &mut Court<'_>) {
        let hello = self.hello.as_ref();
        let may_be_silent = hello.is_some_and(|hello| hello.keep_alive_s > 0);
        let refused = !self.v5 && court.store.has_refused_any();
        let shuts_down = court.judge.shutting_down;
        court
            .trace
            .add(court.now, || format!("{} < closed, {reason:02X?}", name(self.who)));
        let turned_away = !self.connected && court.judge.may_turn_away(court.now);
        let allowed = may_be_silent || refused || shuts_down || turned_away;
        court.judge.closed(self.who, allowed, reason, court.now);
        self.orphaned();
    }

    fn take(&mut self, heard: Heard, court: &mut Court<'_>) {
        match heard {
            Heard::ConnAck { present, reason } => self.welcomed(present, reason, court),
            Heard::Publish(parcel) => self.receive(&parcel, court),
            Heard::PubAck { id, reason } => self.answered(1, id, reason, court),
            Heard::PubRec { id, reason } => self.answered(2, id, reason, court),
            Heard::PubRel { id } => {
                self.received.remove(&id);
                if let Some(number) = self.open.get(&id) {
                    court.judge.exchanges(self.who, id, *number, true, court.store);
                }
                self.hold(PUBCOMP, id, court);
            }
            Heard::PubComp { id } => {
                court.judge.completed(self.who, id, court.store);
                self.unanswered.retain(|it| it.id != id || it.post.qos != 2);
            }
            Heard::SubAck { id, reason } => {
                if let Some((filter, asked_at)) = self.asked.remove(&id) {
                    let promptly = court.now < asked_at + SUBACK_PATIENCE;
                    court.judge.subscribed(self.who, filter, reason, promptly, court.store);
                }
            }
            Heard::UnsubAck { .. } | Heard::Pong => {}
            Heard::Disconnect { reason } => self.closed(Some(reason), court),
        }
    }

    fn welcomed(&mut self, present: bool, reason: u8, court: &mut Court<'_>) {
        if reason != 0 && court.judge.may_turn_away(court.now) {
            court.judge.gone(self.who, court.now);
            return self.orphaned();
        }
        if reason != 0 {
            return court.judge.wrong(
                "everybody is let in",
                format!("{} was not: {reason:02X}", name(self.who)),
            );
        }
        self.connected = true;
        self.ping_later(court.now);
        let again = court.judge.connected(self.who, present, court.now);
        self.forget_other_sessions(court);
        if !present {
            self.unanswered.clear();
            self.received.clear();
        }
        for message in &self.unanswered {
            court.judge.resends(message.number);
            match message.released {
                false => self.pen.publish(&message.parcel(true)),
                true => self.pen.ack(PUBREL, message.id),
            }
        }
        for (filter, qos) in again {
            self.subscribe(filter, qos, court);
        }
    }

    fn receive(&mut self, parcel: &Parcel, court: &mut Court<'_>) {
        let who = name(self.who);
        let anew = parcel.qos < 2 || self.received.insert(parcel.id);
        court.judge.delivered(self.who, parcel, anew, court.store, court.now);
        if parcel.qos == 0 {
            return;
        }
        let number = parcel.payload.parse().expect("payloads are numbers");
        if parcel.qos == 2 {
            court.judge.exchanges(self.who, parcel.id, number, false, court.store);
        }
        if self.open.insert(parcel.id, number).is_some() {
            court.judge.wrong(
                "a packet identifier in use is not used again",
                format!("{who}: {parcel:?}"),
            );
        }
        let receive_max = self.hello.as_ref().map(|hello| hello.receive_max);
        let window = self.window.min(receive_max.unwrap_or(u16::MAX).into());
        if self.open.len() > window {
            court.judge.wrong(
                "the window is kept",
                format!("{who}: {} of {window} are open", self.open.len()),
            );
        }
        self.hold(if parcel.qos == 1 { PUBACK } else { PUBREC }, parcel.id, court);
    }

    /// Acknowledges as is the client's habit.
    fn hold(&mut self, first: u8, id: u16, court: &mut Court<'_>) {
        let due = match self.habit {
            Habit::Promptly => {
                let now = Held { first, id, due: None };
                return self.send_ack(&now, court);
            }
            Habit::Late(millis) => Some(court.now + Duration::from_millis(millis.into())),
            Habit::Never => None,
        };
        self.held.push_back(Held { first, id, due });
    }

    /// PUBACK or PUBREC.
    fn answered(&mut self, qos: u8, id: u16, reason: u8, court: &mut Court<'_>) {
        let waits = |it: &&Unanswered| it.post.qos == qos && !it.released;
        let first = self.unanswered.iter().find(waits).map(|it| it.id);
        let known = self
            .unanswered
            .iter()
            .position(|it| it.id == id && it.post.qos == qos && !it.released);
        let Some(at) = known else {
            return court.judge.wrong(
                "what was published is answered once",
                format!("{} id {id}", name(self.who)),
            );
        };
        if first != Some(id) {
            let text = format!("{} heard of id {id} before {first:?}", name(self.who));
            return court.judge.wrong("answers leave in order", text);
        }
        court.judge.answered(self.unanswered[at].number, reason, court.store);
        if qos == 2 && reason < 0x80 {
            self.unanswered[at].released = true;
            self.pen.ack(PUBREL, id);
        } else {
            self.unanswered.remove(at);
        }
    }
}

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

impl Unanswered {
    fn parcel(&self, dup: bool) -> Parcel {
        Parcel {
            dup,
            qos: self.post.qos,
            retain: self.post.retain,
            id: self.id,
            topic: self.post.topic.to_owned(),
            payload: self.number.to_string(),
        }
    }
}
