//! Looking into a host from outside: its database, its metrics, its health.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, TypeInfo, ValueRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::host::Host;
use super::{PATIENCE, within};

impl Host {
    /// The rows of a query, cells joined by `|`, absent ones `null`; reads the file itself, running or not.
    pub async fn sql(&self, query: &str) -> Vec<String> {
        let mut connection = self.open(SqliteConnectOptions::new().read_only(true)).await;
        let rows = within(query, sqlx::query(AssertSqlSafe(query)).fetch_all(&mut connection)).await;
        let rows = rows.unwrap_or_else(|error| panic!("{query}: {error}"));
        connection.close().await.expect("nothing is written");
        rows.iter().map(line).collect()
    }

    /// The only cell of a query as a number.
    pub async fn count(&self, query: &str) -> i64 {
        let rows = self.sql(query).await;
        let [cell] = rows.as_slice() else {
            panic!("{query}: one row expected, not {rows:?}")
        };
        cell.parse()
            .unwrap_or_else(|_| panic!("{query}: a number expected, not {cell:?}"))
    }

    /// Runs statements as an application beside the broker would.
    pub async fn execute(&self, statements: &str) {
        let mut connection = self.writer().await;
        let done = within(
            statements,
            sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection),
        )
        .await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
        connection.close().await.expect("everything is committed");
    }

    /// A connection of an application beside the broker.
    pub async fn writer(&self) -> SqliteConnection {
        self.open(SqliteConnectOptions::new().busy_timeout(PATIENCE)).await
    }

    /// Opens the file once its tables are there: a host is ready before its database is.
    async fn open(&self, options: SqliteConnectOptions) -> SqliteConnection {
        let options = options.filename(self.database());
        let mut again = tokio::time::interval(Duration::from_millis(20));
        let ready = async {
            loop {
                again.tick().await;
                let Ok(mut connection) = options.connect().await else {
                    continue;
                };
                let version = sqlx::query_scalar::<_, i64>("pragma user_version")
                    .fetch_one(&mut connection)
                    .await;
                if version.is_ok_and(|version| version > 0) {
                    return connection;
                }
            }
        };
        within("the tables of the host", ready).await
    }

    /// Waits until a query answers this. A database tells nobody that it changed, so this asks again.
    pub async fn eventually(&self, query: &str, wanted: &[&str]) {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        let mut seen = Vec::new();
        let agree = async {
            loop {
                again.tick().await;
                seen = self.sql(query).await;
                if seen == wanted {
                    return;
                }
            }
        };
        let agreed = tokio::time::timeout(PATIENCE, agree).await;
        assert!(agreed.is_ok(), "{query}\n  answers {seen:?}\n  and never {wanted:?}");
    }

    /// Waits until the session of this client rests in the store. It tells nobody, so this asks again.
    pub async fn rests(&self, client: &str) {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let rests = async {
            loop {
                again.tick().await;
                if self
                    .get(&format!("/sessions/{client}"))
                    .await
                    .contains("\"at_rest\":true")
                {
                    return;
                }
            }
        };
        within(format!("the session of {client} to rest"), rests).await;
    }

    /// The sum of a metric over its labels; `metric(r#"acked{how="stored"}"#)` takes those that have the label.
    pub async fn metric(&self, wanted: &str) -> f64 {
        let (name, label) = wanted.split_once('{').unwrap_or((wanted, ""));
        let label = label.trim_end_matches('}');
        let text = self.get("/metrics").await;
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(label));
        let figures = lines.filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let whole = rest.starts_with('{') || rest.starts_with(' ');
            whole.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok()).flatten()
        });
        figures.sum()
    }

    /// Waits until a metric has this value.
    pub async fn metric_becomes(&self, wanted: &str, value: f64) {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        let mut seen = f64::NAN;
        let agree = async {
            while seen != value {
                again.tick().await;
                seen = self.metric(wanted).await;
            }
        };
        let agreed = tokio::time::timeout(PATIENCE, agree).await;
        assert!(agreed.is_ok(), "{wanted} is {seen} and never {value}");
    }

    /// Waits until a metric is above a value.
    pub async fn metric_exceeds(&self, wanted: &str, value: f64) {
        let mut again = tokio::time::interval(Duration::from_millis(20));
        let exceeds = async {
            while self.metric(wanted).await <= value {
                again.tick().await;
            }
        };
        let exceeded = tokio::time::timeout(PATIENCE, exceeds).await;
        assert!(exceeded.is_ok(), "{wanted} is never above {value}");
    }

    /// The body that the admin socket answers to GET; the status must be 200.
    pub async fn get(&self, path: &str) -> String {
        let answer = within(path, ask(&self.data().join("hookline.sock"), path)).await;
        let answer = answer.unwrap_or_else(|error| panic!("GET {path} over the admin socket: {error}"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        assert!(
            head.lines().next().is_some_and(|status| status.contains(" 200 ")),
            "GET {path}: {head}"
        );
        body.to_owned()
    }
}

/// HTTP/1.0, so that the answer ends where the connection does.
async fn ask(socket: &std::path::Path, path: impl Display) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: hookline\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn line(row: &SqliteRow) -> String {
    let cells: Vec<String> = (0..row.len()).map(|at| cell(row, at)).collect();
    cells.join("|")
}

fn cell(row: &SqliteRow, at: usize) -> String {
    let raw = row.try_get_raw(at).expect("the column exists");
    match raw.type_info().name() {
        _ if raw.is_null() => "null".to_owned(),
        "INTEGER" => row.get::<i64, _>(at).to_string(),
        "REAL" => row.get::<f64, _>(at).to_string(),
        "TEXT" => row.get::<String, _>(at),
        _ => String::from_utf8_lossy(row.get_unchecked::<&[u8], _>(at)).into_owned(),
    }
}
