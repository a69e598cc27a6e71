//! Sessions that outlive the process (spec C16): what waits for which commit, and what comes back after a crash.

mod owed;

use super::*;
use crate::model::id::MessageId;
use crate::model::session::{Attached, SavedSent, SavedSession, SavedSubscription};
use crate::mqtt::packet::Unsubscribe;

fn keeping(epoch: u32) -> Keeping {
    Keeping { pool: pool(), epoch }
}

impl Bench {
    /// A client whose session is kept; what it wrote when it connected is there.
    fn kept() -> Self {
        let mut bench = Self::v5();
        bench.keeps = Some(keeping(1));
        assert_eq!(bench.receive(Packet::Ping), ["keep 1 attached", "send Pong"]);
        assert!(bench.there(1).is_empty());
        bench
    }

    /// The commit of something that was kept has settled.
    fn there(&mut self, id: ReadId) -> Vec<String> {
        self.act(|session, now, steps| session.kept(id, true, now, steps))
    }

    /// SUBSCRIBE to several filters in one packet.
    fn subscribe_all(&mut self, packet_id: u16, filters: &[&str]) -> Vec<String> {
        let filters = filters.iter().map(|filter| {
            let filter = Filter::new((*filter).to_owned()).expect("good");
            Ok(Subscription::new(filter, Qos::ExactlyOnce))
        });
        self.receive(Packet::Subscribe(Box::new(Subscribe {
            packet_id,
            identifier: None,
            filters: filters.collect(),
        })))
    }

    /// A kept subscription to `t` whose SUBACK has left and that reads nothing.
    fn subscribed_to_t(&mut self) {
        self.subscribe_all(7, &["t"]);
        self.act(|session, now, steps| session.subscribed(1, Some(7), Vec::new(), now, steps));
        self.act(|session, now, steps| session.answer(7, now, steps));
        let steps = self.there(2);
        assert!(steps.contains(&"send SubAck 7".to_owned()), "{steps:?}");
        let read = steps
            .iter()
            .find_map(|step| step.strip_prefix("read ")?.split(' ').next()?.parse().ok());
        if let Some(read) = read {
            self.page(read, &[], 0, true);
        }
    }

    /// A kept subscription to `t` that has read all that is stored.
    fn reads_t(&mut self) {
        self.subscribe_all(7, &["t"]);
        let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
        let steps = self.act(|session, now, steps| session.subscribed(1, Some(7), effects, now, steps));
        assert_eq!(steps, ["begin 3"]);
        self.act(|session, now, steps| session.answer(7, now, steps));
        self.act(|session, now, steps| session.begun(3, Some(Position(0)), now, steps));
        assert_eq!(self.there(2), ["send SubAck 7", "read 4 own after 0"]);
        self.page(4, &[], 0, true);
        self.page(5, &[], 0, true);
    }

    /// Another process takes the session up.
    fn restored(saved: SavedSession) -> Self {
        let mut bench = Self::v5();
        bench.keeps = Some(keeping(2));
        let now = Now {
            instant: bench.started,
            wall: UNIX_EPOCH,
            ids: Ids::new(&bench.ids, 1),
            interest: Interest::default(),
            keeps: bench.keeps.as_ref(),
        };
        bench.session = Session::restore(Arc::new(Limits::default()), saved, keeping(2), &now);
        bench
    }
}

fn saved() -> SavedSession {
    SavedSession {
        attached: Attached {
            client: "c".into(),
            username: None,
            protocol: 5,
            connected_at: UNIX_EPOCH,
            expiry_s: 3600,
            will: None,
            epoch: 1,
        },
        left_at: Some(UNIX_EPOCH),
        subscriptions: vec![SavedSubscription {
            subscription: Subscription::new(Filter::new("t").expect("good"), Qos::ExactlyOnce),
            owes_retained: false,
        }],
        received: Vec::new(),
        sent: Vec::new(),
    }
}

fn exactly_once(id: u128) -> Arc<Run> {
    let message = message(id, "t", &format!("m{id}"), Qos::ExactlyOnce);
    Arc::new(Run::new(vec![message], Vec::new()))
}

#[test]
fn a_suback_waits_until_its_subscription_is_there() {
    let mut bench = Bench::kept();
    let steps = bench.subscribe_all(7, &["a", "b"]);
    assert_eq!(
        steps,
        [
            "keep 2 subscribed a, owes retained",
            "route 1 a",
            "subscribed 1",
            "keep 3 subscribed b, owes retained",
            "route 2 b",
            "subscribed 2",
            "answer 7"
        ]
    );
    assert!(
        bench
            .act(|session, now, steps| session.answer(7, now, steps))
            .is_empty()
    );
    assert!(bench.there(2).is_empty());
    assert!(bench.there(3).contains(&"send SubAck 7".to_owned()));
}

#[test]
fn nothing_replaces_the_commit_of_a_subscription_however_late_it_is() {
    let mut bench = Bench::kept();
    bench.subscribe_all(7, &["a"]);
    bench.act(|session, now, steps| session.answer(7, now, steps));
    assert!(bench.pass(Duration::from_secs(30)).is_empty());
    assert!(bench.there(2).contains(&"send SubAck 7".to_owned()));
}

#[test]
fn an_unsuback_waits_until_its_subscriptions_are_gone() {
    let mut bench = Bench::kept();
    bench.subscribe_all(7, &["a", "b"]);
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: 8,
        filters: ["a", "b", "never"]
            .map(|filter| Ok((None, Filter::new(filter).expect("good"))))
            .into(),
    });
    let steps = bench.receive(unsubscribe);
    assert_eq!(
        steps[steps.len() - 2..],
        ["keep 4 unsubscribed a", "keep 5 unsubscribed b"]
    );
    assert!(bench.there(4).is_empty());
    assert!(bench.there(5)[0].contains("UnsubAck"));
}

#[test]
fn a_publish_of_qos_2_leaves_when_its_packet_identifier_is_kept_and_keeps_its_place() {
    let mut bench = Bench::kept();
    bench.subscribed_to_t();
    assert_eq!(bench.deliver(&exactly_once(1)), ["keep 4 Sent 1"]);
    assert_eq!(bench.deliver(&exactly_once(2)), ["keep 5 Sent 2"]);
    let at_least_once = Arc::new(Run::new(vec![message(3, "t", "m3", Qos::AtLeastOnce)], Vec::new()));
    assert!(bench.deliver(&at_least_once).is_empty(), "it must not overtake");
    assert_eq!(bench.there(4), ["send 1 m1"]);
    assert_eq!(bench.there(5), ["send 2 m2", "send 3 m3"]);
}

#[test]
fn pubrel_leaves_when_pubrec_is_kept_and_the_exchange_ends_in_the_store() {
    let mut bench = Bench::kept();
    bench.subscribed_to_t();
    bench.deliver(&exactly_once(1));
    bench.there(4);
    assert_eq!(bench.ack(AckKind::PubRec, 1), ["keep 5 Sent 1 released"]);
    assert!(bench.ack(AckKind::PubRec, 1).is_empty(), "one PUBREL answers both");
    assert_eq!(bench.there(5), ["send PubRel 1"]);
    assert!(bench.ack(AckKind::PubComp, 1).is_empty());
    let steps = bench.pass(Duration::from_millis(50));
    assert_eq!(steps, ["keep 6 retained sent t", "keep 7 end Sent"]);
}

#[test]
fn what_comes_in_is_kept_with_its_message_and_forgotten_before_pubcomp() {
    let mut bench = Bench::kept();
    assert_eq!(
        bench.receive(publish(Qos::ExactlyOnce, 9, "x")),
        ["publish 0 t x with 9"]
    );
    bench.planned(0, &[1]);
    assert_eq!(bench.settle(0, &[Stored]), ["send PubRec 9"]);
    assert_eq!(bench.ack(AckKind::PubRel, 9), ["keep 2 end Received"]);
    assert!(bench.ack(AckKind::PubRel, 9).is_empty(), "one PUBCOMP answers both");
    assert_eq!(bench.there(2), ["send PubComp 9"]);
    assert_eq!(bench.ack(AckKind::PubRel, 9), ["send PubComp 9 0x92"]);
}

#[test]
fn a_pubcomp_is_not_sent_to_the_next_connection_unless_it_asks() {
    let mut bench = Bench::kept();
    bench.receive(publish(Qos::ExactlyOnce, 9, "x"));
    bench.planned(0, &[0]);
    bench.ack(AckKind::PubRel, 9);
    bench.lose();
    bench.come_back();
    assert!(bench.there(2).is_empty());
    assert_eq!(bench.ack(AckKind::PubRel, 9), ["send PubComp 9 0x92"]);
}

#[test]
fn what_was_kept_while_the_client_was_away_leaves_when_it_is_back_for_the_first_time() {
    let mut bench = Bench::kept();
    bench.subscribed_to_t();
    bench.deliver(&exactly_once(1));
    bench.lose();
    assert!(bench.there(4).is_empty());
    let steps = bench.come_back();
    assert!(steps.contains(&"send 1 m1".to_owned()), "without DUP: {steps:?}");
}

#[test]
fn a_write_that_fails_ends_the_connection_and_the_next_one_writes_everything_anew() {
    let mut bench = Bench::kept();
    bench.subscribe_all(7, &["a"]);
    bench.act(|session, now, steps| session.answer(7, now, steps));
    let steps = bench.act(|session, now, steps| session.kept(2, false, now, steps));
    assert_eq!(steps[..2], ["send Disconnect 0x83", "close 0x83"]);
    let steps = bench.come_back();
    assert!(
        steps[0].ends_with("attached") && steps[1].contains("subscribed a"),
        "{steps:?}"
    );
}

#[test]
fn a_session_that_ends_with_its_connection_is_not_kept() {
    let (mut bench, _) = Bench::new(Version::V5, Limits::default(), |connect| {
        connect.session_expiry_s = None
    });
    bench.keeps = Some(keeping(1));
    bench.receive(Packet::Ping);
    assert!(!bench.session.is_kept());
    assert_eq!(bench.receive(publish(Qos::ExactlyOnce, 9, "x")), ["publish 0 t x"]);
}

#[test]
fn a_session_that_ends_leaves_nothing_behind() {
    let mut bench = Bench::kept();
    bench.subscribed_to_t();
    bench.lose();
    let steps = bench.pass(Duration::from_secs(3600));
    assert_eq!(steps, ["unroute 1", "keep 6 ended true", "forget", "end"]);
}

#[test]
fn a_restored_session_is_routed_when_its_client_is_back_and_reads_on_where_it_was() {
    let mut bench = Bench::restored(saved());
    assert!(bench.act(|session, now, steps| session.tick(now, steps)).is_empty());
    let steps = bench.come_back();
    assert_eq!(
        steps,
        [
            "keep 1 attached",
            "send ConnAck true",
            "fire client.connected",
            "route 1 t",
            "returned 1"
        ]
    );
    let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
    let steps = bench.act(|session, now, steps| session.returned(1, effects, now, steps));
    assert_eq!(steps, ["begin 2"]);
    let steps = bench.act(|session, now, steps| session.begun(2, Some(Position(5)), now, steps));
    assert_eq!(steps, ["read 3 unread after 5 limit 100"]);
}

#[test]
fn half_done_exchanges_go_on_after_a_crash_and_none_of_their_messages_comes_twice() {
    let sent = |packet_id, id: u128, released| SavedSent {
        packet_id,
        id: MessageId::from_bits(id),
        released,
        message: Some((Position(id), message(id, "t", &format!("m{id}"), Qos::ExactlyOnce))),
    };
    let mut bench = Bench::restored(SavedSession {
        sent: vec![sent(1, 1, false), sent(2, 2, true), sent(3, 3, true), sent(3, 4, false)],
        ..saved()
    });
    let steps = bench.come_back();
    let resent: Vec<&String> = steps
        .iter()
        .filter(|step| step.starts_with("send") && !step.contains("Conn"))
        .collect();
    assert_eq!(resent, ["send dup 1 m1", "send PubRel 2", "send dup 3 m4"]);
    bench.act(|session, now, steps| {
        session.returned(1, vec![Effect::Backlog(Box::new(backlog(Start::Latest)))], now, steps)
    });
    bench.act(|session, now, steps| session.begun(2, Some(Position(0)), now, steps));
    let rows = (1..=5).map(|id| (Position(id), message(id, "t", &format!("m{id}"), Qos::ExactlyOnce)));
    let page = Page {
        messages: rows.collect(),
        scanned: Position(5),
        end: true,
        ..Page::default()
    };
    let steps = bench.act(|session, now, steps| session.page(3, Some(page), now, steps));
    assert_eq!(steps, ["keep 4 Sent 4"], "only the fifth is new");
    bench.ack(AckKind::PubRec, 1);
    let steps = bench.pass(Duration::from_millis(50));
    assert_eq!(
        steps,
        ["advance 3", "keep 6 end Sent"],
        "the fourth waits for its PUBREC"
    );
}

#[test]
fn a_received_packet_identifier_is_known_after_a_crash() {
    let mut bench = Bench::restored(SavedSession {
        received: vec![(9, MessageId::from_bits(1))],
        ..saved()
    });
    bench.come_back();
    assert_eq!(
        bench.receive(again(publish(Qos::ExactlyOnce, 9, "x"))),
        ["send PubRec 9"]
    );
}

#[test]
fn a_will_that_came_due_while_nobody_ran_is_published_once() {
    let will = Will {
        topic: Topic::new("gone").expect("good"),
        payload: "w".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay_s: 5,
        expiry_s: None,
        properties: Properties::default(),
    };
    let mut bench = Bench::restored(SavedSession {
        attached: Attached {
            will: Some(will),
            ..saved().attached
        },
        ..saved()
    });
    assert!(bench.act(|session, now, steps| session.tick(now, steps)).is_empty());
    let steps = bench.pass(Duration::from_secs(5));
    assert_eq!(steps, ["publish 0 gone w", "keep 1 will done"]);
}

#[test]
fn a_kept_session_of_an_absent_client_rests_in_the_store_once_all_of_it_is_there() {
    let mut bench = Bench::kept();
    bench.reads_t();
    bench.lose();
    assert_eq!(bench.pass(Duration::from_secs(5)), [""; 0], "its commits are under way");
    (1..20).for_each(|id| {
        bench.there(id);
    });
    assert_eq!(bench.pass(Duration::from_secs(5)), ["unroute 1", "rest"]);
}

#[test]
fn a_session_with_something_that_only_memory_knows_stays() {
    // A subscription that no store covers, and a QoS 1 message whose packet identifier the client knows.
    for backed in [false, true] {
        let mut bench = Bench::kept();
        match backed {
            false => bench.subscribed_to_t(),
            true => {
                bench.reads_t();
                let run = run_of(1);
                settle(&run, 0, 1);
                bench.deliver(&run);
            }
        }
        bench.lose();
        (1..20).for_each(|id| {
            bench.there(id);
        });
        assert_eq!(bench.pass(Duration::from_secs(10)), [""; 0], "backed: {backed}");
    }
}

#[test]
fn a_client_that_changes_its_session_faster_than_the_store_takes_it_is_read_later() {
    let mut bench = Bench::kept();
    let filters: Vec<String> = (0..256).map(|number| format!("f/{number}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    bench.subscribe_all(7, &filters);
    assert!(!bench.session.wants_input());
    bench.there(2);
    assert!(bench.session.wants_input());
}
