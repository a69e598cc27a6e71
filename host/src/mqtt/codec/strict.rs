//! What the decoder crate lets through: the bodies of SUBSCRIBE, UNSUBSCRIBE, DISCONNECT and AUTH, checked
//! against the standard before the crate reads them.

use super::Malformed;
use super::properties::{AUTHENTICATION_METHOD, Owner, SERVER_REFERENCE, walk};
use super::wire::Reader;
use crate::mqtt::packet::Version;

/// Checks a SUBSCRIBE (3.8). Wildcards and `$share` are checked per filter, by the decoder.
pub(super) fn subscribe(version: Version, body: &[u8]) -> Result<(), Malformed> {
    let mut reader = head(version, Owner::Subscribe, body)?;
    while !reader.is_empty() {
        filter(version, &mut reader)?;
        options(version, reader.byte()?)?;
    }
    Ok(())
}

/// Checks an UNSUBSCRIBE (3.10).
pub(super) fn unsubscribe(version: Version, body: &[u8]) -> Result<(), Malformed> {
    let mut reader = head(version, Owner::Unsubscribe, body)?;
    while !reader.is_empty() {
        filter(version, &mut reader)?;
    }
    Ok(())
}

fn head(version: Version, owner: Owner, body: &[u8]) -> Result<Reader<'_>, Malformed> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version == Version::V5 {
        walk(owner, reader.section()?, |_| Ok(()))?;
    }
    if reader.is_empty() {
        return Err(Malformed::protocol("no topic filter"));
    }
    Ok(reader)
}

fn filter(version: Version, reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let filter = reader.text("topic filter")?;
    // MQTT 5 has a reason for each filter; the crate refuses this packet before MQTT 5 in any case.
    if filter.is_empty() && version < Version::V5 {
        return Err(Malformed::unparsable("an empty topic filter"));
    }
    Ok(())
}

/// The subscription options (3.8.3.1), before MQTT 5 the requested QoS.
fn options(version: Version, options: u8) -> Result<(), Malformed> {
    let reserved = match version {
        Version::V5 => 0b1100_0000,
        _ => 0b1111_1100,
    };
    if options & reserved != 0 {
        return Err(Malformed::unparsable(
            "reserved bits of the subscription options are set",
        ));
    }
    if options & 0b11 == 3 {
        return Err(Malformed::protocol("a subscription of QoS 3"));
    }
    if options & 0b11_0000 == 0b11_0000 {
        return Err(Malformed::protocol("a retain handling of 3"));
    }
    Ok(())
}

/// Checks a DISCONNECT (3.14).
pub(super) fn disconnect(version: Version, body: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    if version == Version::V5 && !reader.is_empty() {
        let reason = reader.byte()?;
        let from_client = matches!(reason, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99);
        if !from_client {
            let text = format!("a client's DISCONNECT cannot carry the reason {reason:#04x}");
            return Err(Malformed::protocol(text));
        }
        if !reader.is_empty() {
            walk(Owner::Disconnect, reader.section()?, |found| match found.id {
                SERVER_REFERENCE => Err(Malformed::protocol("a client's DISCONNECT carries a server reference")),
                _ => Ok(()),
            })?;
        }
    }
    reader.end()
}

/// Checks an AUTH (3.15).
pub(super) fn auth(version: Version, body: &[u8]) -> Result<(), Malformed> {
    if version < Version::V5 {
        return Err(Malformed::unparsable("AUTH before MQTT 5"));
    }
    let mut reader = Reader::new(body);
    // An empty body means success, which only a server can say.
    let reason = if body.is_empty() { 0 } else { reader.byte()? };
    if !matches!(reason, 0x18 | 0x19) {
        let text = format!("a client's AUTH cannot carry the reason {reason:#04x}");
        return Err(Malformed::protocol(text));
    }
    let mut method = false;
    walk(Owner::Auth, reader.section()?, |found| {
        method |= found.id == AUTHENTICATION_METHOD;
        Ok(())
    })?;
    if !method {
        return Err(Malformed::protocol("AUTH without an authentication method"));
    }
    reader.end()
}
