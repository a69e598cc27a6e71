//! The whole broker beside Debian's mosquitto: broker CPU per message, as child processes, in one run.
//!
//! `cargo bench --bench broker` prints criterion's figures for Hookline, which it compares with the run before, and
//! then a table of both brokers. `docs/benchmarks.md` says what the loads are and how to read the figures.
#![expect(clippy::print_stdout, reason = "a benchmark reports to whoever runs it")]

#[path = "broker/contest.rs"]
mod contest;
#[path = "broker/figure.rs"]
mod figure;
#[path = "broker/generator.rs"]
mod generator;
#[path = "broker/idle.rs"]
mod idle;
#[path = "broker/link.rs"]
mod link;
#[path = "broker/load.rs"]
mod load;
#[path = "broker/measure.rs"]
mod measure;
#[path = "broker/server.rs"]
mod server;
#[path = "broker/table.rs"]
mod table;
#[path = "broker/wire.rs"]
mod wire;

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use criterion::{Criterion, SamplingMode};

use contest::Contest;
use generator::Limit;
use idle::Size;
use load::{LOADS, Load};
use measure::BrokerCpu;
use table::Row;

/// Criterion's least.
const SAMPLES: usize = 10;
/// How long publishers publish in a round with everyone online.
const ROUND: Duration = Duration::from_millis(500);
/// Messages of each publisher in such a round, at most.
const MESSAGES_MAX: u64 = 1_000_000;
/// Messages of each publisher in an offline round: the price of a store grows with what it holds.
const OFFLINE_MESSAGES: u64 = 4000;
/// How long publishers may take for them.
const OFFLINE_ROUND: Duration = Duration::from_secs(30);
/// Criterion fits rounds into its measurement time; these make it two a sample.
const MEASUREMENT: Duration = Duration::from_secs(16);
const OFFLINE_MEASUREMENT: Duration = Duration::from_secs(45);
/// The folder for the figure, relative to the workspace; none is drawn where it is not set.
const FIGURES: &str = "BENCH_FIGURES";

fn main() -> Result<()> {
    if server::mosquitto().is_none() {
        println!("broker: skipped, because mosquitto is not installed (apt-get install mosquitto)");
        return Ok(());
    }
    let mut criterion = Criterion::default()
        .with_measurement(BrokerCpu)
        .sample_size(SAMPLES)
        .warm_up_time(Duration::from_millis(1))
        .without_plots()
        .configure_from_args();
    let mut rows = Vec::new();
    for load in LOADS {
        rows.extend(compete(&mut criterion, load).iter().flat_map(table::rows));
    }
    criterion.final_summary();
    if filtered() {
        return Ok(());
    }
    let idle = idle::markdown(if measures() { Size::FULL } else { Size::TINY })?;
    if !measures() {
        return Ok(());
    }
    println!("\n{}", table::markdown(&rows));
    println!("{idle}");
    draw(&rows)
}

/// Measures one load, if the command line's filter lets it. Its brokers run only as long as it does.
fn compete(criterion: &mut Criterion<BrokerCpu>, load: &'static Load) -> Option<Contest> {
    let mut contest = None;
    let mut group = criterion.benchmark_group("hookline");
    group.measurement_time(if load.away { OFFLINE_MEASUREMENT } else { MEASUREMENT });
    group
        .sampling_mode(SamplingMode::Flat)
        .bench_function(load.name, |bencher| {
            bencher.iter_custom(|rounds| {
                // Criterion takes no errors; the brokers are killed while the panic passes them.
                run(&mut contest, load, rounds).unwrap_or_else(|error| panic!("{error:#}"))
            });
        });
    group.finish();
    contest
}

/// Runs some rounds and says what they cost Hookline, in nanoseconds per message, all added up.
fn run(contest: &mut Option<Contest>, load: &'static Load, rounds: u64) -> Result<f64> {
    let contest = match contest {
        Some(running) => running,
        none => none.insert(Contest::start(load)?),
    };
    (0..rounds).map(|_| contest.round(limit(load))).sum()
}

fn limit(load: &Load) -> Limit {
    match (measures(), load.away) {
        (false, _) => Limit {
            messages: 20,
            time: ROUND,
        },
        (true, false) => Limit {
            messages: MESSAGES_MAX,
            time: ROUND,
        },
        (true, true) => Limit {
            messages: OFFLINE_MESSAGES,
            time: OFFLINE_ROUND,
        },
    }
}

/// Under `cargo test`, and with `--test`, one tiny round shows that the benchmark works, and figures would mean nothing.
fn measures() -> bool {
    let given = |wanted| env::args().any(|argument| argument == wanted);
    given("--bench") && !given("--test")
}

/// Whether the command line asks for some loads only.
fn filtered() -> bool {
    env::args().skip(1).any(|argument| !argument.starts_with('-'))
}

fn draw(rows: &[Row]) -> Result<()> {
    let Some(folder) = env::var_os(FIGURES) else {
        return Ok(());
    };
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(folder);
    let file = folder.join("broker.svg");
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, figure::svg(rows)))
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!("drawn: {}", file.display());
    Ok(())
}
