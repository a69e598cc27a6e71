//! The floor plan: imports go down the stairs, never up and never across.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::repository;

/// Top floor first; rooms on one floor stand in one set. A file may import only floors below its own.
const FLOORS: &[&[&str]] = &[
    &["command"],
    &["app"],
    &["admin"],
    &["broker"],
    &["hook"],
    &["wasm"],
    &["store", "bus"],
    &["mqtt"],
    &["model", "config", "telemetry"],
];

#[test]
fn imports_never_climb() {
    let mut climbs = Vec::new();
    for (height, floor) in FLOORS.iter().enumerate() {
        for room in *floor {
            let above = FLOORS[..height].concat();
            let beside = floor.iter().filter(|other| *other != room);
            let forbidden: Vec<&str> = above.iter().chain(beside).copied().collect();
            for (file, text) in sources(room) {
                let imported = forbidden.iter().filter(|room| imports(&text, room));
                climbs.extend(imported.map(|room| format!("{} imports {room}", file.display())));
            }
        }
    }
    assert!(climbs.is_empty(), "{}", climbs.join("\n"));
}

/// The simulation turns the clock that everybody here asks; what asks another one behaves differently every time.
#[test]
fn the_broker_and_the_hooks_ask_one_clock() {
    let rooms = ["broker", "hook", "mqtt"];
    let production = |file: &Path| {
        !file
            .iter()
            .any(|part| part == "tests" || part == "simulation" || part == "tests.rs")
    };
    let files = rooms.iter().flat_map(|room| sources(room));
    let asking = files.filter(|(file, text)| {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        production(file) && code.contains("SystemTime::now()")
    });
    let asking: Vec<_> = asking.map(|(file, _)| file.display().to_string()).collect();
    assert!(asking.is_empty(), "use model::clock::wall() in {asking:?}");
}

#[test]
fn every_room_stands_on_a_floor() {
    for room in fs::read_dir(top()).expect("host/src exists") {
        let room = room.expect("host/src can be listed").path();
        let name = room.file_stem().and_then(|name| name.to_str()).expect("a name");
        let known = matches!(name, "lib" | "main") || FLOORS.concat().contains(&name);
        assert!(
            known,
            "{} is on no floor: add it to FLOORS and to ARCHITECTURE.md",
            room.display()
        );
    }
}

#[test]
fn an_import_that_climbs_is_noticed() {
    for text in [
        "use crate::broker::Broker;",
        "use crate::{broker, model};",
        "use crate::{\n    model::id,\n    broker::x,\n};",
    ] {
        assert!(imports(text, "broker"), "{text}");
    }
    for text in [
        "use crate::brokerage::Fee;",
        "use crate::model::broker;",
        "use crate::{model::broker};",
    ] {
        assert!(!imports(text, "broker"), "{text}");
    }
}

/// Whether a file names `crate::room`, alone or in a group.
fn imports(text: &str, room: &str) -> bool {
    let names = |path: &str| path.strip_prefix(room).is_some_and(|rest| !rest.starts_with(is_word));
    text.split("crate::").skip(1).any(|rest| match rest.strip_prefix('{') {
        Some(group) => first_words(group).iter().any(|word| names(word)),
        None => names(rest),
    })
}

/// The first words of the paths in a group, up to the brace that closes it.
fn first_words(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut words) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                words.push(group[start..at].trim_start());
                start = at + 1;
                if letter == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    words
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The files of a room: `room.rs` and everything under `room/`.
fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    collect(&top().join(format!("{room}.rs")), &mut files);
    collect(&top().join(room), &mut files);
    files
}

fn collect(path: &Path, files: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("it is a folder") {
            collect(&entry.expect("it can be listed").path(), files);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") && path.exists() {
        files.push((path.to_path_buf(), fs::read_to_string(path).expect("sources are text")));
    }
}

fn top() -> PathBuf {
    repository().join("host/src")
}
