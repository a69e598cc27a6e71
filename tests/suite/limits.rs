//! Every bound, from outside: what the client is told, and that it is counted.

use crate::harness::host::{Host, Plan};
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{BOTH, Mqtt, within};

async fn hit(host: &Host, limit: &str, times: f64) {
    host.metric_becomes(&format!("limits_hit_total{{limit=\"{limit}\"}}"), times)
        .await;
}

/// What a client is told that is sent away: MQTT 5 a reason, MQTT 3 nothing.
async fn sent_away(raw: &mut Raw, mqtt: Mqtt, reason: u8) {
    let expected = match mqtt {
        Mqtt::V311 => vec![],
        Mqtt::V5 => vec![Said::Disconnect(reason)],
    };
    assert_eq!(raw.rest().await, expected, "{mqtt:?} {reason:#x}");
}

fn plan(settings: &[(&str, &str)]) -> Plan {
    settings
        .iter()
        .fold(Host::plan(), |plan, (key, value)| plan.set(key, value))
}

#[tokio::test]
async fn those_who_say_nothing_cannot_keep_out_those_who_do() {
    let host = plan(&[("listener.tcp.external.max_half_open", "4")]).start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(host.dial(Mqtt::V311).await);
    }
    let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
    for oldest in &mut silent[..16] {
        assert_eq!(oldest.next().await, Said::End);
    }
    hit(&host, "half_open", 17.0).await;
    host.metric_becomes("connections", 4.0).await;
    host.metric_becomes("connections_half_open", 3.0).await;
    assert_eq!(app.ping().await, []);
    let late = silent
        .last_mut()
        .expect("there are twenty")
        .hello(Hello::clean(Mqtt::V311, "late"))
        .await;
    assert!(
        matches!(late, Said::ConnAck { code: 0, .. }),
        "{late:?}: the youngest still may"
    );
}

#[tokio::test]
async fn connects_that_never_become_whole_do_not_fill_the_memory() {
    let host = Host::start().await;
    // Each says that its CONNECT has 1,000,000 bytes, and sends most of them.
    let mut part = b"\x10\xC0\x84\x3D".to_vec();
    part.resize(900_000, 0);
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut raw = host.dial(Mqtt::V311).await;
        raw.bytes(&part).await;
        slow.push(raw);
    }
    // 32 MB are 37 of them.
    hit(&host, "half_open", 3.0).await;
    let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
    assert_eq!(app.ping().await, []);
    drop(slow);
    host.metric_becomes("connections", 1.0).await;
}

#[tokio::test]
async fn the_room_for_connects_that_are_not_whole_is_configured_and_always_takes_one() {
    let host = plan(&[
        ("listener.tcp.external.max_half_open_bytes", "0"),
        ("mqtt.max_packet_size", "1KB"),
    ])
    .start()
    .await;
    // Each says that its CONNECT has 1,000 bytes, and sends most of them.
    let mut part = b"\x10\xE8\x07".to_vec();
    part.resize(600, 0);
    let mut first = host.dial(Mqtt::V311).await;
    first.bytes(&part).await;
    let mut second = host.dial(Mqtt::V311).await;
    second.bytes(&[&part[..], b"more"].concat()).await;
    hit(&host, "half_open", 1.0).await;
    host.metric_becomes("connections", 1.0).await;
    assert_eq!(second.next().await, Said::End);
    drop(first);
    let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
    assert_eq!(app.ping().await, []);
}

#[tokio::test]
async fn what_does_not_begin_as_a_connect_is_refused_by_its_first_byte() {
    let host = plan(&[("zone.external.idle_timeout", "10m")]).start().await;
    // A PUBLISH that says it has 1,000,000 bytes, and any other packet: none of the bodies ever comes.
    for begun in [&b"\x30\xC0\x84\x3D"[..], b"\x30", b"\x82", b"\xC0", b"\x00"] {
        let mut raw = host.dial(Mqtt::V311).await;
        raw.bytes(begun).await;
        assert_eq!(raw.next().await, Said::End, "{begun:x?}");
    }
    host.metric_becomes("connections_half_open", 0.0).await;
}

#[tokio::test]
async fn no_connect_in_time_is_the_end() {
    let host = plan(&[("zone.external.idle_timeout", "100ms")]).start().await;
    assert_eq!(host.dial(Mqtt::V5).await.next().await, Said::End);
    hit(&host, "connect_time", 1.0).await;
}

#[tokio::test]
async fn a_long_client_id_or_will_topic_is_not_let_in() {
    let host = plan(&[
        ("mqtt.max_clientid_len", "8"),
        ("mqtt.max_topic_len", "8"),
        ("mqtt.max_topic_levels", "2"),
    ])
    .start()
    .await;
    for (turn, (mqtt, [id, topic])) in [(Mqtt::V311, [2, 3]), (Mqtt::V5, [0x85, 0x90])].into_iter().enumerate() {
        let will = |topic| Hello {
            will: Some((topic, "x", 0)),
            ..Hello::clean(mqtt, "12345678")
        };
        for (hello, expected, limit) in [
            (Hello::clean(mqtt, "123456789"), id, "client_id_length"),
            (will("123456789"), topic, "topic_length"),
            (will("a/b/c"), topic, "topic_levels"),
        ] {
            let said = host.dial(mqtt).await.hello(hello).await;
            assert!(
                matches!(said, Said::ConnAck { code, .. } if code == expected),
                "{said:?}"
            );
            hit(&host, limit, (turn + 1) as f64).await;
        }
        host.raw(will("1234567")).await;
    }
}

/// A client may not fill the log with its name, nor stop the broker where whoever reads the log is slow.
#[tokio::test]
async fn of_a_client_id_that_is_too_long_the_log_has_no_more_than_is_allowed() {
    let mut host = plan(&[("mqtt.max_clientid_len", "8")]).start().await;
    let id = "é".repeat(30_000);
    host.dial(Mqtt::V5).await.hello(Hello::clean(Mqtt::V5, &id)).await;
    let line = host.logged("connection refused").await;
    assert_eq!(line.matches('é').count(), 8, "{line}");
}

#[tokio::test]
async fn a_will_for_which_all_wills_leave_no_room_is_not_let_in_until_one_of_them_goes() {
    let host = plan(&[("broker.max_wills_bytes", "2KB")]).start().await;
    let large = "x".repeat(1000);
    let mut times = 0.0;
    for (mqtt, code) in [(Mqtt::V311, 3), (Mqtt::V5, 0x97)] {
        let will = |id| Hello {
            will: Some(("w", &large, 0)),
            ..Hello::clean(mqtt, id)
        };
        let waits = Hello {
            will_delay_s: 1,
            expiry_s: 60,
            ..will("waits")
        };
        let goes: [(Hello<'_>, Option<u8>); 3] = [(will("leaves"), Some(0)), (will("vanishes"), None), (waits, None)];
        for (hello, goodbye) in goes {
            let mut first = host.raw(hello).await;
            let said = host.dial(mqtt).await.hello(will("late")).await;
            assert!(
                matches!(said, Said::ConnAck { code: it, .. } if it == code),
                "{mqtt:?} {said:?}"
            );
            times += 1.0;
            hit(&host, "will_bytes", times).await;
            host.raw(Hello::clean(mqtt, "without")).await;
            match goodbye {
                Some(reason) => first.disconnect(reason).await,
                None => drop(first),
            }
            let free = async {
                loop {
                    let said = host.dial(mqtt).await.hello(will("late")).await;
                    if matches!(said, Said::ConnAck { code: 0, .. }) {
                        return;
                    }
                    times += 1.0;
                }
            };
            within("the room of a will", free).await;
            host.metric_becomes("connections", 0.0).await;
        }
    }
}

#[tokio::test]
async fn a_packet_a_topic_and_what_is_unreleased_have_their_limits() {
    let host = plan(&[
        ("mqtt.max_packet_size", "1KB"),
        ("mqtt.max_topic_len", "16"),
        ("mqtt.max_topic_levels", "3"),
        ("zone.external.max_awaiting_rel", "1"),
    ])
    .start()
    .await;
    for (turn, mqtt) in (1..).zip(BOTH) {
        let large = "x".repeat(2000);
        for (topic, payload, reason, limit) in [
            ("t", large.as_str(), 0x95, "packet_size"),
            ("a/b/c/d", "", 0x90, "topic_levels"),
            ("a/b/12345678901234567", "", 0x90, "topic_length"),
        ] {
            let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
            sensor.publish(1, 1, topic, payload).await;
            sent_away(&mut sensor, mqtt, reason).await;
            hit(&host, limit, f64::from(turn)).await;
        }
        let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
        sensor.publish(1, 2, "t", "one").await;
        assert_eq!(sensor.next().await, Said::PubRec(1, 0));
        sensor.publish(2, 2, "t", "two").await;
        sent_away(&mut sensor, mqtt, 0x97).await;
        hit(&host, "awaiting_release", f64::from(turn)).await;
    }
}

#[tokio::test]
async fn a_filter_too_many_too_long_or_too_deep_is_refused_by_itself() {
    let host = plan(&[
        ("mqtt.max_topic_len", "16"),
        ("mqtt.max_topic_levels", "3"),
        ("zone.external.max_subscriptions", "1"),
    ])
    .start()
    .await;
    for (turn, (mqtt, [invalid, quota])) in (1..).zip([(Mqtt::V311, [0x80, 0x80]), (Mqtt::V5, [0x8F, 0x97])]) {
        let mut app = host.raw(Hello::clean(mqtt, "app")).await;
        for (filter, code, limit) in [
            ("a/+/c/d", invalid, "topic_levels"),
            ("a/b/12345678901234567", invalid, "topic_length"),
        ] {
            assert_eq!(app.ask_for(filter, 0).await, code);
            hit(&host, limit, f64::from(turn)).await;
        }
        assert_eq!(app.ask_for("a/+/c", 0).await, 0);
        assert_eq!(app.ask_for("b", 0).await, quota);
        hit(&host, "subscriptions", f64::from(turn)).await;
        assert_eq!(app.ask_for("a/+/c", 1).await, 1, "one that is there may be changed");
    }
}

#[tokio::test]
async fn a_filter_of_as_many_levels_as_there_may_be_is_walked_without_harm() {
    let host = plan(&[("mqtt.max_topic_levels", "0")]).start().await;
    let topic = vec!["a"; 1000].join("/");
    let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
    assert_eq!(app.ask_for(&format!("+{}", &topic[1..]), 0).await, 0);
    assert_eq!(app.ask_for(&format!("{topic}/+"), 0).await, 0x8F);
    app.publish(0, 0, &topic, "deep").await;
    assert!(matches!(app.next().await, Said::Publish { .. }));
}

#[tokio::test]
async fn who_sends_too_much_is_read_later_and_loses_nothing() {
    for (key, value, limit) in [
        ("zone.external.publish_limit", "10,1s", "publish_rate"),
        ("listener.tcp.external.rate_limit", "100,1s", "byte_rate"),
    ] {
        let host = plan(&[(key, value)]).start().await;
        // Its keep-alive would run out meanwhile, were its silence not ours.
        let hello = Hello {
            keep_alive_s: 1,
            ..Hello::clean(Mqtt::V5, "sensor")
        };
        let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
        app.subscribe("t", 0).await;
        let mut sensor = host.raw(hello).await;
        let begun = std::time::Instant::now();
        for number in 0..40 {
            sensor.publish(0, 0, "t", format!("{number:02}")).await;
        }
        assert_eq!(sensor.ping().await, []);
        for number in 0..40 {
            let Said::Publish { payload, .. } = app.next().await else {
                panic!("nothing else is on its way")
            };
            assert_eq!(payload, format!("{number:02}"));
        }
        assert!(begun.elapsed().as_secs_f64() > 1.0, "{limit}: {:?}", begun.elapsed());
        let times = host.metric(&format!("limits_hit_total{{limit=\"{limit}\"}}")).await;
        assert!(times >= 1.0, "{limit}: {times}");
    }
}

#[tokio::test]
async fn retained_messages_beyond_the_limits_are_delivered_but_not_kept() {
    for (key, value, limit) in [
        ("retainer.max_retained_messages", "1", "retained_messages"),
        ("retainer.max_retained_bytes", "1KB", "retained_bytes"),
    ] {
        let host = plan(&[(key, value)]).rules(&[]).start().await;
        let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
        sensor.retain(1, 1, "t/1", "kept").await;
        assert_eq!(sensor.next().await, Said::PubAck(1, 0));
        sensor.retain(2, 1, "t/2", "x".repeat(1000)).await;
        assert_eq!(sensor.next().await, Said::PubAck(2, 0));
        hit(&host, limit, 1.0).await;
        let mut app = host.raw(Hello::clean(Mqtt::V5, "app")).await;
        app.subscribe("t/+", 0).await;
        let Said::Publish { topic, .. } = app.next().await else {
            panic!("one is kept")
        };
        assert_eq!(topic, "t/1");
        assert_eq!(app.ping().await, []);
    }
}

#[tokio::test]
async fn where_more_waits_for_a_slow_client_than_may_the_oldest_goes_or_the_newest() {
    for (policy, left, reason) in [
        (None, ["4", "5"], "evicted"),
        (Some("drop_old"), ["4", "5"], "evicted"),
        (Some("drop_new"), ["2", "3"], "queue_full"),
    ] {
        let bounds = [
            ("zone.external.max_inflight", "1"),
            ("zone.external.max_mqueue_len", "2"),
        ];
        let policy = policy.map(|policy| ("zone.external.mqueue_full", policy));
        let settings: Vec<_> = bounds.into_iter().chain(policy).collect();
        let host = plan(&settings).rules(&[]).start().await;
        for (turn, mqtt) in (1..).zip(BOTH) {
            let mut slow = host.raw(Hello::clean(mqtt, "slow")).await;
            slow.subscribe("t", 1).await;
            let mut sensor = host.raw(Hello::clean(mqtt, "sensor")).await;
            let mut seen = Vec::new();
            for id in 1..=5 {
                sensor.publish(id, 1, "t", id.to_string()).await;
                assert_eq!(sensor.next().await, Said::PubAck(id, 0));
                // One after the other: they must not meet on their way to the session.
                seen.extend(slow.ping().await);
            }
            let mut seen = seen.into_iter();
            let dropped = format!("messages_dropped_total{{reason=\"{reason}\"}}");
            host.metric_becomes(&dropped, f64::from(2 * turn)).await;
            for expected in ["1", left[0], left[1]] {
                let next = match seen.next() {
                    Some(said) => said,
                    None => slow.next().await,
                };
                let Said::Publish { id, payload, .. } = next else {
                    panic!("{policy:?}: {next:?}")
                };
                assert_eq!(payload, expected, "{policy:?}");
                slow.puback(id).await;
            }
            assert_eq!(slow.ping().await, []);
        }
    }
}
