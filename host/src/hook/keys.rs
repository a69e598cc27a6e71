//! The keys of pools and backends (spec A3): which there are, and whether their values can be read and can
//! be meant. For databases whose stores come later this is all that is done with them.

use crate::config::{Config, Hosts};
use crate::model::delivery::PoolName;

use super::backend::Backend;
use super::key_table::{EVERY, Key, LIMITS, SERVERS, TEXT, general, is, own};

/// Keys that mean the same; who writes both means one of them.
const SAME: [[&str; 2]; 4] = [
    ["user", "username"],
    ["login", "username"],
    ["c_pool_size", "pool_size"],
    ["size", "pool_size"],
];

/// The driver has no such thing; accepted because files have them.
const WITHOUT_EFFECT: [&str; 4] = [
    "max_overflow",
    "overflow_ttl",
    "overflow_check_period",
    "wait_queue_timeout_ms",
];

/// The keys that a pool of this backend can have.
pub fn known_pool_keys(backend: Backend) -> Vec<&'static str> {
    pool_keys(backend).map(|key| key.name).collect()
}

fn pool_keys(backend: Backend) -> impl Iterator<Item = &'static Key> {
    let servers = if backend == Backend::Sqlite { &[] } else { SERVERS };
    own(backend).iter().chain(servers).chain(EVERY)
}

/// Takes the keys of a backend and of its pools that no store has taken, and notes values that cannot be
/// read or cannot be meant. A store that does not ask for a key does nothing about it, so that is said.
pub fn check(backend: Backend, pools: &[PoolName], config: &mut Config) {
    for key in general(backend).iter().chain(LIMITS) {
        take(backend, key, backend.section(), config);
    }
    for pool in pools {
        for section in backend.sections() {
            let prefix = format!("{section}.{}", pool.pool());
            // Cassandra's pools may lie in two sections; names are suggested from the one in use.
            if config.keys(&prefix).is_empty() {
                continue;
            }
            for key in pool_keys(backend) {
                take(backend, key, &prefix, config);
            }
            same_twice(&prefix, config);
            impossible(backend, &prefix, config);
        }
    }
    match backend {
        Backend::Redis => poolless(backend, config),
        Backend::Mongo => without_effect(backend, config),
        Backend::Sqlite | Backend::Mysql | Backend::Pgsql | Backend::Cassa => {}
    }
}

fn take(backend: Backend, key: &Key, prefix: &str, config: &mut Config) {
    let full = format!("{prefix}.{}", key.name);
    let taken = config.is_known(&full) || !config.has(&full);
    // Keys without a store are known only where they are set, or they would be suggested to no avail.
    if taken && backend.has_store() {
        return;
    }
    (key.check)(config, &full);
    if backend.has_store() {
        config.warn(
            &full,
            format!("{full} has no effect on {} in this version; delete it", backend.name()),
        );
    }
}

fn same_twice(prefix: &str, config: &mut Config) {
    for [one, other] in SAME {
        let (one, other) = (format!("{prefix}.{one}"), format!("{prefix}.{other}"));
        if config.has(&one) && config.has(&other) {
            config.error(&other, format!("{other} and {one} mean the same; delete one"));
        }
    }
}

/// Values that can be read, but not together or not with this database.
fn impossible(backend: Backend, prefix: &str, config: &mut Config) {
    let name = backend.name();
    let by_id = matches!(backend, Backend::Redis | Backend::Cassa);
    let is = |config: &Config, key: &str, words: &[&str]| {
        let value = config.peek(&format!("{prefix}.{key}"));
        value.is_some_and(|value| words.contains(&value))
    };
    let error = |config: &mut Config, key: &str, text: &str| {
        let key = format!("{prefix}.{key}");
        config.error(&key, format!("{key} {text}"));
    };
    if by_id && is(config, "msgid_format", &["base64"]) {
        let text = format!("= base64: {name} orders messages by id, and base64 does not sort; write base62");
        error(config, "msgid_format", &text);
    }
    if by_id && is(config, "wildcard_fetch", &["on", "true"]) {
        let text = format!("= on: {name} has no order across topics; write off");
        error(config, "wildcard_fetch", &text);
    }
    if backend == Backend::Mongo && is(config, "type", &["rs"]) && !config.has(&format!("{prefix}.rs_set_name")) {
        let text = format!("= rs needs {prefix}.rs_set_name, the name of the replica set");
        error(config, "type", &text);
    }
    if backend == Backend::Mongo && is(config, "r_mode", &["slaver_ok"]) {
        let key = format!("{prefix}.r_mode");
        config.warn(&key, format!("{key} = slaver_ok is read as slave_ok; write that"));
    }
    if backend == Backend::Redis && is(config, "type", &["cluster"]) {
        in_cluster(prefix, config);
    }
}

fn in_cluster(prefix: &str, config: &mut Config) {
    let channel = format!("{prefix}.channel");
    if config.has(&channel) {
        config.warn(&channel, format!("{channel} has no effect in a cluster; delete it"));
    }
    let database = format!("{prefix}.database");
    if config.peek(&database).is_some_and(|number| number != "0") {
        let text = format!("{database} has no effect: a cluster has database 0 only; delete it");
        config.warn(&database, text);
    }
}

/// The seed prints Redis' sentinel keys without a pool.
fn poolless(backend: Backend, config: &mut Config) {
    for (name, check) in [("server", is::<Hosts> as fn(&mut Config, &str)), ("sentinel", TEXT)] {
        let key = format!("{}.{name}", backend.section());
        check(config, &key);
        if config.has(&key) {
            config.warn(
                &key,
                format!("{key} is read as {}.pool1.{name}; write that", backend.section()),
            );
        }
    }
}

fn without_effect(backend: Backend, config: &mut Config) {
    for name in WITHOUT_EFFECT {
        let key = format!("{}.topology.{name}", backend.section());
        if config.has(&key) {
            config.warn(
                &key,
                format!("{key} has no effect: the driver has no such thing; delete it"),
            );
        }
    }
}
