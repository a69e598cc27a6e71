//! Sessions that survive a crash: what was written comes back, and what has ended is gone.

use hookline::model::message::{Qos, Subscription};
use hookline::model::session::{
    Attached, Direction, Exchange, ExchangeKey, SavedSession, SavedSubscription, SessionWrite, Will,
};
use hookline::model::topic::{Filter, Topic};
use hookline::store::{Store, Write};

use super::database::{message, read, reader, rows, save, script, seconds, write, write_one};
use hookline::model::delivery::Position;

stories! {
    a_session_comes_back_as_it_was_written
    a_subscription_made_again_replaces_the_first
    retained_messages_are_owed_until_they_were_sent
    a_session_that_ended_leaves_nothing
    sessions_that_a_crash_left_connected_have_left
    a_will_that_was_published_is_not_due_again
    sessions_are_listed_by_name_and_by_what_is_due
    exchanges_end_one_by_one
    a_message_is_under_way_once_for_each_packet_identifier
    the_exchange_of_a_refused_message_does_not_stay
}

fn attached(client: &str) -> Attached {
    Attached {
        client: client.into(),
        username: Some("Lena".into()),
        protocol: 5,
        connected_at: seconds(100),
        expiry_s: 3600,
        will: None,
        epoch: 1,
    }
}

fn will(delay_s: u32) -> Will {
    Will {
        topic: Topic::new("gone").expect("a topic"),
        payload: vec![0, 255].into(),
        qos: Qos::ExactlyOnce,
        retain: true,
        delay_s,
        expiry_s: Some(7),
        properties: Default::default(),
    }
}

fn attach(attached: Attached) -> Write {
    Write::Session(SessionWrite::Attached(Box::new(attached)))
}

fn subscribed(client: &str, subscription: Subscription) -> Write {
    let owes_retained = subscription.asks_for_retained(true);
    let saved = SavedSubscription {
        subscription,
        owes_retained,
    };
    Write::Session(SessionWrite::Subscribed(client.into(), saved))
}

/// Subscriptions, and which of them wait for retained messages.
fn subscriptions(saved: SavedSession) -> Vec<(Subscription, bool)> {
    let subscription = |saved: SavedSubscription| (saved.subscription, saved.owes_retained);
    saved.subscriptions.into_iter().map(subscription).collect()
}

fn plain(filter: &str, qos: Qos) -> Subscription {
    Subscription::new(Filter::new(filter.to_owned()).expect("a filter"), qos)
}

fn left(client: &str, at: u64, will: bool, due: Option<u64>) -> Write {
    Write::Session(SessionWrite::Left {
        client: client.into(),
        at: seconds(at),
        expiry_s: 60,
        will,
        due: due.map(seconds),
    })
}

fn key(client: &str, direction: Direction, packet_id: u16, n: u64) -> ExchangeKey {
    ExchangeKey {
        client: client.into(),
        direction,
        packet_id,
        id: message(n, "t").id,
    }
}

fn exchange(client: &str, direction: Direction, packet_id: u16, n: u64, released: bool) -> Write {
    let key = key(client, direction, packet_id, n);
    Write::Exchange(Exchange { key, released })
}

fn end(client: &str, direction: Direction, packet_id: u16, n: u64) -> Write {
    Write::EndExchange(key(client, direction, packet_id, n))
}

async fn saved(store: &dyn Store, client: &str) -> SavedSession {
    let saved = store.session(&client.into()).await.expect("readable");
    saved.unwrap_or_else(|| panic!("no session of {client}"))
}

async fn names(found: hookline::store::Result<Vec<hookline::model::message::ClientId>>) -> Vec<String> {
    found.expect("readable").iter().map(ToString::to_string).collect()
}

async fn a_session_comes_back_as_it_was_written(store: &dyn Store) {
    let attached = Attached {
        will: Some(will(5)),
        ..attached("c")
    };
    let shared = Subscription {
        share: Some("group".into()),
        no_local: false,
        retain_as_published: true,
        retain_handling: 2,
        identifier: Some(268_435_455),
        ..plain("a/#", Qos::AtLeastOnce)
    };
    let own = Subscription {
        no_local: true,
        ..plain("t", Qos::ExactlyOnce)
    };
    write(
        store,
        [
            attach(attached.clone()),
            subscribed("c", shared.clone()),
            subscribed("c", own.clone()),
            save(1, "t"),
            exchange("c", Direction::Received, 7, 9, false),
            exchange("c", Direction::Sent, 65_535, 1, false),
            exchange("c", Direction::Sent, 2, 8, false),
            exchange("c", Direction::Sent, 2, 8, true),
        ],
    )
    .await;
    let saved = saved(store, "c").await;
    assert_eq!(saved.attached, attached);
    assert_eq!(saved.left_at, None);
    assert_eq!(subscriptions(saved.clone()), [(shared, false), (own, true)]);
    assert_eq!(saved.received, [(7, message(9, "t").id)]);
    let sent: Vec<_> = saved.sent.iter().map(|sent| (sent.packet_id, sent.released)).collect();
    assert_eq!(sent, [(65_535, false), (2, true)]);
    assert_eq!(saved.sent[0].message, Some((Position(1), message(1, "t"))));
    assert_eq!(saved.sent[1].message, None, "the store does not have it");
    assert_eq!(store.session(&"C".into()).await.expect("readable"), None);
}

async fn a_subscription_made_again_replaces_the_first(store: &dyn Store) {
    let again = Subscription {
        identifier: Some(1),
        ..plain("t", Qos::AtMostOnce)
    };
    write(
        store,
        [
            attach(attached("c")),
            subscribed("c", plain("t", Qos::ExactlyOnce)),
            subscribed("c", plain("u", Qos::AtLeastOnce)),
            subscribed("c", again.clone()),
            Write::Session(SessionWrite::Unsubscribed("c".into(), "u".into())),
        ],
    )
    .await;
    assert_eq!(subscriptions(saved(store, "c").await), [(again, true)]);
}

async fn retained_messages_are_owed_until_they_were_sent(store: &dyn Store) {
    let sent = |filter: &str| Write::Session(SessionWrite::RetainedSent("c".into(), filter.to_owned()));
    let (t, u) = (plain("t", Qos::AtLeastOnce), plain("u/#", Qos::AtLeastOnce));
    let made = [
        attach(attached("c")),
        subscribed("c", t.clone()),
        subscribed("c", u.clone()),
    ];
    write(store, made.into_iter().chain([sent("u/#")])).await;
    let found = subscriptions(saved(store, "c").await);
    assert_eq!(found, [(t.clone(), true), (u.clone(), false)]);
    write(store, [subscribed("c", u.clone()), sent("t"), sent("nothing")]).await;
    let found = subscriptions(saved(store, "c").await);
    assert_eq!(found, [(t, false), (u, true)], "it has asked once more");
}

async fn a_session_that_ended_leaves_nothing(store: &dyn Store) {
    for client in ["c", "d"] {
        write(
            store,
            [
                attach(attached(client)),
                subscribed(client, plain("t", Qos::AtLeastOnce)),
                exchange(client, Direction::Received, 1, 1, false),
                Write::Advance(reader(client, "t"), Position(3)),
            ],
        )
        .await;
    }
    let end = |client: &str, positions| {
        Write::Session(SessionWrite::Ended {
            client: client.into(),
            positions,
        })
    };
    write(store, [end("c", true)]).await;
    assert_eq!(store.session(&"c".into()).await.expect("readable"), None);
    assert_eq!(store.positions(&"c".into()).await.expect("readable"), []);
    for table in ["mqtt_session", "mqtt_session_sub", "mqtt_session_qos2"] {
        assert_eq!(rows(store, &format!("SELECT clientid FROM {table}")).await, "d");
    }
    write(store, [end("d", false)]).await;
    let kept = store.positions(&"d".into()).await.expect("readable");
    assert_eq!(kept, [("t".to_owned(), Position(3))]);
}

async fn sessions_that_a_crash_left_connected_have_left(store: &dyn Store) {
    let with_will = |client, delay_s| Attached {
        will: Some(will(delay_s)),
        ..attached(client)
    };
    let never = Attached {
        expiry_s: u32::MAX,
        ..attached("never")
    };
    write(
        store,
        [
            attach(attached("plain")),
            attach(with_will("will", 5)),
            attach(with_will("late will", 9999)),
            attach(never),
            attach(attached("gone")),
            left("gone", 200, false, Some(260)),
        ],
    )
    .await;
    let node = "hookline@127.0.0.1";
    assert_eq!(
        store.mark_left(node, 1, seconds(500)).await.expect("marked"),
        0,
        "this very run"
    );
    assert_eq!(
        store.mark_left("other", 2, seconds(500)).await.expect("marked"),
        0,
        "another node"
    );
    assert_eq!(store.mark_left(node, 2, seconds(500)).await.expect("marked"), 4);
    assert_eq!(
        rows(
            store,
            "SELECT clientid, left_at, due_at FROM mqtt_session ORDER BY clientid"
        )
        .await,
        "gone|200|260,late will|500|4100,never|500|NULL,plain|500|4100,will|500|505"
    );
}

async fn a_will_that_was_published_is_not_due_again(store: &dyn Store) {
    let with_will = Attached {
        will: Some(will(5)),
        ..attached("c")
    };
    write(store, [attach(with_will), left("c", 200, true, Some(205))]).await;
    assert_eq!(saved(store, "c").await.attached.will, Some(will(5)));
    let done = SessionWrite::WillDone("c".into(), Some(seconds(260)));
    write(store, [Write::Session(done)]).await;
    let after = saved(store, "c").await;
    assert_eq!((after.attached.will, after.left_at), (None, Some(seconds(200))));
    assert_eq!(names(store.due_sessions(seconds(259), 10).await).await, [""; 0]);
    assert_eq!(names(store.due_sessions(seconds(260), 10).await).await, ["c"]);
}

async fn sessions_are_listed_by_name_and_by_what_is_due(store: &dyn Store) {
    for (client, due) in [("b", 300), ("a", 500), ("c", 400)] {
        write(store, [attach(attached(client)), left(client, 200, false, Some(due))]).await;
    }
    write(store, [attach(attached("d"))]).await;
    assert_eq!(names(store.due_sessions(seconds(450), 10).await).await, ["b", "c"]);
    assert_eq!(names(store.due_sessions(seconds(450), 1).await).await, ["b"]);
    assert_eq!(names(store.sessions(None, 2).await).await, ["a", "b"]);
    assert_eq!(names(store.sessions(Some(&"b".into()), 9).await).await, ["c", "d"]);
    write(store, [attach(attached("b"))]).await;
    assert_eq!(
        names(store.due_sessions(seconds(450), 10).await).await,
        ["c"],
        "b is back"
    );
}

async fn exchanges_end_one_by_one(store: &dyn Store) {
    let begin = (1..=5).map(|n| exchange("c", Direction::Sent, n as u16, n, false));
    write(store, begin.chain([save(1, "t")])).await;
    let end = |n| end("c", Direction::Sent, n as u16, n);
    write(
        store,
        [end(2), exchange("c", Direction::Sent, 4, 4, true), end(3), end(5)],
    )
    .await;
    let left = "SELECT packetid, released FROM mqtt_session_qos2 ORDER BY id";
    assert_eq!(rows(store, left).await, "1|0,4|1");
    assert_eq!(read(store, &reader("c", "t"), 10).await.len(), 1, "messages stay");
}

/// Two filters of a client may match a retained message, which is a copy each.
async fn a_message_is_under_way_once_for_each_packet_identifier(store: &dyn Store) {
    let sent = |packet_id, released| exchange("c", Direction::Sent, packet_id, 1, released);
    write(
        store,
        [
            attach(attached("c")),
            save(1, "t"),
            sent(1, false),
            sent(2, false),
            sent(2, true),
            sent(3, false),
            end("c", Direction::Sent, 3, 1),
        ],
    )
    .await;
    let saved = saved(store, "c").await.sent;
    let under_way: Vec<_> = saved.iter().map(|sent| (sent.packet_id, sent.released)).collect();
    assert_eq!(under_way, [(1, false), (2, true)]);
    assert!(saved.iter().all(|sent| sent.message.is_some()), "{saved:?}");
}

/// A resend would be answered as known, though nothing of it is stored.
async fn the_exchange_of_a_refused_message_does_not_stay(store: &dyn Store) {
    write(store, [attach(attached("c"))]).await;
    for (round, raise) in (0..).zip(["ABORT, 'no bad topics'", "IGNORE", "ROLLBACK, 'no bad topics'"]) {
        let trigger = format!(
            "CREATE TRIGGER refuse BEFORE INSERT ON mqtt_msg WHEN NEW.topic = 'bad' BEGIN SELECT RAISE({raise}); END"
        );
        let made = script(&[("DROP TRIGGER IF EXISTS refuse", &[]), (&trigger, &[])], false);
        write_one(store, made).await.expect("made");
        let (bad, good) = (2 * round + 1, 2 * round + 2);
        let results = store
            .write(&[
                save(bad, "bad"),
                exchange("c", Direction::Received, 1, bad, false),
                save(good, "t"),
                exchange("c", Direction::Received, 2, good, false),
            ])
            .await;
        let there: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(there, [false, false, true, true], "RAISE({raise})");
        assert_eq!(
            saved(store, "c").await.received,
            [(2, message(good, "t").id)],
            "RAISE({raise})"
        );
        write(store, [end("c", Direction::Received, 2, good)]).await;
    }
}
