//! What a session asks for is carried out here, in order: packets are put behind what waits to be written,
//! messages are stored and routed, events meet their rules, stores are read.

use std::sync::Arc;

use super::connection::{Connection, Received};
use super::figures;
use super::wire::Wire;
use crate::model::clock;
use crate::model::delivery::{Place, PoolName, Run, Settled, Stored, Ticket, Window};
use crate::model::message::{Message, Qos};
use crate::model::reason::Reason;
use crate::model::session::Keep;
use crate::mqtt::packet::Outgoing;
use crate::mqtt::session::{Now, ReadId, Session, Source, Step, Steps};

impl Connection {
    /// Carries out every step, in order, and those that follow from them.
    pub(super) async fn carry_out(&mut self) {
        loop {
            let Some(step) = self.steps.pop_front() else {
                if self.received.is_empty() {
                    return;
                }
                self.flush().await;
                continue;
            };
            if !matches!(step, Step::Publish { .. } | Step::Send(_) | Step::Advance(..)) {
                // What came in before is stored and routed before anything that could see the difference.
                self.flush().await;
            }
            if matches!(step, Step::Read(..) | Step::Subscribed { .. } | Step::Fire(_)) {
                // There may be tens of thousands of them in a turn, and others want the thread, too.
                tokio::task::consume_budget().await;
            }
            match step {
                Step::Publish { ticket, message, kept } => self.gather(ticket, message, kept),
                Step::Keep(id, keep) => self.keep(id, keep),
                Step::Send(packet) => self.put(packet),
                Step::Fire(event) => {
                    self.tell_presence(&event).await;
                    for effect in self.broker.hooks.run(&event) {
                        self.act(|session, now, steps| session.apply(effect, now, steps));
                    }
                }
                Step::Subscribed { sub, packet_id, event } => {
                    let effects = self.broker.hooks.run(&event);
                    self.act_first(|session, now, steps| session.subscribed(sub, packet_id, effects, now, steps));
                }
                Step::Returned(sub, event) => {
                    let effects = self.broker.hooks.returned(&event);
                    self.act_first(|session, now, steps| session.returned(sub, effects, now, steps));
                }
                Step::Route(sub, subscription) => self.broker.routes.add(&self.mailbox, sub, &subscription),
                Step::Unroute(sub, subscription) => self.broker.routes.remove(&self.mailbox, sub, &subscription),
                Step::Answer(packet_id) => self.act(|session, now, steps| session.answer(packet_id, now, steps)),
                Step::Begin(read, backlog) => self.broker.reads.begin(&self.mailbox, read, *backlog),
                Step::Read(read, source, window) if self.is_full() => self.postponed.push((read, source, window)),
                Step::Read(read, source, window) => self.read(read, source, window),
                Step::Lookup(pool) => self.broker.reads.look_up(&self.mailbox, self.id.clone(), pool),
                Step::Advance(reader, position) => self.broker.hooks.advance(&reader, position),
                Step::Joined(group) => self.joined(&group),
                Step::Offer(group) => self.offer(&group),
                Step::HandOn(group, run) => self.hand_on(&group, run).await,
                Step::Forget => self.broker.hooks.forget(&self.id),
                Step::Limit(limit) => figures::hit(limit),
                Step::Close(reason) => self.hang_up(reason),
                Step::Rest => self.drop_session(),
                Step::End => self.end(),
            }
        }
    }

    /// Carries out the steps that need not wait for the messages that gather, and gathers those: a read may hold tens
    /// of thousands of packets. False where another step comes first.
    pub(super) fn carry_out_what_gathers(&mut self) -> bool {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Publish { ticket, message, kept } => self.gather(ticket, message, kept),
                Step::Send(packet) => self.put(packet),
                other => {
                    self.steps.push_front(other);
                    return false;
                }
            }
        }
        true
    }

    /// Steps that must come before those that are still waiting: a subscription's before its SUBACK's.
    fn act_first(&mut self, act: impl FnOnce(&mut Session, &mut Now<'_>, &mut Steps)) {
        let mut later = std::mem::take(&mut self.steps);
        self.act(act);
        // Few come before many: a SUBSCRIBE may have tens of thousands of filters.
        while let Some(step) = self.steps.pop_back() {
            later.push_front(step);
        }
        self.steps = later;
    }

    fn put(&mut self, packet: Outgoing) {
        let Some(wire) = &mut self.wire else { return };
        let greets = matches!(packet, Outgoing::ConnAck(_));
        if wire.put(packet) {
            self.figures.packets_out += 1;
        } else if greets {
            // Nothing may come before the CONNACK, so nothing can come [MQTT-3.2.0-1].
            self.hang_up(Reason::PACKET_TOO_LARGE);
        }
    }

    fn gather(&mut self, ticket: Ticket, message: Message, kept: Option<u16>) {
        match self.received.last_mut() {
            // A message that was declined in between has a ticket, too.
            Some(last)
                if last.messages[0].topic == message.topic && last.first + last.messages.len() as Ticket == ticket =>
            {
                last.kept.extend(kept.map(|packet_id| (last.messages.len(), packet_id)));
                last.messages.push(message);
            }
            _ => self.received.push(Received {
                first: ticket,
                messages: vec![message],
                kept: kept.map(|packet_id| (0, packet_id)).into_iter().collect(),
            }),
        }
    }

    /// Hands something of the session to the store that keeps sessions.
    fn keep(&mut self, id: ReadId, keep: Keep) {
        if self.broker.hooks.keep(keep, id, &self.keeps) {
            self.keeping += 1;
        } else {
            // A reload has just ended the keeping: nothing is there to wait for.
            self.act_first(|session, now, steps| session.kept(id, true, now, steps));
        }
    }

    /// Stores and routes what came in. The order matters (broker.md §10): the gates first, then the routes are
    /// looked up, then the mailboxes are filled; a SUBSCRIBE in between finds the message stored or gets it live.
    pub(super) async fn flush(&mut self) {
        if self.received.is_empty() {
            return;
        }
        let Some(session) = &mut self.session else {
            return self.received.clear();
        };
        let chunk_bytes = self.wire.as_ref().map_or(0, Wire::chunk_bytes);
        for Received { first, messages, kept } in self.received.drain(..) {
            let count = messages.len();
            let told = session.is_online();
            let hooks = &self.broker.hooks;
            let planned = hooks.publish(session.client(), messages, &kept, first, &self.settle, told);
            planned.run.came_in(chunk_bytes);
            match planned.waits.is_empty() {
                true => session.planned(first, std::iter::repeat_n(0, count), &mut self.steps),
                false => session.planned(first, planned.waits, &mut self.steps),
            }
            match planned.before_route {
                true => self.withheld.push_back((first, planned.run)),
                false => self.batch.push(planned.run),
            }
        }
        self.link.publish(&mut self.batch).await;
    }

    /// A store has settled some gates, perhaps of a session that has ended meanwhile.
    pub(super) async fn settle(&mut self, first: Ticket, results: &[Settled]) {
        self.act(|session, _, steps| session.settle(first, results, steps));
        for session in &mut self.former {
            session.settle(first, results, &mut self.steps);
            self.figures.add(session.take_books());
        }
        self.former.retain(Session::awaits_stores);
        self.route_withheld().await;
    }

    /// Routes the runs that waited for their commit and need not wait any more.
    pub(super) async fn route_withheld(&mut self) {
        while let Some((first, run)) = self.withheld.front() {
            let mut sessions = self.session.iter().chain(&self.former);
            if !sessions.all(|session| session.are_settled(*first, run.messages.len())) {
                break;
            }
            self.batch
                .extend(self.withheld.pop_front().and_then(|(_, run)| accepted(run)));
        }
        self.link.publish(&mut self.batch).await;
    }

    pub(super) fn read(&mut self, read: ReadId, source: Source, window: Window) {
        match source {
            Source::Own(filter) => {
                let page = self.broker.retained.matching(&filter, window, clock::wall());
                self.act_first(|session, now, steps| session.page(read, Some(page), now, steps));
            }
            Source::Retained(pool, filter) => self.broker.reads.retained(&self.mailbox, read, pool, filter, window),
            Source::Unread(reader) => self.broker.reads.unread(&self.mailbox, read, reader, window),
        }
    }

    /// Lets the socket go; what was put behind it still leaves.
    pub(super) fn hang_up(&mut self, reason: Reason) {
        self.set_online(false);
        if let Some(wire) = self.wire.take() {
            self.figures.closed(reason);
            self.broker.tracker.spawn(wire.linger());
        }
        self.act(|session, now, steps| session.lost(reason, now, steps));
    }

    fn end(&mut self) {
        self.hang_up(Reason::SUCCESS);
        self.steps.clear();
        self.drop_session();
    }

    /// Its books are kept, and so is the session itself until its messages are stored.
    pub(super) fn drop_session(&mut self) {
        if let Some(mut session) = self.session.take() {
            self.figures.add(session.take_books());
            self.numbers = session.numbers();
            if session.awaits_stores() {
                self.former.push(session);
            }
        }
    }

    /// The socket has gone by itself.
    pub(super) async fn drop_wire(&mut self, reason: Reason) {
        if self.wire.take().is_some() {
            self.set_online(false);
            self.act(|session, now, steps| session.lost(reason, now, steps));
            self.carry_out().await;
        }
    }
}

/// The run without the messages that a store refused; `None` where none is left.
fn accepted(run: Arc<Run>) -> Option<Arc<Run>> {
    let places = |stored: &Stored| {
        let place = |(index, message): (usize, &Message)| stored.place(index, message.id);
        run.messages.iter().enumerate().map(place).collect::<Vec<_>>()
    };
    let found: Vec<(PoolName, Vec<Place>)> = run.stored.iter().map(|it| (it.pool.clone(), places(it))).collect();
    // QoS 0 and the clearing of a retained message have no place in a store, so they cannot lack one.
    let has_place =
        |message: &Message| message.qos > Qos::AtMostOnce && !(message.retain && message.payload.is_empty());
    let refused = |index: usize| {
        let nowhere = found.iter().any(|(_, places)| places[index] == Place::Nowhere);
        nowhere && has_place(&run.messages[index])
    };
    let kept: Vec<usize> = (0..run.messages.len()).filter(|index| !refused(*index)).collect();
    if kept.len() == run.messages.len() {
        return Some(run);
    }
    let messages: Vec<Message> = kept.iter().map(|index| run.messages[*index].clone()).collect();
    let stored = found.into_iter().map(|(pool, places)| {
        let stored = Stored::new(pool, kept.iter().map(|index| places[*index] != Place::Nowhere));
        for (at, index) in kept.iter().enumerate() {
            if let Place::At(position) = places[*index] {
                stored.settle_at(at, position);
            }
        }
        stored
    });
    let stored = stored.collect();
    (!messages.is_empty()).then(|| Arc::new(Run::new(messages, stored)))
}
