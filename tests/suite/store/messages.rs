//! What is saved, and how readers find it again.

use std::time::Duration;
use std::time::SystemTime;

use hookline::model::delivery::{Delivery, Position, Window};
use hookline::model::id::{IdFormat, MessageId};
use hookline::model::message::{Message, Qos};
use hookline::model::properties::Properties;
use hookline::store::{Kind, Store, Write};

use super::database::{
    at, client, message, places, read, reader, retained, rows, save, script, unread, window, write, write_one,
};

stories! {
    what_is_saved_comes_back_byte_for_byte
    a_message_saved_twice_lies_in_one_place
    messages_come_to_lie_in_the_order_of_the_batch
    a_reader_gets_what_lies_behind_its_position
    queue_and_pubsub_read_the_same_and_only_a_delete_takes_a_message_away
    a_message_is_deleted_whatever_form_its_id_was_stored_in
    qos_0_expired_and_old_messages_are_not_fetched
    a_row_that_cannot_be_read_is_an_error_not_a_gap
    hostile_text_is_only_text
}

async fn what_is_saved_comes_back_byte_for_byte(store: &dyn Store) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = every_byte.iter().copied().cycle().take(1 << 20).collect();
    let plain = message(1, "a/b");
    let messages = [
        Message {
            payload: every_byte.into(),
            ..plain.clone()
        },
        Message {
            id: message(2, "t").id,
            payload: large.into(),
            qos: Qos::ExactlyOnce,
            ..plain.clone()
        },
        Message {
            id: message(3, "t").id,
            payload: Default::default(),
            retain: true,
            ..plain.clone()
        },
        Message {
            id: message(4, "t").id,
            properties: Properties::from_checked(b"\x26\x00\x01a\x00\x01b\x01\x00"[..].into()),
            expires: Some(plain.at + Duration::from_secs(3_000_000_000)),
            ..plain
        },
    ];
    // The wall clock of a message is that of its id, to the microsecond.
    let messages = messages.map(|message| Message {
        at: at(message.id),
        ..message
    });
    let messages = messages.map(|message| match message.expires {
        Some(_) => Message {
            expires: Some(message.at + Duration::from_secs(3_000_000_000)),
            ..message
        },
        None => message,
    });
    write(store, messages.iter().cloned().map(Write::Save)).await;
    assert_eq!(read(store, &reader("c", "a/b"), 100).await, messages);
    let topic = "\u{1F980}/größe";
    let other = Message {
        topic: message(9, topic).topic,
        ..message(9, topic)
    };
    write(
        store,
        [
            Write::Save(other.clone()),
            Write::Retain(Message {
                retain: true,
                ..other.clone()
            }),
        ],
    )
    .await;
    assert_eq!(
        read(store, &reader("c", topic), 100).await,
        std::slice::from_ref(&other)
    );
    assert_eq!(retained(store, topic).await, [Message { retain: true, ..other }]);
}

async fn a_message_saved_twice_lies_in_one_place(store: &dyn Store) {
    let first = places(&write(store, [save(1, "t"), save(2, "t")]).await);
    let again = places(&write(store, [save(3, "t"), save(1, "t"), save(2, "t"), save(2, "t")]).await);
    assert_eq!([again[1], again[2], again[3]], [first[0], first[1], first[1]]);
    assert!(again[0] > first[1]);
    assert_eq!(read(store, &reader("c", "t"), 100).await.len(), 3);
}

async fn messages_come_to_lie_in_the_order_of_the_batch(store: &dyn Store) {
    // Ids that do not ascend: the order is that of the batch.
    let writes: Vec<Write> = (0..300).map(|n| save(1_000 - n, "t")).collect();
    let places = places(&write(store, writes).await);
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
    let ids: Vec<MessageId> = read(store, &reader("c", "t"), 1_000)
        .await
        .iter()
        .map(|message| message.id)
        .collect();
    let expected: Vec<MessageId> = (0..300).map(|n| message(1_000 - n, "t").id).collect();
    assert_eq!(ids, expected);
}

async fn a_reader_gets_what_lies_behind_its_position(store: &dyn Store) {
    let places = places(&write(store, (1..=5).map(|n| save(n, "t")).chain([save(6, "other")])).await);
    let first = store
        .unread(&reader("c", "t"), window(Position::START, 2))
        .await
        .expect("a page");
    assert_eq!((first.messages.len(), first.scanned, first.end), (2, places[1], false));
    let rest = store
        .unread(&reader("c", "t"), window(first.scanned, 100))
        .await
        .expect("a page");
    let found: Vec<Position> = rest.messages.iter().map(|(place, _)| *place).collect();
    assert_eq!((found, rest.end), (places[2..5].to_vec(), true));
    let nothing = store
        .unread(&reader("c", "t"), window(rest.scanned, 100))
        .await
        .expect("a page");
    assert_eq!(
        (nothing.messages.len(), nothing.scanned, nothing.end),
        (0, rest.scanned, true)
    );
}

async fn queue_and_pubsub_read_the_same_and_only_a_delete_takes_a_message_away(store: &dyn Store) {
    let places = places(&write(store, [save(1, "t"), save(2, "t")]).await);
    let pubsub = reader("c1", "t");
    let queue = hookline::model::delivery::Reader {
        delivery: Delivery::Queue,
        ..reader("c2", "t")
    };
    write(store, [Write::Advance(pubsub.clone(), places[1])]).await;
    assert_eq!(read(store, &pubsub, 100).await, read(store, &queue, 100).await);
    write(store, [Write::Delete(message(1, "t").topic, message(1, "t").id)]).await;
    assert_eq!(read(store, &queue, 100).await, [message(2, "t")]);
    // Deleting twice, or what was never there, is fine; and a place is never given out again.
    write(
        store,
        [
            Write::Delete(message(2, "t").topic, message(2, "t").id),
            Write::Delete(message(2, "t").topic, message(2, "t").id),
        ],
    )
    .await;
    let next = self::places(&write(store, [save(3, "t")]).await);
    assert!(next[0] > places[1]);
}

async fn a_message_is_deleted_whatever_form_its_id_was_stored_in(store: &dyn Store) {
    for (n, form) in [(1, IdFormat::Base62), (2, IdFormat::Hex), (3, IdFormat::Base64)] {
        let row = "INSERT INTO mqtt_msg (msgid, topic, sender, qos, payload, arrived) VALUES (?, 't', 'x', 1, 'p', 5)";
        write_one(store, script(&[(row, &[message(n, "t").id.text(form).into()])], false))
            .await
            .expect("inserted");
    }
    assert_eq!(read(store, &reader("c", "t"), 100).await.len(), 3);
    write(
        store,
        (1..=3).map(|n| Write::Delete(message(n, "t").topic, message(n, "t").id)),
    )
    .await;
    assert_eq!(read(store, &reader("c", "t"), 100).await, []);
}

async fn qos_0_expired_and_old_messages_are_not_fetched(store: &dyn Store) {
    let now = SystemTime::now();
    let fresh = |n: u64| Message {
        at: now,
        ..message(n, "t/x")
    };
    write(
        store,
        [
            Write::Save(Message {
                qos: Qos::AtMostOnce,
                ..fresh(1)
            }),
            Write::Save(Message {
                expires: Some(now - Duration::from_secs(1)),
                ..fresh(2)
            }),
            Write::Save(Message {
                at: now - Duration::from_secs(7_200),
                ..fresh(3)
            }),
            Write::Save(Message {
                expires: Some(now + Duration::from_secs(600)),
                ..fresh(4)
            }),
        ],
    )
    .await;
    for filter in ["t/x", "t/+", "#"] {
        let since = Some(now - Duration::from_secs(3_600));
        let page = store
            .unread(
                &reader("c", filter),
                Window {
                    since,
                    ..window(Position::START, 100)
                },
            )
            .await;
        let page = page.expect("a page");
        let ids: Vec<MessageId> = page.messages.iter().map(|(_, message)| message.id).collect();
        assert_eq!((ids, page.end), (vec![message(4, "t").id], true), "{filter}");
    }
}

async fn a_row_that_cannot_be_read_is_an_error_not_a_gap(store: &dyn Store) {
    write(store, [save(1, "t"), save(2, "t")]).await;
    let spoil = "UPDATE mqtt_msg SET qos = 3 WHERE id = 2";
    write_one(store, script(&[(spoil, &[])], false)).await.expect("spoiled");
    for filter in ["t", "#"] {
        let error = unread(store, &reader("c", filter), 10).await.expect_err("a bad row");
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.chain().contains("row 2: qos"), "{}", error.chain());
    }
}

async fn hostile_text_is_only_text(store: &dyn Store) {
    let hostile = "a'; DROP TABLE mqtt_msg; -- \"${clientid}\" % _ \\";
    let sent = Message {
        from: hostile.into(),
        payload: hostile.as_bytes().into(),
        ..message(1, hostile)
    };
    let reader = reader(hostile, hostile);
    write(
        store,
        [Write::Save(sent.clone()), Write::Advance(reader.clone(), Position(1))],
    )
    .await;
    write(
        store,
        [
            client(hostile, hostile, 1, None),
            Write::Retain(Message {
                retain: true,
                ..sent.clone()
            }),
        ],
    )
    .await;
    assert_eq!(read(store, &reader, 10).await, std::slice::from_ref(&sent));
    assert_eq!(retained(store, hostile).await, [Message { retain: true, ..sent }]);
    write(store, [Write::Forget(reader), Write::ForgetClient(hostile.into())]).await;
    assert_eq!(rows(store, "SELECT * FROM mqtt_acked").await, "");
    assert_eq!(
        rows(store, "SELECT count(*) FROM mqtt_client WHERE state = 1").await,
        "1"
    );
}
