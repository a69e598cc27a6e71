//! One statement on one connection: its answer as values, or what its failure means.

use sqlx::sqlite::SqliteRow;
use sqlx::{Column, Row, SqliteConnection, TypeInfo, ValueRef};

use crate::model::value::{Rows, Value};
use crate::store::sql::bind::bind;
use crate::store::sql::{Fault, Nature, Sql};

/// A statement and its rows.
pub(super) async fn query(connection: &mut SqliteConnection, sql: &Sql, params: Vec<Value>) -> Result<Rows, Fault> {
    let rows = bind(sql, params).fetch_all(connection).await.map_err(fault)?;
    let columns = rows
        .first()
        .map(|row| row.columns().iter().map(|column| column.name().to_owned()).collect());
    let values: Result<Vec<Vec<Value>>, Fault> = rows
        .iter()
        .map(|row| (0..row.len()).map(|at| value(row, at)).collect())
        .collect();
    Ok(Rows {
        columns: columns.unwrap_or_default(),
        rows: values?,
    })
}

/// A statement and how many rows it changed.
pub(super) async fn run(connection: &mut SqliteConnection, sql: &Sql, params: Vec<Value>) -> Result<u64, Fault> {
    let done = bind::<sqlx::Sqlite>(sql, params).execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(fault)
}

fn value(row: &SqliteRow, at: usize) -> Result<Value, Fault> {
    let raw = row.try_get_raw(at).map_err(fault)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let value = match raw.type_info().name() {
        "INTEGER" => row.try_get_unchecked(at).map(Value::Int),
        "REAL" => row.try_get_unchecked(at).map(Value::Float),
        "TEXT" => row.try_get_unchecked(at).map(Value::Text),
        _ => row
            .try_get_unchecked::<Vec<u8>, _>(at)
            .map(|bytes| Value::Bytes(bytes.into())),
    };
    value.map_err(fault)
}

pub(super) const BUSY: i32 = 5;
pub(super) const LOCKED: i32 = 6;
pub(super) const READONLY: i32 = 8;
pub(super) const FULL: i32 = 13;

/// The engine's primary result code.
pub(super) fn code(fault: &Fault) -> Option<i32> {
    let error = fault.source.downcast_ref::<sqlx::Error>()?;
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Spec D0: what the engine's codes mean. Whatever is not named is taken for a passing fault: a gate that stays
/// open is better than an acknowledgement refused by mistake.
pub(super) fn fault(error: sqlx::Error) -> Fault {
    const ERROR: i32 = 1;
    const TOOBIG: i32 = 18;
    const CONSTRAINT: i32 = 19;
    const MISMATCH: i32 = 20;
    const MISUSE: i32 = 21;
    const AUTH: i32 = 23;
    const RANGE: i32 = 25;
    let by_kind = match &error {
        sqlx::Error::PoolTimedOut => Nature::Slow,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => Nature::Unreadable,
        sqlx::Error::Encode(_) | sqlx::Error::Protocol(_) => Nature::Statement,
        _ => Nature::Away,
    };
    let mut fault = Fault {
        nature: by_kind,
        source: error.into(),
    };
    match code(&fault) {
        Some(CONSTRAINT | TOOBIG | MISMATCH) => fault.nature = Nature::Row,
        Some(ERROR | MISUSE | AUTH | RANGE) => fault.nature = Nature::Statement,
        _ => {}
    }
    fault
}

/// A passing fault that the engine knows nothing of.
pub(super) fn away(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault {
        nature: Nature::Away,
        source: source.into(),
    }
}
