//! How a session begins, loses its connection, is taken over and ends: CONNECT, DISCONNECT, wills, expiry
//! and keep-alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::event::{Effect, Event};
use crate::model::message::{Client, Message};
use crate::model::reason::Reason;
use crate::model::session::{Will, session_expiry, will_delay};
use crate::mqtt::limits::{Limit, Limits};
use crate::mqtt::packet::{ConnAck, Connect, Disconnect, Outgoing, Version};

use super::{Aliases, Now, ReadId, Session, Step, Steps, Ticket};

/// What belongs to the present connection and ends with it.
#[derive(Debug)]
pub(super) struct Link {
    /// Keep Alive with its allowance; `None` for none.
    patience: Option<Duration>,
    /// When the last packet came in.
    pub(super) heard_at: Instant,
    /// It was told to close, and is about to be lost.
    pub(super) is_closing: bool,
    /// Maximum Packet Size of the client.
    pub(super) packet_bytes_max: Option<u32>,
    /// Topic aliases that the client has set.
    pub(super) aliases: Aliases,
}

impl Link {
    fn new(connect: &Connect, limits: &Limits, now: Instant) -> Self {
        // Only MQTT 5 can be told of another Keep Alive than its own.
        let ours = limits.server_keep_alive_s.filter(|_| connect.version == Version::V5);
        let keep_alive_s = ours.unwrap_or(connect.keep_alive_s);
        let patience =
            (keep_alive_s > 0).then(|| Duration::from_secs(keep_alive_s.into()).mul_f64(limits.keep_alive_factor));
        Self {
            patience,
            heard_at: now,
            is_closing: false,
            packet_bytes_max: connect.packet_bytes_max,
            aliases: Aliases::default(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.patience.map(|patience| self.heard_at + patience)
    }
}

/// A will that is still to be published or to be forgotten.
#[derive(Debug)]
pub(super) struct PendingWill {
    pub(super) will: Will,
    /// When it is published; `None` while the client is connected.
    pub(super) at: Option<Instant>,
}

impl Session {
    /// A new session for a client that has just connected. `assigned` tells that we chose its identifier; its gates and
    /// questions are numbered from `first` on, for it must not take the results of the session before for its own.
    pub fn open(
        limits: Arc<Limits>,
        client: Arc<Client>,
        connect: Connect,
        assigned: bool,
        first: (Ticket, ReadId),
        now: &mut Now<'_>,
        steps: &mut Steps,
    ) -> Self {
        let mut session = Self::new(limits, client, connect.version);
        session.number_from(first);
        if connect.clean_start && !assigned {
            // Whatever an earlier run of the broker remembers of this client is over.
            steps.push_back(Step::Forget);
        }
        session.attach(connect, false, assigned, now, steps);
        session
    }

    /// A session that nobody is connected to.
    pub(super) fn new(limits: Arc<Limits>, client: Arc<Client>, version: Version) -> Self {
        Self {
            version,
            limits,
            client,
            link: None,
            will: None,
            expires_at: None,
            gates: Default::default(),
            received: Default::default(),
            outbound: Default::default(),
            subscriptions: Default::default(),
            readers: Default::default(),
            rounds: Default::default(),
            positions_due: None,
            next_read: 0,
            keeper: Default::default(),
            rests_at: None,
            is_restored: false,
            books: Default::default(),
            over: false,
        }
    }

    /// The client came back to its session. Anything the old connection still had was lost before
    /// ([`Session::lost`], [`Session::taken_over`]).
    pub fn resume(&mut self, client: Arc<Client>, connect: Connect, now: &mut Now<'_>, steps: &mut Steps) {
        self.client = client;
        self.version = connect.version;
        self.expires_at = None;
        self.rests_at = None;
        self.will = None;
        self.attach(connect, true, false, now, steps);
        self.resend(now, steps);
        self.resume_replays(now, steps);
        self.return_to_subscriptions(steps);
        self.rejoin_groups(steps);
        self.pump(now, steps);
    }

    fn attach(&mut self, connect: Connect, present: bool, assigned: bool, now: &mut Now<'_>, steps: &mut Steps) {
        let link = Link::new(&connect, &self.limits, now.instant);
        let window = connect.receive_max.min(self.limits.inflight_max);
        let answer = self.conn_ack(&connect, present, assigned);
        self.will = connect.will.map(|will| PendingWill { will, at: None });
        // Before the client is there: nothing that this sets free may leave before the CONNACK ([MQTT-3.2.0-1]).
        self.settle_down(now, steps);
        self.link = Some(link);
        self.outbound.open_window(window);
        self.received.begin_connection();
        steps.push_back(Step::Send(Outgoing::ConnAck(Box::new(answer))));
        steps.push_back(Step::Fire(Event::ClientConnected {
            client: Arc::clone(&self.client),
        }));
    }

    fn conn_ack(&self, connect: &Connect, session_present: bool, assigned: bool) -> ConnAck {
        let granted = self.client.session_expiry_s;
        ConnAck {
            session_present,
            reason: Reason::SUCCESS,
            text: None,
            session_expiry_s: (connect.session_expiry_s.unwrap_or(0) != granted).then_some(granted),
            receive_max: self.limits.receive_max,
            packet_bytes_max: u32::try_from(self.limits.packet_bytes_max).unwrap_or(u32::MAX),
            qos_max: self.limits.qos_max,
            assigned_client_id: assigned.then(|| self.client.id.to_string()),
            topic_alias_max: self.limits.topic_alias_max,
            server_keep_alive_s: self.limits.server_keep_alive_s,
            response_info: self
                .limits
                .response_information
                .clone()
                .filter(|_| connect.request_response_info),
            server_reference: None,
        }
    }

    /// Carries out what a hook asks for outside a subscription.
    pub fn apply(&mut self, effect: Effect, now: &mut Now<'_>, steps: &mut Steps) {
        match effect {
            Effect::Lookup(pool) => steps.push_back(Step::Lookup(pool)),
            Effect::Subscribe(subscriptions) => self.subscribe_for(subscriptions, steps),
            Effect::Retained(..) | Effect::Backlog(_) => self.apply_to_filter(effect, now, steps),
        }
    }

    /// DISCONNECT (3.14): the will is forgotten where the client leaves in peace.
    pub(super) fn disconnect(&mut self, disconnect: Disconnect, now: &mut Now<'_>, steps: &mut Steps) {
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if self.client.session_expiry_s == 0 && expiry_s > 0 {
                return self.close(Reason::PROTOCOL_ERROR, now, steps); // [MQTT-3.14.2.2.2]
            }
            let session_expiry_s = expiry_s.min(self.limits.session_expiry_max_s);
            self.client = Arc::new(Client {
                session_expiry_s,
                ..Client::clone(&self.client)
            });
        }
        if disconnect.reason == Reason::SUCCESS {
            self.will = None; // [MQTT-3.14.4-3]; with any other reason it is published [MQTT-3.1.2-8]
        }
        steps.push_back(Step::Close(Reason::SUCCESS));
        self.gone(disconnect.reason, now, steps);
    }

    /// We end the connection: the client is told why, then it is as if it were lost.
    pub fn close(&mut self, reason: Reason, now: &mut Now<'_>, steps: &mut Steps) {
        self.part(reason, None, None, now, steps);
    }

    /// The same, with a sentence that says more than the reason.
    pub fn close_saying(&mut self, reason: Reason, text: &str, now: &mut Now<'_>, steps: &mut Steps) {
        self.part(reason, Some(text.to_owned()), None, now, steps);
    }

    fn part(
        &mut self,
        reason: Reason,
        text: Option<String>,
        server_reference: Option<Arc<str>>,
        now: &mut Now<'_>,
        steps: &mut Steps,
    ) {
        if self.link.is_none() {
            return;
        }
        if self.version == Version::V5 {
            steps.push_back(Step::Send(Outgoing::Disconnect {
                reason,
                text,
                server_reference,
            }));
        }
        steps.push_back(Step::Close(reason));
        self.gone(reason, now, steps);
    }

    /// The client broke a limit: it is counted, then the connection ends.
    pub(super) fn close_over(&mut self, limit: Limit, reason: Reason, now: &mut Now<'_>, steps: &mut Steps) {
        steps.push_back(Step::Limit(limit));
        self.close(reason, now, steps);
    }

    /// The socket has gone without a DISCONNECT.
    pub fn lost(&mut self, reason: Reason, now: &mut Now<'_>, steps: &mut Steps) {
        if self.link.is_some() {
            self.gone(reason, now, steps);
        }
    }

    /// A new connection of the same client takes over; the old one is told ([MQTT-3.1.4-3]).
    pub fn taken_over(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        self.close(Reason::SESSION_TAKEN_OVER, now, steps);
    }

    /// The broker shuts down: the client is told, its will published unless it is kept, gathered positions written.
    pub fn shut_down(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        let elsewhere = self.limits.server_reference.clone();
        let reason = match elsewhere {
            Some(_) => Reason::USE_ANOTHER_SERVER,
            None => Reason::SERVER_SHUTTING_DOWN,
        };
        self.part(reason, None, elsewhere, now, steps);
        // A will that is kept and not yet due waits for the next start, and its client may be back before.
        let waits = self.is_kept() && self.will.as_ref().and_then(|will| will.at) > Some(now.instant);
        if !waits {
            self.publish_will(now, steps);
        }
        self.write_positions(now.instant, steps);
    }

    fn gone(&mut self, reason: Reason, now: &mut Now<'_>, steps: &mut Steps) {
        self.link = None;
        self.gates.nobody_waits();
        self.received.nobody_waits();
        self.keeper.nobody_waits();
        self.subscriptions.forget_waiting();
        self.pause_replays(now, steps);
        // Before the client is marked as gone: whoever sees that sees its positions, too.
        self.write_positions(now.instant, steps);
        if reason != Reason::SESSION_TAKEN_OVER {
            let client = Arc::clone(&self.client);
            steps.push_back(Step::Fire(Event::ClientDisconnected { client, reason }));
        }
        let expiry_s = self.client.session_expiry_s;
        if let Some(will) = &mut self.will {
            will.at = Some(now.instant + will_delay(will.will.delay_s, expiry_s));
        }
        self.expires_at = session_expiry(expiry_s).map(|expiry| now.instant + expiry);
        self.keep_left(now, steps);
        self.rests_at = self.is_kept().then_some(now.instant + self.limits.rest_after);
        self.tick_connection(now, steps);
        let stopping = [Reason::SERVER_SHUTTING_DOWN, Reason::USE_ANOTHER_SERVER].contains(&reason);
        if !self.over && !stopping {
            self.offer_all(steps);
        }
    }

    /// Keep-alive, delayed wills and session expiry.
    pub(super) fn tick_connection(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        if self
            .link
            .as_ref()
            .filter(|_| self.wants_input())
            .and_then(Link::deadline)
            .is_some_and(|at| at <= now.instant)
        {
            self.close(Reason::KEEP_ALIVE_TIMEOUT, now, steps);
        }
        if self
            .will
            .as_ref()
            .and_then(|will| will.at)
            .is_some_and(|at| at <= now.instant)
        {
            self.publish_will(now, steps);
        }
        if self.expires_at.is_some_and(|at| at <= now.instant) && !self.over {
            self.books.expired += u64::from(self.client.session_expiry_s > 0);
            self.end(now, steps);
        }
    }

    /// Whether a will is still to be published or to be forgotten.
    pub fn has_will(&self) -> bool {
        self.will.is_some()
    }

    /// The connection was not read for a while because we paused it: its silence was ours.
    pub fn resume_reading(&mut self, now: &Now<'_>) {
        if let Some(link) = &mut self.link {
            link.heard_at = now.instant;
        }
    }

    /// Ends the session: its will is published if it was not, its routes and positions go.
    pub fn end(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        self.publish_will(now, steps);
        self.write_positions(now.instant, steps);
        self.hand_on_unacknowledged(steps);
        self.unroute_all(steps);
        self.keep_end(steps);
        steps.push_back(Step::Forget);
        steps.push_back(Step::End);
        self.over = true;
    }

    fn publish_will(&mut self, now: &mut Now<'_>, steps: &mut Steps) {
        // Of a connected client only a shutdown gets here, after the connection was closed.
        let Some(PendingWill { will, .. }) = self.will.take_if(|will| will.at.is_some()) else {
            return;
        };
        let message = Message {
            id: now.ids.take(),
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            from: self.client.id.clone(),
            at: now.wall,
            properties: will.properties,
            expires: will
                .expiry_s
                .map(|seconds| now.wall + Duration::from_secs(seconds.into())),
        };
        self.publish_for_nobody(message, steps);
        self.keep_will_done(now, steps);
    }
}
