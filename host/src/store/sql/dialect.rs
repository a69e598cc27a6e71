//! Where the engines disagree, and nowhere else.

/// How one engine writes what the others write differently.
pub struct Dialect {
    /// The placeholder of the n-th parameter, from 1: `?` or `$1`.
    pub placeholder: fn(usize) -> String,
    /// Before the rows of an insert that keeps what is there already.
    pub keep_first: &'static str,
    /// After them; the answer names id and msgid of the rows that are new.
    pub keep_first_answer: &'static str,
    /// What an insert of a row whose key is there already changes, and under which condition.
    pub upsert: fn(key: &str, change: &[Change], guard: Option<&str>) -> String,
    /// The value that a row would have been inserted with: `excluded.mid`.
    pub incoming: fn(column: &str) -> String,
    /// The larger of two values: `max` or `greatest`.
    pub larger: &'static str,
    /// The newest id ever given out in `mqtt_msg`, in a column of its own; no row where there was none.
    pub newest: &'static str,
}

/// A column and the expression that it becomes.
pub struct Change {
    /// The column.
    pub column: &'static str,
    /// Its new value.
    pub to: String,
}
