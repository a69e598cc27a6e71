//! `hookline.conf` → the structs that its owners define. Key names are EMQ X 3's where it has one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::broker::{self, Anonymous};
use crate::config::{Addresses, ByteSize, Config, OrOff, Per, Problem, Setting};
use crate::model::delivery::PoolName;
use crate::model::message::Qos;
use crate::model::reason::Reason;
use crate::mqtt::limits::{Limits, QueueFull, Rate};
use crate::store::options::PoolOptions;

use super::Options;

/// Everything that `hookline.conf` says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name (`node.name`): in stored client states and message ids.
    pub node: String,
    /// The broker as a whole.
    pub broker: broker::Settings,
    /// What concerns one client.
    pub limits: Limits,
    /// Where health and metrics are served beside the Unix socket (`admin.listen`).
    pub admin_listen: Option<SocketAddr>,
    /// `log.level`.
    pub log_level: String,
    /// How long a stop may take (`drain_timeout`).
    pub drain_timeout: Duration,
    /// Unknown keys are errors (`strict_config`).
    pub strict: bool,
    /// The operator's subscriptions pass the access rules (`acl_check`); there are none yet.
    pub acl_check: bool,
}

impl Settings {
    /// Reads `hookline.conf`.
    pub fn load(options: &Options) -> (Self, Vec<Problem>) {
        let mut config = Config::read(&options.etc.join("hookline.conf"), &options.overrides);
        let settings = Self::take(&mut config);
        let strict = settings.strict;
        (settings, config.finish(strict))
    }

    /// Takes every key that somebody owns; what is left is nobody's.
    pub fn take(config: &mut Config) -> Self {
        let node = config.or("node.name", "hookline@127.0.0.1".to_owned());
        Self {
            broker: broker_settings(config, &node),
            node,
            limits: limits(config),
            admin_listen: config
                .get::<OrOff<SocketAddr>>("admin.listen")
                .and_then(|address| address.0),
            log_level: config.or("log.level", "info".to_owned()),
            drain_timeout: config.or("drain_timeout", Duration::from_secs(30)),
            strict: config.or("strict_config", true),
            acl_check: config.or("acl_check", false),
        }
    }
}

fn broker_settings(config: &mut Config, node: &str) -> broker::Settings {
    let default = broker::Settings::default();
    let listen = config
        .get::<Addresses>("listener.tcp.external")
        .map_or(default.listen, |addresses| addresses.0);
    let listen_ws = config
        .get::<OrOff<Addresses>>("listener.ws.external")
        .and_then(|addresses| addresses.0)
        .map_or(default.listen_ws, |addresses| addresses.0);
    let anonymous = match config.get::<String>("allow_anonymous").as_deref() {
        None | Some("loopback") => Anonymous::Loopback,
        Some("true" | "on") => Anonymous::Everybody,
        Some("false" | "off") => Anonymous::Nobody,
        Some(other) => {
            let text = format!("allow_anonymous: expected loopback, true or false, found `{other}`");
            config.error("allow_anonymous", text);
            Anonymous::Nobody
        }
    };
    let redirects = [
        ("off", None),
        ("temporary", Some(Reason::USE_ANOTHER_SERVER)),
        ("permanent", Some(Reason::SERVER_MOVED)),
    ];
    let redirect = config.choice("mqtt.redirect", &redirects).flatten();
    if redirect.is_some() && !config.has("mqtt.server_reference") {
        let text = "mqtt.redirect sends clients to another server: write its address as mqtt.server_reference";
        config.error("mqtt.redirect", text);
    }
    broker::Settings {
        redirect,
        node: node.to_owned(),
        sys_interval: config.or("broker.sys_interval", default.sys_interval),
        presence: config.or("module.presence", default.presence),
        listen,
        listen_ws,
        connections_max: config.or("listener.tcp.external.max_connections", default.connections_max),
        connection_rate_max: config
            .or("listener.tcp.external.max_conn_rate", default.connection_rate_max)
            .max(1),
        half_open_max: config.or("listener.tcp.external.max_half_open", default.half_open_max),
        half_open_bytes_max: config
            .or(
                "listener.tcp.external.max_half_open_bytes",
                ByteSize(default.half_open_bytes_max),
            )
            .0,
        idle_timeout: config.or("zone.external.idle_timeout", default.idle_timeout),
        anonymous,
        will_bytes_max: config.or("broker.max_wills_bytes", ByteSize(default.will_bytes_max)).0,
        retained_len_max: config.or("retainer.max_retained_messages", default.retained_len_max),
        retained_bytes_max: config
            .or("retainer.max_retained_bytes", ByteSize(default.retained_bytes_max))
            .0,
    }
}

fn limits(config: &mut Config) -> Limits {
    let default = Limits::default();
    let qos_max = match config.or("mqtt.max_qos_allowed", 2u16) {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    let queue_full = [("drop_old", QueueFull::DropOld), ("drop_new", QueueFull::DropNew)];
    let backoff: f64 = config.or("zone.external.keepalive_backoff", default.keep_alive_factor / 2.0);
    let expiry = config.get::<Duration>("zone.external.session_expiry_interval");
    let expiry_s = expiry.map(|expiry| u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX));
    Limits {
        packet_bytes_max: config.or("mqtt.max_packet_size", ByteSize(default.packet_bytes_max)).0,
        client_id_bytes_max: config.or("mqtt.max_clientid_len", default.client_id_bytes_max),
        topic_bytes_max: config.or("mqtt.max_topic_len", default.topic_bytes_max),
        topic_levels_max: config.or("mqtt.max_topic_levels", default.topic_levels_max),
        qos_max,
        topic_alias_max: config.or("mqtt.max_topic_alias", default.topic_alias_max),
        topic_alias_out_max: config.or("mqtt.max_topic_alias_out", default.topic_alias_out_max),
        receive_max: config.or("mqtt.receive_maximum", default.receive_max).max(1),
        server_keep_alive_s: config
            .get::<u16>("mqtt.server_keepalive")
            .filter(|seconds| *seconds > 0),
        server_reference: config.get::<String>("mqtt.server_reference").map(Arc::from),
        response_information: config.get::<String>("mqtt.response_information").map(Arc::from),
        inflight_max: config.or("zone.external.max_inflight", default.inflight_max).max(1),
        awaiting_release_max: config.or("zone.external.max_awaiting_rel", default.awaiting_release_max),
        queue_len_max: config.or("zone.external.max_mqueue_len", default.queue_len_max),
        queue_bytes_max: config
            .or("zone.external.max_mqueue_bytes", ByteSize(default.queue_bytes_max))
            .0,
        queue_full: config
            .choice("zone.external.mqueue_full", &queue_full)
            .unwrap_or(default.queue_full),
        queue_qos0: config.or("zone.external.mqueue_store_qos0", default.queue_qos0),
        session_expiry_max_s: expiry_s.unwrap_or(default.session_expiry_max_s),
        keep_alive_factor: (backoff * 2.0).max(1.0),
        publish_rate: rate::<usize>(
            config,
            [
                "zone.external.publish_limit",
                "zone.external.ratelimit.conn_messages_in",
            ],
            |messages| messages,
        ),
        byte_rate: rate::<ByteSize>(
            config,
            [
                "listener.tcp.external.rate_limit",
                "zone.external.ratelimit.conn_bytes_in",
            ],
            |size| size.0,
        ),
        subscriptions_max: config.or("zone.external.max_subscriptions", default.subscriptions_max),
        upgrade_qos: config.or("zone.external.upgrade_qos", default.upgrade_qos),
        ..default
    }
}

/// Sessions are kept in one pool of a file: a second one is an error. `keepers` are those found so far.
pub(super) fn note_keeper(config: &mut Config, pool: &PoolName, options: &PoolOptions, keepers: &mut Vec<PoolName>) {
    if !options.persist_sessions {
        return;
    }
    if let Some(first) = keepers.first() {
        let key = format!("backend.{pool}.persist_sessions");
        let text =
            format!("{key}: sessions are kept in {first} already, and one pool keeps them: set one of both to off");
        config.error(&key, text);
    }
    keepers.push(pool.clone());
}

/// A rate by EMQ X 3's name, or by EMQ X 4's.
fn rate<T>(config: &mut Config, keys: [&str; 2], amount: fn(T) -> usize) -> Option<Rate>
where
    Per<T>: Setting,
{
    let [first, second] = keys.map(|key| config.get::<OrOff<Per<T>>>(key));
    let Per(value, per) = first.or(second)?.0?;
    let amount = amount(value);
    Some(Rate { amount, per })
}

/// The options of one pool. A relative file lies in the data folder.
pub(super) fn pool_options(config: &mut Config, pool: &PoolName, data: &Path, node: &str) -> PoolOptions {
    let mut options = PoolOptions::take(config, &format!("backend.{pool}"));
    options.file = data.join(&options.file);
    options.node = node.into();
    options
}
