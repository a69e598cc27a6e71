//! Stories about one session: packets and results in, steps out.

mod shares;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::fixtures::{client, message, pool, run_from, run_of, settle};
use super::*;
use crate::model::delivery::{Delivery, Page, Place, Run};
use crate::model::event::{Effect, Start};
use crate::model::id::IdClock;
use crate::model::message::Qos;
use crate::model::properties::Properties;
use crate::model::session::{SessionWrite, Will};
use crate::mqtt::packet::{Ack, Connect, Disconnect, Publish, Subscribe};
use Settled::{Refused, Stored};

mod full;
mod overlapping;
mod sending;

/// A session and the world around it.
struct Bench {
    session: Session,
    ids: IdClock,
    started: Instant,
    clock: Duration,
    interest: Interest,
    keeps: Option<Keeping>,
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        clean_start: false,
        keep_alive_s: 60,
        client_id: "c".into(),
        will: None,
        username: None,
        password: None,
        session_expiry_s: Some(3600),
        receive_max: u16::MAX,
        packet_bytes_max: None,
        topic_alias_max: 0,
        request_problem_info: true,
        request_response_info: false,
        auth_method: None,
    }
}

impl Bench {
    fn new(version: Version, limits: Limits, adjust: impl FnOnce(&mut Connect)) -> (Self, Vec<String>) {
        let ids = IdClock::new("test", 1, 0);
        let started = Instant::now();
        let mut connect = connect(version);
        adjust(&mut connect);
        let who = client("c", version as u8, connect.session_expiry_s.unwrap_or(0));
        let mut steps = Steps::new();
        let mut now = Now {
            instant: started,
            wall: UNIX_EPOCH,
            ids: Ids::new(&ids, 1),
            interest: Interest::default(),
            keeps: None,
        };
        let session = Session::open(Arc::new(limits), who, connect, false, (0, 0), &mut now, &mut steps);
        let bench = Self {
            session,
            ids,
            started,
            clock: Duration::ZERO,
            interest: Interest::default(),
            keeps: None,
        };
        (bench, steps.into_iter().map(|step| show(&step)).collect())
    }

    fn v5() -> Self {
        Self::new(Version::V5, Limits::default(), |_| {}).0
    }

    fn v3() -> Self {
        Self::new(Version::V311, Limits::default(), |_| {}).0
    }

    /// Lets the session act; answers its steps, shown. Publishes are planned with one store each unless the
    /// test plans itself.
    fn act(&mut self, act: impl FnOnce(&mut Session, &mut Now<'_>, &mut Steps)) -> Vec<String> {
        self.act_raw(act).iter().map(show).collect()
    }

    fn act_raw(&mut self, act: impl FnOnce(&mut Session, &mut Now<'_>, &mut Steps)) -> Vec<Step> {
        let mut steps = Steps::new();
        let wall: SystemTime = UNIX_EPOCH + self.clock;
        let instant = self.started + self.clock;
        let mut now = Now {
            instant,
            wall,
            ids: Ids::new(&self.ids, 1),
            interest: self.interest,
            keeps: self.keeps.as_ref(),
        };
        act(&mut self.session, &mut now, &mut steps);
        steps.into()
    }

    fn receive(&mut self, packet: Packet) -> Vec<String> {
        self.act(|session, now, steps| session.receive(packet, now, steps))
    }

    fn planned(&mut self, first: Ticket, waits: &[u8]) -> Vec<String> {
        self.act(|session, _, steps| session.planned(first, waits.iter().copied(), steps))
    }

    fn settle(&mut self, first: Ticket, results: &[Settled]) -> Vec<String> {
        self.act(|session, _, steps| session.settle(first, results, steps))
    }

    fn ack(&mut self, kind: AckKind, packet_id: u16) -> Vec<String> {
        self.receive(Packet::Ack(Ack {
            kind,
            packet_id,
            reason: Reason::SUCCESS,
        }))
    }

    fn deliver(&mut self, run: &Arc<Run>) -> Vec<String> {
        self.act(|session, now, steps| session.deliver(run, &[1], now, steps))
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.clock += time;
        self.act(|session, now, steps| session.tick(now, steps))
    }

    fn lose(&mut self) -> Vec<String> {
        self.act(|session, now, steps| session.lost(Reason::UNSPECIFIED_ERROR, now, steps))
    }

    fn come_back(&mut self) -> Vec<String> {
        self.come_back_with(|_| {})
    }

    fn come_back_with(&mut self, adjust: impl FnOnce(&mut Connect)) -> Vec<String> {
        let who = client("c", 5, 3600);
        let mut connect = connect(Version::V5);
        adjust(&mut connect);
        self.act(|session, now, steps| session.resume(who, connect, now, steps))
    }

    /// Subscribes to `t` with a backlog that begins where `start` says, answered with `position`.
    fn subscribe_with_backlog(&mut self, start: Start, position: u128) -> Vec<String> {
        let mut seen = self.receive(subscribe("t", 1));
        let effects = vec![Effect::Backlog(Box::new(backlog(start)))];
        seen.extend(self.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps)));
        seen.extend(self.act(|session, now, steps| session.answer(1, now, steps)));
        seen.extend(self.act(|session, now, steps| session.begun(1, Some(Position(position)), now, steps)));
        seen
    }

    /// Subscribes and lets the (empty) retained messages and backlog be read: the session is live.
    fn subscribe_live(&mut self, start: Start, position: u128) {
        let seen = self.subscribe_with_backlog(start, position);
        assert!(seen.iter().any(|step| step.starts_with("read 2 own")), "{seen:?}");
        assert_eq!(
            self.page(2, &[], 0, true),
            [format!("read 3 unread after {position} limit 100")]
        );
        assert_eq!(self.page(3, &[], position, true), [""; 0]);
    }

    fn page(&mut self, read: ReadId, rows: &[u128], scanned: u128, end: bool) -> Vec<String> {
        let row = |id: &u128| (Position(*id), message(*id, "t", &format!("m{id}"), Qos::AtLeastOnce));
        let page = Page {
            messages: rows.iter().map(row).collect(),
            scanned: Position(scanned),
            end,
            ..Page::default()
        };
        self.act(|session, now, steps| session.page(read, Some(page), now, steps))
    }
}

fn backlog(start: Start) -> Backlog {
    let filter = Filter::new("t").expect("a good filter");
    Backlog {
        reader: Reader {
            pool: pool(),
            client: "c".into(),
            filter,
            delivery: Delivery::Pubsub,
        },
        start,
        durable: true,
        limit: None,
        time_range: None,
        page: 100,
        drain: true,
        on_resume: true,
        complete: true,
        ack_last: false,
        hold: None,
    }
}

fn publish(qos: Qos, packet_id: u16, payload: &'static str) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(Topic::new("t").expect("a good topic")),
        alias: None,
        packet_id,
        expiry_s: None,
        properties: Properties::default(),
        payload: Bytes::from_static(payload.as_bytes()),
    })
}

fn again(packet: Packet) -> Packet {
    match packet {
        Packet::Publish(publish) => Packet::Publish(Publish { dup: true, ..publish }),
        other => other,
    }
}

fn subscribe(filter: &str, packet_id: u16) -> Packet {
    let filter = Filter::new(filter.to_owned()).expect("a good filter");
    let filters = vec![Ok(Subscription::new(filter, Qos::ExactlyOnce))];
    Packet::Subscribe(Box::new(Subscribe {
        packet_id,
        identifier: None,
        filters,
    }))
}

/// A step in a few words.
fn show_keep(keep: &Keep) -> String {
    match keep {
        Keep::Session(SessionWrite::Attached(_)) => "attached".into(),
        Keep::Session(SessionWrite::Left { will, .. }) => if *will { "left with will" } else { "left" }.into(),
        Keep::Session(SessionWrite::WillDone(..)) => "will done".into(),
        Keep::Session(SessionWrite::RetainedSent(_, filter)) => format!("retained sent {filter}"),
        Keep::Session(SessionWrite::Subscribed(_, saved)) => {
            let owes = if saved.owes_retained { ", owes retained" } else { "" };
            format!("subscribed {}{owes}", saved.subscription.filter)
        }
        Keep::Session(SessionWrite::Unsubscribed(_, filter)) => format!("unsubscribed {filter}"),
        Keep::Session(SessionWrite::Ended { positions, .. }) => format!("ended {positions}"),
        Keep::Exchange(exchange) => {
            let released = if exchange.released { " released" } else { "" };
            format!("{:?} {}{released}", exchange.key.direction, exchange.key.packet_id)
        }
        Keep::EndExchange(key) => format!("end {:?}", key.direction),
    }
}

fn show(step: &Step) -> String {
    match step {
        Step::Publish { ticket, message, kept } => {
            format!(
                "publish {ticket} {} {}{}",
                message.topic,
                String::from_utf8_lossy(&message.payload),
                kept.map_or(String::new(), |packet_id| format!(" with {packet_id}"))
            )
        }
        Step::Keep(id, keep) => format!("keep {id} {}", show_keep(keep)),
        Step::Returned(sub, _) => format!("returned {sub}"),
        Step::Fire(event) => format!("fire {}", event.point()),
        Step::Subscribed { sub, .. } => format!("subscribed {sub}"),
        Step::Route(sub, subscription) => format!("route {sub} {}", subscription.full_filter()),
        Step::Unroute(sub, _) => format!("unroute {sub}"),
        Step::Answer(packet_id) => format!("answer {packet_id}"),
        Step::Begin(read, _) => format!("begin {read}"),
        Step::Read(read, source, window) => match source {
            Source::Own(_) => format!("read {read} own after {}", window.after.0),
            Source::Retained(..) => format!("read {read} retained after {}", window.after.0),
            Source::Unread(_) => format!("read {read} unread after {} limit {}", window.after.0, window.limit),
        },
        Step::Lookup(pool) => format!("lookup {pool}"),
        Step::Advance(_, position) => format!("advance {}", position.0),
        Step::Joined(group) => format!("joined {group}"),
        Step::Offer(group) => format!("offer {group}"),
        Step::HandOn(group, run) => {
            let payload = String::from_utf8_lossy(&run.messages[0].payload);
            format!("hand on {group} {payload}")
        }
        Step::Forget => "forget".into(),
        Step::Send(Outgoing::Publish(copy)) => format!(
            "send {}{} {}",
            if copy.dup { "dup " } else { "" },
            copy.packet_id,
            String::from_utf8_lossy(&copy.message().payload)
        ),
        Step::Send(Outgoing::Ack(ack)) if ack.reason == Reason::SUCCESS => {
            format!("send {:?} {}", ack.kind, ack.packet_id)
        }
        Step::Send(Outgoing::Ack(ack)) => format!("send {:?} {} {:#x}", ack.kind, ack.packet_id, ack.reason.0),
        Step::Send(Outgoing::ConnAck(ack)) => format!("send ConnAck {}", ack.session_present),
        Step::Send(Outgoing::SubAck { packet_id, .. }) => format!("send SubAck {packet_id}"),
        Step::Send(Outgoing::Disconnect { reason, .. }) => format!("send Disconnect {:#x}", reason.0),
        Step::Send(other) => format!("send {other:?}"),
        Step::Limit(limit) => format!("limit {limit:?}"),
        Step::Close(reason) => format!("close {:#x}", reason.0),
        Step::Rest => "rest".into(),
        Step::End => "end".into(),
    }
}

#[test]
fn a_puback_waits_for_its_own_commit_and_keeps_its_place() {
    let mut bench = Bench::v5();
    assert_eq!(bench.receive(publish(Qos::AtLeastOnce, 7, "x")), ["publish 0 t x"]);
    assert_eq!(bench.receive(publish(Qos::AtLeastOnce, 8, "y")), ["publish 1 t y"]);
    assert_eq!(bench.planned(0, &[1, 1]), [""; 0]);
    assert_eq!(bench.settle(1, &[Stored]), [""; 0], "7 is still open");
    assert_eq!(bench.settle(0, &[Stored]), ["send PubAck 7", "send PubAck 8"]);
}

#[test]
fn a_message_that_no_rule_stores_is_acknowledged_at_once() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::ExactlyOnce, 7, "x"));
    assert_eq!(bench.planned(0, &[0]), ["send PubRec 7"]);
    assert_eq!(bench.ack(AckKind::PubRel, 7), ["send PubComp 7"]);
    let books = bench.session.take_books();
    assert_eq!(
        (books.received, books.acked_stored, books.acked_unstored),
        ([0, 0, 1], 0, 1)
    );
}

#[test]
fn a_resend_joins_its_gate() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::AtLeastOnce, 7, "x"));
    bench.planned(0, &[1]);
    assert_eq!(bench.receive(again(publish(Qos::AtLeastOnce, 7, "x"))), [""; 0]);
    assert_eq!(bench.settle(0, &[Stored]), ["send PubAck 7"], "one answer, one message");
}

#[test]
fn a_reused_packet_identifier_is_a_new_message() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::AtLeastOnce, 7, "x"));
    bench.planned(0, &[1]);
    assert_eq!(
        bench.receive(again(publish(Qos::AtLeastOnce, 7, "other"))),
        ["publish 1 t other"]
    );
}

#[test]
fn a_resend_after_a_lost_connection_is_answered_from_the_result() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::AtLeastOnce, 7, "x"));
    bench.planned(0, &[1]);
    bench.lose();
    assert_eq!(bench.settle(0, &[Stored]), [""; 0], "nobody is there to hear it");
    bench.come_back();
    assert_eq!(
        bench.receive(again(publish(Qos::AtLeastOnce, 7, "x"))),
        ["send PubAck 7"]
    );
}

#[test]
fn an_answer_that_nobody_heard_is_not_given_to_another_message() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::AtLeastOnce, 7, "x"));
    bench.planned(0, &[1]);
    bench.lose();
    bench.settle(0, &[Stored]);
    bench.come_back();
    assert_eq!(
        bench.receive(again(publish(Qos::AtLeastOnce, 7, "other"))),
        ["publish 1 t other"],
        "it is not stored yet"
    );
}

#[test]
fn a_refusal_of_qos_2_that_nobody_heard_waits_for_the_resend() {
    let mut bench = Bench::v5();
    let x = || publish(Qos::ExactlyOnce, 7, "x");
    bench.receive(x());
    bench.planned(0, &[1]);
    bench.lose();
    bench.settle(0, &[Settled::Cancelled]);
    bench.come_back();
    assert_eq!(bench.receive(again(x())), ["send PubRec 7 0x97"]);
    assert_eq!(bench.receive(again(x())), ["publish 1 t x"], "it was told");
}

#[test]
fn a_refusal_that_nobody_heard_is_not_given_to_another_message() {
    for (qos, payload) in [(Qos::ExactlyOnce, "other"), (Qos::AtLeastOnce, "x")] {
        let mut bench = Bench::v5();
        bench.receive(publish(Qos::ExactlyOnce, 7, "x"));
        bench.planned(0, &[1]);
        bench.lose();
        bench.settle(0, &[Settled::Cancelled]);
        bench.come_back();
        let seen = bench.receive(again(publish(qos, 7, payload)));
        assert_eq!(seen, [format!("publish 1 t {payload}")]);
    }
}

#[test]
fn qos_2_is_received_once_however_often_it_is_sent() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::ExactlyOnce, 7, "x"));
    bench.planned(0, &[1]);
    assert_eq!(bench.receive(again(publish(Qos::ExactlyOnce, 7, "x"))), [""; 0]);
    assert_eq!(bench.settle(0, &[Stored]), ["send PubRec 7"]);
    bench.lose();
    bench.come_back();
    assert_eq!(
        bench.receive(again(publish(Qos::ExactlyOnce, 7, "x"))),
        ["send PubRec 7"]
    );
    assert_eq!(bench.ack(AckKind::PubRel, 7), ["send PubComp 7"]);
    assert_eq!(bench.ack(AckKind::PubRel, 7), ["send PubComp 7 0x92"]);
}

/// [3:MQTT-4.8.0-2]
#[test]
fn a_refusal_is_a_reason_for_mqtt_5_and_a_closed_connection_for_mqtt_3() {
    let refused = [Refused(Reason::IMPLEMENTATION_SPECIFIC_ERROR)];
    for (mut bench, answer) in [(Bench::v5(), "send PubAck 7 0x83"), (Bench::v3(), "close 0x83")] {
        bench.receive(publish(Qos::AtLeastOnce, 7, "x"));
        bench.planned(0, &[1]);
        assert_eq!(bench.settle(0, &refused), [answer]);
    }
}

#[test]
fn a_closed_mqtt_3_client_hears_nothing_more_and_asks_again() {
    let mut bench = Bench::v3();
    for id in [7, 8] {
        bench.receive(publish(Qos::AtLeastOnce, id, "x"));
    }
    bench.planned(0, &[1, 1]);
    bench.settle(1, &[Stored]);
    assert_eq!(bench.settle(0, &[Settled::Cancelled]), ["close 0x97"]);
    bench.lose();
    bench.come_back();
    assert_eq!(
        bench.receive(again(publish(Qos::AtLeastOnce, 8, "x"))),
        ["send PubAck 8"]
    );
}

#[test]
fn the_window_closes_the_mqtt_5_client_that_breaks_it_and_pauses_the_others() {
    let limits = Limits {
        receive_max: 2,
        ..Limits::default()
    };
    for (version, last) in [(Version::V5, "send Disconnect 0x93"), (Version::V311, "publish 2 t z")] {
        let (mut bench, _) = Bench::new(version, limits.clone(), |_| {});
        bench.receive(publish(Qos::AtLeastOnce, 1, "x"));
        assert!(bench.session.wants_input());
        bench.receive(publish(Qos::AtLeastOnce, 2, "y"));
        bench.planned(0, &[1, 1]);
        assert_eq!(bench.session.wants_input(), version == Version::V5);
        let seen = bench.receive(publish(Qos::AtLeastOnce, 3, "z"));
        let counted = seen[0] == "limit ReceiveMaximum";
        assert_eq!((counted, &*seen[usize::from(counted)]), (version == Version::V5, last));
    }
}

#[test]
fn silence_is_forgiven_while_we_do_not_read() {
    let limits = Limits {
        receive_max: 1,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V311, limits, |_| {});
    bench.receive(publish(Qos::AtLeastOnce, 1, "x"));
    bench.planned(0, &[1]);
    assert_eq!(bench.pass(Duration::from_secs(600)), [""; 0]);
    assert_eq!(bench.settle(0, &[Stored]), ["send PubAck 1"]);
    bench.act(|session, now, _| session.resume_reading(now));
    assert_eq!(bench.pass(Duration::from_secs(89)), [""; 0]);
    assert_eq!(
        bench.pass(Duration::from_secs(1)),
        ["close 0x8d", "fire client.disconnected"]
    );
}

#[test]
fn a_will_waits_for_its_delay_and_is_forgotten_when_the_client_returns() {
    let will = Will {
        topic: Topic::new("w").expect("good"),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay_s: 5,
        expiry_s: None,
        properties: Properties::default(),
    };
    let (mut bench, _) = Bench::new(Version::V5, Limits::default(), |connect| {
        connect.will = Some(will.clone())
    });
    assert_eq!(bench.lose(), ["fire client.disconnected"]);
    assert_eq!(bench.pass(Duration::from_secs(4)), [""; 0]);
    bench.come_back();
    assert_eq!(bench.pass(Duration::from_secs(10)), [""; 0]);

    let (mut bench, _) = Bench::new(Version::V5, Limits::default(), |connect| {
        connect.will = Some(will.clone())
    });
    bench.lose();
    assert_eq!(bench.pass(Duration::from_secs(5)), ["publish 0 w gone"]);

    for (reason, published) in [
        (Reason::SUCCESS, false),
        (Reason::DISCONNECT_WITH_WILL, true),
        (Reason::UNSPECIFIED_ERROR, true),
        (Reason::PROTOCOL_ERROR, true),
    ] {
        let (mut bench, _) = Bench::new(Version::V5, Limits::default(), |connect| {
            connect.will = Some(will.clone())
        });
        bench.receive(Packet::Disconnect(Disconnect {
            reason,
            session_expiry_s: None,
        }));
        let seen = bench.pass(Duration::from_secs(10));
        assert_eq!(
            seen.contains(&"publish 0 w gone".to_owned()),
            published,
            "{reason:?}: {seen:?}"
        );
    }
}

#[test]
fn a_session_ends_when_it_expires_and_takes_its_routes_along() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 0);
    bench.lose();
    assert_eq!(bench.pass(Duration::from_secs(3599)), [""; 0]);
    assert_eq!(bench.pass(Duration::from_secs(1)), ["unroute 1", "forget", "end"]);
    assert!(bench.session.is_over());
}

#[test]
fn a_suback_waits_for_the_row_that_says_where_its_reader_begins() {
    let mut bench = Bench::v5();
    let seen = bench.subscribe_with_backlog(Start::Latest, 9);
    assert_eq!(
        seen,
        [
            "route 1 t",
            "subscribed 1",
            "answer 1",
            "begin 1",
            "send SubAck 1",
            "read 2 own after 0"
        ],
        "the SUBACK follows the answer to `begin`"
    );
    let mut patient = Bench::v5();
    patient.receive(subscribe("t", 1));
    let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
    patient.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps));
    assert_eq!(
        patient.act(|session, now, steps| session.answer(1, now, steps)),
        [""; 0]
    );
    assert_eq!(
        patient.pass(Duration::from_secs(5)),
        ["send SubAck 1", "read 2 own after 0"],
        "but not for ever"
    );
}

#[test]
fn fetched_messages_come_before_held_ones_and_nothing_comes_twice() {
    let mut bench = Bench::v5();
    bench.subscribe_with_backlog(Start::Earliest, 0);
    let live = run_from(3, 2);
    assert_eq!(bench.deliver(&live), [""; 0], "held while the backlog is read");
    settle(&live, 0, 3);
    settle(&live, 1, 4);
    assert_eq!(bench.page(2, &[], 0, true), ["read 3 unread after 0 limit 100"]);
    // The store already has the first of the two live messages.
    assert_eq!(
        bench.page(3, &[1, 2, 3], 3, true),
        ["send 1 m1", "send 2 m2", "send 3 m3", "send 4 m4"]
    );
}

#[test]
fn a_live_copy_that_comes_behind_its_replay_is_not_sent_again() {
    let mut bench = Bench::v5();
    bench.subscribe_with_backlog(Start::Earliest, 0);
    bench.page(2, &[], 0, true);
    assert_eq!(bench.page(3, &[1, 2], 2, true), ["send 1 m1", "send 2 m2"]);
    // The first is acknowledged and forgotten by the time its live copy arrives, the second is on its way.
    bench.ack(AckKind::PubAck, 1);
    let late = run_of(3);
    assert_eq!(bench.deliver(&late), ["send 3 m3"]);
}

#[test]
fn positions_gather_and_are_written_as_one() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 10);
    let live = run_of(3);
    assert_eq!(bench.deliver(&live), ["send 1 m1", "send 2 m2", "send 3 m3"]);
    (0..3).for_each(|index| settle(&live, index, 11 + index as u128));
    bench.ack(AckKind::PubAck, 3);
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 11"]);
    bench.ack(AckKind::PubAck, 2);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 13"]);
}

#[test]
fn a_position_is_written_before_the_client_is_marked_as_gone() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 10);
    let live = run_of(1);
    bench.deliver(&live);
    settle(&live, 0, 11);
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(bench.lose(), ["advance 11", "fire client.disconnected"]);
}

#[test]
fn an_ack_before_the_commit_waits_for_it() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 10);
    let live = run_of(1);
    bench.deliver(&live);
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(bench.pass(Duration::from_millis(50)), [""; 0]);
    settle(&live, 0, 11);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 11"]);
}

#[test]
fn a_slow_subscriber_catches_up_from_the_store_without_gap_or_duplicate() {
    let limits = Limits {
        inflight_max: 2,
        queue_len_max: 1,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    let seen = bench.subscribe_with_backlog(Start::Latest, 0);
    assert_eq!(seen.last().map(String::as_str), Some("read 2 own after 0"));
    assert_eq!(bench.page(2, &[], 0, true), ["read 3 unread after 0 limit 2"]);
    bench.page(3, &[], 0, true);
    let live = run_of(5);
    assert_eq!(
        bench.deliver(&live),
        ["send 1 m1", "send 2 m2"],
        "m3 is queued, m4 and m5 are left to the store"
    );
    (0..5).for_each(|index| settle(&live, index, 1 + index as u128));
    assert_eq!(bench.session.take_books().deferred, 2);
    assert_eq!(bench.ack(AckKind::PubAck, 1), ["send 3 m3"]);
    assert_eq!(bench.ack(AckKind::PubAck, 2), ["read 4 unread after 0 limit 1"]);
    assert_eq!(
        bench.page(4, &[1], 1, false),
        ["read 5 unread after 1 limit 1"],
        "m1 is known"
    );
    assert_eq!(bench.page(5, &[2], 2, false), ["read 6 unread after 2 limit 1"]);
    assert_eq!(bench.page(6, &[3], 3, false), ["read 7 unread after 3 limit 1"]);
    assert_eq!(bench.page(7, &[4], 4, false), ["send 4 m4"]);
    assert_eq!(bench.ack(AckKind::PubAck, 3), ["read 8 unread after 4 limit 1"]);
    // The last page: the hold opens, and the store is asked once more for what came in between.
    assert_eq!(bench.page(8, &[5], 5, true), ["send 5 m5"]);
    assert_eq!(bench.ack(AckKind::PubAck, 4), ["read 9 unread after 5 limit 1"]);
    assert_eq!(bench.page(9, &[], 5, true), [""; 0]);
    let more = run_from(6, 1);
    assert_eq!(bench.deliver(&more), ["send 6 m6"], "live again");
    settle(&more, 0, 6);
    bench.ack(AckKind::PubAck, 5);
    bench.ack(AckKind::PubAck, 6);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 6"]);
}

#[test]
fn what_a_store_did_not_answer_in_time_stays_unread_and_is_read_when_it_is_seen_to_answer_again() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 0);
    bench.lose();
    let steps = bench.come_back();
    assert_eq!(
        steps.last().map(String::as_str),
        Some("read 4 unread after 0 limit 100")
    );
    let steps = bench.act(|session, now, steps| session.page(4, None, now, steps));
    assert_eq!(steps, [""; 0]);
    let live = run_from(3, 1);
    assert_eq!(bench.deliver(&live), ["send 1 m3"], "live messages go on");
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(bench.pass(Duration::from_secs(20)), [""; 0], "nothing is committed");
    settle(&live, 0, 3);
    let steps = bench.pass(Duration::from_millis(50));
    assert_eq!(steps, ["read 5 unread after 0 limit 100"], "the position stays");
    assert_eq!(
        bench.page(5, &[1, 2, 3], 3, true),
        ["send 2 m1", "send 3 m2", "read 6 unread after 3 limit 98"]
    );
    assert_eq!(bench.page(6, &[], 3, true), [""; 0]);
    bench.ack(AckKind::PubAck, 2);
    bench.ack(AckKind::PubAck, 3);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 3"]);
}

#[test]
fn what_is_stored_is_not_queued_for_an_absent_client_and_read_when_it_returns() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 0);
    let first = run_of(1);
    assert_eq!(bench.deliver(&first), ["send 1 m1"]);
    settle(&first, 0, 1);
    bench.lose();
    let missed = run_from(2, 1);
    assert_eq!(bench.deliver(&missed), [""; 0]);
    assert_eq!(
        bench.come_back(),
        [
            "send ConnAck true",
            "fire client.connected",
            "send dup 1 m1",
            "read 4 unread after 0 limit 99"
        ]
    );
    assert_eq!(
        bench.page(4, &[1, 2], 2, true),
        ["send 2 m2"],
        "m1 is on its way already"
    );
}

#[test]
fn without_fetch_on_resume_what_was_missed_stays_unread_until_the_next_subscribe() {
    let mut bench = Bench::v5();
    let backlog = || {
        Effect::Backlog(Box::new(Backlog {
            on_resume: false,
            ..backlog(Start::Latest)
        }))
    };
    bench.receive(subscribe("t", 1));
    bench.act(|session, now, steps| session.subscribed(1, Some(1), vec![backlog()], now, steps));
    bench.act(|session, now, steps| session.answer(1, now, steps));
    bench.act(|session, now, steps| session.begun(1, Some(Position(0)), now, steps));
    bench.page(2, &[], 0, true);
    bench.page(3, &[], 0, true);
    bench.lose();
    assert_eq!(bench.deliver(&run_of(1)), [""; 0]);
    assert_eq!(bench.come_back(), ["send ConnAck true", "fire client.connected"]);
    let live = run_from(2, 1);
    assert_eq!(bench.deliver(&live), ["send 1 m2"]);
    settle(&live, 0, 2);
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(
        bench.pass(Duration::from_millis(50)),
        [""; 0],
        "the missed one is not passed"
    );
    bench.receive(subscribe("t", 2));
    bench.act(|session, now, steps| session.subscribed(1, Some(2), vec![backlog()], now, steps));
    bench.act(|session, now, steps| session.answer(2, now, steps));
    assert_eq!(bench.page(4, &[], 0, true), ["read 5 unread after 0 limit 100"]);
    assert_eq!(bench.page(5, &[1, 2], 2, true), ["send 2 m1"]);
}

#[test]
fn retained_messages_wait_for_the_window() {
    let limits = Limits {
        inflight_max: 2,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    bench.receive(subscribe("t", 1));
    let effects = vec![Effect::Retained(Filter::new("t").expect("good"), pool(), 3)];
    bench.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps));
    bench.act(|session, now, steps| session.answer(1, now, steps));
    assert_eq!(bench.page(1, &[], 0, true), ["read 2 retained after 0"]);
    assert_eq!(
        bench.page(2, &[1, 2], 2, false),
        ["send 1 m1", "send 2 m2"],
        "and the window is full"
    );
    assert_eq!(bench.ack(AckKind::PubAck, 1), ["read 3 retained after 2"]);
    assert_eq!(
        bench.page(3, &[3], 3, false),
        ["send 3 m3"],
        "no more than `max_retained_fetch`"
    );
    assert_eq!(bench.ack(AckKind::PubAck, 2), [""; 0]);
}

#[test]
fn what_nobody_stores_is_queued_for_an_absent_client() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 0);
    bench.lose();
    let unstored = Arc::new(Run::new(vec![message(1, "t", "kept", Qos::AtLeastOnce)], vec![]));
    bench.deliver(&unstored);
    let seen = bench.come_back();
    assert!(seen.contains(&"send 1 kept".to_owned()), "{seen:?}");
}

#[test]
fn a_retained_copy_takes_the_place_of_the_backlog_copy_and_moves_the_position() {
    let mut bench = Bench::v5();
    bench.subscribe_with_backlog(Start::Earliest, 0);
    assert_eq!(
        bench.page(2, &[1], 1, true),
        ["send 1 m1", "read 3 unread after 0 limit 99"],
        "retained"
    );
    assert_eq!(bench.page(3, &[1, 2], 2, true), ["send 2 m2"]);
    bench.ack(AckKind::PubAck, 1);
    bench.ack(AckKind::PubAck, 2);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 2"]);
}

#[test]
fn subscribing_again_sends_nothing_twice() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Earliest, 0);
    let live = run_of(2);
    bench.deliver(&live);
    (0..2).for_each(|index| settle(&live, index, 1 + index as u128));
    bench.ack(AckKind::PubAck, 2);
    bench.receive(subscribe("t", 2));
    let effects = vec![Effect::Backlog(Box::new(backlog(Start::Earliest)))];
    bench.act(|session, now, steps| session.subscribed(1, Some(2), effects, now, steps));
    let seen = bench.act(|session, now, steps| session.answer(2, now, steps));
    assert_eq!(seen, ["send SubAck 2", "read 4 own after 0"]);
    assert_eq!(bench.page(4, &[], 0, true), ["read 5 unread after 0 limit 99"]);
    assert_eq!(
        bench.page(5, &[1, 2], 2, true),
        [""; 0],
        "one is on its way, the other acknowledged"
    );
}

#[test]
fn a_refused_message_does_not_hold_its_readers() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 0);
    let live = run_of(2);
    bench.deliver(&live);
    live.stored[0].settle_nowhere(0);
    settle(&live, 1, 1);
    assert_eq!(live.stored[0].place(0, live.messages[0].id), Place::Nowhere);
    bench.ack(AckKind::PubAck, 1);
    bench.ack(AckKind::PubAck, 2);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 1"]);
}

#[test]
fn a_subscribe_with_the_identifier_of_one_that_still_waits_gets_a_suback_of_its_own() {
    let mut bench = Bench::v5();
    for _ in 0..2 {
        bench.receive(subscribe("t", 1));
        let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
        bench.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps));
        bench.act(|session, now, steps| session.answer(1, now, steps));
    }
    let seen = bench.act(|session, now, steps| session.begun(1, Some(Position(0)), now, steps));
    let subacks = seen.iter().filter(|step| *step == "send SubAck 1").count();
    assert_eq!(subacks, 2, "both wait for the same reader: {seen:?}");
}

#[test]
fn a_session_reads_no_further_while_a_window_of_subscribes_waits_for_the_store() {
    let limits = Limits {
        receive_max: 2,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    for (sub, filter) in [(1, "t/1"), (2, "t/2")] {
        assert!(bench.session.wants_input(), "{filter}");
        bench.receive(subscribe(filter, 1));
        let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
        bench.act(|session, now, steps| session.subscribed(sub, Some(1), effects, now, steps));
        bench.act(|session, now, steps| session.answer(1, now, steps));
    }
    assert!(!bench.session.wants_input());
    bench.act(|session, now, steps| session.begun(1, Some(Position(0)), now, steps));
    assert!(bench.session.wants_input());
}
#[test]
fn a_subscription_without_a_backlog_goes_live_though_its_suback_was_late() {
    let mut bench = Bench::v5();
    let filters = ["u", "t"].map(|filter| {
        let filter = Filter::new(filter).expect("a good filter");
        let wanted = Subscription::new(filter, Qos::AtLeastOnce);
        Ok(Subscription {
            retain_handling: 2,
            ..wanted
        })
    });
    bench.receive(Packet::Subscribe(Box::new(Subscribe {
        packet_id: 1,
        identifier: None,
        filters: filters.into(),
    })));
    let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
    bench.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps));
    bench.act(|session, now, steps| session.subscribed(2, Some(1), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(1, now, steps));
    assert_eq!(bench.pass(Duration::from_secs(5)), ["send SubAck 1"]);
    let replays = bench.session.subscriptions.subs[&2].replay.is_some();
    assert!(!replays, "it has nothing to read and waits for nothing");
}

#[test]
fn the_same_filter_twice_in_one_subscribe_reads_to_its_end() {
    let mut bench = Bench::v5();
    let filter = || Filter::new("t").expect("a good filter");
    let filters = [Qos::AtMostOnce, Qos::AtLeastOnce].map(|qos| Ok(Subscription::new(filter(), qos)));
    bench.receive(Packet::Subscribe(Box::new(Subscribe {
        packet_id: 1,
        identifier: None,
        filters: filters.into(),
    })));
    for _ in 0..2 {
        let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
        bench.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps));
    }
    bench.act(|session, now, steps| session.answer(1, now, steps));
    // Both wait for the same question, and its answer comes once.
    let seen = bench.act(|session, now, steps| session.begun(1, Some(Position(0)), now, steps));
    assert_eq!(seen, ["send SubAck 1", "read 2 own after 0"]);
    assert_eq!(bench.page(2, &[], 0, true), ["read 3 unread after 0 limit 100"]);
    assert_eq!(bench.page(3, &[], 0, true), [""; 0]);
    assert_eq!(bench.deliver(&run_of(1)), ["send 1 m1"], "live messages flow");
}

mod kept;
