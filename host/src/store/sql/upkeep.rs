//! What an operator asks of an SQL database: what the tables say is asked here, what the engine knows is the
//! driver's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use super::row::{id, position};
use super::{Driver, SqlStore};
use crate::model::delivery::Position;
use crate::model::value::Value;
use crate::store::upkeep::{Aged, AgedRow, Copied, Floors, Status, Upkeep, Watch};
use crate::store::{Error, Kind, Result};

/// Bytes of payloads that one look passes by.
const LOOK_BYTES_MAX: u64 = 16 << 20;

#[async_trait]
impl<D: Driver> Upkeep for SqlStore<D> {
    async fn floors(&self, limit: usize) -> Result<Floors> {
        let verb = "floors";
        let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let rows = self
            .rows(verb, &self.sql.upkeep.floors, vec![Value::Int(one_more)])
            .await?;
        if rows.len() > limit {
            let smallest = self.rows(verb, &self.sql.upkeep.floor, Vec::new()).await?;
            let smallest = whole(smallest.first().and_then(|row| row.first()));
            return Ok(Floors {
                by_filter: Vec::new(),
                of_all: smallest.map(position),
            });
        }
        let floor = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
            Ok([Value::Text(filter), Value::Int(mid)]) => Ok((filter, position(mid))),
            _ => Err(Error::because(
                Kind::Corrupt,
                verb,
                "mqtt_acked: expected a text and a whole number",
            )),
        };
        let by_filter = rows.into_iter().map(floor).collect::<Result<_>>()?;
        Ok(Floors {
            by_filter,
            of_all: None,
        })
    }

    async fn newest(&self) -> Result<Position> {
        let rows = self.rows("newest", &self.sql.newest, Vec::new()).await?;
        let newest = whole(rows.first().and_then(|row| row.first()));
        Ok(position(newest.unwrap_or(0)))
    }

    async fn aged(&self, after: Position, limit: usize) -> Result<Aged> {
        let (after, many) = (Value::Int(id(after)), Value::Int(limit as i64));
        let listed = self
            .rows(AGED, &self.sql.upkeep.aged, vec![after.clone(), many])
            .await?;
        let all = listed.len();
        let sized = sized(listed)?;
        let Some((last, ..)) = sized.last() else {
            return Ok(Aged {
                rows: Vec::new(),
                end: true,
            });
        };
        let times = self
            .rows(AGED, &self.sql.upkeep.times, vec![after, Value::Int(*last)])
            .await?;
        let end = sized.len() == all && all < limit;
        let rows = timed(sized, times)?;
        Ok(Aged { rows, end })
    }

    async fn used_bytes(&self) -> Result<u64> {
        let bytes = self.driver.used_bytes().await;
        bytes.map_err(|fault| fault.ours("used_bytes"))
    }

    async fn status(&self) -> Result<Status> {
        self.driver.status().await.map_err(|fault| fault.ours("status"))
    }

    async fn check(&self, full: bool, watch: &Arc<Watch>) -> Result<Vec<String>> {
        let found = self.driver.check(full, watch).await;
        found.map_err(|fault| fault.ours("check"))
    }

    async fn copy(&self, to: &Path, watch: &Arc<Watch>) -> Result<Copied> {
        let copied = self.driver.copy(to, watch).await;
        copied.map_err(|fault| fault.ours("copy"))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.driver.files()
    }
}

const AGED: &str = "aged";

fn bad_row() -> Error {
    Error::because(Kind::Corrupt, AGED, "mqtt_msg: expected ids, topics and times")
}

/// Id, topic and bytes of as many rows as are worth one look.
fn sized(listed: Vec<Vec<Value>>) -> Result<Vec<(i64, String, u64)>> {
    let mut sized = Vec::with_capacity(listed.len());
    let mut left = LOOK_BYTES_MAX;
    for row in listed {
        let Ok([Value::Int(at), topic, Value::Int(bytes)]) = <[Value; 3]>::try_from(row) else {
            return Err(bad_row());
        };
        let bytes = u64::try_from(bytes).unwrap_or(0);
        if bytes > left && !sized.is_empty() {
            break;
        }
        left = left.saturating_sub(bytes);
        sized.push((at, text(topic), bytes));
    }
    Ok(sized)
}

/// The same with their times. A row may have gone in between, so they are matched by their ids.
fn timed(sized: Vec<(i64, String, u64)>, times: Vec<Vec<Value>>) -> Result<Vec<AgedRow>> {
    let mut sized = sized.into_iter().peekable();
    let mut rows = Vec::with_capacity(times.len());
    for row in times {
        let Ok([Value::Int(at), arrived, expires]) = <[Value; 3]>::try_from(row) else {
            return Err(bad_row());
        };
        while sized.next_if(|(other, ..)| *other < at).is_some() {}
        if let Some((_, topic, bytes)) = sized.next_if(|(other, ..)| *other == at) {
            rows.push(AgedRow {
                place: position(at),
                topic,
                arrived_s: whole(Some(&arrived)).unwrap_or(0),
                expires_s: whole(Some(&expires)),
                bytes,
            });
        }
    }
    Ok(rows)
}

fn whole(value: Option<&Value>) -> Option<i64> {
    match value {
        Some(Value::Int(value)) => Some(*value),
        _ => None,
    }
}

/// What is no text is no topic either, and matches no filter but `#`.
fn text(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        _ => String::new(),
    }
}
