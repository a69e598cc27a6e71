//! Reason strings (MQTT 5, 3.4.2.2.2 and its like): for whoever reads a client's log, what to do about a refusal.

use crate::model::reason::Reason;

/// The packet that carries a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// PUBACK and PUBREC.
    Publish,
    /// SUBACK and UNSUBACK.
    Subscribe,
    /// DISCONNECT.
    Disconnect,
}

/// What to do; `None` where there is nothing that the code does not say.
pub(super) fn advice(carrier: Carrier, reason: Reason) -> Option<&'static str> {
    let publishing = carrier == Carrier::Publish;
    Some(match reason {
        Reason::MALFORMED_PACKET | Reason::PROTOCOL_ERROR => "this is not MQTT as the standard has it",
        Reason::IMPLEMENTATION_SPECIFIC_ERROR if publishing => {
            "the database refused the message, and would again: the broker's log says why"
        }
        Reason::NOT_AUTHORIZED if publishing => "only the broker publishes below $SYS",
        Reason::SERVER_SHUTTING_DOWN => "the broker stops: connect again in a while",
        Reason::KEEP_ALIVE_TIMEOUT => "nothing was heard for longer than Keep Alive allows: send PINGREQ in time",
        Reason::SESSION_TAKEN_OVER => "somebody connected with the same client identifier: give each client its own",
        Reason::TOPIC_FILTER_INVALID => {
            "the filter is malformed, or longer or deeper than allowed (mqtt.max_topic_len, mqtt.max_topic_levels)"
        }
        Reason::TOPIC_NAME_INVALID => {
            "the topic is malformed, or longer or deeper than allowed (mqtt.max_topic_len, mqtt.max_topic_levels)"
        }
        Reason::RECEIVE_MAXIMUM_EXCEEDED => {
            "more messages without their acknowledgement than the Receive Maximum of the CONNACK: wait for some"
        }
        Reason::TOPIC_ALIAS_INVALID => "topic aliases go from 1 to the Topic Alias Maximum of the CONNACK",
        Reason::PACKET_TOO_LARGE => "the packet is larger than the Maximum Packet Size of the CONNACK",
        Reason::QUOTA_EXCEEDED if publishing => {
            "the database did not take the message in time: publish it again in a while"
        }
        Reason::QUOTA_EXCEEDED if carrier == Carrier::Subscribe => {
            "this client has as many subscriptions as it may have (zone.external.max_subscriptions)"
        }
        Reason::QUOTA_EXCEEDED => "send PUBREL for what was received before (zone.external.max_awaiting_rel)",
        Reason::ADMINISTRATIVE_ACTION => "an operator closed the connection",
        Reason::QOS_NOT_SUPPORTED => "the QoS is higher than this broker allows (mqtt.max_qos_allowed)",
        Reason::USE_ANOTHER_SERVER => "connect to the server of the Server Reference",
        Reason::SERVER_MOVED => "connect to the server of the Server Reference, from now on",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_depends_on_the_packet_and_always_fits_into_a_byte_of_length() {
        for code in 0..=u8::MAX {
            for carrier in [Carrier::Publish, Carrier::Subscribe, Carrier::Disconnect] {
                let advice = advice(carrier, Reason(code)).unwrap_or_default();
                assert!(advice.len() < 120, "{advice}");
                assert!(advice.is_empty() || code >= 0x80, "{advice}: success needs no advice");
            }
        }
        let quota = |carrier| advice(carrier, Reason::QUOTA_EXCEEDED);
        assert_ne!(quota(Carrier::Publish), quota(Carrier::Subscribe));
        assert_ne!(quota(Carrier::Subscribe), quota(Carrier::Disconnect));
    }
}
