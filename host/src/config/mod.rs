//! Configuration files as EMQ X 3 has them (spec A1): lines become settings, and each floor takes its
//! own by name and type. What nobody took is an error; what a setting means is nobody's business here.

mod duration;
mod line;
mod overrides;
mod problem;
mod rate;
mod read;
mod setting;

use std::collections::BTreeSet;
use std::path::Path;

use read::{Entry, Lines};

pub use line::words;
pub use overrides::Overrides;
pub use problem::{Origin, Problem, Severity, alternatives, nearest};
pub use rate::Per;
pub use setting::{Addresses, ByteSize, Hosts, Limit, OrOff, Secret, Setting, SizeLimit, TimeLimit};

/// The settings of one file with what it includes, overlaid by the environment and `--set`.
pub struct Config {
    file: Origin,
    lines: Lines,
    /// Names that somebody asked for, written or not: what a misspelt one may have meant.
    known: BTreeSet<String>,
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The value.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
    /// The column at which it begins in its line, from 1.
    pub column: u32,
}

impl Config {
    /// Reads the main file, overlaid by those overrides that are no backend's.
    pub fn read(file: &Path, overrides: &Overrides) -> Self {
        Self::read_sections(file, overrides, &[])
    }

    /// Reads a plugin's file, overlaid by the overrides of its sections: `["backend.sqlite"]`.
    pub fn read_sections(file: &Path, overrides: &Overrides, sections: &[&str]) -> Self {
        let mut lines = Lines::default();
        lines.read(file);
        for entry in overrides.within(sections) {
            let Some(value) = &entry.value else {
                lines.entries.remove(&entry.key);
                continue;
            };
            let overlaid = Entry {
                value: value.clone(),
                origin: entry.origin.clone(),
                column: 1,
                used: false,
                lenient: entry.lenient,
            };
            lines.entries.insert(entry.key.clone(), overlaid);
        }
        Self {
            file: Origin::whole(file.to_string_lossy()),
            lines,
            known: BTreeSet::new(),
        }
    }

    /// Takes a setting; a value of the wrong type is noted as an error and counts as not set.
    pub fn get<T: Setting>(&mut self, key: &str) -> Option<T> {
        let text = self.text(key)?;
        let parsed = T::parse(&text.value);
        if parsed.is_none() {
            // An address that cannot be read may be one with a password in it.
            let secret = T::SECRET || text.value.contains('@') || text.value.contains("://");
            let shown = if secret { "…" } else { &text.value };
            self.error(key, format!("{key} = {shown}: expected {}", T::EXPECTED));
        }
        parsed
    }

    /// Takes a setting, or its default.
    pub fn or<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.get(key).unwrap_or(default)
    }

    /// Takes a setting that is one of a few words.
    pub fn choice<T: Clone>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let chosen = choices.iter().find(|(word, _)| *word == text.value);
        if chosen.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            let expected = alternatives(&words);
            self.error(key, format!("{key} = {}: expected {expected}", text.value));
        }
        chosen.map(|(_, value)| value.clone())
    }

    /// Takes a setting as it is written.
    pub fn text(&mut self, key: &str) -> Option<Text> {
        self.known.insert(key.to_owned());
        let entry = self.lines.entries.get_mut(key)?;
        entry.used = true;
        Some(Text {
            value: entry.value.clone(),
            origin: entry.origin.clone(),
            column: entry.column,
        })
    }

    /// The distinct words that come next below `prefix`, in order: the pools below `backend.sqlite`.
    pub fn below(&self, prefix: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for key in self.keys(prefix) {
            let next = words(&key[prefix.len() + 1..]).next().unwrap_or_default();
            if !found.iter().any(|word| word == next) {
                found.push(next.to_owned());
            }
        }
        found
    }

    /// All keys that are set below `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let below = |key: &&String| key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        self.lines.entries.keys().filter(below).cloned().collect()
    }

    /// A setting as it is written, without taking it.
    pub fn peek(&self, key: &str) -> Option<&str> {
        self.lines.entries.get(key).map(|entry| entry.value.as_str())
    }

    /// Whether the key is set.
    pub fn has(&self, key: &str) -> bool {
        self.lines.entries.contains_key(key)
    }

    /// Whether somebody asked for the key, set or not.
    pub fn is_known(&self, key: &str) -> bool {
        self.known.contains(key)
    }

    /// Where a key is set.
    pub fn origin(&self, key: &str) -> Option<Origin> {
        self.lines.entries.get(key).map(|entry| entry.origin.clone())
    }

    /// The file as a whole, for problems that no line has.
    pub fn file(&self) -> &Origin {
        &self.file
    }

    /// Notes that a setting should be looked at.
    pub fn warn(&mut self, key: &str, text: impl Into<String>) {
        let origin = self.origin(key).unwrap_or_else(|| self.file.clone());
        self.lines.problems.push(Problem::warning(origin, text));
    }

    /// Notes that the host cannot start with this setting.
    pub fn error(&mut self, key: &str, text: impl Into<String>) {
        let origin = self.origin(key).unwrap_or_else(|| self.file.clone());
        self.lines.problems.push(Problem::error(origin, text));
    }

    /// All problems, in the order of the lines. Keys that nobody took are among them: errors, or
    /// warnings where not `strict` (`strict_config = false`).
    pub fn finish(self, strict: bool) -> Vec<Problem> {
        let mut problems = self.lines.problems;
        for (key, entry) in self.lines.entries.iter().filter(|(_, entry)| !entry.used) {
            let text = unknown(key, &self.known);
            problems.push(match strict && !entry.lenient {
                true => Problem::error(entry.origin.clone(), text),
                false => Problem::warning(entry.origin.clone(), text),
            });
        }
        problems.sort_by(|left, right| left.origin.cmp(&right.origin));
        problems.dedup(); // two floors may take one key, and both find its value bad
        problems
    }
}

fn unknown(key: &str, known: &BTreeSet<String>) -> String {
    let backend = key.strip_prefix("backend.");
    if let Some(rest) = backend.filter(|_| !known.iter().any(|name| name.starts_with("backend."))) {
        let backend = words(rest).next().unwrap_or_default();
        return format!("{key} belongs in plugins/emqx_backend_{backend}.conf");
    }
    let near = nearest(key, known.iter().map(String::as_str));
    match near.is_empty() {
        true => format!("{key} is not a setting"),
        false => format!("{key} is not a setting; did you mean {}?", alternatives(&near)),
    }
}

#[cfg(test)]
mod tests;
