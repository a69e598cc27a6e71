//! Which writes of a batch go into one statement. Pure: writes that depend on each other keep their order,
//! the others are brought together.

use super::super::{Write, WriteKind};
use crate::model::message::ClientId;
use crate::model::session::{Exchange, SessionWrite};

/// Writes of one kind that are written together: their places in the batch.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    pub(super) kind: WriteKind,
    pub(super) of: Vec<usize>,
}

/// Groups that, done in their order, do what the writes would do in theirs.
pub(super) fn plan(writes: &[Write]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, write) in writes.iter().enumerate() {
        match home(&groups, write, writes) {
            Some(group) => groups[group].of.push(at),
            None => groups.push(Group {
                kind: write.kind(),
                of: vec![at],
            }),
        }
    }
    groups
}

/// Every write alone: how a batch is done when one of its statements fails as a whole.
pub(super) fn one_by_one(writes: &[Write]) -> Vec<Group> {
    let alone = |(at, write): (usize, &Write)| Group {
        kind: write.kind(),
        of: vec![at],
    };
    writes.iter().enumerate().map(alone).collect()
}

/// The group that `write` may join: of its kind, with nothing behind it that must stay before `write`.
fn home(groups: &[Group], write: &Write, writes: &[Write]) -> Option<usize> {
    for (index, group) in groups.iter().enumerate().rev() {
        let mut members = group.of.iter().map(|at| &writes[*at]);
        if group.kind == write.kind() {
            return members.all(|member| !same_row(member, write)).then_some(index);
        }
        if !members.all(|member| commute(member, write)) {
            return None;
        }
    }
    None
}

/// Whether both would insert or change one row: a statement must not do that twice.
fn same_row(left: &Write, right: &Write) -> bool {
    match (left, right) {
        (Write::Retain(left), Write::Retain(right)) => left.topic == right.topic,
        (Write::Advance(left, _), Write::Advance(right, _)) => left == right,
        (Write::Client(left), Write::Client(right)) => left.client == right.client,
        (Write::Exchange(left), Write::Exchange(right)) => left.key == right.key,
        _ => false,
    }
}

/// Whether two writes of different kinds may change places.
fn commute(left: &Write, right: &Write) -> bool {
    match (left, right) {
        (Write::Save(message), Write::Delete(_, id)) | (Write::Delete(_, id), Write::Save(message)) => {
            message.id != *id
        }
        (Write::Retain(message), Write::ClearRetained(topic, _))
        | (Write::ClearRetained(topic, _), Write::Retain(message)) => message.topic != *topic,
        (Write::Exchange(exchange), Write::EndExchange(ended))
        | (Write::EndExchange(ended), Write::Exchange(exchange)) => exchange.key != *ended,
        (Write::Session(session), other) | (other, Write::Session(session)) => {
            touches(left) & touches(right) == 0 || owner(other).is_some_and(|owner| owner != session.client())
        }
        // What is purged was stored long before, and what is saved gets a new place.
        (Write::Save(_), Write::Purge(_)) | (Write::Purge(_), Write::Save(_)) => true,
        _ => touches(left) & touches(right) == 0,
    }
}

/// Whose row a write reads or changes, where it is one client's.
fn owner(write: &Write) -> Option<&ClientId> {
    match write {
        Write::Advance(reader, _) | Write::Forget(reader) => Some(&reader.client),
        Write::ForgetClient(client) => Some(client),
        Write::EndExchange(key) | Write::Exchange(Exchange { key, .. }) => Some(&key.client),
        Write::Session(session) => Some(session.client()),
        _ => None,
    }
}

/// The tables that a write reads or changes, a bit each.
fn touches(write: &Write) -> u8 {
    const MESSAGES: u8 = 1;
    const RETAINED: u8 = 2;
    const POSITIONS: u8 = 4;
    const CLIENTS: u8 = 8;
    const SESSIONS: u8 = 16;
    match write {
        Write::Save(_) | Write::Delete(..) | Write::Purge(_) => MESSAGES,
        Write::Retain(_) | Write::ClearRetained(..) => RETAINED,
        Write::Begin { .. } => MESSAGES | POSITIONS,
        Write::Advance(..) | Write::Forget(_) | Write::ForgetClient(_) => POSITIONS,
        Write::Client(_) => CLIENTS,
        Write::Session(SessionWrite::Ended { positions: true, .. }) => SESSIONS | POSITIONS,
        Write::Session(_) | Write::Exchange(_) | Write::EndExchange(..) => SESSIONS,
        Write::Statements(..) => MESSAGES | RETAINED | POSITIONS | CLIENTS | SESSIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::delivery::{Delivery, PoolName, Position, Reader};
    use crate::model::event::Start;
    use crate::model::id::MessageId;
    use crate::model::message::{Message, Qos};
    use crate::model::topic::{Filter, Topic};
    use std::sync::Arc;
    use std::time::UNIX_EPOCH;

    fn message(id: u128, topic: &str) -> Message {
        Message {
            id: MessageId::from_bits(id),
            topic: Topic::new(topic.to_owned()).expect("good"),
            payload: Default::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            from: "c".into(),
            at: UNIX_EPOCH,
            properties: Default::default(),
            expires: None,
        }
    }

    fn reader(client: &str) -> Reader {
        Reader {
            pool: PoolName::new("sqlite", "pool1"),
            client: client.into(),
            filter: Filter::new("t").expect("good"),
            delivery: Delivery::Pubsub,
        }
    }

    /// `s1` saves 1, `d1` deletes it, `ra` retains on topic a, `ca` clears it, `pc` moves the position of c,
    /// `fc` forgets it, `bc` begins, `x` is somebody's statements.
    fn batch(words: &str) -> Vec<Write> {
        let write = |word: &str| {
            let (verb, of) = word.split_at(1);
            match verb {
                "s" => Write::Save(message(of.parse().expect("a number"), "t")),
                "d" => Write::Delete(
                    message(1, "t").topic,
                    MessageId::from_bits(of.parse().expect("a number")),
                ),
                "r" => Write::Retain(message(1, of)),
                "c" => Write::ClearRetained(message(1, of).topic, MessageId::from_bits(1)),
                "p" => Write::Advance(reader(of), Position(1)),
                "f" => Write::Forget(reader(of)),
                "o" => Write::Purge([Position(of.parse().expect("a number"))].into()),
                "b" => Write::Begin {
                    reader: reader(of),
                    start: Start::Latest,
                    durable: true,
                },
                "x" => {
                    let script = crate::store::Script {
                        rule: "r".into(),
                        statements: Vec::new(),
                        atomic: false,
                    };
                    Write::Statements(Arc::new(script), Vec::new())
                }
                _ => panic!("{word}"),
            }
        };
        words.split_whitespace().map(write).collect()
    }

    #[test]
    fn independent_writes_meet_and_dependent_ones_keep_their_order() {
        for (words, expected) in [
            ("s1 s2 pc s3 pd", "s1 s2 s3 | pc pd"),
            ("s1 d7 s2 d8", "s1 s2 | d7 d8"),
            ("s1 d1 s1", "s1 | d1 | s1"),
            ("s1 bc s2", "s1 | bc | s2"),
            ("pc bc pc", "pc | bc | pc"),
            ("pc fc pc", "pc | fc | pc"),
            ("pc pd pc", "pc pd | pc"),
            ("ra cb ra", "ra | cb | ra"),
            ("ra cb rb", "ra | cb | rb"),
            ("ra cb rc", "ra rc | cb"),
            ("s1 o7 s2 o8", "s1 s2 | o7 o8"),
            ("s1 x s2", "s1 | x | s2"),
        ] {
            let writes = batch(words);
            let words: Vec<&str> = words.split_whitespace().collect();
            let group = |group: &Group| group.of.iter().map(|at| words[*at]).collect::<Vec<_>>().join(" ");
            let planned: Vec<String> = plan(&writes).iter().map(group).collect();
            assert_eq!(planned.join(" | "), expected);
        }
    }
}
