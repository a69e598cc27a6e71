//! SQL and CQL as far as we must understand them: where literals, comments and names begin and end, so
//! that a `${name}` is known to stand where a value may stand.

use super::statement::Dialect;
use super::template;

/// A piece of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a name or a number.
    Word(&'a str),
    /// `${name}`.
    Variable(&'a str),
    /// `$${`: the two characters `${`.
    Escaped,
    /// A literal or a quoted name.
    Quoted {
        quote: char,
        inner: &'a str,
        text: &'a str,
    },
    Comment(&'a str),
    Blank(&'a str),
    Other(char),
}

/// Takes a statement apart without losing a character.
pub(super) fn tokens<'a>(text: &'a str, dialect: &Dialect) -> Result<Vec<Token<'a>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // PostgreSQL: only E'…' knows backslashes.
        let escapes =
            dialect.backslashes || (dialect.dollar_quotes && matches!(tokens.last(), Some(Token::Word("E" | "e"))));
        let (token, length) = token(rest, first, dialect, escapes)?;
        tokens.push(token);
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn token<'a>(rest: &'a str, first: char, dialect: &Dialect, escapes: bool) -> Result<(Token<'a>, usize), String> {
    if rest.starts_with("$${") {
        return Ok((Token::Escaped, 3));
    }
    if rest.starts_with("${") {
        let name = template::variable(rest)?;
        return Ok((Token::Variable(name), name.len() + 3));
    }
    if let Some(length) = comment(rest, dialect)? {
        return Ok((Token::Comment(&rest[..length]), length));
    }
    if let Some(tag) = dollar_tag(rest).filter(|_| dialect.dollar_quotes) {
        let inner = rest[tag.len()..].split_once(tag).map(|(inner, _)| inner);
        let inner = inner.ok_or_else(|| format!("{tag} is not closed"))?;
        return Ok(quoted(rest, '$', inner, 2 * tag.len() + inner.len()));
    }
    let close = match first {
        '\'' | '"' => Some(first),
        '`' if dialect.backticks => Some('`'),
        '[' if dialect.brackets => Some(']'),
        _ => None,
    };
    if let Some(close) = close {
        let end = closing(rest, close, escapes && close != '`').ok_or_else(|| format!("{first} is not closed"))?;
        return Ok(quoted(rest, first, &rest[1..end], end + 1));
    }
    let run = |fits: fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
    Ok(match first {
        c if c.is_whitespace() => {
            let length = run(char::is_whitespace);
            (Token::Blank(&rest[..length]), length)
        }
        c if in_word(c) => {
            let length = run(in_word);
            (Token::Word(&rest[..length]), length)
        }
        c => (Token::Other(c), c.len_utf8()),
    })
}

fn quoted<'a>(rest: &'a str, quote: char, inner: &'a str, length: usize) -> (Token<'a>, usize) {
    let text = &rest[..length];
    (Token::Quoted { quote, inner, text }, length)
}

const fn in_word(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric() || !c.is_ascii()
}

/// The length of a comment that starts here.
fn comment(rest: &str, dialect: &Dialect) -> Result<Option<usize>, String> {
    let to_line_end = rest.starts_with("--")
        || (dialect.hash_comments && rest.starts_with('#'))
        || (dialect.slash_comments && rest.starts_with("//"));
    if to_line_end {
        return Ok(Some(rest.find('\n').unwrap_or(rest.len())));
    }
    match rest.strip_prefix("/*") {
        None => Ok(None),
        Some(inside) => match inside.find("*/") {
            Some(at) => Ok(Some(at + 4)),
            None => Err("/* is not closed".to_owned()),
        },
    }
}

/// `$$` or `$tag$` of PostgreSQL.
fn dollar_tag(rest: &str) -> Option<&str> {
    let name = rest.strip_prefix('$')?;
    let length = name.find(|c| !in_word(c))?;
    let is_tag = name[length..].starts_with('$') && !name.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| &rest[..length + 2])
}

/// Where the quote that starts here is closed; a doubled one is a character.
fn closing(rest: &str, close: char, escapes: bool) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == close {
            match chars.peek() {
                Some((_, next)) if *next == close && close != ']' => {
                    chars.next();
                }
                _ => return Some(at),
            }
        }
    }
    None
}
