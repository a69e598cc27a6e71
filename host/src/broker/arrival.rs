//! A client that was let in, on its way to its session: kept sessions are read first, and what ended must be gone
//! from the store before its client hears of a new one (spec C16).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::Connection;
use super::listener::Permit;
use super::mailbox::Loaded;
use super::quota::Quota;
use super::wills::Room;
use super::wire::{Socket, Wire};
use crate::model::clock;
use crate::model::message::Client;
use crate::model::reason::Reason;
use crate::model::session::{Keeping, SavedSession};
use crate::mqtt::codec::Encoder;
use crate::mqtt::packet::{ConnAck, Connect, Outgoing};
use crate::mqtt::session::Session;

/// How long a client waits for the store before it is told to try again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that has sent its CONNECT and was let in.
pub(crate) struct Arrival {
    pub(crate) socket: Box<dyn Socket>,
    pub(crate) permit: Permit,
    pub(crate) connect: Connect,
    pub(crate) client: Arc<Client>,
    /// We chose the client identifier.
    pub(crate) assigned: bool,
    /// What its will takes.
    pub(crate) will_room: Option<Room>,
    /// What was read behind the CONNECT.
    pub(crate) behind: Bytes,
}

/// A client whose CONNACK waits for the store.
pub(super) struct Waiting {
    arrival: Box<Arrival>,
    pub(super) until: Instant,
    /// The store keeps no session of this client.
    nothing_kept: bool,
    /// Its session is to live longer than it was to so far, which must be in the store first.
    lives_longer: bool,
}

impl Connection {
    /// A client connected: to its session, or to a new one.
    pub(super) async fn arrive(&mut self, arrival: Box<Arrival>) {
        self.hear_out().await;
        self.act(|session, now, steps| session.taken_over(now, steps));
        self.carry_out().await;
        if arrival.connect.clean_start {
            self.end_session().await;
        }
        let waiting = Waiting {
            arrival,
            until: clock::instant() + PATIENCE,
            nothing_kept: false,
            lives_longer: false,
        };
        if let Some(earlier) = self.waiting.replace(waiting) {
            self.turn_away(earlier);
        }
        self.let_in().await;
    }

    /// Something that a client or an operator may have waited for is in the store.
    pub(super) async fn go_on_arriving(&mut self) {
        if self.waiting.is_some() || !self.deleting.is_empty() {
            Box::pin(async {
                self.delete_on().await;
                self.let_in().await;
            })
            .await;
        }
    }

    /// Lets the client in that waits, unless the store has something to do or to say first.
    pub(super) async fn let_in(&mut self) {
        let Some(mut waiting) = self.waiting.take() else { return };
        if self.session.is_none() && !waiting.nothing_kept {
            let ask = self.keeping == 0 && !self.loading;
            if !ask || self.broker.hooks.keeping().is_some() {
                self.waiting = Some(waiting);
                if ask {
                    self.load();
                }
                return;
            }
        }
        let expiry_s = waiting.arrival.client.session_expiry_s;
        self.act(|session, now, steps| waiting.lives_longer |= session.live_longer(expiry_s, now, steps));
        self.carry_out().await;
        if waiting.lives_longer && self.keeping > 0 {
            self.waiting = Some(waiting);
        } else if waiting.lives_longer && !self.session.as_ref().is_some_and(Session::is_saved) {
            self.turn_away(waiting);
        } else {
            self.seat(*waiting.arrival).await;
        }
    }

    /// The kept session has something that is due: a will, or its end.
    pub(super) fn look_after(&mut self) {
        if self.session.is_none() && self.waiting.is_none() && !self.loading && self.keeping == 0 {
            self.load();
        }
    }

    pub(super) fn load(&mut self) {
        self.loading = true;
        self.broker.reads.session(&self.mailbox, self.id.clone());
    }

    /// The store has said what it keeps of this client.
    pub(super) async fn loaded(&mut self, loaded: Loaded) {
        self.loading = false;
        match loaded {
            Err(()) => {
                // Their answers end with them: operators hear that it did not work.
                self.deleting.clear();
                if let Some(waiting) = self.waiting.take() {
                    self.turn_away(waiting);
                }
            }
            Ok(None) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.nothing_kept = true;
                }
                self.delete_what_was_kept().await;
            }
            Ok(Some(kept)) => self.restore(*kept).await,
        }
        self.delete_on().await;
        self.let_in().await;
    }

    /// Takes up a session that was kept. What came due while nobody looked after it happens now.
    async fn restore(&mut self, (saved, keeping): (SavedSession, Keeping)) {
        let broker = Arc::clone(&self.broker);
        let now = self.present.now(&broker);
        let mut session = Session::restore(Arc::clone(&broker.limits), saved, keeping, &now);
        session.number_from(self.numbers);
        self.session = Some(session);
        self.act(|session, now, steps| session.tick(now, steps));
        self.carry_out().await;
        let waiting = self.waiting.as_ref();
        if waiting.is_some_and(|waiting| waiting.arrival.connect.clean_start) {
            self.end_session().await;
        }
        self.delete_what_was_kept().await;
        if self.waiting.is_none() {
            // Nobody is there for it: it goes on in the store.
            self.drop_session();
        }
    }

    pub(super) async fn end_session(&mut self) {
        self.act(|session, now, steps| {
            if !session.is_over() {
                session.end(now, steps)
            }
        });
        self.carry_out().await;
        self.drop_session();
    }

    async fn seat(&mut self, arrival: Arrival) {
        let Arrival {
            socket,
            permit,
            connect,
            client,
            assigned,
            will_room,
            behind,
        } = arrival;
        self.will_room = will_room;
        let wire = Wire::new(socket, permit, &connect, behind, &self.broker.limits);
        self.wire = Some(wire);
        self.quota = Quota::new(&self.broker.limits, clock::instant());
        self.set_online(true);
        match self.session {
            Some(_) => self.act(|session, now, steps| session.resume(client, connect, now, steps)),
            None => {
                let broker = Arc::clone(&self.broker);
                let mut now = self.present.now(&broker);
                let limits = Arc::clone(&broker.limits);
                let (first, steps) = (self.numbers, &mut self.steps);
                self.session = Some(Session::open(limits, client, connect, assigned, first, &mut now, steps));
            }
        }
        self.carry_out().await;
    }

    /// A client that waited for too long, or in whose place another one came.
    pub(super) fn turn_away(&self, waiting: Waiting) {
        let Arrival {
            socket,
            permit,
            connect,
            client,
            ..
        } = *waiting.arrival;
        let reason = Reason::SERVER_UNAVAILABLE;
        let text = "the store that keeps sessions does not answer, or another connection came: try again later";
        tracing::info!(client.id = %client.id, peer = %client.peer, %reason, text, "connection refused");
        let mut wire = Wire::unconnected(socket, permit, Encoder::from(&connect));
        wire.put(Outgoing::ConnAck(Box::new(ConnAck::refusal(reason, text))));
        self.broker.tracker.spawn(wire.linger());
    }
}
