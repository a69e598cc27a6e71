//! The targets of `cargo fuzz` over their seeds, and over what is left of a seed when it is cut off anywhere: so
//! that the targets stay true, and run where no cargo-fuzz is. More in `docs/fuzzing.md`.

#[path = "../../host/fuzz/bodies.rs"]
mod bodies;

use std::collections::BTreeSet;
use std::fs;

use crate::harness::repository;

type Body = fn(&[u8]);

const TARGETS: [(&str, Body); 4] = [
    ("connect", bodies::connect),
    ("packets", bodies::packets),
    ("filters", bodies::filters),
    ("config", bodies::config),
];

#[test]
fn the_targets_hold_for_their_seeds_cut_off_anywhere() {
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 3, "{target} has seeds in host/fuzz/seeds/{target}");
        for seed in seeds {
            // A file is written for each input of `config`; a few places tell as much there.
            let step = if target == "config" { 1 + seed.len() / 20 } else { 1 };
            (0..seed.len()).step_by(step).for_each(|end| body(&seed[..end]));
            body(&seed);
        }
    }
}

#[test]
fn every_target_of_the_fuzz_crate_is_run_here() {
    let folder = repository().join("host/fuzz/fuzz_targets");
    let files = fs::read_dir(folder).expect("the fuzz crate has targets");
    let stem = |file: fs::DirEntry| file.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let mut found: Vec<String> = files.filter_map(|file| stem(file.expect("a file"))).collect();
    found.sort_unstable();
    let mut run = TARGETS.map(|(name, _)| name.to_owned());
    run.sort_unstable();
    assert_eq!(found, run);
}

/// Where it does not, the first `cargo fuzz` in a fresh clone changes a file of the repository.
#[test]
fn the_lock_of_the_fuzz_crate_knows_what_the_broker_needs() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect("a file of the repository");
    let (manifest, lock) = (read("host/Cargo.toml"), read("host/fuzz/Cargo.lock"));
    let wanted = manifest
        .split("\n\n")
        .find_map(|part| part.strip_prefix("[dependencies]\n"));
    let wanted = wanted.expect("the broker has dependencies").lines();
    let wanted: BTreeSet<&str> = wanted.filter_map(|line| line.split(['.', ' ']).next()).collect();
    let locked = lock.split("\n\n").find(|part| part.contains("\nname = \"hookline\"\n"));
    let locked = locked.expect("the fuzz crate needs the broker").lines();
    let locked: BTreeSet<&str> = locked
        .filter_map(|line| line.strip_prefix(" \"")?.split(['"', ' ']).next())
        .collect();
    assert_eq!(
        locked, wanted,
        "cargo update --workspace --manifest-path host/fuzz/Cargo.toml"
    );
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = repository().join("host/fuzz/seeds").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let read = |file: fs::DirEntry| fs::read(file.path()).expect("a seed can be read");
    files.map(|file| read(file.expect("a file"))).collect()
}
