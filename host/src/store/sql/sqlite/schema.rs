//! SQLite's tables (spec D0): created and brought up to date, never dropped. `PRAGMA user_version` says how far
//! a file has come.

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::answer::{away, fault};
use crate::store::options::InitSchema;
use crate::store::sql::Fault;

/// One step a version, in order. A step that was shipped is never changed.
const STEPS: &[&str] = &[
    // AUTOINCREMENT: without it ids start again below stored positions once the newest rows are deleted.
    "CREATE TABLE IF NOT EXISTS mqtt_client (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, state INTEGER, node TEXT,
       online_at INTEGER, offline_at INTEGER, created INTEGER DEFAULT (unixepoch()),
       UNIQUE (clientid));
     CREATE TABLE IF NOT EXISTS mqtt_sub (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, topic TEXT NOT NULL, qos INTEGER,
       created INTEGER DEFAULT (unixepoch()),
       UNIQUE (clientid, topic));
     CREATE TABLE IF NOT EXISTS mqtt_msg (
       id INTEGER PRIMARY KEY AUTOINCREMENT, msgid TEXT, topic TEXT NOT NULL, sender TEXT, node TEXT,
       qos INTEGER NOT NULL DEFAULT 0, retain INTEGER, payload BLOB, arrived INTEGER NOT NULL,
       props BLOB, expire_at INTEGER,
       UNIQUE (msgid));
     CREATE INDEX IF NOT EXISTS mqtt_msg_topic_idx ON mqtt_msg (topic, id);
     CREATE TABLE IF NOT EXISTS mqtt_retain (
       id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, msgid TEXT, sender TEXT, node TEXT,
       qos INTEGER, payload BLOB, arrived INTEGER NOT NULL DEFAULT (unixepoch()),
       props BLOB, expire_at INTEGER,
       UNIQUE (topic));
     CREATE TABLE IF NOT EXISTS mqtt_acked (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, topic TEXT NOT NULL, mid INTEGER,
       created INTEGER,
       UNIQUE (clientid, topic));",
    // Sessions that survive a crash (spec C16). `left_at` is NULL while the client is connected; `due_at` says when
    // a will or the session's expiry is due.
    "CREATE TABLE IF NOT EXISTS mqtt_session (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, username TEXT, protocol INTEGER NOT NULL,
       node TEXT NOT NULL, epoch INTEGER NOT NULL, connected_at INTEGER NOT NULL, left_at INTEGER, due_at INTEGER,
       expiry INTEGER NOT NULL,
       will_topic TEXT, will_payload BLOB, will_qos INTEGER, will_retain INTEGER, will_delay INTEGER,
       will_expiry INTEGER, will_props BLOB, created INTEGER DEFAULT (unixepoch()),
       UNIQUE (clientid));
     CREATE INDEX IF NOT EXISTS mqtt_session_due_idx ON mqtt_session (due_at) WHERE due_at IS NOT NULL;
     CREATE TABLE IF NOT EXISTS mqtt_session_sub (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, topic TEXT NOT NULL, qos INTEGER NOT NULL,
       no_local INTEGER NOT NULL, retain_as_published INTEGER NOT NULL, retain_handling INTEGER NOT NULL,
       identifier INTEGER, created INTEGER DEFAULT (unixepoch()),
       UNIQUE (clientid, topic));
     CREATE TABLE IF NOT EXISTS mqtt_session_qos2 (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, direction INTEGER NOT NULL,
       packetid INTEGER NOT NULL, msgid TEXT NOT NULL, released INTEGER NOT NULL,
       created INTEGER DEFAULT (unixepoch()),
       UNIQUE (clientid, direction, msgid));",
    // One message may be under way to a client under two packet identifiers.
    "CREATE TABLE mqtt_session_qos2_anew (
       id INTEGER PRIMARY KEY AUTOINCREMENT, clientid TEXT NOT NULL, direction INTEGER NOT NULL,
       packetid INTEGER NOT NULL, msgid TEXT NOT NULL, released INTEGER NOT NULL,
       created INTEGER DEFAULT (unixepoch()),
       UNIQUE (clientid, direction, packetid, msgid));
     INSERT INTO mqtt_session_qos2_anew SELECT id, clientid, direction, packetid, msgid, released, created
       FROM mqtt_session_qos2;
     DROP TABLE mqtt_session_qos2;
     ALTER TABLE mqtt_session_qos2_anew RENAME TO mqtt_session_qos2;",
    // Whether the client still awaits retained messages that it subscribed to.
    "ALTER TABLE mqtt_session_sub ADD COLUMN owes_retained INTEGER NOT NULL DEFAULT 0;",
];

/// Takes the steps that this file has not taken, all or none of them.
pub(super) async fn bring_up(connection: &mut SqliteConnection, init: InitSchema) -> Result<(), Fault> {
    let found = version(connection).await?;
    let known = STEPS.len() as i64;
    if found > known {
        return Err(away(format!(
            "its schema has version {found}, this program knows {known}: start a newer one"
        )));
    }
    let wanted = match init {
        InitSchema::Off => false,
        InitSchema::Create => found == 0,
        InitSchema::Upgrade => found < known,
    };
    if !wanted {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
    // Somebody else may have been quicker.
    let found = version(&mut transaction).await?;
    for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(fault)?;
    }
    let stamp = format!("PRAGMA user_version = {known}");
    sqlx::raw_sql(AssertSqlSafe(stamp))
        .execute(&mut *transaction)
        .await
        .map_err(fault)?;
    transaction.commit().await.map_err(fault)
}

/// What a check says of a file whose tables this program does not know.
pub(super) fn missing(found: u64) -> Option<String> {
    let known = STEPS.len() as u64;
    match found {
        0 => Some("it has no tables of ours: a host creates them at its first start".to_owned()),
        found if found > known => Some(format!(
            "its tables have version {found}, this program knows {known}: check it with a newer one"
        )),
        _ => None,
    }
}

async fn version(connection: &mut SqliteConnection) -> Result<i64, Fault> {
    let version = sqlx::query_scalar("PRAGMA user_version").fetch_one(connection);
    version.await.map_err(fault)
}
