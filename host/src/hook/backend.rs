//! The kinds of database that rules can name, and what their plugins' files look like.

use std::path::{Path, PathBuf};

use crate::config::{Config, Overrides};
use crate::model::delivery::PoolName;

use super::statement::Dialect;

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, strum::EnumIter)]
pub enum Backend {
    /// A file, nothing to install.
    Sqlite,
    /// Redis.
    Redis,
    /// MySQL and MariaDB.
    Mysql,
    /// PostgreSQL.
    Pgsql,
    /// MongoDB.
    Mongo,
    /// Cassandra.
    Cassa,
}

/// Words that stand where a pool's name would, and are none (spec A2).
const NO_POOLS: [&str; 6] = ["hook", "msg", "topology", "max_returned_count", "time_range", "rule"];

impl Backend {
    /// `sqlite`: in keys, pool names, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
            Self::Pgsql => "pgsql",
            Self::Mongo => "mongo",
            Self::Cassa => "cassa",
        }
    }

    /// The backend of this name.
    pub fn named(name: &str) -> Option<Self> {
        use strum::IntoEnumIterator;
        Self::iter().find(|backend| backend.name() == name)
    }

    /// `emqx_backend_sqlite`: what `hookline plugins` calls it.
    pub const fn plugin(self) -> &'static str {
        match self {
            Self::Sqlite => "emqx_backend_sqlite",
            Self::Redis => "emqx_backend_redis",
            Self::Mysql => "emqx_backend_mysql",
            Self::Pgsql => "emqx_backend_pgsql",
            Self::Mongo => "emqx_backend_mongo",
            Self::Cassa => "emqx_backend_cassa",
        }
    }

    /// The file of its plugin.
    pub fn file(self, etc: &Path) -> PathBuf {
        etc.join("plugins").join(format!("{}.conf", self.plugin()))
    }

    /// What its keys begin with. Rules lie below the first; pools below any, the usual one last.
    pub const fn sections(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &["backend.sqlite"],
            Self::Redis => &["backend.redis"],
            Self::Mysql => &["backend.mysql"],
            Self::Pgsql => &["backend.pgsql"],
            Self::Mongo => &["backend.mongo"],
            Self::Cassa => &["backend.cassa", "backend.ecql"],
        }
    }

    /// `backend.sqlite`: what the keys of its rules and limits begin with.
    pub const fn section(self) -> &'static str {
        self.sections()[0]
    }

    /// What a custom action is called in its rules; MongoDB has none.
    pub const fn custom_action(self) -> Option<&'static str> {
        match self {
            Self::Sqlite | Self::Mysql | Self::Pgsql => Some("sql"),
            Self::Redis => Some("commands"),
            Self::Cassa => Some("cql"),
            Self::Mongo => None,
        }
    }

    /// How its statements are written; Redis and MongoDB have none.
    pub const fn dialect(self) -> Option<&'static Dialect> {
        match self {
            Self::Sqlite => Some(&Dialect::SQLITE),
            Self::Mysql => Some(&Dialect::MYSQL),
            Self::Pgsql => Some(&Dialect::PGSQL),
            Self::Cassa => Some(&Dialect::CASSA),
            Self::Redis | Self::Mongo => None,
        }
    }

    /// Whether this version can open its pools.
    pub const fn has_store(self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// What loading the plugin of a backend without a store answers; `None` where there is one.
    pub fn missing_store(self) -> Option<String> {
        let name = self.name();
        (!self.has_store()).then(|| {
            format!(
                "the {name} store is not in this version: the rules of {} are checked but cannot be loaded",
                self.plugin()
            )
        })
    }

    /// Reads its plugin's file with the overrides that belong to it.
    pub fn read(self, file: &Path, overrides: &Overrides) -> Config {
        Config::read_sections(file, overrides, self.sections())
    }

    /// The pools that a file defines: every word below a section that has keys below it (spec A2).
    pub fn pools(self, config: &Config) -> Vec<PoolName> {
        let mut pools = Vec::new();
        for section in self.sections() {
            for word in config.below(section) {
                let has_keys = !config.keys(&format!("{section}.{word}")).is_empty();
                let pool = PoolName::new(self.name(), &word);
                if has_keys && !NO_POOLS.contains(&word.as_str()) && !pools.contains(&pool) {
                    pools.push(pool);
                }
            }
        }
        let poolless = ["server", "sentinel"].map(|key| format!("{}.{key}", self.section()));
        if self == Self::Redis && pools.is_empty() && poolless.iter().any(|key| config.has(key)) {
            pools.push(PoolName::new(self.name(), "pool1"));
        }
        pools
    }
}
