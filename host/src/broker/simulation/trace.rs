//! What happened, line by line, where somebody wants to know.

use std::time::Duration;

/// The lines of a run; none are made where nobody wants them.
#[derive(Default)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            lines: wanted.then(Vec::new),
        }
    }

    pub(super) fn add(&mut self, now: Duration, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12.3} {}", now.as_secs_f64(), line()));
        }
    }

    pub(super) fn lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
