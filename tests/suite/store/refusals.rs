//! The operator's statements, and rows that a database refuses: each write has its own result.

use hookline::model::delivery::Position;
use hookline::store::{Kind, Store, Write, Written};

use super::database::{read, reader, rows, save, script, write_one};

stories! {
    statements_run_in_order_and_stop_at_the_first_error
    all_or_nothing_means_nothing
    statements_that_fail_leave_their_neighbours_alone
    statements_that_end_the_transaction_leave_their_neighbours_alone
    a_refused_row_does_not_fail_its_neighbours
    a_row_that_ends_the_transaction_does_not_fail_its_neighbours
    free_statements_read_and_write
}

const INSERT: &str = "INSERT INTO mqtt_sub (clientid, topic) VALUES (?, ?)";

const SUBS: &str = "SELECT clientid, topic FROM mqtt_sub ORDER BY id";

const REFUSE: &str = "CREATE TRIGGER refuse BEFORE INSERT ON mqtt_msg WHEN NEW.topic = 'bad' \
                      BEGIN SELECT RAISE(ABORT, 'no bad topics'); END";

async fn statements_run_in_order_and_stop_at_the_first_error(store: &dyn Store) {
    let insert = |client: &'static str| (INSERT, vec![client.into(), "t".into()]);
    let (a, b, c) = (insert("a"), insert("b"), insert("c"));
    let broken = ("INSERT INTO no_such_table VALUES (1)", vec![]);
    let wrong = script(&[(a.0, &a.1), (b.0, &b.1), (broken.0, &broken.1), (c.0, &c.1)], false);
    let error = write_one(store, wrong).await.expect_err("no such table");
    assert_eq!(error.kind, Kind::Rejected);
    assert!(
        error.chain().contains("backend.test.1: ") && error.chain().contains("no_such_table"),
        "{error:?}"
    );
    assert_eq!(rows(store, SUBS).await, "a|t,b|t");
}

async fn all_or_nothing_means_nothing(store: &dyn Store) {
    let twice = [
        (INSERT, &["a".into(), "t".into()][..]),
        (INSERT, &["a".into(), "t".into()][..]),
    ];
    let results = store.write(&[save(1, "t"), script(&twice, true), save(2, "t")]).await;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(rows(store, SUBS).await, "");
    assert_eq!(read(store, &reader("c", "t"), 10).await.len(), 2);
}

async fn statements_that_fail_leave_their_neighbours_alone(store: &dyn Store) {
    let good = |client: &str| script(&[(INSERT, &[client.into(), "t".into()])], false);
    let results = store.write(&[good("a"), good("a"), save(1, "t"), good("b")]).await;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true, true]
    );
    assert_eq!(rows(store, SUBS).await, "a|t,b|t");
}

async fn statements_that_end_the_transaction_leave_their_neighbours_alone(store: &dyn Store) {
    let insert = "INSERT OR ROLLBACK INTO mqtt_sub (clientid, topic) VALUES (?, ?)";
    let good = |client: &str| script(&[(insert, &[client.into(), "t".into()])], false);
    let writes = [
        save(1, "t"),
        good("a"),
        save(2, "t"),
        good("a"),
        save(3, "t"),
        good("b"),
    ];
    let results = store.write(&writes).await;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, true, true, false, true, true]
    );
    assert_eq!(rows(store, SUBS).await, "a|t,b|t");
    assert_eq!(read(store, &reader("c", "t"), 10).await.len(), 3);
}

async fn a_refused_row_does_not_fail_its_neighbours(store: &dyn Store) {
    for trigger in [
        REFUSE.to_owned(),
        REFUSE
            .replace("ABORT, 'no bad topics'", "IGNORE")
            .replace("refuse", "ignore"),
    ] {
        write_one(
            store,
            script(&[("DROP TRIGGER IF EXISTS refuse", &[]), (&trigger, &[])], false),
        )
        .await
        .expect("made");
        let base = read(store, &reader("c", "t"), 1_000).await.len() as u64 * 10;
        let writes: Vec<Write> = (1..=20)
            .map(|n| save(base + n, if n % 7 == 0 { "bad" } else { "t" }))
            .collect();
        let results = store.write(&writes).await;
        for (n, result) in (1..=20).zip(&results) {
            match result {
                Ok(Written::At(_)) => assert_ne!(n % 7, 0),
                Err(error) => assert_eq!((n % 7, error.kind), (0, Kind::Rejected)),
                Ok(Written::Done | Written::Removed(_)) => panic!("a save has a place"),
            }
        }
    }
    assert_eq!(read(store, &reader("c", "t"), 1_000).await.len(), 36);
    // The same for rows that are changed, not only for new ones.
    let guard = "CREATE TRIGGER far BEFORE INSERT ON mqtt_acked WHEN NEW.mid > 100 \
                 BEGIN SELECT RAISE(ABORT, 'too far'); END";
    write_one(store, script(&[(guard, &[])], false)).await.expect("made");
    let advance = |client: &str, to| Write::Advance(reader(client, "t"), Position(to));
    let results = store
        .write(&[advance("a", 1), advance("b", 101), advance("c", 2)])
        .await;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(
        rows(store, "SELECT clientid, mid FROM mqtt_acked ORDER BY clientid").await,
        "a|1,c|2"
    );
}

async fn a_row_that_ends_the_transaction_does_not_fail_its_neighbours(store: &dyn Store) {
    let trigger = REFUSE.replace("ABORT", "ROLLBACK");
    write_one(store, script(&[(&trigger, &[])], false)).await.expect("made");
    let results = store
        .write(&[save(1, "t"), save(2, "bad"), save(3, "t"), save(4, "bad"), save(5, "t")])
        .await;
    assert_eq!(
        results.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true, false, true]
    );
    assert_eq!(read(store, &reader("c", "#"), 10).await.len(), 3);
}

async fn free_statements_read_and_write(store: &dyn Store) {
    assert_eq!(
        rows(store, "SELECT 1 AS one, 2.5, 'x', x'00ff', NULL").await,
        "1|2.5|x|00ff|NULL"
    );
    store
        .query(
            "INSERT INTO mqtt_sub (clientid, topic) VALUES (?, ?)",
            &["c".into(), "t".into()],
        )
        .await
        .expect("done");
    let answer = store
        .query("SELECT topic FROM mqtt_sub WHERE clientid = ?", &["c".into()])
        .await
        .expect("rows");
    assert_eq!(
        (&*answer.columns, answer.rows),
        (&["topic".to_owned()][..], vec![vec!["t".into()]])
    );
    let error = store.query("SELEC 1", &[]).await.expect_err("no SQL");
    assert_eq!(error.kind, Kind::Rejected);
}
