//! The operator's view of the pools: status, checks and backups, for the door.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::plugins::pool_health;
use crate::admin::store::{Retention, StoreStatus, Stores};
use crate::hook::Hooks;
use crate::store::backup::{self, Backup, Wanted};
use crate::store::pool::Pool;
use crate::store::upkeep::Watch;

/// The pools in use.
pub(super) struct Databases {
    hooks: Arc<Hooks>,
    /// One backup at a time: two would share the disk, and a name.
    backup: Mutex<()>,
}

impl Databases {
    pub(super) fn new(hooks: Arc<Hooks>) -> Self {
        let backup = Mutex::default();
        Self { hooks, backup }
    }

    /// The pool of this name; without one, the only pool there is.
    fn pool(&self, name: Option<&str>) -> Result<Arc<Pool>, String> {
        let pools = self.hooks.pools();
        let known = || {
            pools
                .iter()
                .map(|pool| pool.name().as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = match name {
            Some(name) => pools.iter().find(|pool| pool.name().as_str() == name),
            None if pools.len() == 1 => pools.first(),
            None if pools.is_empty() => return Err("no plugin with a pool is loaded".to_owned()),
            None => return Err(format!("say which pool with --pool: {}", known())),
        };
        let missing = || format!("there is no pool {}: there is {}", name.unwrap_or_default(), known());
        found.cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Stores for Databases {
    async fn status(&self) -> Vec<StoreStatus> {
        let mut stores = Vec::new();
        for pool in self.hooks.pools() {
            stores.push(status(&pool).await);
        }
        stores
    }

    async fn check(&self, pool: Option<String>, full: bool, watch: Arc<Watch>) -> Result<Vec<String>, String> {
        let pool = self.pool(pool.as_deref())?;
        let Some(upkeep) = pool.upkeep() else {
            return Err(format!("{}: use the database's own tools for a check", pool.name()));
        };
        let found = until_closing(&pool, &watch, upkeep.check(full, &watch)).await;
        found.map_err(|error| error.chain())
    }

    async fn backup(&self, pool: Option<String>, wanted: Wanted, watch: Arc<Watch>) -> Result<Backup, String> {
        let Ok(_one) = self.backup.try_lock() else {
            return Err("another backup is being made: wait for its end".to_owned());
        };
        let pool = self.pool(pool.as_deref())?;
        let made = until_closing(&pool, &watch, backup::backup(&pool, &wanted, &watch)).await;
        match &made {
            Ok(Backup {
                file,
                bytes,
                newest_id,
                seconds,
            }) => tracing::info!(pool = %pool.name(), file = %file.display(), bytes, newest_id, seconds, "backup made"),
            Err(reason) => tracing::info!(pool = %pool.name(), reason, "no backup made"),
        }
        made
    }
}

/// Work that stops when the pool closes, and is waited for all the same.
async fn until_closing<T>(pool: &Pool, watch: &Watch, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = pool.closing() => watch.stop(),
    }
    work.await
}

async fn status(pool: &Arc<Pool>) -> StoreStatus {
    let options = pool.options();
    // One that does not answer says so by its health.
    let database = pool.status().await.ok().flatten();
    let horizon = pool.horizon().await.ok().flatten();
    StoreStatus {
        health: pool_health(pool),
        waiting_bytes: pool.batcher().waiting_bytes() as u64,
        database,
        horizon: horizon.and_then(|position| u64::try_from(position.0).ok()),
        retention: Retention {
            age_s: options.message_retention.map(|age| age.as_secs()),
            bytes_max: options.message_max_bytes,
            acknowledged: options.purge_acknowledged,
            force: options.retention_force,
        },
        purged: pool.purged(),
    }
}
