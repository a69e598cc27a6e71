//! The `hookline` binary: arguments, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use hookline::command::Cli;

/// glibc keeps what a burst needed for as long as one small thing above it lives; this one gives it back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Unused pages go back to the system within a second, also when nothing follows a burst.
#[allow(unsafe_code, reason = "the allocator looks for its options under this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_OPTIONS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
