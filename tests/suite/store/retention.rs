//! What goes from a store, and what stays: retention over a real database.

use std::sync::Arc;
use std::time::Duration;

use hookline::model::delivery::{Position, Settled};
use hookline::model::event::Start;
use hookline::store::backup::{Wanted, backup};
use hookline::store::options::PoolOptions;
use hookline::store::pool::Pool;
use hookline::store::retention::{Purged, Readership};
use hookline::store::upkeep::Watch;
use hookline::store::{Store, Write};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{Mailbox, name, saves};
use super::database::{Database, filter, message, places, reader, rows, save, write};

const IDS: &str = "SELECT group_concat(id, ' ') FROM (SELECT id FROM mqtt_msg ORDER BY id)";
/// Messages of the store's stories arrived in 2023.
const AGE: Option<Duration> = Some(Duration::from_secs(7 * 86_400));

/// A database and a pool over it that looks for what may go every 20 ms.
struct Bench {
    database: Database,
    pool: Arc<Pool>,
}

impl Bench {
    async fn new(change: impl FnOnce(&mut PoolOptions)) -> Self {
        let database = Database::sqlite().await;
        let mut options = database.options();
        options.initial_position = Start::Latest;
        options.purge_interval = Duration::from_millis(20);
        change(&mut options);
        let pool = Pool::start(name(), options, database.shared(), &CancellationToken::new());
        Self { database, pool }
    }

    /// Its rules have readers with positions.
    fn read(self) -> Self {
        self.pool.set_readership(Readership {
            positions: true,
            queue: false,
        });
        self
    }

    fn store(&self) -> &dyn Store {
        self.database.store()
    }

    async fn save(&self, numbers: std::ops::RangeInclusive<u64>, topic: &str) -> Vec<Position> {
        places(&write(self.store(), numbers.map(|n| save(n, topic))).await)
    }

    async fn advance(&self, client: &str, filter: &str, to: u128) {
        write(self.store(), [Write::Advance(reader(client, filter), Position(to))]).await;
    }

    /// Waits until these are the rows that are left.
    async fn left(&self, ids: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            let seen = rows(self.store(), IDS).await;
            if seen == ids {
                return;
            }
            assert!(Instant::now() < deadline, "{seen} are left and never {ids}");
            tick.tick().await;
        }
    }

    /// Waits until so much was counted: that comes after the commit.
    async fn counts(&self, expected: Purged) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while self.pool.purged() != expected {
            assert!(
                Instant::now() < deadline,
                "{:?} and never {expected:?}",
                self.pool.purged()
            );
            tick.tick().await;
        }
    }

    /// Waits for a round that began after everything so far: a message that has expired goes in every round.
    async fn round(&self) {
        let n = 1_000_000 + self.pool.purged().expired;
        for n in [n, n + 1] {
            let mut canary = message(n, "canary");
            canary.expires = Some(canary.at + Duration::from_secs(1));
            write(self.store(), [Write::Save(canary)]).await;
            let gone = "SELECT count(*) FROM mqtt_msg WHERE topic = 'canary'";
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while rows(self.store(), gone).await != "0" {
                assert!(Instant::now() < deadline, "no round");
                tick.tick().await;
            }
        }
    }
}

#[tokio::test]
async fn what_every_reader_has_acknowledged_goes_and_the_rest_stays() {
    let bench = Bench::new(|options| options.purge_acknowledged = true).await.read();
    bench.advance("slow", "t/+", 3).await;
    bench.advance("quick", "t/a", 6).await;
    bench.advance("elsewhere", "u", 0).await;
    bench.save(1..=8, "t/a").await;
    bench.save(9..=9, "nobody/reads/this").await;
    bench.save(10..=10, "u").await;
    bench.left("4 5 6 7 8 10").await;
    bench.advance("slow", "t/+", 8).await;
    bench.left("7 8 10").await;
    bench.advance("quick", "t/a", 8).await;
    bench.left("10").await;
    bench
        .counts(Purged {
            acknowledged: 9,
            ..Purged::default()
        })
        .await;
    let place = bench.save(11..=11, "u").await;
    assert_eq!(place, [Position(11)], "ids are never given out again");
}

#[tokio::test]
async fn a_reader_without_a_row_is_waited_for_as_long_as_it_lives() {
    let bench = Bench::new(|options| options.purge_acknowledged = true).await.read();
    let hold = bench.pool.hold(filter("t"));
    bench.save(1..=4, "t").await;
    bench.round().await;
    assert_eq!(rows(bench.store(), IDS).await, "1 2 3 4");
    hold.move_to(Position(2));
    bench.left("3 4").await;
    let clone = hold.clone();
    drop(hold);
    bench.round().await;
    assert_eq!(rows(bench.store(), IDS).await, "3 4");
    drop(clone);
    bench.left("NULL").await;
}

#[tokio::test]
async fn what_nobody_is_known_to_have_read_stays() {
    // Who begins at the earliest message wants it, and so does who takes from a queue; an archive has no readers.
    let queue = Readership {
        positions: true,
        queue: true,
    };
    let positions = Readership {
        positions: true,
        queue: false,
    };
    for (start, readership) in [
        (Start::Earliest, positions),
        (Start::Latest, queue),
        (Start::Latest, Readership::default()),
    ] {
        let bench = Bench::new(|options| {
            options.purge_acknowledged = true;
            options.initial_position = start;
        });
        let bench = bench.await;
        bench.pool.set_readership(readership);
        bench.save(1..=3, "t").await;
        bench.advance("c", "t", 3).await;
        bench.round().await;
        assert_eq!(rows(bench.store(), IDS).await, "1 2 3", "{start:?} {readership:?}");
    }
}

#[tokio::test]
async fn what_is_too_old_goes_but_only_by_force_where_somebody_has_not_read_it() {
    for force in [false, true] {
        let bench = Bench::new(|options| {
            options.message_retention = AGE;
            options.retention_force = force;
        });
        let bench = bench.await.read();
        bench.advance("away", "t", 2).await;
        bench.save(1..=5, "t").await;
        write(
            bench.store(),
            [Write::Save({
                let mut fresh = message(6, "other");
                fresh.at = std::time::SystemTime::now();
                fresh
            })],
        )
        .await;
        bench.left(if force { "6" } else { "3 4 5 6" }).await;
        bench
            .counts(Purged {
                age: if force { 5 } else { 2 },
                ..Purged::default()
            })
            .await;
    }
}

#[tokio::test]
async fn of_too_many_bytes_the_oldest_go() {
    const MAX: u64 = 2 << 20;
    let bench = Bench::new(|options| {
        options.message_max_bytes = Some(MAX);
        options.retention_force = true;
    });
    let bench = bench.await;
    bench.advance("away", "#", 0).await;
    for batch in 0..10 {
        let large = (1..=100).map(|n| {
            let mut large = message(batch * 100 + n, "t");
            large.payload = vec![7; 8 << 10].into();
            Write::Save(large)
        });
        write(bench.store(), large).await;
    }
    let upkeep = bench.store().upkeep().expect("SQLite looks after itself");
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    while upkeep.used_bytes().await.expect("an answer") > MAX {
        assert!(Instant::now() < deadline, "it stays too large");
        tick.tick().await;
    }
    bench.round().await;
    let left = rows(
        bench.store(),
        "SELECT count(*), min(id), max(id) FROM mqtt_msg WHERE topic = 't'",
    )
    .await;
    let numbers: Vec<u64> = left
        .split('|')
        .map(|number| number.parse().expect("a number"))
        .collect();
    assert_eq!(
        numbers[1],
        1000 - numbers[0] + 1,
        "the newest stay, without a gap: {left}"
    );
    assert_eq!(numbers[2], 1000, "{left}");
    assert!((150..=260).contains(&numbers[0]), "not more than has to: {left}");
    assert_eq!(bench.pool.purged().size, 1000 - numbers[0]);
}

#[tokio::test]
async fn a_message_that_has_expired_goes_whoever_has_not_read_it() {
    let bench = Bench::new(|options| options.purge_acknowledged = true).await.read();
    bench.advance("away", "#", 0).await;
    for (n, lifetime) in [(1, None), (2, Some(1)), (3, Some(u64::from(u32::MAX)))] {
        let mut message = message(n, "t");
        message.expires = lifetime.map(|seconds| message.at + Duration::from_secs(seconds));
        write(bench.store(), [Write::Save(message)]).await;
    }
    bench.left("1 3").await;
    bench
        .counts(Purged {
            expired: 1,
            ..Purged::default()
        })
        .await;
}

#[tokio::test]
async fn acknowledgements_go_on_while_much_is_purged() {
    let bench = Bench::new(|options| {
        options.message_retention = AGE;
        options.retention_force = true;
    });
    let bench = bench.await;
    // As an older version has left it.
    let many = "INSERT INTO mqtt_msg (msgid, topic, qos, payload, arrived) \
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
                SELECT 'old' || i, 't', 1, 'x', i FROM n";
    bench.store().query(many, &[]).await.expect("inserted");
    let mut between = 0;
    for n in 1.. {
        let mailbox = Arc::new(Mailbox::default());
        bench
            .pool
            .batcher()
            .gate(saves(&mailbox, n, n, Duration::from_secs(3_600)));
        assert_eq!(mailbox.expect(1).await, [Settled::Stored]);
        match rows(bench.store(), "SELECT count(*) FROM mqtt_msg WHERE msgid LIKE 'old%'")
            .await
            .as_str()
        {
            "30000" => {}
            "0" => break,
            _ => between += 1,
        }
    }
    assert!(between >= 5, "only {between} messages were acknowledged meanwhile");
}

#[tokio::test]
async fn a_round_looks_at_large_messages_without_reading_all_of_them() {
    let bench = Bench::new(|_| {}).await;
    for n in 1..=5 {
        let mut large = message(n, "t");
        large.payload = vec![7; 6 << 20].into();
        write(bench.store(), [Write::Save(large)]).await;
    }
    let upkeep = bench.store().upkeep().expect("SQLite looks after itself");
    let mut after = Position::START;
    let mut looks = Vec::new();
    loop {
        let aged = upkeep.aged(after, 1_000).await.expect("a look");
        looks.push(aged.rows.len());
        after = aged.rows.last().expect("a row").place;
        if aged.end {
            break;
        }
    }
    assert_eq!(looks, [2, 2, 1]);
}

#[tokio::test]
async fn a_backup_that_is_stopped_leaves_nothing_behind() {
    let bench = Bench::new(|_| {}).await;
    let many = "INSERT INTO mqtt_msg (msgid, topic, qos, payload, arrived) \
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) \
                SELECT i, 't', 1, zeroblob(200), i FROM n";
    bench.store().query(many, &[]).await.expect("inserted");
    let folder = tempfile::TempDir::new().expect("a folder");
    let wanted = Wanted {
        file: folder.path().join("copy.db"),
        force: false,
    };
    let watch = Arc::new(Watch::default());
    watch.stop();
    let stopped = backup(&bench.pool, &wanted, &watch).await;
    let reason = stopped.expect_err("it was stopped");
    assert!(reason.ends_with("stopped before it was done"), "{reason}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("ours").count(), 0);
    let made = backup(&bench.pool, &wanted, &Arc::new(Watch::default()))
        .await
        .expect("made");
    assert_eq!(made.newest_id, 30_000);
}
