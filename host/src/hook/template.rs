//! `${name}` in texts (spec B4, B5): where it stands, what it may be called, and how to write it literally.

use crate::model::event::{HookPoint, variables};

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// Takes a text apart; `$${` is the two characters `${`.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(literal) = before.strip_suffix('$') {
            parts.extend([Part::Text(literal), Part::Text("${")]);
            rest = &from[2..];
            continue;
        }
        let name = variable(from)?;
        parts.extend([Part::Text(before), Part::Variable(name)]);
        rest = &from[name.len() + 3..];
    }
    parts.push(Part::Text(rest));
    parts.retain(|part| *part != Part::Text(""));
    Ok(parts)
}

/// The name in a text that starts with `${`.
pub(super) fn variable(text: &str) -> Result<&str, String> {
    let name = text.strip_prefix("${").and_then(|rest| rest.split_once('}'));
    match name {
        Some((name, _)) if !name.trim().is_empty() => Ok(name),
        _ => Err("`${` without a name and `}`; write ${name}, or $${ for the two characters".to_owned()),
    }
}

/// The variable of this name at this moment; an error lists those that there are.
pub(super) fn known(name: &str, point: HookPoint) -> Result<&'static str, String> {
    let all = variables(point);
    let found = all.iter().find(|known| **known == name);
    found
        .copied()
        .ok_or_else(|| format!("there is no ${{{name}}} at {point}; there are {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_stand_between_texts() {
        use Part::{Text, Variable};
        for (text, expected) in [
            ("", vec![]),
            ("a b", vec![Text("a b")]),
            ("${a}", vec![Variable("a")]),
            ("x:${a}:${b}", vec![Text("x:"), Variable("a"), Text(":"), Variable("b")]),
            ("$${a} ${b}", vec![Text("${"), Text("a} "), Variable("b")]),
            ("é$${", vec![Text("é"), Text("${")]),
            ("$a {b} $", vec![Text("$a {b} $")]),
        ] {
            assert_eq!(parts(text), Ok(expected), "{text}");
        }
        for bad in ["${", "${a", "${}", "a${ }"] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_variable_is_told_with_those_that_there_are() {
        assert_eq!(known("qos", HookPoint::SessionSubscribed), Ok("qos"));
        assert_eq!(
            known("qos", HookPoint::SessionUnsubscribed),
            Err(
                "there is no ${qos} at session.unsubscribed; there are clientid, topic, node, timestamp, username"
                    .to_owned()
            )
        );
    }
}
