//! One named statement a verb, rendered for a dialect when the store is made. `?` stands for a value,
//! `{rows}` for as many rows as are written at once.

use std::iter;
use std::ops::Range;

use super::Sql;
use super::dialect::{Change, Dialect};
use super::session::Sessions;
use crate::model::id::IdFormat;

/// The columns of a message, in the order that `row.rs` reads.
pub(super) const MESSAGE: &str = "id, msgid, topic, sender, qos, retain, payload, arrived, props, expire_at";
/// A retained message is always retained, so its table has no such column.
const RETAINED: &str = "id, msgid, topic, sender, qos, 1, payload, arrived, props, expire_at";
const NOT_EXPIRED: &str = "(expire_at IS NULL OR expire_at >= ?) AND arrived >= ?";

/// Every statement of ours.
pub(super) struct Statements {
    pub(super) save: Rowed,
    pub(super) find: Rowed,
    pub(super) retain: Rowed,
    pub(super) clear_retained: Sql,
    /// Whether an older message is told by its id's text: `clear_retained` wants the id then, twice.
    pub(super) ids_sort: bool,
    pub(super) position: Sql,
    pub(super) newest: Sql,
    pub(super) begin: Sql,
    pub(super) advance: Rowed,
    pub(super) delete: Rowed,
    pub(super) purge: Rowed,
    pub(super) forget: Sql,
    pub(super) forget_client: Sql,
    pub(super) client: Rowed,
    pub(super) subscriptions: Sql,
    pub(super) mark_offline: Sql,
    pub(super) sessions: Sessions,
    pub(super) upkeep: Upkeep,
    pub(super) messages: Reads,
    pub(super) retained: Reads,
}

/// What an operator's questions and the retention ask.
pub(super) struct Upkeep {
    /// The smallest position of each filter.
    pub(super) floors: Sql,
    /// The smallest of all.
    pub(super) floor: Sql,
    /// Id, topic and bytes of the messages behind an id.
    pub(super) aged: Sql,
    /// Times of the messages between two ids.
    pub(super) times: Sql,
}

impl Upkeep {
    fn new(dialect: &Dialect) -> Self {
        let one = |text: &str| -> Sql { render(dialect, text).into() };
        Self {
            floors: one("SELECT topic, min(coalesce(mid, 0)) FROM mqtt_acked GROUP BY topic LIMIT ? + 0"),
            floor: one("SELECT min(coalesce(mid, 0)) FROM mqtt_acked"),
            // Length and topic lie before a large payload and times behind it, which is then read through: so
            // times are asked for apart, for as many rows as are worth it.
            aged: one(
                "SELECT id, topic, coalesce(length(payload), 0) FROM mqtt_msg WHERE id > ? ORDER BY id LIMIT ? + 0",
            ),
            times: one("SELECT id, arrived, expire_at FROM mqtt_msg WHERE id > ? AND id <= ? ORDER BY id"),
        }
    }
}

/// How one table is read in pages.
pub(super) struct Reads {
    /// How far a look at so many rows of a topic gets: the last id, and how many there were.
    pub(super) reach_topic: Sql,
    /// The same over all topics.
    pub(super) reach: Sql,
    /// The messages of a topic between two ids.
    pub(super) topic: Sql,
    /// How many rows lie in a range of topics, counting no further than asked.
    pub(super) count_range: Sql,
    /// Ids and topics in a range of topics, behind an id.
    pub(super) range: Sql,
    /// Ids and topics between two ids.
    pub(super) ids: Sql,
    /// Ids and topics between two ids and in a range of topics.
    pub(super) ids_in_range: Sql,
    /// The messages with these ids.
    pub(super) messages: Rowed,
}

impl Statements {
    /// `ids` is how this pool writes message ids: only where that sorts can an older retained message be told.
    pub(super) fn new(dialect: &Dialect, ids: IdFormat) -> Self {
        let one = |text: &str| -> Sql { render(dialect, text).into() };
        let rows = |text: &str, row: &'static str| Rowed::new(dialect, text, row);
        Self {
            save: rows(
                &format!(
                    "{} INTO mqtt_msg (msgid, topic, sender, node, qos, retain, payload, arrived, props, expire_at) \
                     VALUES {{rows}} {}",
                    dialect.keep_first, dialect.keep_first_answer
                ),
                "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ),
            find: rows("SELECT id, msgid FROM mqtt_msg WHERE msgid IN ({rows})", "?"),
            retain: rows(&retain(dialect, ids), "(?, ?, ?, ?, ?, ?, ?, ?, ?)"),
            ids_sort: sorts(ids),
            clear_retained: one(match sorts(ids) {
                true => {
                    "DELETE FROM mqtt_retain WHERE topic = ? AND \
                     (msgid IS NULL OR length(msgid) <> length(?) OR msgid <= ?)"
                }
                false => "DELETE FROM mqtt_retain WHERE topic = ?",
            }),
            position: one("SELECT mid FROM mqtt_acked WHERE clientid = ? AND topic = ?"),
            newest: one(dialect.newest),
            begin: one("INSERT INTO mqtt_acked (clientid, topic, mid, created) VALUES (?, ?, ?, ?)"),
            advance: rows(&advance(dialect), "(?, ?, ?, ?)"),
            delete: rows("DELETE FROM mqtt_msg WHERE msgid IN ({rows})", "?, ?, ?"),
            purge: rows("DELETE FROM mqtt_msg WHERE id IN ({rows})", "?"),
            upkeep: Upkeep::new(dialect),
            forget: one("DELETE FROM mqtt_acked WHERE clientid = ? AND topic = ?"),
            forget_client: one("DELETE FROM mqtt_acked WHERE clientid = ?"),
            client: rows(&client(dialect), "(?, ?, ?, ?, ?, ?)"),
            subscriptions: one("SELECT topic, qos FROM mqtt_sub WHERE clientid = ?"),
            mark_offline: one("UPDATE mqtt_client SET state = 0, offline_at = ? \
                               WHERE node = ? AND state = 1 AND (online_at IS NULL OR online_at < ?)"),
            sessions: Sessions::new(dialect),
            messages: Reads::new(dialect, "mqtt_msg", MESSAGE, &format!("qos > 0 AND {NOT_EXPIRED}")),
            retained: Reads::new(dialect, "mqtt_retain", RETAINED, NOT_EXPIRED),
        }
    }
}

impl Reads {
    fn new(dialect: &Dialect, table: &str, columns: &str, lives: &str) -> Self {
        let one = |text: String| -> Sql { render(dialect, &text).into() };
        // `LIMIT ? + 0`: SQLite plans a statement anew whenever a value bound to a bare LIMIT changes.
        let reach = |wanted: &str| {
            one(format!(
                "SELECT max(id), count(*) FROM (SELECT id FROM {table} WHERE {wanted}id > ? ORDER BY id LIMIT ? + 0) AS t"
            ))
        };
        let listed = |wanted: &str, limit: &str| {
            one(format!(
                "SELECT id, topic FROM {table} WHERE {wanted} AND {lives} ORDER BY id{limit}"
            ))
        };
        Self {
            reach_topic: reach("topic = ? AND "),
            reach: reach(""),
            topic: one(format!(
                "SELECT {columns} FROM {table} WHERE topic = ? AND id > ? AND id <= ? AND {lives} ORDER BY id LIMIT ? + 0"
            )),
            count_range: one(format!(
                "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE topic >= ? AND topic < ? LIMIT ? + 0) AS t"
            )),
            // `id + 0`: or the planner walks all ids behind the position for the sake of their order.
            range: listed("topic >= ? AND topic < ? AND id + 0 > ?", " LIMIT ? + 0"),
            ids: listed("id > ? AND id <= ?", ""),
            ids_in_range: listed("id > ? AND id <= ? AND topic >= ? AND topic < ?", ""),
            messages: Rowed::new(
                dialect,
                &format!("SELECT {columns} FROM {table} WHERE id IN ({{rows}}) ORDER BY id"),
                "?",
            ),
        }
    }
}

/// Whether text order is the order of time.
const fn sorts(ids: IdFormat) -> bool {
    !matches!(ids, IdFormat::Base64)
}

/// The newest message wins, told by its id where both are of one form (spec C6).
fn retain(dialect: &Dialect, ids: IdFormat) -> String {
    let new = dialect.incoming;
    let guard = format!(
        "mqtt_retain.msgid IS NULL OR length(mqtt_retain.msgid) <> length({new}) OR mqtt_retain.msgid <= {new}",
        new = new("msgid")
    );
    let columns = [
        "sender",
        "node",
        "qos",
        "payload",
        "arrived",
        "props",
        "expire_at",
        "msgid",
    ];
    let changes = columns.map(|column| Change {
        column,
        to: new(column),
    });
    let guard = sorts(ids).then_some(&*guard);
    format!(
        "INSERT INTO mqtt_retain (topic, msgid, sender, node, qos, payload, arrived, props, expire_at) VALUES {{rows}} {}",
        (dialect.upsert)("topic", &changes, guard)
    )
}

/// Positions never go back.
fn advance(dialect: &Dialect) -> String {
    let new = dialect.incoming;
    let larger = format!("{}(coalesce(mqtt_acked.mid, 0), {})", dialect.larger, new("mid"));
    let changes = [
        Change {
            column: "mid",
            to: larger,
        },
        Change {
            column: "created",
            to: new("created"),
        },
    ];
    format!(
        "INSERT INTO mqtt_acked (clientid, topic, mid, created) VALUES {{rows}} {}",
        (dialect.upsert)("clientid, topic", &changes, None)
    )
}

/// A connection that began replaces whatever was there. One that ended does so unless the row is of a newer
/// connection, or of one elsewhere that began in the same second (spec C3).
fn client(dialect: &Dialect) -> String {
    let new = dialect.incoming;
    let guard = format!(
        "{state} = 1 OR mqtt_client.online_at IS NULL OR mqtt_client.online_at < {online} \
         OR (mqtt_client.online_at = {online} AND mqtt_client.node = {node})",
        state = new("state"),
        online = new("online_at"),
        node = new("node")
    );
    let columns = ["state", "node", "offline_at", "online_at"];
    let changes = columns.map(|column| Change {
        column,
        to: new(column),
    });
    format!(
        "INSERT INTO mqtt_client (clientid, state, node, online_at, offline_at, created) VALUES {{rows}} {}",
        (dialect.upsert)("clientid", &changes, Some(&guard))
    )
}

/// A statement that takes many rows. Rendered for powers of two, so that a handful of prepared statements
/// serves every number of rows.
pub(super) struct Rowed {
    texts: Vec<Sql>,
}

impl Rowed {
    /// 2^8 rows of ten values stay far below every engine's limit of parameters.
    const POWERS: usize = 9;

    pub(super) fn new(dialect: &Dialect, text: &str, row: &str) -> Self {
        let render = |power: usize| {
            let rows: Vec<&str> = iter::repeat_n(row, 1 << power).collect();
            render(dialect, &text.replace("{rows}", &rows.join(", "))).into()
        };
        Self {
            texts: (0..Self::POWERS).map(render).collect(),
        }
    }

    /// The text for one row.
    pub(super) fn single(&self) -> &Sql {
        &self.texts[0]
    }

    /// Cuts `count` rows into ranges, each with the text that takes so many.
    pub(super) fn pieces(&self, count: usize) -> impl Iterator<Item = (Range<usize>, &Sql)> {
        let mut at = 0;
        iter::from_fn(move || {
            let left = count - at;
            let power = (left.checked_ilog2()? as usize).min(self.texts.len() - 1);
            let piece = at..at + (1 << power);
            at = piece.end;
            Some((piece, &self.texts[power]))
        })
    }
}

/// Numbers the placeholders.
pub(super) fn render(dialect: &Dialect, text: &str) -> String {
    let mut parts = text.split('?');
    let mut sql = parts.next().unwrap_or_default().to_owned();
    for (index, part) in parts.enumerate() {
        sql.push_str(&(dialect.placeholder)(index + 1));
        sql.push_str(part);
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::sqlite::DIALECT;

    #[test]
    fn rows_are_cut_into_powers_of_two() {
        let rowed = Rowed::new(&DIALECT, "VALUES {rows}", "(?)");
        for (count, expected) in [
            (0, vec![]),
            (5, vec![0..4, 4..5]),
            (7, vec![0..4, 4..6, 6..7]),
            (600, vec![0..256, 256..512, 512..576, 576..592, 592..600]),
        ] {
            let pieces: Vec<_> = rowed.pieces(count).map(|(piece, _)| piece).collect();
            assert_eq!(pieces, expected);
        }
        let (_, text) = rowed.pieces(2).next().expect("one piece");
        assert_eq!(&**text, "VALUES (?), (?)");
    }
}
