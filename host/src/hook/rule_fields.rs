//! The parts of a rule's JSON: topic, action, pool, options; each taken once and checked, so that what is
//! left over is a mistake too.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::config::{Limit, Setting, TimeLimit, alternatives, nearest};
use crate::model::delivery::PoolName;
use crate::model::event::HookPoint;
use crate::model::topic::Filter;

use super::action::Action;
use super::backend::Backend;
use super::builtin::Builtin;
use super::rule::{PayloadFormat, RuleOptions};

/// What is to be said about a line.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Notes {
    pub(super) fn error(&mut self, text: impl Display) {
        self.errors.push(text.to_string());
    }

    pub(super) fn warn(&mut self, text: impl Display) {
        self.warnings.push(text.to_string());
    }

    pub(super) fn ok<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|error| self.error(error)).ok()
    }
}

/// A moment as it is written.
pub(super) struct Moment<'a> {
    pub(super) name: &'a str,
    /// The moment that it is, or whose variables it has.
    pub(super) point: HookPoint,
    /// Whether it is one that comes with a later version of EMQ X only.
    pub(super) is_later: bool,
}

impl<'a> Moment<'a> {
    pub(super) fn parse(name: &'a str, notes: &mut Notes) -> Option<Self> {
        let (point, is_later) = match name {
            "message.deliver" => {
                notes.warn("message.deliver is a later name of message.delivered; write that");
                (HookPoint::MessageDelivered, false)
            }
            "session.created" | "session.resumed" => (HookPoint::ClientConnected, true),
            "session.terminated" => (HookPoint::ClientDisconnected, true),
            _ => match name.parse() {
                Ok(point) => (point, false),
                Err(_) => {
                    notes.error(unknown_moment(name));
                    return None;
                }
            },
        };
        Some(Self { name, point, is_later })
    }
}

fn unknown_moment(name: &str) -> String {
    use strum::IntoEnumIterator;
    let all: Vec<String> = HookPoint::iter().map(|point| point.to_string()).collect();
    let near = nearest(name, all.iter().map(String::as_str));
    let near = if near.is_empty() {
        all.iter().map(String::as_str).collect()
    } else {
        near
    };
    format!("there is no hook point {name} (try {})", alternatives(&near))
}

/// A rule's JSON, of which each part is taken once.
pub(super) struct Fields<'a> {
    map: Map<String, Value>,
    notes: &'a mut Notes,
}

const KNOWN: [&str; 10] = [
    "action",
    "pool",
    "topic",
    "expired_time",
    "offline_opts",
    "payload_format",
    "sync",
    "tx",
    "idempotent",
    "on_dup",
];

impl<'a> Fields<'a> {
    pub(super) const fn new(map: Map<String, Value>, notes: &'a mut Notes) -> Self {
        Self { map, notes }
    }

    pub(super) fn filter(&mut self, moment: &Moment<'_>) -> Option<Filter> {
        let text = self.text("topic")?;
        if matches!(moment.point, HookPoint::ClientConnected | HookPoint::ClientDisconnected) {
            self.notes
                .warn(format!("topic has no effect at {}; delete it", moment.name));
            return None;
        }
        match Filter::parse_subscription(&text) {
            Ok((None, filter)) => Some(filter),
            Ok((Some(_), filter)) => {
                self.notes.error(format!(
                    "topic {text:?}: rules see a shared subscription without its group; write {:?}",
                    filter.as_str()
                ));
                None
            }
            Err(error) => {
                self.notes.error(format!("topic {text:?}: {error}"));
                None
            }
        }
    }

    pub(super) fn pool(&mut self, backend: Backend, pools: &[PoolName]) -> Option<PoolName> {
        let names: Vec<&str> = pools.iter().map(PoolName::pool).collect();
        let section = backend.sections().last().unwrap_or(&"backend");
        let defined = match names[..] {
            [] => format!("no pool is defined; one comes with its first key, {section}.pool1.…"),
            _ => format!("defined: {}", names.join(", ")),
        };
        match (self.map.contains_key("pool"), pools) {
            (false, [only]) => Some(only.clone()),
            (false, _) => {
                self.notes.error(format!("pool is missing ({defined})"));
                None
            }
            (true, _) => {
                let name = self.text("pool")?;
                let found = pools.iter().find(|pool| pool.pool() == name);
                if found.is_none() {
                    self.notes.error(format!("there is no pool {name} ({defined})"));
                }
                found.cloned()
            }
        }
    }

    pub(super) fn action(&mut self, backend: Backend, moment: &Moment<'_>) -> Option<Action> {
        let custom = backend.custom_action();
        let kinds: Vec<&str> = ["function"].into_iter().chain(custom).collect();
        let kinds = kinds.join(" or ");
        let action = match self.map.shift_remove("action") {
            Some(Value::Object(action)) => action,
            other => {
                let what = if other.is_some() {
                    "is not an object"
                } else {
                    "is missing"
                };
                let text = format!("action {what}; write \"action\": {{\"function\": \"on_…\"}}, with {kinds} in it");
                self.notes.error(text);
                return None;
            }
        };
        let mut entries = action.iter();
        let (Some((kind, value)), None) = (entries.next(), entries.next()) else {
            self.notes
                .error(format!("action has {} keys; it has exactly one: {kinds}", action.len()));
            return None;
        };
        let parsed = match (kind.as_str(), backend.dialect()) {
            ("function", _) => function(value, backend, moment).map(Action::Builtin),
            ("commands", None) if custom == Some("commands") => Action::commands(value, moment.point),
            (kind, Some(dialect)) if custom == Some(kind) => Action::statements(value, moment.point, dialect),
            _ => Err(format!("{} has no action {kind}; it has {kinds}", backend.name())),
        };
        // Functions name themselves; of statements the reader wants to know which action they belong to.
        let at = if kind == "function" || custom != Some(kind) {
            String::new()
        } else {
            format!("{kind} ")
        };
        self.notes.ok(parsed.map_err(|error| match at.as_str() {
            "" => error,
            at => format!("{}: {error}", at.trim_end()),
        }))
    }

    pub(super) fn options(&mut self, backend: Backend, moment: &Moment<'_>, action: &Action) -> RuleOptions {
        let builtin = match action {
            Action::Builtin(builtin) => Some(*builtin),
            Action::Statements(_) | Action::Commands(_) => None,
        };
        let is_custom = builtin.is_none();
        let at = |point| moment.point == point && !moment.is_later;
        let mut options = RuleOptions::default();
        if let Some(sync) = self.flag(
            "sync",
            is_custom && at(HookPoint::MessagePublish),
            "custom actions at message.publish",
        ) {
            options.sync = sync;
        }
        let statements = matches!(action, Action::Statements(_));
        if statements && backend == Backend::Cassa && self.map.contains_key("tx") {
            self.notes.error("tx: Cassandra has no transactions; delete it");
        }
        options.tx = self.flag("tx", statements, "sql").unwrap_or(false);
        options.idempotent = self.flag("idempotent", is_custom, "custom actions").unwrap_or(false);
        options.on_dup = self
            .flag("on_dup", at(HookPoint::MessageDelivered), "message.delivered")
            .unwrap_or(false);
        let stores = backend == Backend::Redis && at(HookPoint::MessagePublish) && !is_custom;
        if let Some(time) = self.taken("expired_time", stores, "functions of Redis at message.publish") {
            options.expired_time = self.seconds(&time);
        }
        let converts = backend == Backend::Mongo && at(HookPoint::MessagePublish);
        if let Some(format) = self.taken("payload_format", converts, "functions of MongoDB at message.publish") {
            options.payload_format = self.payload_format(&format);
        }
        let fetches = builtin.is_some_and(|builtin| builtin.fetches().is_some());
        if let Some(limits) = self.taken("offline_opts", fetches, "functions that fetch messages") {
            self.limits(limits, &mut options);
        }
        options
    }

    fn seconds(&mut self, value: &Value) -> Option<u64> {
        match value.as_i64() {
            Some(seconds) => u64::try_from(seconds).ok().filter(|seconds| *seconds > 0),
            None => {
                self.notes
                    .error(format!("expired_time {value}: expected a whole number of seconds"));
                None
            }
        }
    }

    fn payload_format(&mut self, value: &Value) -> PayloadFormat {
        match value.as_str() {
            Some("plain_text") => PayloadFormat::PlainText,
            Some("mongo_json") => PayloadFormat::MongoJson,
            _ => {
                self.notes.error(format!(
                    "payload_format {value}: expected \"plain_text\" or \"mongo_json\""
                ));
                PayloadFormat::default()
            }
        }
    }

    fn limits(&mut self, value: Value, options: &mut RuleOptions) {
        let Value::Object(mut limits) = value else {
            let text = "offline_opts is an object: {\"max_returned_count\": 500, \"time_range\": \"2h\"}";
            return self.notes.error(text);
        };
        options.max_returned_count = self.setting::<Limit>(&mut limits, "max_returned_count");
        options.time_range = self.setting::<TimeLimit>(&mut limits, "time_range");
        for key in limits.keys() {
            let text = format!("offline_opts has no key {key}; it has max_returned_count and time_range");
            self.notes.error(text);
        }
    }

    /// A value that is written as in a setting, or as a number.
    fn setting<T: Setting>(&mut self, map: &mut Map<String, Value>, key: &str) -> Option<T> {
        let value = map.shift_remove(key)?;
        let parsed = match &value {
            Value::String(text) => T::parse(text),
            Value::Number(number) => T::parse(&number.to_string()),
            _ => None,
        };
        if parsed.is_none() {
            self.notes.error(format!("{key} {value}: expected {}", T::EXPECTED));
        }
        parsed
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.map.shift_remove(key)? {
            Value::String(text) => Some(text),
            other => {
                self.notes.error(format!("{key} {other}: expected a text in quotes"));
                None
            }
        }
    }

    fn flag(&mut self, key: &str, applies: bool, only: &str) -> Option<bool> {
        match self.taken(key, applies, only)? {
            Value::Bool(flag) => Some(flag),
            other => {
                self.notes.error(format!("{key} {other}: expected true or false"));
                None
            }
        }
    }

    /// Takes a value where it means something, and warns where it does not.
    fn taken(&mut self, key: &str, applies: bool, only: &str) -> Option<Value> {
        let value = self.map.shift_remove(key)?;
        if !applies {
            self.notes
                .warn(format!("{key} has no effect here, only on {only}; delete it"));
            return None;
        }
        Some(value)
    }

    pub(super) fn finish(self) {
        for key in self.map.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
            let near = nearest(key, KNOWN);
            let near = if near.is_empty() { KNOWN.to_vec() } else { near };
            self.notes.error(format!(
                "a rule has no key {key}; did you mean {}?",
                alternatives(&near)
            ));
        }
    }
}

fn function(value: &Value, backend: Backend, moment: &Moment<'_>) -> Result<Builtin, String> {
    let name = value
        .as_str()
        .ok_or_else(|| format!("function {value}: expected a text in quotes"))?;
    match name.parse::<Builtin>() {
        // It never runs, but it exists.
        Ok(builtin) if moment.is_later => Builtin::parse(name, backend, builtin.point()),
        _ => Builtin::parse(name, backend, moment.point),
    }
}
