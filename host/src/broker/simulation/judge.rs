//! What every client may see and must see, told from the clients' side alone, except that the store is asked
//! what it has committed. The first thing that is wrong ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::packets::Parcel;
use super::scenario::{Hello, Post, Who};
use super::store::Memory;
use crate::model::topic::Filter;

/// How much later than it could the broker may do what is due, while the store is fair.
const SLACK: Duration = Duration::from_secs(3);

/// A store that was in trouble is asked again after so long at the latest, and clients wait for it in vain for a while.
const BACKOFF: Duration = Duration::from_secs(30);

/// A message of an MQTT 5 client waits for a store for so long (`ack_timeout`), nearly.
const ACK_TIMEOUT: Duration = Duration::from_secs(29);

/// Kept times are whole seconds.
const SECOND: Duration = Duration::from_secs(1);

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wrong {
    pub(super) rule: &'static str,
    pub(super) text: String,
}

/// The model.
pub(super) struct Judge {
    /// Whether sessions survive a crash: then Session Present is 1 after one, everything is still there, and QoS 2
    /// stays exactly once across it.
    durable: bool,
    published: Vec<Published>,
    people: Vec<Person>,
    wrong: Option<Wrong>,
    /// The broker is being stopped: whoever is connected is closed.
    pub(super) shutting_down: bool,
    /// Until then the store was in trouble, and so the broker may not have looked at its clients.
    pub(super) trouble_until: Duration,
    /// When that trouble began.
    trouble_from: Duration,
}

/// A message; its payload is its number.
struct Published {
    from: Who,
    topic: &'static str,
    qos: u8,
    retain: bool,
    accepted: bool,
    /// Its publisher was told that it was not taken; what became of it nobody knows.
    refused: bool,
    /// Its publisher has sent it again: of QoS 1 that may be another message.
    resent: bool,
    /// When it was published.
    at: Duration,
    will: Option<Fate>,
    /// Will Delay Interval.
    delay: Duration,
}

/// What is to become of a will.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Its client is connected.
    Armed,
    /// It is published then, unless its client comes back before.
    Due(Duration),
    /// Either is right.
    May,
    Must,
    MustNot,
}

/// A client and its session, as it knows it.
#[derive(Default)]
struct Person {
    name: String,
    /// Filters with a SUBACK, and the QoS that was granted.
    subscriptions: BTreeMap<&'static str, u8>,
    /// What it has subscribed to in a session that was lost, and has no SUBACK for yet in this one.
    asks_again: BTreeMap<&'static str, u8>,
    /// Every filter that was ever asked for in this session, and how often.
    asked: BTreeMap<&'static str, usize>,
    /// Every filter that was ever asked for.
    ever_asked: BTreeSet<&'static str>,
    /// It has not read for a while.
    reads_late: bool,
    /// When it got its CONNACK.
    connected_at: Duration,
    /// It came back to its session after a crash, and has not subscribed since.
    is_restored: bool,
    /// What it must see, and through which filters.
    owed: BTreeMap<u32, BTreeSet<&'static str>>,
    seen: BTreeSet<u32>,
    /// What was retained when it subscribed and it must see while nothing newer is, and through which filters.
    owed_retained: BTreeMap<u32, BTreeSet<&'static str>>,
    /// How often it got messages of QoS 2 in this session, live or as what it had missed.
    exactly: BTreeMap<u32, usize>,
    /// How often it got retained messages of QoS 2 in this session.
    exactly_retained: BTreeMap<u32, usize>,
    /// The last first delivery by publisher, topic and QoS.
    last: BTreeMap<(Who, &'static str, u8), u32>,
    will: Option<u32>,
    life: Life,
    /// Counts its sessions.
    sessions: u32,
    /// The CONNECT that is not answered yet.
    hello: Option<(Hello, Duration)>,
}

/// What a client knows of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Life {
    /// There is none.
    #[default]
    None,
    /// It is connected; the session lives for so long after it.
    Online(Duration),
    /// The session lives surely until then; whether it still lives `perhaps` until then depends on when the broker
    /// noticed that its client had gone.
    Offline {
        surely: Duration,
        perhaps: Duration,
        expiry: Duration,
    },
    /// The broker has crashed or stopped; what was to be read may be forgotten from then on.
    Gone(Duration),
}

impl Judge {
    pub(super) fn new(clients: usize, durable: bool) -> Self {
        let person = |who| Person {
            name: name(who),
            ..Person::default()
        };
        Self {
            durable,
            published: Vec::new(),
            people: (0..clients).map(person).collect(),
            wrong: None,
            shutting_down: false,
            trouble_until: Duration::ZERO,
            trouble_from: Duration::ZERO,
        }
    }

    /// Which of its sessions this client is in.
    pub(super) fn session_of(&self, who: Who) -> u32 {
        self.people[who].sessions
    }

    pub(super) fn verdict(&self) -> Option<&Wrong> {
        self.wrong.as_ref()
    }

    pub(super) fn wrong(&mut self, rule: &'static str, text: String) {
        self.wrong.get_or_insert(Wrong { rule, text });
    }

    fn check(&mut self, holds: bool, rule: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.wrong(rule, text());
        }
    }

    /// A client sends CONNECT. Answers the payload of its will.
    pub(super) fn connects(&mut self, who: Who, hello: &Hello, now: Duration) -> Option<String> {
        self.gone(who, now); // where it is taken over, that is as if it were cut
        self.judge_will(who, hello.clean, now);
        if hello.clean {
            self.people[who].forget();
            // A will that waited in the store for its client comes with the end of its session.
            let wills = self.published.iter_mut().filter(|it| it.from == who);
            for waiting in wills.filter(|it| matches!(it.will, Some(Fate::Due(_)))) {
                waiting.will = Some(Fate::May);
            }
        }
        self.people[who].hello = Some((hello.clone(), now));
        self.people[who].reads_late = false;
        let words = hello.will?;
        let delay = Duration::from_secs(words.delay_s.into());
        let number = self.published.len() as u32;
        self.published.push(Published {
            from: who,
            topic: words.topic,
            qos: words.qos,
            retain: false,
            accepted: false,
            refused: false,
            resent: false,
            at: now,
            will: Some(Fate::May), // until CONNACK nobody knows
            delay,
        });
        self.people[who].will = Some(number);
        Some(number.to_string())
    }

    /// A will that was due when its client connects again.
    fn judge_will(&mut self, who: Who, clean: bool, now: Duration) {
        let Some(number) = self.people[who].will.take() else {
            return;
        };
        let late = self.trouble_until + SLACK > now;
        let fate = &mut self.published[number as usize].will;
        if let Some(Fate::Due(at)) = *fate {
            *fate = Some(match () {
                () if clean || self.people[who].life == Life::None => Fate::Must,
                () if now >= at + SLACK && !late => Fate::Must,
                // Whoever comes back in time keeps it from being published; CONNACK tells.
                () => {
                    self.people[who].will = Some(number);
                    Fate::Due(at)
                }
            });
        }
    }

    /// CONNACK. Answers the filters that the client has to subscribe to again.
    pub(super) fn connected(&mut self, who: Who, present: bool, now: Duration) -> Vec<(&'static str, u8)> {
        let (trouble_until, durable) = (self.trouble_until, self.durable);
        let person = &mut self.people[who];
        let Some((hello, asked_at)) = person.hello.take() else {
            self.wrong("one CONNACK for a CONNECT", format!("{who} got another"));
            return Vec::new();
        };
        let (life, name) = (person.life, person.name.clone());
        let (must, must_not) = match life {
            _ if hello.clean => (false, true),
            Life::None => (false, true),
            Life::Online(_) => (false, false),
            Life::Offline {
                surely,
                perhaps,
                expiry,
            } => {
                // While a store is in trouble, a publisher's socket may not be read, nor its end be seen.
                let perhaps = perhaps.max(trouble_until + expiry + SLACK);
                (now < surely, asked_at > perhaps)
            }
            // What had a SUBACK is kept.
            Life::Gone(surely) => (durable && !person.subscriptions.is_empty() && now < surely, !durable),
        };
        if !present {
            match life {
                Life::Gone(forgotten_at) if now < forgotten_at && !hello.clean => {
                    person.asks_again.clone_from(&person.subscriptions);
                    person.exactly.clear();
                    person.exactly_retained.clear();
                    person.owed_retained.clear();
                    person.asked.clear();
                }
                _ => person.forget(),
            }
        }
        person.connected_at = now;
        person.is_restored = present && (person.is_restored || matches!(life, Life::Gone(_)));
        person.life = Life::Online(Duration::from_secs(hello.expiry_s.into()));
        let expired = !present;
        self.check(!(present && must_not), "Session Present is never falsely 1", || {
            format!("{name} was told so, {life:?}, {hello:?}")
        });
        self.check(present || !must, "a session lives until it expires", || {
            format!("{name} lost it, {life:?}")
        });
        // The will of the connection before, and that of this one.
        let new = hello.will.is_some().then(|| self.newest_will(who)).flatten();
        for (number, message) in self.published.iter_mut().enumerate().filter(|(_, it)| it.from == who) {
            match message.will {
                Some(Fate::Due(at)) => {
                    message.will = Some(match () {
                        () if expired => Fate::May,
                        () if now + SECOND < at => Fate::MustNot,
                        () => Fate::May,
                    });
                }
                Some(Fate::May) if Some(number as u32) == new => message.will = Some(Fate::Armed),
                _ => {}
            }
        }
        self.people[who].will = new;
        self.people[who].asks_again.clone().into_iter().collect()
    }

    /// Whether a client may hear that it should try again later: its session cannot be read.
    pub(super) fn may_turn_away(&self, now: Duration) -> bool {
        self.durable && (self.shutting_down || now < self.trouble_until + BACKOFF)
    }

    fn newest_will(&self, who: Who) -> Option<u32> {
        let newest = self
            .published
            .iter()
            .rposition(|it| it.from == who && it.will.is_some());
        newest.map(|number| number as u32)
    }

    /// The connection has ended without DISCONNECT, as far as the client knows.
    pub(super) fn gone(&mut self, who: Who, now: Duration) {
        let person = &mut self.people[who];
        if let Some((hello, asked_at)) = person.hello.take() {
            return self.vanished_before_connack(who, &hello, asked_at, now);
        }
        let Life::Online(expiry) = person.life else { return };
        person.life = Life::Offline {
            surely: match person.reads_late {
                true => Duration::ZERO, // it may have been closed for long
                false => now + expiry.saturating_sub(SECOND),
            },
            perhaps: now + expiry + SLACK,
            expiry,
        };
        let will = person.will;
        if expiry.is_zero() {
            person.forget();
        }
        let Some(number) = will else { return };
        if self.published[number as usize].will != Some(Fate::Armed) {
            return;
        }
        let delay = self.published[number as usize].delay.min(expiry);
        self.published[number as usize].will = Some(if delay.is_zero() {
            Fate::Must
        } else {
            Fate::Due(now + delay)
        });
        self.owe(number);
    }

    /// Whether the broker took this CONNECT nobody knows.
    fn vanished_before_connack(&mut self, who: Who, hello: &Hello, asked_at: Duration, now: Duration) {
        let person = &mut self.people[who];
        let new = Duration::from_secs(hello.expiry_s.into());
        let at_most = now + new + SLACK;
        person.life = match person.life {
            Life::Offline {
                surely,
                perhaps,
                expiry,
            } if !hello.clean && asked_at < surely => Life::Offline {
                surely: surely.min(now + new.saturating_sub(SECOND)),
                perhaps: perhaps.max(at_most),
                expiry: expiry.max(new),
            },
            Life::Gone(surely) if !hello.clean && asked_at < surely && self.durable => {
                Life::Gone(surely.min(now + new.saturating_sub(SECOND)))
            }
            // There may be another session now, which nobody was told of, or still the one before.
            before => {
                let (perhaps, expiry) = match before {
                    Life::Offline { perhaps, expiry, .. } => (perhaps, expiry),
                    Life::Gone(_) if self.durable => (Duration::MAX, Duration::ZERO),
                    Life::None | Life::Online(_) | Life::Gone(_) => Default::default(),
                };
                let asked = std::mem::take(&mut person.asked);
                person.forget();
                person.asked = asked;
                Life::Offline {
                    surely: Duration::ZERO,
                    perhaps: perhaps.max(at_most),
                    expiry: expiry.max(new),
                }
            }
        };
        let wills = self.published.iter_mut().filter(|it| it.from == who);
        wills.for_each(|it| {
            it.will = it
                .will
                .map(|fate| if let Fate::Due(_) = fate { Fate::May } else { fate })
        });
    }

    /// The broker has closed the connection; when exactly, nobody knows.
    pub(super) fn closed(&mut self, who: Who, allowed: bool, reason: Option<u8>, now: Duration) {
        let name = self.people[who].name.clone();
        self.check(allowed, "nobody is closed for nothing", || {
            format!("{name} was, reason {reason:02X?}")
        });
        self.doubt_will(who);
        self.gone(who, now);
        // It may have been closed for long when the client notices.
        if let Life::Offline { surely, .. } = &mut self.people[who].life {
            *surely = Duration::ZERO;
        }
    }

    /// DISCONNECT has left.
    pub(super) fn says_goodbye(&mut self, who: Who, with_will: bool, surely: bool, now: Duration) {
        if !with_will && let Some(number) = self.people[who].will {
            let fate = &mut self.published[number as usize].will;
            *fate = Some(if surely && *fate == Some(Fate::Armed) {
                Fate::MustNot
            } else {
                Fate::May
            });
        }
        self.gone(who, now);
    }

    fn doubt_will(&mut self, who: Who) {
        if let Some(number) = self.people[who].will {
            self.published[number as usize].will = Some(Fate::May);
        }
    }

    /// It does not read for a while: what it reads on this connection from now on may have been sent long before.
    pub(super) fn is_deaf(&mut self, who: Who) {
        self.people[who].reads_late = true;
    }

    /// The store is in trouble now.
    pub(super) fn trouble(&mut self, now: Duration) {
        if self.trouble_until + SLACK < now {
            self.trouble_from = now;
        }
        self.trouble_until = now;
    }

    /// The broker has stopped or, where it had no time for `last_wills`, crashed: what was only in its memory is
    /// gone.
    pub(super) fn stopped(&mut self, last_wills: bool, store: &Memory, now: Duration) {
        let last_wills = last_wills && self.trouble_until + SLACK < now;
        // That a client is there again is written behind its CONNACK: who came in the trouble that the store is in was
        // away for it.
        let unwritten_since = match self.trouble_until + SLACK < now {
            true => now,
            false => self.trouble_from.saturating_sub(SLACK),
        };
        for who in 0..self.people.len() {
            let pending = self.people[who].hello.is_some();
            self.gone(who, now);
            let person = &mut self.people[who];
            person.will = None;
            let known = |filter: &str| store.knows_reader(&person.name, filter);
            let lost: Vec<_> = person
                .subscriptions
                .keys()
                .filter(|filter| !known(filter))
                .copied()
                .collect();
            lost.into_iter().for_each(|filter| person.leave(filter));
            person.life = match person.life {
                Life::None if !pending => Life::None,
                Life::None | Life::Online(_) => Life::Gone(Duration::ZERO),
                Life::Offline { .. } if person.connected_at >= unwritten_since => Life::Gone(Duration::ZERO),
                Life::Offline { surely, .. } | Life::Gone(surely) => Life::Gone(surely),
            };
        }
        for (number, message) in self.published.iter_mut().enumerate() {
            let is_kept = self.durable && store.keeps_will(&name(message.from), &number.to_string());
            message.will = message.will.map(|fate| match fate {
                // It waits for the next start, and for its client: since when, of a stop that took a while nobody knows.
                Fate::Due(_) if is_kept && self.shutting_down => Fate::May,
                Fate::Due(at) if is_kept => Fate::Due(at),
                Fate::Armed | Fate::Due(_) if last_wills => Fate::Must,
                Fate::Must if last_wills || store.holds(&number.to_string()) => Fate::Must,
                // Whether the broker has read the DISCONNECT, or come to keep that, nobody knows.
                Fate::MustNot if !is_kept => Fate::MustNot,
                Fate::Armed | Fate::Due(_) | Fate::May | Fate::Must | Fate::MustNot => Fate::May,
            });
        }
    }

    pub(super) fn subscribes(&mut self, who: Who, filter: &'static str, qos: u8) {
        let person = &mut self.people[who];
        *person.asked.entry(filter).or_default() += 1;
        person.ever_asked.insert(filter);
        person.is_restored = false;
        if qos == 0 {
            person.leave(filter);
        }
    }

    /// SUBACK. Where it came `promptly`, it is known where the reader begins, or a crash would lose messages.
    pub(super) fn subscribed(&mut self, who: Who, filter: &'static str, qos: u8, promptly: bool, store: &Memory) {
        let is_kept = !self.is_kept(who) || store.keeps_subscription(&name(who), filter, qos);
        self.check(is_kept, "SUBACK waits for the subscription's row", || {
            format!("{} could lose its subscription to {filter}, QoS {qos}", name(who))
        });
        self.people[who].asks_again.remove(filter);
        if qos == 0 {
            return;
        }
        self.owe_retained(who, filter, store);
        let person = &mut self.people[who];
        person.subscriptions.insert(filter, qos);
        let lives_on = matches!(person.life, Life::Online(expiry) if !expiry.is_zero());
        let (name, known) = (person.name.clone(), store.knows_reader(&person.name, filter));
        self.check(
            known || !promptly || !lives_on,
            "SUBACK waits for the reader's row",
            || format!("{name} may miss what comes after the SUBACK for {filter}"),
        );
    }

    pub(super) fn unsubscribes(&mut self, who: Who, filter: &'static str) {
        self.people[who].leave(filter);
    }

    /// A client publishes; answers the message's number.
    pub(super) fn publishes(&mut self, who: Who, post: Post, now: Duration) -> u32 {
        let number = self.published.len() as u32;
        self.published.push(Published {
            from: who,
            topic: post.topic,
            qos: post.qos,
            retain: post.retain,
            accepted: false,
            refused: false,
            resent: false,
            at: now,
            will: None,
            delay: Duration::ZERO,
        });
        self.owe(number);
        if post.retain {
            let published = &self.published;
            let is_other = |number: &u32| published[*number as usize].topic != post.topic;
            for person in &mut self.people {
                person.owed_retained.retain(|number, _| is_other(number));
            }
        }
        number
    }

    /// Whoever has subscribed must see what is retained, unless something newer is before it was sent.
    fn owe_retained(&mut self, who: Who, filter: &'static str, store: &Memory) {
        for payload in store.retained_for(filter) {
            let number: u32 = payload.parse().expect("payloads are numbers");
            let Published { topic, qos, .. } = self.published[number as usize];
            let mut newer = self.published[number as usize + 1..].iter();
            let person = &mut self.people[who];
            if qos > 0 && !person.seen.contains(&number) && !newer.any(|it| it.retain && it.topic == topic) {
                person.owed_retained.entry(number).or_default().insert(filter);
            }
        }
    }

    /// A client sends a message again.
    pub(super) fn resends(&mut self, number: u32) {
        self.published[number as usize].resent = true;
    }

    /// Whoever has subscribed to it must see it, if the broker takes it.
    fn owe(&mut self, number: u32) {
        let Published { topic, qos, .. } = self.published[number as usize];
        for person in self.people.iter_mut().filter(|_| qos > 0) {
            let matching = person.subscriptions.keys().filter(|filter| matches(filter, topic));
            let through: BTreeSet<_> = matching.copied().collect();
            if !through.is_empty() && !person.seen.contains(&number) {
                person.owed.insert(number, through);
            }
        }
    }

    /// PUBACK or PUBREC.
    pub(super) fn answered(&mut self, number: u32, reason: u8, store: &Memory) {
        if reason >= 0x80 {
            self.published[number as usize].refused = true;
            return;
        }
        self.published[number as usize].accepted = true;
        let payload = number.to_string();
        self.check(store.holds(&payload), "acknowledged means committed", || {
            format!("message {number} was acknowledged and is not in the store")
        });
    }

    /// A client got a message. `anew`: it is no resend of a QoS 2 message that it holds already.
    pub(super) fn delivered(&mut self, who: Who, parcel: &Parcel, anew: bool, store: &Memory, now: Duration) {
        let person = &mut self.people[who];
        let name = person.name.clone();
        let number: u32 = parcel.payload.parse().unwrap_or(u32::MAX);
        let Some(message) = self.published.get(number as usize) else {
            return self.wrong("only what was published is delivered", format!("{name}: {parcel:?}"));
        };
        // What waits for a store for too long is refused, whether or not its publisher is there to hear of it.
        let may_be_refused = message.refused || self.trouble_until > message.at + ACK_TIMEOUT;
        // What is passed on with QoS 0 was perhaps not stored when the publisher had to send it again.
        let is_resent = message.resent && (message.qos == 1 || parcel.qos == 0);
        let (from, topic, qos, will) = (message.from, message.topic, message.qos, message.will);
        let in_time = match will {
            None | Some(Fate::Armed | Fate::May | Fate::Must) => true,
            Some(Fate::Due(at)) => now + SECOND >= at || self.shutting_down,
            Some(Fate::MustNot) => false,
        };
        let wanted = person
            .ever_asked
            .iter()
            .any(|filter| matches(filter, parcel.topic.as_str()));
        let is_first = person.seen.insert(number);
        if parcel.qos == 0 {
            person.has(number);
        }
        let mut times = 0;
        if parcel.qos == 2 && anew {
            let exactly = match parcel.retain {
                true => &mut person.exactly_retained,
                false => &mut person.exactly,
            };
            let times_before = exactly.entry(number).or_default();
            *times_before += 1;
            times = *times_before;
        }
        // Overlapping subscriptions may get a copy each (3.3.5), and every SUBSCRIBE brings what is retained.
        let asked = person.asked.iter().filter(|(filter, _)| matches(filter, topic));
        let copies = match parcel.retain {
            // A CONNECT that was turned away may not have ended the session that it was to end.
            true => asked.map(|(_, times)| *times).sum::<usize>().max(1),
            false => asked.count().max(1),
        };
        let mut newest = None;
        // MQTT 3 knows no refusal: its client sends again, and that is another message.
        let disturbed = store.has_refused(&parcel.payload) || may_be_refused;
        // Whoever subscribes gets what is retained now before what it has not read.
        let out_of_line = parcel.retain && !person.is_restored;
        if is_first && !out_of_line && will.is_none() && !disturbed && !is_resent {
            // As sent: a subscription that was made again with another QoS may send what it has queued later.
            newest = person.last.insert((from, topic, parcel.qos), number);
        }
        self.check(
            parcel.topic == topic && parcel.qos <= qos,
            "what is delivered is what was published",
            || format!("{name}: {parcel:?}"),
        );
        self.check(wanted, "nobody gets what it did not ask for", || {
            format!("{name}: {parcel:?}")
        });
        self.check(in_time, "a will is published when it is due, and only then", || {
            format!("{name} got will {number}, {will:?}, at {now:?}")
        });
        self.check(times <= copies || disturbed, "QoS 2 is delivered exactly once", || {
            format!("{name} got message {number} {times} times, {copies} of its filters match")
        });
        self.check(
            copies > 1 || newest.is_none_or(|newest| newest < number),
            "order is kept",
            || format!("{name} got message {number} after {newest:?}, topic {topic}, QoS {qos}"),
        );
    }

    /// PUBCOMP: the client may use the packet identifier for another message.
    pub(super) fn completed(&mut self, who: Who, packet_id: u16, store: &Memory) {
        let is_free = !self.is_kept(who) || !store.keeps_received(&name(who), packet_id);
        self.check(is_free, "PUBCOMP waits for the end of the exchange", || {
            format!("after a crash {}'s next message {packet_id} is a known one", name(who))
        });
    }

    /// A PUBLISH of QoS 2, or its PUBREL, which says that it is released: so much must be kept.
    pub(super) fn exchanges(&mut self, who: Who, packet_id: u16, number: u32, released: bool, store: &Memory) {
        let payload = number.to_string();
        let is_known = !self.is_kept(who) || store.keeps_sent(&name(who), packet_id, &payload, released);
        let rule = match released {
            false => "PUBLISH of QoS 2 waits for its row",
            true => "PUBREL waits for the row of PUBREC",
        };
        self.check(is_known, rule, || {
            format!("{} could get message {number} again, id {packet_id}", name(who))
        });
    }

    /// Whether the session that this client is connected to survives a crash.
    fn is_kept(&self, who: Who) -> bool {
        self.durable
            && !self.people[who].reads_late
            && matches!(self.people[who].life, Life::Online(expiry) if !expiry.is_zero())
    }

    /// A client has acknowledged a message; before that it may ask for it once more.
    pub(super) fn acknowledged(&mut self, who: Who, number: u32) {
        self.people[who].has(number);
    }

    /// What somebody must still see.
    pub(super) fn missing(&self, store: &Memory) -> Option<(String, u32)> {
        let is_firm = |number: u32| {
            let message = &self.published[number as usize];
            let must = message.will.map_or(message.accepted, |fate| fate == Fate::Must);
            must && !(message.will.is_some() && store.has_refused(&number.to_string()))
        };
        self.people.iter().find_map(|person| {
            let mut owed = person.owed.keys().chain(person.owed_retained.keys()).copied();
            let owed = owed.find(|number| is_firm(*number))?;
            Some((person.name.clone(), owed))
        })
    }

    /// The run is over: everybody was there and everything had its time.
    pub(super) fn end(&mut self, store: &Memory) {
        if let Some((name, number)) = self.missing(store) {
            self.wrong(
                "nothing acknowledged is lost",
                format!("{name} never got message {number}"),
            );
        }
        for (number, message) in self.published.iter().enumerate() {
            let payload = number.to_string();
            let is_there = message.qos == 0 || store.holds(&payload) || store.has_refused(&payload);
            if message.will == Some(Fate::Must) && !is_there {
                let text = format!("will {number} was not stored");
                return self.wrong("a will is published when it is due, and only then", text);
            }
        }
        let lives_on = |person: &&Person| matches!(person.life, Life::Online(expiry) if !expiry.is_zero());
        for person in self.people.iter().filter(lives_on) {
            for filter in person.subscriptions.keys() {
                let is_clear = |payload: &String| {
                    let number: usize = payload.parse().expect("payloads are numbers");
                    let message = &self.published[number];
                    !message.refused && self.trouble_until < message.at + ACK_TIMEOUT
                };
                let unread = store.unread_by(&person.name, filter).into_iter().filter(is_clear);
                let unread: Vec<String> = unread.collect();
                if !unread.is_empty() {
                    let text = format!(
                        "{} has acknowledged {unread:?} and would get it again ({filter})",
                        person.name
                    );
                    return self.wrong("positions follow acknowledgements", text);
                }
            }
        }
    }
}

impl Person {
    /// The session and what it was owed are over.
    fn forget(&mut self) {
        self.sessions += 1;
        self.subscriptions.clear();
        self.asks_again.clear();
        self.asked.clear();
        self.owed.clear();
        self.owed_retained.clear();
        self.exactly.clear();
        self.exactly_retained.clear();
    }

    /// The subscription is over, and so is what only it was owed.
    fn leave(&mut self, filter: &'static str) {
        self.subscriptions.remove(filter);
        self.asks_again.remove(filter);
        for owed in [&mut self.owed, &mut self.owed_retained] {
            owed.retain(|_, through| {
                through.remove(filter);
                !through.is_empty()
            });
        }
    }

    /// It has seen the message.
    fn has(&mut self, number: u32) {
        self.owed.remove(&number);
        self.owed_retained.remove(&number);
    }
}

/// The client identifier.
pub(super) fn name(who: Who) -> String {
    format!("c{who}")
}

fn matches(filter: &str, topic: &str) -> bool {
    Filter::new(filter.to_owned()).expect("a good filter").matches(topic)
}
