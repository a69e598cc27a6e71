//! More waits for a client than may: who goes, and who never does.

use super::*;
use crate::mqtt::limits::QueueFull;

/// A window of one message and a queue of two.
fn bench(queue_full: QueueFull) -> Bench {
    let limits = Limits {
        inflight_max: 1,
        queue_len_max: 2,
        queue_full,
        ..Limits::default()
    };
    Bench::new(Version::V5, limits, |_| {}).0
}

/// Subscribes with a backlog that is empty.
fn subscribe_live(bench: &mut Bench) {
    bench.subscribe_with_backlog(Start::Latest, 0);
    bench.page(2, &[], 0, true);
    assert_eq!(bench.page(3, &[], 0, true), [""; 0]);
}

/// Messages that no store has.
fn unstored(ids: impl IntoIterator<Item = u128>) -> Arc<Run> {
    let messages = ids.into_iter();
    let messages = messages.map(|id| message(id, "t", &format!("m{id}"), Qos::AtLeastOnce));
    Arc::new(Run::new(messages.collect(), Vec::new()))
}

/// Acknowledges one after the other; answers what comes for each.
fn drain(bench: &mut Bench, packet_ids: impl IntoIterator<Item = u16>) -> Vec<String> {
    let acks = packet_ids.into_iter();
    acks.flat_map(|packet_id| bench.ack(AckKind::PubAck, packet_id))
        .filter(|step| step.starts_with("send"))
        .collect()
}

/// What was dropped: for want of room, and for newer ones.
fn dropped(bench: &mut Bench) -> (u64, u64) {
    let books = bench.session.take_books();
    (books.dropped_queue_full, books.dropped_evicted)
}

#[test]
fn the_oldest_or_the_newest_goes_as_configured() {
    for (queue_full, left, lost) in [
        (QueueFull::DropOld, ["send 2 m4", "send 3 m5"], (0, 2)),
        (QueueFull::DropNew, ["send 2 m2", "send 3 m3"], (2, 0)),
    ] {
        let mut bench = bench(queue_full);
        subscribe_live(&mut bench);
        assert_eq!(bench.deliver(&unstored(1..=5)), ["send 1 m1"]);
        assert_eq!(drain(&mut bench, 1..=3), left, "{queue_full:?}");
        assert_eq!(dropped(&mut bench), lost, "{queue_full:?}");
    }
}

#[test]
fn the_same_for_an_absent_client_and_for_messages_that_wait_for_older_ones() {
    let mut away = bench(QueueFull::DropOld);
    subscribe_live(&mut away);
    away.lose();
    assert_eq!(away.deliver(&unstored(1..=5)), [""; 0]);
    assert!(away.come_back().contains(&"send 1 m4".to_owned()));
    assert_eq!(
        (drain(&mut away, 1..=2), dropped(&mut away)),
        (vec!["send 2 m5".to_owned()], (0, 3))
    );

    let mut held = bench(QueueFull::DropOld);
    held.subscribe_with_backlog(Start::Latest, 0);
    // Retained messages are read first.
    assert_eq!(held.deliver(&unstored(1..=5)), [""; 0]);
    held.page(2, &[], 0, true);
    assert_eq!(held.page(3, &[], 0, true), ["send 1 m4"]);
    assert_eq!(
        (drain(&mut held, 1..=2), dropped(&mut held)),
        (vec!["send 2 m5".to_owned()], (0, 3))
    );
}

#[test]
fn as_many_go_as_the_newer_one_has_bytes_and_none_where_that_is_not_enough() {
    let large = |id: u128, bytes: usize| {
        let messages = vec![message(id, "t", &"x".repeat(bytes), Qos::AtLeastOnce)];
        Arc::new(Run::new(messages, Vec::new()))
    };
    let limits = Limits {
        inflight_max: 1,
        queue_bytes_max: 1500,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    subscribe_live(&mut bench);
    bench.deliver(&unstored(1..=5));
    assert_eq!(bench.session.outbound.waiting().0, 4);
    bench.deliver(&large(6, 2000));
    assert_eq!((bench.session.outbound.waiting().0, dropped(&mut bench)), (4, (1, 0)));
    bench.deliver(&large(7, 1000));
    let (left, (_, evicted)) = (bench.session.outbound.waiting(), dropped(&mut bench));
    assert!(
        left.0 as u64 == 5 - evicted && (2..=4).contains(&evicted) && left.1 <= 1500,
        "{left:?} {evicted}"
    );
    bench.deliver(&large(8, 1000));
    drain(&mut bench, 1..=5);
    assert_eq!(bench.session.outbound.waiting(), (0, 0), "the bytes are counted right");
}

#[test]
fn what_the_store_has_is_never_the_one_that_goes() {
    let mut bench = bench(QueueFull::DropOld);
    subscribe_live(&mut bench);
    let stored = run_of(2);
    assert_eq!(bench.deliver(&stored), ["send 1 m1"]);
    bench.deliver(&unstored([11, 12, 13]));
    let third = run_from(3, 1);
    bench.deliver(&third);
    (0..2).for_each(|index| settle(&stored, index, 1 + index as u128));
    settle(&third, 0, 3);
    assert_eq!(drain(&mut bench, 1..=3), ["send 2 m2", "send 3 m13"]);
    assert_eq!(dropped(&mut bench), (0, 2));
    // Read again from the store: the two are known, the third comes.
    bench.page(4, &[1], 1, false);
    bench.page(5, &[2], 2, false);
    assert_eq!(bench.page(6, &[3], 3, true), ["send 4 m3"]);
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 2"]);
}

#[test]
fn a_queue_full_of_what_the_store_has_has_no_room_for_others() {
    let mut bench = bench(QueueFull::DropOld);
    subscribe_live(&mut bench);
    bench.deliver(&run_of(3));
    bench.deliver(&unstored([11]));
    assert_eq!(drain(&mut bench, 1..=2), ["send 2 m2", "send 3 m3"]);
    assert_eq!(dropped(&mut bench), (1, 0));
}

#[test]
fn what_was_taken_out_of_its_buffer_still_moves_the_position() {
    let limits = Limits {
        inflight_max: 1,
        queue_bytes_max: 100_000,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    subscribe_live(&mut bench);
    let stored = run_of(3);
    stored.came_in(64 * 1024);
    assert_eq!(bench.deliver(&stored), ["send 1 m1"]);
    assert_eq!(
        Arc::strong_count(&stored),
        5,
        "we have it, and of the window and the first in the queue each message and reader; the second has its own"
    );
    assert_eq!(drain(&mut bench, 1..=3), ["send 2 m2", "send 3 m3"]);
    assert_eq!(
        bench.pass(Duration::from_millis(50)),
        [""; 0],
        "the commit is under way"
    );
    (0..3).for_each(|index| settle(&stored, index, 1 + index as u128));
    assert_eq!(bench.pass(Duration::from_millis(50)), ["advance 3"]);
}

#[test]
fn a_retained_copy_that_found_no_place_is_read_again_and_one_that_has_gives_way_to_nobody() {
    for queue_full in [QueueFull::DropOld, QueueFull::DropNew] {
        let limits = Limits {
            inflight_max: 2,
            queue_len_max: 1,
            queue_full,
            ..Limits::default()
        };
        let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
        let filter = Filter::new("t").expect("good");
        for (sub, text, effects) in [
            (1, "+", vec![]),
            (
                2,
                "t",
                vec![
                    Effect::Retained(filter, pool(), 3),
                    Effect::Backlog(Box::new(backlog(Start::Latest))),
                ],
            ),
        ] {
            bench.receive(subscribe(text, sub as u16));
            let id = Some(sub as u16);
            bench.act(|session, now, steps| session.subscribed(sub, id, effects, now, steps));
            bench.act(|session, now, steps| session.answer(sub as u16, now, steps));
        }
        // Questions: 1 the own retained ones of the first, 2 where the backlog begins, 3 and 4 retained.
        bench.page(1, &[], 0, true);
        bench.act(|session, now, steps| session.begun(2, Some(Position(0)), now, steps));
        assert_eq!(bench.page(3, &[], 0, true), ["read 4 retained after 0"]);
        // The window is full before the retained one arrives, and so is the queue before or after it.
        assert_eq!(bench.deliver(&unstored([11, 12])).len(), 2);
        let (next, question) = match queue_full {
            QueueFull::DropNew => {
                bench.deliver(&unstored([13]));
                assert_eq!(bench.page(4, &[7], 7, true), [""; 0]);
                ("send 3 m13", "read 5 retained after 6")
            }
            QueueFull::DropOld => {
                assert_eq!(bench.page(4, &[7], 7, true), [""; 0]);
                bench.deliver(&unstored([13]));
                ("send 3 m7", "read 5 unread after 0 limit 1")
            }
        };
        assert_eq!(drain(&mut bench, [1]), [next], "{queue_full:?}");
        assert_eq!(bench.ack(AckKind::PubAck, 2), [question], "{queue_full:?}");
        let sent = bench.page(5, &[7], 7, true);
        let expected = (queue_full == QueueFull::DropNew).then_some("send 4 m7".to_owned());
        assert_eq!(sent.first(), expected.as_ref(), "{queue_full:?}: {sent:?}");
    }
}

#[test]
fn a_row_that_found_no_room_is_not_taken_for_sent_when_its_live_copy_comes() {
    let limits = Limits {
        inflight_max: 2,
        queue_len_max: 1,
        ..Limits::default()
    };
    let (mut bench, _) = Bench::new(Version::V5, limits, |_| {});
    bench.subscribe_with_backlog(Start::Latest, 0);
    assert_eq!(bench.page(2, &[], 0, true), ["read 3 unread after 0 limit 2"]);
    bench.receive(subscribe("+", 2));
    bench.act(|session, now, steps| session.subscribed(2, Some(2), Vec::new(), now, steps));
    bench.act(|session, now, steps| session.answer(2, now, steps));
    assert_eq!(bench.page(4, &[], 0, true), [""; 0]);
    // Others fill the window and the queue before the answer comes.
    let others = unstored([11, 12, 13]);
    let steps = bench.act(|session, now, steps| session.deliver(&others, &[2], now, steps));
    assert_eq!(steps, ["send 1 m11", "send 2 m12"]);
    assert_eq!(bench.page(3, &[1], 1, true), [""; 0]);
    let live = run_of(1);
    assert_eq!(bench.deliver(&live), [""; 0]);
    settle(&live, 0, 1);
    assert_eq!(drain(&mut bench, [1]), ["send 3 m13"]);
    assert_eq!(bench.ack(AckKind::PubAck, 2), ["read 5 unread after 0 limit 1"]);
    assert_eq!(bench.page(5, &[1], 1, true)[0], "send 4 m1");
}
