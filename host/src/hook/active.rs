//! The rules in force, each bound to its pool and its counter when it is loaded, so that an event only has to
//! match topics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use strum::IntoEnumIterator;

use crate::model::delivery::PoolName;
use crate::model::event::HookPoint;
use crate::model::session::Keeping;
use crate::model::topic::Filter;
use crate::mqtt::session::Interest;
use crate::store::pool::Pool;
use crate::store::retention::Readership;
use crate::telemetry;

use super::action::Action;
use super::builtin::Builtin;
use super::rule::{Rule, Rules};

/// The rules in force and the pools that they use. Never changes; a reload makes a new one.
#[derive(Default)]
pub struct Active {
    points: HashMap<HookPoint, Vec<Bound>>,
    pools: Vec<Arc<Pool>>,
    interest: Interest,
    /// Where sessions are kept (`persist_sessions`).
    keeper: Option<(Arc<Pool>, Keeping)>,
}

/// A rule, the pool that it names, and its figures.
pub(super) struct Bound {
    pub(super) rule: Arc<Rule>,
    pub(super) pool: Arc<Pool>,
    matched: metrics::Counter,
    took: metrics::Histogram,
}

impl Bound {
    fn new(rule: &Arc<Rule>, pool: &Arc<Pool>) -> Self {
        let action = match &rule.action {
            Action::Builtin(builtin) => builtin.to_string(),
            Action::Statements(_) => "sql".to_owned(),
            Action::Commands(_) => "commands".to_owned(),
        };
        // Handing over cannot fail; what becomes of a write is counted where it is written.
        let labels = [
            ("point", rule.point.to_string()),
            ("action", action),
            ("outcome", "ok".to_owned()),
        ];
        Self {
            rule: Arc::clone(rule),
            pool: Arc::clone(pool),
            matched: metrics::counter!(telemetry::RULE_MATCHED, "rule" => rule.name.clone()),
            took: metrics::histogram!(telemetry::HOOK_RUN_SECONDS, &labels),
        }
    }

    /// Does what the rule says for so many events at once, and counts and times it.
    pub(super) fn measured<T>(&self, events: usize, act: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = act();
        self.matched.increment(events as u64);
        self.took.record(began.elapsed());
        done
    }
}

/// Who reads what this pool stores.
fn readership(rules: &Rules, pool: &PoolName) -> Readership {
    let reads = |builtins: &[Builtin]| {
        let mut rules = rules.at(HookPoint::SessionSubscribed).iter();
        rules.any(|rule| rule.pool == *pool && builtins.iter().any(|it| rule.action == Action::Builtin(*it)))
    };
    Readership {
        positions: reads(&[Builtin::MessageFetch, Builtin::MessageFetchForPubsub]),
        queue: reads(&[Builtin::MessageFetchForQueue]),
    }
}

impl Active {
    /// The rules and the pools of every loaded plugin, in the order of loading. Rules of a pool that is not
    /// among them are left out; loading a plugin has checked that there are none.
    pub fn new(rules: &Rules, pools: Vec<Arc<Pool>>) -> Self {
        let bind = |rule: &Arc<Rule>| {
            let pool = pools.iter().find(|pool| *pool.name() == rule.pool)?;
            Some(Bound::new(rule, pool))
        };
        let points = HookPoint::iter().map(|point| (point, rules.at(point).iter().filter_map(bind).collect()));
        for pool in &pools {
            pool.set_readership(readership(rules, pool.name()));
        }
        let wants = |point, wanted: fn(&Action) -> bool| rules.at(point).iter().any(|rule| wanted(&rule.action));
        let interest = Interest {
            delivered: wants(HookPoint::MessageDelivered, |action| {
                matches!(action, Action::Statements(_))
            }),
            acked: wants(HookPoint::MessageAcked, |action| match action {
                Action::Statements(_) => true,
                Action::Builtin(builtin) => *builtin == Builtin::MessageAckedForQueue,
                Action::Commands(_) => false,
            }),
        };
        Self {
            points: points.collect(),
            pools: pools.clone(),
            interest,
            keeper: pools.iter().find(|pool| pool.options().persist_sessions).map(keeper),
        }
    }

    /// The rules of a moment that are meant for this topic, in the order in which they run.
    pub(super) fn matching<'a>(
        &'a self,
        point: HookPoint,
        topic: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Bound> + 'a {
        let bound = self.points.get(&point).map_or(&[][..], Vec::as_slice);
        bound.iter().filter(move |bound| bound.rule.matches(topic))
    }

    /// Which frequent moments have rules that want every message.
    pub(super) fn interest(&self) -> Interest {
        self.interest
    }

    /// Whether every message of QoS 1 and 2 that this filter matches is stored in this pool.
    pub(super) fn stores_all(&self, pool: &Arc<Pool>, filter: &Filter) -> bool {
        let rules = self
            .points
            .get(&HookPoint::MessagePublish)
            .map_or(&[][..], Vec::as_slice);
        rules.iter().any(|bound| {
            let saves = matches!(
                bound.rule.action,
                Action::Builtin(Builtin::MessagePublish | Builtin::MessageStore)
            );
            let covers = bound.rule.filter.as_ref().is_none_or(|wide| wide.covers(filter));
            saves && covers && Arc::ptr_eq(&bound.pool, pool)
        })
    }

    /// Where sessions are kept: the first pool that says so.
    pub(super) fn keeper(&self) -> Option<&(Arc<Pool>, Keeping)> {
        self.keeper.as_ref()
    }

    /// Every pool in use.
    pub(super) fn pools(&self) -> &[Arc<Pool>] {
        &self.pools
    }

    /// A handful of pools: looking through them is faster than hashing.
    pub(super) fn pool(&self, name: &PoolName) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.name() == name)
    }
}

fn keeper(pool: &Arc<Pool>) -> (Arc<Pool>, Keeping) {
    let keeping = Keeping {
        pool: pool.name().clone(),
        epoch: pool.epoch(),
    };
    (Arc::clone(pool), keeping)
}
