//! The `hookline` binary: arguments, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use hookline::command::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
