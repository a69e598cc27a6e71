//! `-D publish NAME VALUE`: the MQTT 5 properties of a message, as mosquitto_pub takes them.

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

/// What can follow `-D publish`.
const KNOWN: &str = "user-property KEY VALUE, or content-type, correlation-data, message-expiry-interval, \
                     payload-format-indicator or response-topic with a VALUE";

/// Reads the words behind every `-D`, in a row: each name says how many values follow it.
pub(super) fn parse(words: &[String]) -> Result<Option<PublishProperties>, String> {
    if words.is_empty() {
        return Ok(None);
    }
    let mut properties = PublishProperties::default();
    let mut words = words.iter().map(String::as_str);
    while let Some(command) = words.next() {
        if command != "publish" {
            return Err(format!(
                "-D {command}: only `-D publish` is known here, followed by {KNOWN}"
            ));
        }
        let name = words.next().unwrap_or_default();
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("-D publish {name}: it lacks a value"))
        };
        match name {
            "user-property" => properties
                .user_properties
                .push((value()?.to_owned(), value()?.to_owned())),
            "content-type" => properties.content_type = Some(value()?.to_owned()),
            "response-topic" => properties.response_topic = Some(value()?.to_owned()),
            "correlation-data" => properties.correlation_data = Some(Bytes::copy_from_slice(value()?.as_bytes())),
            "message-expiry-interval" => properties.message_expiry_interval = Some(number(name, value()?)?),
            "payload-format-indicator" => properties.payload_format_indicator = Some(number(name, value()?)?),
            _ => return Err(format!("-D publish {name}: after `-D publish` comes {KNOWN}")),
        }
    }
    Ok(Some(properties))
}

fn number<N: std::str::FromStr>(name: &str, text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| format!("-D publish {name} {text}: it takes a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn every_property_of_a_publish_can_be_given_in_any_order() {
        let line = "publish user-property a b publish content-type text/plain publish correlation-data 42 \
                    publish user-property a c publish message-expiry-interval 60 \
                    publish payload-format-indicator 1 publish response-topic back";
        let expected = PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval: Some(60),
            response_topic: Some("back".to_owned()),
            correlation_data: Some(Bytes::from_static(b"42")),
            user_properties: vec![("a".to_owned(), "b".to_owned()), ("a".to_owned(), "c".to_owned())],
            content_type: Some("text/plain".to_owned()),
            ..PublishProperties::default()
        };
        assert_eq!(parse(&words(line)), Ok(Some(expected)));
        assert_eq!(parse(&[]), Ok(None));
    }

    #[test]
    fn a_mistake_names_the_words_and_what_was_expected() {
        for (line, expected) in [
            (
                "connect receive-maximum 20",
                "-D connect: only `-D publish` is known here",
            ),
            (
                "publish colour red",
                "-D publish colour: after `-D publish` comes user-property KEY VALUE",
            ),
            ("publish", "-D publish : after"),
            ("publish user-property a", "-D publish user-property: it lacks a value"),
            (
                "publish message-expiry-interval soon",
                "-D publish message-expiry-interval soon: it takes a number",
            ),
            (
                "publish payload-format-indicator 300",
                "-D publish payload-format-indicator 300: it takes a number",
            ),
        ] {
            let error = parse(&words(line)).expect_err(line);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
