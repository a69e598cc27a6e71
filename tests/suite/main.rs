//! One binary of everything that needs a running host, a socket, a database or somebody else's program.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; clippy spares test functions, not their helpers"
)]
#![allow(clippy::print_stderr, reason = "a skipped test says its name")]
#![allow(clippy::print_stdout, reason = "a measured story says its figures")]
#![allow(unreachable_pub, reason = "a test binary exports nothing")]

#[path = "../harness/mod.rs"]
mod harness;

mod admin;
mod aliases;
mod architecture;
mod clients;
mod config;
mod conformance;
mod crash;
mod equal;
mod fault;
mod fuzz;
mod gate;
mod hostile;
mod kept;
mod limits;
mod lookup;
mod mqtt31;
mod offline;
mod operator;
mod publish;
mod readme;
mod retain;
mod retention;
mod sessions;
mod shares;
mod shutdown;
mod store;
mod store_commands;
mod sync;
mod sys;
mod tools;
mod websocket;
mod wills;
mod words;
