//! What a session says of itself.

use std::time::UNIX_EPOCH;

use super::Session;
use crate::model::delivery::Delivery;
use crate::model::report::{ReaderReport, SessionReport, SubscriptionReport};

/// How much of a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its figures.
    Figures,
    /// Its subscriptions and readers, too, the first so many bytes of them.
    Everything {
        /// So many.
        bytes_max: usize,
    },
}

impl Session {
    /// The session as it is now.
    pub fn report(&self, depth: Depth) -> SessionReport {
        let client = &self.client;
        let (queued, queued_bytes) = self.outbound.waiting();
        let since = client.connected_at.duration_since(UNIX_EPOCH);
        let mut report = SessionReport {
            client_id: client.id.to_string(),
            username: client.username.as_deref().map(str::to_owned),
            // A session that was restored has had no connection yet.
            address: match client.peer.port() {
                0 => "-".to_owned(),
                _ => client.peer.to_string(),
            },
            protocol: client.protocol,
            connected: self.is_online(),
            connected_at: since.unwrap_or_default().as_secs(),
            clean_start: client.clean_start,
            keep_alive_s: client.keep_alive_s,
            session_expiry_s: Some(client.session_expiry_s).filter(|seconds| *seconds != u32::MAX),
            kept: self.is_kept(),
            subscriptions: self.subscriptions.subs.len(),
            inflight: self.outbound.sent.len(),
            queued,
            queued_bytes,
            unanswered: self.open_gates(),
            unreleased: self.received.count_unreleased(),
            will: self.will.is_some(),
            ..SessionReport::default()
        };
        if let Depth::Everything { bytes_max } = depth {
            self.tell_everything(bytes_max, &mut report);
        }
        report
    }

    fn tell_everything(&self, bytes_max: usize, report: &mut SessionReport) {
        /// What the words around a filter take.
        const AROUND_BYTES: usize = 200;
        let mut left = bytes_max;
        let mut fits = |filter: &str| {
            let size = filter.len() + AROUND_BYTES;
            let fits = size <= left;
            left -= if fits { size } else { 0 };
            fits
        };
        for sub in self.subscriptions.in_order() {
            let Some(known) = self.subscriptions.subs.get(&sub) else {
                continue;
            };
            let subscription = &known.subscription;
            let filter = subscription.full_filter();
            if !fits(&filter) {
                report.left_out += 1;
                continue;
            }
            report.filters.push(SubscriptionReport {
                filter,
                qos: subscription.qos as u8,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                retain_handling: subscription.retain_handling,
                identifier: subscription.identifier,
                catching_up: known.replay.is_some(),
            });
            for reading in known.readers.iter().filter_map(|key| self.readers.get(*key)) {
                let reader = &reading.backlog.reader;
                if !fits(reader.filter.as_str()) {
                    report.left_out += 1;
                    continue;
                }
                let delivery = match reader.delivery {
                    Delivery::Queue => "queue",
                    Delivery::Pubsub => "pubsub",
                };
                report.readers.push(ReaderReport {
                    pool: reader.pool.to_string(),
                    filter: reader.filter.to_string(),
                    delivery: delivery.to_owned(),
                    position: reading.begun.then(|| reading.tracker.position().0.to_string()),
                });
            }
        }
    }
}
