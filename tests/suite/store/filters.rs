//! Filters with wildcards, and retained messages.

use hookline::model::delivery::Position;
use hookline::model::message::{Message, Qos};
use hookline::store::{Store, Write};

use super::database::{filter, filter_matches, message, read, reader, retained, save, window, write};

stories! {
    a_sparse_wildcard_is_paged_by_what_was_looked_at
    a_leading_wildcard_does_not_see_dollar_topics
    upper_and_lower_case_differ
    the_newest_retained_message_wins
    a_retained_message_is_cleared_unless_it_is_newer
    retained_messages_are_found_by_wildcard_in_pages
}

async fn a_sparse_wildcard_is_paged_by_what_was_looked_at(store: &dyn Store) {
    // 12,000 messages, three of which match, in two stretches of noise under the same prefix.
    let noise = |n: u64| match n {
        1 | 6_000 | 12_000 => save(n, "s/7/x"),
        n => save(n, &format!("s/{n}/y")),
    };
    for batch in (1..=12_000u64).collect::<Vec<_>>().chunks(1_000) {
        write(store, batch.iter().map(|n| noise(*n))).await;
    }
    for filter in ["s/+/x", "+/+/x"] {
        let (mut after, mut found, mut calls) = (Position::START, Vec::new(), 0);
        loop {
            let page = store
                .unread(&reader("c", filter), window(after, 2))
                .await
                .expect("a page");
            assert!(page.scanned >= after && page.messages.len() <= 2);
            found.extend(page.messages.into_iter().map(|(_, message)| message.id));
            calls += 1;
            if page.end {
                break;
            }
            assert!(page.scanned > after, "a call that finds nothing must move on");
            after = page.scanned;
        }
        assert_eq!(found, [1, 6_000, 12_000].map(|n| message(n, "t").id));
        assert!(
            (3..=6).contains(&calls),
            "{calls} calls: neither one huge scan nor a call a row"
        );
    }
    // A narrow prefix in a wide table.
    let page = store
        .unread(&reader("c", "s/42/#"), window(Position::START, 10))
        .await
        .expect("a page");
    assert_eq!((page.messages.len(), page.end), (1, true));
}

async fn a_leading_wildcard_does_not_see_dollar_topics(store: &dyn Store) {
    let both = |n, topic| [save(n, topic), Write::Retain(message(n, topic))];
    write(
        store,
        [both(1, "$SYS/x"), both(2, "a/x"), both(3, "$a/x")]
            .into_iter()
            .flatten(),
    )
    .await;
    for (filter, expected) in [("#", vec![2]), ("+/x", vec![2]), ("$SYS/#", vec![1]), ("$a/+", vec![3])] {
        let expected: Vec<_> = expected.iter().map(|n| message(*n, "t").id).collect();
        let unread: Vec<_> = read(store, &reader("c", filter), 10)
            .await
            .iter()
            .map(|found| found.id)
            .collect();
        let kept: Vec<_> = retained(store, filter).await.iter().map(|found| found.id).collect();
        assert_eq!((&unread, &kept), (&expected, &expected), "{filter}");
    }
}

async fn upper_and_lower_case_differ(store: &dyn Store) {
    write(
        store,
        [save(1, "A/b"), save(2, "a/b"), Write::Retain(message(1, "A/b"))],
    )
    .await;
    for (filter, expected) in [("A/b", 1), ("A/#", 1), ("a/+", 2)] {
        let found = read(store, &reader("c", filter), 10).await;
        assert_eq!(
            found.iter().map(|found| found.id).collect::<Vec<_>>(),
            [message(expected, "t").id],
            "{filter}"
        );
    }
    assert_eq!(retained(store, "a/b").await, []);
}

async fn the_newest_retained_message_wins(store: &dyn Store) {
    let retain = |n| {
        Write::Retain(Message {
            retain: true,
            payload: format!("{n}").into(),
            ..message(n, "t")
        })
    };
    write(store, [retain(2), retain(3), retain(1)]).await;
    assert_eq!(payloads(&retained(store, "t").await), ["3"]);
    write(store, [retain(2)]).await;
    assert_eq!(payloads(&retained(store, "t").await), ["3"]);
    write(store, [retain(4)]).await;
    assert_eq!(payloads(&retained(store, "t").await), ["4"]);
}

async fn a_retained_message_is_cleared_unless_it_is_newer(store: &dyn Store) {
    let retain = |n| Write::Retain(message(n, "t"));
    let clear = |n| Write::ClearRetained(message(n, "t").topic, message(n, "t").id);
    write(store, [retain(1), clear(2), retain(3)]).await;
    write(store, [clear(2)]).await;
    assert_eq!(retained(store, "t").await.len(), 1);
    write(store, [clear(4), Write::Retain(message(5, "other"))]).await;
    assert_eq!(retained(store, "t").await, []);
    assert_eq!(retained(store, "other").await.len(), 1);
}

async fn retained_messages_are_found_by_wildcard_in_pages(store: &dyn Store) {
    let topics: Vec<String> = (0..30).map(|n| format!("r/{n}/x")).collect();
    write(
        store,
        (0..30).map(|n| Write::Retain(message(n + 1, &topics[n as usize]))),
    )
    .await;
    write(
        store,
        [Write::Retain(Message {
            qos: Qos::AtMostOnce,
            ..message(99, "zero")
        })],
    )
    .await;
    let (mut after, mut found) = (Position::START, 0);
    loop {
        let page = store
            .retained(&filter("r/+/x"), window(after, 7))
            .await
            .expect("a page");
        assert!(
            page.messages
                .iter()
                .all(|(_, message)| message.retain && filter_matches("r/+/x", message))
        );
        found += page.messages.len();
        if page.end {
            break;
        }
        after = page.scanned;
    }
    assert_eq!(found, 30);
    assert_eq!(retained(store, "zero").await[0].qos, Qos::AtMostOnce);
}

fn payloads(messages: &[Message]) -> Vec<&str> {
    messages
        .iter()
        .map(|message| std::str::from_utf8(&message.payload).expect("text"))
        .collect()
}
