//! What can happen to the database: no acknowledgement without a commit, no crash, a clear line, and recovery
//! without a restart.

use std::fs;
use std::path::PathBuf;

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::harness::fault::{Immutable, Lock, SmallDisk};
use crate::harness::host::{Host, Plan};
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{BOTH, Mqtt};

/// Every complaint about a database names its pool.
const POOL: &str = "pool1";
/// The mark of message ids lies beside the database and shares its fate.
const MARK: &str = "message-ids.mark";

/// Publishes at QoS 1 and 2 and shows that both wait, while the host is alive and says why.
async fn publishes_wait(host: &mut Host, sensor: &mut Raw) {
    host.announce(MARK);
    sensor.publish(1, 1, "t/1", "one").await;
    sensor.publish(2, 2, "t/1", "two").await;
    host.metric_becomes("messages_open", 2.0).await;
    host.announce(POOL);
    // Not before a commit was tried: until then nobody could have been told a lie.
    host.metric_exceeds(r#"store_writes_total{outcome="retried"}"#, 0.0)
        .await;
    host.logged(POOL).await;
    for _ in 0..5 {
        assert_eq!(sensor.ping().await, [], "no acknowledgement without a commit");
    }
}

/// Shows that what waited is acknowledged now, that it is stored once, and that publishing goes on.
async fn publishes_go_on(host: &Host, sensor: &mut Raw) {
    let mut acks = [sensor.next().await, sensor.next().await];
    acks.sort_by_key(|said| matches!(said, Said::PubRec(..)));
    assert_eq!(acks, [Said::PubAck(1, 0), Said::PubRec(2, 0)]);
    sensor.publish(3, 1, "t/1", "three").await;
    assert_eq!(sensor.next().await, Said::PubAck(3, 0));
    let mut stored = host.sql("select payload from mqtt_msg where topic = 't/1'").await;
    stored.sort();
    assert_eq!(stored, ["one", "three", "two"]);
}

#[tokio::test]
async fn a_locked_database_delays_acknowledgements() {
    for mqtt in BOTH {
        let mut host = Host::start().await;
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        let lock = Lock::take(&host).await;
        publishes_wait(&mut host, &mut sensor).await;
        lock.release().await;
        publishes_go_on(&host, &mut sensor).await;
    }
}

#[tokio::test]
async fn a_full_disk_delays_acknowledgements() {
    let folder = TempDir::new().expect("a temporary folder");
    let Some(disk) = SmallDisk::mount(folder.path(), "4m") else {
        return;
    };
    let mut host = Host::plan().data(folder.path().to_path_buf()).start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    disk.fill();
    publishes_wait(&mut host, &mut sensor).await;
    disk.free();
    publishes_go_on(&host, &mut sensor).await;
}

#[tokio::test]
async fn a_database_that_becomes_read_only_delays_acknowledgements() {
    let mut host = Host::start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let files = ["hookline.db", "hookline.db-wal"].map(|name| host.data().join(name));
    let Some(frozen) = Immutable::freeze(files.into_iter().filter(|file| file.exists())) else {
        return;
    };
    publishes_wait(&mut host, &mut sensor).await;
    drop(frozen);
    publishes_go_on(&host, &mut sensor).await;
}

#[tokio::test]
async fn a_database_that_is_read_only_at_the_start_delays_acknowledgements() {
    let mut host = Host::start().await;
    host.terminate().await;
    let Some(frozen) = Immutable::freeze([host.database()]) else {
        return;
    };
    host.announce(POOL);
    host.restart().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    publishes_wait(&mut host, &mut sensor).await;
    drop(frozen);
    publishes_go_on(&host, &mut sensor).await;
}

#[tokio::test]
async fn a_corrupt_file_delays_acknowledgements_until_a_good_one_takes_its_place() {
    let plan = Host::plan().set("backend.sqlite.pool1.persist_sessions", "off");
    let (mut host, good) = with_a_corrupt_file(plan).await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    publishes_wait(&mut host, &mut sensor).await;
    fs::rename(&good, host.database()).expect("the data folder is ours");
    publishes_go_on(&host, &mut sensor).await;
}

/// A host whose database was damaged while it was down, and where the good one lies.
async fn with_a_corrupt_file(plan: Plan) -> (Host, PathBuf) {
    let mut host = plan.start().await;
    host.terminate().await;
    let good = host.data().join("good.db");
    fs::rename(host.database(), &good).expect("the host has ended and its database is one file");
    fs::write(host.database(), [0xA5; 64 << 10]).expect("the data folder is ours");
    host.announce(POOL);
    host.restart().await;
    (host, good)
}

#[tokio::test]
async fn nobody_is_told_that_there_is_no_session_while_the_store_cannot_say() {
    let (mut host, good) = with_a_corrupt_file(Host::plan()).await;
    host.announce("read given up");
    let refused = [
        (Hello::clean(Mqtt::V5, "a"), 0x88),
        (Hello::persistent(Mqtt::V5, "b"), 0x88),
        (Hello::clean(Mqtt::V311, "c"), 3),
        (Hello::persistent(Mqtt::V311, "d"), 3),
    ];
    let asked = refused.map(|(hello, code)| {
        let host = &host;
        async move {
            let said = host.dial(hello.mqtt).await.hello(hello).await;
            assert!(
                matches!(said, Said::ConnAck { code: said, .. } if said == code),
                "{said:?}"
            );
        }
    });
    join_all(asked).await;
    fs::rename(&good, host.database()).expect("the data folder is ours");
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    sensor.publish(1, 1, "t/1", "one").await;
    assert_eq!(sensor.next().await, Said::PubAck(1, 0));
}

#[tokio::test]
async fn a_missing_folder_delays_acknowledgements_until_it_is_back() {
    let mut host = Host::plan().announce("mark of message ids").start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let away = host.data().with_extension("away");
    fs::rename(host.data(), &away).expect("the temporary folder is ours");
    // A file in its place, so that nobody can make a new folder there.
    fs::write(host.data(), "").expect("the temporary folder is ours");
    host.announce(MARK);
    sensor.publish(1, 1, "t/1", "one").await;
    sensor.publish(2, 2, "t/1", "two").await;
    host.logged(POOL).await;
    for _ in 0..5 {
        assert_eq!(sensor.ping().await, [], "a commit to a file that nobody finds is none");
    }
    fs::remove_file(host.data()).expect("the temporary folder is ours");
    fs::rename(&away, host.data()).expect("the temporary folder is ours");
    publishes_go_on(&host, &mut sensor).await;
}

#[tokio::test]
async fn after_the_file_was_deleted_acknowledged_messages_are_in_the_new_one() {
    let mut host = Host::plan().announce(POOL).start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    sensor.publish(9, 1, "before", "x").await;
    assert_eq!(sensor.next().await, Said::PubAck(9, 0));
    for name in ["hookline.db", "hookline.db-wal", "hookline.db-shm"] {
        let file: PathBuf = host.data().join(name);
        if file.exists() {
            fs::remove_file(file).expect("the data folder is ours");
        }
    }
    sensor.publish(1, 1, "t/1", "one").await;
    sensor.publish(2, 2, "t/1", "two").await;
    publishes_go_on(&host, &mut sensor).await;
    host.logged(POOL).await;
    assert_eq!(
        host.count("select count(*) from mqtt_msg where topic = 'before'").await,
        0,
        "that one is gone"
    );
}

#[tokio::test]
async fn a_row_that_the_database_refuses_is_answered_and_its_neighbours_are_stored() {
    for (mqtt, refusal) in [(Mqtt::V5, Said::PubAck(2, 0x83)), (Mqtt::V311, Said::End)] {
        let host = Host::plan().announce("refused").announce(POOL).start().await;
        host.execute(
            "create trigger picky before insert on mqtt_msg when new.topic = 'refused'
             begin select raise(ignore); end",
        )
        .await;
        let mut bad = host.raw(Hello::clean(mqtt, "bad")).await;
        let mut good = host.raw(Hello::clean(mqtt, "good")).await;
        let lock = Lock::take(&host).await;
        bad.publish(1, 1, "t/1", "before").await;
        bad.publish(2, 1, "refused", "x").await;
        good.publish(3, 1, "t/1", "beside").await;
        host.metric_becomes("messages_open", 3.0).await;
        lock.release().await;
        assert_eq!(good.next().await, Said::PubAck(3, 0), "{mqtt:?}");
        assert_eq!(bad.next().await, Said::PubAck(1, 0), "{mqtt:?}");
        assert_eq!(bad.next().await, refusal, "{mqtt:?}");
        assert_eq!(host.count("select count(*) from mqtt_msg").await, 2, "{mqtt:?}");
        host.metric_becomes("messages_refused_total", 1.0).await;
    }
}

#[tokio::test]
async fn a_fetch_waits_for_a_database_that_comes_back() {
    let mut host = Host::earliest().await;
    host.client(Mqtt::V5, "sensor")
        .connect()
        .await
        .publish("t/1", 1, "stored")
        .await;
    let lock = Lock::take(&host).await;
    let mut app = host.raw(Hello::clean(Mqtt::V311, "app")).await;
    assert_eq!(app.subscribe("t/1", 1).await, [], "the SUBACK does not wait");
    host.logged(POOL).await;
    lock.release().await;
    assert!(matches!(app.next().await, Said::Publish { payload, .. } if payload == "stored"));
}
