//! Rules seen side by side.

use super::*;

fn rules(backend: Backend, lines: &[&str]) -> Rules {
    let file = tempfile::NamedTempFile::new().unwrap();
    let section = backend.section();
    let pools = ["pool1", "pool2"].map(|pool| PoolName::new(backend.name(), pool));
    let lines: Vec<String> = lines.iter().map(|line| format!("{section}.hook.{line}\n")).collect();
    std::fs::write(file.path(), lines.concat()).unwrap();
    let mut config = backend.read(file.path(), &Overrides::default());
    let rules = Rules::from_config(backend, &pools, &mut config);
    assert_eq!(config.finish(true), []);
    rules
}

fn rule(key: &str, topic: &str, function: &str, pool: &str) -> String {
    let topic = if topic.is_empty() {
        String::new()
    } else {
        format!(r#""topic": "{topic}", "#)
    };
    format!(r#"{key} = {{{topic}"action": {{"function": "{function}"}}, "pool": "{pool}"}}"#)
}

#[test]
fn queue_and_pubsub_must_not_meet_in_one_pool() {
    for (queue, pubsub, pool, meet) in [
        ("queue/#", "pubsub/#", "pool1", false),
        ("queue/#", "queue/a", "pool1", true),
        ("queue/#", "queue/a", "pool2", false),
        ("a/+/c", "a/b/+", "pool1", true),
        ("a/+/c", "a/b", "pool1", false),
        ("a", "a/#", "pool1", true),
        ("#", "$x/#", "pool1", false),
        ("", "$x/#", "pool1", true),
    ] {
        let lines = [
            rule("message.acked.1", queue, "on_message_acked_for_queue", "pool1"),
            rule("message.acked.2", pubsub, "on_message_acked_for_pubsub", pool),
        ];
        let problems = side_by_side(&rules(Backend::Redis, &lines.each_ref().map(String::as_str)));
        assert_eq!(!problems.is_empty(), meet, "{queue} and {pubsub}: {problems:?}");
    }
}

#[test]
fn a_lookup_must_cover_what_is_retained() {
    for (retain, lookup, pool, covered) in [
        ("#", "", "pool1", true),
        ("#", "#", "pool1", true),
        ("a/#", "a/#", "pool1", true),
        ("a/b", "a/+", "pool1", true),
        ("a", "a/#", "pool1", true),
        ("a/#", "a/+", "pool1", false),
        ("#", "a/#", "pool1", false),
        ("", "a/#", "pool1", false),
        ("$x/#", "#", "pool1", false),
        ("#", "#", "pool2", false),
    ] {
        let lines = [
            rule("message.publish.1", retain, "on_message_retain", "pool1"),
            rule("session.subscribed.1", lookup, "on_retain_lookup", pool),
        ];
        let problems = side_by_side(&rules(Backend::Mysql, &lines.each_ref().map(String::as_str)));
        assert_eq!(problems.is_empty(), covered, "{retain} by {lookup}: {problems:?}");
    }
}

#[test]
fn two_backends_that_fetch_the_same_topics_are_told() {
    let fetch = |topic: &str| rule("session.subscribed.1", topic, "on_message_fetch", "pool1");
    for (one, other, told) in [("#", "#", true), ("a/#", "b/#", false), ("", "b", true)] {
        let both = [
            rules(Backend::Mysql, &[&fetch(one)]),
            rules(Backend::Sqlite, &[&fetch(other)]),
        ];
        let problems = side_by_side(&Rules::merge(both));
        assert_eq!(!problems.is_empty(), told, "{one} and {other}: {problems:?}");
    }
}
