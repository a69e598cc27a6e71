//! Custom statements (spec B4): `${name}` becomes a bind marker, never a piece of SQL, so that no topic
//! and no payload can change what a statement does. What cannot be bound is refused when it is read.

use crate::model::event::HookPoint;

use super::lexer::{self, Token};
use super::template::{self, Part};

/// A statement in its engine's own form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The text, with the engine's markers.
    pub text: String,
    /// The variables that the markers stand for, in order.
    pub params: Vec<&'static str>,
}

/// How an engine's statements are written, as far as reading them goes.
pub struct Dialect {
    /// The marker of the n-th parameter, counted from 1.
    pub marker: fn(usize) -> String,
    pub(super) hash_comments: bool,
    pub(super) slash_comments: bool,
    pub(super) backslashes: bool,
    pub(super) backticks: bool,
    pub(super) brackets: bool,
    pub(super) dollar_quotes: bool,
    /// Characters that would be markers of the operator's own.
    markers: &'static [char],
    /// Statements that would end a transaction of ours or change a connection that others use.
    refused: &'static [&'static str],
    /// Words that do so wherever they stand.
    refused_anywhere: &'static [&'static str],
}

impl Dialect {
    const PLAIN: Self = Self {
        marker: |_| "?".to_owned(),
        hash_comments: false,
        slash_comments: false,
        backslashes: false,
        backticks: false,
        brackets: false,
        dollar_quotes: false,
        markers: &['?'],
        refused: &["BEGIN", "START", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"],
        refused_anywhere: &[],
    };

    /// SQLite.
    pub const SQLITE: Self = Self {
        backticks: true,
        brackets: true,
        markers: &['?', ':', '@', '$'],
        refused: &[
            "BEGIN",
            "COMMIT",
            "END",
            "ROLLBACK",
            "SAVEPOINT",
            "RELEASE",
            "ATTACH",
            "DETACH",
            "PRAGMA",
            "VACUUM",
        ],
        // `insert or rollback` would take the rest of the batch with it.
        refused_anywhere: &["ROLLBACK"],
        ..Self::PLAIN
    };

    /// MySQL and MariaDB.
    pub const MYSQL: Self = Self {
        hash_comments: true,
        backslashes: true,
        backticks: true,
        ..Self::PLAIN
    };

    /// PostgreSQL; its `?` is an operator on JSON.
    pub const PGSQL: Self = Self {
        marker: |number| format!("${number}"),
        dollar_quotes: true,
        markers: &['$'],
        refused: &[
            "BEGIN",
            "START",
            "COMMIT",
            "END",
            "ROLLBACK",
            "ABORT",
            "SAVEPOINT",
            "RELEASE",
        ],
        ..Self::PLAIN
    };

    /// Cassandra.
    pub const CASSA: Self = Self {
        slash_comments: true,
        refused: &["USE"],
        ..Self::PLAIN
    };
}

impl Statement {
    /// Reads a statement of a rule at this moment; an error says what cannot be, and what to write.
    pub fn parse(template: &str, point: HookPoint, dialect: &Dialect) -> Result<Self, String> {
        if template.contains('\0') {
            return Err("a statement cannot contain U+0000".to_owned());
        }
        let tokens = lexer::tokens(template, dialect)?;
        let statement = Self {
            text: String::with_capacity(template.len()),
            params: Vec::new(),
        };
        let mut reader = Reader {
            tokens: &tokens,
            point,
            dialect,
            depth: 0,
            statement,
        };
        reader.check_words()?;
        for at in 0..tokens.len() {
            reader.take(at)?;
        }
        Ok(reader.statement)
    }
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    point: HookPoint,
    dialect: &'a Dialect,
    /// Open parentheses.
    depth: usize,
    statement: Statement,
}

impl Reader<'_> {
    fn take(&mut self, at: usize) -> Result<(), String> {
        let text = &mut self.statement.text;
        match self.tokens[at] {
            Token::Word(word) | Token::Blank(word) => text.push_str(word),
            Token::Escaped => text.push_str("${"),
            Token::Variable(name) => return self.bind(at, name),
            Token::Quoted { quote, inner, text } => return self.quoted(at, quote, inner, text),
            Token::Comment(comment) => {
                if template::parts(comment).is_ok_and(|parts| first_variable(&parts).is_some()) {
                    return Err("a ${…} stands in a comment; take the comment out".to_owned());
                }
                text.push_str(comment);
            }
            Token::Other(';') => return self.end(at),
            Token::Other(c) => {
                self.check_marker(at, c)?;
                self.depth = match c {
                    '(' => self.depth + 1,
                    ')' => self.depth.saturating_sub(1),
                    _ => self.depth,
                };
                self.statement.text.push(c);
            }
        }
        Ok(())
    }

    /// A literal that is nothing but a variable is bound, and its quotes go.
    fn quoted(&mut self, at: usize, quote: char, inner: &str, text: &str) -> Result<(), String> {
        let parts = template::parts(inner)?;
        let Some(name) = first_variable(&parts) else {
            self.statement.text.push_str(&text.replace("$${", "${"));
            return Ok(());
        };
        if matches!(quote, '`' | '[') {
            return Err(is_a_name(name));
        }
        if parts.len() == 1 && quote != '$' {
            return self.bind(at, name);
        }
        Err(format!(
            "${{{name}}} stands inside a longer literal {text}; values are bound, so join them in the statement: \
             'a' || ${{{name}}} or concat('a', ${{{name}}})"
        ))
    }

    fn bind(&mut self, at: usize, name: &str) -> Result<(), String> {
        let variable = template::known(name, self.point)?;
        if self.is_name(at) {
            return Err(is_a_name(name));
        }
        self.statement.params.push(variable);
        let marker = (self.dialect.marker)(self.statement.params.len());
        self.statement.text.push_str(&marker);
        Ok(())
    }

    /// Whether a value here would be, or be part of, the name of a table, column or function, as far as
    /// that can be told without the engine's grammar.
    fn is_name(&self, at: usize) -> bool {
        let touches = |token: Option<&Token<'_>>| {
            matches!(
                token,
                Some(Token::Word(_) | Token::Variable(_) | Token::Quoted { .. } | Token::Other('.'))
            )
        };
        let before = at.checked_sub(1).and_then(|at| self.tokens.get(at));
        let behind = self.tokens.get(at + 1);
        if touches(before) || touches(behind) || behind == Some(&Token::Other('(')) {
            return true;
        }
        let mut words = self.tokens[..at].iter().rev().filter(|token| !is_space(token));
        let before = [words.next(), words.next()].map(|token| match token {
            Some(Token::Word(word)) => word.to_ascii_uppercase(),
            _ => String::new(),
        });
        match before[0].as_str() {
            "INTO" | "UPDATE" | "TABLE" | "JOIN" => true,
            // `is distinct from`, and within parentheses `trim(both from …)`, take values.
            "FROM" => self.depth == 0 && before[1] != "DISTINCT",
            _ => false,
        }
    }

    fn check_words(&self) -> Result<(), String> {
        let words = || {
            self.tokens.iter().filter_map(|token| match token {
                Token::Word(word) => Some(word.to_ascii_uppercase()),
                _ => None,
            })
        };
        let Some(first) = words().next() else {
            return Err("a statement is empty".to_owned());
        };
        let is_refused = |word: &String| self.dialect.refused_anywhere.contains(&word.as_str());
        let refused = match self.dialect.refused.contains(&first.as_str()) {
            true => Some(first),
            false => words().find(is_refused),
        };
        match refused.as_deref() {
            None => Ok(()),
            Some(word @ ("ATTACH" | "DETACH" | "PRAGMA" | "VACUUM" | "USE")) => Err(format!(
                "{word} is refused: it would change what every other rule works on"
            )),
            Some(word) => Err(format!(
                "{word} is refused: statements run inside transactions of ours; \
                 write \"tx\": true in the rule where all of them take effect or none"
            )),
        }
    }

    fn check_marker(&self, at: usize, c: char) -> Result<(), String> {
        let named = matches!(self.tokens.get(at + 1), Some(Token::Word(_)));
        let cast = at > 0 && self.tokens[at - 1] == Token::Other(':');
        let is_marker = self.dialect.markers.contains(&c) && (c == '?' || (named && !cast));
        match is_marker {
            true => Err(format!("{c} is no value here; write ${{name}} where a value belongs")),
            false => Ok(()),
        }
    }

    /// One statement a text, so that what it begins with says what it does.
    fn end(&self, at: usize) -> Result<(), String> {
        match self.tokens[at + 1..]
            .iter()
            .all(|token| is_space(&token) || *token == Token::Other(';'))
        {
            true => Ok(()),
            false => Err("there is more behind the `;`; write each statement as an element of the list".to_owned()),
        }
    }
}

fn is_space(token: &&Token<'_>) -> bool {
    matches!(token, Token::Blank(_) | Token::Comment(_))
}

fn first_variable<'a>(parts: &[Part<'a>]) -> Option<&'a str> {
    parts.iter().find_map(|part| match part {
        Part::Variable(name) => Some(*name),
        Part::Text(_) => None,
    })
}

fn is_a_name(variable: &str) -> String {
    format!(
        "${{{variable}}} stands where a name, or a part of one, would stand; \
         only values are bound, so write the name out and leave blanks around the value"
    )
}

#[cfg(test)]
mod tests;
