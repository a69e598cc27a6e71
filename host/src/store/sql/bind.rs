//! `Value` into any engine: the bounds that it takes live here and nowhere else.

use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Database, Encode, Type};

use super::Sql;
use crate::model::value::Value;

/// A prepared statement with its parameters.
pub(super) fn bind<DB>(sql: &Sql, params: Vec<Value>) -> Query<'static, DB, DB::Arguments>
where
    DB: Database,
    Option<i64>: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
    bool: for<'q> Encode<'q, DB> + Type<DB>,
    f64: for<'q> Encode<'q, DB> + Type<DB>,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    Vec<u8>: for<'q> Encode<'q, DB> + Type<DB>,
{
    // Texts are ours or the operator's; what clients send only ever comes as a parameter.
    let query = sqlx::query::<DB>(AssertSqlSafe(sql.clone()));
    params.into_iter().fold(query, |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Bool(value) => query.bind(value),
        Value::Int(value) => query.bind(value),
        Value::Float(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(Vec::from(value)),
    })
}
