//! Programs of other people: where they are missing a test says so and is skipped, or fails under `TEST_REQUIRE`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use super::host::Host;
use super::log::Log;
use super::{Mqtt, within};

/// The path of a program. Where it is missing: `None`, and a line that names the test and the program.
pub fn tool(name: &str) -> Option<PathBuf> {
    // Debian keeps the daemons' folder out of an ordinary user's PATH.
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Says that the current test cannot be run here, and why; with `TEST_REQUIRE` that is a failure.
pub fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var_os("TEST_REQUIRE").is_none(), "TEST_REQUIRE is set and {why}");
    // Past the test runner's capture: a skipped test must be seen. Nobody can be told where stderr is closed.
    writeln!(io::stderr(), "skipped: {test}: {why}").ok();
}

/// A running `mosquitto_sub`.
pub struct MosquittoSub {
    child: Child,
    out: Log,
    read: usize,
}

impl MosquittoSub {
    /// Subscribes and waits until the host has acknowledged that. Prints `topic|qos|retain|payload`.
    pub async fn start(host: &Host, mqtt: Mqtt, arguments: &[&str]) -> Self {
        // Line by line: into a pipe it would say nothing until much has come together.
        let mut command = mosquitto(&["stdbuf", "-oL", "mosquitto_sub"], host, mqtt);
        // With -d it reports the SUBACK, on standard output among the messages.
        command.args(["-d", "-F", "message %t|%q|%r|%p"]).args(arguments);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let out = Log::follow(child.stdout.take().expect("it is piped"));
        let sub = Self { child, out, read: 0 };
        let subscribed = sub.out.line(0, |line| line.starts_with("Subscribed")).await;
        assert!(subscribed.is_some(), "{command:?} ended: {:?}", sub.out.lines());
        sub
    }

    /// The next message.
    pub async fn message(&mut self) -> String {
        let line = self.out.line(self.read, |line| line.starts_with("message ")).await;
        let (at, line) = line.unwrap_or_else(|| panic!("mosquitto_sub ended: {:?}", self.out.lines()));
        self.read = at + 1;
        line.trim_start_matches("message ").to_owned()
    }
}

impl Drop for MosquittoSub {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `mosquitto_pub` to its end: it has its acknowledgement, or complains.
pub async fn mosquitto_pub(host: &Host, mqtt: Mqtt, arguments: &[&str]) {
    let mut command = mosquitto(&["mosquitto_pub"], host, mqtt);
    command.args(arguments);
    let shown = format!("{command:?}");
    let (done, ended) = tokio::sync::oneshot::channel();
    thread::spawn(move || done.send(command.output()).ok());
    let output = within(&shown, ended).await.expect("the thread sends before it ends");
    let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{shown}: {} {said}",
        output.status
    );
}

fn mosquitto(words: &[&str], host: &Host, mqtt: Mqtt) -> Command {
    let (program, arguments) = words.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(arguments);
    let version = match mqtt {
        Mqtt::V311 => "mqttv311",
        Mqtt::V5 => "mqttv5",
    };
    command.args(["-h", "127.0.0.1", "-p", &host.port().to_string(), "-V", version]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
