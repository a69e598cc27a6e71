//! Where readers begin, and how far they have come.

use hookline::model::delivery::Position;
use hookline::model::event::Start;
use hookline::store::{Store, Write};

use super::database::{message, places, reader, rows, save, write};

stories! {
    the_first_subscribe_leaves_a_position_of_zero
    latest_begins_behind_what_was_saved_before_it
    a_reader_that_is_not_durable_leaves_no_row
    positions_never_go_back
    positions_end_with_unsubscribe_and_with_the_session
}

async fn the_first_subscribe_leaves_a_position_of_zero(store: &dyn Store) {
    write(store, [save(1, "t")]).await;
    let begin = || Write::Begin {
        reader: reader("c", "t"),
        start: Start::Earliest,
        durable: true,
    };
    assert_eq!(places(&write(store, [begin()]).await), [Position::START]);
    assert_eq!(
        rows(store, "SELECT clientid, topic, mid FROM mqtt_acked").await,
        "c|t|0"
    );
    let place = places(&write(store, [save(2, "t")]).await)[0];
    write(store, [Write::Advance(reader("c", "t"), place)]).await;
    assert_eq!(places(&write(store, [begin()]).await), [place]);
}

async fn latest_begins_behind_what_was_saved_before_it(store: &dyn Store) {
    let begin = |client| Write::Begin {
        reader: reader(client, "t"),
        start: Start::Latest,
        durable: true,
    };
    assert_eq!(places(&write(store, [begin("early")]).await), [Position::START]);
    // In one batch: behind the save before it, before the save after it.
    let written = places(&write(store, [save(1, "t"), begin("c"), save(2, "t"), begin("d")]).await);
    assert_eq!((written[1], written[3]), (written[0], written[2]));
    assert!(written[0] < written[2]);
    assert_eq!(
        rows(store, "SELECT mid FROM mqtt_acked WHERE clientid = 'c'").await,
        written[0].0.to_string()
    );
    // Also where the newest message is gone.
    write(store, [Write::Delete(message(2, "t").topic, message(2, "t").id)]).await;
    assert_eq!(places(&write(store, [begin("e")]).await), [written[2]]);
}

async fn a_reader_that_is_not_durable_leaves_no_row(store: &dyn Store) {
    let saved = places(&write(store, [save(1, "t")]).await);
    let begin = Write::Begin {
        reader: reader("c", "t"),
        start: Start::Latest,
        durable: false,
    };
    assert_eq!(places(&write(store, [begin]).await), saved);
    assert_eq!(rows(store, "SELECT * FROM mqtt_acked").await, "");
}

async fn positions_never_go_back(store: &dyn Store) {
    let reader = reader("c", "t");
    let advance = |to| Write::Advance(reader.clone(), Position(to));
    write(store, [advance(5), advance(3)]).await;
    write(store, [advance(4)]).await;
    assert_eq!(rows(store, "SELECT mid FROM mqtt_acked").await, "5");
    write(store, [advance(9)]).await;
    assert_eq!(rows(store, "SELECT mid FROM mqtt_acked").await, "9");
}

async fn positions_end_with_unsubscribe_and_with_the_session(store: &dyn Store) {
    let advance = |client, topic| Write::Advance(reader(client, topic), Position(7));
    write(
        store,
        [
            advance("Test", "a"),
            advance("Test", "b"),
            advance("test", "a"),
            advance("c", "a/#"),
        ],
    )
    .await;
    write(
        store,
        [
            Write::Forget(reader("Test", "a")),
            advance("c", "x"),
            Write::Forget(reader("c", "x")),
        ],
    )
    .await;
    let left = "SELECT clientid, topic FROM mqtt_acked ORDER BY clientid, topic";
    assert_eq!(rows(store, left).await, "Test|b,c|a/#,test|a");
    write(store, [Write::ForgetClient("Test".into())]).await;
    assert_eq!(rows(store, left).await, "c|a/#,test|a");
}
