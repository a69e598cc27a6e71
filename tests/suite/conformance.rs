//! The numbered statements of MQTT 3.1.1 and 5.0 that bind a server, checked on a running host. Every test names the
//! statements that it checks, in a comment above it: `[5:MQTT-3.1.0-1]` is of 5.0, `[3:MQTT-3.1.0-1]` of 3.1.1.
//! `tests/conformance.md` has a row for each, and [`the_table_and_the_tests_agree`] compares the two.

mod acknowledgements;
mod connack;
mod connect;
mod flow;
mod framing;
mod interoperability;
mod properties;
mod publish;
mod retained;
mod session;
mod shared;
mod subscribe;
mod table;
mod will;

use std::fs;

use crate::harness::repository;
use table::{Carried, Row, Statements, carried_by, rows_of};

/// What a row may say instead of a test.
const NOT_DONE: [&str; 3] = [
    "not done: enhanced authentication methods",
    "not done: will-message authorisation",
    "not done: AUTH re-authentication",
];

#[test]
fn the_table_and_the_tests_agree() {
    let rows = rows_of(&read("tests/conformance.md"));
    let mut carried = Carried::default();
    for (folder, root) in [("tests/suite", "main.rs"), ("host/src", "lib.rs")] {
        table::scan(&repository().join(folder), root, &mut carried);
    }
    let listed = Statements::read(&read("tests/conformance/statements.txt"));
    let wrong = disagreements(&rows, &carried, &listed);
    assert!(
        wrong.is_empty(),
        "tests/conformance.md and the tests disagree:\n{}",
        wrong.join("\n")
    );
}

fn read(file: &str) -> String {
    let file = repository().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn disagreements(rows: &[Row], carried: &Carried, listed: &Statements) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let id = &row.id;
        if rows[..at].iter().any(|other| other.id == *id) {
            wrong.push(format!("{id} has two rows"));
        }
        if !listed.0.contains(id) {
            wrong.push(format!("{id} is not in tests/conformance/statements.txt"));
        }
        if row.tests.is_empty() && !NOT_DONE.contains(&row.answer.as_str()) {
            wrong.push(format!("{id} names no test, and {:?} is no reason", row.answer));
        }
        let unknown = row.tests.iter().filter(|test| !carried.of(id).contains(*test));
        wrong.extend(unknown.map(|test| format!("{id}: there is no test {test} that carries it")));
        let unnamed = carried.of(id).into_iter().filter(|test| !row.tests.contains(test));
        wrong.extend(unnamed.map(|test| format!("{id}: {test} carries it, and its row does not say so")));
    }
    let has_row = |id: &String| rows.iter().any(|row| row.id == *id);
    let without = |id: &&String| !has_row(id);
    wrong.extend(listed.0.iter().filter(without).map(|id| format!("{id} has no row")));
    let strangers = carried.ids().filter(|id| !has_row(id));
    wrong.extend(strangers.map(|id| format!("{id}: {:?} carries it, and it has no row", carried.of(id))));
    wrong.extend(carried.misplaced.iter().cloned());
    wrong
}

#[test]
fn every_kind_of_disagreement_is_noticed() {
    const TEST: &str = "/// [5:MQTT-1.0.0-1]\n#[tokio::test]\nasync fn a() {}\n";
    const ROW: &str = "| 5:MQTT-1.0.0-1 | x | `m::a` |\n";
    const ID: &str = "5:MQTT-1.0.0-1\n";
    for (row, test, listed, wrong) in [
        (ROW, TEST, ID, ""),
        ("", TEST, ID, "has no row"),
        (ROW, TEST, "", "is not in"),
        (ROW, "", ID, "there is no test m::a"),
        (ROW, "/// [5:MQTT-1.0.0-1]\nfn a() {}", ID, "is no test"),
        (ROW, "/// [3:MQTT-1.0.0-1]\n#[test]\nfn a() {}", ID, "it has no row"),
        ("| 5:MQTT-1.0.0-1 | x | `m::b` |", TEST, ID, "there is no test m::b"),
        ("| 5:MQTT-1.0.0-1 | x | |", "", ID, "names no test"),
        ("| 5:MQTT-1.0.0-1 | x | not done: later |", "", ID, "is no reason"),
        (
            "| 5:MQTT-1.0.0-1 | x | not done: enhanced authentication methods |",
            "",
            ID,
            "",
        ),
        (
            "| 5:MQTT-1.0.0-1 | x | not done: enhanced authentication methods |",
            TEST,
            ID,
            "does not say so",
        ),
    ] {
        let mut carried = Carried::default();
        carried_by(test, "m", &mut carried);
        let found = disagreements(&rows_of(row), &carried, &Statements::read(listed));
        match wrong {
            "" => assert_eq!(found, [""; 0], "{row}{test}"),
            _ => assert!(found.iter().any(|text| text.contains(wrong)), "{row}{test}: {found:?}"),
        }
    }
}
