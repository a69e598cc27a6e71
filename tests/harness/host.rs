//! A real `hookline start` in folders of its own, on a port of its own.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::config::Changes;
use super::log::Log;

/// What a host is to be before it starts.
#[derive(Clone, Default)]
pub struct Plan {
    changes: Changes,
    under: Vec<String>,
    announced: Vec<String>,
    data: Option<PathBuf>,
}

impl Plan {
    /// Sets a configuration key.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.changes.set(key, value);
        self
    }

    /// Replaces the rules of the SQLite sample.
    pub fn rules(mut self, rules: &[(&str, &str)]) -> Self {
        self.changes.rules(rules);
        self
    }

    /// The seed's behaviour: a first subscription reads from the beginning, positions outlive sessions.
    pub fn earliest(self) -> Self {
        self.set("backend.sqlite.pool1.initial_position", "earliest")
            .set("backend.sqlite.pool1.respect_clean_session", "false")
    }

    /// Starts the host as the argument of this command (`strace -f …`).
    pub fn under<'a>(mut self, command: impl IntoIterator<Item = &'a str>) -> Self {
        self.under = command.into_iter().map(str::to_owned).collect();
        self
    }

    /// Uses this data folder.
    pub fn data(mut self, folder: PathBuf) -> Self {
        self.data = Some(folder);
        self
    }

    /// Expects warnings and errors that contain this text: they do not fail the test.
    pub fn announce(mut self, text: &str) -> Self {
        self.announced.push(text.to_owned());
        self
    }

    /// Starts it and waits for its ready line.
    pub async fn start(self) -> Host {
        let home = TempDir::new().expect("a temporary folder");
        self.changes.write(&home.path().join("etc"));
        let data = self.data.clone().unwrap_or_else(|| home.path().join("data"));
        fs::create_dir_all(&data).expect("a temporary folder is ours");
        let running = Running::start(&self, &home, &data).await;
        let announced = self.announced.clone();
        Host {
            running,
            home,
            data,
            plan: self,
            announced,
        }
    }
}

/// A running host, or one that has just ended.
pub struct Host {
    running: Running,
    home: TempDir,
    data: PathBuf,
    plan: Plan,
    announced: Vec<String>,
}

struct Running {
    child: Child,
    /// The host itself, where `child` is a tool around it.
    pid: Pid,
    stdout: Log,
    stderr: Log,
    ready: String,
    ended: Option<ExitStatus>,
}

impl Running {
    async fn start(plan: &Plan, home: &TempDir, data: &PathBuf) -> Self {
        let mut command = command(plan);
        command
            .arg("start")
            .arg("--etc")
            .arg(home.path().join("etc"))
            .arg("--data")
            .arg(data);
        command.args(plan.changes.arguments());
        command.current_dir(home.path()).env("NO_COLOR", "1");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Log::follow(child.stdout.take().expect("it is piped"));
        let mut stderr = Log::follow(child.stderr.take().expect("it is piped"));
        let Some((_, ready)) = stdout.line(0, |line| line.contains("ready")).await else {
            let ended = child.wait().expect("it is our child");
            panic!(
                "the host ended before it was ready: {ended}\n{}",
                stderr.all().join("\n")
            );
        };
        let pid = if plan.under.is_empty() {
            child.id()
        } else {
            only_child(child.id())
        };
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number");
        Self {
            child,
            pid,
            stdout,
            stderr,
            ready,
            ended: None,
        }
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended.is_none() {
            kill_process(self.pid, signal).expect("it is our child and has not been waited for");
        }
    }

    fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it is our child");
        *self.ended.get_or_insert(status)
    }
}

impl Host {
    /// A host to be changed before it starts.
    pub fn plan() -> Plan {
        Plan::default()
    }

    /// A host as shipped: it behaves like a plain MQTT broker.
    pub async fn start() -> Self {
        Self::plan().start().await
    }

    /// A host as the seed describes it.
    pub async fn earliest() -> Self {
        Self::plan().earliest().start().await
    }

    /// The line that says it is ready.
    pub fn ready(&self) -> &str {
        &self.running.ready
    }

    /// What it wrote to standard output.
    pub fn stdout(&self) -> Vec<String> {
        self.running.stdout.lines()
    }

    /// The port of its listener.
    pub fn port(&self) -> u16 {
        let (_, rest) = self
            .ready()
            .split_once("mqtt://")
            .expect("the ready line names the listener");
        let (_, rest) = rest.split_once(':').expect("a listener has a port");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a port")
    }

    /// Its process, for a look at what it uses.
    pub fn pid(&self) -> u32 {
        self.running.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.data.join("hookline.db")
    }

    /// From now on warnings and errors with this text do not fail the test.
    pub fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    /// Waits for a log line with this text since the last start, which is thereby announced.
    pub async fn logged(&mut self, text: &str) -> String {
        self.announce(text);
        let line = self.running.stderr.line(0, |line| line.contains(text)).await;
        line.unwrap_or_else(|| panic!("the host ended without saying {text:?}"))
            .1
    }

    /// The power goes: SIGKILL.
    pub async fn kill9(&mut self) {
        self.running.signal(Signal::KILL);
        self.running.stdout.end().await;
        self.running.wait();
    }

    /// SIGTERM; waits for the end and says how it ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.ended().await
    }

    /// SIGTERM without waiting.
    pub fn ask_to_end(&mut self) {
        self.running.signal(Signal::TERM);
    }

    /// Waits for the end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.running.stdout.end().await;
        self.running.wait()
    }

    /// Starts it again, on a new port; kills it first where it runs.
    pub async fn restart(&mut self) {
        self.kill9().await;
        self.judge();
        self.running = Running::start(&self.plan, &self.home, &self.data).await;
    }

    fn judge(&mut self) {
        let unannounced = |line: &String| is_alarm(line) && !self.announced.iter().any(|text| line.contains(text));
        let alarms: Vec<String> = self.running.stderr.all().into_iter().filter(unannounced).collect();
        assert!(
            alarms.is_empty(),
            "the host logged what the test did not announce:\n{}",
            alarms.join("\n")
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.running.signal(Signal::KILL);
        self.running.wait();
        if thread::panicking() {
            let lines = self.running.stderr.all();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            // Nobody can be told where standard error is closed.
            writeln!(io::stderr(), "--- the host's last words:\n{last}\n---").ok();
        } else {
            self.judge();
        }
    }
}

fn command(plan: &Plan) -> Command {
    let binary = env!("CARGO_BIN_EXE_hookline");
    let mut words = plan.under.iter().map(String::as_str).chain([binary]);
    let mut command = Command::new(words.next().expect("at least the binary"));
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    without_settings(&mut command);
    command
}

/// Takes away the variables that the broker would read as its settings, those for the tests among them.
pub fn without_settings(command: &mut Command) {
    let foreign = std::env::vars_os().map(|(key, _)| key);
    for key in foreign.filter(|key| key.to_string_lossy().starts_with("HOOKLINE_")) {
        command.env_remove(key);
    }
}

fn only_child(tool: u32) -> u32 {
    let file = format!("/proc/{tool}/task/{tool}/children");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("{file} names one process, not {text:?}"))
}

/// A warning, an error or a panic, whatever the format of the line is.
fn is_alarm(line: &str) -> bool {
    let level = line
        .split_whitespace()
        .take(3)
        .any(|word| matches!(word, "WARN" | "ERROR"));
    level || line.contains("panicked at")
}
