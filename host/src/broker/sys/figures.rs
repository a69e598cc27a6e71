//! What the topics under `$SYS/` are called and what they say. Everything comes from the metrics.

use std::time::{Duration, SystemTime};

use crate::model::utc::utc;
use crate::telemetry::{self, Snapshot};

/// A topic below `$SYS/` and its payload.
pub(super) type Figure = (String, String);

/// The broker as it is now.
pub(super) struct Present<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) uptime: Duration,
    pub(super) wall: SystemTime,
    /// The most clients that were ever connected at once.
    pub(super) clients_max: usize,
    /// The most sockets that may be open at once.
    pub(super) connections_max: usize,
}

impl Present<'_> {
    fn sum(&self, metric: &str, label: &str) -> u64 {
        self.snapshot.sum(metric, label)
    }

    /// `$SYS/broker/…`, as mosquitto has it.
    pub(super) fn by_mosquitto(&self) -> Vec<Figure> {
        let total = self.sum(telemetry::SESSIONS, "");
        let connected = self.sum(telemetry::CLIENTS_CONNECTED, "").min(total);
        let retained = self.sum(telemetry::RETAINED, "");
        let numbers = [
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", total - connected),
            ("clients/inactive", total - connected),
            ("clients/total", total),
            ("clients/maximum", self.clients_max as u64),
            ("clients/expired", self.sum(telemetry::SESSIONS_EXPIRED, "")),
            ("messages/received", self.sum(telemetry::PACKETS, r#"direction="in""#)),
            ("messages/sent", self.sum(telemetry::PACKETS, r#"direction="out""#)),
            ("messages/stored", retained),
            ("store/messages/count", retained),
            ("publish/messages/received", self.sum(telemetry::MESSAGES_RECEIVED, "")),
            ("publish/messages/sent", self.sum(telemetry::MESSAGES_SENT, "")),
            ("publish/messages/dropped", self.sum(telemetry::MESSAGES_DROPPED, "")),
            ("bytes/received", self.sum(telemetry::BYTES, r#"direction="in""#)),
            ("bytes/sent", self.sum(telemetry::BYTES, r#"direction="out""#)),
            ("subscriptions/count", self.sum(telemetry::SUBSCRIPTIONS, "")),
            ("retained messages/count", retained),
        ];
        let version = format!("hookline version {}", env!("CARGO_PKG_VERSION"));
        let uptime = format!("{} seconds", self.uptime.as_secs());
        let texts = [("version", version), ("uptime", uptime)];
        let numbers = numbers.map(|(topic, number)| (topic, number.to_string()));
        let all = texts.into_iter().chain(numbers);
        all.map(|(topic, value)| (format!("broker/{topic}"), value)).collect()
    }

    /// `$SYS/brokers/…`, as EMQ X 3 has it.
    pub(super) fn by_emqx(&self, node: &str) -> Vec<Figure> {
        let mut figures = vec![("brokers".to_owned(), node.to_owned())];
        let texts = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("sysdescr", "Hookline".to_owned()),
            ("uptime", in_words(self.uptime)),
            ("datetime", utc(self.wall)),
        ];
        let stats = [
            ("connections/count", self.sum(telemetry::CLIENTS_CONNECTED, "")),
            ("connections/max", self.clients_max as u64),
            ("connections/limit", self.connections_max as u64),
            ("sessions/count", self.sum(telemetry::SESSIONS, "")),
            ("subscriptions/count", self.sum(telemetry::SUBSCRIPTIONS, "")),
            ("retained/count", self.sum(telemetry::RETAINED, "")),
        ];
        let direction = |word| match word {
            "received" => (r#"direction="in""#, telemetry::MESSAGES_RECEIVED),
            _ => (r#"direction="out""#, telemetry::MESSAGES_SENT),
        };
        let mut metrics = vec![
            ("messages/dropped".to_owned(), self.sum(telemetry::MESSAGES_DROPPED, "")),
            (
                "messages/expired".to_owned(),
                self.sum(telemetry::MESSAGES_DROPPED, r#"reason="expired""#),
            ),
        ];
        for word in ["received", "sent"] {
            let (label, messages) = direction(word);
            metrics.push((format!("bytes/{word}"), self.sum(telemetry::BYTES, label)));
            metrics.push((format!("packets/{word}"), self.sum(telemetry::PACKETS, label)));
            metrics.push((format!("messages/{word}"), self.sum(messages, "")));
            metrics.extend((0..3).map(|qos| {
                let label = format!("qos=\"{qos}\"");
                (format!("messages/qos{qos}/{word}"), self.sum(messages, &label))
            }));
        }
        let below = |topic: &str| format!("brokers/{node}/{topic}");
        figures.extend(texts.map(|(topic, text)| (below(topic), text)));
        figures.extend(stats.map(|(topic, number)| (below(&format!("stats/{topic}")), number.to_string())));
        let metrics = metrics.into_iter();
        figures.extend(metrics.map(|(topic, number)| (below(&format!("metrics/{topic}")), number.to_string())));
        figures
    }
}

/// EMQ X's way to say how long: `3 days,4 hours, 2 minutes, 1 seconds`, from the first that is not 0.
fn in_words(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let (rest, minute) = (format!("{} seconds", seconds % 60), format!("{minutes} minutes, "));
    match (days, hours, minutes) {
        (0, 0, 0) => rest,
        (0, 0, _) => format!("{minute}{rest}"),
        (0, ..) => format!("{hours} hours, {minute}{rest}"),
        _ => format!("{days} days,{hours} hours, {minute}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn times_are_written_as_emqx_writes_them() {
        for (seconds, expected) in [
            (59, "59 seconds"),
            (61, "1 minutes, 1 seconds"),
            (3600, "1 hours, 0 minutes, 0 seconds"),
            (90_061, "1 days,1 hours, 1 minutes, 1 seconds"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn figures_are_the_metrics() {
        let snapshot = Snapshot::parse(
            "# HELP sessions Sessions\nsessions 3\nclients_connected 2\nmessages_received_total{qos=\"0\"} 5\n\
             messages_received_total{qos=\"1\"} 7\nbytes_total{direction=\"in\"} 100\nbytes_total{direction=\"out\"} 1\n",
        );
        let present = Present {
            snapshot: &snapshot,
            uptime: Duration::from_secs(61),
            wall: UNIX_EPOCH,
            clients_max: 9,
            connections_max: 100,
        };
        let mut figures = present.by_mosquitto();
        figures.extend(present.by_emqx("n"));
        for (topic, expected) in [
            ("broker/uptime", "61 seconds"),
            ("broker/clients/connected", "2"),
            ("broker/clients/disconnected", "1"),
            ("broker/clients/maximum", "9"),
            ("broker/publish/messages/received", "12"),
            ("broker/bytes/received", "100"),
            ("brokers", "n"),
            ("brokers/n/metrics/messages/qos1/received", "7"),
            ("brokers/n/metrics/bytes/sent", "1"),
            ("brokers/n/stats/sessions/count", "3"),
        ] {
            let found = figures.iter().find(|(name, _)| name == topic);
            assert_eq!(found.map(|(_, value)| value.as_str()), Some(expected), "{topic}");
        }
    }
}
