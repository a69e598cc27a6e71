//! The whole configuration, read as for a start (`hookline check`), and what only shows when rules are
//! seen side by side.

use std::path::Path;

use strum::IntoEnumIterator;

use crate::config::{Config, Origin, Overrides, Problem, nearest};
use crate::model::delivery::{Delivery, PoolName};
use crate::model::event::HookPoint;
use crate::model::topic::Filter;

use super::action::Action;
use super::backend::Backend;
use super::builtin::Builtin;
use super::plugin::Plugin;
use super::rule::{Rule, Rules};

/// Who takes the keys whose meaning is known on other floors.
pub struct Takers<'a> {
    /// Those of `hookline.conf`.
    pub main: &'a mut dyn FnMut(&mut Config),
    /// Those of one pool, of a backend that has a store.
    pub pool: &'a mut dyn FnMut(&mut Config, &PoolName),
}

/// Reads `hookline.conf` and every plugin's file. `loaded` are the plugins that a start would load, in
/// order; only these are compared with one another. An error means that the host would not start.
pub fn check(etc: &Path, overrides: &Overrides, loaded: &[Backend], takers: Takers<'_>) -> Vec<Problem> {
    let mut main = Config::read(&etc.join("hookline.conf"), overrides);
    let strict = main.or("strict_config", true);
    (takers.main)(&mut main);
    let mut problems = main.finish(strict);
    let sections: Vec<&str> = Backend::iter()
        .flat_map(|backend| backend.sections())
        .copied()
        .collect();
    problems.extend(overrides.astray(&sections));

    let unloaded = Backend::iter().filter(|backend| !loaded.contains(backend));
    let present = unloaded.filter(|backend| backend.file(etc).exists());
    let mut together = Vec::new();
    for backend in loaded.iter().copied().chain(present) {
        let file = backend.file(etc);
        let (plugin, found) = Plugin::read(backend, &file, overrides, strict, takers.pool);
        problems.extend(found);
        if !loaded.contains(&backend) {
            problems.extend(side_by_side(&plugin.rules));
            continue;
        }
        let missing = backend.missing_store();
        problems.extend(missing.map(|text| Problem::warning(Origin::whole(file.to_string_lossy()), text)));
        together.push(plugin.rules);
    }
    problems.extend(side_by_side(&Rules::merge(together)));
    problems.extend(strange_files(etc));
    problems
}

/// Files that look like a plugin's and are nobody's.
fn strange_files(etc: &Path) -> Vec<Problem> {
    let Ok(folder) = std::fs::read_dir(etc.join("plugins")) else {
        return Vec::new();
    };
    let plugins: Vec<&str> = Backend::iter().map(Backend::plugin).collect();
    let mut problems = Vec::new();
    for path in folder.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(plugin) = name.strip_suffix(".conf") else {
            continue;
        };
        if plugin.starts_with("emqx_backend_") && !plugins.contains(&plugin) {
            let near = nearest(plugin, plugins.iter().copied()).join(", ");
            let text = format!("there is no plugin {plugin}, so nobody reads this file (there are {near})");
            problems.push(Problem::warning(Origin::whole(path.to_string_lossy()), text));
        }
    }
    problems
}

/// What is odd about rules of plugins that are loaded together (spec C6, C8.3, H20).
pub fn side_by_side(rules: &Rules) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (one, other) in pairs(rules.at(HookPoint::MessageAcked)) {
        let ways = (acknowledges(one), acknowledges(other));
        let differ = matches!(
            ways,
            (Some(Delivery::Queue), Some(Delivery::Pubsub)) | (Some(Delivery::Pubsub), Some(Delivery::Queue))
        );
        if differ && one.pool == other.pool && overlap(one, other) {
            let text = format!(
                "{} acknowledges topics that {} acknowledges the other way: the first acknowledgement deletes \
                 what other readers have not read; give the two topics that do not overlap",
                other.name, one.name
            );
            problems.push(Problem::warning(other.origin.clone(), text));
        }
    }
    for (one, other) in pairs(rules.at(HookPoint::SessionSubscribed)) {
        let both = fetches(one) && fetches(other);
        if both && one.pool != other.pool && overlap(one, other) {
            let text = format!(
                "{} fetches topics that {} fetches too: both deliver, and the second copy is dropped; \
                 give the two topics that do not overlap",
                other.name, one.name
            );
            problems.push(Problem::warning(other.origin.clone(), text));
        }
    }
    problems.extend(narrow_lookups(rules));
    problems
}

/// Retained messages that a store keeps and no lookup ever finds: the broker's own retainer leaves them to the store.
fn narrow_lookups(rules: &Rules) -> Vec<Problem> {
    let does = |rule: &Rule, builtin| rule.action == Action::Builtin(builtin);
    let subscribed = rules.at(HookPoint::SessionSubscribed).iter();
    let lookups: Vec<_> = subscribed.filter(|rule| does(rule, Builtin::RetainLookup)).collect();
    let retains = rules.at(HookPoint::MessagePublish).iter();
    let narrow = retains
        .filter(|rule| does(rule, Builtin::MessageRetain))
        .filter(|retain| {
            let mut here = lookups.iter().filter(|lookup| lookup.pool == retain.pool);
            !here.any(|lookup| covers(lookup, retain))
        });
    let told = narrow.map(|retain| {
        let topic = retain.filter.as_ref().map_or("#", Filter::as_str);
        let text = format!(
            "retained messages on {topic} are stored in {}, but no on_retain_lookup at session.subscribed covers \
             that topic there: subscribers miss some; leave the topic of the lookup out",
            retain.pool
        );
        Problem::warning(retain.origin.clone(), text)
    });
    told.collect()
}

fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    let behind = |(at, one)| all[at + 1..].iter().map(move |other| (one, other));
    all.iter().enumerate().flat_map(behind)
}

fn builtin(rule: &Rule) -> Option<Builtin> {
    match rule.action {
        Action::Builtin(builtin) => Some(builtin),
        Action::Statements(_) | Action::Commands(_) => None,
    }
}

fn acknowledges(rule: &Rule) -> Option<Delivery> {
    builtin(rule)?.acknowledges()
}

fn fetches(rule: &Rule) -> bool {
    builtin(rule).is_some_and(|builtin| builtin.fetches().is_some())
}

/// Whether some topic matches both.
fn overlap(one: &Rule, other: &Rule) -> bool {
    let (Some(one), Some(other)) = (&one.filter, &other.filter) else {
        return true;
    };
    let (one, other) = (one.as_str(), other.as_str());
    if shy(one, other) || shy(other, one) {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

/// Whether every topic that `narrow` matches is matched by `wide`; a rule without a filter matches them all.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    match (&wide.filter, &narrow.filter) {
        (None, _) => true,
        (Some(wide), Some(narrow)) => wide.covers(narrow),
        (Some(wide), None) => wide.as_str() == "#",
    }
}

/// A leading wildcard leaves names that start with `$` alone.
fn shy(wild: &str, name: &str) -> bool {
    wild.starts_with(['#', '+']) && name.starts_with('$')
}

#[cfg(test)]
mod tests;
