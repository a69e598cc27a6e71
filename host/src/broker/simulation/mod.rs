//! A simulation of delivery: the real sessions, gates, dispatch and batchers of a broker, on a paused clock and in
//! one thread, with clients that come and go, acknowledge late or never, and a store that is late, away or
//! forgetful, and with crashes in between. A model of what every client may see checks every run.
//!
//! A seed gives a run, always the same. `HOOKLINE_TEST_SIMULATION_SEEDS=<n>` runs so many of them;
//! `HOOKLINE_TEST_SIMULATION_SEED=<seed>` runs one and prints what happens in it.

mod client;
mod found;
mod judge;
mod kept;
mod packets;
mod scenario;
mod shrink;
mod store;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;

use judge::Wrong;
use scenario::Scenario;

/// Seeds of a plain `cargo test`; `tests/run` takes more.
const SEEDS: u64 = 500;

/// What is wrong with a run, a panic included.
fn fault(scenario: &Scenario) -> Option<Wrong> {
    let run = || world::run(scenario, false).wrong;
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Some(Wrong {
            rule: "nothing panics",
            text: text.unwrap_or_default(),
        })
    })
}

/// The shortest scenario that breaks the same rule, told with what happens in it.
fn report(scenario: &Scenario, wrong: &Wrong) -> String {
    let short = shrink::shrunk(scenario, |candidate| {
        fault(candidate).is_some_and(|found| found.rule == wrong.rule)
    });
    let found = fault(&short).unwrap_or_else(|| wrong.clone());
    let trace = catch_unwind(AssertUnwindSafe(|| world::run(&short, true).trace)).unwrap_or_default();
    format!(
        "seed {}: {}: {}\n\nshrunk from {} steps to {}, which end with: {}\n{short}\n{}\n\nto see all of it:\n  \
         HOOKLINE_TEST_SIMULATION_SEED={} cargo test -p hookline --lib simulation -- --nocapture\n",
        scenario.seed,
        wrong.rule,
        wrong.text,
        scenario.steps.len(),
        short.steps.len(),
        found.text,
        trace.join("\n"),
        scenario.seed,
    )
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs every seed below `count`. Answers how many failed and, for every rule that was broken, the lowest seed.
fn failures(count: u64) -> (u64, Vec<(Scenario, Wrong)>) {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let found: Mutex<BTreeMap<&str, (u64, Scenario, Wrong)>> = Mutex::default();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let scenario = Scenario::of(seed);
                    let Some(wrong) = fault(&scenario) else { continue };
                    failed.fetch_add(1, Ordering::Relaxed);
                    let mut found = found.lock();
                    if found.get(wrong.rule).is_none_or(|(known, ..)| seed < *known) {
                        found.insert(wrong.rule, (seed, scenario, wrong));
                    }
                }
            });
        }
    });
    let lowest = found.into_inner().into_values();
    (
        failed.into_inner(),
        lowest.map(|(_, scenario, wrong)| (scenario, wrong)).collect(),
    )
}

#[test]
fn every_client_sees_what_it_may_see_and_nothing_else() {
    if let Some(seed) = from_environment("HOOKLINE_TEST_SIMULATION_SEED") {
        let scenario = Scenario::of(seed);
        let outcome = world::run(&scenario, true);
        println!("{scenario}\n{}", outcome.trace.join("\n"));
        return assert_eq!(
            outcome.wrong,
            None,
            "{}",
            report(&scenario, &outcome.wrong.clone().expect("it is wrong"))
        );
    }
    let count = from_environment("HOOKLINE_TEST_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let (failed, lowest) = failures(count);
    let reports: Vec<_> = lowest.iter().map(|(scenario, wrong)| report(scenario, wrong)).collect();
    assert!(
        failed == 0,
        "{failed} of {count} runs failed\n\n{}",
        reports.join("\n\n")
    );
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 0..100 {
        let scenario = Scenario::of(seed);
        assert_eq!(scenario, Scenario::of(seed));
        let (first, second) = (world::run(&scenario, true).trace, world::run(&scenario, true).trace);
        assert_eq!(first, second, "seed {seed}");
    }
}
