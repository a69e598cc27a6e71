//! Sockets, sessions and who is online: bytes become steps, steps are carried out.

mod absent;
mod arrival;
mod census;
mod clients;
mod connection;
mod dispatch;
mod figures;
mod half_open;
mod listener;
mod mailbox;
mod presence;
mod quota;
mod reads;
mod registry;
mod retained;
mod routes;
mod shares;
mod steps;
mod sys;
mod websocket;
mod wills;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bus::Bus;
use crate::bus::direct::Direct;
use crate::hook::Hooks;
use crate::model::id::IdClock;
use crate::model::reason::Reason;
use crate::mqtt::limits::Limits;
use crate::telemetry;

use arrival::Arrival;
use clients::Clients;
use connection::Connection;
use dispatch::Dispatch;
use half_open::HalfOpen;
use mailbox::{Bounds, Item};
use reads::Reads;
use retained::Retained;
use routes::Routes;
use wills::Wills;

pub use census::{Busy, Census};
pub use listener::{Anonymous, Carrier, Listening};

/// What the broker as a whole is told by `hookline.conf`; what concerns one client is in [`Limits`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// This node's name (`node.name`), as `$SYS` says it.
    pub node: String,
    /// How often the figures below `$SYS/` are published; zero for never (`broker.sys_interval`).
    pub sys_interval: Duration,
    /// Whether `$SYS` tells who comes and goes (`module.presence`).
    pub presence: bool,
    /// Where clients connect (`listener.tcp.external`).
    pub listen: Vec<SocketAddr>,
    /// Where they connect over WebSocket (`listener.ws.external`); what holds for sockets holds for both.
    pub listen_ws: Vec<SocketAddr>,
    /// Sockets open at once (`listener.tcp.external.max_connections`).
    pub connections_max: usize,
    /// New connections a second; more wait in the kernel's queue (`listener.tcp.external.max_conn_rate`).
    pub connection_rate_max: u32,
    /// Sockets open at once that have not sent their CONNECT; the oldest goes when one more comes
    /// (`listener.tcp.external.max_half_open`). Never more than half of all sockets.
    pub half_open_max: usize,
    /// Bytes of CONNECTs that are not whole, of all sockets together; whoever holds most goes
    /// (`listener.tcp.external.max_half_open_bytes`). Never less than one packet.
    pub half_open_bytes_max: usize,
    /// How long a new connection may take to send its CONNECT (`zone.external.idle_timeout`).
    pub idle_timeout: Duration,
    /// The reason with which every client is sent to another server, if it is (`mqtt.redirect`).
    pub redirect: Option<Reason>,
    /// Who is let in without a name (`allow_anonymous`).
    pub anonymous: Anonymous,
    /// Bytes of the wills of all clients together (`broker.max_wills_bytes`).
    pub will_bytes_max: usize,
    /// Retained messages that the broker itself keeps, of topics that no rule stores.
    pub retained_len_max: usize,
    /// The same in bytes (`retainer.max_retained_bytes`).
    pub retained_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: "hookline@127.0.0.1".to_owned(),
            sys_interval: Duration::from_secs(60),
            presence: true,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1883))],
            listen_ws: Vec::new(),
            connections_max: 100_000,
            connection_rate_max: 1000,
            half_open_max: 4096,
            half_open_bytes_max: 32 * 1024 * 1024,
            idle_timeout: Duration::from_secs(15),
            redirect: None,
            anonymous: Anonymous::Loopback,
            will_bytes_max: 256 * 1024 * 1024,
            retained_len_max: 1_000_000,
            retained_bytes_max: 256 * 1024 * 1024,
        }
    }
}

/// A running broker.
pub struct Broker {
    settings: Settings,
    limits: Arc<Limits>,
    hooks: Arc<Hooks>,
    ids: IdClock,
    clients: Clients,
    half_open: Arc<HalfOpen>,
    wills: Arc<Wills>,
    routes: Arc<Routes>,
    retained: Arc<Retained>,
    bus: Box<dyn Bus>,
    reads: Reads,
    tracker: TaskTracker,
    /// Nobody new is let in, and nobody waits for a store to be read.
    stop: CancellationToken,
}

impl Broker {
    /// Makes a broker that nobody can reach yet.
    pub fn new(settings: Settings, limits: Limits, hooks: Arc<Hooks>, ids: IdClock) -> Arc<Self> {
        let routes = Arc::new(Routes::default());
        let retained = Arc::new(Retained::new(settings.retained_len_max, settings.retained_bytes_max));
        let dispatch = Dispatch {
            routes: Arc::clone(&routes),
            retained: Arc::clone(&retained),
            hooks: Arc::clone(&hooks),
        };
        // What waits on the way to a session is bounded like what waits in it; by half as many bytes, because a
        // session takes them out every turn unless its client does not read.
        let bounds = Bounds {
            messages_max: limits.queue_len_max.max(1),
            bytes_max: limits.queue_bytes_max / 2,
        };
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let half_open = HalfOpen::new(
            settings.half_open_max.min(settings.connections_max / 2),
            // The largest CONNECT still finds room, when it is the only one.
            settings.half_open_bytes_max.max(limits.packet_bytes_max),
        );
        Arc::new(Self {
            half_open,
            wills: Wills::new(settings.will_bytes_max),
            settings,
            limits: Arc::new(limits),
            ids,
            clients: Clients::new(bounds),
            routes,
            retained,
            bus: Box::new(Direct::new(Arc::new(Arc::new(dispatch)))),
            reads: Reads {
                hooks: Arc::clone(&hooks),
                tracker: tracker.clone(),
                stop: stop.clone(),
            },
            hooks,
            tracker,
            stop,
        })
    }

    /// Starts to accept connections. Answers the addresses, with the ports that were free where 0 was asked for.
    ///
    /// # Errors
    /// When an address cannot be bound; the error names it.
    pub async fn listen(self: &Arc<Self>) -> io::Result<Vec<Listening>> {
        let permits = Arc::new(Semaphore::new(
            self.settings.connections_max.min(Semaphore::MAX_PERMITS),
        ));
        let mut bound = Vec::new();
        let tcp = self.settings.listen.iter().map(|address| (Carrier::Tcp, address));
        let ws = self.settings.listen_ws.iter();
        for (carrier, address) in tcp.chain(ws.map(|address| (Carrier::WebSocket, address))) {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
            let address = listener.local_addr()?;
            bound.push(Listening { carrier, address });
            let permits = Arc::clone(&permits);
            self.tracker
                .spawn(listener::accept(Arc::clone(self), carrier, listener, permits));
        }
        self.tracker.spawn(absent::look_after(Arc::clone(self)));
        let sys_interval = self.settings.sys_interval;
        if !sys_interval.is_zero() {
            self.tracker.spawn(sys::publish_every(Arc::clone(self), sys_interval));
        }
        Ok(bound)
    }

    /// Hands a connection to its client's session, starting it where there is none.
    fn seat(self: &Arc<Self>, arrival: Box<Arrival>) {
        if let Some((id, mailbox)) = self.clients.hand_over(arrival) {
            self.tracker.spawn(Connection::new(Arc::clone(self), id, mailbox).run());
        }
    }

    /// The clock of message ids, to keep its mark across restarts.
    pub fn ids(&self) -> &IdClock {
        &self.ids
    }

    /// Brings the gauges up to date that are counted where they are asked for.
    pub fn measure(&self) {
        metrics::gauge!(telemetry::SESSIONS).set(self.clients.count() as f64);
        metrics::gauge!(telemetry::CONNECTIONS_HALF_OPEN).set(self.half_open.count() as f64);
        metrics::gauge!(telemetry::SUBSCRIPTIONS).set(self.routes.count() as f64);
    }

    /// Stops: nobody new is let in, wills are published, clients are told, sessions end. Answers whether all
    /// were done within `patience`.
    pub async fn drain(&self, patience: Duration) -> bool {
        self.stop.cancel();
        self.clients.tell_all(|| Item::ShutDown(patience / 2));
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
