//! Settings that stand above the files: environment variables, and above those `--set key=value`.

use std::ffi::OsString;

use super::line;
use super::problem::{Origin, Problem};

/// Settings from outside the files; the last one for a key wins.
#[derive(Clone, Default)]
pub struct Overrides {
    entries: Vec<Override>,
}

#[derive(Clone)]
pub(super) struct Override {
    pub(super) key: String,
    /// `None` takes the key out of the file.
    pub(super) value: Option<String>,
    pub(super) origin: Origin,
    /// A variable that was perhaps never meant for us: one we do not know is only warned about.
    pub(super) lenient: bool,
}

/// Prefixes of environment variables, the weaker one first, and whether strangers are forgiven.
const PREFIXES: [(&str, bool); 2] = [("EMQX_", true), ("HOOKLINE_", false)];

/// Variables with our prefix that are not settings: arguments of the command line, and our own tests'.
const NO_SETTINGS: [&str; 2] = ["HOOKLINE_ETC", "HOOKLINE_DATA"];
const NO_SETTINGS_PREFIX: &str = "HOOKLINE_TEST_";

impl Overrides {
    /// Those of this process's environment.
    pub fn from_environment() -> Self {
        Self::from_variables(std::env::vars_os())
    }

    /// Those among these variables: `HOOKLINE_LOG__LEVEL` sets `log.level`, `EMQX_` is an alias, and an
    /// empty value takes the key out of its file.
    pub fn from_variables(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut variables: Vec<(String, String)> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| !NO_SETTINGS.contains(&name.as_str()) && !name.starts_with(NO_SETTINGS_PREFIX))
            .collect();
        variables.sort();
        let mut overrides = Self::default();
        for (prefix, lenient) in PREFIXES {
            for (name, value) in &variables {
                let Some(key) = name.strip_prefix(prefix) else { continue };
                let key = key.replace("__", ".").to_ascii_lowercase();
                overrides.push(key, value, Origin::whole(name.as_str()), lenient);
            }
        }
        overrides
    }

    /// Adds one `key=value` of `--set`, which beats the environment; an error says what to write.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("--set {text}: expected key=value"))?;
        let key = key.trim();
        line::check_key(key).map_err(|error| format!("--set {key}: {error}"))?;
        self.push(key.to_owned(), value, Origin::whole("--set"), false);
        Ok(())
    }

    /// Overrides of `backend.…` keys that lie in none of these sections, so that no file would ever see them.
    pub fn astray(&self, sections: &[&str]) -> Vec<Problem> {
        let stray = |entry: &&Override| is_backend(&entry.key) && !lies_in(&entry.key, sections);
        let told = |entry: &Override| {
            let text = format!("{} belongs to no backend we know", entry.key);
            match entry.lenient {
                true => Problem::warning(entry.origin.clone(), text),
                false => Problem::error(entry.origin.clone(), text),
            }
        };
        self.entries.iter().filter(stray).map(told).collect()
    }

    /// Those for the file with these sections; without sections, those for the main file.
    pub(super) fn within(&self, sections: &[&str]) -> impl Iterator<Item = &Override> {
        self.entries.iter().filter(move |entry| match sections {
            [] => !is_backend(&entry.key),
            sections => lies_in(&entry.key, sections),
        })
    }

    fn push(&mut self, key: String, value: &str, origin: Origin, lenient: bool) {
        let value = value.trim();
        let value = (!value.is_empty()).then(|| value.to_owned());
        self.entries.push(Override {
            key,
            value,
            origin,
            lenient,
        });
    }
}

fn is_backend(key: &str) -> bool {
    lies_in(key, &["backend"])
}

/// Whether a key lies below one of these: `backend.sqlite`.
fn lies_in(key: &str, sections: &[&str]) -> bool {
    sections
        .iter()
        .any(|section| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.')))
}
