//! The operator's own statements, each rule's under a savepoint, so that they fail for themselves only.

use super::{Fault, Nature, Transaction};
use crate::model::value::Value;
use crate::store::{Error, Script, Write, Written};

/// Why one write was not done.
pub(super) enum Problem {
    /// It never will be.
    Refused(Error),
    /// Nothing can be done for now.
    Passing(Fault),
}

impl Problem {
    /// A statement of ours failed.
    pub(super) fn of(fault: Fault, write: &Write) -> Self {
        let error = |fault: Fault| fault.ours(write.label());
        match fault.nature {
            Nature::Row => Self::Refused(error(fault)),
            _ => Self::Passing(fault),
        }
    }
}

/// The operator's statements of one rule, in order, up to the first that fails. What the ones before it did
/// stays, as if each had been committed by itself, unless the rule wants all or nothing (spec B4).
pub(super) async fn run(
    transaction: &mut Box<dyn Transaction>,
    script: &Script,
    params: &[Vec<Value>],
) -> std::result::Result<Written, Problem> {
    transaction
        .run(&"SAVEPOINT hookline".into(), Vec::new())
        .await
        .map_err(Problem::Passing)?;
    let mut failure = None;
    for (at, statement) in script.statements.iter().enumerate() {
        let params = params.get(at).cloned().unwrap_or_default();
        if let Err(fault) = transaction.run(&statement.as_str().into(), params).await {
            failure = Some(fault);
            break;
        }
    }
    let Some(fault) = failure else {
        // It fails only where a statement ended the transaction without saying so.
        let released = transaction.run(&"RELEASE SAVEPOINT hookline".into(), Vec::new()).await;
        return released.map(|_| Written::Done).map_err(|fault| refused(script, fault));
    };
    if !matches!(fault.nature, Nature::Row | Nature::Statement | Nature::Unreadable) {
        return Err(Problem::Passing(fault));
    }
    if script.atomic {
        // Where the savepoint is gone, so is the transaction: whoever notes the answer asks for that.
        let _ = transaction
            .run(&"ROLLBACK TO SAVEPOINT hookline".into(), Vec::new())
            .await;
    }
    let _ = transaction.run(&"RELEASE SAVEPOINT hookline".into(), Vec::new()).await;
    Err(refused(script, fault))
}

fn refused(script: &Script, fault: Fault) -> Problem {
    let error = fault.theirs("statements");
    if error.kind.is_passing() {
        let source = error.source.unwrap_or_else(|| "the database went away".into());
        return Problem::Passing(Fault {
            nature: Nature::Away,
            source,
        });
    }
    let said = error.source.map(|source| source.to_string()).unwrap_or_default();
    Problem::Refused(Error::because(
        error.kind,
        error.verb,
        format!("{}: {said}", script.rule),
    ))
}
