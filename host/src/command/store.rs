//! `hookline store`: how the databases are, whether they are whole, and copies of them. Asks the running host over its
//! Unix socket; a check also works on the file of a host that does not run.

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use hyper::Method;
use serde::de::DeserializeOwned;

use super::door::{Closed, ask, escape, listen};
use super::{Failure, print, print_answer, say};
use crate::admin::PoolState;
use crate::admin::store::{Line, PROGRESS_INTERVAL, StoreStatus};
use crate::store::backup::Backup;
use crate::store::sql::sqlite::check_file;
use crate::store::upkeep::{COUNTED_MAX, Stamp, Status};

/// A host that works says so now and then; one that says nothing for so long does not.
const PATIENCE: Duration = PROGRESS_INTERVAL.saturating_add(Duration::from_secs(60));

/// Arguments of `hookline store`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Data folder of the host
    #[arg(long, value_name = "DIR", default_value = "./data", global = true)]
    data: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show files, sizes, rows, what may be deleted and what waits
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look for damage; exit status 1 where there is some
    Check {
        /// Compare every index with its table, too: slower
        #[arg(long)]
        full: bool,
        /// Which pool, where there are several: sqlite.pool1
        #[arg(long, value_name = "POOL")]
        pool: Option<String>,
        /// Check this file, which no host has open (a backup), instead of a host's
        #[arg(long, value_name = "FILE", conflicts_with = "pool")]
        file: Option<PathBuf>,
    },
    /// Write a copy of everything that is stored, while the host runs
    Backup {
        /// Where to; the host writes it, for its user alone
        file: PathBuf,
        /// Replace FILE where it is there
        #[arg(long)]
        force: bool,
        /// Which pool, where there are several: sqlite.pool1
        #[arg(long, value_name = "POOL")]
        pool: Option<String>,
    },
}

/// Runs `hookline store`.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let data = &args.data;
    match args.action {
        Action::Status { json } => status(data, json).await,
        Action::Check {
            full, file: Some(file), ..
        } => {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            let _nobody = hold(folder.unwrap_or(Path::new(".")), "check it without --file")?;
            check_closed(&file, full).await
        }
        Action::Check { full, pool, .. } => check(data, full, pool.as_deref()).await,
        Action::Backup { file, force, pool } => backup(data, &file, force, pool.as_deref()).await,
    }
}

async fn status(data: &Path, json: bool) -> Result<(), Failure> {
    let answer = ask(data, Method::GET, "/store").await?;
    let stores: Vec<StoreStatus> = read(&answer)?;
    if json {
        return print_answer(&answer);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let texts: Vec<String> = stores.iter().map(|store| describe(store, now)).collect();
    print(&texts.join("\n"))
}

async fn check(data: &Path, full: bool, pool: Option<&str>) -> Result<(), Failure> {
    let path = format!("/store/check?full={full}{}", pool_query(pool));
    let mut progress = Progress::default();
    let found = follow::<Vec<String>>(data, &path, |done, of| progress.rows(done, of)).await;
    match found {
        Ok(found) => verdict("", &found),
        Err(Closed::Nobody(_)) if data.join("hookline.db").exists() => {
            let _nobody = hold(data, "it is starting or stopping, so try again")?;
            say(format_args!(
                "no hookline runs on {}: checking its file",
                data.display()
            ));
            check_closed(&data.join("hookline.db"), full).await
        }
        Err(closed) => Err(closed.into()),
    }
}

/// Keeps hosts from starting while their file is read as one that nobody changes.
fn hold(data: &Path, otherwise: &str) -> Result<Option<File>, Failure> {
    let path = data.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(format!("{}: {error}", path.display()))),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
            "a hookline runs on {}: {otherwise}",
            data.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Failure::new(format!("{}: {error}", path.display()))),
    }
}

async fn check_closed(file: &Path, full: bool) -> Result<(), Failure> {
    let found = check_file(file, full).await.map_err(Failure::new)?;
    verdict(&format!("{}: ", file.display()), &found)
}

fn verdict(what: &str, found: &[String]) -> Result<(), Failure> {
    if found.is_empty() {
        return print(&format!("{what}nothing is wrong\n"));
    }
    let lines: String = found.iter().map(|finding| format!("{what}{finding}\n")).collect();
    print(&lines)?;
    let count = found.len();
    Err(Failure::new(format!("{what}something is wrong: {count} findings")))
}

async fn backup(data: &Path, file: &Path, force: bool, pool: Option<&str>) -> Result<(), Failure> {
    let file = std::path::absolute(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let Some(name) = file.to_str() else {
        return Err(Failure::new(format!("{}: write a name that is UTF-8", file.display())));
    };
    let path = format!("/store/backup?file={}&force={force}{}", escape(name), pool_query(pool));
    let mut progress = Progress::default();
    let made: Backup = follow(data, &path, |done, of| progress.bytes(done, of)).await?;
    print(&format!(
        "{}: {} in {:.1} s, up to message {}; checked\n",
        made.file.display(),
        bytes(made.bytes),
        made.seconds,
        made.newest_id
    ))
}

fn pool_query(pool: Option<&str>) -> String {
    pool.map(|pool| format!("&pool={}", escape(pool))).unwrap_or_default()
}

/// What the host says while it works, and its last word.
async fn follow<T: DeserializeOwned>(data: &Path, path: &str, mut working: impl FnMut(u64, u64)) -> Result<T, Closed> {
    let mut last = None;
    let heard = |line: &[u8]| {
        match read::<Line<T>>(line)? {
            Line::Working { done, of } => working(done, of),
            end => last = Some(end),
        }
        Ok(())
    };
    listen(data, Method::POST, path, PATIENCE, heard).await?;
    match last {
        Some(Line::Done(done)) => Ok(done),
        Some(Line::Failed(reason)) => Err(Closed::Failed(Failure::new(reason))),
        Some(Line::Working { .. }) | None => {
            let text = "the host ended before it was done: see its log";
            Err(Closed::Failed(Failure::new(text)))
        }
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(answer).map_err(|error| Failure::new(format!("the host's answer cannot be read: {error}")))
}

/// Says on a terminal, or now and then elsewhere, how far it is.
#[derive(Default)]
struct Progress {
    said: u32,
}

impl Progress {
    fn rows(&mut self, done: u64, of: u64) {
        if of > 0 {
            self.say(format_args!("looked at {done} of {of} rows"));
        }
    }

    fn bytes(&mut self, done: u64, of: u64) {
        self.say(format_args!("wrote {} of about {}", bytes(done), bytes(of)));
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        /// Into a log a line every ten seconds is enough.
        const QUIET: u32 = 20;
        if io::stderr().is_terminal() || self.said.is_multiple_of(QUIET) {
            say(line);
        }
        self.said += 1;
    }
}

/// A pool in lines.
fn describe(store: &StoreStatus, now_s: i64) -> String {
    let state = match store.health.state {
        PoolState::Up => "up",
        PoolState::Down => "down",
        PoolState::Connecting => "not asked yet",
    };
    let mut text = format!("{}: {state}", store.health.name);
    if let Some(error) = &store.health.error {
        let _ = write!(text, ": {error}");
    }
    let mut line = |name: &str, value: String| {
        let _ = write!(text, "\n  {name:<12} {value}");
    };
    if let Some(database) = &store.database {
        describe_database(database, now_s, &mut line);
    }
    let horizon = store.horizon.map_or("nobody reads".to_owned(), |id| id.to_string());
    line("read by all", format!("up to {horizon}"));
    let retention = &store.retention;
    let mut goes = Vec::new();
    goes.extend(retention.acknowledged.then(|| "acknowledged by everybody".to_owned()));
    goes.extend(
        retention
            .age_s
            .map(|age| format!("older than {}", duration(age as i64))),
    );
    goes.extend(retention.bytes_max.map(|max| format!("beyond {}", bytes(max))));
    let goes = if goes.is_empty() {
        "nothing".to_owned()
    } else {
        goes.join(", ")
    };
    line("deleted is", goes);
    let purged = &store.purged;
    let counts = [
        ("acknowledged", purged.acknowledged),
        ("expired", purged.expired),
        ("too old", purged.age),
        ("too much", purged.size),
    ];
    let counts: Vec<String> = counts.iter().map(|(why, count)| format!("{count} {why}")).collect();
    line("deleted", format!("{} since the start", counts.join(", ")));
    let waiting = format!("{} calls, {}", store.health.waiting, bytes(store.waiting_bytes));
    line("waiting", waiting);
    text.push('\n');
    text
}

fn describe_database(database: &Status, now_s: i64, line: &mut impl FnMut(&str, String)) {
    let stamp = |stamp: &Stamp| format!("{} ({} ago)", stamp.id, duration(now_s - stamp.arrived_s));
    line("file", database.file.clone());
    let sizes = [database.file_bytes, database.free_bytes, database.log_bytes].map(bytes);
    line(
        "size",
        format!("{}, {} of it free; log {}", sizes[0], sizes[1], sizes[2]),
    );
    line("schema", database.schema.to_string());
    line("survives", format!("a commit survives {}", database.survives));
    for (table, rows) in &database.rows {
        let more = if *rows >= COUNTED_MAX { " or more" } else { "" };
        line(table, format!("{rows} rows{more}"));
    }
    let none = || "none".to_owned();
    line("oldest", database.oldest.as_ref().map_or_else(none, stamp));
    line("newest", database.newest.as_ref().map_or_else(none, stamp));
    line("last id", database.newest_id.to_string());
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        s @ ..120 => format!("{s} s"),
        s @ ..7_200 => format!("{} min", s / 60),
        s @ ..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_said_in_words() {
        for (size, expected) in [
            (17, "17 bytes"),
            (1536, "1.5 KB"),
            (10 << 30, "10.0 GB"),
            (1 << 52, "4096.0 TB"),
        ] {
            assert_eq!(bytes(size), expected);
        }
        for (seconds, expected) in [(-5, "0 s"), (119, "119 s"), (7_199, "119 min"), (604_800, "7 days")] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_exit_status_1() {
        assert_eq!(verdict("", &[]), Ok(()));
        let failure = verdict("x.db: ", &["a row".to_owned()]).expect_err("something is wrong");
        assert_eq!(
            (failure.status, &*failure.sentence),
            (1, "x.db: something is wrong: 1 findings")
        );
    }
}
