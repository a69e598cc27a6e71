//! What lines become, when they match, and in which order they run.

use super::*;
use crate::config::{Overrides, Problem};
use crate::hook::action::Action;
use crate::hook::builtin::Builtin;

fn read(backend: Backend, lines: &[&str]) -> (Rules, Vec<Problem>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let mut config = backend.read(file.path(), &Overrides::default());
    let pools = [PoolName::new(backend.name(), "pool1")];
    let rules = Rules::from_config(backend, &pools, &mut config);
    (rules, config.finish(true))
}

/// The only rule of a line without problems.
fn rule(backend: Backend, line: &str) -> Rule {
    let (rules, problems) = read(backend, &[line]);
    assert_eq!(problems, [], "{line}");
    let all: Vec<_> = rules.iter().collect();
    assert_eq!(all.len(), 1, "{line}");
    Rule::clone(all[0])
}

#[test]
fn a_line_becomes_a_rule() {
    let line = r##"backend.mysql.hook.message.publish.1 = {"topic": "a/#", "action": {"function": "on_message_publish"}, "pool": "pool1"}"##;
    let rule = rule(Backend::Mysql, line);
    assert_eq!(rule.name, "backend.mysql.hook.message.publish.1");
    assert_eq!(rule.point, HookPoint::MessagePublish);
    assert_eq!(rule.filter.as_ref().map(Filter::as_str), Some("a/#"));
    assert_eq!(rule.action, Action::Builtin(Builtin::MessagePublish));
    assert_eq!(rule.pool.as_str(), "mysql.pool1");
    assert_eq!(rule.options, RuleOptions::default());
    assert_eq!(rule.origin.line, 1);
}

#[test]
fn the_only_pool_need_not_be_named() {
    let line = r#"backend.mysql.hook.client.connected.x = {"action": {"function": "on_client_connected"}}"#;
    assert_eq!(rule(Backend::Mysql, line).pool.pool(), "pool1");
}

#[test]
fn options_are_read_where_they_mean_something() {
    let custom = r#"backend.pgsql.hook.message.publish.1 = {"action": {"sql": ["insert into t values(${topic})", "delete from u"]},
        "sync": false, "tx": true, "idempotent": true}"#
        .replace('\n', " ");
    let rule_ = rule(Backend::Pgsql, &custom);
    assert!(!rule_.options.sync && rule_.options.tx && rule_.options.idempotent);
    assert!(matches!(&rule_.action, Action::Statements(all) if all.len() == 2 && all[0].params == ["topic"]));

    let fetch = r##"backend.mysql.hook.session.subscribed.1 = {"action": {"function": "on_message_fetch"}, "offline_opts": {"max_returned_count": 500, "time_range": "2h"}}"##;
    let options = rule(Backend::Mysql, fetch).options;
    assert_eq!(options.max_returned_count, Some(Limit(Some(500))));
    assert_eq!(
        options.time_range,
        Some(TimeLimit(Some(std::time::Duration::from_secs(7200))))
    );

    let store =
        r#"backend.redis.hook.message.publish.1 = {"action": {"function": "on_message_publish"}, "expired_time": 60}"#;
    assert_eq!(rule(Backend::Redis, store).options.expired_time, Some(60));
    assert_eq!(
        rule(Backend::Redis, &store.replace("60", "-1")).options.expired_time,
        None
    );

    let json = r#"backend.mongo.hook.message.publish.1 = {"action": {"function": "on_message_store"}, "payload_format": "mongo_json"}"#;
    assert_eq!(
        rule(Backend::Mongo, json).options.payload_format,
        PayloadFormat::MongoJson
    );

    let dup = r#"backend.cassa.hook.message.delivered.1 = {"action": {"cql": "insert into t(a) values(${msgid})"}, "on_dup": true}"#;
    assert!(rule(Backend::Cassa, dup).options.on_dup);
}

#[test]
fn rules_match_as_the_specification_says() {
    let builtin = |filter: &str| {
        let topic = if filter.is_empty() {
            String::new()
        } else {
            format!(r#""topic": "{filter}", "#)
        };
        rule(
            Backend::Sqlite,
            &format!(
                r#"backend.sqlite.hook.message.publish.1 = {{{topic}"action": {{"function": "on_message_publish"}}}}"#
            ),
        )
    };
    let custom = |filter: &str| Rule {
        action: Action::Statements(Vec::new()),
        ..builtin(filter)
    };
    for (rule, topic, expected) in [
        (builtin("queue/#"), Some("queue/a/b"), true),
        (builtin("queue/#"), Some("queue/+"), true),
        (builtin("queue/#"), Some("#"), false),
        (builtin("#"), Some("$SYS/brokers"), false),
        (builtin("#"), Some("$other"), false),
        (builtin(""), Some("anything"), true),
        (builtin(""), Some("$other/x"), true),
        (builtin(""), Some("$SYS/brokers"), false),
        (builtin("$SYS/#"), Some("$SYS/brokers"), false),
        (custom("$SYS/#"), Some("$SYS/brokers"), true),
        (custom(""), Some("$SYS/brokers"), true),
        (builtin("a"), None, true),
    ] {
        assert_eq!(rule.matches(topic), expected, "{:?} against {topic:?}", rule.filter);
    }
}

#[test]
fn rules_run_by_number_and_then_by_name_and_plugin_after_plugin() {
    let line = |backend: &str, number: &str| {
        format!(
            r#"backend.{backend}.hook.client.connected.{number} = {{"action": {{"function": "on_client_connected"}}}}"#
        )
    };
    let lines: Vec<String> = ["b", "10", "2", "a"]
        .iter()
        .map(|number| line("mysql", number))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (mysql, problems) = read(Backend::Mysql, &lines);
    assert_eq!(problems, []);
    let (redis, _) = read(Backend::Redis, &[&line("redis", "1")]);
    let merged = Rules::merge([mysql, redis]);
    let names: Vec<_> = merged
        .at(HookPoint::ClientConnected)
        .iter()
        .map(|rule| rule.name.as_str())
        .collect();
    let expected = [
        "mysql.hook.client.connected.2",
        "mysql.hook.client.connected.10",
        "mysql.hook.client.connected.a",
        "mysql.hook.client.connected.b",
        "redis.hook.client.connected.1",
    ];
    assert_eq!(names, expected.map(|name| format!("backend.{name}")));
    assert!(merged.at(HookPoint::MessageAcked).is_empty());
}

#[test]
fn moments_of_later_versions_are_understood() {
    for (line, point, warning) in [
        (
            r#"backend.mysql.hook.session.created.1 = {"action": {"function": "on_subscription_lookup"}}"#,
            Some(HookPoint::ClientConnected),
            "runs at client.connected",
        ),
        (
            r#"backend.mysql.hook.message.deliver.1 = {"action": {"sql": "insert into t values(${msgid})"}}"#,
            Some(HookPoint::MessageDelivered),
            "later name of message.delivered",
        ),
        (
            r#"backend.mysql.hook.session.terminated.1 = {"action": {"sql": "insert into t values(${reason})"}}"#,
            None,
            "never runs",
        ),
        (
            r#"backend.mysql.hook.session.resumed.1 = {"action": {"function": "on_client_connected"}}"#,
            None,
            "never runs",
        ),
    ] {
        let (rules, problems) = read(Backend::Mysql, &[line]);
        assert_eq!(rules.iter().next().map(|rule| rule.point), point, "{line}");
        assert!(problems.len() == 1 && !problems[0].is_error(), "{problems:?}");
        assert!(problems[0].text.contains(warning), "{problems:?}");
    }
}

#[test]
fn every_mistake_of_a_line_is_told_and_the_line_is_no_rule() {
    let line = r#"backend.mysql.hook.message.publish.1 = {"topic": "a#", "action": {"function": "on_x"}, "pool": "p", "tpoic": 1}"#;
    let (rules, problems) = read(Backend::Mysql, &[line]);
    assert_eq!(rules.iter().count(), 0);
    assert_eq!(
        problems.iter().filter(|problem| problem.is_error()).count(),
        4,
        "{problems:?}"
    );
}

proptest::proptest! {
    #[test]
    fn no_rule_is_a_panic(json in "[\\[\\]{}:,\"$#/ ]{0,30}", function in "[a-z_]{0,8}") {
        for backend in [Backend::Sqlite, Backend::Redis, Backend::Mongo] {
            let kind = backend.custom_action().unwrap_or("function");
            read(backend, &[
                &format!("{}.hook.message.publish.1 = {json}", backend.section()),
                &format!(r#"{}.hook.message.publish.2 = {{"action": {{"{kind}": "{function} {json}"}}}}"#, backend.section()),
                &format!(r#"{}.hook.{function}.x.y = {{"action": {json}}}"#, backend.section()),
            ]);
        }
    }

    #[test]
    fn random_json_bytes_are_no_panic(bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes).replace('\n', " ");
        read(Backend::Sqlite, &[&format!("backend.sqlite.hook.message.publish.1 = {text}")]);
    }
}
