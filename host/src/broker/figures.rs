//! The metrics of connections: gathered over a turn, then added at once.

use crate::model::reason::Reason;
use crate::mqtt::limits::Limit;
use crate::mqtt::session::Books;
use crate::telemetry;

/// Somebody ran into a limit.
pub(super) fn hit(limit: Limit) {
    let limit: &'static str = limit.into();
    metrics::counter!(telemetry::LIMITS_HIT, "limit" => limit).increment(1);
}

/// What a connection counted since it last reported.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) packets_in: u64,
    pub(super) packets_out: u64,
    books: Books,
    open: i64,
    published: bool,
    counters: Option<Box<Counters>>,
}

/// The metrics themselves, looked up once a connection.
struct Counters {
    received: [metrics::Counter; 3],
    sent: [metrics::Counter; 3],
    stored: metrics::Counter,
    unstored: metrics::Counter,
    refused: metrics::Counter,
    open: metrics::Gauge,
    deferred: metrics::Counter,
    dropped: [metrics::Counter; 6],
    bytes_in: metrics::Counter,
    bytes_out: metrics::Counter,
    packets_in: metrics::Counter,
    packets_out: metrics::Counter,
    expired: metrics::Counter,
}

impl Counters {
    fn new() -> Self {
        let by_qos = |name: &'static str| ["0", "1", "2"].map(|qos| metrics::counter!(name, "qos" => qos));
        let dropped = |reason: &'static str| metrics::counter!(telemetry::MESSAGES_DROPPED, "reason" => reason);
        Self {
            received: by_qos(telemetry::MESSAGES_RECEIVED),
            sent: by_qos(telemetry::MESSAGES_SENT),
            stored: metrics::counter!(telemetry::MESSAGES_ACKED, "how" => "stored"),
            unstored: metrics::counter!(telemetry::MESSAGES_ACKED, "how" => "unstored"),
            refused: metrics::counter!(telemetry::MESSAGES_REFUSED),
            open: metrics::gauge!(telemetry::MESSAGES_OPEN),
            deferred: metrics::counter!(telemetry::MESSAGES_DEFERRED),
            dropped: [
                "queue_full",
                "evicted",
                "expired",
                "offline_qos0",
                "too_large",
                "reserved_topic",
            ]
            .map(dropped),
            bytes_in: metrics::counter!(telemetry::BYTES, "direction" => "in"),
            bytes_out: metrics::counter!(telemetry::BYTES, "direction" => "out"),
            packets_in: metrics::counter!(telemetry::PACKETS, "direction" => "in"),
            packets_out: metrics::counter!(telemetry::PACKETS, "direction" => "out"),
            expired: metrics::counter!(telemetry::SESSIONS_EXPIRED),
        }
    }
}

impl Figures {
    /// What a session counted.
    pub(super) fn add(&mut self, books: Books) {
        self.books += books;
        self.published = books.received.iter().any(|count| *count > 0);
    }

    /// Whether messages came in during the last turn.
    pub(super) fn published(&self) -> bool {
        self.published
    }

    /// We ended a connection.
    pub(super) fn closed(&self, reason: Reason) {
        metrics::counter!(telemetry::DISCONNECTS, "reason" => reason.to_string()).increment(1);
    }

    /// Reports what was gathered.
    pub(super) fn flush(&mut self) {
        let books = std::mem::take(&mut self.books);
        let (bytes_in, bytes_out) = (std::mem::take(&mut self.bytes_in), std::mem::take(&mut self.bytes_out));
        let (packets_in, packets_out) = (
            std::mem::take(&mut self.packets_in),
            std::mem::take(&mut self.packets_out),
        );
        if books == Books::default() && bytes_in + bytes_out + packets_in + packets_out == 0 {
            return;
        }
        let to = self.counters.get_or_insert_with(|| Box::new(Counters::new()));
        let add = |counter: &metrics::Counter, count: u64| (count > 0).then(|| counter.increment(count));
        to.received
            .iter()
            .zip(books.received)
            .for_each(|(counter, count)| _ = add(counter, count));
        to.sent
            .iter()
            .zip(books.sent)
            .for_each(|(counter, count)| _ = add(counter, count));
        let dropped = [
            books.dropped_queue_full,
            books.dropped_evicted,
            books.dropped_expired,
            books.dropped_offline,
            books.dropped_too_large,
            books.dropped_reserved,
        ];
        to.dropped
            .iter()
            .zip(dropped)
            .for_each(|(counter, count)| _ = add(counter, count));
        let counts = [
            (&to.stored, books.acked_stored),
            (&to.unstored, books.acked_unstored),
            (&to.refused, books.refused),
            (&to.deferred, books.deferred),
            (&to.bytes_in, bytes_in),
            (&to.bytes_out, bytes_out),
            (&to.packets_in, packets_in),
            (&to.packets_out, packets_out),
            (&to.expired, books.expired),
        ];
        counts.iter().for_each(|(counter, count)| _ = add(counter, *count));
        let answered = books.acked_stored + books.acked_unstored + books.refused;
        let opened = (books.received[1] + books.received[2]) as i64 - answered as i64;
        self.open += opened;
        if opened != 0 {
            to.open.increment(opened as f64);
        }
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        // Gates of a session that is over have nobody to answer: they are not open any more.
        if self.open != 0 {
            metrics::gauge!(telemetry::MESSAGES_OPEN).decrement(self.open as f64);
        }
    }
}
