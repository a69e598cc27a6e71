//! Who is connected, and what the operator subscribes them to.

use hookline::store::Store;

use super::database::{client, rows, script, seconds, write, write_one};

stories! {
    a_client_is_online_offline_and_online_again
    a_late_disconnect_does_not_take_a_newer_connection_offline
    a_disconnect_without_its_connect_leaves_a_row
    clients_that_a_crash_left_online_are_marked_offline
    the_operator_s_subscriptions_are_looked_up
}

async fn a_client_is_online_offline_and_online_again(store: &dyn Store) {
    const ROW: &str = "SELECT id, clientid, state, node, online_at, offline_at, created FROM mqtt_client";
    write(store, [client("c", "n1", 10, None)]).await;
    assert_eq!(rows(store, ROW).await, "1|c|1|n1|10|NULL|10");
    write(store, [client("c", "n1", 10, Some(15))]).await;
    assert_eq!(rows(store, ROW).await, "1|c|0|n1|10|15|10");
    // In one batch, in order; and `created` is that of the first time.
    write(
        store,
        [
            client("c", "n2", 20, None),
            client("c", "n2", 20, Some(21)),
            client("c", "n1", 22, None),
        ],
    )
    .await;
    assert_eq!(rows(store, ROW).await, "1|c|1|n1|22|NULL|10");
}

async fn a_late_disconnect_does_not_take_a_newer_connection_offline(store: &dyn Store) {
    write(store, [client("c", "n1", 10, None), client("c", "n1", 20, None)]).await;
    for late in [client("c", "n1", 10, Some(30)), client("c", "n2", 20, Some(30))] {
        write(store, [late]).await;
        assert_eq!(rows(store, "SELECT state, offline_at FROM mqtt_client").await, "1|NULL");
    }
    write(store, [client("c", "n1", 20, Some(30))]).await;
    assert_eq!(rows(store, "SELECT state, offline_at FROM mqtt_client").await, "0|30");
}

async fn a_disconnect_without_its_connect_leaves_a_row(store: &dyn Store) {
    write(store, [client("c", "n1", 10, Some(15))]).await;
    assert_eq!(
        rows(store, "SELECT clientid, state, online_at, offline_at FROM mqtt_client").await,
        "c|0|10|15"
    );
}

async fn clients_that_a_crash_left_online_are_marked_offline(store: &dyn Store) {
    write(
        store,
        [
            client("crashed", "n1", 10, None),
            client("elsewhere", "n2", 10, None),
            client("gone", "n1", 10, Some(11)),
            client("new", "n1", 50, None),
        ],
    )
    .await;
    assert_eq!(store.mark_offline("n1", seconds(50)).await.expect("marked"), 1);
    let states = "SELECT clientid, state, offline_at FROM mqtt_client ORDER BY clientid";
    assert_eq!(
        rows(store, states).await,
        "crashed|0|50,elsewhere|1|NULL,gone|0|11,new|1|NULL"
    );
}

async fn the_operator_s_subscriptions_are_looked_up(store: &dyn Store) {
    let insert = "INSERT INTO mqtt_sub (clientid, topic, qos) VALUES \
                  ('c', 'a/+', 1), ('c', 'not#valid', 7), ('c', 'x', NULL), ('C', 'other', 1)";
    write_one(store, script(&[(insert, &[])], false))
        .await
        .expect("inserted");
    let mut found = store.subscriptions(&"c".into()).await.expect("rows");
    found.sort();
    let expected = [("a/+", 1), ("not#valid", 7), ("x", 0)].map(|(topic, qos)| (topic.to_owned(), qos));
    assert_eq!(found, expected);
    assert_eq!(store.subscriptions(&"nobody".into()).await.expect("rows"), []);
}
