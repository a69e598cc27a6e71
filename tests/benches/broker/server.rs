//! The brokers as child processes: how each is set up, when it is ready, what CPU it has used. Killed when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;

/// How long a broker may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Both brokers: messages on their way to one subscriber.
const INFLIGHT: &str = "100";
/// Kernel ticks a second in /proc (USER_HZ), the same on every Linux that we run on.
const TICKS_PER_S: u64 = 100;

/// What a broker is told to do with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setup {
    /// Hookline without a plugin: nothing is stored.
    Hookline,
    /// Hookline as shipped: SQLite, a commit before every PUBACK.
    HooklineSqlite,
    /// mosquitto without persistence: nothing is stored.
    Mosquitto,
    /// mosquitto with persistence: the whole database is written anew after every 1000 changes.
    MosquittoAutosave,
    /// mosquitto with persistence as Debian ships it: written every 30 minutes and at the end.
    MosquittoPersistence,
}

impl Setup {
    /// What a row says beside the load.
    pub(crate) fn remark(self) -> &'static str {
        match self {
            Self::MosquittoAutosave => " (mosquitto saves every 1000)",
            Self::MosquittoPersistence => " (mosquitto saves every 30 min)",
            Self::Hookline | Self::HooklineSqlite | Self::Mosquitto => "",
        }
    }
}

/// A running broker.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    _home: TempDir,
}

impl Server {
    /// Starts a broker on a port of its own, with folders of its own.
    pub(crate) fn start(setup: Setup) -> Result<Self> {
        let home = TempDir::new()?;
        let log = home.path().join("log");
        match setup {
            Setup::Hookline | Setup::HooklineSqlite => {
                let mut command = hookline(home.path(), setup)?;
                let mut child = command.stdout(Stdio::piped()).stderr(File::create(&log)?).spawn()?;
                let output = child.stdout.take().context("it is piped")?;
                let mut server = Self {
                    child,
                    address: (Ipv4Addr::LOCALHOST, 0).into(),
                    _home: home,
                };
                let ready = wait_for("ready", output).with_context(|| fs::read_to_string(log).unwrap_or_default())?;
                server.address = address(&ready).with_context(|| format!("no listener in {ready:?}"))?;
                Ok(server)
            }
            _ => {
                let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
                let mut command = mosquitto_on(address, home.path(), setup)?;
                let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
                let output = child.stderr.take().context("it is piped")?;
                let server = Self {
                    child,
                    address,
                    _home: home,
                };
                wait_for("running", output)?;
                Ok(server)
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resident memory of the process in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.context("a process has a resident size")? * 1024)
    }

    /// User and system time of the process since its start.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process_cpu(&self.child.id().to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, and waiting is all that is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hookline(home: &Path, setup: Setup) -> Result<Command> {
    let data = home.join("data");
    fs::create_dir(&data)?;
    if setup == Setup::Hookline {
        File::create(data.join("loaded_plugins"))?;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookline"));
    command
        .arg("start")
        .arg("--etc")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../etc"))
        .arg("--data")
        .arg(data);
    for setting in [
        "listener.tcp.external=127.0.0.1:0",
        &format!("zone.external.max_inflight={INFLIGHT}"),
        "zone.external.max_mqueue_len=1000000",
        "zone.external.max_mqueue_bytes=1GB",
    ] {
        command.arg("--set").arg(setting);
    }
    let settings = std::env::vars().map(|(name, _)| name);
    for name in settings.filter(|name| name.starts_with("HOOKLINE_") || name.starts_with("EMQX_")) {
        command.env_remove(name);
    }
    Ok(command)
}

fn mosquitto_on(address: SocketAddr, home: &Path, setup: Setup) -> Result<Command> {
    let persistence = match setup {
        Setup::MosquittoAutosave => "persistence true\nautosave_on_changes true\nautosave_interval 1000\n",
        Setup::MosquittoPersistence => "persistence true\n",
        _ => "persistence false\n",
    };
    let config = home.join("mosquitto.conf");
    let lines = format!(
        "user root\nlistener {} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nlog_type error\nlog_type warning\n\
         log_type information\nconnection_messages false\nmax_inflight_messages {INFLIGHT}\nmax_queued_messages 0\n\
         {persistence}persistence_location {}/\n",
        address.port(),
        home.display()
    );
    fs::write(&config, lines)?;
    let mut command = Command::new(mosquitto().context("mosquitto is not installed")?);
    command.arg("-c").arg(config);
    Ok(command)
}

/// The installed mosquitto; Debian puts it where the PATH of a user does not reach.
pub(crate) fn mosquitto() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
        .map(|folder| folder.join("mosquitto"))
        .find(|file| file.is_file())
}

/// Reads a child's output until a line contains `word`. Goes on reading, so that the child is never blocked.
fn wait_for(word: &'static str, output: impl Read + Send + 'static) -> Result<String> {
    let (found, line) = mpsc::sync_channel(1);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains(word) {
                // Only the first one is waited for.
                let _ = found.try_send(line);
            }
        }
    });
    line.recv_timeout(PATIENCE)
        .map_err(|_| anyhow!("it ended or was silent for {PATIENCE:?} without saying {word:?}"))
}

fn address(ready: &str) -> Option<SocketAddr> {
    let (_, rest) = ready.split_once("mqtt://")?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// User and system time of a process: fields 14 and 15 of its stat, counted behind the name, which may hold anything.
pub(crate) fn process_cpu(process: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat line has a name in brackets")?;
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(from_ticks(ticks))
}

/// Time that the whole machine has worked since its start, and time that its host took away.
pub(crate) fn machine_cpu() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat
        .lines()
        .next()
        .context("the first line of /proc/stat sums up all processors")?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // user nice system, not idle and iowait, then irq softirq steal.
    let busy = fields.iter().take(8).sum::<u64>() - fields.iter().skip(3).take(2).sum::<u64>();
    Ok(from_ticks(busy))
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}
