//! Shared subscriptions: a member that leaves hands its messages on.

use std::collections::BTreeSet;

use crate::harness::BOTH;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};

const GROUP: &str = "$share/workers/jobs/#";

fn payload(said: Said) -> (u16, String) {
    match said {
        Said::Publish { id, payload, .. } => (id, String::from_utf8_lossy(&payload).into_owned()),
        other => panic!("a message, not {other:?}"),
    }
}

/// Publishes `j1` to `jN`, acknowledged.
async fn publish(boss: &mut Raw, numbers: std::ops::RangeInclusive<u16>) {
    for number in numbers {
        boss.publish(number, 1, "jobs/1", format!("j{number}")).await;
        assert_eq!(boss.next().await, Said::PubAck(number, 0));
    }
}

/// Everything that a client is sent, acknowledged, until it has so many.
async fn work(worker: &mut Raw, count: usize) -> Vec<String> {
    let mut done = Vec::new();
    while done.len() < count {
        let (id, job) = payload(worker.next().await);
        worker.puback(id).await;
        done.push(job);
    }
    done
}

fn jobs(numbers: std::ops::RangeInclusive<u16>) -> BTreeSet<String> {
    numbers.map(|number| format!("j{number}")).collect()
}

#[tokio::test]
async fn the_jobs_of_a_worker_that_leaves_for_good_are_done_by_another() {
    for mqtt in BOTH {
        let host = Host::plan().set("zone.external.max_inflight", "2").start().await;
        let mut boss = host.raw(Hello::clean(mqtt, "boss")).await;
        let mut lazy = host.raw(Hello::clean(mqtt, "lazy")).await;
        lazy.subscribe(GROUP, 1).await;
        publish(&mut boss, 1..=10).await;
        // Two are sent and never acknowledged, eight wait.
        let started = [payload(lazy.next().await).1, payload(lazy.next().await).1];
        assert_eq!(started, ["j1", "j2"]);
        let mut busy = host.raw(Hello::clean(mqtt, "busy")).await;
        busy.subscribe(GROUP, 1).await;
        drop(lazy);
        let done = work(&mut busy, 10).await;
        assert_eq!(done, jobs(1..=10).ordered(), "{mqtt:?}");
        assert_eq!(busy.ping().await, []);
    }
}

#[tokio::test]
async fn while_a_worker_is_away_the_others_do_what_it_was_not_sent() {
    for mqtt in BOTH {
        let host = Host::plan().set("zone.external.max_inflight", "2").start().await;
        let mut boss = host.raw(Hello::clean(mqtt, "boss")).await;
        let mut away = host.raw(Hello::persistent(mqtt, "away")).await;
        away.subscribe(GROUP, 1).await;
        publish(&mut boss, 1..=6).await;
        let started = [payload(away.next().await).1, payload(away.next().await).1];
        assert_eq!(started, ["j1", "j2"]);
        let mut busy = host.raw(Hello::clean(mqtt, "busy")).await;
        busy.subscribe(GROUP, 1).await;
        drop(away);
        assert_eq!(work(&mut busy, 4).await, jobs(3..=6).ordered(), "{mqtt:?}");
        publish(&mut boss, 7..=9).await;
        assert_eq!(work(&mut busy, 3).await, jobs(7..=9).ordered());
        // What it was sent is still its own.
        let mut back = host.raw(Hello::persistent(mqtt, "away")).await;
        assert_eq!(work(&mut back, 2).await, jobs(1..=2).ordered());
        assert_eq!(back.ping().await, []);
        assert_eq!(busy.ping().await, []);
    }
}

#[tokio::test]
async fn the_first_worker_that_comes_back_gets_what_waited_for_all_of_them() {
    for mqtt in BOTH {
        let host = Host::start().await;
        let mut boss = host.raw(Hello::clean(mqtt, "boss")).await;
        for id in ["one", "two", "three"] {
            let mut worker = host.raw(Hello::persistent(mqtt, id)).await;
            worker.subscribe(GROUP, 1).await;
            // No DISCONNECT: it is gone when its socket is.
            drop(worker);
        }
        host.metric_becomes("connections", 1.0).await;
        publish(&mut boss, 1..=9).await;
        let mut two = host.raw(Hello::persistent(mqtt, "two")).await;
        let done: BTreeSet<String> = work(&mut two, 9).await.into_iter().collect();
        assert_eq!(done, jobs(1..=9), "{mqtt:?}");
    }
}

#[tokio::test]
async fn what_nobody_is_left_for_is_counted() {
    let host = Host::plan().set("zone.external.max_inflight", "1").start().await;
    let mut boss = host.raw(Hello::clean(BOTH[1], "boss")).await;
    let mut only = host.raw(Hello::clean(BOTH[1], "only")).await;
    only.subscribe(GROUP, 1).await;
    publish(&mut boss, 1..=3).await;
    only.disconnect(0).await;
    host.metric_becomes(r#"messages_dropped_total{reason="no_member"}"#, 3.0)
        .await;
}

/// In the order of their numbers, which are of one digit or 10.
trait Ordered {
    fn ordered(self) -> Vec<String>;
}

impl Ordered for BTreeSet<String> {
    fn ordered(self) -> Vec<String> {
        let mut all: Vec<String> = self.into_iter().collect();
        all.sort_by_key(|job| (job.len(), job.clone()));
        all
    }
}
