//! Retained messages that a kept session owes its client.

use super::*;

impl Bench {
    /// A kept subscription to `t`, QoS 2, whose SUBACK has left; it has just asked for the broker's retained messages.
    fn asks_for_retained(&mut self) {
        assert_eq!(self.subscribe_all(7, &["t"])[0], "keep 2 subscribed t, owes retained");
        self.act(|session, now, steps| session.subscribed(1, Some(7), Vec::new(), now, steps));
        self.act(|session, now, steps| session.answer(7, now, steps));
        assert_eq!(self.there(2), ["send SubAck 7", "read 3 own after 0"]);
    }
}

/// A session that a crash has left while it owed its client the retained messages of `t`.
fn owing() -> SavedSession {
    let mut saved = saved();
    saved.subscriptions[0].owes_retained = true;
    saved
}

fn retained(rows: &[(u128, Qos)]) -> Option<Page> {
    let row = |(id, qos): &(u128, Qos)| {
        let message = Message {
            retain: true,
            ..message(*id, "t", &format!("m{id}"), *qos)
        };
        (Position(*id), message)
    };
    Some(Page {
        messages: rows.iter().map(row).collect(),
        scanned: Position(rows.last().map_or(0, |(id, _)| *id)),
        end: true,
        ..Page::default()
    })
}

#[test]
fn retained_messages_are_owed_until_they_are_acknowledged() {
    let mut bench = Bench::kept();
    bench.asks_for_retained();
    assert_eq!(bench.page(3, &[1, 2], 2, true), ["send 1 m1", "send 2 m2"]);
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(bench.pass(Duration::from_millis(50)), [""; 0]);
    bench.ack(AckKind::PubAck, 2);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["keep 4 retained sent t"]);
}

#[test]
fn what_is_sent_with_qos_0_or_not_asked_for_is_not_owed() {
    let mut bench = Bench::kept();
    assert_eq!(
        bench.receive(subscribe_with("a", Qos::AtMostOnce, 0))[0],
        "keep 2 subscribed a"
    );
    assert_eq!(
        bench.receive(subscribe_with("b", Qos::AtLeastOnce, 2))[0],
        "keep 3 subscribed b"
    );
    for (packet, owes) in [(4, ", owes retained"), (5, "")] {
        let steps = bench.receive(subscribe_with("c", Qos::AtLeastOnce, 1));
        assert_eq!(
            steps[0],
            format!("keep {packet} subscribed c{owes}"),
            "only where it is new"
        );
    }
}

fn subscribe_with(filter: &str, qos: Qos, retain_handling: u8) -> Packet {
    let filter = Filter::new(filter.to_owned()).expect("good");
    let subscription = Subscription {
        retain_handling,
        ..Subscription::new(filter, qos)
    };
    Packet::Subscribe(Box::new(Subscribe {
        packet_id: 9,
        identifier: None,
        filters: vec![Ok(subscription)],
    }))
}

#[test]
fn a_restored_session_sends_the_retained_messages_that_it_owes() {
    let mut bench = Bench::restored(owing());
    let steps = bench.come_back();
    assert_eq!(steps.last().map(String::as_str), Some("returned 1"));
    let effects = vec![Effect::Retained(Filter::new("t").expect("good"), pool(), 100)];
    let steps = bench.act(|session, now, steps| session.returned(1, effects, now, steps));
    assert_eq!(steps, ["read 2 own after 0"]);
    assert_eq!(bench.page(2, &[], 0, true), ["read 3 retained after 0"]);
    assert_eq!(bench.page(3, &[1], 1, true), ["send 1 m1"]);
    bench.ack(AckKind::PubAck, 1);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["keep 4 retained sent t"]);
}

#[test]
fn a_restored_session_sends_no_retained_message_of_qos_2_that_its_client_has() {
    let sent = |packet_id, id: u128, released| SavedSent {
        packet_id,
        id: MessageId::from_bits(id),
        released,
        message: (!released).then(|| (Position(id), message(id, "t", &format!("m{id}"), Qos::ExactlyOnce))),
    };
    let mut bench = Bench::restored(SavedSession {
        sent: vec![sent(1, 1, true), sent(2, 2, false)],
        ..owing()
    });
    bench.come_back();
    bench.act(|session, now, steps| session.returned(1, Vec::new(), now, steps));
    let page = retained(&[(1, Qos::ExactlyOnce), (2, Qos::ExactlyOnce), (3, Qos::ExactlyOnce)]);
    let steps = bench.act(|session, now, steps| session.page(2, page, now, steps));
    assert_eq!(
        steps,
        ["keep 3 Sent 3"],
        "the first was received, the second is sent again"
    );
}

#[test]
fn what_its_client_has_is_remembered_as_long_as_retained_messages_are_owed() {
    let mut bench = Bench::kept();
    bench.asks_for_retained();
    let page = retained(&[(1, Qos::ExactlyOnce), (2, Qos::AtLeastOnce)]);
    let steps = bench.act(|session, now, steps| session.page(3, page, now, steps));
    assert_eq!(steps, ["keep 4 Sent 1"]);
    assert_eq!(bench.there(4), ["send 1 m1", "send 2 m2"]);
    bench.ack(AckKind::PubRec, 1);
    bench.there(5);
    bench.ack(AckKind::PubComp, 1);
    assert_eq!(
        bench.pass(Duration::from_millis(50)),
        [""; 0],
        "a crash would bring it back"
    );
    bench.ack(AckKind::PubAck, 2);
    let steps = bench.pass(Duration::from_millis(50));
    assert_eq!(steps, ["keep 6 retained sent t", "keep 7 end Sent"]);
}

#[test]
fn a_session_that_owes_retained_messages_stays_and_goes_on_when_its_client_is_back() {
    let mut bench = Bench::kept();
    bench.asks_for_retained();
    bench.lose();
    (1..20).for_each(|id| {
        bench.there(id);
    });
    assert_eq!(bench.pass(Duration::from_secs(10)), [""; 0]);
    assert_eq!(bench.page(3, &[1], 1, true), [""; 0], "the answer came too late");
    let steps = bench.come_back();
    let read = steps.last().expect("it reads on");
    assert!(read.starts_with("read ") && read.ends_with(" own after 0"), "{steps:?}");
}

#[test]
fn where_the_queue_has_no_room_the_rest_is_read_again() {
    let limits = Limits {
        inflight_max: 4,
        queue_len_max: 1,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    bench.receive(subscribe("t", 1));
    bench.act(|session, now, steps| session.subscribed(1, Some(1), Vec::new(), now, steps));
    assert_eq!(
        bench.act(|session, now, steps| session.answer(1, now, steps)),
        ["send SubAck 1", "read 1 own after 0"]
    );
    bench.receive(subscribe("u", 2));
    bench.act(|session, now, steps| session.subscribed(2, Some(2), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(2, now, steps));
    // Meanwhile others fill the window.
    bench.page(2, &[11, 12, 13], 13, true);
    assert_eq!(
        bench.page(1, &[1, 2, 3], 3, true),
        ["send 4 m1"],
        "one fits the window, one the queue"
    );
    assert_eq!(bench.ack(AckKind::PubAck, 1), ["send 5 m2"]);
    let steps = [2, 3, 4].map(|packet_id| bench.ack(AckKind::PubAck, packet_id).join(" "));
    assert!(steps.concat().contains("own after 2"), "{steps:?}");
}
