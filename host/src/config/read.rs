//! Files to settings: lines, includes, line ends, encodings. Nothing here stops at a mistake; each is
//! noted with its line and the rest is read on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::line::{self, Line};
use super::problem::{Origin, Problem};

/// One setting as it was written.
pub(super) struct Entry {
    pub(super) value: String,
    pub(super) origin: Origin,
    pub(super) column: u32,
    pub(super) used: bool,
    pub(super) lenient: bool,
}

/// What the files say.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) problems: Vec<Problem>,
}

/// A file that includes itself ends here.
const INCLUDE_DEPTH_MAX: usize = 8;
/// More than any configuration; less than what hurts when somebody names the wrong file.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Lines {
    /// Reads `file` and what it includes.
    pub(super) fn read(&mut self, file: &Path) {
        if let Err(error) = self.read_nested(file, 0) {
            let text = match error.kind() {
                ErrorKind::NotFound => "is not there: make it, or name its folder with --etc".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            let origin = Origin::whole(file.to_string_lossy());
            self.problems.push(Problem::error(origin, text));
        }
    }

    fn read_nested(&mut self, file: &Path, depth: usize) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let text = format!("more than {FILE_BYTES_MAX} bytes are no configuration");
            return Err(std::io::Error::other(text));
        }
        let name: std::sync::Arc<str> = file.to_string_lossy().into();
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            self.take(file, &Origin::new(name.clone(), number), line, depth);
        }
        Ok(())
    }

    fn take(&mut self, file: &Path, origin: &Origin, line: &[u8], depth: usize) {
        let Ok(text) = std::str::from_utf8(line) else {
            return self.error(origin, "is not UTF-8; save the file in that encoding");
        };
        match line::parse(text) {
            Err(error) => self.error(origin, error),
            Ok(Line::Nothing) => {}
            Ok(Line::Include(path)) => self.include(file, origin, path, depth),
            Ok(Line::Setting { key, value, column }) => self.insert(key, value, origin, column),
        }
    }

    fn include(&mut self, file: &Path, origin: &Origin, path: &str, depth: usize) {
        if depth == INCLUDE_DEPTH_MAX {
            let text = format!("include {path}: more than {INCLUDE_DEPTH_MAX} files deep; does a file include itself?");
            return self.error(origin, text);
        }
        let path = file.parent().unwrap_or(Path::new("")).join(path);
        if let Err(error) = self.read_nested(&path, depth + 1) {
            self.error(origin, format!("include {}: {error}", path.display()));
        }
    }

    fn insert(&mut self, key: &str, value: &str, origin: &Origin, column: u32) {
        if value.is_empty() {
            self.entries.remove(key);
            let text = format!("{key} has no value and counts as not set; delete the line or write one");
            return self.problems.push(Problem::warning(origin.clone(), text));
        }
        let entry = Entry {
            value: value.to_owned(),
            origin: origin.clone(),
            column,
            used: false,
            lenient: false,
        };
        if let Some(earlier) = self.entries.insert(key.to_owned(), entry) {
            let text = format!("{key} is set twice; this line wins over {}", earlier.origin);
            self.problems.push(Problem::warning(origin.clone(), text));
        }
    }

    fn error(&mut self, origin: &Origin, text: impl Into<String>) {
        self.problems.push(Problem::error(origin.clone(), text));
    }
}
