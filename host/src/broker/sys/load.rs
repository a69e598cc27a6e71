//! mosquitto's load averages: how much a minute, over the last one, five and fifteen.

use std::time::Duration;

use super::figures::Figure;
use crate::telemetry::{self, Snapshot};

/// What there are averages of: topic, metric, label.
const COUNTERS: [(&str, &str, &str); 7] = [
    ("messages/received", telemetry::PACKETS, r#"direction="in""#),
    ("messages/sent", telemetry::PACKETS, r#"direction="out""#),
    ("publish/received", telemetry::MESSAGES_RECEIVED, ""),
    ("publish/sent", telemetry::MESSAGES_SENT, ""),
    ("publish/dropped", telemetry::MESSAGES_DROPPED, ""),
    ("bytes/received", telemetry::BYTES, r#"direction="in""#),
    ("bytes/sent", telemetry::BYTES, r#"direction="out""#),
];
const MINUTES: [u8; 3] = [1, 5, 15];

/// The averages, each over each of [`MINUTES`].
#[derive(Default)]
pub(super) struct Loads {
    averages: [[f64; MINUTES.len()]; COUNTERS.len()],
    counts: [u64; COUNTERS.len()],
    at: Duration,
}

impl Loads {
    /// Time has passed: these are the counters now.
    pub(super) fn advance(&mut self, snapshot: &Snapshot, uptime: Duration) {
        let minutes = uptime.saturating_sub(self.at).as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        self.at = uptime;
        for (index, (_, metric, label)) in COUNTERS.iter().enumerate() {
            let count = snapshot.sum(metric, label);
            let a_minute = count.saturating_sub(self.counts[index]) as f64 / minutes;
            self.counts[index] = count;
            for (average, over) in self.averages[index].iter_mut().zip(MINUTES) {
                *average = a_minute + (-minutes / f64::from(over)).exp() * (*average - a_minute);
            }
        }
    }

    /// The topics below `$SYS/`.
    pub(super) fn topics(&self) -> Vec<Figure> {
        let of_counter = |(averages, (name, ..)): (&[f64; 3], &(&str, &str, &str))| {
            let name = (*name).to_owned();
            let each = averages.iter().zip(MINUTES);
            each.map(move |(average, over)| (format!("broker/load/{name}/{over}min"), format!("{average:.2}")))
                .collect::<Vec<_>>()
        };
        self.averages.iter().zip(&COUNTERS).flat_map(of_counter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_follow_the_rate_the_longer_ones_slowly() {
        let mut loads = Loads::default();
        for minute in 1..=3 {
            let text = format!("messages_sent_total{{qos=\"0\"}} {}", minute * 600);
            loads.advance(&Snapshot::parse(&text), Duration::from_secs(60 * minute));
        }
        let topics = loads.topics();
        let of = |over: u8| {
            let topic = format!("broker/load/publish/sent/{over}min");
            let found = topics.iter().find(|(name, _)| *name == topic).expect("a topic");
            found.1.parse::<f64>().expect("a number")
        };
        assert!((560.0..600.0).contains(&of(1)), "{}", of(1));
        assert!((260.0..280.0).contains(&of(5)), "{}", of(5));
        assert!((100.0..120.0).contains(&of(15)), "{}", of(15));
        assert_eq!(topics.len(), 21);
    }
}
