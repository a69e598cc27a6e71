//! The `hookline` binary: arguments, telemetry, run, exit code.

fn main() {}
