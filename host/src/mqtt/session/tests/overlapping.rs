//! Several subscriptions that match one message, and subscriptions that are made again, while the store is read.

use super::*;

/// Subscribes to a filter with an identifier; the rules ask for its backlog.
fn subscribe_to(bench: &mut Bench, sub: SubId, filter: &str, identifier: u32) {
    let Packet::Subscribe(mut packet) = subscribe(filter, sub as u16) else {
        panic!("a SUBSCRIBE")
    };
    packet.identifier = Some(identifier);
    bench.receive(Packet::Subscribe(packet));
    let mut asked = backlog(Start::Latest);
    asked.reader.filter = Filter::new(filter.to_owned()).expect("a good filter");
    let effects = vec![Effect::Backlog(Box::new(asked))];
    let id = Some(sub as u16);
    bench.act(|session, now, steps| session.subscribed(sub, id, effects, now, steps));
    bench.act(|session, now, steps| session.answer(sub as u16, now, steps));
}

fn copies(steps: Vec<Step>) -> Vec<(u16, Vec<u32>)> {
    let copies = steps.into_iter().filter_map(|step| match step {
        Step::Send(Outgoing::Publish(copy)) => Some((copy.packet_id, copy.identifiers.to_vec())),
        _ => None,
    });
    copies.collect()
}

/// A page with row 7 for this question.
fn page_of_7(bench: &mut Bench, read: ReadId) -> Vec<(u16, Vec<u32>)> {
    let page = Page {
        messages: vec![(Position(7), message(7, "t", "m7", Qos::AtLeastOnce))],
        scanned: Position(7),
        end: true,
        ..Page::default()
    };
    copies(bench.act_raw(|session, now, steps| session.page(read, Some(page), now, steps)))
}

/// Two subscriptions, `t` with identifier 10 and `+` with 20, that are reading their backlogs (reads 5 and 6).
fn two_readers() -> Bench {
    let mut bench = Bench::v5();
    subscribe_to(&mut bench, 1, "t", 10);
    bench.act(|session, now, steps| session.begun(1, Some(Position(0)), now, steps));
    subscribe_to(&mut bench, 2, "+", 20);
    bench.act(|session, now, steps| session.begun(3, Some(Position(0)), now, steps));
    assert_eq!(bench.page(2, &[], 0, true), ["read 5 unread after 0 limit 100"]);
    assert_eq!(bench.page(4, &[], 0, true), ["read 6 unread after 0 limit 100"]);
    bench
}

/// [5:MQTT-3.3.4-4]
#[test]
fn a_row_that_two_subscriptions_read_comes_once_with_both_identifiers() {
    for first in [5, 6] {
        for live_comes_first in [true, false] {
            let mut bench = two_readers();
            let live = run_from(7, 1);
            settle(&live, 0, 7);
            let deliver = |bench: &mut Bench| {
                copies(bench.act_raw(|session, now, steps| session.deliver(&live, &[1, 2], now, steps)))
            };
            if live_comes_first {
                assert_eq!(deliver(&mut bench), [], "it is held");
            }
            let mut seen = page_of_7(&mut bench, first);
            seen[0].1.sort_unstable();
            assert_eq!(seen, [(1, vec![10, 20])]);
            bench.ack(AckKind::PubAck, 1);
            assert_eq!(page_of_7(&mut bench, 11 - first), [], "it is acknowledged");
            if !live_comes_first {
                assert_eq!(deliver(&mut bench), [], "both have it");
            }
            assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 7", "advance 7"]);
        }
    }
}

/// [5:MQTT-3.3.4-4]
#[test]
fn a_subscription_without_a_backlog_shares_the_copy_of_those_that_have_one() {
    let mut bench = two_readers();
    let Packet::Subscribe(mut packet) = subscribe("#", 3) else {
        panic!("a SUBSCRIBE")
    };
    packet.identifier = Some(30);
    bench.receive(Packet::Subscribe(packet));
    bench.act(|session, now, steps| session.subscribed(3, Some(3), vec![], now, steps));
    bench.act(|session, now, steps| session.answer(3, now, steps));
    bench.page(7, &[], 0, true);
    assert_eq!(page_of_7(&mut bench, 5), [(1, vec![10, 20, 30])]);
    let live = run_from(7, 1);
    let late = bench.act_raw(|session, now, steps| session.deliver(&live, &[1, 2, 3], now, steps));
    assert_eq!(copies(late), []);
}

#[test]
fn subscribing_again_before_its_reader_knows_where_it_begins_keeps_the_order() {
    let mut bench = Bench::v5();
    bench.receive(subscribe("t", 1));
    let effects = || vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
    bench.act(|session, now, steps| session.subscribed(1, Some(1), effects(), now, steps));
    bench.act(|session, now, steps| session.answer(1, now, steps));
    let live = run_of(2);
    assert_eq!(bench.deliver(&live), [""; 0], "held");
    bench.receive(subscribe("t", 2));
    let asked = bench.act(|session, now, steps| session.subscribed(1, Some(2), effects(), now, steps));
    assert_eq!(asked, [""; 0], "the question is on its way");
    bench.act(|session, now, steps| session.answer(2, now, steps));
    let seen = bench.act(|session, now, steps| session.begun(1, Some(Position(0)), now, steps));
    assert_eq!(seen, ["send SubAck 1", "read 2 own after 0", "send SubAck 2"]);
    bench.page(2, &[], 0, true);
    assert_eq!(
        bench.page(3, &[1, 2, 3], 3, true),
        ["send 1 m1", "send 2 m2", "send 3 m3"]
    );
}

/// [5:MQTT-4.6.0-6]
#[test]
fn what_no_store_has_does_not_overtake_what_is_held_before_it() {
    let mut bench = Bench::v5();
    bench.subscribe_with_backlog(Start::Latest, 0);
    bench.page(2, &[], 0, true);
    let live = run_of(1);
    assert_eq!(bench.deliver(&live), [""; 0], "held while the backlog is read");
    let unstored = |id, qos| Arc::new(Run::new(vec![message(id, "t", &format!("u{id}"), qos)], vec![]));
    assert_eq!(bench.deliver(&unstored(2, Qos::AtLeastOnce)), [""; 0], "behind it");
    assert_eq!(
        bench.deliver(&unstored(3, Qos::AtMostOnce)),
        ["send 0 u3"],
        "of another QoS"
    );
    settle(&live, 0, 1);
    let later = run_from(4, 1);
    assert_eq!(bench.deliver(&later), [""; 0]);
    settle(&live, 0, 1);
    settle(&later, 0, 4);
    let seen = bench.page(3, &[1, 4], 4, true);
    assert_eq!(seen, ["send 1 m1", "send 2 u2", "send 3 m4"]);
}

/// [5:MQTT-4.6.0-6]
#[test]
fn what_was_stored_just_before_the_reader_began_comes_before_what_was_stored_behind_it() {
    let mut bench = Bench::v5();
    bench.receive(subscribe("t", 1));
    let effects = vec![Effect::Backlog(Box::new(backlog(Start::Latest)))];
    bench.act(|session, now, steps| session.subscribed(1, Some(1), effects, now, steps));
    bench.act(|session, now, steps| session.answer(1, now, steps));
    let live = run_of(3);
    assert_eq!(bench.deliver(&live), [""; 0], "held");
    (0..3).for_each(|index| settle(&live, index, 1 + index as u128));
    bench.act(|session, now, steps| session.begun(1, Some(Position(2)), now, steps));
    bench.page(2, &[], 0, true);
    assert_eq!(bench.page(3, &[3], 3, true), ["send 1 m1", "send 2 m2", "send 3 m3"]);
}

#[test]
fn what_is_dropped_from_the_hold_of_one_subscription_is_read_by_the_reader_of_another() {
    let limits = Limits {
        queue_len_max: 1,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    bench.subscribe_live(Start::Latest, 0);
    bench.receive(subscribe("+", 2));
    bench.act(|session, now, steps| session.subscribed(2, Some(2), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(2, now, steps));
    // The second still reads what is retained, and has no reader of its own.
    let run = run_of(3);
    let steps = bench.act(|session, now, steps| session.deliver(&run, &[2, 1], now, steps));
    assert_eq!(
        steps,
        ["read 5 unread after 0 limit 100"],
        "one is held, then all are left to the store"
    );
    (0..3).for_each(|index| settle(&run, index, 1 + index as u128));
    assert_eq!(bench.page(4, &[], 0, true), [""; 0]);
    assert_eq!(
        bench.page(5, &[1, 2, 3], 3, true)[..3],
        ["send 1 m1", "send 2 m2", "send 3 m3"]
    );
}

#[test]
fn what_a_subscription_held_when_it_ended_is_read_by_the_reader_of_another() {
    let mut bench = Bench::v5();
    bench.subscribe_live(Start::Latest, 0);
    bench.receive(subscribe("+", 2));
    bench.act(|session, now, steps| session.subscribed(2, Some(2), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(2, now, steps));
    let run = run_of(1);
    let steps = bench.act(|session, now, steps| session.deliver(&run, &[2, 1], now, steps));
    assert_eq!(steps, [""; 0], "it is held while the second reads what is retained");
    let steps = bench.receive(Packet::Unsubscribe(crate::mqtt::packet::Unsubscribe {
        packet_id: 3,
        filters: vec![Ok((None, Filter::new("+").expect("good")))],
    }));
    assert!(
        steps.contains(&"read 5 unread after 0 limit 100".to_owned()),
        "{steps:?}"
    );
}

#[test]
fn a_row_takes_out_of_the_hold_of_another_only_what_came_before_it_on_its_topic() {
    let mut hold = crate::mqtt::session::live::Hold::default();
    let delivery = |id: u128, topic: &str| {
        let run = Arc::new(Run::new(vec![message(id, topic, "m", Qos::AtLeastOnce)], Vec::new()));
        crate::mqtt::session::outbound::Delivery {
            run,
            index: 0,
            qos: Qos::AtLeastOnce,
            retain: false,
            identifiers: Arc::default(),
            readers: Default::default(),
            round: None,
            share: None,
        }
    };
    for (id, topic) in [(1, "t"), (2, "u"), (3, "t"), (4, "t")] {
        assert!(hold.push(delivery(id, topic), &Limits::default()).is_some());
    }
    let taken = hold.take_with_its_topic(delivery(3, "t").message().id);
    let (before, found) = taken.expect("it is held");
    let ids = |held: &[&crate::mqtt::session::outbound::Delivery]| -> Vec<u128> {
        held.iter().map(|delivery| delivery.message().id.bits()).collect()
    };
    assert_eq!(ids(&before.iter().collect::<Vec<_>>()), [1]);
    assert_eq!(found.message().id.bits(), 3);
    assert_eq!(ids(&hold.held.iter().collect::<Vec<_>>()), [2, 4]);
    assert_eq!(hold.bytes, 2 * delivery(2, "u").message().size_bytes());
}

#[test]
fn what_a_subscription_held_when_it_ended_and_no_store_has_is_delivered() {
    let mut bench = Bench::v5();
    bench.receive(subscribe("+", 2));
    bench.act(|session, now, steps| session.subscribed(1, Some(2), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(2, now, steps));
    let run = Arc::new(Run::new(vec![message(9, "t", "m9", Qos::AtLeastOnce)], Vec::new()));
    assert_eq!(
        bench.deliver(&run),
        [""; 0],
        "it is held while it reads what is retained"
    );
    let steps = bench.receive(Packet::Unsubscribe(crate::mqtt::packet::Unsubscribe {
        packet_id: 3,
        filters: vec![Ok((None, Filter::new("+").expect("good")))],
    }));
    assert!(steps.contains(&"send 1 m9".to_owned()), "{steps:?}");
}
