//! What the rules make of a run of messages: which pools store what, and who waits for it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::delivery::{Run, Settle, Stored, Ticket};
use crate::model::event::{Event, HookPoint};
use crate::model::message::{Client, Message, Qos};
use crate::model::session::{Direction, Exchange, ExchangeKey};
use crate::mqtt::packet::Version;
use crate::store::Write;
use crate::store::batch::Gated;
use crate::store::options::WriteMode;
use crate::store::pool::Pool;

use super::Hooks;
use super::action::Action;
use super::active::Bound;
use super::builtin::Builtin;

/// A run of messages whose writes are on their way.
pub struct Planned {
    /// The run, ready to travel.
    pub run: Arc<Run>,
    /// For how many pools each message's answer waits; empty where none waits for any.
    pub waits: Vec<u8>,
    /// Whether the run is routed only after its gates have settled (`write_mode = before_route`).
    pub before_route: bool,
}

/// The writes of one run to one pool.
struct Job {
    pool: Arc<Pool>,
    /// Each with the message that it belongs to.
    writes: Vec<(usize, Write)>,
    /// Writes of rules that nobody waits for (`"sync": false`).
    unawaited: Vec<Write>,
    saves: bool,
}

impl Hooks {
    /// Plans a run of messages of one topic and hands what is to be stored to the batchers. The gates `first`,
    /// `first + 1`, … settle through `settle`, once for every pool that a message waits for. `kept` are the QoS 2
    /// messages of a kept session, each with its packet identifier: that is committed with its message (spec C16).
    /// Of what nobody is `told` (a will, or what its publisher did not stay for), nothing is given up after
    /// `ack_timeout`: there is nobody who would send it again.
    pub fn publish(
        &self,
        client: &Arc<Client>,
        messages: Vec<Message>,
        kept: &[(usize, u16)],
        first: Ticket,
        settle: &Arc<dyn Settle>,
        told: bool,
    ) -> Planned {
        let active = self.active.load();
        let mut jobs: Vec<Job> = Vec::new();
        for bound in active.matching(HookPoint::MessagePublish, Some(messages[0].topic.as_str())) {
            let job = Job::of(&mut jobs, &bound.pool);
            bound.measured(messages.len(), || {
                for (index, message) in messages.iter().enumerate() {
                    self.plan(bound, client, index, message, job);
                }
            });
        }
        if let Some((pool, _)) = active.keeper().filter(|_| !kept.is_empty()) {
            let job = Job::of(&mut jobs, pool);
            let exchanges = kept.iter().map(|(index, packet_id)| {
                let key = ExchangeKey {
                    client: client.id.clone(),
                    direction: Direction::Received,
                    packet_id: *packet_id,
                    id: messages[*index].id,
                };
                (*index, Write::Exchange(Exchange { key, released: false }))
            });
            job.writes.extend(exchanges);
        }
        let stored = jobs
            .iter()
            .filter(|job| job.saves)
            .map(|job| job.places(messages.len()))
            .collect();
        let mut waits = vec![0; if jobs.is_empty() { 0 } else { messages.len() }];
        let before_route = jobs.iter().any(Job::holds_route);
        let run = Arc::new(Run::new(messages, stored));
        let told = told && client.protocol >= Version::V5 as u8;
        for job in jobs {
            job.submit(told, &run, first, settle, &mut waits);
        }
        Planned {
            run,
            waits,
            before_route,
        }
    }

    /// What one rule does with one message.
    fn plan(&self, bound: &Bound, client: &Arc<Client>, index: usize, message: &Message, job: &mut Job) {
        let clears = message.retain && message.payload.is_empty();
        match &bound.rule.action {
            Action::Builtin(Builtin::MessagePublish) if message.qos > Qos::AtMostOnce && !clears => {
                job.save(index, message);
            }
            Action::Builtin(Builtin::MessageStore) if !clears => job.save(index, message),
            Action::Builtin(Builtin::MessageRetain) if message.retain && !clears => {
                job.writes.push((index, Write::Retain(message.clone())));
            }
            Action::Builtin(Builtin::RetainDelete) if clears => {
                job.writes
                    .push((index, Write::ClearRetained(message.topic.clone(), message.id)));
            }
            Action::Statements(_) => {
                let event = Event::MessagePublish {
                    client: Arc::clone(client),
                    message: message.clone(),
                };
                match self.script(&bound.rule, &event, &bound.pool) {
                    Some(write) if bound.rule.options.sync => job.writes.push((index, write)),
                    Some(write) => job.unawaited.push(write),
                    None => {}
                }
            }
            Action::Builtin(_) | Action::Commands(_) => {}
        }
    }
}

impl Job {
    fn of<'a>(jobs: &'a mut Vec<Self>, pool: &Arc<Pool>) -> &'a mut Self {
        let at = jobs
            .iter()
            .position(|job| Arc::ptr_eq(&job.pool, pool))
            .unwrap_or_else(|| {
                jobs.push(Self {
                    pool: Arc::clone(pool),
                    writes: Vec::new(),
                    unawaited: Vec::new(),
                    saves: false,
                });
                jobs.len() - 1
            });
        &mut jobs[at]
    }

    /// Two rules that store the same message store it once.
    fn save(&mut self, index: usize, message: &Message) {
        let is_saved = |(other, write): &(usize, Write)| *other == index && matches!(write, Write::Save(_));
        if !self.writes.iter().any(is_saved) {
            self.writes.push((index, Write::Save(message.clone())));
            self.saves = true;
        }
    }

    /// Places for the messages of the run in this pool: pending where it saves them.
    fn places(&self, count: usize) -> Stored {
        let mut saves = vec![false; count];
        let saved = self.writes.iter().filter(|(_, write)| matches!(write, Write::Save(_)));
        saved.for_each(|(index, _)| saves[*index] = true);
        Stored::new(self.pool.name().clone(), saves.into_iter())
    }

    fn holds_route(&self) -> bool {
        !self.writes.is_empty() && self.pool.options().write_mode == WriteMode::BeforeRoute
    }

    /// Hands the writes to the pool's batcher, and counts for every message that it waits for this pool.
    fn submit(mut self, told: bool, run: &Arc<Run>, first: Ticket, settle: &Arc<dyn Settle>, waits: &mut [u8]) {
        let batcher = self.pool.batcher();
        self.unawaited.into_iter().for_each(|write| batcher.write(write));
        if self.writes.is_empty() {
            return;
        }
        // Rule after rule becomes message after message: a gate closes with its last write.
        self.writes.sort_by_key(|(index, _)| *index);
        let options = self.pool.options();
        let awaited = options.write_mode != WriteMode::Async;
        if awaited {
            let mut waiting: Vec<usize> = self.writes.iter().map(|(index, _)| *index).collect();
            waiting.dedup();
            waiting.into_iter().for_each(|index| waits[index] += 1);
        }
        let patience = match told {
            true => options.ack_timeout,
            false => options.retry_max_age,
        };
        batcher.gate(Gated {
            stored: run.stored.iter().position(|stored| stored.pool == *self.pool.name()),
            run: Arc::clone(run),
            first,
            writes: self.writes,
            settle: awaited.then(|| Arc::clone(settle)),
            until: Instant::now() + patience,
        });
    }
}
