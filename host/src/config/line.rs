//! The grammar of one line (spec A1): `key = value` without quotes, escapes or trailing comments. It
//! knows nothing of what a key means.

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Nothing: blank, a comment, or a `{{placeholder}}` that a packager forgot.
    Nothing,
    /// `include <path>`.
    Include(&'a str),
    /// `key = value`.
    Setting {
        /// Words joined by dots; `\.` is a dot within a word.
        key: &'a str,
        /// Everything behind the `=` but the blanks around it; may be empty.
        value: &'a str,
        /// The column at which the value begins, counted in characters from 1.
        column: u32,
    },
}

/// Takes a line apart; an error says what to write instead.
pub(super) fn parse(line: &str) -> Result<Line<'_>, String> {
    let text = line.trim_matches(BLANK);
    if text.is_empty() || text.starts_with('#') || (text.starts_with("{{") && text.ends_with("}}")) {
        return Ok(Line::Nothing);
    }
    if let Some(path) = included(text) {
        return Ok(Line::Include(path));
    }
    let Some((key, _)) = text.split_once('=') else {
        return Err(
            "a line is `key = value`, a comment that starts with #, or `include <file>`; \
                    there is no = here"
                .to_owned(),
        );
    };
    let key = key.trim_matches(BLANK);
    check_key(key)?;
    let equals = line.find('=').map_or(line.len(), |at| at + 1);
    let value = line[equals..].trim_start_matches(BLANK);
    let column = line[..line.len() - value.len()].chars().count() + 1;
    Ok(Line::Setting {
        key,
        value: value.trim_end_matches(BLANK),
        column: u32::try_from(column).unwrap_or(u32::MAX),
    })
}

/// The words of a key: `a.b\.c` has two.
pub fn words(key: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(key);
    std::iter::from_fn(move || {
        let text = rest?;
        let dot = text
            .bytes()
            .enumerate()
            .position(|(at, byte)| byte == b'.' && (at == 0 || text.as_bytes()[at - 1] != b'\\'));
        rest = dot.map(|at| &text[at + 1..]);
        Some(dot.map_or(text, |at| &text[..at]))
    })
}

/// Whether this can be a key; an error says why not.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    let bad = |c: &char| !(c.is_ascii_alphanumeric() || "_-@/:.\\".contains(*c));
    if let Some(c) = key.chars().find(bad) {
        return Err(format!(
            "{c:?} cannot be part of a key; a key is words of letters, digits, _ and -, joined by dots"
        ));
    }
    if words(key).any(str::is_empty) {
        return Err("a word is missing in the key; it is words joined by single dots: `node.name = …`".to_owned());
    }
    Ok(())
}

const BLANK: [char; 3] = [' ', '\t', '\r'];

fn included(text: &str) -> Option<&str> {
    let path = text.strip_prefix("include")?;
    let trimmed = path.trim_start_matches(BLANK);
    (trimmed.len() < path.len() && !trimmed.starts_with('=')).then_some(trimmed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting<'a>(key: &'a str, value: &'a str, column: u32) -> Line<'a> {
        Line::Setting { key, value, column }
    }

    #[test]
    fn a_line_means_what_cuttlefish_took_it_for() {
        for (line, expected) in [
            ("", Line::Nothing),
            (" \t ", Line::Nothing),
            ("# a = b", Line::Nothing),
            ("  ## a = b", Line::Nothing),
            ("{{placeholder}}", Line::Nothing),
            ("a = b", setting("a", "b", 5)),
            ("a=b", setting("a", "b", 3)),
            ("\ta.b-c_d =\t b  \r", setting("a.b-c_d", "b", 13)),
            ("a = b = c", setting("a", "b = c", 5)),
            ("a = b # c", setting("a", "b # c", 5)),
            (r##"a = {"topic": "#"}"##, setting("a", r##"{"topic": "#"}"##, 5)),
            (r"a\.b.c = 1", setting(r"a\.b.c", "1", 10)),
            ("a@b:c/d = 1", setting("a@b:c/d", "1", 11)),
            ("a.1= x", setting("a.1", "x", 6)),
            ("a =", setting("a", "", 4)),
            ("a = é", setting("a", "é", 5)),
            ("include more.conf", Line::Include("more.conf")),
            ("include = 1", setting("include", "1", 11)),
            ("included = 1", setting("included", "1", 12)),
        ] {
            assert_eq!(parse(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_setting_is_told() {
        for (line, part) in [
            ("nonsense", "there is no ="),
            ("a b = c", "' ' cannot be part of a key"),
            ("a..b = c", "a word is missing"),
            (".a = c", "a word is missing"),
            ("a. = c", "a word is missing"),
            ("= c", "a word is missing"),
            ("ä = c", "'ä' cannot be part of a key"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }

    #[test]
    fn an_escaped_dot_joins_what_it_stands_between() {
        assert_eq!(words(r"a.b\.c.d").collect::<Vec<_>>(), ["a", r"b\.c", "d"]);
        assert_eq!(words("a").collect::<Vec<_>>(), ["a"]);
    }
}
