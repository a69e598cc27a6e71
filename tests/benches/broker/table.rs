//! The rows that people read: medians and ranges of both brokers, and how they compare.

use std::fmt::{self, Display, Formatter};

use crate::contest::Contest;
use crate::load::Part;
use crate::server::Setup;

/// Median, least and most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (last, middle) = (values.len() - 1, values.len() / 2);
        Self {
            median: (values[last - middle] + values[middle]) / 2.0,
            min: values[0],
            max: values[last],
        }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} [{:.2}–{:.2}]", self.median, self.min, self.max)
    }
}

/// One load, or one part of it, on two brokers.
pub(crate) struct Row {
    pub(crate) load: String,
    /// Broker CPU in µs per message.
    pub(crate) hookline: Spread,
    pub(crate) mosquitto: Spread,
    /// Thousands of messages a second, medians.
    rates: [f64; 2],
    rounds: usize,
    /// The share of the machine that neither brokers nor generator used, median.
    other: f64,
}

impl Row {
    /// How much of mosquitto's CPU Hookline needs.
    pub(crate) fn ratio(&self) -> f64 {
        self.hookline.median / self.mosquitto.median
    }
}

/// The rows of a contest: one for every part and every other broker. The first round warms up and does not count.
pub(crate) fn rows(contest: &Contest) -> Vec<Row> {
    let [ours, others @ ..] = contest.rounds.as_slice() else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for (theirs, setup) in others.iter().zip(&contest.load.setups[1..]) {
        for at in 0..ours.first().map_or(0, Vec::len) {
            rows.push(row(contest, at, *setup, [&counted(ours, at), &counted(theirs, at)]));
        }
    }
    rows
}

fn counted(rounds: &[Vec<Part>], at: usize) -> Vec<Part> {
    let warm_ups = usize::from(rounds.len() > 1);
    rounds[warm_ups..].iter().map(|parts| parts[at]).collect()
}

fn row(contest: &Contest, at: usize, setup: Setup, parts: [&[Part]; 2]) -> Row {
    let part = contest.rounds[0][0][at].name;
    let load = contest.load.name.to_owned() + part + setup.remark();
    let [hookline, mosquitto] = parts.map(|parts| spread(parts, |part| part.cpu_per_message_ns() / 1e3));
    let other = spread(&parts.concat(), Part::other_share).median;
    let rates = parts.map(|parts| spread(parts, |part| part.rate() / 1e3).median);
    Row {
        load,
        hookline,
        mosquitto,
        rates,
        rounds: parts[0].len(),
        other,
    }
}

fn spread(parts: &[Part], value: impl Fn(&Part) -> f64) -> Spread {
    Spread::of(parts.iter().map(value).collect())
}

/// The table in Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text =
        "| load (QoS 1, 64 B) | Hookline µs/msg | mosquitto µs/msg | ratio | k msg/s | rounds | other CPU |\n\
                    |---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let Row {
            load,
            hookline,
            mosquitto,
            rates: [ours, theirs],
            rounds,
            other,
        } = row;
        let ratio = row.ratio();
        text += &format!(
            "| {load} | {hookline} | {mosquitto} | **{ratio:.2}** | {ours:.0} / {theirs:.0} | {rounds} | {:.0} % |\n",
            other * 100.0
        );
    }
    text
}
