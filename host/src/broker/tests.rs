//! What holds between the parts of the broker, over a real socket and a real database.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Executor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::mailbox::Mailbox;
use super::*;
use crate::bus::Link;
use crate::config::Overrides;
use crate::hook::Active;
use crate::hook::backend::Backend;
use crate::hook::rule::Rules;
use crate::model::delivery::{Delivery, Page, Place, PoolName, Position, Reader, Run, Window};
use crate::model::message::Qos;
use crate::model::topic::Filter;
use crate::mqtt::session::fixtures::message;
use crate::store::Write;
use crate::store::options::PoolOptions;
use crate::store::pool::{Pool, Pools};

/// A bus that ends here: it notes where the messages of each run lie once everything is settled that was
/// queued when the run came.
#[derive(Clone)]
struct Terminus {
    pool: Arc<Pool>,
    places: Arc<Mutex<Vec<Place>>>,
}

impl Bus for Terminus {
    fn link(&self) -> Box<dyn Link> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Link for Terminus {
    async fn publish(&mut self, batch: &mut Vec<Arc<Run>>) {
        if batch.is_empty() {
            return;
        }
        self.pool.batcher().barrier().await;
        for run in batch.drain(..) {
            let ids = run.messages.iter().map(|message| message.id).enumerate();
            self.places
                .lock()
                .extend(ids.map(|(index, id)| run.stored[0].place(index, id)));
        }
    }
}

/// A pool in this folder, and rules that store every message in it.
fn stores_everything(folder: &Path) -> (Arc<Pool>, Active) {
    let name = PoolName::new("sqlite", "pool1");
    let options = PoolOptions {
        file: folder.join("hookline.db"),
        ..PoolOptions::default()
    };
    let pools = Pools::new(CancellationToken::new());
    let pool = pools.open(name.clone(), options).expect("sqlite is known");
    let file = folder.join("rules.conf");
    let rule =
        r##"backend.sqlite.hook.message.publish.1 = {"topic": "#", "action": {"function": "on_message_publish"}}"##;
    std::fs::write(&file, rule).expect("the folder is ours");
    let mut config = Backend::Sqlite.read(&file, &Overrides::default());
    let rules = Rules::from_config(Backend::Sqlite, &[name], &mut config);
    (Arc::clone(&pool), Active::new(&rules, vec![pool]))
}

#[tokio::test]
async fn what_is_routed_is_on_its_way_into_the_database_already() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pool, active) = stores_everything(folder.path());
    let settings = Settings {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        sys_interval: Duration::ZERO,
        ..Settings::default()
    };
    let hooks = Arc::new(Hooks::new("node", active));
    let mut broker = Broker::new(settings, Limits::default(), hooks, IdClock::new("node", 1, 0));
    let terminus = Terminus {
        pool,
        places: Arc::default(),
    };
    Arc::get_mut(&mut broker).expect("nobody else has it yet").bus = Box::new(terminus.clone());
    let address = broker.listen().await.expect("a free port")[0].address;
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
    // Three messages, two topics: two runs of one turn.
    let publishes = b"\x32\x06\x00\x01t\x00\x01x\x32\x06\x00\x01t\x00\x02y\x32\x06\x00\x01u\x00\x03z";
    client
        .write_all(&[&connect[..], publishes].concat())
        .await
        .expect("written");
    let mut answers = [0; 16];
    timeout(Duration::from_secs(20), client.read_exact(&mut answers))
        .await
        .expect("answers")
        .expect("read");
    assert_eq!(answers, *b"\x20\x02\0\0\x40\x02\0\x01\x40\x02\0\x02\x40\x02\0\x03");
    assert_eq!(
        *terminus.places.lock(),
        [1, 2, 3].map(|row| Place::At(Position(row))),
        "whoever reads the store behind what is queued finds them"
    );
}

/// The next page that a mailbox is sent.
async fn page_in(mailbox: &Mailbox) -> Page {
    let page = poll_fn(|cx| {
        let mut items = Vec::new();
        mailbox.drain(cx, &mut items, None);
        match items.pop() {
            Some(Item::Page(_, page)) => Poll::Ready(page.expect("the store answers")),
            _ => Poll::Pending,
        }
    });
    timeout(Duration::from_secs(20), page).await.expect("a page")
}

#[tokio::test]
async fn a_read_sees_what_was_queued_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (pool, active) = stores_everything(folder.path());
    let reads = Reads {
        hooks: Arc::new(Hooks::new("node", active)),
        tracker: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let filter = Filter::new("t").expect("a good filter");
    let reader = Reader {
        pool: pool.name().clone(),
        client: "c".into(),
        filter: filter.clone(),
        delivery: Delivery::Pubsub,
    };
    let window = Window {
        after: Position::START,
        limit: 10,
        since: None,
    };
    let first = message(1, "t", "first", Qos::AtLeastOnce);
    pool.batcher().ask(Write::Save(first)).await.expect("stored");
    for (write, expected) in [
        (
            Write::Save(message(2, "t", "unread", Qos::AtLeastOnce)),
            ["first", "unread"].as_slice(),
        ),
        (
            Write::Retain(message(3, "t", "retained", Qos::AtLeastOnce)),
            &["retained"],
        ),
    ] {
        // Somebody else writes: our commit waits, while reading goes on.
        let mut other = SqliteConnectOptions::new()
            .filename(folder.path().join("hookline.db"))
            .connect()
            .await
            .expect("opens");
        other.execute("BEGIN IMMEDIATE").await.expect("locks");
        let mailbox = Arc::new(Mailbox::new(Bounds {
            messages_max: 10,
            bytes_max: 1000,
        }));
        let retained = matches!(write, Write::Retain(_));
        pool.batcher().write(write);
        match retained {
            false => reads.unread(&mailbox, 1, reader.clone(), window),
            true => reads.retained(&mailbox, 1, pool.name().clone(), filter.clone(), window),
        }
        for _ in 0..10 {
            // Whoever does not wait for the commit has been answered by now.
            pool.unread(&reader, window).await.expect("readable");
        }
        other.execute("ROLLBACK").await.expect("unlocks");
        let page = page_in(&mailbox).await;
        let payloads: Vec<_> = page
            .messages
            .iter()
            .map(|(_, message)| message.payload.clone())
            .collect();
        assert_eq!(payloads, expected);
    }
}
