//! The command line: one file a subcommand. Each ends in an answer or in a sentence and an exit status.

mod check;
mod client;
mod clients;
mod door;
mod format;
mod plugins;
mod properties;
mod publish;
mod sessions;
mod start;
mod store;
mod subscribe;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An MQTT broker that stores what it acknowledges.
#[derive(Debug, Parser)]
#[command(name = "hookline", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (what `hookline` alone does)
    Start(start::Args),
    /// Read the whole configuration and say what is wrong with it
    Check(start::Args),
    /// List, load, unload or reload the plugins of a running host
    Plugins(plugins::Args),
    /// Look after what a host stores: its state, a check, a backup
    Store(store::Args),
    /// Show who is connected to a running host, or close somebody's connection
    Clients(clients::Args),
    /// Show the sessions of a running host, their clients connected or not, or end one
    Sessions(sessions::Args),
    /// Publish a message, with mosquitto_pub's flags
    Pub(Box<publish::Args>),
    /// Subscribe and print what arrives, with mosquitto_sub's flags
    Sub(Box<subscribe::Args>),
}

impl Cli {
    /// Does what was asked; a failure is a line on stderr and an exit status.
    pub async fn run(self) -> ExitCode {
        let outcome = match self.command.unwrap_or_else(|| Command::Start(start::Args::default())) {
            Command::Start(args) => start::run(args).await,
            Command::Check(args) => check::run(args),
            Command::Plugins(args) => plugins::run(args).await,
            Command::Store(args) => store::run(args).await,
            Command::Clients(args) => clients::run(args).await,
            Command::Sessions(args) => sessions::run(args).await,
            Command::Pub(args) => publish::run(*args).await,
            Command::Sub(args) => subscribe::run(*args).await,
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                say(format_args!("hookline: {failure}"));
                ExitCode::from(failure.status)
            }
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    sentence: String,
    status: u8,
}

impl Failure {
    /// A failure with exit status 1.
    fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            status: 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// Prints lines to stdout. Somebody who stopped reading (`| head`) has read enough.
fn print(lines: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// Prints a host's answer as it came.
fn print_answer(answer: &[u8]) -> Result<(), Failure> {
    print(&format!("{}\n", String::from_utf8_lossy(answer)))
}

/// A line on stderr. Where that is closed there is nobody left to tell.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
