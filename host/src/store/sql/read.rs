//! Reading pages: by topic where the filter names one, else by id, matched here. Every call looks at a bounded
//! number of rows, and says how far it got whether or not anything matched.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::row::{id, message, position};
use super::statements::Reads;
use super::write::places;
use super::{Driver, SqlStore};
use crate::model::delivery::{Page, Window};
use crate::model::event::seconds;
use crate::model::id::MessageId;
use crate::model::topic::Filter;
use crate::model::value::Value;
use crate::store::{Error, Kind, Result};

/// Rows that one call looks at.
const LOOK: i64 = 5_000;

/// How far a look got.
struct Reach {
    last: i64,
    end: bool,
}

/// A look for topics that match: ids in ascending order, and how far it got.
struct Found {
    ids: Vec<i64>,
    reach: Reach,
}

impl<D: Driver> SqlStore<D> {
    pub(super) async fn page(
        &self,
        verb: &'static str,
        reads: &Reads,
        filter: &Filter,
        window: Window,
    ) -> Result<Page> {
        match filter.is_exact() {
            true => self.topic_page(verb, reads, filter, window).await,
            false => self.filter_page(verb, reads, filter, window).await,
        }
    }

    /// The page with the places of its messages among those that are not retained.
    pub(super) async fn with_places(&self, verb: &'static str, mut page: Page) -> Result<Page> {
        let ids = page.messages.iter().map(|(_, message)| message.id);
        let texts: HashMap<String, MessageId> = ids.map(|id| (id.text(self.form.ids), id)).collect();
        let wanted: Vec<Value> = texts.keys().map(|text| text.as_str().into()).collect();
        for (piece, sql) in self.sql.find.pieces(wanted.len()) {
            let found = places(self.rows(verb, sql, wanted[piece].to_vec()).await?);
            let found = found.into_iter();
            let found = found.filter_map(|(text, place)| Some((*texts.get(&text)?, position(place))));
            page.places.extend(found);
        }
        Ok(page)
    }

    async fn topic_page(&self, verb: &'static str, reads: &Reads, filter: &Filter, window: Window) -> Result<Page> {
        let topic = || Value::from(filter.as_str());
        let after = id(window.after);
        let limit = window.limit.clamp(1, LOOK as usize);
        let params = vec![topic(), Value::Int(after), Value::Int(limit as i64)];
        let reach = reach(
            verb,
            self.rows(verb, &reads.reach_topic, params).await?,
            after,
            limit as i64,
        )?;
        let mut params = vec![topic(), Value::Int(after), Value::Int(reach.last)];
        params.extend(lives(window));
        params.push(Value::Int(limit as i64));
        let rows = self.rows(verb, &reads.topic, params).await?;
        let full = rows.len() == limit;
        finish(verb, rows, reach, full)
    }

    async fn filter_page(&self, verb: &'static str, reads: &Reads, filter: &Filter, window: Window) -> Result<Page> {
        let Found { mut ids, reach } = self.look(verb, reads, filter, window).await?;
        let limit = window.limit.clamp(1, LOOK as usize);
        let full = ids.len() >= limit;
        ids.truncate(limit);
        let mut rows = Vec::with_capacity(ids.len());
        for (piece, sql) in reads.messages.pieces(ids.len()) {
            let params = ids[piece].iter().map(|id| Value::Int(*id)).collect();
            rows.extend(self.rows(verb, sql, params).await?);
        }
        let mut page = finish(verb, rows, reach, false)?;
        if let Some(last) = ids.last().filter(|_| full) {
            page.end &= position(*last) == page.scanned;
            page.scanned = position(*last);
        }
        Ok(page)
    }

    /// Few rows under the filter's prefix: the topic index finds them. Else by id, a stretch at a time.
    async fn look(&self, verb: &'static str, reads: &Reads, filter: &Filter, window: Window) -> Result<Found> {
        let after = id(window.after);
        let range = range(filter.literal_prefix());
        if let Some((from, to)) = &range {
            let bounds = || vec![Value::from(from.as_str()), Value::from(to.as_str())];
            let params = [bounds(), vec![Value::Int(LOOK)]].concat();
            let counted = self.rows(verb, &reads.count_range, params).await?;
            if matches!(counted.first().and_then(|row| row.first()), Some(Value::Int(count)) if *count < LOOK) {
                let mut params = [bounds(), vec![Value::Int(after)]].concat();
                params.extend(lives(window));
                params.push(Value::Int(LOOK));
                let listed = listed(verb, self.rows(verb, &reads.range, params).await?)?;
                let reach = Reach {
                    last: listed.last().map_or(after, |(id, _)| *id),
                    // More came in between: not all of them were listed.
                    end: (listed.len() as i64) < LOOK,
                };
                let ids = matching(listed, filter);
                return Ok(Found { ids, reach });
            }
        }
        let params = vec![Value::Int(after), Value::Int(LOOK)];
        let reach = reach(verb, self.rows(verb, &reads.reach, params).await?, after, LOOK)?;
        let mut params = vec![Value::Int(after), Value::Int(reach.last)];
        let sql = match range {
            Some((from, to)) => {
                params.extend([from.into(), to.into()]);
                &reads.ids_in_range
            }
            None => &reads.ids,
        };
        params.extend(lives(window));
        let listed = listed(verb, self.rows(verb, sql, params).await?)?;
        let ids = matching(listed, filter);
        Ok(Found { ids, reach })
    }
}

/// The parameters of what is worth delivering: not expired, not older than asked.
fn lives(window: Window) -> [Value; 2] {
    let since = window.since.map_or(0, seconds);
    [Value::Int(seconds(SystemTime::now())), Value::Int(since)]
}

fn reach(verb: &'static str, rows: Vec<Vec<Value>>, after: i64, look: i64) -> Result<Reach> {
    match rows.first().map(Vec::as_slice) {
        Some([Value::Int(last), Value::Int(count)]) => Ok(Reach {
            last: *last,
            end: *count < look,
        }),
        Some([Value::Null, _]) => Ok(Reach { last: after, end: true }),
        _ => Err(Error::because(Kind::Corrupt, verb, "ids are not whole numbers")),
    }
}

fn listed(verb: &'static str, rows: Vec<Vec<Value>>) -> Result<Vec<(i64, String)>> {
    let pair = |row: Vec<Value>| match <[Value; 2]>::try_from(row) {
        Ok([Value::Int(id), Value::Text(topic)]) => Ok((id, topic)),
        _ => Err(Error::because(Kind::Corrupt, verb, "expected a row id and a topic")),
    };
    rows.into_iter().map(pair).collect()
}

fn matching(listed: Vec<(i64, String)>, filter: &Filter) -> Vec<i64> {
    let matching = listed.into_iter().filter(|(_, topic)| filter.matches(topic));
    matching.map(|(id, _)| id).collect()
}

fn finish(verb: &'static str, rows: Vec<Vec<Value>>, reach: Reach, full: bool) -> Result<Page> {
    let messages: std::result::Result<Vec<_>, _> = rows.into_iter().map(message).collect();
    let mut messages = messages.map_err(|bad| Error::because(Kind::Corrupt, verb, bad))?;
    let last = messages.last().map(|(place, _)| *place).filter(|_| full);
    let scanned = last.unwrap_or_else(|| position(reach.last));
    let now = SystemTime::now().max(UNIX_EPOCH);
    // The column has whole seconds, so the last one is looked at here.
    messages.retain(|(_, message)| !message.expired(now));
    Ok(Page {
        messages,
        scanned,
        end: reach.end && scanned == position(reach.last),
        places: HashMap::new(),
    })
}

/// The topics that start with `prefix`, as a range: LIKE ignores case. `None` where that is all of them.
fn range(prefix: &str) -> Option<(String, String)> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            end.push(next);
            return Some((prefix.to_owned(), end));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::delivery::Position;

    #[test]
    fn a_prefix_is_a_range_of_topics() {
        for (prefix, topics, others) in [
            ("a/", &["a/", "a/b", "a/\u{10FFFF}"][..], &["a", "a0", "A/b", "b"][..]),
            ("a", &["a", "a/b", "ab"], &["b", "A"]),
            ("\u{D7FF}", &["\u{D7FF}x"], &["\u{E000}"]),
            ("a\u{10FFFF}", &["a\u{10FFFF}x"], &["b"]),
        ] {
            let (from, to) = range(prefix).expect("not everything");
            let within = |topic: &&str| (from.as_str()..to.as_str()).contains(topic);
            assert!(topics.iter().all(within), "{prefix:?}");
            assert!(!others.iter().any(within), "{prefix:?}");
        }
        assert_eq!(range(""), None);
    }

    #[test]
    fn an_empty_page_names_where_it_looked() {
        let page = finish("unread", Vec::new(), Reach { last: 9, end: true }, false).expect("a page");
        assert_eq!((page.scanned, page.end), (Position(9), true));
    }
}
