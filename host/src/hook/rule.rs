//! A rule: at this moment, where the topic matches this filter, do that in this pool. And all rules of
//! the loaded plugins, in the order in which they run.

use std::sync::Arc;

use crate::config::{Config, Limit, Origin, TimeLimit};
use crate::model::delivery::PoolName;
use crate::model::event::HookPoint;
use crate::model::topic::Filter;

use super::action::Action;
use super::rule_json;

pub use super::backend::Backend;

/// One line of a plugin's file.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its key: `backend.sqlite.hook.message.publish.1`.
    pub name: String,
    /// When it runs.
    pub point: HookPoint,
    /// For which topics or subscriptions; all of them where absent.
    pub filter: Option<Filter>,
    /// What it does.
    pub action: Action,
    /// Where.
    pub pool: PoolName,
    /// How.
    pub options: RuleOptions,
    /// Where it is written.
    pub origin: Origin,
}

/// What a rule says beside its action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOptions {
    /// Custom actions at `message.publish`: whether the acknowledgement waits for them.
    pub sync: bool,
    /// Whether its statements take effect together or not at all.
    pub tx: bool,
    /// Whether its statements may be tried again when nobody knows whether they took effect.
    pub idempotent: bool,
    /// Whether retransmissions count as deliveries.
    pub on_dup: bool,
    /// For how many seconds what it stores is kept (Redis), instead of the backend's own time.
    pub expired_time: Option<u64>,
    /// `max_returned_count` of its `offline_opts`, instead of the backend's.
    pub max_returned_count: Option<Limit>,
    /// `time_range` of its `offline_opts`, instead of the backend's.
    pub time_range: Option<TimeLimit>,
    /// How payloads are stored (MongoDB).
    pub payload_format: PayloadFormat,
}

/// How MongoDB is given payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadFormat {
    /// As text or bytes.
    #[default]
    PlainText,
    /// As a document, where they are JSON.
    MongoJson,
}

impl Default for RuleOptions {
    fn default() -> Self {
        Self {
            sync: true,
            tx: false,
            idempotent: false,
            on_dup: false,
            expired_time: None,
            max_returned_count: None,
            time_range: None,
            payload_format: PayloadFormat::default(),
        }
    }
}

impl Rule {
    /// Whether the rule is meant for this topic or subscription (spec A5); `client.*` moments have none.
    /// Built-in functions leave `$SYS/` alone, whatever the filter says (spec B3).
    pub fn matches(&self, topic: Option<&str>) -> bool {
        let Some(topic) = topic else { return true };
        if topic.starts_with("$SYS/") && matches!(self.action, Action::Builtin(_)) {
            return false;
        }
        self.filter.as_ref().is_none_or(|filter| filter.matches(topic))
    }
}

/// Rules by moment, each moment's in the order in which they run.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Indexed by the moment.
    points: Vec<Vec<Arc<Rule>>>,
}

impl Rules {
    /// The rules of one moment.
    pub fn at(&self, point: HookPoint) -> &[Arc<Rule>] {
        self.points.get(point as usize).map_or(&[], Vec::as_slice)
    }

    /// All rules, moment by moment.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.points.iter().flatten()
    }

    /// Reads the rules of a plugin's file; mistakes are noted there. Within a moment they run by number,
    /// then those with other names in the order of the alphabet.
    pub fn from_config(backend: Backend, pools: &[PoolName], config: &mut Config) -> Self {
        let mut rules = rule_json::read(backend, pools, config);
        rules.sort_by_cached_key(|rule| {
            let last = rule.name.rsplit('.').next().unwrap_or_default().to_owned();
            (rule.point, last.parse().unwrap_or(u64::MAX), last)
        });
        Self::collect(rules.into_iter().map(Arc::new))
    }

    /// The rules of several plugins, in the order in which these were loaded.
    pub fn merge(plugins: impl IntoIterator<Item = Self>) -> Self {
        Self::collect(
            plugins
                .into_iter()
                .flat_map(|plugin| plugin.points.into_iter().flatten()),
        )
    }

    fn collect(rules: impl Iterator<Item = Arc<Rule>>) -> Self {
        let mut points: Vec<Vec<Arc<Rule>>> = Vec::new();
        for rule in rules {
            let index = rule.point as usize;
            points.resize_with(points.len().max(index + 1), Vec::new);
            points[index].push(rule);
        }
        Self { points }
    }
}

#[cfg(test)]
mod tests;
