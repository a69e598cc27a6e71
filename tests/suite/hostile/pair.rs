//! The others: a publisher and a subscriber that behave, and how long their messages take meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::host::Host;
use crate::harness::raw::{Hello, Raw, Said};
use crate::harness::{Mqtt, runtime, within};

/// Messages at least, so that there is a 99th percentile.
const MESSAGES_MIN: usize = 200;
/// The most that a message may take where that is asked of it.
const P99_MAX: Duration = Duration::from_millis(20);
/// The most that it may take anywhere: in a debug build, beside other tests, on a machine that others use.
const P99_MAX_ANYWHERE: Duration = Duration::from_secs(2);
/// Demands [`P99_MAX`]: for a release build on a machine that has nothing else to do.
const STRICT: &str = "HOOKLINE_TEST_STRICT_LATENCY";

/// A publisher and a subscriber on a thread of their own, which exchange one message of QoS 1 after the other.
pub struct Pair {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Pair {
    /// Starts to exchange messages.
    pub fn start(host: &Host) -> Self {
        let (port, over) = (host.port(), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&over);
        let thread = std::thread::spawn(move || runtime().block_on(exchange(port, &end)));
        Self { over, thread }
    }

    /// Stops once there are enough, and judges.
    pub async fn judge(self, story: &str) {
        self.over.store(true, Ordering::Relaxed);
        let took = tokio::task::spawn_blocking(|| self.thread.join());
        let took = within("the last messages of the pair", took)
            .await
            .expect("it is a thread");
        let mut took = took.expect("every message came");
        took.sort_unstable();
        let at = |hundredths: usize| took[(took.len() * hundredths / 100).min(took.len() - 1)];
        println!(
            "{story}: {} messages of others, p50 {:.1?}, p99 {:.1?}",
            took.len(),
            at(50),
            at(99)
        );
        let most = match std::env::var_os(STRICT).is_some_and(|wanted| wanted == "1") {
            true => P99_MAX,
            false => P99_MAX_ANYWHERE,
        };
        assert!(at(99) <= most, "{story}: p99 is {:?}, more than {most:?}", at(99));
    }
}

async fn exchange(port: u16, over: &AtomicBool) -> Vec<Duration> {
    let mut subscriber = connect(port, "others-subscriber").await;
    subscriber.subscribe("others/t", 1).await;
    let mut publisher = connect(port, "others-publisher").await;
    let mut took = Vec::new();
    while took.len() < MESSAGES_MIN || !over.load(Ordering::Relaxed) {
        let id = (took.len() % 1000 + 1) as u16;
        let payload = format!("message {}", took.len());
        let start = Instant::now();
        publisher.publish(id, 1, "others/t", &payload).await;
        let (received, acked) = tokio::join!(subscriber.next(), publisher.next());
        took.push(start.elapsed());
        assert_eq!(acked, Said::PubAck(id, 0));
        match received {
            Said::Publish { id, payload: got, .. } if got == payload.as_bytes() => subscriber.puback(id).await,
            other => panic!("{payload}, and not {other:?}"),
        }
    }
    took
}

async fn connect(port: u16, id: &str) -> Raw {
    let mut raw = Raw::dial("127.0.0.1", port, Mqtt::V5).await;
    let answer = raw.hello(Hello::clean(Mqtt::V5, id)).await;
    assert!(matches!(answer, Said::ConnAck { code: 0, .. }), "{answer:?}");
    raw
}
