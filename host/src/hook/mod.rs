//! The only door between what happens and the rules: events go in, writes go to the pools, effects come out.
//! Hooks decide and never wait; only the session acts.

pub mod action;
mod active;
pub mod backend;
pub mod builtin;
pub mod check;
mod json;
mod keep;
mod key_table;
pub mod keys;
mod lexer;
pub mod plugin;
mod publish;
pub mod rule;
mod rule_fields;
mod rule_json;
pub mod statement;
mod template;

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::model::clock;
use crate::model::delivery::{Delivery, PoolName, Position, Reader};
use crate::model::event::{Backlog, Effect, Event, HookPoint, Rendering, Start};
use crate::model::message::{Client, ClientId, Qos, Subscription};
use crate::model::topic::{Filter, Topic};
use crate::mqtt::session::Interest;
use crate::store::options::AckMode;
use crate::store::pool::Pool;
use crate::store::{ClientState, Script, Write};

use action::Action;
use builtin::Builtin;
use rule::Rule;

pub use active::Active;
pub use publish::Planned;

/// Rules and the pools that they name: an immutable snapshot. A reload swaps the whole of it.
pub struct Hooks {
    active: ArcSwap<Active>,
    node: Arc<str>,
}

impl Hooks {
    /// Rules and pools of the node with this name.
    pub fn new(node: impl Into<Arc<str>>, active: Active) -> Self {
        Self {
            active: ArcSwap::from_pointee(active),
            node: node.into(),
        }
    }

    /// From the next event on these rules are in force; what is under way ends with the old ones.
    pub fn replace(&self, active: Active) {
        self.active.store(Arc::new(active));
    }

    /// The pool with this name, if a loaded plugin has it.
    pub fn pool(&self, name: &PoolName) -> Option<Arc<Pool>> {
        self.active.load().pool(name).cloned()
    }

    /// Every pool in use.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.active.load().pools().to_vec()
    }

    /// A pool whose queue is full: who has something for it should wait.
    pub fn pressed(&self) -> Option<Arc<Pool>> {
        self.active
            .load()
            .pools()
            .iter()
            .find(|pool| pool.batcher().pressed())
            .cloned()
    }

    /// Which frequent moments have rules that want every message.
    pub fn interest(&self) -> Interest {
        self.active.load().interest()
    }

    /// Whether a rule stores the retained messages of this topic; the broker keeps the others itself.
    pub fn retains(&self, topic: &Topic) -> bool {
        let active = self.active.load();
        let mut rules = active.matching(HookPoint::MessagePublish, Some(topic.as_str()));
        rules.any(|bound| bound.rule.action == Action::Builtin(Builtin::MessageRetain))
    }

    /// Runs the rules of an event that is not a publish: writes go to the pools, effects come back.
    pub fn run(&self, event: &Event) -> Vec<Effect> {
        let active = self.active.load();
        let mut effects = Vec::new();
        for bound in active.matching(event.point(), event.topic()) {
            let (rule, pool) = (&bound.rule, &bound.pool);
            effects.extend(bound.measured(1, || match &rule.action {
                Action::Builtin(builtin) => self.run_builtin(*builtin, rule, event, pool),
                Action::Statements(_) => {
                    self.script(rule, event, pool)
                        .into_iter()
                        .for_each(|write| pool.batcher().write(write));
                    None
                }
                Action::Commands(_) => None,
            }));
        }
        effects
    }

    fn run_builtin(&self, builtin: Builtin, rule: &Rule, event: &Event, pool: &Arc<Pool>) -> Option<Effect> {
        let write = match (builtin, event) {
            (Builtin::SubscribeLookup, Event::ClientConnected { .. }) => {
                return Some(Effect::Lookup(rule.pool.clone()));
            }
            (_, Event::SessionSubscribed { client, subscription }) => {
                return reads(builtin, rule, client, subscription, pool, &self.active.load());
            }
            (Builtin::ClientConnected, Event::ClientConnected { client }) => Write::Client(self.state(client, None)),
            (Builtin::ClientDisconnected, Event::ClientDisconnected { client, .. }) => {
                Write::Client(self.state(client, Some(clock::wall())))
            }
            (Builtin::AckedDelete, Event::SessionUnsubscribed { client, filter }) => {
                Write::Forget(reader(pool, &client.id, filter, Delivery::Pubsub))
            }
            (Builtin::MessageAckedForQueue, Event::MessageAcked { message, .. }) => {
                Write::Delete(message.topic.clone(), message.id)
            }
            _ => return None,
        };
        pool.batcher().write(write);
        None
    }

    fn state(&self, client: &Client, offline_at: Option<SystemTime>) -> ClientState {
        let node = Arc::clone(&self.node);
        ClientState {
            client: client.id.clone(),
            node,
            online_at: client.connected_at,
            offline_at,
        }
    }

    /// A rule's own statements with the event's values.
    fn script(&self, rule: &Rule, event: &Event, pool: &Pool) -> Option<Write> {
        let Action::Statements(statements) = &rule.action else {
            return None;
        };
        let with = Rendering {
            node: &self.node,
            ids: pool.options().msgid_format,
            at: clock::wall(),
        };
        let params = statements.iter().map(|statement| {
            // The names were checked when the rule was loaded.
            statement
                .params
                .iter()
                .filter_map(|name| event.var(name, with))
                .collect()
        });
        let params = params.collect();
        let script = Script {
            rule: rule.name.clone(),
            statements: statements.iter().map(|statement| statement.text.clone()).collect(),
            atomic: rule.options.tx,
        };
        Some(Write::Statements(Arc::new(script), params))
    }

    /// A reader has acknowledged everything up to `position`: stored where a rule says so.
    pub fn advance(&self, reader: &Reader, position: Position) {
        const MOVES: [Action; 2] = [
            Action::Builtin(Builtin::MessageAcked),
            Action::Builtin(Builtin::MessageAckedForPubsub),
        ];
        let active = self.active.load();
        // The position's row is named by the reader's filter, which stands for the topic here.
        let mut rules = active.matching(HookPoint::MessageAcked, Some(reader.filter.as_str()));
        if let Some(bound) = rules.find(|bound| bound.rule.pool == reader.pool && MOVES.contains(&bound.rule.action)) {
            bound.measured(1, || {
                bound.pool.batcher().write(Write::Advance(reader.clone(), position))
            });
        }
    }

    /// A session ended: its positions go where the pool keeps them no longer than that.
    pub fn forget(&self, client: &ClientId) {
        for pool in self
            .active
            .load()
            .pools()
            .iter()
            .filter(|pool| pool.options().respect_clean_session)
        {
            pool.batcher().write(Write::ForgetClient(client.clone()));
        }
    }
}

fn reader(pool: &Pool, client: &ClientId, filter: &Filter, delivery: Delivery) -> Reader {
    Reader {
        pool: pool.name().clone(),
        client: client.clone(),
        filter: filter.clone(),
        delivery,
    }
}

/// What a rule reads for a subscription: retained messages, or those that its client has missed; of these nothing for
/// QoS 0, shared subscriptions and, unless the pool allows it, wildcards (spec C7, C10).
fn reads(
    builtin: Builtin,
    rule: &Rule,
    client: &Client,
    subscription: &Subscription,
    pool: &Arc<Pool>,
    active: &Active,
) -> Option<Effect> {
    let delivery = match builtin {
        Builtin::RetainLookup => {
            let limit = pool.options().max_retained_fetch;
            return Some(Effect::Retained(subscription.filter.clone(), rule.pool.clone(), limit));
        }
        Builtin::MessageFetch | Builtin::MessageFetchForPubsub => Delivery::Pubsub,
        Builtin::MessageFetchForQueue => Delivery::Queue,
        _ => return None,
    };
    let options = pool.options();
    let readable = subscription.filter.is_exact() || options.wildcard_fetch;
    if subscription.qos == Qos::AtMostOnce || subscription.share.is_some() || !readable {
        return None;
    }
    let session_ends_with_connection = options.respect_clean_session && client.session_expiry_s == 0;
    let queue = delivery == Delivery::Queue;
    let backlog = Backlog {
        reader: reader(pool, &client.id, &subscription.filter, delivery),
        // A queue has no positions: whatever is still there is unread.
        start: if queue {
            Start::Earliest
        } else {
            options.initial_position
        },
        durable: !queue && !session_ends_with_connection,
        limit: rule
            .options
            .max_returned_count
            .map_or(options.max_returned_count, |limit| limit.0),
        time_range: rule.options.time_range.map_or(options.time_range, |limit| limit.0),
        page: options.fetch_page,
        drain: options.drain,
        on_resume: options.fetch_on_resume,
        complete: active.stores_all(pool, &subscription.filter),
        ack_last: options.ack_mode == AckMode::Last,
        hold: (!queue && session_ends_with_connection).then(|| pool.hold(subscription.filter.clone())),
    };
    Some(Effect::Backlog(Box::new(backlog)))
}
