//! The sockets in front of the routes: a Unix socket in the data folder, a TCP address where one is configured.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// More would be a mistake or an attack: operators and scrapers need a handful.
const CONNECTIONS_MAX: usize = 64;
/// A request's line and headers; bodies are never read.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a connection may take for a request's head, and lie idle before the next one.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a request that runs when the host stops may still take.
const GRACE: Duration = Duration::from_secs(5);

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another host lives in this data folder.
    #[error("a hookline runs on {} already: stop it, or give this one another folder with --data", .0.display())]
    Taken(PathBuf),
    /// The Unix socket.
    #[error("cannot create the socket {}", path.display())]
    Socket {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The TCP address.
    #[error("admin.listen = {address}")]
    Tcp {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the socket of a host lies that runs on the data folder `data`.
pub fn socket_path(data: &Path) -> PathBuf {
    data.join("hookline.sock")
}

/// Open doors with nobody behind them yet: bound early, so that a mistake stops the start.
#[derive(Debug)]
pub struct Listeners {
    socket: UnixDoor,
    tcp: Option<TcpListener>,
}

impl Listeners {
    /// Binds the socket in `data`, for its owner alone, and `address`. A dead host's socket is replaced, a live one's
    /// is an error.
    pub async fn bind(data: &Path, address: Option<SocketAddr>) -> Result<Self, Error> {
        let socket = UnixDoor::bind(data).await?;
        let tcp = match address {
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .map_err(|source| Error::Tcp { address, source })?,
            ),
            None => None,
        };
        Ok(Self { socket, tcp })
    }

    /// Where the TCP door is, if there is one: port 0 in the configuration is any port.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref()?.local_addr().ok()
    }

    pub(super) fn into_parts(self) -> (UnixDoor, Option<TcpListener>) {
        (self.socket, self.tcp)
    }
}

/// A Unix socket that takes its file with it.
#[derive(Debug)]
pub(super) struct UnixDoor {
    listener: UnixListener,
    path: PathBuf,
}

impl UnixDoor {
    async fn bind(data: &Path) -> Result<Self, Error> {
        let path = socket_path(data);
        match UnixStream::connect(&path).await {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            // A full backlog is somebody, too.
            Ok(_) => return Err(Error::Taken(data.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Error::Taken(data.to_owned())),
            Err(source) => return Err(Error::Socket { path, source }),
        }
        // Renamed into place when it has its mode: nobody finds it open to all, and a dead host's socket just goes.
        let fresh = path.with_extension("new");
        let bound = || -> io::Result<UnixListener> {
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&fresh)?;
            std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
            std::fs::rename(&fresh, &path)?;
            Ok(listener)
        };
        match bound() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(Error::Socket { path, source }),
        }
    }
}

impl Drop for UnixDoor {
    fn drop(&mut self) {
        // Left behind, it would only be found dead by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Listener for UnixDoor {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Takes connections until `stop`, a task and a permit each.
pub(super) async fn accept<L: Listener>(
    mut listener: L,
    router: Router,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (listener.accept().await.0, permit)
        };
        let (stream, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => return,
        };
        let (router, stop) = (router.clone(), stop.clone());
        tracker.spawn(async move {
            let _permit = permit;
            converse(stream, router, stop).await;
        });
    }
}

/// Answers one connection's requests. Who breaks off or talks nonsense is their own loss, so nothing is logged.
async fn converse<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}
