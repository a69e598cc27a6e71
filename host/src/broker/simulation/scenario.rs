//! What happens in a run: the broker's limits, the clients, and a list of steps, all drawn from one seed. A step
//! that makes no sense when it is due does nothing, so that any part of a list is a scenario as well.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::mqtt::limits::{Limits, QueueFull};

/// What is published to.
pub(super) const TOPICS: [&str; 4] = ["a/x", "a/y", "b/x", "b/y"];
/// What is subscribed to.
pub(super) const FILTERS: [&str; 8] = ["a/x", "a/y", "b/x", "b/y", "a/+", "+/x", "b/#", "#"];

/// A client, by its number.
pub(super) type Who = usize;

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) limits: Limits,
    /// Whether sessions survive a crash (`persist_sessions`).
    pub(super) durable: bool,
    /// The store looks at so many rows in one call.
    pub(super) rows_per_look: usize,
    pub(super) fetch_page: usize,
    /// `fetch_retry_for`, in seconds.
    pub(super) fetch_retry_s: u64,
    pub(super) batch_size: usize,
    pub(super) pool_queue_len_max: usize,
    /// Whether each client speaks MQTT 5; else it speaks 3.1.1.
    pub(super) speaks_v5: Vec<bool>,
    pub(super) steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Opens a connection and sends CONNECT; takes over where one is open.
    Connect(Who, Hello),
    /// Closes the socket, without DISCONNECT.
    Cut(Who),
    /// DISCONNECT, perhaps asking for the will (MQTT 5).
    Disconnect(Who, bool),
    /// SUBSCRIBE to a filter.
    Subscribe(Who, &'static str, u8),
    /// UNSUBSCRIBE.
    Unsubscribe(Who, &'static str),
    /// So many PUBLISH in a row.
    Publish(Who, Post),
    /// From now on the client acknowledges like this.
    Acknowledge(Who, Habit),
    /// Acknowledgements that were held back leave.
    Answer(Who, Order),
    /// The client stops or goes on reading its socket.
    Read(Who, bool),
    /// The client sends no more PINGREQ, or does again.
    Silent(Who, bool),
    /// What the store is like from now on.
    Store(Weather),
    /// The store refuses the next rows, so many.
    Refuse(u8),
    /// Everybody gets to run, so often.
    Turns(u8),
    /// Milliseconds pass.
    Rest(u32),
    /// kill -9.
    Crash,
    /// SIGTERM, and a new start.
    Stop,
}

/// A CONNECT.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hello {
    pub(super) clean: bool,
    /// Session Expiry Interval of an MQTT 5 client.
    pub(super) expiry_s: u32,
    pub(super) keep_alive_s: u16,
    pub(super) receive_max: u16,
    /// Bytes that the pipe holds in each direction.
    pub(super) pipe_bytes: usize,
    pub(super) will: Option<LastWords>,
}

impl Hello {
    /// Of a client with a session that outlives its connection by an hour, and nothing else that is special.
    pub(super) fn persistent() -> Self {
        Self {
            clean: false,
            expiry_s: 3600,
            keep_alive_s: 0,
            receive_max: u16::MAX,
            pipe_bytes: 4096,
            will: None,
        }
    }
}

/// A will.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LastWords {
    pub(super) topic: &'static str,
    pub(super) qos: u8,
    pub(super) delay_s: u32,
}

/// Messages that are published one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Post {
    pub(super) topic: &'static str,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) count: u8,
}

/// When a client acknowledges what it gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Habit {
    Promptly,
    /// After so many milliseconds.
    Late(u32),
    Never,
}

/// In which order held acknowledgements leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    Forwards,
    Backwards,
    /// The newest alone.
    Newest,
}

/// What a store is like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weather {
    /// The longest time that it takes to answer, in milliseconds.
    pub(super) late_ms: u32,
    pub(super) mood: Mood,
}

/// Whether a store does what it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Mood {
    #[default]
    Fair,
    /// It cannot be reached.
    Down,
    /// It commits, but nobody hears of it.
    Mute,
    /// One call in three fails, one in three is not heard of.
    Flaky,
}

impl Weather {
    pub(super) fn is_fair(self) -> bool {
        self.mood == Mood::Fair && self.late_ms <= 50
    }
}

impl Scenario {
    /// The scenario of this seed, always the same.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clients = random.random_range(2..=4);
        let limits = Limits {
            receive_max: pick(&mut random, &[2, 5, 20, 1024]),
            inflight_max: pick(&mut random, &[1, 2, 5, 100]),
            queue_len_max: pick(&mut random, &[3, 10, 1000]),
            queue_full: pick(&mut random, &[QueueFull::DropOld, QueueFull::DropNew]),
            session_expiry_max_s: pick(&mut random, &[30, 600, 7200]),
            keep_alive_factor: 1.5,
            ..Limits::default()
        };
        let mut scenario = Self {
            seed,
            limits,
            durable: random.random_bool(0.7),
            rows_per_look: pick(&mut random, &[2, 10, 5000]),
            fetch_page: pick(&mut random, &[1, 3, 100]),
            fetch_retry_s: pick(&mut random, &[1, 60, 1_000_000]),
            batch_size: pick(&mut random, &[1, 4, 256]),
            pool_queue_len_max: pick(&mut random, &[20, 100_000]),
            speaks_v5: (0..clients).map(|_| random.random()).collect(),
            steps: Vec::new(),
        };
        let mut draw = Draw {
            // Some runs see no store in trouble, some no crash, so that the plain paths are walked, too.
            troubled: random.random_bool(0.6),
            crashes: random.random_bool(0.5),
            random,
            clients,
        };
        for who in 0..clients {
            let hello = draw.hello(0.1);
            scenario.steps.push(Step::Connect(who, hello));
            scenario.steps.push(draw.subscribe(who));
        }
        scenario.steps.push(Step::Rest(5));
        let count = draw.random.random_range(10..70);
        // What needs many steps in the right order hardly ever comes about by itself.
        let scene_at = draw.random.random_bool(0.3).then(|| draw.random.random_range(0..count));
        for at in 0..count {
            match scene_at {
                Some(scene_at) if scene_at == at => {
                    let scene = match draw.random.random_bool(0.7) {
                        true => draw.withheld(),
                        false => draw.retained(),
                    };
                    scenario.steps.extend(scene);
                }
                _ => scenario.steps.push(draw.step()),
            }
        }
        scenario
    }

    /// What this CONNECT means in the version that the client speaks, within the broker's limits.
    pub(super) fn meant_by(&self, who: Who, hello: &Hello) -> Hello {
        let max = self.limits.session_expiry_max_s;
        let v5 = self.speaks_v5[who];
        Hello {
            expiry_s: match v5 {
                true => hello.expiry_s.min(max),
                false => {
                    if hello.clean {
                        0
                    } else {
                        max
                    }
                }
            },
            receive_max: if v5 { hello.receive_max } else { u16::MAX },
            will: hello.will.map(|will| LastWords {
                delay_s: if v5 { will.delay_s } else { 0 },
                ..will
            }),
            ..hello.clone()
        }
    }
}

/// Draws steps.
struct Draw {
    random: StdRng,
    clients: usize,
    troubled: bool,
    crashes: bool,
}

impl Draw {
    fn step(&mut self) -> Step {
        let who = self.someone();
        match self.random.random_range(0..100) {
            0..12 => Step::Connect(who, self.hello(0.15)),
            12..18 => Step::Cut(who),
            18..21 => Step::Disconnect(who, self.random.random_bool(0.3)),
            21..29 => self.subscribe(who),
            29..31 => Step::Unsubscribe(who, pick(&mut self.random, &FILTERS)),
            31..57 => Step::Publish(who, self.post()),
            57..63 => {
                let late = Habit::Late(pick(&mut self.random, &[5, 100, 3000]));
                Step::Acknowledge(who, pick(&mut self.random, &[Habit::Promptly, late, Habit::Never]))
            }
            63..68 => {
                let orders = [Order::Forwards, Order::Backwards, Order::Newest];
                Step::Answer(who, pick(&mut self.random, &orders))
            }
            68..70 => Step::Read(who, self.random.random()),
            70..71 => Step::Silent(who, self.random.random()),
            71..77 if self.troubled => Step::Store(self.weather()),
            77..78 if self.troubled => Step::Refuse(self.random.random_range(1..4)),
            78..81 if self.crashes => Step::Crash,
            81..82 if self.crashes => Step::Stop,
            82..90 => Step::Turns(self.random.random_range(1..8)),
            _ => Step::Rest(pick(
                &mut self.random,
                &[1, 2, 10, 60, 60, 200, 1000, 1000, 7000, 40_000, 100_000],
            )),
        }
    }

    /// Of several messages a newer one is acknowledged and older ones are not; positions are written; then all that
    /// was only in memory is lost, or the connection is. The older ones must come again, the newer one of QoS 2
    /// must not.
    fn withheld(&mut self) -> Vec<Step> {
        let (who, from) = (self.someone(), self.someone());
        let qos = pick(&mut self.random, &[1, 2]);
        let topic = pick(&mut self.random, &TOPICS);
        let hello = Hello {
            expiry_s: 3600,
            keep_alive_s: 0,
            receive_max: u16::MAX,
            pipe_bytes: 4096,
            ..self.hello(0.0)
        };
        let post = Post {
            topic,
            qos,
            retain: false,
            count: self.random.random_range(2..5),
        };
        let mut steps = vec![
            Step::Store(Weather::default()),
            Step::Connect(who, hello),
            Step::Read(who, true),
            Step::Rest(10),
            Step::Subscribe(who, topic, qos),
            Step::Rest(200),
            Step::Acknowledge(who, Habit::Never),
            Step::Publish(from, post),
            Step::Rest(200),
        ];
        // Of QoS 2 perhaps to the end: PUBREC, then PUBCOMP.
        for _ in 0..self.random.random_range(1..=qos) {
            steps.extend([Step::Answer(who, Order::Newest), Step::Rest(200)]);
        }
        steps.push(pick(
            &mut self.random,
            &[Step::Crash, Step::Crash, Step::Stop, Step::Cut(who)],
        ));
        let hello = self.hello(0.0);
        steps.extend([Step::Rest(200), Step::Connect(who, hello)]);
        steps
    }

    /// The same with messages that are retained before their reader subscribes.
    fn retained(&mut self) -> Vec<Step> {
        let (who, from) = (self.someone(), self.someone());
        let qos = pick(&mut self.random, &[1, 2, 2]);
        let hello = Hello {
            expiry_s: 3600,
            keep_alive_s: 0,
            receive_max: pick(&mut self.random, &[2, u16::MAX]),
            pipe_bytes: 4096,
            ..self.hello(0.0)
        };
        let mut steps = vec![Step::Store(Weather::default()), Step::Connect(who, hello)];
        let post = |topic| Post {
            topic,
            qos,
            retain: true,
            count: 1,
        };
        steps.extend(TOPICS.map(|topic| Step::Publish(from, post(topic))));
        steps.extend([
            Step::Rest(200),
            Step::Acknowledge(who, Habit::Never),
            Step::Subscribe(who, pick(&mut self.random, &["#", "+/x"]), qos),
            Step::Rest(200),
        ]);
        for _ in 0..self.random.random_range(0..=qos) {
            steps.extend([Step::Answer(who, Order::Newest), Step::Rest(200)]);
        }
        steps.push(pick(&mut self.random, &[Step::Crash, Step::Crash, Step::Cut(who)]));
        let hello = self.hello(0.0);
        // Long enough to leave memory where it was cut, or not.
        let rest = pick(&mut self.random, &[200, 7000]);
        steps.extend([Step::Rest(rest), Step::Connect(who, hello)]);
        steps
    }

    fn someone(&mut self) -> Who {
        self.random.random_range(0..self.clients)
    }

    fn hello(&mut self, clean: f64) -> Hello {
        Hello {
            clean: self.random.random_bool(clean),
            expiry_s: pick(&mut self.random, &[0, 20, 3600, 3600, 3600]),
            keep_alive_s: pick(&mut self.random, &[0, 0, 0, 5]),
            receive_max: pick(&mut self.random, &[1, 3, 65_535, 65_535]),
            pipe_bytes: pick(&mut self.random, &[32, 4096, 4096]),
            will: self.random.random_bool(0.3).then(|| LastWords {
                topic: pick(&mut self.random, &TOPICS),
                qos: self.random.random_range(0..3),
                delay_s: pick(&mut self.random, &[0, 0, 2, 30]),
            }),
        }
    }

    fn subscribe(&mut self, who: Who) -> Step {
        let qos = pick(&mut self.random, &[0, 1, 1, 2, 2]);
        Step::Subscribe(who, pick(&mut self.random, &FILTERS), qos)
    }

    fn post(&mut self) -> Post {
        Post {
            topic: pick(&mut self.random, &TOPICS),
            qos: pick(&mut self.random, &[0, 1, 1, 2, 2]),
            retain: self.random.random_bool(0.15),
            count: pick(&mut self.random, &[1, 1, 2, 3, 8]),
        }
    }

    fn weather(&mut self) -> Weather {
        Weather {
            late_ms: pick(&mut self.random, &[0, 0, 2, 30, 800]),
            mood: pick(
                &mut self.random,
                &[Mood::Fair, Mood::Fair, Mood::Fair, Mood::Down, Mood::Mute, Mood::Flaky],
            ),
        }
    }
}

fn pick<T: Clone>(random: &mut StdRng, choices: &[T]) -> T {
    choices.choose(random).expect("there are choices").clone()
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits {
            receive_max,
            inflight_max,
            queue_len_max,
            queue_full,
            session_expiry_max_s,
            ..
        } = self.limits;
        writeln!(f, "seed {}", self.seed)?;
        writeln!(
            f,
            "receive_max {receive_max}, inflight_max {inflight_max}, queue_len_max {queue_len_max}, {queue_full:?}, \
             session_expiry_max {session_expiry_max_s}s, rows_per_look {}, fetch_page {}, fetch_retry_for {}s, \
             batch_size {}, pool_queue_len_max {}, persist_sessions {}",
            self.rows_per_look,
            self.fetch_page,
            self.fetch_retry_s,
            self.batch_size,
            self.pool_queue_len_max,
            self.durable
        )?;
        for (who, v5) in self.speaks_v5.iter().enumerate() {
            writeln!(f, "client {who} speaks MQTT {}", if *v5 { "5.0" } else { "3.1.1" })?;
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}
