//! Reading the table of statements, and the tests that carry their identifiers.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A row of the table.
pub struct Row {
    pub id: String,
    /// The tests that it names.
    pub tests: BTreeSet<String>,
    /// Its last cell.
    pub answer: String,
}

/// The rows of a table in Markdown whose first cell is a statement's identifier.
pub fn rows_of(markdown: &str) -> Vec<Row> {
    let rows = markdown.lines().filter_map(|line| {
        let cells: Vec<&str> = line
            .strip_prefix('|')?
            .strip_suffix('|')?
            .split('|')
            .map(str::trim)
            .collect();
        let [id, _, answer] = cells[..] else { return None };
        let code = answer.split('`').skip(1).step_by(2).map(str::to_owned);
        is_id(id).then(|| Row {
            id: id.to_owned(),
            tests: code.collect(),
            answer: answer.to_owned(),
        })
    });
    rows.collect()
}

/// The identifiers that must have a row.
pub struct Statements(pub BTreeSet<String>);

impl Statements {
    /// One a line; other lines explain.
    pub fn read(text: &str) -> Self {
        Self(
            text.lines()
                .map(str::trim)
                .filter(|line| is_id(line))
                .map(str::to_owned)
                .collect(),
        )
    }
}

fn is_id(text: &str) -> bool {
    let numbered = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    let rest = text.strip_prefix("5:MQTT-").or(text.strip_prefix("3:MQTT-"));
    rest.is_some_and(|rest| numbered(rest) && !rest.contains(char::is_whitespace))
}

/// Which tests carry which identifier.
#[derive(Default)]
pub struct Carried {
    tests: BTreeMap<String, BTreeSet<String>>,
    /// Identifiers above something that is no test.
    pub misplaced: Vec<String>,
}

impl Carried {
    /// The tests that carry this identifier.
    pub fn of(&self, id: &str) -> BTreeSet<String> {
        self.tests.get(id).cloned().unwrap_or_default()
    }

    /// Every identifier that a test carries.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.tests.keys()
    }
}

/// Reads the tests of every source below a folder; `root` is the file of the crate itself.
pub fn scan(folder: &Path, root: &str, carried: &mut Carried) {
    scan_module(folder, "", root, carried);
}

fn scan_module(folder: &Path, module: &str, root: &str, carried: &mut Carried) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder of ours can be listed").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a plain name");
        let below = match module {
            "" => name.to_owned(),
            _ => format!("{module}::{name}"),
        };
        if path.is_dir() {
            scan_module(&path, &below, root, carried);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let own = path.file_name().is_some_and(|file| file == root || file == "mod.rs");
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            carried_by(&text, if own { module } else { &below }, carried);
        }
    }
}

/// Reads the tests of one source, which is this module.
pub fn carried_by(text: &str, module: &str, carried: &mut Carried) {
    let (mut pending, mut is_test, mut inline) = (Vec::new(), false, None);
    for line in text.lines() {
        let code = line.trim();
        if let Some(name) = code.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inline = Some(name);
        } else if code.starts_with("//") && !code.starts_with("//!") {
            pending.extend(ids_in(code));
        } else if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some(name) = function(code) {
            let path: Vec<&str> = [module, inline.unwrap_or_default(), name]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect();
            let path = path.join("::");
            for id in std::mem::take(&mut pending) {
                match is_test {
                    true => drop(carried.tests.entry(id).or_default().insert(path.clone())),
                    false => carried
                        .misplaced
                        .push(format!("{id} stands above {path}, which is no test")),
                }
            }
            is_test = false;
        }
    }
}

fn ids_in(comment: &str) -> Vec<String> {
    let parts = comment.split('[').skip(1).filter_map(|part| part.split_once(']'));
    parts
        .map(|(id, _)| id)
        .filter(|id| is_id(id))
        .map(str::to_owned)
        .collect()
}

/// The name of the function that begins on this line.
fn function(code: &str) -> Option<&str> {
    let code = code.strip_prefix("pub ").unwrap_or(code);
    let code = code.strip_prefix("async ").unwrap_or(code);
    let (name, _) = code.strip_prefix("fn ")?.split_once(['(', '<'])?;
    Some(name)
}
