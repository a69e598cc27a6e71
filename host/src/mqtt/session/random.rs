//! Packets, results and faults in any order: no order panics a session, or makes it say what it must not.
//! `PROPTEST_CASES` goes further than usual.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::fixtures::{client, message, pool, run_from, settle};
use super::*;
use crate::model::delivery::{Delivery, Page, Run};
use crate::model::event::{Effect, Start};
use crate::model::id::IdClock;
use crate::model::message::Qos;
use crate::model::properties::Properties;
use crate::model::session::Will;
use crate::model::topic::TopicError;
use crate::mqtt::limits::QueueFull;
use crate::mqtt::packet::{Ack, Connect, Disconnect, Publish, Subscribe, Unsubscribe};

const CASES: u32 = 50_000;
const INFLIGHT_MAX: u16 = 3;
const RECEIVE_MAX: u16 = 4;

/// What happens to a session, by client, broker, store or clock.
#[derive(Clone, Debug)]
enum Deed {
    Publish {
        qos: Qos,
        packet_id: u16,
        dup: bool,
        alias: u16,
        named: bool,
    },
    Ack {
        kind: AckKind,
        packet_id: u16,
        refused: bool,
    },
    Subscribe {
        packet_id: u16,
        filters: Vec<(usize, Qos)>,
        backlog: bool,
    },
    Unsubscribe {
        packet_id: u16,
        filter: usize,
    },
    Ping,
    Disconnect {
        reason: u8,
        expiry_s: Option<u32>,
    },
    SecondConnect,
    Auth,
    /// Live messages, stored or not, for these of its subscriptions.
    Deliver {
        count: usize,
        stored: bool,
        settled: bool,
        qos: Qos,
        subs: Vec<SubId>,
    },
    /// A store answers one of the open questions, or gives up.
    Answer {
        which: usize,
        rows: usize,
        end: bool,
        given_up: bool,
    },
    /// A store settles the oldest gates that wait.
    Settle {
        count: usize,
        result: Settled,
    },
    Pass(u64),
    /// The store that keeps sessions has written what was handed to it, or could not.
    Keep {
        count: usize,
        there: bool,
    },
    /// Sessions are kept in another run of the store, or no longer.
    Reload(bool),
    Overflow,
    Lose,
    Connect {
        clean: bool,
        expiry_s: u32,
        will: bool,
    },
    ShutDown,
}

const FILTERS: [&str; 5] = ["t", "t/#", "+", "$share/g/t", "#"];

fn qos() -> impl Strategy<Value = Qos> {
    select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn by_client() -> impl Strategy<Value = Deed> {
    // Few identifiers, so that they meet.
    let id = || 1..6_u16;
    let kinds = select(vec![
        AckKind::PubAck,
        AckKind::PubRec,
        AckKind::PubRel,
        AckKind::PubComp,
    ]);
    prop_oneof![
        4 => (qos(), id(), any::<bool>(), 0..4_u16, any::<bool>()).prop_map(|(qos, packet_id, dup, alias, named)| {
            Deed::Publish { qos, packet_id: if qos == Qos::AtMostOnce { 0 } else { packet_id }, dup, alias, named }
        }),
        6 => (kinds, id(), any::<bool>()).prop_map(|(kind, packet_id, refused)| Deed::Ack { kind, packet_id, refused }),
        3 => (id(), vec((0..=FILTERS.len(), qos()), 0..4), any::<bool>())
            .prop_map(|(packet_id, filters, backlog)| Deed::Subscribe { packet_id, filters, backlog }),
        1 => (id(), 0..=FILTERS.len()).prop_map(|(packet_id, filter)| Deed::Unsubscribe { packet_id, filter }),
        1 => Just(Deed::Ping),
        1 => (select(vec![0, 4, 0x80]), proptest::option::of(select(vec![0, 5, u32::MAX])))
            .prop_map(|(reason, expiry_s)| Deed::Disconnect { reason, expiry_s }),
        1 => select(vec![Deed::SecondConnect, Deed::Auth]),
    ]
}

fn by_others() -> impl Strategy<Value = Deed> {
    let result = select(vec![
        Settled::Stored,
        Settled::Stored,
        Settled::Cancelled,
        Settled::Refused(Reason::QUOTA_EXCEEDED),
    ]);
    prop_oneof![
        5 => (1..5_usize, any::<bool>(), any::<bool>(), qos(), vec(0..5_u32, 1..3)).prop_map(
            |(count, stored, settled, qos, subs)| Deed::Deliver { count, stored, settled, qos, subs }
        ),
        5 => (0..4_usize, 0..4_usize, any::<bool>(), 0..8_u8)
            .prop_map(|(which, rows, end, odds)| Deed::Answer { which, rows, end, given_up: odds == 0 }),
        3 => (1..4_usize, result).prop_map(|(count, result)| Deed::Settle { count, result }),
        2 => select(vec![1, 60, 6_000, 100_000]).prop_map(Deed::Pass),
        4 => (1..4_usize, 0..16_u8).prop_map(|(count, odds)| Deed::Keep { count, there: odds > 0 }),
        1 => (0..4_u8).prop_map(|odds| Deed::Reload(odds > 0)),
        1 => Just(Deed::Overflow),
        1 => Just(Deed::Lose),
        2 => (any::<bool>(), select(vec![0, 5, 3600]), any::<bool>())
            .prop_map(|(clean, expiry_s, will)| Deed::Connect { clean, expiry_s, will }),
        1 => (0..8_u8).prop_map(|odds| if odds == 0 { Deed::ShutDown } else { Deed::Overflow }),
    ]
}

/// What the client on the other side would hold against us.
#[derive(Default)]
struct Judge {
    /// There is a socket.
    connected: bool,
    /// Messages on their way to the client, by packet identifier; `true` from PUBREC on.
    inflight: HashMap<u16, (Qos, bool)>,
    /// Identifiers that the client has published with, by QoS.
    published: [HashSet<u16>; 3],
    /// SUBSCRIBEs without a SUBACK on this connection.
    unanswered: Vec<u16>,
    next_ticket: Ticket,
}

impl Judge {
    fn sent(&mut self, packet: &Outgoing) {
        assert!(self.connected, "a packet for a connection that is closed: {packet:?}");
        match packet {
            Outgoing::Publish(copy) if copy.qos > Qos::AtMostOnce => {
                let known = self.inflight.insert(copy.packet_id, (copy.qos, false));
                assert_eq!(
                    known.is_some(),
                    copy.dup,
                    "only what is on its way is sent again: {known:?}"
                );
                assert!(self.inflight.len() <= usize::from(INFLIGHT_MAX), "the window is kept");
            }
            Outgoing::Ack(ack) => {
                let asked = match ack.kind {
                    AckKind::PubAck => self.published[1].contains(&ack.packet_id),
                    AckKind::PubRec => self.published[2].contains(&ack.packet_id),
                    AckKind::PubRel | AckKind::PubComp => true,
                };
                assert!(asked, "an answer to nothing: {ack:?}");
            }
            Outgoing::SubAck { packet_id, .. } => {
                let asked = self.unanswered.iter().position(|known| known == packet_id);
                self.unanswered.remove(asked.expect("a SUBACK answers a SUBSCRIBE"));
            }
            _ => {}
        }
    }

    fn hang_up(&mut self) {
        self.connected = false;
        self.unanswered.clear();
    }

    fn acked(&mut self, kind: AckKind, packet_id: u16, refused: bool) {
        let done = match (kind, self.inflight.get_mut(&packet_id)) {
            (AckKind::PubAck, Some((Qos::AtLeastOnce, _))) => true,
            (AckKind::PubRec, Some((Qos::ExactlyOnce, released))) => {
                *released |= !refused;
                refused
            }
            (AckKind::PubComp, Some((Qos::ExactlyOnce, released))) => *released,
            _ => false,
        };
        if done {
            self.inflight.remove(&packet_id);
        }
    }
}

/// A session, what it waits for, and a broker that does as it is told.
struct World {
    version: Version,
    limits: Arc<Limits>,
    session: Option<Session>,
    judge: Judge,
    ids: IdClock,
    started: Instant,
    clock: Duration,
    /// Open questions: where a reader begins (`None`), or a page behind a position.
    questions: Vec<(ReadId, Option<Position>)>,
    /// Gates that wait for a store.
    waiting: VecDeque<Ticket>,
    /// The next row of the store and of what is live.
    next_row: usize,
    wants_backlog: bool,
    /// Runs whose commit is under way, and the row of their first message.
    unsettled: Vec<(Arc<Run>, usize)>,
    keeps: Option<Keeping>,
    /// What was handed to the store that keeps sessions.
    keeping: VecDeque<ReadId>,
}

impl World {
    fn new(version: Version, kept: bool, queue_full: QueueFull) -> Self {
        Self {
            version,
            limits: Arc::new(Limits {
                inflight_max: INFLIGHT_MAX,
                receive_max: RECEIVE_MAX,
                topic_alias_max: 2,
                queue_len_max: 3,
                queue_full,
                queue_qos0: true,
                subscriptions_max: 4,
                questions_max: 2,
                ..Limits::default()
            }),
            session: None,
            judge: Judge::default(),
            ids: IdClock::new("test", 1, 0),
            started: Instant::now(),
            clock: Duration::ZERO,
            questions: Vec::new(),
            waiting: VecDeque::new(),
            next_row: 1,
            wants_backlog: false,
            unsettled: Vec::new(),
            keeps: kept.then(|| Keeping { pool: pool(), epoch: 1 }),
            keeping: VecDeque::new(),
        }
    }

    /// Lets the session act, and carries out what it asks for before anything else happens.
    fn act(&mut self, act: impl FnOnce(&mut Session, &mut Now<'_>, &mut Steps)) {
        let mut steps = Steps::new();
        self.act_into(act, &mut steps);
        while let Some(step) = steps.pop_front() {
            self.carry_out(step, &mut steps);
        }
    }

    fn act_into(&mut self, act: impl FnOnce(&mut Session, &mut Now<'_>, &mut Steps), steps: &mut Steps) {
        let mut now = Now {
            instant: self.started + self.clock,
            wall: UNIX_EPOCH + self.clock,
            ids: Ids::new(&self.ids, 1),
            interest: Interest {
                delivered: true,
                acked: true,
            },
            keeps: self.keeps.as_ref(),
        };
        if let Some(session) = &mut self.session {
            act(session, &mut now, steps);
        }
    }

    fn carry_out(&mut self, step: Step, steps: &mut Steps) {
        match step {
            Step::Publish { ticket, message, .. } => {
                assert_eq!(ticket, self.judge.next_ticket, "tickets have no holes");
                self.judge.next_ticket += 1;
                // Of two messages one is stored.
                let waits = u8::from(message.id.bits() % 2 == 0);
                self.waiting.extend((waits > 0).then_some(ticket));
                self.act_into(|session, _, steps| session.planned(ticket, [waits], steps), steps);
            }
            Step::Send(packet) => self.judge.sent(&packet),
            Step::Subscribed { sub, packet_id, .. } => {
                let effects = self.effects();
                let mut later = std::mem::take(steps);
                self.act_into(
                    |session, now, steps| session.subscribed(sub, packet_id, effects, now, steps),
                    steps,
                );
                steps.append(&mut later);
            }
            Step::Answer(packet_id) => {
                self.act_into(|session, now, steps| session.answer(packet_id, now, steps), steps);
            }
            Step::Returned(sub, _) => {
                let effects = self.effects();
                let mut later = std::mem::take(steps);
                self.act_into(|session, now, steps| session.returned(sub, effects, now, steps), steps);
                steps.append(&mut later);
            }
            Step::Keep(id, _) => self.keeping.push_back(id),
            Step::Begin(read, _) => self.questions.push((read, None)),
            Step::Read(read, _, window) => {
                assert!(window.limit > 0, "a page has room for a row");
                self.questions.push((read, Some(window.after)));
            }
            Step::Close(reason) => {
                self.judge.hang_up();
                self.act_into(|session, now, steps| session.lost(reason, now, steps), steps);
            }
            Step::End => {
                assert!(steps.is_empty(), "nothing follows the end: {steps:?}");
                self.end();
            }
            // The store has all of it: the client's next connection finds another one.
            Step::Rest => self.end(),
            Step::Route(..)
            | Step::Unroute(..)
            | Step::Joined(_)
            | Step::Offer(_)
            | Step::HandOn(..)
            | Step::Limit(_)
            | Step::Fire(_)
            | Step::Lookup(_)
            | Step::Advance(..)
            | Step::Forget => {}
        }
    }

    fn end(&mut self) {
        self.session = None;
        self.waiting.clear();
        self.questions.clear();
        self.keeping.clear();
        self.judge = Judge::default();
    }

    fn effects(&self) -> Vec<Effect> {
        let filter = Filter::new("t").expect("a good filter");
        let reader = Reader {
            pool: pool(),
            client: "c".into(),
            filter: filter.clone(),
            delivery: Delivery::Pubsub,
        };
        let backlog = Backlog {
            reader,
            start: Start::Latest,
            durable: true,
            limit: None,
            time_range: None,
            page: 2,
            drain: true,
            on_resume: true,
            complete: true,
            ack_last: false,
            hold: None,
        };
        match self.wants_backlog {
            true => vec![Effect::Retained(filter, pool(), 3), Effect::Backlog(Box::new(backlog))],
            false => Vec::new(),
        }
    }

    /// Whether the broker would read on for this session.
    fn listens(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.is_online() && session.wants_input())
    }

    fn receive(&mut self, packet: Packet) {
        if self.listens() {
            self.act(|session, now, steps| session.receive(packet, now, steps));
        }
    }

    /// Everything that was asked is answered, and time passes: nobody is left waiting.
    fn come_to_rest(&mut self) {
        self.settle(usize::MAX, Settled::Stored);
        let mut answers = 0..1000;
        while !self.questions.is_empty() || !self.keeping.is_empty() {
            assert!(answers.next().is_some(), "there is an end to reading");
            self.answer(0, 0, true, false);
            self.keep(1, true);
        }
        self.happen(Deed::Ping);
        self.happen(Deed::Pass(6_000));
        self.drain();
        let Some(session) = self.session.as_ref().filter(|session| session.is_online()) else {
            return;
        };
        assert_eq!(session.open_gates(), 0, "every PUBLISH has its answer");
        let mut replays = session.subscriptions.subs.values().filter(|sub| sub.replay.is_some());
        let reading = replays.next().map(|sub| &sub.replay);
        assert!(reading.is_none(), "a subscription has not read to its end: {reading:?}");
        assert!(
            self.judge.unanswered.is_empty(),
            "SUBSCRIBEs without SUBACK: {:?}",
            self.judge.unanswered
        );
    }

    /// The client acknowledges everything until nothing comes any more.
    fn drain(&mut self) {
        let mut rounds = 0..1000;
        let next = |judge: &Judge| {
            let sent = judge.inflight.iter();
            sent.map(|(id, (qos, released))| (*id, *qos, *released)).min()
        };
        while let Some((packet_id, qos, released)) = next(&self.judge).filter(|_| self.listens()) {
            assert!(rounds.next().is_some(), "there is an end to delivery");
            let kind = match (qos, released) {
                (Qos::ExactlyOnce, false) => AckKind::PubRec,
                (Qos::ExactlyOnce, true) => AckKind::PubComp,
                _ => AckKind::PubAck,
            };
            self.happen(Deed::Ack {
                kind,
                packet_id,
                refused: false,
            });
            while !self.questions.is_empty() || !self.keeping.is_empty() {
                self.answer(0, 0, true, false);
                self.keep(1, true);
            }
        }
    }

    fn happen(&mut self, deed: Deed) {
        match deed {
            Deed::Publish {
                qos,
                packet_id,
                dup,
                alias,
                named,
            } => {
                self.judge.published[qos as usize].insert(packet_id);
                self.receive(publish(qos, packet_id, dup, alias, named));
            }
            Deed::Ack {
                kind,
                packet_id,
                refused,
            } => {
                if self.listens() {
                    self.judge.acked(kind, packet_id, refused);
                }
                let reason = if refused {
                    Reason::QUOTA_EXCEEDED
                } else {
                    Reason::SUCCESS
                };
                self.receive(Packet::Ack(Ack {
                    kind,
                    packet_id,
                    reason,
                }));
            }
            Deed::Subscribe {
                packet_id,
                filters,
                backlog,
            } => {
                self.wants_backlog = backlog;
                if self.listens() {
                    self.judge.unanswered.push(packet_id);
                }
                let filters = filters.iter().map(|(filter, qos)| wanted(*filter, *qos)).collect();
                self.receive(Packet::Subscribe(Box::new(Subscribe {
                    packet_id,
                    identifier: Some(7),
                    filters,
                })));
            }
            Deed::Unsubscribe { packet_id, filter } => {
                let filters = vec![wanted(filter, Qos::AtMostOnce).map(|known| (known.share, known.filter))];
                self.receive(Packet::Unsubscribe(Unsubscribe { packet_id, filters }));
            }
            Deed::Ping => self.receive(Packet::Ping),
            Deed::Disconnect { reason, expiry_s } => {
                self.receive(Packet::Disconnect(Disconnect {
                    reason: Reason(reason),
                    session_expiry_s: expiry_s,
                }));
            }
            Deed::SecondConnect => self.receive(Packet::Connect(Box::new(connect(self.version, false, 0, false)))),
            Deed::Auth => self.receive(Packet::Auth(Reason(0x18))),
            Deed::Deliver {
                count,
                stored,
                settled,
                qos,
                subs,
            } => self.deliver(count, stored, settled, qos, &subs),
            Deed::Answer {
                which,
                rows,
                end,
                given_up,
            } => self.answer(which, rows, end, given_up),
            Deed::Settle { count, result } => self.settle(count, result),
            Deed::Pass(millis) => {
                self.clock += Duration::from_millis(millis);
                self.act(|session, now, steps| session.tick(now, steps));
            }
            Deed::Keep { count, there } => self.keep(count, there),
            Deed::Reload(kept) => {
                let epoch = self.keeps.take().map_or(1, |keeping| keeping.epoch + 1);
                self.keeps = kept.then(|| Keeping { pool: pool(), epoch });
            }
            Deed::Overflow => self.act(|session, _, steps| session.overflowed(steps)),
            Deed::Lose => {
                self.judge.hang_up();
                self.act(|session, now, steps| session.lost(Reason::UNSPECIFIED_ERROR, now, steps));
            }
            Deed::Connect { clean, expiry_s, will } => self.connect(connect(self.version, clean, expiry_s, will)),
            Deed::ShutDown => {
                self.act(|session, now, steps| session.shut_down(now, steps));
                self.end();
            }
        }
    }

    /// A client connects: what the broker's connection does with it.
    fn connect(&mut self, connect: Connect) {
        self.act(|session, now, steps| session.taken_over(now, steps));
        if connect.clean_start {
            self.act(|session, now, steps| session.end(now, steps));
            self.end();
        }
        let who = client("c", self.version as u8, connect.session_expiry_s.unwrap_or(0));
        self.judge.connected = true;
        if self.session.is_some() {
            return self.act(|session, now, steps| session.resume(who, connect, now, steps));
        }
        let mut steps = Steps::new();
        let mut now = Now {
            instant: self.started + self.clock,
            wall: UNIX_EPOCH + self.clock,
            ids: Ids::new(&self.ids, 1),
            interest: Interest::default(),
            keeps: self.keeps.as_ref(),
        };
        self.session = Some(Session::open(
            Arc::clone(&self.limits),
            who,
            connect,
            false,
            (0, 0),
            &mut now,
            &mut steps,
        ));
        while let Some(step) = steps.pop_front() {
            self.carry_out(step, &mut steps);
        }
    }

    fn deliver(&mut self, count: usize, stored: bool, settled: bool, qos: Qos, subs: &[SubId]) {
        let first = self.next_row;
        self.next_row += count;
        let run = match stored && qos > Qos::AtMostOnce {
            true => run_from(first, count),
            false => {
                let messages = (first..self.next_row).map(|id| message(id as u128, "t", "x", qos));
                Arc::new(Run::new(messages.collect(), Vec::new()))
            }
        };
        if first.is_multiple_of(2) {
            // What waits of it is taken out of its buffer.
            run.came_in(1 << 30);
        }
        if !run.stored.is_empty() {
            self.unsettled.push((Arc::clone(&run), first));
        }
        if settled {
            self.commit();
        }
        self.act(|session, now, steps| session.deliver(&run, subs, now, steps));
    }

    /// Every commit that is under way settles.
    fn commit(&mut self) {
        for (run, first) in self.unsettled.drain(..) {
            (0..run.messages.len()).for_each(|index| settle(&run, index, (first + index) as u128));
        }
    }

    fn answer(&mut self, which: usize, rows: usize, end: bool, given_up: bool) {
        if self.questions.is_empty() {
            return;
        }
        let (read, after) = self.questions.remove(which % self.questions.len());
        let Some(after) = after else {
            // A store says where a reader begins behind every write before.
            self.commit();
            let position = (!given_up).then_some(Position(1));
            return self.act(|session, now, steps| session.begun(read, position, now, steps));
        };
        let rows = after.0 + 1..after.0 + 1 + rows as u128;
        let row = |id| (Position(id), message(id, "t", "x", Qos::AtLeastOnce));
        let messages: Vec<_> = rows.map(row).collect();
        let scanned = messages.last().map_or(after, |(position, _)| *position);
        let page = Page {
            end: end || messages.is_empty(),
            messages,
            scanned,
            ..Page::default()
        };
        self.act(|session, now, steps| session.page(read, (!given_up).then_some(page), now, steps));
    }

    fn keep(&mut self, count: usize, there: bool) {
        for _ in 0..count {
            let Some(id) = self.keeping.pop_front() else { return };
            self.act(|session, now, steps| session.kept(id, there, now, steps));
        }
    }

    fn settle(&mut self, count: usize, result: Settled) {
        for _ in 0..count {
            let Some(ticket) = self.waiting.pop_front() else { return };
            self.act(|session, _, steps| session.settle(ticket, &[result], steps));
        }
    }
}

fn wanted(filter: usize, qos: Qos) -> Result<Subscription, TopicError> {
    let Some(text) = FILTERS.get(filter) else {
        return Err(TopicError::MisplacedWildcard);
    };
    let (share, filter) = Filter::parse_subscription(text)?;
    Ok(Subscription {
        share: share.map(Arc::from),
        ..Subscription::new(filter, qos)
    })
}

fn publish(qos: Qos, packet_id: u16, dup: bool, alias: u16, named: bool) -> Packet {
    Packet::Publish(Publish {
        dup: dup && qos > Qos::AtMostOnce,
        qos,
        retain: false,
        topic: (named || alias == 0).then(|| Topic::new("t").expect("a good topic")),
        alias: (alias > 0).then_some(alias),
        packet_id,
        expiry_s: None,
        properties: Properties::default(),
        payload: Bytes::from_static(b"x"),
    })
}

fn connect(version: Version, clean_start: bool, expiry_s: u32, will: bool) -> Connect {
    Connect {
        version,
        clean_start,
        keep_alive_s: 5,
        client_id: "c".into(),
        will: will.then(|| Will {
            topic: Topic::new("w").expect("a good topic"),
            payload: Bytes::new(),
            qos: Qos::AtLeastOnce,
            retain: false,
            delay_s: 1,
            expiry_s: None,
            properties: Properties::default(),
        }),
        username: None,
        password: None,
        session_expiry_s: Some(expiry_s),
        receive_max: u16::MAX,
        packet_bytes_max: None,
        topic_alias_max: 0,
        request_problem_info: true,
        request_response_info: false,
        auth_method: None,
    }
}

fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.max(CASES),
        failure_persistence: None,
        ..usual
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_order_of_packets_results_and_faults_breaks_a_session(
        version in select(vec![Version::V31, Version::V311, Version::V5]),
        kept in any::<bool>(),
        queue_full in select(vec![QueueFull::DropOld, QueueFull::DropNew]),
        deeds in vec(prop_oneof![by_client(), by_others()], 1..40),
    ) {
        let mut world = World::new(version, kept, queue_full);
        world.connect(connect(version, false, 3600, true));
        deeds.into_iter().for_each(|deed| world.happen(deed));
        world.come_to_rest();
    }
}
