//! How much one connection may send: buckets that fill with time. Whoever has emptied one is read later, never
//! closed. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use crate::mqtt::limits::{Limit, Limits, Rate};

/// The buckets of one connection.
#[derive(Debug)]
pub(super) struct Quota {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Quota {
    /// The quota of a new connection; `None` where nothing is limited.
    pub(super) fn new(limits: &Limits, now: Instant) -> Option<Box<Self>> {
        let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, now));
        let (messages, bytes) = (bucket(limits.publish_rate), bucket(limits.byte_rate));
        (messages.is_some() || bytes.is_some()).then(|| Box::new(Self { messages, bytes }))
    }

    /// A PUBLISH came in. Answers the limit where it was the last for now.
    pub(super) fn published(&mut self, now: Instant) -> Option<Limit> {
        let emptied = self.messages.as_mut().is_some_and(|bucket| bucket.take(1, now));
        emptied.then_some(Limit::PublishRate)
    }

    /// Bytes came in. Answers the limit where they were the last for now.
    pub(super) fn read(&mut self, bytes: usize, now: Instant) -> Option<Limit> {
        let emptied = self.bytes.as_mut().is_some_and(|bucket| bucket.take(bytes, now));
        emptied.then_some(Limit::ByteRate)
    }

    /// When the connection is read again; `None` while it is.
    pub(super) fn reads_again_at(&self) -> Option<Instant> {
        let buckets = [&self.messages, &self.bytes];
        buckets
            .into_iter()
            .flatten()
            .filter_map(|bucket| bucket.empty_until)
            .max()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        for bucket in [&mut self.messages, &mut self.bytes].into_iter().flatten() {
            bucket.empty_until.take_if(|until| *until <= now);
        }
    }
}

/// Holds `amount` and fills again within `per`. What does not fit any more is owed: a packet is read whole.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    filled_at: Instant,
    empty_until: Option<Instant>,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            left: rate.amount as f64,
            filled_at: now,
            empty_until: None,
        }
    }

    /// Takes out; answers whether that emptied it.
    fn take(&mut self, amount: usize, now: Instant) -> bool {
        let full = self.rate.amount as f64;
        let per_second = full / self.rate.per.as_secs_f64();
        let since = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.left = (self.left + since * per_second).min(full) - amount as f64;
        self.filled_at = now;
        if self.left >= 1.0 {
            return false;
        }
        let was_open = self.empty_until.is_none();
        self.empty_until = Some(now + Duration::from_secs_f64((1.0 - self.left) / per_second));
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(publishes: Option<(usize, u64)>, bytes: Option<(usize, u64)>, now: Instant) -> Box<Quota> {
        let rate = |(amount, seconds)| Rate {
            amount,
            per: Duration::from_secs(seconds),
        };
        let limits = Limits {
            publish_rate: publishes.map(rate),
            byte_rate: bytes.map(rate),
            ..Limits::default()
        };
        Quota::new(&limits, now).expect("something is limited")
    }

    #[test]
    fn a_burst_is_taken_then_one_message_at_a_time() {
        let mut now = Instant::now();
        let mut quota = quota(Some((10, 10)), None, now);
        assert!((0..9).all(|_| quota.published(now).is_none()));
        assert_eq!(quota.published(now), Some(Limit::PublishRate));
        for _ in 0..5 {
            let until = quota.reads_again_at().expect("it is empty");
            assert!(
                (0.999..1.001).contains(&(until - now).as_secs_f64()),
                "{:?}",
                until - now
            );
            quota.tick(until - Duration::from_millis(1));
            assert!(quota.reads_again_at().is_some());
            now = until;
            quota.tick(now);
            assert_eq!(quota.reads_again_at(), None);
            assert_eq!(quota.published(now), Some(Limit::PublishRate), "it holds one by now");
        }
        now += Duration::from_secs(3600);
        quota.tick(now);
        assert!(
            (0..9).all(|_| quota.published(now).is_none()),
            "an idle hour fills it, no more"
        );
        assert_eq!(quota.published(now), Some(Limit::PublishRate));
    }

    #[test]
    fn what_was_read_beyond_the_limit_is_waited_for() {
        let now = Instant::now();
        let mut quota = quota(None, Some((1000, 1)), now);
        assert_eq!(quota.read(3000, now), Some(Limit::ByteRate));
        let wait = quota.reads_again_at().expect("it is empty") - now;
        assert!((2.0..2.01).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(quota.published(now), None, "messages are not limited");
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_limited() {
        assert!(Quota::new(&Limits::default(), Instant::now()).is_none());
    }
}
