//! How far a reader has come that has no row in the store: what it has not read must not be purged (spec D6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::delivery::Position;
use super::topic::Filter;

/// A reader's claim to what lies behind its position, for as long as a clone of it lives. Only where places are
/// row ids: stores that order by message id purge by themselves.
#[derive(Clone, Debug)]
pub struct Hold(Arc<Held>);

/// What the store sees of a [`Hold`].
#[derive(Debug)]
pub struct Held {
    filter: Filter,
    row: AtomicU64,
}

impl Hold {
    /// A claim to everything that matches, until it is told where the reader stands.
    pub fn new(filter: Filter) -> Self {
        let row = AtomicU64::new(0);
        Self(Arc::new(Held { filter, row }))
    }

    /// Up to here the reader needs nothing any more.
    pub fn move_to(&self, position: Position) {
        let row = u64::try_from(position.0).unwrap_or(0);
        self.0.row.store(row, Ordering::Relaxed);
    }

    /// What the store keeps: a weak reference to it ends with the reader.
    pub fn held(&self) -> &Arc<Held> {
        &self.0
    }
}

impl PartialEq for Hold {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Held {
    /// What the reader reads.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        Position(self.row.load(Ordering::Relaxed).into())
    }
}
