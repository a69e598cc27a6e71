//! What a rule does: a built-in function, statements, or Redis commands (spec B4, B5).

use serde_json::Value;

use crate::model::event::{HookPoint, variables};

use super::builtin::Builtin;
use super::statement::{Dialect, Statement};
use super::template::{self, Part};

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A function of ours.
    Builtin(Builtin),
    /// Statements in order, on one connection; the first error ends them.
    Statements(Vec<Statement>),
    /// Redis commands in order.
    Commands(Vec<Command>),
}

/// A Redis command and its arguments, each sent as one string of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(pub Vec<Argument>);

/// One argument, put together from its pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(pub Vec<Piece>);

/// A piece of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Itself.
    Text(String),
    /// The value of a variable.
    Variable(&'static str),
}

/// Commands that would change the connection that others use, block it, or stop the server.
const REFUSED: [&str; 23] = [
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SSUBSCRIBE",
    "SUNSUBSCRIBE",
    "MONITOR",
    "SELECT",
    "AUTH",
    "HELLO",
    "QUIT",
    "RESET",
    "CLIENT",
    "MULTI",
    "EXEC",
    "WATCH",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BLMOVE",
    "BLMPOP",
    "WAIT",
    "SHUTDOWN",
];

impl Action {
    /// Reads the value of `sql` or `cql`: a statement, or a list of them.
    pub(super) fn statements(value: &Value, point: HookPoint, dialect: &Dialect) -> Result<Self, String> {
        let one = |value: &Value| {
            let text = value.as_str().ok_or("a statement is a text in quotes")?;
            Statement::parse(text, point, dialect)
        };
        list(value, one).map(Self::Statements)
    }

    /// Reads the value of `commands`: a command, or a list of them. A command that is a list has its
    /// arguments as they are.
    pub(super) fn commands(value: &Value, point: HookPoint) -> Result<Self, String> {
        let one = |value: &Value| match value {
            Value::String(text) => Command::parse(&text.split(' ').collect::<Vec<_>>(), point).and_then(|command| {
                let empty = text.split(' ').any(str::is_empty);
                let text = "leading, trailing and double blanks would be empty arguments; \
                            separate arguments by one blank, or write the command as a list: [\"SET\", \"key\", \"\"]";
                (!empty).then_some(command).ok_or_else(|| text.to_owned())
            }),
            Value::Array(arguments) => {
                let texts: Option<Vec<&str>> = arguments.iter().map(Value::as_str).collect();
                Command::parse(&texts.ok_or("an argument is a text in quotes")?, point)
            }
            _ => Err("a command is a text in quotes, or a list of texts".to_owned()),
        };
        list(value, one).map(Self::Commands)
    }

    /// Commands whose last argument is spelt like a variable, as in the vendor's old samples: it is stored
    /// as that very word (spec B5).
    pub(super) fn suspects(&self, point: HookPoint) -> Vec<&str> {
        let Self::Commands(commands) = self else {
            return Vec::new();
        };
        let last = |command: &'_ Command| match command.0.last().map(|argument| argument.0.as_slice()) {
            Some([Piece::Text(word)]) => variables(point).iter().copied().find(|name| name == word),
            _ => None,
        };
        commands.iter().filter_map(last).collect()
    }
}

impl Command {
    fn parse(arguments: &[&str], point: HookPoint) -> Result<Self, String> {
        let Some(name) = arguments.first().map(|name| name.to_ascii_uppercase()) else {
            return Err("a command is empty".to_owned());
        };
        if name.contains("${") {
            return Err("a command's name cannot be a variable".to_owned());
        }
        let blocks = name.starts_with("XREAD") && arguments.iter().any(|word| word.eq_ignore_ascii_case("BLOCK"));
        if REFUSED.contains(&name.as_str()) || name.starts_with("BZPOP") || name == "BZMPOP" || blocks {
            return Err(format!(
                "{name} is refused: it would block the connection that other rules use, or change it under them"
            ));
        }
        let arguments = arguments.iter().map(|text| Argument::parse(text, point));
        arguments.collect::<Result<_, _>>().map(Self)
    }
}

impl Argument {
    fn parse(text: &str, point: HookPoint) -> Result<Self, String> {
        let pieces = template::parts(text)?.into_iter().map(|part| match part {
            Part::Text(text) => Ok(Piece::Text(text.to_owned())),
            Part::Variable(name) => template::known(name, point).map(Piece::Variable),
        });
        pieces.collect::<Result<_, _>>().map(Self)
    }
}

/// One value or a list of them; an error says which.
fn list<T>(value: &Value, one: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    let Value::Array(values) = value else {
        return one(value).map(|one| vec![one]);
    };
    if values.is_empty() {
        return Err("the list is empty".to_owned());
    }
    let numbered = (1..).zip(values).map(|(number, value)| {
        let number = if values.len() > 1 {
            format!("{number}: ")
        } else {
            String::new()
        };
        one(value).map_err(|error| format!("{number}{error}"))
    });
    numbered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn commands(value: &Value) -> Result<String, String> {
        let Action::Commands(commands) = Action::commands(value, HookPoint::MessagePublish)? else {
            panic!("commands are commands");
        };
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Variable(name) => format!("<{name}>"),
        };
        let argument = |argument: &Argument| format!("[{}]", argument.0.iter().map(piece).collect::<String>());
        let command = |command: &Command| command.0.iter().map(argument).collect::<String>();
        Ok(commands.iter().map(command).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn commands_are_split_before_values_are_put_in() {
        for (value, expected) in [
            (
                json!("SET conn:${clientid} clientid"),
                "[SET][conn:<clientid>][clientid]",
            ),
            (json!(["RPUSH l ${payload}", "PING"]), "[RPUSH][l][<payload>] [PING]"),
            (json!([["SET", "k", "a b", ""]]), "[SET][k][a b][]"),
            (json!("SET k $${x}"), "[SET][k][${x}]"),
            (json!("XREAD STREAMS s 0"), "[XREAD][STREAMS][s][0]"),
        ] {
            assert_eq!(commands(&value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn commands_that_would_hurt_other_rules_are_refused() {
        for (value, part) in [
            (json!("SET  k v"), "empty arguments"),
            (json!(" SET k v"), "empty arguments"),
            (json!("SET k "), "empty arguments"),
            (json!("SET k ${topik}"), "there is no ${topik}"),
            (json!("${topic} k"), "name cannot be a variable"),
            (json!("subscribe c"), "SUBSCRIBE is refused"),
            (json!("BZPOPMIN k 0"), "BZPOPMIN is refused"),
            (json!("XREAD block 0 STREAMS s 0"), "XREAD is refused"),
            (json!(["PING", "AUTH x"]), "2: AUTH is refused"),
            (json!([]), "the list is empty"),
            (json!([[]]), "a command is empty"),
            (json!(7), "a text in quotes"),
            (json!([["SET", 7]]), "a text in quotes"),
        ] {
            let error = commands(&value).expect_err(&value.to_string());
            assert!(error.contains(part), "{value}: {error}");
        }
    }
}
