//! A published run → the mailboxes it belongs in, and the broker's own retained messages.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::mailbox::Mailbox;
use super::retained::Retained;
use super::routes::{Routes, Target, Targets};
use crate::bus::{Desk, Dispatcher, Pressure};
use crate::hook::Hooks;
use crate::model::delivery::Run;
use crate::telemetry;

/// Topics that one publisher's desk remembers the targets of.
const REMEMBERED_MAX: usize = 256;
/// Targets in all of them: where very many subscribe, fewer topics are remembered.
const TARGETS_MAX: usize = 65_536;

/// The dispatcher of this node.
pub(super) struct Dispatch {
    pub(super) routes: Arc<Routes>,
    pub(super) retained: Arc<Retained>,
    pub(super) hooks: Arc<Hooks>,
}

impl Dispatcher for Arc<Dispatch> {
    fn desk(&self) -> Box<dyn Desk> {
        Box::new(PublisherDesk {
            dispatch: Arc::clone(self),
            generation: 0,
            lists: HashMap::default(),
            remembered: 0,
            pressed: Vec::new(),
            dropped: metrics::counter!(telemetry::MESSAGES_DROPPED, "reason" => "mailbox_full"),
            deferred: metrics::counter!(telemetry::MESSAGES_DEFERRED),
        })
    }
}

struct PublisherDesk {
    dispatch: Arc<Dispatch>,
    /// The generation of the routes when the lists were made.
    generation: u64,
    lists: HashMap<Box<str>, Arc<Targets>, RandomState>,
    /// How many targets are in the lists.
    remembered: usize,
    /// Mailboxes that were half full when this desk last put something in.
    pressed: Vec<Arc<Mailbox>>,
    dropped: metrics::Counter,
    deferred: metrics::Counter,
}

impl Desk for PublisherDesk {
    fn arrive(&mut self, batch: &[Arc<Run>]) -> Pressure {
        // Read before the look-up: a route that comes in between makes the lists old, not wrong.
        let generation = self.dispatch.routes.generation();
        if generation != self.generation {
            self.forget();
            self.generation = generation;
        }
        self.pressed.retain(|mailbox| mailbox.is_pressed());
        for run in batch {
            self.keep_retained(run);
            let targets = self.targets(run.topic().as_str());
            targets.each.iter().for_each(|target| self.put(target, run));
            for group in &targets.groups {
                // Every message of a run to a member of its own, or a busy publisher would have one member only.
                match run.messages.len() {
                    1 => self.put(group.pick(), run),
                    _ => self.share(group, run),
                }
            }
        }
        if self.pressed.is_empty() {
            Pressure::Low
        } else {
            Pressure::High
        }
    }
}

impl PublisherDesk {
    fn targets(&mut self, topic: &str) -> Arc<Targets> {
        if let Some(known) = self.lists.get(topic) {
            return Arc::clone(known);
        }
        let targets = Arc::new(self.dispatch.routes.look_up(topic));
        if self.lists.len() >= REMEMBERED_MAX || self.remembered + targets.count() > TARGETS_MAX {
            self.forget();
        }
        self.remembered += targets.count();
        self.lists.insert(topic.into(), Arc::clone(&targets));
        targets
    }

    fn forget(&mut self) {
        self.lists.clear();
        self.remembered = 0;
    }

    fn put(&mut self, target: &Target, run: &Arc<Run>) {
        if !target.to.push_run(run, &target.subs) {
            // The session reads what is stored from the store; the rest is lost to it.
            let lost = run.messages.len() as u64;
            match run.stored.is_empty() {
                true => self.dropped.increment(lost),
                false => self.deferred.increment(lost),
            }
        }
        if target.to.is_pressed() && !self.pressed.iter().any(|known| Arc::ptr_eq(known, &target.to)) {
            self.pressed.push(Arc::clone(&target.to));
        }
    }

    fn share(&mut self, group: &super::routes::Group, run: &Arc<Run>) {
        for index in 0..run.messages.len() {
            // Shared subscriptions have no positions, so the copy needs no places.
            let single = Arc::new(run.single(index));
            self.put(group.pick(), &single);
        }
    }

    fn keep_retained(&self, run: &Run) {
        let mut retained = run.messages.iter().filter(|message| message.retain).peekable();
        if retained.peek().is_some() && !self.dispatch.hooks.retains(run.topic()) {
            retained.for_each(|message| self.dispatch.retained.keep(message));
        }
    }
}
