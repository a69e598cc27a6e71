//! What is sent to the client, and sent again: the window, the largest packet, expiry, packet identifiers.

use super::*;

/// A subscription to `t`, live, of a client that said this.
fn live(adjust: impl FnOnce(&mut Connect)) -> Bench {
    let (mut bench, _) = Bench::new(Version::V5, Limits::default(), adjust);
    bench.subscribe_live(Start::Latest, 0);
    bench
}

/// A run of one message that no store has.
fn unstored(message: Message) -> Arc<Run> {
    Arc::new(Run::new(vec![message], Vec::new()))
}

fn qos2(id: u128, payload: &str) -> Arc<Run> {
    unstored(message(id, "t", payload, Qos::ExactlyOnce))
}

/// A message of this expiry.
fn expiring(id: u128, qos: Qos, seconds: u64) -> Arc<Run> {
    unstored(Message {
        expires: Some(UNIX_EPOCH + Duration::from_secs(seconds)),
        ..message(id, "t", "fresh", qos)
    })
}

fn copies(steps: &[Step]) -> Vec<&crate::mqtt::packet::Copy> {
    let copies = steps.iter().map(|step| match step {
        Step::Send(Outgoing::Publish(copy)) => Some(copy),
        _ => None,
    });
    copies.flatten().collect()
}

#[test]
fn what_is_sent_again_keeps_to_the_window_of_the_new_connection() {
    let mut bench = live(|_| {});
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.deliver(&qos2(id, payload));
    }
    bench.ack(AckKind::PubRec, 1);
    bench.lose();
    bench.deliver(&qos2(4, "d"));
    let seen = bench.come_back_with(|connect| connect.receive_max = 2);
    let sent = |seen: &[String]| -> Vec<String> {
        let sent = seen
            .iter()
            .filter(|step| step.starts_with("send") && !step.contains("ConnAck"));
        sent.cloned().collect()
    };
    assert_eq!(sent(&seen), ["send PubRel 1", "send dup 2 b"]);
    // An acknowledgement of what was not sent again yet counts, too: it was under way.
    assert_eq!(sent(&bench.ack(AckKind::PubRec, 3)), ["send PubRel 3"]);
    assert_eq!(sent(&bench.ack(AckKind::PubComp, 3)), [""; 0]);
    assert_eq!(sent(&bench.ack(AckKind::PubComp, 1)), ["send 4 d"]);
}

#[test]
fn what_is_sent_again_says_what_is_left_of_its_expiry() {
    let mut bench = live(|_| {});
    bench.deliver(&expiring(1, Qos::AtLeastOnce, 10));
    for (seconds, left) in [(0, 10), (4, 6), (5, 1), (5, 1)] {
        bench.lose();
        bench.clock += Duration::from_secs(seconds);
        let who = client("c", 5, 3600);
        let steps = bench.act_raw(|session, now, steps| session.resume(who, connect(Version::V5), now, steps));
        let expiries: Vec<_> = copies(&steps).iter().map(|copy| copy.expiry_s).collect();
        assert_eq!(expiries, [Some(left)], "{seconds} s later");
    }
}

/// [5:MQTT-4.3.3-7]
#[test]
fn a_message_that_was_begun_is_finished_though_it_has_expired() {
    let mut bench = live(|_| {});
    bench.deliver(&expiring(1, Qos::ExactlyOnce, 10));
    bench.pass(Duration::from_secs(11));
    assert_eq!(bench.ack(AckKind::PubRec, 1), ["send PubRel 1"]);
    bench.lose();
    assert!(bench.come_back().contains(&"send PubRel 1".to_owned()));
    assert_eq!(bench.ack(AckKind::PubComp, 1), [""; 0]);
}

/// [5:MQTT-3.1.2-24] [5:MQTT-3.1.2-25]
#[test]
fn the_largest_packet_that_a_client_accepts_is_sent_and_a_larger_one_counts_as_sent() {
    // Fixed header 2, topic 3, packet identifier 2, property length 1.
    for (payload, sent) in [(12, true), (13, false)] {
        let mut bench = live(|connect| connect.packet_bytes_max = Some(20));
        bench.deliver(&unstored(message(1, "t", &"x".repeat(payload), Qos::AtLeastOnce)));
        let after = bench.deliver(&unstored(message(2, "t", "after", Qos::AtLeastOnce)));
        assert_eq!(
            after,
            [if sent { "send 2 after" } else { "send 1 after" }],
            "{payload} bytes"
        );
        assert_eq!(bench.session.take_books().dropped_too_large, u64::from(!sent));
    }
}

#[test]
fn what_the_client_does_not_accept_any_more_is_not_sent_again() {
    let mut bench = live(|_| {});
    bench.deliver(&unstored(message(1, "t", &"x".repeat(13), Qos::AtLeastOnce)));
    bench.deliver(&unstored(message(2, "t", "small", Qos::AtLeastOnce)));
    bench.lose();
    let seen = bench.come_back_with(|connect| connect.packet_bytes_max = Some(20));
    let sent: Vec<_> = seen.iter().filter(|step| step.starts_with("send dup")).collect();
    assert_eq!(sent, ["send dup 2 small"]);
}

#[test]
fn a_client_may_use_the_whole_receive_maximum_for_qos_2() {
    let limits = Limits {
        receive_max: 2,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    assert_eq!(bench.receive(publish(Qos::ExactlyOnce, 1, "a")), ["publish 0 t a"]);
    assert_eq!(bench.receive(publish(Qos::ExactlyOnce, 2, "b")), ["publish 1 t b"]);
    let seen = bench.receive(publish(Qos::ExactlyOnce, 3, "c"));
    assert!(seen.contains(&"close 0x93".to_owned()), "{seen:?}");
}

/// [5:MQTT-4.3.3-9]
#[test]
fn after_a_pubrec_that_refused_the_identifier_is_free() {
    let mut bench = Bench::v5();
    bench.receive(publish(Qos::ExactlyOnce, 1, "a"));
    bench.planned(0, &[1]);
    let refused = bench.settle(0, &[Refused(Reason::QUOTA_EXCEEDED)]);
    assert_eq!(refused, ["send PubRec 1 0x97"]);
    assert_eq!(
        bench.receive(again(publish(Qos::ExactlyOnce, 1, "a"))),
        ["publish 1 t a"]
    );
}
