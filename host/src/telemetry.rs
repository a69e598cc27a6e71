//! Every metric name, once; and the set-up of logs and metrics. Client ids and topics are never labels.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

/// A metric in one line: what it is, its constant, its name, its help with the labels. The constant, the help on
/// `/metrics` and the list that `docs/metrics.md` is checked against come from it.
macro_rules! names {
    ($($describe:ident $constant:ident = $name:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        fn describe() {
            $($describe!($constant, $help);)*
        }

        #[cfg(test)]
        const ALL: &[(&str, &str, &str)] = &[$((stringify!($describe), $name, $help)),*];
    };
}

names! {
    describe_histogram HOOK_RUN_SECONDS = "hook_run_seconds", "Seconds a rule took to decide and hand over, a run of messages at a time: `point`, `action`, `outcome`.";
    describe_counter RULE_MATCHED = "rule_matched_total", "Times a rule matched: `rule`.";
    describe_histogram STORE_CALL_SECONDS = "store_call_seconds", "Seconds a call of a store took: `pool`, `verb`, `outcome`.";
    describe_histogram STORE_BATCH_WRITES = "store_batch_writes", "Writes of one commit: `pool`.";
    describe_counter STORE_WRITES = "store_writes_total", "Writes by what became of them: `pool`, `write`, `outcome` = stored, refused, cancelled or retried.";
    describe_gauge POOL_WAITING = "pool_waiting", "Writes and reads that wait for a pool: `pool`.";
    describe_gauge POOL_WAITING_BYTES = "pool_waiting_bytes", "Bytes that wait for a pool: `pool`.";
    describe_gauge POOL_UP = "pool_up", "1 where the database answers, 0 where it does not: `pool`.";
    describe_counter MESSAGES_PURGED = "messages_purged_total", "Stored messages deleted: `pool`, `reason` = acknowledged (by everybody), expired, age or size.";
    describe_gauge CONNECTIONS = "connections", "Open sockets.";
    describe_gauge CONNECTIONS_HALF_OPEN = "connections_half_open", "Open sockets whose CONNECT has not come yet.";
    describe_gauge CLIENTS_CONNECTED = "clients_connected", "Sessions whose client is connected.";
    describe_counter SESSIONS_EXPIRED = "sessions_expired_total", "Sessions whose client did not come back in time.";
    describe_gauge SESSIONS = "sessions", "Sessions in memory, connected or not; kept sessions of absent clients are in the store.";
    describe_gauge SUBSCRIPTIONS = "subscriptions", "Subscriptions.";
    describe_gauge RETAINED = "retained_messages", "Retained messages that the broker itself keeps.";
    describe_counter DISCONNECTS = "disconnects_total", "CONNECTs refused and connections closed by us: `reason`.";
    describe_counter MESSAGES_RECEIVED = "messages_received_total", "PUBLISH received: `qos`. For QoS 1 and 2: received = acked + refused + open.";
    describe_counter MESSAGES_ACKED = "messages_acked_total", "Positive PUBACK and PUBREC: `how` = stored or unstored (no rule stores the message).";
    describe_counter MESSAGES_REFUSED = "messages_refused_total", "PUBLISH refused.";
    describe_gauge MESSAGES_OPEN = "messages_open", "PUBLISH whose gate is open.";
    describe_counter MESSAGES_SENT = "messages_sent_total", "PUBLISH sent: `qos`.";
    describe_counter MESSAGES_DROPPED = "messages_dropped_total", "Deliveries dropped: `reason` = queue_full, evicted (from a full queue, for a newer one), mailbox_full, expired, offline_qos0, too_large, retained_full, no_member or reserved_topic.";
    describe_counter MESSAGES_DEFERRED = "messages_deferred_total", "Live copies left to the store because the subscriber was slow or away.";
    describe_counter OPERATOR_SUBSCRIPTIONS_SKIPPED = "operator_subscriptions_skipped_total", "Rows of `mqtt_sub` that are no subscription and were skipped.";
    describe_counter LIMITS_HIT = "limits_hit_total", "Times somebody ran into a limit: `limit`, see limits.md.";
    describe_counter PACKETS = "packets_total", "MQTT packets of every kind, CONNECT and CONNACK aside: `direction` = in or out.";
    describe_counter BYTES = "bytes_total", "Bytes read from and written to clients: `direction` = in or out.";
}

/// From the fastest commit we have seen to the longest patience of a pool.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// One write a commit is an idle store; a full batch is a busy one.
const WRITES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// How often histograms are folded, so that they stay small where nobody asks for `/metrics`.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why logs or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A level that nobody knows.
    #[error(
        "{origin}: \"{filter}\" is no log filter: write a level (error, warn, info, debug, trace) or `hookline=debug`"
    )]
    Filter {
        /// Who said it: `RUST_LOG`, or the configuration.
        origin: &'static str,
        /// What was said.
        filter: String,
    },
    /// Something else writes the logs of this process.
    #[error("logs are set up already")]
    LogsTaken,
    /// Something else counts in this process.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Writes logs to stderr, a line an event, in colour only on a terminal. `RUST_LOG` beats `level`.
pub fn init_logs(level: &str) -> Result<(), Error> {
    let filter = filter(std::env::var("RUST_LOG").ok(), level)?;
    tracing_subscriber::fmt()
        .compact()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|_| Error::LogsTaken)
}

/// `environment` where it says something, else `level`.
fn filter(environment: Option<String>, level: &str) -> Result<EnvFilter, Error> {
    let (origin, filter) = match environment.filter(|text| !text.is_empty()) {
        Some(text) => ("RUST_LOG", text),
        None => ("log level", level.to_owned()),
    };
    // The parser would take any single word as the name of a target, and then log nothing at all.
    let known = !filter.is_empty() && (filter.contains(['=', ',', '[']) || is_level(&filter));
    known
        .then(|| EnvFilter::try_new(&filter).ok())
        .flatten()
        .ok_or(Error::Filter { origin, filter })
}

fn is_level(word: &str) -> bool {
    word.parse::<tracing::level_filters::LevelFilter>().is_ok()
}

/// The recorder is the process's; several hosts in one process (tests) share it.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Makes `metrics` count, described and with buckets; the handle renders Prometheus' text.
pub fn init_metrics() -> Result<PrometheusHandle, Error> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = installed.as_ref() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Full(STORE_BATCH_WRITES.to_owned()), WRITES)?
        .install_recorder()?;
    describe();
    Ok(installed.insert(handle).clone())
}

/// Every counter and gauge as it is now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Name and labels as `/metrics` writes them, and the value.
    figures: Vec<(String, f64)>,
}

impl Snapshot {
    /// What `/metrics` would say; nothing where metrics were not set up.
    pub fn take() -> Self {
        let handle = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        handle.map_or_else(Self::default, |handle| Self::parse(&handle.render()))
    }

    /// Reads Prometheus' text.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let figures = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self {
            figures: figures.collect(),
        }
    }

    /// The sum of a metric over the series that have this label (`qos="1"`), or over all where it is empty.
    pub fn sum(&self, metric: &str, label: &str) -> u64 {
        let of_metric = self.figures.iter().filter(|(name, _)| {
            let rest = name.strip_prefix(metric);
            rest.is_some_and(|rest| (rest.is_empty() || rest.starts_with('{')) && rest.contains(label))
        });
        of_metric.map(|(_, value)| *value as u64).sum()
    }
}

/// Keeps histograms small until `stop`.
pub fn spawn_upkeep(handle: PrometheusHandle, tracker: &TaskTracker, stop: CancellationToken) {
    tracker.spawn(async move {
        let mut ticks = interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => handle.run_upkeep(),
                () = stop.cancelled() => return,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_of_every_metric_what_metrics_says() {
        let manual = include_str!("../../docs/metrics.md");
        for (describe, name, help) in ALL {
            let kind = describe.trim_start_matches("describe_");
            let line = format!("| `{name}` | {kind} | {help} |");
            assert!(manual.contains(&line), "docs/metrics.md lacks the line\n{line}");
        }
    }

    #[test]
    fn the_environment_beats_the_configured_level() {
        for (environment, level, expected) in [
            (None, "info", "info"),
            (Some(""), "warn", "warn"),
            (Some("debug"), "warn", "debug"),
            (
                Some("hookline::broker=trace,warn"),
                "info",
                "hookline::broker=trace,warn",
            ),
        ] {
            let filter = filter(environment.map(str::to_owned), level).expect(level);
            assert_eq!(filter.to_string(), expected, "{environment:?} {level}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_its_origin() {
        for (environment, level, expected) in [
            (None, "loud", "log level: \"loud\" is no log filter"),
            (None, "", "log level: \"\" is no log filter"),
            (Some("loud"), "info", "RUST_LOG: \"loud\" is no log filter"),
            (
                Some("hookline=loud"),
                "info",
                "RUST_LOG: \"hookline=loud\" is no log filter",
            ),
        ] {
            let error = filter(environment.map(str::to_owned), level).expect_err(level);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn seconds_come_in_buckets_with_their_help() {
        let handle = init_metrics().expect("the first in this process");
        metrics::histogram!(STORE_CALL_SECONDS, "pool" => "sqlite.pool1", "verb" => "save", "outcome" => "ok")
            .record(0.003);
        metrics::histogram!(STORE_BATCH_WRITES, "pool" => "sqlite.pool1").record(100.0);
        let text = init_metrics().expect("the same handle again").render();
        for line in [
            "# HELP store_call_seconds Seconds a call of a store took",
            "# TYPE store_call_seconds histogram",
            "store_call_seconds_bucket{pool=\"sqlite.pool1\",verb=\"save\",outcome=\"ok\",le=\"0.005\"} 1",
            "store_batch_writes_bucket{pool=\"sqlite.pool1\",le=\"64\"} 0",
            "store_batch_writes_bucket{pool=\"sqlite.pool1\",le=\"128\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(handle);
    }
}
