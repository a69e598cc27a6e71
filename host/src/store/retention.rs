//! What may go, goes (spec D6): one task a pool, batch after batch through the writer that everything else goes
//! through, so that a purge never stands in front of more than one commit.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::{Counter, counter};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use strum::{EnumCount, IntoEnumIterator};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};

use super::needs::{Holds, Needs};
use super::options::PoolOptions;
use super::pool::Pool;
use super::upkeep::{Aged, AgedRow, Upkeep};
use super::{Result, Write, Written};
use crate::model::delivery::{PoolName, Position};
use crate::model::event::seconds;
use crate::model::hold::Hold;
use crate::model::topic::Filter;
use crate::telemetry;

/// Messages that are looked at, and at most deleted, at once.
const BATCH: usize = 1_000;
/// Messages of them that one commit deletes: others wait for that commit, and a thousand rows take it tens of
/// milliseconds where topics are many and the disk is slow.
const COMMIT: usize = 250;
/// Looks in which nothing may go, before the rest of the table waits for the next round.
const BARREN_LOOKS_MAX: usize = 50;
/// The longest rest after a commit.
const REST_MAX: Duration = Duration::from_millis(250);
/// A round ends with its `purge_interval`, but not before the first of these and not after the second.
const ROUND: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The shortest time between two complaints.
const QUIET: Duration = Duration::from_secs(3_600);
/// Filters that are told apart. Where there are more, nothing goes that the last reader of all has not read.
const FILTERS_MAX: usize = 100_000;
/// What a row takes beside its payload: ids, topic and three indexes' entries.
const ROW_BYTES: u64 = 200;

/// Why a message went; the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumCount, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Why {
    Acknowledged,
    Expired,
    Age,
    Size,
}

/// How many messages went, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Every reader had acknowledged them.
    pub acknowledged: u64,
    /// Their expiry had passed.
    pub expired: u64,
    /// They were older than `message_retention`.
    pub age: u64,
    /// There was more than `message_max_bytes`.
    pub size: u64,
}

impl Purged {
    fn of(&mut self, why: Why) -> &mut u64 {
        match why {
            Why::Acknowledged => &mut self.acknowledged,
            Why::Expired => &mut self.expired,
            Why::Age => &mut self.age,
            Why::Size => &mut self.size,
        }
    }

    fn sum(self) -> u64 {
        self.acknowledged + self.expired + self.age + self.size
    }
}

/// Who reads what a pool stores, as its rules say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readership {
    /// Readers with positions: what all of them have acknowledged nobody needs.
    pub positions: bool,
    /// A queue: whatever is still there is unread.
    pub queue: bool,
}

/// What a pool knows about what may go.
pub(super) struct Retention {
    holds: Holds,
    readership: Mutex<Readership>,
    total: Mutex<Purged>,
    counters: [Counter; Why::COUNT],
}

impl Retention {
    pub(super) fn new(pool: &PoolName) -> Self {
        let count = |why: Why| {
            let reason: &'static str = why.into();
            counter!(telemetry::MESSAGES_PURGED, "pool" => pool.to_string(), "reason" => reason)
        };
        Self {
            holds: Holds::default(),
            readership: Mutex::default(),
            total: Mutex::default(),
            counters: [Why::Acknowledged, Why::Expired, Why::Age, Why::Size].map(count),
        }
    }

    pub(super) fn hold(&self, filter: Filter) -> Hold {
        self.holds.take(filter)
    }

    pub(super) fn set_readership(&self, readership: Readership) {
        *self.readership.lock() = readership;
    }

    /// What went since the start.
    pub(super) fn total(&self) -> Purged {
        *self.total.lock()
    }

    /// See [`Pool::needs`].
    pub(super) async fn needs(&self, upkeep: &dyn Upkeep) -> Result<Needs> {
        if self.readership.lock().queue {
            return Ok(Needs::everything());
        }
        let floors = upkeep.floors(FILTERS_MAX).await?;
        Ok(Needs::new(floors, &self.holds.living()))
    }

    fn count(&self, why: Why, rows: u64) {
        *self.total.lock().of(why) += rows;
        self.counters[why as usize].increment(rows);
    }
}

/// Whether anything of this pool is ever deleted.
pub(super) fn is_wanted(options: &PoolOptions) -> bool {
    options.purge_acknowledged || options.message_retention.is_some() || options.message_max_bytes.is_some()
}

/// The task: looks every `purge_interval` until the pool closes.
pub(super) async fn work(pool: Arc<Pool>) {
    let period = pool.options().purge_interval;
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purge = Purge {
        pool: pool.clone(),
        seen: Position::START,
        cursor: Position::START,
        complained: None,
    };
    let rounds = async {
        loop {
            ticks.tick().await;
            if pool.is_up()
                && let Some(upkeep) = pool.upkeep()
                && let Err(error) = purge.round(upkeep).await
            {
                tracing::debug!(pool = %pool.name(), error = error.chain(), "purge put off");
            }
        }
    };
    // A batch that is with the writer is done or cancelled there; nobody waits for its answer then.
    tokio::select! {
        () = rounds => {}
        () = pool.closing() => {}
    }
}

/// What goes on from one round to the next.
struct Purge {
    pool: Arc<Pool>,
    /// The newest message of the round before: what came later was not there long enough to be called read.
    seen: Position,
    /// How far the table was looked through.
    cursor: Position,
    /// When was last said that nothing may go though there is too much.
    complained: Option<Instant>,
}

/// One round's rules.
struct Rules {
    needs: Needs,
    /// What every reader has acknowledged goes up to here.
    acknowledged_to: Position,
    /// Nothing behind it is judged: its readers may have begun after they were asked.
    newest: Position,
    now_s: i64,
    arrived_before_s: Option<i64>,
    force: bool,
}

impl Rules {
    fn is_needed(&self, row: &AgedRow) -> bool {
        row.place > self.needs.floor(&row.topic)
    }

    fn is_judged(&self, row: &AgedRow) -> bool {
        row.place <= self.newest
    }

    fn is_old(&self, row: &AgedRow) -> bool {
        self.arrived_before_s.is_some_and(|before| row.arrived_s < before)
    }

    /// Why this message may go, its bytes apart.
    fn why(&self, row: &AgedRow) -> Option<Why> {
        if !self.is_judged(row) {
            return None;
        }
        if row.expires_s.is_some_and(|expires| expires < self.now_s) {
            return Some(Why::Expired);
        }
        if self.is_old(row) && (self.force || !self.is_needed(row)) {
            return Some(Why::Age);
        }
        (row.place <= self.acknowledged_to && !self.is_needed(row)).then_some(Why::Acknowledged)
    }
}

impl Purge {
    async fn round(&mut self, upkeep: &dyn Upkeep) -> Result<()> {
        let began = Instant::now();
        let deadline = began + self.pool.options().purge_interval.clamp(ROUND.0, ROUND.1);
        let rules = self.rules(upkeep).await?;
        let mut purged = Purged::default();
        let done = match self.oldest(upkeep, &rules, deadline, &mut purged).await {
            Ok(()) => self.sweep(upkeep, &rules, deadline, &mut purged).await,
            failed => failed,
        };
        self.seen = rules.newest;
        if purged.sum() > 0 {
            let Purged {
                acknowledged,
                expired,
                age,
                size,
            } = purged;
            let seconds = began.elapsed().as_secs_f32();
            tracing::info!(pool = %self.pool.name(), acknowledged, expired, age, size, seconds, "purged messages");
        }
        done
    }

    async fn rules(&self, upkeep: &dyn Upkeep) -> Result<Rules> {
        let options = self.pool.options();
        let retention = self.pool.retention();
        // Before the readers: one that begins later begins behind it, or wants what age and size leave it.
        let newest = self.pool.call("newest", upkeep.newest()).await?;
        let readership = *retention.readership.lock();
        let by_reading = options.purge_acknowledged && options.initial_position == crate::model::event::Start::Latest;
        let acknowledged_to = match by_reading && readership.positions && !readership.queue {
            true => self.seen.min(newest),
            false => Position::START,
        };
        let now = SystemTime::now();
        let arrived_before = options.message_retention.and_then(|age| now.checked_sub(age));
        Ok(Rules {
            needs: self.pool.needs(upkeep).await?,
            acknowledged_to,
            newest,
            now_s: seconds(now),
            arrived_before_s: arrived_before.map(seconds),
            force: options.retention_force,
        })
    }

    /// From the oldest on: what is too old, and as much as is too much. Ends at the first look that takes nothing.
    async fn oldest(
        &mut self,
        upkeep: &dyn Upkeep,
        rules: &Rules,
        deadline: Instant,
        purged: &mut Purged,
    ) -> Result<()> {
        let mut after = Position::START;
        loop {
            let mut excess = self.excess(upkeep).await?;
            if excess == 0 && rules.arrived_before_s.is_none() {
                return Ok(());
            }
            let too_much = excess;
            let Aged { rows, end } = self.pool.call("aged", upkeep.aged(after, BATCH)).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.place;
            let why = |row: &AgedRow| {
                let too_much = excess > 0 && rules.is_judged(row) && (rules.force || !rules.is_needed(row));
                let why = rules.why(row).or(too_much.then_some(Why::Size));
                if why.is_some() {
                    excess = excess.saturating_sub(row.bytes + ROW_BYTES);
                }
                why
            };
            let taken = self.take(&rows, why, deadline, purged).await?;
            if taken == 0 && too_much > 0 && !rules.force {
                self.complain(too_much);
            }
            if taken == 0 || end || Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    /// Says, now and then, that the disk fills for somebody's sake.
    fn complain(&mut self, bytes: u64) {
        if self.complained.is_some_and(|last| last.elapsed() < QUIET) {
            return;
        }
        self.complained = Some(Instant::now());
        tracing::warn!(
            pool = %self.pool.name(),
            bytes,
            "more is stored than message_max_bytes, but somebody has not acknowledged the oldest messages: see \
             mqtt_acked, or set retention_force = true"
        );
    }

    /// How many bytes are too much.
    async fn excess(&self, upkeep: &dyn Upkeep) -> Result<u64> {
        match self.pool.options().message_max_bytes {
            Some(max) => {
                let used = self.pool.call("used_bytes", upkeep.used_bytes()).await?;
                Ok(used.saturating_sub(max))
            }
            None => Ok(0),
        }
    }

    /// Goes on through the table where the round before ended: what has expired, and what everybody has read.
    async fn sweep(
        &mut self,
        upkeep: &dyn Upkeep,
        rules: &Rules,
        deadline: Instant,
        purged: &mut Purged,
    ) -> Result<()> {
        let mut barren = 0;
        while barren < BARREN_LOOKS_MAX && Instant::now() < deadline {
            let Aged { rows, end } = self.pool.call("aged", upkeep.aged(self.cursor, BATCH)).await?;
            let taken = self.take(&rows, |row| rules.why(row), deadline, purged).await?;
            barren += usize::from(taken == 0);
            self.cursor = match rows.last() {
                Some(last) if !end && last.place <= rules.newest => last.place,
                _ => Position::START,
            };
            if self.cursor == Position::START {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Deletes what `why` says. Answers how many rows it asked to delete.
    async fn take(
        &self,
        rows: &[AgedRow],
        mut why: impl FnMut(&AgedRow) -> Option<Why>,
        deadline: Instant,
        purged: &mut Purged,
    ) -> Result<usize> {
        let doomed: Vec<(Position, Why)> = rows.iter().filter_map(|row| Some((row.place, why(row)?))).collect();
        for reason in Why::iter() {
            let places = doomed.iter().filter(|(_, why)| *why == reason);
            let places: Vec<Position> = places.map(|(place, _)| *place).collect();
            for places in places.chunks(COMMIT) {
                // Publishers wait already: they go first, for as long as this round lasts.
                if timeout_at(deadline, self.pool.batcher().relieved()).await.is_err() {
                    return Ok(0);
                }
                let began = Instant::now();
                let written = self.pool.batcher().ask(Write::Purge(places.into())).await?;
                if let Written::Removed(rows) = written {
                    self.pool.retention().count(reason, rows);
                    *purged.of(reason) += rows;
                }
                // Half of the writer's time is for everybody else.
                sleep(began.elapsed().min(REST_MAX)).await;
            }
        }
        Ok(doomed.len())
    }
}
