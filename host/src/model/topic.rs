//! Topic names and topic filters (MQTT 4.7).

use std::fmt;

use bytestring::ByteString;

/// A topic name: no wildcards, no U+0000, at least one character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(ByteString);

/// A topic filter whose wildcards stand where the standard lets them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(ByteString);

/// Why a text is no topic name or no topic filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1].
    #[error("it is empty")]
    Empty,
    /// [MQTT-4.7.3-2].
    #[error("it contains U+0000")]
    Null,
    /// [MQTT-3.3.2-2].
    #[error("a topic name must not contain + or #")]
    Wildcard,
    /// [MQTT-4.7.1-1] and [MQTT-4.7.1-2].
    #[error("+ must fill a level and # must be the last level")]
    MisplacedWildcard,
    /// [MQTT-4.8.2-1] and [MQTT-4.8.2-2].
    #[error("a shared subscription is $share/<group>/<filter>, the group without /, + or #")]
    Share,
}

impl Topic {
    /// Checks a topic name.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        check(&text)?;
        if text.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Err(TopicError::Wildcard);
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A copy that shares no buffer.
    pub fn detached(&self) -> Self {
        Self(ByteString::from(self.as_str().to_owned()))
    }
}

impl Filter {
    /// Checks a topic filter, which may not carry a `$share/` prefix (see [`Filter::parse_subscription`]).
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        check(&text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let wild = level.bytes().any(|byte| matches!(byte, b'+' | b'#'));
            let fine = !wild || level == "+" || (level == "#" && levels.peek().is_none());
            if !fine {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self(text))
    }

    /// Takes `$share/<group>/<filter>` and EMQ X's `$queue/<filter>` apart (spec A5).
    pub fn parse_subscription(text: &str) -> Result<(Option<&str>, Self), TopicError> {
        if let Some(filter) = text.strip_prefix("$queue/") {
            return Ok((Some("$queue"), Self::new(filter.to_owned())?));
        }
        if text != "$share" && !text.starts_with("$share/") {
            return Ok((None, Self::new(text.to_owned())?));
        }
        let (group, filter) = text
            .strip_prefix("$share/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(TopicError::Share)?;
        if group.is_empty() || filter.is_empty() || group.contains(['+', '#', '\0']) {
            return Err(TopicError::Share);
        }
        Ok((Some(group), Self::new(filter.to_owned())?))
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names one topic only.
    pub fn is_exact(&self) -> bool {
        !self.0.bytes().any(|byte| matches!(byte, b'+' | b'#'))
    }

    /// What every matching topic starts with: the text before the first wildcard. `a/#` also matches `a`,
    /// so its prefix is `a`.
    pub fn literal_prefix(&self) -> &str {
        let text = self.as_str();
        match text.find(['+', '#']) {
            None => text,
            Some(at) if text.as_bytes()[at] == b'#' => text[..at].strip_suffix('/').unwrap_or(&text[..at]),
            Some(at) => &text[..at],
        }
    }

    /// Whether `name` matches (MQTT 4.7). A subscription's filter may stand for a name here: it is then
    /// taken literally (spec A5). A leading wildcard does not match names that start with `$`.
    pub fn matches(&self, name: &str) -> bool {
        let filter = self.as_str();
        if name.starts_with('$') && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = name.split('/');
        for wanted in filter.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl Filter {
    /// Whether every topic that `narrow` matches is matched by this filter, too.
    pub fn covers(&self, narrow: &Self) -> bool {
        if self.0.starts_with(['#', '+']) && narrow.0.starts_with('$') {
            return false;
        }
        let (mut wide, mut narrow) = (self.0.split('/'), narrow.0.split('/'));
        loop {
            match (wide.next(), narrow.next()) {
                (Some("#"), _) | (None, None) => return true,
                (_, Some("#")) => return false,
                (Some(a), Some(b)) if a == b || a == "+" => {}
                _ => return false,
            }
        }
    }
}

fn check(text: &str) -> Result<(), TopicError> {
    match text {
        "" => Err(TopicError::Empty),
        _ if text.bytes().any(|byte| byte == 0) => Err(TopicError::Null),
        _ => Ok(()),
    }
}

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}
shown_as_text!(Topic, Filter);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_rules_of_the_house_say() {
        // Spec A5: filter, name (a topic, or a subscription taken literally), match?
        for (filter, name, expected) in [
            ("queue/#", "queue", true),
            ("queue/#", "queue/a/b", true),
            ("queue/#", "queue/+", true),
            ("queue/#", "queue/#", true),
            ("queue/#", "#", false),
            ("queue/#", "+/a", false),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/brokers", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/brokers/x", true),
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("a/+/c", "a//c", true),
        ] {
            let filter = Filter::new(filter).expect("a good filter");
            assert_eq!(filter.matches(name), expected, "{filter} against {name}");
        }
    }

    #[test]
    fn a_filter_covers_another_when_it_matches_all_that_the_other_does() {
        for (wide, narrow, expected) in [
            ("#", "a/+/#", true),
            ("#", "$SYS/#", false),
            ("a/#", "a", true),
            ("a/#", "a/+", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("+/b", "a/b", true),
            ("a/+", "a", false),
        ] {
            let filter = |text: &str| Filter::new(text.to_owned()).expect("a good filter");
            assert_eq!(filter(wide).covers(&filter(narrow)), expected, "{wide} covers {narrow}");
        }
    }

    #[test]
    fn bad_filters_and_names_are_told_apart() {
        for (text, error) in [
            ("", TopicError::Empty),
            ("a\0b", TopicError::Null),
            ("a#", TopicError::MisplacedWildcard),
            ("a/#/b", TopicError::MisplacedWildcard),
            ("a+/b", TopicError::MisplacedWildcard),
        ] {
            assert_eq!(Filter::new(text).map(|_| ()), Err(error), "{text:?}");
        }
        assert_eq!(Topic::new("a/+").map(|_| ()), Err(TopicError::Wildcard));
    }

    #[test]
    fn shared_subscriptions_are_taken_apart() {
        for (text, expected) in [
            ("$share/g/a/b", Ok((Some("g"), "a/b"))),
            ("$queue/a", Ok((Some("$queue"), "a"))),
            ("a/b", Ok((None, "a/b"))),
            ("$share", Err(TopicError::Share)),
            ("$share/g", Err(TopicError::Share)),
            ("$share//a", Err(TopicError::Share)),
            ("$share/g/", Err(TopicError::Share)),
            ("$share/+/a", Err(TopicError::Share)),
        ] {
            let parsed = Filter::parse_subscription(text);
            assert_eq!(
                parsed
                    .as_ref()
                    .map(|(group, filter)| (*group, filter.as_str()))
                    .map_err(|error| *error),
                expected
            );
        }
    }

    #[test]
    fn the_prefix_covers_every_match() {
        for (filter, prefix) in [("a/b", "a/b"), ("a/+/c", "a/"), ("a/#", "a"), ("#", ""), ("+/a", "")] {
            assert_eq!(Filter::new(filter).expect("good").literal_prefix(), prefix);
        }
    }
}
