//! The operator's door and `hookline plugins`, which knocks at it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use async_trait::async_trait;
use hookline::admin::clients::{ClientPage, Clients};
use hookline::admin::store::{StoreStatus, Stores};
use hookline::admin::{self, Control, Error, Health, Listeners, Phase, Plugin, PoolHealth, PoolState, socket_path};
use hookline::model::report::SessionReport;
use hookline::store::backup::{Backup, Wanted};
use hookline::store::upkeep::Watch;
use hookline::telemetry;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::harness::host::Host;

/// A host that is nothing but its plugins.
struct Plugins {
    active: Mutex<BTreeMap<&'static str, bool>>,
    health: Mutex<Health>,
    /// Reloads of `emqx_backend_slow` wait here.
    gate: Notify,
    entered: Notify,
    reloads: Mutex<Vec<String>>,
}

impl Plugins {
    fn set(&self, name: &str, to: bool) -> Result<String, String> {
        match self.active.lock().get_mut(name) {
            None => Err(format!("{name}: there is no such plugin; there is emqx_backend_sqlite")),
            Some(active) if *active == to => Err(format!(
                "{name}: it is {} already",
                if to { "loaded" } else { "unloaded" }
            )),
            Some(active) => {
                *active = to;
                Ok(String::new())
            }
        }
    }
}

#[async_trait]
impl Control for Plugins {
    async fn plugins(&self) -> Vec<Plugin> {
        let plugin = |(name, active): (&&str, &bool)| Plugin {
            name: (*name).to_owned(),
            description: "Hookline Backend".to_owned(),
            active: *active,
            rules: 0,
        };
        self.active.lock().iter().map(plugin).collect()
    }

    async fn load(&self, name: &str) -> Result<String, String> {
        self.set(name, true)
    }

    async fn unload(&self, name: &str) -> Result<String, String> {
        self.set(name, false)
    }

    async fn reload(&self, name: &str) -> Result<String, String> {
        if name == "emqx_backend_slow" {
            self.entered.notify_one();
            self.gate.notified().await;
        }
        self.reloads.lock().push(name.to_owned());
        self.entered.notify_one();
        Ok("2 messages were refused".to_owned())
    }

    async fn health(&self) -> Health {
        self.health.lock().clone()
    }

    fn stores(&self) -> &dyn Stores {
        self
    }
}

/// It stores nothing.
#[async_trait]
impl Stores for Plugins {
    async fn status(&self) -> Vec<StoreStatus> {
        Vec::new()
    }

    async fn check(&self, _: Option<String>, _: bool, _: Arc<Watch>) -> Result<Vec<String>, String> {
        Err("no plugin with a pool is loaded".to_owned())
    }

    async fn backup(&self, _: Option<String>, _: Wanted, _: Arc<Watch>) -> Result<Backup, String> {
        Err("no plugin with a pool is loaded".to_owned())
    }
}

/// A broker without clients.
struct Nobody;

#[async_trait]
impl Clients for Nobody {
    async fn list(&self, _: Option<&str>, _: usize) -> ClientPage {
        ClientPage::default()
    }

    async fn show(&self, _: &str) -> Result<Option<SessionReport>, String> {
        Ok(None)
    }

    async fn kick(&self, _: &str) -> Result<bool, String> {
        Ok(false)
    }

    async fn sessions(&self, _: Option<&str>, _: usize) -> Result<ClientPage, String> {
        Ok(ClientPage::default())
    }

    async fn session(&self, _: &str) -> Result<Option<SessionReport>, String> {
        Ok(None)
    }

    async fn delete(&self, _: &str) -> Result<bool, String> {
        Ok(false)
    }
}

/// A door on a folder of its own, with [`Plugins`] behind it.
struct Door {
    data: TempDir,
    tcp: String,
    plugins: Arc<Plugins>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Door {
    async fn open() -> Self {
        let data = tempfile::tempdir().unwrap();
        let listeners = Listeners::bind(data.path(), Some("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap();
        let tcp = listeners.tcp_address().unwrap().to_string();
        let plugins = Arc::new(Plugins {
            active: Mutex::new(BTreeMap::from([
                ("emqx_backend_redis", false),
                ("emqx_backend_sqlite", true),
            ])),
            health: Mutex::new(Health {
                phase: Phase::Ready,
                pools: Vec::new(),
            }),
            gate: Notify::new(),
            entered: Notify::new(),
            reloads: Mutex::default(),
        });
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        admin::serve(
            listeners,
            plugins.clone(),
            Arc::new(Nobody),
            telemetry::init_metrics().unwrap(),
            &tracker,
            &stop,
        );
        Self {
            data,
            tcp,
            plugins,
            tracker,
            stop,
        }
    }

    async fn close(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    async fn plugins(&self, arguments: &str) -> Output {
        hookline_plugins(self.data.path(), arguments).await
    }

    async fn get(&self, path: &str) -> String {
        let (address, request) = (self.tcp.clone(), request("GET", path));
        spawn_blocking(move || exchange(TcpStream::connect(address).unwrap(), &request))
            .await
            .unwrap()
    }
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: hookline\r\nConnection: close\r\n\r\n")
}

fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

async fn hookline_plugins(data: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline"));
    command
        .arg("plugins")
        .args(arguments.split_whitespace())
        .arg("--data")
        .arg(data);
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn plugins_are_changed_and_listed_in_emqx_words() {
    let door = Door::open().await;
    for (arguments, expected) in [
        (
            "load emqx_backend_redis",
            "Plugin emqx_backend_redis loaded successfully.\n",
        ),
        (
            "unload emqx_backend_sqlite",
            "Plugin emqx_backend_sqlite unloaded successfully.\n",
        ),
        (
            "reload emqx_backend_sqlite",
            "Plugin emqx_backend_sqlite reloaded successfully.\n2 messages were refused\n",
        ),
        (
            "list",
            concat!(
                "Plugin(emqx_backend_redis, version=0.1.0, description=Hookline Backend, active=true)\n",
                "Plugin(emqx_backend_sqlite, version=0.1.0, description=Hookline Backend, active=false)\n",
            ),
        ),
    ] {
        let output = door.plugins(arguments).await;
        assert_eq!(text(&output.stdout), expected, "{arguments}: {}", text(&output.stderr));
        assert!(output.status.success(), "{arguments}");
    }
}

#[tokio::test]
async fn a_plugin_that_cannot_be_changed_is_exit_status_1_and_the_hosts_reason() {
    let door = Door::open().await;
    for (arguments, expected) in [
        (
            "load emqx_backend_sqlite",
            "hookline: emqx_backend_sqlite: it is loaded already\n",
        ),
        (
            "unload emqx_backend_x",
            "hookline: emqx_backend_x: there is no such plugin; there is emqx_backend_sqlite\n",
        ),
    ] {
        let output = door.plugins(arguments).await;
        assert_eq!(
            (text(&output.stderr), output.status.code()),
            (expected, Some(1)),
            "{arguments}"
        );
        assert!(output.stdout.is_empty(), "{arguments}");
    }
}

#[tokio::test]
async fn without_a_host_the_command_says_how_to_start_one() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().display().to_string();
    let expected = format!("hookline: no hookline runs on {folder}: start it with `hookline start --data {folder}`\n");
    let output = hookline_plugins(data.path(), "list").await;
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        (expected.as_str(), Some(1)),
        "no socket"
    );

    drop(std::os::unix::net::UnixListener::bind(socket_path(data.path())).unwrap());
    let output = hookline_plugins(data.path(), "list").await;
    assert_eq!(
        (text(&output.stderr), output.status.code()),
        (expected.as_str(), Some(1)),
        "a dead host's socket"
    );
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_with_the_host() {
    let door = Door::open().await;
    let path = socket_path(door.data.path());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    door.close().await;
    let left: Vec<_> = std::fs::read_dir(door.data.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_dead_hosts_socket_is_replaced_and_a_live_ones_is_not() {
    let data = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(socket_path(data.path())).unwrap());
    let alive = Listeners::bind(data.path(), None)
        .await
        .expect("nobody answers on the old one");

    let error = Listeners::bind(data.path(), None).await.expect_err("somebody listens");
    assert!(matches!(error, Error::Taken(_)), "{error}");
    let folder = data.path().display();
    assert!(
        error
            .to_string()
            .starts_with(&format!("a hookline runs on {folder} already: ")),
        "{error}"
    );
    UnixStream::connect(socket_path(data.path())).expect("the live one was left alone");
    drop(alive);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let data = tempfile::tempdir().unwrap();
    let error = Listeners::bind(data.path(), Some(address)).await.expect_err("taken");
    let told = format!("{:#}", anyhow::Error::from(error));
    let reason = told
        .strip_prefix(&format!("admin.listen = {address}: "))
        .expect("the key is named");
    assert_eq!(reason.matches("in use").count(), 1, "said once: {told}");
    assert!(
        !socket_path(data.path()).exists(),
        "a host that does not start leaves no socket"
    );
}

#[tokio::test]
async fn over_tcp_there_are_figures_but_no_plugins() {
    let door = Door::open().await;
    metrics::gauge!(telemetry::SESSIONS).set(7.0);
    let answer = door.get("/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("# HELP sessions Sessions in memory") && answer.contains("\nsessions 7\n"),
        "{answer}"
    );
    for (method, path) in [("GET", "/plugins"), ("POST", "/plugins/emqx_backend_sqlite/unload")] {
        let (address, request) = (door.tcp.clone(), request(method, path));
        let answer = spawn_blocking(move || exchange(TcpStream::connect(address).unwrap(), &request))
            .await
            .unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("hookline.sock"),
            "{answer}"
        );
    }
    assert!(door.plugins.active.lock()["emqx_backend_sqlite"]);
}

#[tokio::test]
async fn health_tells_a_load_balancer_and_an_operator() {
    let door = Door::open().await;
    let pool = |state, waiting, error: Option<&str>| PoolHealth {
        name: "sqlite.pool1".to_owned(),
        state,
        waiting,
        error: error.map(str::to_owned),
    };
    let up = pool(PoolState::Up, 0, None);
    let down = pool(PoolState::Down, 12, Some("database is locked"));
    let up_text = r#"{"name":"sqlite.pool1","state":"up","waiting":0}"#;
    let down_text = r#"{"name":"sqlite.pool1","state":"down","waiting":12,"error":"database is locked"}"#;
    for (phase, pool, code, status, pool_text) in [
        (Phase::Starting, &up, "503", "starting", up_text),
        (Phase::Ready, &up, "200", "ready", up_text),
        (Phase::Ready, &down, "200", "degraded", down_text),
        (Phase::Draining, &up, "503", "draining", up_text),
    ] {
        *door.plugins.health.lock() = Health {
            phase,
            pools: vec![pool.clone()],
        };
        let answer = door.get("/health").await;
        let expected = format!(r#"{{"status":"{status}","pools":[{pool_text}]}}"#);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")) && answer.ends_with(&expected),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_reload_goes_on_when_its_caller_goes_away() {
    let door = Door::open().await;
    let mut caller = UnixStream::connect(socket_path(door.data.path())).unwrap();
    caller
        .write_all(request("POST", "/plugins/emqx_backend_slow/reload").as_bytes())
        .unwrap();
    door.plugins.entered.notified().await;
    drop(caller);
    door.plugins.gate.notify_one();
    door.plugins.entered.notified().await;
    assert_eq!(*door.plugins.reloads.lock(), ["emqx_backend_slow"]);
}

#[tokio::test]
async fn a_caller_who_says_nothing_does_not_hold_up_the_end() {
    let door = Door::open().await;
    let mut idle = TcpStream::connect(&door.tcp).unwrap();
    // Answered on the same door, so the idle connection has been accepted before it.
    door.get("/health").await;
    door.close().await;
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "closed");
}

#[tokio::test]
async fn an_unload_that_cannot_be_remembered_says_so_and_closes_its_database_all_the_same() {
    let host = Host::start().await;
    std::fs::create_dir(host.data().join("loaded_plugins.new")).unwrap();
    let output = hookline_plugins(&host.data(), "unload emqx_backend_sqlite").await;
    let told = text(&output.stderr);
    assert!(told.contains("done, but the next start will not know"), "{told}");
    assert_eq!(output.status.code(), Some(1));
    let wal = host.data().join("hookline.db-wal");
    assert!(!wal.exists(), "the last connection takes the write-ahead log with it");
}
