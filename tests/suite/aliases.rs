//! Topic aliases that the host sets towards clients that accept them.

use crate::harness::Mqtt;
use crate::harness::host::Host;
use crate::harness::raw::{Hello, Said};

fn accepts(id: &str, aliases: u16) -> Hello<'_> {
    Hello {
        aliases,
        ..Hello::persistent(Mqtt::V5, id)
    }
}

fn topic(said: Said) -> (u16, String) {
    match said {
        Said::Publish { id, topic, .. } => (id, topic),
        other => panic!("a message, not {other:?}"),
    }
}

#[tokio::test]
async fn a_topic_that_returns_is_sent_once_a_connection() {
    let host = Host::start().await;
    let mut sensor = host.raw(Hello::clean(Mqtt::V5, "sensor")).await;
    let mut app = host.raw(accepts("app", 2)).await;
    let mut plain = host.raw(accepts("plain", 0)).await;
    for client in [&mut app, &mut plain] {
        client.subscribe("rooms/#", 1).await;
    }
    let rooms = ["rooms/hall", "rooms/attic", "rooms/cellar"];
    for id in 1..=9 {
        sensor.publish(id, 1, rooms[usize::from(id) % 3], "x").await;
        assert_eq!(sensor.next().await, Said::PubAck(id, 0));
    }
    for id in 1..=9_u16 {
        for client in [&mut app, &mut plain] {
            assert_eq!(topic(client.next().await).1, rooms[usize::from(id) % 3]);
        }
    }
    // Two of three topics have an alias; each is sent once before that.
    assert_eq!((app.aliased, plain.aliased), (4, 0));
    // Nothing was acknowledged: all comes again, on a connection that knows no alias.
    let mut app = host.raw(accepts("app", 2)).await;
    for id in 1..=9_u16 {
        assert_eq!(topic(app.next().await).1, rooms[usize::from(id) % 3]);
    }
    assert_eq!(app.aliased, 4);
}
