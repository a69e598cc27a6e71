//! `hookline sub`: prints what arrives, and acknowledges a message only when it is printed.

use std::future::pending;
use std::io::{self, Write};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::client::arguments::{Connection, parse_qos};
use super::client::{self, Event, Events, GOODBYE, Sender};
use super::format::Format;
use super::{Failure, say};
use crate::model::message::Qos;
use crate::model::topic::Filter;

/// mosquitto_sub's exit status for `-W`.
const TIMED_OUT: u8 = 27;

/// Arguments of `hookline sub`.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Filter to subscribe to; can be given again
    #[arg(short, long = "topic", value_name = "FILTER", required = true, value_parser = parse_filter)]
    topics: Vec<String>,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = parse_qos)]
    qos: Qos,
    /// Leave after this many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Leave after this many seconds, with exit status 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    wait: Option<u32>,
    /// Leave when the broker has the subscriptions
    #[arg(short = 'E')]
    exit_after_subscribing: bool,
    /// Print no retained messages
    #[arg(short = 'R')]
    no_retained: bool,
    #[command(flatten)]
    output: Output,
}

/// How a message is printed.
#[derive(Debug, Default, clap::Args)]
struct Output {
    /// Print the topic before the payload
    #[arg(short, long)]
    verbose: bool,
    /// Print no end of line after a message
    #[arg(short = 'N')]
    no_newline: bool,
    /// Print messages like this: %t topic, %p payload, %q QoS, %r retain, %m packet id, %l payload bytes, %x payload in hex …
    #[arg(short = 'F', value_name = "FORMAT", allow_hyphen_values = true)]
    format: Option<Format>,
}

/// A subscription's filter, shared or not, for clap.
fn parse_filter(text: &str) -> Result<String, String> {
    Filter::parse_subscription(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// Runs `hookline sub`.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let (sender, events) = client::open(&args.connection)?;
    Subscriber {
        sender,
        args,
        connected: false,
        printed: 0,
        unfinished: 0,
        ending: None,
    }
    .run(events)
    .await
}

struct Subscriber {
    sender: Sender,
    args: Args,
    connected: bool,
    printed: u64,
    /// Messages that we took and whose acknowledgement is not through.
    unfinished: u64,
    /// That we leave, and how it went.
    ending: Option<Result<(), Failure>>,
}

impl Subscriber {
    async fn run(mut self, mut events: Events) -> Result<(), Failure> {
        let mut stop = pin!(stop(self.args.wait));
        let ending = loop {
            tokio::select! {
                event = events.next() => self.handle(event?)?,
                ending = &mut stop => break ending,
            }
            if let Some(ending) = self.ending.take() {
                break ending;
            }
        };
        // Not connected means still trying to: asked for more events, it would go on trying.
        if self.connected {
            let finished = timeout(GOODBYE, self.finish(&mut events)).await;
            finished.unwrap_or_else(|_| Err(Failure::new("the broker did not complete our acknowledgements")))?;
            client::leave(&self.sender, events).await;
        }
        ending
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Connected => {
                self.connected = true;
                self.sender.subscribe(&self.args.topics, self.args.qos)?;
            }
            Event::Subscribed(answers) => self.subscribed(&answers),
            Event::Message(message) => self.receive(&message)?,
            Event::Acknowledged => self.unfinished = self.unfinished.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }

    /// A refused filter is a warning as long as another one was granted.
    fn subscribed(&mut self, answers: &[Result<(), String>]) {
        let refused = self.args.topics.iter().zip(answers).filter_map(|(filter, answer)| {
            let reason = answer.as_ref().err()?;
            Some(format!("the broker refused the subscription to {filter}: {reason}"))
        });
        let refused: Vec<String> = refused.collect();
        if refused.len() == answers.len() {
            self.ending = Some(Err(Failure::new(refused.join("; "))));
            return;
        }
        for refusal in refused {
            say(format_args!("hookline: {refusal}"));
        }
        if self.args.exit_after_subscribing {
            self.ending = Some(Ok(()));
        }
    }

    fn receive(&mut self, message: &Publish) -> Result<(), Failure> {
        if !(message.retain && self.args.no_retained) {
            if let Err(error) = self
                .args
                .output
                .print(message, SystemTime::now(), &mut io::stdout().lock())
            {
                // Whoever reads us has read enough; this message was not for them.
                let enough = error.kind() == io::ErrorKind::BrokenPipe;
                let failure = || Failure::new(format!("standard output: {error}"));
                self.ending = Some(if enough { Ok(()) } else { Err(failure()) });
                return Ok(());
            }
            self.printed += 1;
        }
        if message.qos != QoS::AtMostOnce {
            self.sender.ack(message)?;
            self.unfinished += 1;
        }
        if self.args.count == Some(self.printed) {
            self.ending = Some(Ok(()));
        }
        Ok(())
    }

    /// What still arrives is neither printed nor acknowledged: a kept session gets it again.
    async fn finish(&mut self, events: &mut Events) -> Result<(), Failure> {
        while self.unfinished > 0 {
            if events.next().await? == Event::Acknowledged {
                self.unfinished -= 1;
            }
        }
        Ok(())
    }
}

impl Output {
    /// As mosquitto_sub prints it: nothing of an empty payload, unless its topic or a format is asked for.
    fn print(&self, message: &Publish, now: SystemTime, out: &mut impl Write) -> io::Result<()> {
        let mut line = Vec::new();
        match &self.format {
            Some(format) => format.write(message, now, &mut line),
            None if self.verbose => {
                line.extend_from_slice(&message.topic);
                line.push(b' ');
                let payload = if message.payload.is_empty() {
                    &b"(null)"[..]
                } else {
                    &message.payload
                };
                line.extend_from_slice(payload);
            }
            None if message.payload.is_empty() => return Ok(()),
            None => line.extend_from_slice(&message.payload),
        }
        if !self.no_newline {
            line.push(b'\n');
        }
        out.write_all(&line)?;
        out.flush()
    }
}

/// Ends when `wait` seconds are over, or when somebody says so.
async fn stop(wait: Option<u32>) -> Result<(), Failure> {
    let patience = async {
        let Some(seconds) = wait else { return pending().await };
        sleep(Duration::from_secs(seconds.into())).await;
        Failure {
            sentence: format!("timed out after {seconds} s"),
            status: TIMED_OUT,
        }
    };
    tokio::select! {
        failure = patience => Err(failure),
        () = told(SignalKind::interrupt()) => Ok(()),
        () = told(SignalKind::terminate()) => Ok(()),
    }
}

/// Without a handler the signal ends the process in its own way.
async fn told(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => pending().await,
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
        Line::try_parse_from(format!("sub {line}").split_whitespace()).map(|line| line.args)
    }

    #[test]
    fn flags_mean_what_they_mean_to_mosquitto_sub() {
        let args = parse("-h broker -t a/+ -t $share/g/b/# -q 2 -C 3 -W 5 -v -N -E -R").expect("mosquitto's flags");
        assert_eq!(args.topics, ["a/+", "$share/g/b/#"]);
        assert_eq!((args.qos, args.count, args.wait), (Qos::ExactlyOnce, Some(3), Some(5)));
        assert!(args.output.verbose && args.output.no_newline && args.exit_after_subscribing && args.no_retained);
    }

    #[test]
    fn mistakes_are_found_before_a_connection() {
        for (line, expected) in [
            ("", "--topic"),
            ("-t a/#/b", "# must be the last level"),
            ("-t $share/g", "a shared subscription is"),
            ("-t t -C 0", "0 is not in 1.."),
            ("-t t -W 0", "0 is not in 1.."),
            ("-t t -F %z", "%z is not one of %t %p"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn a_message_is_printed_as_mosquitto_sub_prints_it() {
        for (flags, payload, expected) in [
            ("", "21", "21\n"),
            ("", "", ""),
            ("-N", "21", "21"),
            ("-v", "21", "t/1 21\n"),
            ("-v", "", "t/1 (null)\n"),
            ("-v -N", "21", "t/1 21"),
            ("-F %p@%t", "21", "21@t/1\n"),
            ("-F %p@%t", "", "@t/1\n"),
            ("-F %p -N", "21", "21"),
        ] {
            let args = parse(&format!("-t t {flags}")).expect(flags);
            let mut out = Vec::new();
            let message = Publish::new("t/1", QoS::AtMostOnce, payload, None);
            args.output
                .print(&message, SystemTime::UNIX_EPOCH, &mut out)
                .expect("a Vec takes everything");
            assert_eq!(String::from_utf8(out).expect("text"), expected, "{flags} {payload:?}");
        }
    }
}
