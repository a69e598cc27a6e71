//! The loads, and one round of a load on one broker.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::generator::{Fleet, Limit, Shape};
use crate::server::{Server, Setup, machine_cpu, process_cpu};

/// A load and the brokers that carry it, ours first.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    /// Whether subscribers are away while publishers publish.
    pub(crate) away: bool,
    pub(crate) setups: &'static [Setup],
}

const NOTHING_STORED: &[Setup] = &[Setup::Hookline, Setup::Mosquitto];
const STORED: &[Setup] = &[
    Setup::HooklineSqlite,
    Setup::MosquittoAutosave,
    Setup::MosquittoPersistence,
];

/// Every load that is measured.
pub(crate) const LOADS: &[Load] = &[
    Load {
        name: "pairs 10→10, window 100",
        shape: Shape {
            publishers: 10,
            topics: 10,
            subscribers: 10,
            window: 100,
            kept: false,
        },
        away: false,
        setups: NOTHING_STORED,
    },
    Load {
        name: "fan-out 1→100, window 100",
        shape: Shape {
            publishers: 1,
            topics: 1,
            subscribers: 100,
            window: 100,
            kept: false,
        },
        away: false,
        setups: NOTHING_STORED,
    },
    Load {
        name: "publish only, 10, window 100",
        shape: Shape {
            publishers: 10,
            topics: 10,
            subscribers: 0,
            window: 100,
            kept: false,
        },
        away: false,
        setups: NOTHING_STORED,
    },
    Load {
        name: "pairs 50→50, window 1",
        shape: Shape {
            publishers: 50,
            topics: 50,
            subscribers: 50,
            window: 1,
            kept: false,
        },
        away: false,
        setups: NOTHING_STORED,
    },
    Load {
        name: "durable sessions, pairs 10→10",
        shape: Shape {
            publishers: 10,
            topics: 10,
            subscribers: 10,
            window: 100,
            kept: true,
        },
        away: false,
        setups: STORED,
    },
    Load {
        name: "offline store, 10→1",
        shape: Shape {
            publishers: 10,
            topics: 1,
            subscribers: 1,
            window: 100,
            kept: false,
        },
        away: true,
        setups: STORED,
    },
];

/// What a part of a round cost the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Follows the load's name; empty where a round has one part.
    pub(crate) name: &'static str,
    pub(crate) messages: u64,
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// CPU that neither the broker nor the generator used: other work makes a broker look cheaper, because it then
    /// reads more at once.
    pub(crate) other: Duration,
}

impl Part {
    /// Broker CPU per message in nanoseconds.
    pub(crate) fn cpu_per_message_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.messages as f64
    }

    /// The share of the machine's processors that others used.
    pub(crate) fn other_share(&self) -> f64 {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        self.other.as_secs_f64() / self.wall.as_secs_f64() / processors as f64
    }

    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64()
    }
}

impl Load {
    /// Runs one round with fresh connections. An error says what was lost, doubled or changed.
    pub(crate) fn round(&self, server: &Server, limit: Limit) -> Result<Vec<Part>> {
        let online = Shape {
            subscribers: if self.away { 0 } else { self.shape.subscribers },
            ..self.shape
        };
        if self.away {
            Fleet::introduce(server.address(), self.shape)?;
        }
        let mut fleet = Fleet::connect(server.address(), online)?;
        let first = measure(if self.away { ": storing" } else { "" }, server, || {
            fleet.run(limit)?;
            Ok(fleet.messages())
        })?;
        let sent = fleet.sent().to_vec();
        fleet.leave()?;
        if !self.away {
            return Ok(vec![first]);
        }
        let mut returned = None;
        let second = measure(": reading back", server, || {
            let fleet = returned.insert(Fleet::return_to(server.address(), self.shape, sent)?);
            fleet.run(Limit {
                messages: 0,
                time: Duration::ZERO,
            })?;
            Ok(fleet.messages())
        })?;
        returned.map_or(Ok(()), Fleet::leave)?;
        Ok(vec![first, second])
    }
}

fn measure(name: &'static str, server: &Server, work: impl FnOnce() -> Result<u64>) -> Result<Part> {
    let before = (server.cpu()?, process_cpu("self")?, machine_cpu()?, Instant::now());
    let messages = work()?;
    let cpu = server.cpu()? - before.0;
    let ours = process_cpu("self")? - before.1;
    let other = (machine_cpu()? - before.2).saturating_sub(cpu + ours);
    Ok(Part {
        name,
        messages,
        cpu,
        wall: before.3.elapsed(),
        other,
    })
}
