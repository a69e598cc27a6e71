//! The README's transcripts are run from the README's own text, by bash.
//!
//! A transcript is a fenced `console` block. A line that starts with `$ ` is a command; the lines under it are what
//! it prints, `…` standing for anything. A command that ends in `&` goes on, and what it prints is waited for.
//! `hookline` and `cargo run --release` are the binary under test. The blocks under one heading are one session.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::host::without_settings;
use crate::harness::log::Log;
use crate::harness::repository;

/// A command and what it prints.
#[derive(Debug, PartialEq)]
struct Step {
    command: String,
    prints: Vec<String>,
}

#[tokio::test]
async fn the_readme_does_what_it_says() {
    let text = fs::read_to_string(repository().join("README.md")).expect("there is a README");
    let sessions = sessions(&text);
    assert!(!sessions.is_empty(), "the README shows something");
    for (heading, steps) in sessions {
        let mut shell = Shell::open();
        for step in steps {
            shell.run(&heading, &step).await;
        }
    }
}

#[test]
fn a_transcript_is_cut_out_of_its_heading() {
    let text = "# One\n```console\n$ a &\nready …\n```\n```sh\n$ no\n```\ntext\n```console\n$ b\n```\n## Two\n```console\n$ c\n1\n2\n```\n";
    let step = |command: &str, prints: &[&str]| Step {
        command: command.to_owned(),
        prints: prints.iter().map(|line| (*line).to_owned()).collect(),
    };
    let one = vec![step("a &", &["ready …"]), step("b", &[])];
    let two = vec![step("c", &["1", "2"])];
    assert_eq!(sessions(text), [("One".to_owned(), one), ("Two".to_owned(), two)]);
    assert!(matches("ready … 1883 …", "ready at 1883 now") && matches("x", "x"));
    assert!(!matches("ready … 1883", "ready at 1884") && !matches("x", "xy") && !matches("a…", "ba"));
}

fn sessions(text: &str) -> Vec<(String, Vec<Step>)> {
    let mut sessions: Vec<(String, Vec<Step>)> = Vec::new();
    let (mut heading, mut fence) = (String::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), fence) {
            (Some(_), Some(_)) => fence = None,
            (Some(language), None) => fence = Some(language),
            (None, None) if line.starts_with('#') => heading = line.trim_start_matches('#').trim().to_owned(),
            (None, Some("console")) => {
                if sessions.last().is_none_or(|(name, _)| *name != heading) {
                    sessions.push((heading.clone(), Vec::new()));
                }
                let (_, steps) = sessions.last_mut().expect("one has just been pushed");
                match (line.strip_prefix("$ "), steps.last_mut()) {
                    (Some(command), _) => steps.push(Step {
                        command: command.to_owned(),
                        prints: Vec::new(),
                    }),
                    (None, Some(step)) => step.prints.push(line.to_owned()),
                    (None, None) => panic!("{heading}: a transcript starts with a command, not {line:?}"),
                }
            }
            (None, _) => {}
        }
    }
    sessions
}

/// Whether a line is as promised, `…` standing for anything.
fn matches(promised: &str, line: &str) -> bool {
    let mut parts = promised.split('…');
    let first = parts.next().expect("a split has a first part");
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A bash in a folder that looks like a fresh checkout.
struct Shell {
    bash: Child,
    input: ChildStdin,
    out: Log,
    errors: Log,
    read: usize,
    _home: TempDir,
}

const DONE: &str = "--- the command is done ---";

impl Shell {
    fn open() -> Self {
        let home = TempDir::new().expect("a temporary folder");
        let bin = home.path().join("bin");
        fs::create_dir(&bin).expect("the temporary folder is ours");
        crate::harness::config::Changes::default().write(&home.path().join("etc"));
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command
            .args(["--norc", "--noprofile"])
            .current_dir(home.path())
            .env("PATH", path)
            .env("NO_COLOR", "1");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        without_settings(&mut command);
        let mut bash = command.spawn().expect("bash is installed");
        let out = Log::follow(bash.stdout.take().expect("it is piped"));
        let errors = Log::follow(bash.stderr.take().expect("it is piped"));
        let input = bash.stdin.take().expect("it is piped");
        let mut shell = Self {
            bash,
            input,
            out,
            errors,
            read: 0,
            _home: home,
        };
        // Job control, so that `%1` means what it means at a prompt.
        shell.type_in("set -m");
        // Bash writes these files. Were it us, a test that starts a process at that moment would hand it the open file,
        // and the system refuses to run what somebody has open for writing ("Text file busy").
        for (name, text) in stand_ins() {
            shell.type_in(&format!(
                "cat >bin/{name} <<'END OF FILE'\n{text}END OF FILE\nchmod +x bin/{name}"
            ));
        }
        shell
    }

    fn type_in(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("bash reads until it is told to exit");
    }

    async fn run(&mut self, heading: &str, step: &Step) {
        let command = &step.command;
        self.type_in(command);
        if !command.ends_with('&') {
            self.type_in(&format!("echo '{DONE}'"));
        }
        for promised in &step.prints {
            let line = self.line().await;
            assert!(
                matches(promised, &line),
                "README, {heading}:\n$ {command}\nprints    {line:?}\nand not   {promised:?}"
            );
        }
        if !command.ends_with('&') {
            let line = self.line().await;
            assert_eq!(line, DONE, "README, {heading}:\n$ {command}\nprints one line more");
        }
    }

    async fn line(&mut self) -> String {
        let (at, line) = self.out.line(self.read, |_| true).await.expect("bash goes on");
        self.read = at + 1;
        line
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("standard error so far:\n{}", self.errors.lines().join("\n"));
        }
        // What the transcript left running ends with it, in the background or not.
        let bash = self.bash.id();
        let children = fs::read_to_string(format!("/proc/{bash}/task/{bash}/children")).unwrap_or_default();
        // First bash, or it would go on with its next line. Whoever has ended by itself cannot be killed.
        self.bash.kill().ok();
        for child in children
            .split_whitespace()
            .filter_map(|child| Pid::from_raw(child.parse().ok()?))
        {
            kill_process(child, Signal::KILL).ok();
        }
        self.bash.wait().ok();
    }
}

/// A port that is free, and stays so while the transcript's broker is down: below those that the system gives to
/// clients, of which other tests have thousands.
fn free_port() -> u16 {
    let first = std::process::id() % 10_000;
    let mut ports = (0..10_000).map(|next| 20_000 + ((first + next) % 10_000) as u16);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(free).expect("a free port")
}

/// `hookline` and `cargo` for the transcript: the binary under test, on a port that is free.
fn stand_ins() -> [(&'static str, String); 2] {
    let port = free_port();
    let hookline = format!(
        r#"#!/bin/bash
case "${{1-start}}" in
    start) shift; exec '{binary}' start "$@" --set listener.tcp.external=127.0.0.1:{port} ;;
    pub|sub) verb=$1; shift; exec '{binary}' "$verb" -p {port} "$@" ;;
    *) exec '{binary}' "$@" ;;
esac
"#,
        binary = env!("CARGO_BIN_EXE_hookline"),
    );
    let cargo = r#"#!/bin/bash
[[ "$1 $2" == "run --release" ]] || { echo "the transcript may say cargo run --release, not cargo $*" >&2; exit 1; }
shift 2
[[ "${1-}" != "--" ]] || shift
exec hookline "$@"
"#;
    [("hookline", hookline), ("cargo", cargo.to_owned())]
}
