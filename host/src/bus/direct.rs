//! The bus of a single node: what a publisher puts in arrives at once, in its own task.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Bus, Desk, Dispatcher, Link, Pressure};
use crate::model::delivery::Run;

/// Turns in which a publisher lets pressed subscribers run before it goes on: they may be slow for good.
const YIELDS_MAX: usize = 8;

/// A bus without a wire.
pub struct Direct {
    dispatcher: Arc<dyn Dispatcher>,
}

impl Direct {
    /// A bus that ends at this dispatcher.
    pub fn new(dispatcher: Arc<dyn Dispatcher>) -> Self {
        Self { dispatcher }
    }
}

impl Bus for Direct {
    fn link(&self) -> Box<dyn Link> {
        Box::new(DirectLink {
            desk: self.dispatcher.desk(),
        })
    }
}

struct DirectLink {
    desk: Box<dyn Desk>,
}

#[async_trait]
impl Link for DirectLink {
    async fn publish(&mut self, batch: &mut Vec<Arc<Run>>) {
        let mut pressure = self.desk.arrive(batch);
        batch.clear();
        for _ in 0..YIELDS_MAX {
            if pressure == Pressure::Low {
                return;
            }
            tokio::task::yield_now().await;
            pressure = self.desk.arrive(&[]);
        }
    }
}
