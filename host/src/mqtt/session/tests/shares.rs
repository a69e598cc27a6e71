//! Stories about members of a shared subscription (MQTT 5, 4.8.2).

use super::*;

const GROUP: &str = "$share/g/t";

/// A member of [`GROUP`] whose window takes two messages.
fn member(expiry_s: u32) -> Bench {
    let limits = Limits {
        inflight_max: 2,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |connect| connect.session_expiry_s = Some(expiry_s));
    let (share, filter) = Filter::parse_subscription(GROUP).expect("a good filter");
    let subscription = Subscription {
        share: share.map(Arc::from),
        ..Subscription::new(filter, Qos::ExactlyOnce)
    };
    let seen = bench.receive(Packet::Subscribe(Box::new(Subscribe {
        packet_id: 1,
        identifier: None,
        filters: vec![Ok(subscription)],
    })));
    assert_eq!(seen[..2], [format!("route 1 {GROUP}"), format!("joined {GROUP}")]);
    bench.act(|session, now, steps| session.subscribed(1, Some(1), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(1, now, steps));
    bench
}

fn give(bench: &mut Bench, id: u128, qos: Qos) -> Vec<String> {
    let run = Arc::new(Run::new(vec![message(id, "t", &format!("m{id}"), qos)], Vec::new()));
    bench.deliver(&run)
}

/// What is handed on, in order.
fn handed_on(seen: &[String]) -> Vec<&str> {
    seen.iter()
        .filter_map(|step| step.strip_prefix("hand on $share/g/t "))
        .collect()
}

#[test]
fn the_end_of_a_session_hands_on_what_was_not_acknowledged_and_what_was_not_sent() {
    let mut bench = member(0);
    assert_eq!(give(&mut bench, 1, Qos::AtLeastOnce), ["send 1 m1"]);
    assert_eq!(give(&mut bench, 2, Qos::ExactlyOnce), ["send 2 m2"]);
    for (id, qos) in [(3, Qos::ExactlyOnce), (4, Qos::AtLeastOnce)] {
        assert_eq!(give(&mut bench, id, qos), [""; 0]);
    }
    let seen = bench.lose();
    // [MQTT-4.8.2-5]: m2 may have arrived, so nobody else may get it.
    assert_eq!(handed_on(&seen), ["m1", "m3", "m4"]);
    assert_eq!(seen.last().map(String::as_str), Some("end"));
}

#[test]
fn a_disconnected_member_offers_what_it_was_not_sent_and_keeps_the_rest() {
    let mut bench = member(3600);
    (1..=4).for_each(|id| _ = give(&mut bench, id, [Qos::AtLeastOnce, Qos::ExactlyOnce][id as usize % 2]));
    let seen = bench.lose();
    assert_eq!(seen.last().map(String::as_str), Some("offer $share/g/t"));
    assert_eq!(handed_on(&seen), [""; 0], "nobody may be there to take it");
    let seen = bench.act(|session, _, steps| session.hand_on(GROUP, steps));
    assert_eq!(handed_on(&seen), ["m3", "m4"]);
    // [MQTT-4.8.2-4]: what was sent is completed with the same client.
    let seen = bench.come_back();
    assert!(seen.contains(&format!("joined {GROUP}")), "{seen:?}");
    let sent: Vec<_> = seen.iter().filter(|step| step.starts_with("send dup")).collect();
    assert_eq!(sent, ["send dup 1 m1", "send dup 2 m2"]);
}

#[test]
fn while_nobody_is_there_messages_wait_and_each_is_offered() {
    let mut bench = member(3600);
    assert_eq!(
        bench.lose().last().map(String::as_str),
        Some("fire client.disconnected")
    );
    assert_eq!(give(&mut bench, 1, Qos::AtLeastOnce), ["offer $share/g/t"]);
    assert_eq!(give(&mut bench, 2, Qos::AtLeastOnce), ["offer $share/g/t"]);
    let group: Arc<str> = GROUP.into();
    assert_eq!(
        bench.act(|session, _, steps| session.offer(&group, steps)),
        ["offer $share/g/t"]
    );
    let seen = bench.come_back();
    let sent: Vec<_> = seen.iter().filter(|step| step.contains(" m")).collect();
    assert_eq!(sent, ["send 1 m1", "send 2 m2"]);
    assert_eq!(bench.act(|session, _, steps| session.offer(&group, steps)), [""; 0]);
    assert_eq!(
        bench.act(|session, _, steps| session.hand_on(GROUP, steps)),
        [""; 0],
        "the client came back in between"
    );
}

#[test]
fn unsubscribing_hands_on_what_was_not_sent() {
    let mut bench = member(3600);
    (1..=3).for_each(|id| _ = give(&mut bench, id, Qos::AtLeastOnce));
    let (share, filter) = Filter::parse_subscription(GROUP).expect("a good filter");
    let seen = bench.receive(Packet::Unsubscribe(crate::mqtt::packet::Unsubscribe {
        packet_id: 2,
        filters: vec![Ok((share.map(Arc::from), filter))],
    }));
    assert_eq!(handed_on(&seen), ["m3"]);
    // [MQTT-3.10.4-3]: what was sent is completed.
    assert_eq!(bench.ack(AckKind::PubAck, 1), [""; 0]);
    let seen = bench.act(|session, now, steps| session.end(now, steps));
    assert_eq!(handed_on(&seen), ["m2"], "until the session ends");
}

#[test]
fn a_refused_message_is_given_to_nobody() {
    let mut bench = member(0);
    give(&mut bench, 1, Qos::AtLeastOnce);
    give(&mut bench, 2, Qos::ExactlyOnce);
    for (kind, packet_id) in [(AckKind::PubAck, 1), (AckKind::PubRec, 2)] {
        let reason = Reason::QUOTA_EXCEEDED;
        let seen = bench.receive(Packet::Ack(Ack {
            kind,
            packet_id,
            reason,
        }));
        assert_eq!(seen, [""; 0]);
    }
    assert_eq!(handed_on(&bench.lose()), [""; 0]); // [MQTT-4.8.2-6]
}
