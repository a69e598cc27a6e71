//! What a session costs that nothing happens in: resident memory of the broker, with its client connected and away.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::link::Link;
use crate::server::{Server, Setup};

/// Sessions of a broker; their sockets are below the usual limit of open files.
const SESSIONS: usize = 5000;
/// How long memory may take to come to rest.
const REST: Duration = Duration::from_secs(20);
/// Hookline lets go of a session five seconds after its client.
const AWAY: Duration = Duration::from_secs(8);

/// Bytes of resident memory for one session.
struct Idle {
    setup: Setup,
    connected: f64,
    away: f64,
}

/// The table in Markdown, of both brokers with persistence.
pub(crate) fn markdown(size: Size) -> Result<String> {
    let Size { sessions, away } = size;
    let mut text = format!(
        "| {sessions} durable sessions, one subscription each | connected, KiB a session | away, KiB a session |\n|---|---|---|\n"
    );
    for setup in [Setup::HooklineSqlite, Setup::MosquittoPersistence] {
        let Idle { setup, connected, away } = measure(setup, sessions, away)?;
        text += &format!("| {setup:?} | {:.2} | {:.2} |\n", connected / 1024.0, away / 1024.0);
    }
    Ok(text)
}

/// What the table is made of.
pub(crate) struct Size {
    sessions: usize,
    /// How long clients are away before memory is looked at.
    away: Duration,
}

impl Size {
    /// Enough to measure.
    pub(crate) const FULL: Self = Self {
        sessions: SESSIONS,
        away: AWAY,
    };
    /// Enough to see that it works.
    pub(crate) const TINY: Self = Self {
        sessions: 5,
        away: Duration::ZERO,
    };
}

fn measure(setup: Setup, sessions: usize, away: Duration) -> Result<Idle> {
    let server = Server::start(setup)?;
    // Whatever the first clients cost once is not theirs.
    leave(connect(&server, "warm", 50)?)?;
    let before = at_rest(&server)?;
    let links = connect(&server, "idle", sessions)?;
    let connected = at_rest(&server)?;
    leave(links)?;
    pause(away);
    let away = at_rest(&server)?;
    let each = |now: u64| now.saturating_sub(before) as f64 / sessions as f64;
    Ok(Idle {
        setup,
        connected: each(connected),
        away: each(away),
    })
}

fn connect(server: &Server, name: &str, count: usize) -> Result<Vec<Link>> {
    let link = |number| {
        let (mut link, _) = Link::open(server.address(), format!("{name}-{number}"), false)?;
        link.subscribe(&format!("{name}/{number}"))?;
        Ok(link)
    };
    (0..count).map(link).collect()
}

fn leave(links: Vec<Link>) -> Result<()> {
    links.into_iter().try_for_each(Link::leave)
}

/// The resident memory once it stays the same for a while.
fn at_rest(server: &Server) -> Result<u64> {
    let (started, mut last, mut same) = (Instant::now(), server.resident_bytes()?, 0);
    while same < 5 && started.elapsed() < REST {
        pause(Duration::from_millis(100));
        let now = server.resident_bytes()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

#[expect(clippy::disallowed_methods, reason = "no runtime waits for this thread")]
fn pause(time: Duration) {
    thread::sleep(time);
}
