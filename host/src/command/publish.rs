//! `hookline pub`: sends messages and ends well only when the broker has answered for every one of them.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::pin::pin;
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::client::arguments::{Connection, parse_qos, parse_topic};
use super::client::{self, Event, Events, Letter, PACKET_BYTES_MAX, Sender, WINDOW};
use super::{Failure, properties};
use crate::model::message::Qos;

/// Arguments of `hookline pub`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Topic to publish to
    #[arg(short, long, value_parser = parse_topic)]
    topic: String,
    #[command(flatten)]
    payload: Payload,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: Qos,
    /// Keep the message for later subscribers
    #[arg(short, long)]
    retain: bool,
    /// Property of the message (MQTT 5), e.g. `-D publish content-type text/plain`
    #[arg(short = 'D', long = "property", value_names = ["publish", "NAME", "VALUE"], num_args = 3..=4)]
    properties: Vec<String>,
}

/// Where payloads come from; exactly one of them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Payload {
    /// Payload
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<String>,
    /// File whose content is the payload
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// A message for every line of standard input that is not empty
    #[arg(short = 'l', long = "stdin-line")]
    lines: bool,
    /// Nothing: an empty payload
    #[arg(short, long = "null-message")]
    null: bool,
    /// Standard input as one payload
    #[arg(short = 's', long = "stdin-file")]
    stdin: bool,
}

/// Runs `hookline pub`.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let properties = properties::parse(&args.properties).map_err(Failure::new)?;
    if properties.is_some() && !args.connection.is_v5() {
        return Err(Failure::new("-D is a matter of MQTT 5: add -V 5"));
    }
    let payloads = args.payload.open()?;
    let (sender, events) = client::open(&args.connection)?;
    let letter = Letter {
        topic: args.topic,
        qos: args.qos,
        retain: args.retain,
        properties,
    };
    Publisher {
        sender,
        letter,
        payloads,
        more: true,
        open: 0,
        failure: None,
    }
    .run(events)
    .await
}

struct Publisher {
    sender: Sender,
    letter: Letter,
    payloads: mpsc::Receiver<io::Result<Bytes>>,
    /// Whether payloads may still come.
    more: bool,
    /// Messages that the broker has not answered for.
    open: u16,
    /// Why a message was not published.
    failure: Option<Failure>,
}

impl Publisher {
    async fn run(mut self, mut events: Events) -> Result<(), Failure> {
        while events.next().await? != Event::Connected {}
        while self.more || self.open > 0 {
            match self.next(&mut events).await? {
                Event::Sent if self.letter.qos == Qos::AtMostOnce => self.open -= 1,
                Event::Settled(answer) => self.settle(answer),
                _ => {}
            }
        }
        client::leave(&self.sender, events).await;
        self.failure.map_or(Ok(()), Err)
    }

    /// The next event; while it is awaited, payloads are taken as they come.
    async fn next(&mut self, events: &mut Events) -> Result<Event, Failure> {
        let mut event = pin!(events.next());
        loop {
            tokio::select! {
                // First, so that a broker that takes the last message and goes has taken it.
                biased;
                payload = self.payloads.recv(), if self.more && self.open < WINDOW => self.publish(payload)?,
                event = &mut event => return event,
            }
            if !self.more && self.open == 0 {
                return Ok(Event::Detail("nothing to publish".to_owned()));
            }
        }
    }

    fn publish(&mut self, payload: Option<io::Result<Bytes>>) -> Result<(), Failure> {
        match payload {
            Some(Ok(payload)) => {
                self.sender.publish(&self.letter, payload)?;
                self.open += 1;
            }
            Some(Err(error)) => self.stop_after(format!("standard input: {error}")),
            None => self.more = false,
        }
        Ok(())
    }

    fn settle(&mut self, answer: Result<(), String>) {
        self.open = self.open.saturating_sub(1);
        if let Err(reason) = answer {
            self.stop_after(format!(
                "the broker refused the message to {}: {reason}",
                self.letter.topic
            ));
        }
    }

    /// No further messages, since they would fail like this one; those on their way are still waited for.
    fn stop_after(&mut self, sentence: String) {
        self.more = false;
        self.failure.get_or_insert(Failure::new(sentence));
    }
}

impl Payload {
    /// One payload, or those that a thread reads from standard input: blocked there, it must not keep us from ending.
    fn open(&self) -> Result<mpsc::Receiver<io::Result<Bytes>>, Failure> {
        if self.lines {
            let (sender, receiver) = mpsc::channel(WINDOW.into());
            thread::Builder::new()
                .name("lines".to_owned())
                .spawn(move || forward_lines(io::stdin().lock(), &sender))
                .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
            return Ok(receiver);
        }
        let (sender, receiver) = mpsc::channel(1);
        // The channel is new and has room for one.
        let _ = sender.try_send(Ok(self.read()?));
        Ok(receiver)
    }

    fn read(&self) -> Result<Bytes, Failure> {
        if let Some(message) = &self.message {
            return Ok(Bytes::copy_from_slice(message.as_bytes()));
        }
        if let Some(path) = &self.file {
            let read = File::open(path).and_then(read_bounded);
            return read.map_err(|error| Failure::new(format!("{}: {error}", path.display())));
        }
        if self.stdin {
            return read_bounded(io::stdin().lock()).map_err(|error| Failure::new(format!("standard input: {error}")));
        }
        Ok(Bytes::new())
    }
}

fn read_bounded(source: impl Read) -> io::Result<Bytes> {
    let mut payload = Vec::new();
    source.take(u64::from(PACKET_BYTES_MAX) + 1).read_to_end(&mut payload)?;
    carried(payload)
}

fn carried(payload: Vec<u8>) -> io::Result<Bytes> {
    match payload.len() <= PACKET_BYTES_MAX as usize {
        true => Ok(payload.into()),
        false => Err(io::Error::other(format!(
            "MQTT carries no more than {PACKET_BYTES_MAX} bytes"
        ))),
    }
}

/// Sends lines without their ends, and no empty ones, as mosquitto_pub does.
fn forward_lines(source: impl Read, lines: &mpsc::Sender<io::Result<Bytes>>) {
    let mut source = BufReader::new(source);
    loop {
        let mut line = Vec::new();
        let read = source
            .by_ref()
            .take(u64::from(PACKET_BYTES_MAX) + 1)
            .read_until(b'\n', &mut line);
        if matches!(read, Ok(0)) {
            return;
        }
        line.pop_if(|last| *last == b'\n');
        let payload = read.and_then(|_| carried(line));
        let (empty, failed) = (payload.as_ref().is_ok_and(Bytes::is_empty), payload.is_err());
        if !empty && lines.blocking_send(payload).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(format!("pub {line}").split_whitespace()).map(|line| line.args)
    }

    #[test]
    fn flags_mean_what_they_mean_to_mosquitto_pub() {
        let args =
            parse("-h broker -t a/b -m -5 -q 1 -r -V 5 -D publish user-property a b -D publish content-type x/y")
                .expect("mosquitto's flags");
        assert_eq!(
            (args.topic.as_str(), args.qos, args.retain),
            ("a/b", Qos::AtLeastOnce, true)
        );
        assert_eq!(args.payload.message.as_deref(), Some("-5"));
        let properties = properties::parse(&args.properties).expect("known names").expect("two");
        assert_eq!(properties.user_properties, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(properties.content_type.as_deref(), Some("x/y"));
    }

    #[test]
    fn a_payload_has_one_source() {
        for line in ["-m x", "-f /dev/null", "-l", "-n", "-s"] {
            parse(&format!("-t t {line}")).expect(line);
        }
        for (line, expected) in [
            ("-t t", "required"),
            ("-t t -m x -n", "cannot be used with"),
            ("-m x", "--topic"),
            ("-t a/+ -m x", "a topic name must not contain + or #"),
            ("-t t -m x -q 3", "it is 0, 1 or 2"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn lines_go_out_without_their_ends_and_empty_ones_not_at_all() {
        let (sender, mut receiver) = mpsc::channel(10);
        forward_lines(&b"one\n\n two\r\n\xff\nlast"[..], &sender);
        drop(sender);
        let lines = std::iter::from_fn(|| receiver.blocking_recv()).map(|line| line.expect("no error"));
        assert_eq!(lines.collect::<Vec<_>>(), [&b"one"[..], b" two\r", b"\xff", b"last"]);
    }
}
