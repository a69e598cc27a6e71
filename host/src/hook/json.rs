//! A rule's JSON, read as strictly as JSON is, but for two slips that are out there in people's files
//! (spec A4): the opening quote missing before `action":`, and a trailing comma.

use serde_json::Value;

/// A value, and what was forgiven.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) value: Value,
    pub(super) forgiven: Vec<String>,
}

/// Reads a text that begins at this column of its line; an error names the column.
pub(super) fn parse(text: &str, column: u32) -> Result<Json, String> {
    let strict = match serde_json::from_str(text) {
        Ok(value) => {
            return Ok(Json {
                value,
                forgiven: Vec::new(),
            });
        }
        Err(error) => error,
    };
    let repaired = Repaired::new(text);
    if repaired.slips.is_empty() {
        return Err(told(&strict, text, strict.column(), column));
    }
    let value = serde_json::from_str(&repaired.text);
    let value = value.map_err(|error| told(&error, text, repaired.original(error.column()), column))?;
    let forgiven = repaired.slips.iter().map(|slip| {
        let at = characters(text, slip.at) + column as usize;
        format!("column {at}: {}", slip.text)
    });
    Ok(Json {
        value,
        forgiven: forgiven.collect(),
    })
}

struct Repaired {
    text: String,
    slips: Vec<Slip>,
}

struct Slip {
    /// The offset in the original.
    at: usize,
    text: &'static str,
    /// What the repair did to the length.
    shift: isize,
}

const UNQUOTED: &str = "action\":";

impl Repaired {
    fn new(original: &str) -> Self {
        let mut repaired = Self {
            text: String::with_capacity(original.len() + 1),
            slips: Vec::new(),
        };
        let mut in_string = false;
        let mut escaped = false;
        let mut previous = ' ';
        for (at, c) in original.char_indices() {
            let rest = &original[at..];
            if in_string {
                in_string = escaped || c != '"';
                escaped = !escaped && c == '\\';
            } else if matches!(previous, '{' | ',') && rest.starts_with(UNQUOTED) {
                repaired.slip(at, "the quote before action\": is missing; write \"action\":", 1);
                repaired.text.push('"');
                in_string = true;
            } else if c == ',' && rest[1..].trim_start().starts_with(['}', ']']) {
                repaired.slip(at, "a comma before a closing bracket; delete it", -1);
                continue;
            } else {
                in_string = c == '"';
            }
            if !c.is_whitespace() {
                previous = c;
            }
            repaired.text.push(c);
        }
        repaired
    }

    fn slip(&mut self, at: usize, text: &'static str, shift: isize) {
        self.slips.push(Slip { at, text, shift });
    }

    /// The column in the original of a column in the repaired text, both counted in bytes from 1.
    fn original(&self, column: usize) -> usize {
        let column = column as isize;
        let mut shift = 0;
        for slip in &self.slips {
            let at = slip.at as isize + 1 + shift;
            // A character that was put in stands at its place, one that was taken out before it.
            if column < at + isize::from(slip.shift > 0) {
                break;
            }
            shift += slip.shift;
        }
        usize::try_from(column - shift).unwrap_or_default()
    }
}

fn told(error: &serde_json::Error, text: &str, byte: usize, column: u32) -> String {
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    let what = what.replace("EOF while parsing", "the line ends within");
    let at = characters(text, byte.saturating_sub(1)) + column as usize;
    format!(
        "column {at}: {what}; a rule is one line of JSON: {{\"topic\": \"#\", \"action\": {{…}}, \"pool\": \"pool1\"}}"
    )
}

/// How many characters lie before this byte.
fn characters(text: &str, byte: usize) -> usize {
    text.char_indices().take_while(|(at, _)| *at < byte).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_slips_are_forgiven() {
        for (text, repaired, slips) in [
            (r#"{"a": 1}"#, r#"{"a": 1}"#, 0),
            (
                r##"{"topic": "#", action": {"x": 1}}"##,
                r##"{"topic": "#", "action": {"x": 1}}"##,
                1,
            ),
            (r#"{action": 1}"#, r#"{"action": 1}"#, 1),
            (r#"{"a": [1, 2 , ], }"#, r#"{"a": [1, 2]}"#, 2),
            (r#"{"a": ",}",}"#, r#"{"a": ",}"}"#, 1),
            (r#"{"a\"": ",]", action": 1,}"#, r#"{"a\"": ",]", "action": 1}"#, 2),
        ] {
            let json = parse(text, 1).unwrap();
            assert_eq!(json.value, serde_json::from_str::<Value>(repaired).unwrap(), "{text}");
            assert_eq!(json.forgiven.len(), slips, "{text}");
        }
    }

    #[test]
    fn everything_else_is_told_with_its_column() {
        for (text, column) in [
            ("", 10),
            ("{", 10),
            (r#"{"a" 1}"#, 15),
            (r#"{"é" 1}"#, 15),
            (r#"{pool": 1}"#, 11),
            (r#"{"a": 1} x"#, 19),
            (r#"{"a": 1, action": 2 "b"}"#, 30),
            (r#"{"a": [1,], "b" 2}"#, 26),
            ("{'a': 1}", 11),
        ] {
            let error = parse(text, 10).expect_err(text);
            assert!(error.starts_with(&format!("column {column}: ")), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[\\[\\]{},:\"\\\\ action\u{e9}1]{0,40}") {
            let _ = parse(&text, 7);
        }
    }
}
