//! The way of a publish from the session that received it to every dispatcher. One process or many: sessions
//! and dispatchers do not know.

pub mod direct;

use std::sync::Arc;

use async_trait::async_trait;

use crate::model::delivery::Run;

/// Carries runs of messages to every dispatcher, its own node's included.
pub trait Bus: Send + Sync {
    /// A publisher's way onto the bus. Runs that go in through one link arrive in order.
    fn link(&self) -> Box<dyn Link>;
}

/// One publisher's way onto the bus.
#[async_trait]
pub trait Link: Send {
    /// Publishes the runs of a turn, in order, and takes them out of `batch`. Waits while those behind are
    /// pressed, so that whoever publishes slows down.
    async fn publish(&mut self, batch: &mut Vec<Arc<Run>>);
}

/// Where runs arrive: one a node.
pub trait Dispatcher: Send + Sync {
    /// A place at which the runs of one link arrive; it remembers what it looked up.
    fn desk(&self) -> Box<dyn Desk>;
}

/// Hands arriving runs to the sessions that they belong to.
pub trait Desk: Send {
    /// Hands these runs out, in order.
    fn arrive(&mut self, batch: &[Arc<Run>]) -> Pressure;
}

/// How those behind a dispatcher do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// They keep up.
    Low,
    /// Some subscriber's mailbox fills up: let it run.
    High,
}
