//! The flags that `hookline pub` and `hookline sub` share, under mosquitto's names.

use clap::ArgAction;
use clap::builder::PossibleValue;

use super::super::Failure;
use crate::model::message::Qos;
use crate::model::topic::Topic;

/// How to reach a broker, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::command) struct Connection {
    /// Host of the broker
    #[arg(short = 'h', long, default_value = "localhost")]
    pub(super) host: String,
    /// Port of the broker
    #[arg(short, long, default_value_t = 1883)]
    pub(super) port: u16,
    /// Client id; without one the broker chooses
    #[arg(
        short,
        long,
        value_name = "ID",
        allow_hyphen_values = true,
        conflicts_with = "id_prefix"
    )]
    pub(super) id: Option<String>,
    /// Client id made of this prefix and the process id
    #[arg(short = 'I', long, value_name = "PREFIX", allow_hyphen_values = true)]
    id_prefix: Option<String>,
    /// Seconds of silence before a ping
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u16).range(5..))]
    pub(super) keepalive: u16,
    /// User name
    #[arg(short, long, allow_hyphen_values = true)]
    pub(super) username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        requires = "username",
        allow_hyphen_values = true
    )]
    pub(super) password: Option<String>,
    /// Version of MQTT
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "mqttv311")]
    pub(super) protocol_version: Version,
    /// Keep the session on the broker when we leave; needs an id
    #[arg(short = 'c', long)]
    pub(super) disable_clean_session: bool,
    /// Seconds that the broker keeps the session (MQTT 5); -1 is for ever
    #[arg(short = 'x', long, value_name = "SECONDS", allow_hyphen_values = true, value_parser = parse_expiry)]
    session_expiry_interval: Option<u32>,
    #[command(flatten)]
    pub(super) will: WillFlags,
    /// Say on stderr what is sent and received
    #[arg(short, long)]
    pub(super) debug: bool,
    /// Show this help
    // `-h` is the host here, as with mosquitto.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

/// What the broker publishes when we vanish.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::command) struct WillFlags {
    /// Topic of the will
    #[arg(long, value_name = "TOPIC", value_parser = parse_topic)]
    will_topic: Option<String>,
    /// Payload of the will
    #[arg(
        long,
        value_name = "PAYLOAD",
        requires = "will_topic",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    will_payload: String,
    /// QoS of the will
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0", value_parser = parse_qos)]
    will_qos: Qos,
    /// Retain the will
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
}

/// A will, complete.
pub(super) struct Will<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a str,
    pub(super) qos: Qos,
    pub(super) retain: bool,
}

/// The versions of MQTT that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command) enum Version {
    /// 3.1.1
    V3,
    /// 5.0
    V5,
}

impl clap::ValueEnum for Version {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::V3, Self::V5]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::V3 => PossibleValue::new("mqttv311").alias("311"),
            Self::V5 => PossibleValue::new("mqttv5").alias("5"),
        })
    }
}

impl Connection {
    /// Whether MQTT 5 was asked for.
    pub(in crate::command) fn is_v5(&self) -> bool {
        self.protocol_version == Version::V5
    }

    /// What the flags cannot say one by one.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.session_expiry_interval.is_some() && !self.is_v5() {
            return Err(Failure::new("-x is a matter of MQTT 5: add -V 5"));
        }
        if self.disable_clean_session && self.client_id().is_empty() {
            return Err(Failure::new("-c keeps a session for a client id: add -i ID"));
        }
        Ok(())
    }

    pub(super) fn client_id(&self) -> String {
        match (&self.id, &self.id_prefix) {
            (Some(id), _) => id.clone(),
            (None, Some(prefix)) => format!("{prefix}{}", std::process::id()),
            (None, None) => String::new(),
        }
    }

    /// As with mosquitto, `-c` alone means for ever.
    pub(super) fn session_expiry(&self) -> Option<u32> {
        self.session_expiry_interval
            .or(self.disable_clean_session.then_some(u32::MAX))
    }

    pub(super) fn will(&self) -> Option<Will<'_>> {
        let WillFlags {
            will_topic,
            will_payload,
            will_qos,
            will_retain,
        } = &self.will;
        let topic = will_topic.as_deref()?;
        Some(Will {
            topic,
            payload: will_payload,
            qos: *will_qos,
            retain: *will_retain,
        })
    }

    /// `localhost:1883`, `[::1]:1883`; the library that we connect with puts host and port together in the same way.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    pub(super) fn bracketed_host(&self) -> String {
        match self.host.contains(':') && !self.host.starts_with('[') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        }
    }
}

fn parse_expiry(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" => Ok(u32::MAX),
        _ => text
            .parse()
            .map_err(|_| "it takes seconds from 0 to 4294967295, or -1 for ever".to_owned()),
    }
}

/// A QoS, for clap.
pub(in crate::command) fn parse_qos(text: &str) -> Result<Qos, String> {
    text.parse()
        .ok()
        .and_then(Qos::from_bits)
        .ok_or_else(|| "it is 0, 1 or 2".to_owned())
}

/// A topic to publish to, for clap.
pub(in crate::command) fn parse_topic(text: &str) -> Result<String, String> {
    Topic::new(text)
        .map(|topic| topic.as_str().to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(disable_help_flag = true)]
    struct Line {
        #[command(flatten)]
        connection: Connection,
    }

    fn parse(line: &str) -> Result<Connection, clap::Error> {
        Line::try_parse_from(format!("pub {line}").split_whitespace()).map(|line| line.connection)
    }

    #[test]
    fn flags_mean_what_they_mean_to_mosquitto() {
        let flags = parse("-h ::1 -p 2883 -i me -k 5 -u anna -P -secret -V 5 -c -x 60 -d").expect("mosquitto's flags");
        assert_eq!(
            (flags.address().as_str(), flags.client_id().as_str()),
            ("[::1]:2883", "me")
        );
        assert_eq!((flags.keepalive, flags.is_v5(), flags.debug), (5, true, true));
        assert_eq!(
            (flags.username.as_deref(), flags.password.as_deref()),
            (Some("anna"), Some("-secret"))
        );
        assert_eq!((flags.disable_clean_session, flags.session_expiry()), (true, Some(60)));
    }

    #[test]
    fn without_flags_it_is_a_nameless_client_of_this_machine() {
        let flags = parse("").expect("no flags");
        assert_eq!(
            (flags.address().as_str(), flags.client_id().as_str()),
            ("localhost:1883", "")
        );
        assert_eq!((flags.is_v5(), flags.session_expiry()), (false, None));
        assert!(flags.will().is_none());
    }

    #[test]
    fn versions_sessions_and_ids_have_their_spellings() {
        for (line, v5, expiry) in [
            ("-V 311", false, None),
            ("-V mqttv311", false, None),
            ("-V mqttv5", true, None),
            ("-V 5 -x -1", true, Some(u32::MAX)),
            ("-V 5 -c -i me", true, Some(u32::MAX)),
            ("--protocol-version 5 --session-expiry-interval 0", true, Some(0)),
        ] {
            let flags = parse(line).expect(line);
            assert_eq!((flags.is_v5(), flags.session_expiry()), (v5, expiry), "{line}");
        }
        let id = parse("-I sensor-").expect("a prefix").client_id();
        assert_eq!(id, format!("sensor-{}", std::process::id()));
    }

    #[test]
    fn a_will_has_a_topic_and_may_have_the_rest() {
        let flags = parse("--will-topic gone --will-payload -me- --will-qos 1 --will-retain").expect("a will");
        let will = flags.will().expect("a will");
        assert_eq!(
            (will.topic, will.payload, will.qos, will.retain),
            ("gone", "-me-", Qos::AtLeastOnce, true)
        );
        let flags = parse("--will-topic gone").expect("a will");
        assert_eq!(
            flags.will().map(|will| (will.payload, will.qos)),
            Some(("", Qos::AtMostOnce))
        );
    }

    #[test]
    fn mistakes_are_found_before_a_connection() {
        for (line, expected) in [
            ("-k 4", "5..=65535"),
            ("-p 65536", "65536"),
            ("-V 31", "possible values: mqttv311, mqttv5"),
            ("-P secret", "--username"),
            ("-i me -I me", "cannot be used with"),
            ("--will-topic a/#", "a topic name must not contain + or #"),
            ("--will-topic t --will-qos 3", "it is 0, 1 or 2"),
            ("--will-payload x", "--will-topic"),
            ("-V 5 -x soon", "-1 for ever"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
        for (line, expected) in [("-x 60", "add -V 5"), ("-c", "add -i ID")] {
            let failure = parse(line).expect(line).check().expect_err(line);
            assert!(failure.sentence.contains(expected), "{failure}");
        }
    }
}
