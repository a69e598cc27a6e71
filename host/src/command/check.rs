//! `hookline check`: reads the whole configuration and says what is wrong with it.

use crate::app;

use super::{Failure, print, start};

/// Prints every error and warning; fails where a host would not start.
pub(super) fn run(args: start::Args) -> Result<(), Failure> {
    let problems = app::check(&args.options()?);
    let lines: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
    print(&lines)?;
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    match errors {
        0 => print(&format!("the configuration is good ({} warnings)\n", problems.len())),
        _ => Err(Failure::new(format!("{errors} errors: a host would not start"))),
    }
}
