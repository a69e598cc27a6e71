//! What is wrong with a configuration, and where: one line a problem, for `hookline check` and the log.

use std::fmt;
use std::sync::Arc;

/// Where a setting comes from: a line of a file, an environment variable, or `--set`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as it was named, the environment variable, or `--set`.
    pub file: Arc<str>,
    /// The line in it, counted from 1; 0 where there are no lines.
    pub line: u32,
}

/// Whether the host starts all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It starts; somebody should look.
    Warning,
    /// It does not start.
    Error,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub origin: Origin,
    /// What is wrong, and what to write instead. Never a secret.
    pub text: String,
}

impl Origin {
    /// Line `line` of `file`.
    pub fn new(file: impl Into<Arc<str>>, line: u32) -> Self {
        Self {
            file: file.into(),
            line,
        }
    }

    /// Something that has no lines.
    pub fn whole(file: impl Into<Arc<str>>) -> Self {
        Self::new(file, 0)
    }
}

impl Problem {
    /// The host does not start with this.
    pub fn error(origin: Origin, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            origin,
            text: text.into(),
        }
    }

    /// The host starts with this.
    pub fn warning(origin: Origin, text: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            origin,
            text: text.into(),
        }
    }

    /// Whether the host would not start.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.text)
    }
}

/// The names nearest to `wrong`, best first, at most three, none that is not alike at all.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(score, _)| *score > 0.6)
        .collect();
    ranked.sort_by(|(left, a), (right, b)| right.total_cmp(left).then_with(|| a.cmp(b)));
    ranked.dedup_by(|(_, a), (_, b)| a == b);
    ranked.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `a`, `a or b`, `a, b or c`.
pub fn alternatives<T: AsRef<str>>(names: &[T]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}
