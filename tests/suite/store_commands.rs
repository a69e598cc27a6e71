//! `hookline store`: looking after a database from the command line, with a host and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use hookline::admin::store::StoreStatus;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::harness::fault::SmallDisk;
use crate::harness::host::Host;
use crate::harness::tools::tool;
use crate::harness::{Mqtt, within};

async fn store(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline"));
    command.arg("store").args(arguments).arg("--data").arg(data);
    let shown = format!("{command:?}");
    let output = within(shown, spawn_blocking(move || command.output())).await;
    output.expect("the command does not panic").expect("it can be run")
}

/// What a command that succeeds prints.
async fn says(data: &Path, arguments: &[&str]) -> String {
    let output = store(data, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a command that fails says why.
async fn refuses(data: &Path, arguments: &[&str]) -> String {
    let output = store(data, arguments).await;
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder of ours");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's name is text")
}

#[tokio::test]
async fn status_says_what_is_there_and_what_waits() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t/#", 1).await;
    app.disconnect().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish_all("t", 1, &["1", "2", "3"].map(String::from)).await;
    sensor.retain("kept", 1, "x").await;

    let json = says(&host.data(), &["status", "--json"]).await;
    let stores: Vec<StoreStatus> = serde_json::from_str(&json).expect("what the host said");
    let [store] = stores.as_slice() else { panic!("{json}") };
    let database = store.database.as_ref().expect("it is up");
    assert_eq!(Path::new(&database.file), host.database());
    assert_eq!((database.rows["mqtt_msg"], database.rows["mqtt_retain"]), (4, 1));
    assert_eq!((database.newest_id, store.horizon), (4, Some(0)));
    let (oldest, newest) = (database.oldest.as_ref(), database.newest.as_ref());
    assert_eq!((oldest.map(|it| it.id), newest.map(|it| it.id)), (Some(1), Some(4)));
    assert!(database.file_bytes + database.log_bytes > 0, "{json}");
    assert_eq!(store.retention.age_s, Some(7 * 86_400));

    let told = says(&host.data(), &["status"]).await;
    for line in [
        "sqlite.pool1: up\n",
        "mqtt_msg     4 rows\n",
        "a commit survives loss of power\n",
        "read by all  up to 0\n",
        "acknowledged by everybody, older than 7 days, beyond 10.0 GB\n",
        "waiting      0 calls, 0 bytes\n",
    ] {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_backup_began_is_in_it() {
    let host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t", 1).await;
    app.disconnect().await;
    host.eventually("select state from mqtt_client where clientid = 'app'", &["0"])
        .await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("copy of today.db");
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    let payloads: Vec<String> = (0..2000).map(|number| format!("{number:0512}")).collect();
    sensor.publish_all("t", 1, &payloads[..1000]).await;
    let (data, backup) = (host.data(), ["backup", text(&file)]);
    let (said, ()) = tokio::join!(says(&data, &backup), sensor.publish_all("t", 1, &payloads[1000..]));
    let newest: usize = said
        .rsplit("up to message ")
        .next()
        .and_then(|rest| rest.split(';').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    assert!(newest >= 1000, "{said}");
    assert!(said.starts_with(text(&file)) && said.contains("checked"), "{said}");
    assert_eq!(names(folder.path()), ["copy of today.db"], "nothing else is left");
    let mode = fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        says(folder.path(), &["check", "--full", "--file", text(&file)]).await,
        format!("{}: nothing is wrong\n", file.display())
    );

    let second = folder.path().join("second");
    fs::create_dir(&second).expect("a folder of ours");
    fs::copy(&file, second.join("hookline.db")).expect("a copy of the copy");
    let restored = Host::plan().data(second).start().await;
    let mut app = restored.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t", 1).await;
    app.expect_all(&payloads[..newest]).await;
    app.expect_nothing("t").await;
}

#[tokio::test]
async fn a_backup_replaces_nothing_unless_it_is_told_to() {
    let host = Host::start().await;
    host.client(Mqtt::V5, "sensor")
        .connect()
        .await
        .publish("t", 1, "x")
        .await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("x.db");
    fs::write(&file, "mine").expect("a folder of ours");
    let data = host.data();

    let said = refuses(&data, &["backup", text(&file)]).await;
    assert!(said.contains("is there already") && said.contains("--force"), "{said}");
    assert_eq!(fs::read(&file).expect("it is there"), b"mine");
    says(&data, &["backup", "--force", text(&file)]).await;
    assert!(fs::read(&file).expect("it is there").starts_with(b"SQLite format 3"));

    for own in ["hookline.db", "hookline.db-wal"] {
        let own = data.join(own);
        let said = refuses(&data, &["backup", "--force", text(&own)]).await;
        assert!(said.contains("is the database itself"), "{said}");
    }
    let said = refuses(&data, &["backup", "--force", text(folder.path())]).await;
    assert!(said.contains("is no file"), "{said}");
    let said = refuses(&data, &["backup", "--pool", "sqlite.pool9", text(&file)]).await;
    assert!(
        said.contains("there is no pool sqlite.pool9: there is sqlite.pool1"),
        "{said}"
    );
    assert_eq!(names(folder.path()), ["x.db"]);
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_says_why_and_leaves_nothing_behind() {
    let host = Host::start().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    let payloads: Vec<String> = (0..300).map(|number| format!("{number:08192}")).collect();
    sensor.publish_all("t", 1, &payloads).await;
    let data = host.data();
    let missing = data.join("there/is/no/such/folder/x.db");
    let said = refuses(&data, &["backup", text(&missing)]).await;
    assert!(said.contains("No such file or directory"), "{said}");

    let small = TempDir::new().expect("a folder");
    let Some(disk) = SmallDisk::mount(small.path(), "8m") else {
        return;
    };
    disk.fill();
    let file = small.path().join("x.db");
    let said = refuses(&data, &["backup", text(&file)]).await;
    assert!(said.contains("bytes, ") && said.contains("are free"), "{said}");
    assert_eq!(names(small.path()), ["filler"]);
    disk.free();
    says(&data, &["backup", text(&file)]).await;
    assert_eq!(names(small.path()), ["x.db"]);
}

#[tokio::test]
async fn one_backup_is_made_at_a_time_and_a_stop_does_not_wait_for_it() {
    let Some(strace) = tool("strace") else { return };
    let folder = TempDir::new().expect("a folder");
    let (file, part) = (folder.path().join("x.db"), folder.path().join("x.db.part"));
    // A slow disk: every page that is written to the copy takes its time.
    let slow = "inject=pwrite64:delay_exit=50000";
    let words = [
        "-f",
        "-o",
        "/dev/null",
        "-P",
        text(&part),
        "-e",
        "trace=pwrite64",
        "-e",
        slow,
    ];
    let mut host = Host::plan()
        .under([text(&strace)].into_iter().chain(words))
        .start()
        .await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish("t", 1, "x").await;
    host.execute(
        "insert into mqtt_msg (msgid, topic, qos, payload, arrived)
         with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
         select i, 't', 1, zeroblob(300), unixepoch() from n",
    )
    .await;
    let data = host.data();
    let arguments = ["backup", text(&file)];
    let first = store(&data, &arguments);
    let others = async {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(20));
        let begun = async {
            while !fs::metadata(&part).is_ok_and(|part| part.len() > 0) {
                again.tick().await;
            }
        };
        within("the copy's first page", begun).await;
        let said = refuses(&data, &["backup", text(&folder.path().join("y.db"))]).await;
        assert!(said.contains("another backup is being made"), "{said}");
        host.terminate().await
    };
    let (first, ended) = tokio::join!(first, others);
    assert!(ended.success(), "{ended}");
    assert_eq!(first.status.code(), Some(1));
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(said.contains("wrote ") && said.contains(" of about "), "{said}");
    assert!(said.contains("stopped before it was done"), "{said}");
    assert_eq!(names(folder.path()), [""; 0], "nothing is left");
}

#[tokio::test]
async fn a_check_names_what_is_wrong_with_a_host_or_without_one() {
    let mut host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t", 1).await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish("t", 1, "x").await;
    app.expect("x").await;
    app.disconnect().await;
    let data = host.data();
    assert_eq!(says(&data, &["check"]).await, "nothing is wrong\n");

    host.execute(
        "insert into mqtt_acked (clientid, topic, mid) values ('ahead', 't', 4711), ('odd', 'a/#/b', 0);
         insert into mqtt_msg (msgid, topic, qos, arrived) values ('no id', 't', 1, 1);
         insert into mqtt_session_sub (clientid, topic, qos, no_local, retain_as_published, retain_handling)
           values ('nobody', 't', 1, 0, 0, 0);
         insert into mqtt_retain (msgid, topic) values ('2PguFrHsrzEvIIBdctmb', 'a/+')",
    )
    .await;
    let said = refuses(&data, &["check"]).await;
    for finding in [
        "\"ahead\" has read \"t\" up to 4711, beyond the newest message",
        "which is no topic filter",
        "mqtt_msg: row 2: msgid is \"no id\", which is no message id",
        "which is no topic name",
        "mqtt_session_sub: rows of \"nobody\", which has no row in mqtt_session",
        "something is wrong: 5 findings",
    ] {
        assert!(said.contains(finding), "{finding} is not in\n{said}");
    }

    let said = refuses(&data, &["check", "--file", text(&host.database())]).await;
    assert!(
        said.contains("a hookline runs on") && said.contains("without --file"),
        "{said}"
    );
    host.terminate().await;
    let before = names(&data);
    let offline = refuses(&data, &["check", "--full"]).await;
    assert!(offline.contains("no hookline runs on"), "{offline}");
    assert!(offline.contains("something is wrong: 5 findings"), "{offline}");
    assert_eq!(names(&data), before, "a check creates nothing");
    let nothing = TempDir::new().expect("a folder");
    let said = refuses(nothing.path(), &["check"]).await;
    assert!(said.contains("no hookline runs on"), "{said}");
    assert_eq!(names(nothing.path()), [""; 0]);
}

#[tokio::test]
async fn a_check_without_a_host_sees_what_a_crash_left_in_the_log() {
    let mut host = Host::start().await;
    let mut app = host.client(Mqtt::V5, "app").persistent().connect().await;
    app.subscribe("t", 1).await;
    app.disconnect().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    sensor.publish("t", 1, "x").await;
    host.execute("update mqtt_msg set msgid = 'no id'").await;
    host.kill9().await;
    let before = fs::read(host.database()).expect("it is there");
    let said = refuses(&host.data(), &["check"]).await;
    assert!(said.contains("row 1: msgid is"), "{said}");
    let after = fs::read(host.database()).expect("it is there");
    assert!(before == after, "a check changes nothing");
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let mut host = Host::start().await;
    let mut sensor = host.client(Mqtt::V5, "sensor").connect().await;
    let payloads: Vec<String> = (0..300).map(|number| format!("{number:01024}")).collect();
    sensor.publish_all("t", 1, &payloads).await;
    host.terminate().await;
    let file = host.database();
    let mut bytes = fs::read(&file).expect("it is there");
    let at = bytes.len() / 2 / 4096 * 4096;
    bytes[at..at + 64].fill(0xEE);
    fs::write(&file, bytes).expect("it is ours");
    let said = refuses(&host.data(), &["check"]).await;
    assert!(
        said.contains("something is wrong") || said.contains("malformed"),
        "{said}"
    );
}

#[tokio::test]
async fn without_a_host_there_is_no_status_and_no_backup() {
    let data = TempDir::new().expect("a folder");
    let file = data.path().join("never.db");
    for arguments in [&["status"][..], &["backup", text(&file)]] {
        let said = refuses(data.path(), arguments).await;
        assert!(said.contains("start it with `hookline start --data"), "{said}");
    }
    assert!(!file.exists());
}
