//! The keys of pools and backends, with the types of their values (spec A3), as tables.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ByteSize, Config, Hosts, Limit, OrOff, Secret, Setting, SizeLimit, TimeLimit};

use super::backend::Backend;

/// A key, and how its value is checked.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) check: fn(&mut Config, &str),
}

const fn key(name: &'static str, check: fn(&mut Config, &str)) -> Key {
    Key { name, check }
}

pub(super) fn is<T: Setting>(config: &mut Config, key: &str) {
    config.get::<T>(key);
}

fn one_of(config: &mut Config, key: &str, words: &[&str]) {
    let words: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
    config.choice(key, &words);
}

/// `utc`, `local` or an offset such as `+08:00`.
struct Zone;

impl Setting for Zone {
    const EXPECTED: &'static str = "utc, local or an offset such as +08:00";
    fn parse(text: &str) -> Option<Self> {
        if matches!(text, "utc" | "local") {
            return Some(Self);
        }
        let (hours, minutes) = text.strip_prefix(['+', '-'])?.split_once(':')?;
        let digits = hours.len() == 2 && minutes.len() == 2;
        let fine = digits && hours.parse::<u8>().ok()? <= 14 && minutes.parse::<u8>().ok()? < 60;
        fine.then_some(Self)
    }
}

const COUNT: fn(&mut Config, &str) = is::<NonZeroUsize>;
const TIME: fn(&mut Config, &str) = is::<Duration>;
const FLAG: fn(&mut Config, &str) = is::<bool>;
const FILE: fn(&mut Config, &str) = is::<PathBuf>;
pub(super) const TEXT: fn(&mut Config, &str) = is::<String>;
const MILLIS: fn(&mut Config, &str) = is::<u32>;

/// Ours, of every backend's pools.
pub(super) const EVERY: &[Key] = &[
    key("connect_timeout", TIME),
    key("query_timeout", TIME),
    key("health_check_interval", TIME),
    key("write_mode", |c, k| {
        one_of(c, k, &["before_ack", "async", "before_route"])
    }),
    key("on_overflow", |c, k| one_of(c, k, &["drop_new", "drop_old", "reject"])),
    key("ack_timeout", TIME),
    key("queue_max_len", COUNT),
    key("queue_max_bytes", is::<ByteSize>),
    key("retry_max_age", TIME),
    key("batch_size", COUNT),
    key("batch_linger", TIME),
    key("msgid_format", |c, k| one_of(c, k, &["base62", "hex", "base64"])),
    key("timezone", is::<Zone>),
    key("initial_position", |c, k| one_of(c, k, &["earliest", "latest"])),
    key("fetch_page", COUNT),
    key("fetch_on_resume", FLAG),
    key("fetch_lookback", TIME),
    key("fetch_retry_for", TIME),
    key("drain", FLAG),
    key("ack_mode", |c, k| one_of(c, k, &["watermark", "last"])),
    key("wildcard_fetch", FLAG),
    key("respect_clean_session", FLAG),
    key("persist_sessions", FLAG),
    key("max_retained_fetch", COUNT),
    key("dead_letter", is::<OrOff<PathBuf>>),
    key("message_retention", is::<TimeLimit>),
    key("message_max_bytes", is::<SizeLimit>),
    key("retention_force", FLAG),
    key("purge_acknowledged", FLAG),
    key("purge_interval", TIME),
    key("record_node", FLAG),
    key("keep_offline_at", FLAG),
    key("lookup_required", FLAG),
    key("init_schema", |c, k| one_of(c, k, &["off", "create", "upgrade"])),
    key("binary_payload", |c, k| one_of(c, k, &["base64", "hex", "drop"])),
    key("lwt", FLAG),
    key("channel_mode", |c, k| one_of(c, k, &["both", "consume", "publish"])),
];

/// Of every backend that is a server.
pub(super) const SERVERS: &[Key] = &[
    key("password", is::<Secret>),
    key("ssl", FLAG),
    key("keyfile", FILE),
    key("certfile", FILE),
    key("cacertfile", FILE),
    key("ssl.keyfile", FILE),
    key("ssl.certfile", FILE),
    key("ssl.cacertfile", FILE),
    key("ssl.verify", |c, k| one_of(c, k, &["verify_peer", "verify_none"])),
    key("ssl.server_name_indication", TEXT),
];

const SQLITE: &[Key] = &[key("file", FILE), key("pool_size", COUNT)];

const REDIS: &[Key] = &[
    key("type", |c, k| one_of(c, k, &["single", "sentinel", "cluster"])),
    key("server", is::<Hosts>),
    key("sentinel", TEXT),
    key("pool_size", COUNT),
    key("database", is::<u32>),
    key("channel", TEXT),
    key("lease", is::<OrOff<Duration>>),
];

const SQL: &[Key] = &[
    key("server", is::<Hosts>),
    key("pool_size", COUNT),
    key("user", TEXT),
    key("username", TEXT),
    key("database", TEXT),
];

const MONGO: &[Key] = &[
    key("type", |c, k| one_of(c, k, &["single", "unknown", "sharded", "rs"])),
    key("rs_set_name", TEXT),
    key("server", is::<Hosts>),
    key("c_pool_size", COUNT),
    key("pool_size", COUNT),
    key("database", TEXT),
    key("login", TEXT),
    key("username", TEXT),
    key("auth_source", TEXT),
    key("srv_record", FLAG),
    key("w_mode", |c, k| one_of(c, k, &["safe", "unsafe"])),
    // The vendor's own files misspell slave_ok.
    key("r_mode", |c, k| one_of(c, k, &["master", "slave_ok", "slaver_ok"])),
];

const CASSA: &[Key] = &[
    key("nodes", is::<Hosts>),
    key("size", COUNT),
    key("pool_size", COUNT),
    key("auto_reconnect", is::<u32>),
    key("username", TEXT),
    key("user", TEXT),
    key("keyspace", TEXT),
    key("logger", TEXT),
    key("clear_disconnected", FLAG),
    key("retain_wildcard", |c, k| one_of(c, k, &["off", "scan"])),
];

/// Of one backend.
pub(super) const fn own(backend: Backend) -> &'static [Key] {
    match backend {
        Backend::Sqlite => SQLITE,
        Backend::Redis => REDIS,
        Backend::Mysql | Backend::Pgsql => SQL,
        Backend::Mongo => MONGO,
        Backend::Cassa => CASSA,
    }
}

const REDIS_GENERAL: &[Key] = &[key("msg.expired_after", is::<i64>)];

const MONGO_GENERAL: &[Key] = &[
    key("topology.pool_size", COUNT),
    key("topology.max_overflow", MILLIS),
    key("topology.overflow_ttl", MILLIS),
    key("topology.overflow_check_period", MILLIS),
    key("topology.local_threshold_ms", MILLIS),
    key("topology.connect_timeout_ms", MILLIS),
    key("topology.socket_timeout_ms", MILLIS),
    key("topology.server_selection_timeout_ms", MILLIS),
    key("topology.wait_queue_timeout_ms", MILLIS),
    key("topology.heartbeat_frequency_ms", MILLIS),
    key("topology.min_heartbeat_frequency_ms", MILLIS),
];

/// Of a backend as a whole.
pub(super) const fn general(backend: Backend) -> &'static [Key] {
    match backend {
        Backend::Redis => REDIS_GENERAL,
        Backend::Mongo => MONGO_GENERAL,
        Backend::Sqlite | Backend::Mysql | Backend::Pgsql | Backend::Cassa => &[],
    }
}

/// How much of a backlog is sent.
pub(super) const LIMITS: &[Key] = &[
    key("max_returned_count", is::<Limit>),
    key("time_range", is::<TimeLimit>),
];
