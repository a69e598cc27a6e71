//! The load generator: one thread, one epoll, every payload checked. A message must come exactly once, in its
//! publisher's order, with the bytes that were sent; an acknowledgement must come in the order of the messages.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::link::Link;
use crate::wire::{self, Packet, Template};

/// Who talks to whom: publisher p writes to topic `p % topics`, subscriber s reads topic `s % topics`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    pub(crate) topics: usize,
    pub(crate) subscribers: usize,
    /// Messages of a publisher that may wait for their PUBACK.
    pub(crate) window: u64,
    /// Whether subscribers have sessions that outlive their connections.
    pub(crate) kept: bool,
}

/// When publishers stop, whatever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// Messages of each publisher.
    pub(crate) messages: u64,
    pub(crate) time: Duration,
}

/// A publisher waits while its slowest subscriber is this far behind, so that no queue of a broker overflows.
const LAG_MAX: u64 = 1000;
/// Nothing at all happens for this long: something is lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long brokers may take to bring what publishers have sent.
const DRAIN_MAX: Duration = Duration::from_secs(30);
const SCRATCH_BYTES: usize = 256 * 1024;

struct Publisher {
    template: Template,
    sent: u64,
    acked: u64,
    /// Its subscribers.
    to: Vec<usize>,
}

struct Subscriber {
    /// The next number from each publisher.
    next: Vec<u64>,
    /// The publishers of its topic.
    from: Vec<usize>,
}

/// Connected clients; the publishers' links come first.
pub(crate) struct Fleet {
    epoll: OwnedFd,
    links: Vec<Link>,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    window: u64,
    /// How many messages each publisher has sent, here or in a fleet before.
    sent: Vec<u64>,
    /// Answers to the last PINGREQs.
    pongs: usize,
    scratch: Box<[u8]>,
}

fn topic(number: usize) -> String {
    format!("bench/{number}")
}

impl Fleet {
    /// Connects everyone, publishers with a clean session; subscribers have their SUBACK when it returns.
    pub(crate) fn connect(address: SocketAddr, shape: Shape) -> Result<Self> {
        let mut fleet = Self::empty(shape)?;
        for number in 0..shape.publishers {
            let (link, _) = Link::open(address, format!("publisher-{number}"), true)?;
            fleet.add(link)?;
            let to = (0..shape.subscribers).filter(|reader| reader % shape.topics == number % shape.topics);
            let template = Template::new(&topic(number % shape.topics), number);
            fleet.publishers.push(Publisher {
                template,
                sent: 0,
                acked: 0,
                to: to.collect(),
            });
        }
        for number in 0..shape.subscribers {
            let (mut link, _) = Link::open(address, format!("subscriber-{number}"), !shape.kept)?;
            link.subscribe(&topic(number % shape.topics))?;
            fleet.seat(link, number, shape)?;
        }
        Ok(fleet)
    }

    /// Lets the subscribers be known to the broker with persistent sessions, and go away.
    pub(crate) fn introduce(address: SocketAddr, shape: Shape) -> Result<()> {
        for number in 0..shape.subscribers {
            let (mut link, _) = Link::open(address, format!("absent-{number}"), false)?;
            link.subscribe(&topic(number % shape.topics))?;
            link.leave()?;
        }
        Ok(())
    }

    /// The same subscribers come back; `sent` is what they missed.
    pub(crate) fn return_to(address: SocketAddr, shape: Shape, sent: Vec<u64>) -> Result<Self> {
        let mut fleet = Self::empty(shape)?;
        fleet.sent = sent;
        for number in 0..shape.subscribers {
            let (link, present) = Link::open(address, format!("absent-{number}"), false)?;
            ensure!(present, "{}: the broker has forgotten its session", link.name);
            fleet.seat(link, number, shape)?;
        }
        Ok(fleet)
    }

    fn empty(shape: Shape) -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            links: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            window: shape.window,
            sent: vec![0; shape.publishers],
            pongs: 0,
            scratch: vec![0; SCRATCH_BYTES].into(),
        })
    }

    fn seat(&mut self, link: Link, number: usize, shape: Shape) -> Result<()> {
        let from = (0..shape.publishers).filter(|writer| writer % shape.topics == number % shape.topics);
        self.subscribers.push(Subscriber {
            next: vec![0; shape.publishers],
            from: from.collect(),
        });
        self.add(link)
    }

    fn add(&mut self, link: Link) -> Result<()> {
        link.stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(self.links.len() as u64);
        epoll::add(&self.epoll, &link.stream, data, epoll::EventFlags::IN)?;
        self.links.push(link);
        Ok(())
    }

    /// How many messages each publisher has sent.
    pub(crate) fn sent(&self) -> &[u64] {
        &self.sent
    }

    /// Messages that reached subscribers, or publishers' acknowledgements where nobody subscribes.
    pub(crate) fn messages(&self) -> u64 {
        let received = self.subscribers.iter().flat_map(|subscriber| &subscriber.next).sum();
        let acked = self.publishers.iter().map(|publisher| publisher.acked).sum();
        if self.subscribers.is_empty() { acked } else { received }
    }

    /// Publishes up to the limit and returns when every message is acknowledged and delivered, and every client has
    /// had an answer to a last PINGREQ: nothing is on its way any more.
    pub(crate) fn run(&mut self, limit: Limit) -> Result<()> {
        let start = Instant::now();
        for link in 0..self.links.len() {
            self.read(link)?;
        }
        loop {
            let open = start.elapsed() < limit.time;
            if open {
                self.publish(limit.messages);
            }
            let publishing = open && self.publishers.iter().any(|publisher| publisher.sent < limit.messages);
            if !publishing && self.is_settled() {
                break;
            }
            let late = start.elapsed().saturating_sub(limit.time);
            ensure!(
                late < DRAIN_MAX,
                "not done {late:?} after the last PUBLISH: {}",
                self.missing()
            );
            self.turn()?;
        }
        self.pongs = 0;
        for link in &mut self.links {
            link.outbox.extend(wire::PINGREQ);
        }
        while self.pongs < self.links.len() {
            self.turn()?;
        }
        Ok(())
    }

    /// Says goodbye; the broker has let go of every client when it returns.
    pub(crate) fn leave(self) -> Result<()> {
        self.links.into_iter().try_for_each(Link::leave)
    }

    fn is_settled(&self) -> bool {
        self.publishers
            .iter()
            .all(|publisher| publisher.acked == publisher.sent)
            && self
                .subscribers
                .iter()
                .all(|one| one.from.iter().all(|from| one.next[*from] == self.sent[*from]))
    }

    /// Fills every publisher's window.
    fn publish(&mut self, messages: u64) {
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            let window = messages.min(publisher.acked + self.window);
            if publisher.sent >= window {
                continue;
            }
            let slowest = publisher
                .to
                .iter()
                .map(|reader| self.subscribers[*reader].next[number])
                .min();
            let last = slowest.map_or(window, |slowest| window.min(slowest + LAG_MAX));
            while publisher.sent < last {
                publisher.template.write(
                    packet_id(publisher.sent),
                    publisher.sent,
                    &mut self.links[number].outbox,
                );
                publisher.sent += 1;
            }
            self.sent[number] = publisher.sent;
        }
    }

    /// Writes what waits, then waits for news and reads once from everyone who has some.
    fn turn(&mut self) -> Result<()> {
        for at in 0..self.links.len() {
            if !self.links[at].outbox.is_empty() && !self.links[at].blocked {
                self.flush(at)?;
            }
        }
        let mut events = Vec::<epoll::Event>::with_capacity(256);
        let patience = Timespec::try_from(SILENCE_MAX)?;
        epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))?;
        ensure!(
            !events.is_empty(),
            "nothing came for {SILENCE_MAX:?}: {}",
            self.missing()
        );
        for event in events {
            let at = usize::try_from(event.data.u64())?;
            if self.links[at].blocked {
                self.flush(at)?;
            }
            self.read(at)?;
        }
        Ok(())
    }

    fn flush(&mut self, at: usize) -> Result<()> {
        let link = &mut self.links[at];
        let was_blocked = link.blocked;
        link.flush()?;
        if link.blocked != was_blocked {
            let writable = if link.blocked {
                epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::empty()
            };
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, &link.stream, data, epoll::EventFlags::IN | writable)?;
        }
        Ok(())
    }

    fn read(&mut self, at: usize) -> Result<()> {
        let Self {
            links,
            publishers,
            subscribers,
            pongs,
            scratch,
            ..
        } = self;
        let first_reader = publishers.len();
        let link = &mut links[at];
        let read = link.read(scratch, |packet, outbox| match (packet, publishers.get_mut(at)) {
            (Packet::PubAck { id }, Some(publisher)) => publisher.acknowledged(id),
            (
                Packet::Publish {
                    first_byte,
                    id,
                    payload,
                },
                None,
            ) => {
                subscribers[at - first_reader].received(first_byte, payload)?;
                outbox.extend(wire::puback(id));
                Ok(())
            }
            (Packet::PingResp, _) => {
                *pongs += 1;
                Ok(())
            }
            (other, _) => bail!("{other:?} makes no sense here"),
        });
        read.with_context(|| links[at].name.clone())
    }

    /// Who still waits for what.
    fn missing(&self) -> String {
        let acks = self
            .publishers
            .iter()
            .map(|publisher| publisher.sent - publisher.acked)
            .sum::<u64>();
        let owed = |one: &Subscriber| {
            one.from
                .iter()
                .map(|from| self.sent[*from] - one.next[*from])
                .sum::<u64>()
        };
        let messages = self.subscribers.iter().map(owed).sum::<u64>();
        format!(
            "{acks} acknowledgements and {messages} deliveries are missing, {} pongs came",
            self.pongs
        )
    }
}

impl Publisher {
    fn acknowledged(&mut self, id: u16) -> Result<()> {
        let expected = packet_id(self.acked);
        ensure!(
            self.acked < self.sent && id == expected,
            "PUBACK of {id} where {expected} was due"
        );
        self.acked += 1;
        Ok(())
    }
}

impl Subscriber {
    fn received(&mut self, first_byte: u8, payload: &[u8]) -> Result<()> {
        let (publisher, number) = wire::numbers(payload).context("a payload is not as it was sent")?;
        let due = self
            .next
            .get_mut(publisher)
            .context("a message of a publisher that does not exist")?;
        ensure!(
            first_byte == 0x32,
            "message {number} came with the first byte {first_byte:#04x}, not with QoS 1"
        );
        ensure!(
            number == *due,
            "message {number} of publisher {publisher} came where {due} was due"
        );
        *due += 1;
        Ok(())
    }
}

/// Identifiers go round from 1 to 65535.
fn packet_id(number: u64) -> u16 {
    (number % u64::from(u16::MAX)) as u16 + 1
}
