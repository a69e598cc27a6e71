//! Rounds of one load on several brokers in turn, so that a moment's weather strikes all of them.

use anyhow::{Result, bail};

use crate::generator::Limit;
use crate::load::{Load, Part};
use crate::server::Server;

/// A broker that loses something in this many rounds in a row has not earned a figure.
const FAILURES_MAX: usize = 3;

/// The brokers of a load, and what was measured on each.
pub(crate) struct Contest {
    pub(crate) load: &'static Load,
    servers: Vec<Server>,
    /// One list of rounds per broker.
    pub(crate) rounds: Vec<Vec<Vec<Part>>>,
}

impl Contest {
    /// Starts the brokers of a load.
    pub(crate) fn start(load: &'static Load) -> Result<Self> {
        let servers = load
            .setups
            .iter()
            .map(|setup| Server::start(*setup))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            load,
            rounds: vec![Vec::new(); servers.len()],
            servers,
        })
    }

    /// Runs a round on every broker, each time in another order, and says what our own spent per message.
    pub(crate) fn round(&mut self, limit: Limit) -> Result<f64> {
        let count = self.servers.len();
        let first = self.rounds[0].len() % count;
        for at in (0..count).map(|turn| (first + turn) % count) {
            let parts = self.complete_round(at, limit)?;
            self.rounds[at].push(parts);
        }
        let ours = self.rounds[0].last().into_iter().flatten();
        Ok(ours.map(Part::cpu_per_message_ns).sum())
    }

    /// A round in which nothing was lost. One that lost something is reported and not counted; what it left behind
    /// must not spoil the next one, so that the broker starts anew.
    #[expect(clippy::print_stderr, reason = "a benchmark reports to whoever runs it")]
    fn complete_round(&mut self, at: usize, limit: Limit) -> Result<Vec<Part>> {
        let setup = self.load.setups[at];
        for attempt in 1..=FAILURES_MAX {
            match self.load.round(&self.servers[at], limit) {
                Ok(parts) => return Ok(parts),
                Err(error) => eprintln!(
                    "{}, {setup:?}: round not counted ({attempt}): {error:#}",
                    self.load.name
                ),
            }
            self.servers[at] = Server::start(setup)?;
        }
        bail!(
            "{}, {setup:?}: {FAILURES_MAX} rounds in a row were not complete",
            self.load.name
        )
    }
}
