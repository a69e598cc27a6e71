//! The configuration of one host: the repository's `etc/` with what a story changes.

use std::fs;
use std::path::Path;

use super::repository;

/// What a story changes in `etc/`.
#[derive(Clone, Default)]
pub struct Changes {
    settings: Vec<(String, String)>,
    rules: Option<Vec<String>>,
}

impl Changes {
    /// Sets a key.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.push((key.to_owned(), value.to_owned()));
    }

    /// Replaces the SQLite sample's rules: `("message.publish.1", "{…}")`.
    pub fn rules(&mut self, rules: &[(&str, &str)]) {
        let line = |(point, rule): &(&str, &str)| format!("backend.sqlite.hook.{point} = {rule}");
        self.rules = Some(rules.iter().map(line).collect());
    }

    /// Copies the repository's `etc/` to `etc`, changed.
    pub fn write(&self, etc: &Path) {
        copy(&repository().join("etc"), etc);
        let plugin = etc.join("plugins/emqx_backend_sqlite.conf");
        let mut lines: Vec<String> = read(&plugin).lines().map(str::to_owned).collect();
        if let Some(rules) = &self.rules {
            lines.retain(|line| !line.starts_with("backend.sqlite.hook."));
            lines.extend(rules.iter().cloned());
        }
        // A key that is there already is replaced: set twice it would be a warning.
        for (key, value) in self.settings.iter().filter(|(key, _)| of_plugin(key)) {
            lines.retain(|line| line.split('=').next().map(str::trim) != Some(key));
            lines.push(format!("{key} = {value}"));
        }
        fs::write(&plugin, lines.join("\n") + "\n").expect("the copy of etc/ is ours");
    }

    /// The keys of the broker itself, as arguments of `hookline start`.
    pub fn arguments(&self) -> Vec<String> {
        const LISTENER: &str = "listener.tcp.external";
        let mut own: Vec<_> = self
            .settings
            .iter()
            .filter(|(key, _)| !of_plugin(key))
            .cloned()
            .collect();
        if !own.iter().any(|(key, _)| key == LISTENER) {
            own.push((LISTENER.to_owned(), "127.0.0.1:0".to_owned()));
        }
        own.iter()
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect()
    }
}

fn of_plugin(key: &str) -> bool {
    key.starts_with("backend.")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder is ours");
    let entries = fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    for entry in entries {
        let entry = entry.expect("etc/ can be listed");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("etc/ can be listed").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("etc/ can be read")),
        }
    }
}
