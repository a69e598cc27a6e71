//! A client's side of MQTT 3.1.1 and 5.0, as far as the clients here speak it. Written apart from the broker's
//! codec, so that what one gets wrong the other notices.

use bytes::{Buf, BufMut, BytesMut};

use super::scenario::Hello;

/// What a client reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    ConnAck { present: bool, reason: u8 },
    Publish(Parcel),
    PubAck { id: u16, reason: u8 },
    PubRec { id: u16, reason: u8 },
    PubRel { id: u16 },
    PubComp { id: u16 },
    SubAck { id: u16, reason: u8 },
    UnsubAck { id: u16 },
    Pong,
    Disconnect { reason: u8 },
}

/// A PUBLISH that a client reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parcel {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) id: u16,
    pub(super) topic: String,
    pub(super) payload: String,
}

/// Writes a client's packets, one after the other.
pub(super) struct Pen {
    pub(super) v5: bool,
    pub(super) bytes: BytesMut,
}

impl Pen {
    pub(super) fn connect(&mut self, client: &str, hello: &Hello, will: Option<(&str, &str)>) {
        let mut body = BytesMut::new();
        text(&mut body, "MQTT");
        body.put_u8(if self.v5 { 5 } else { 4 });
        let mut flags = u8::from(hello.clean) << 1;
        if let Some(will) = hello.will {
            flags |= 4 | will.qos << 3;
        }
        body.put_u8(flags);
        body.put_u16(hello.keep_alive_s);
        if self.v5 {
            body.put_u8(8);
            body.put_u8(0x11);
            body.put_u32(hello.expiry_s);
            body.put_u8(0x21);
            body.put_u16(hello.receive_max);
        }
        text(&mut body, client);
        if let (Some(will), Some((topic, payload))) = (hello.will, will) {
            if self.v5 {
                body.put_u8(5);
                body.put_u8(0x18);
                body.put_u32(will.delay_s);
            }
            text(&mut body, topic);
            text(&mut body, payload);
        }
        self.packet(0x10, &body);
    }

    pub(super) fn publish(&mut self, parcel: &Parcel) {
        let mut body = BytesMut::new();
        text(&mut body, &parcel.topic);
        if parcel.qos > 0 {
            body.put_u16(parcel.id);
        }
        if self.v5 {
            body.put_u8(0);
        }
        body.put_slice(parcel.payload.as_bytes());
        let flags = u8::from(parcel.dup) << 3 | parcel.qos << 1 | u8::from(parcel.retain);
        self.packet(0x30 | flags, &body);
    }

    pub(super) fn subscribe(&mut self, id: u16, filter: &str, qos: u8) {
        let mut body = self.with_id(id);
        text(&mut body, filter);
        body.put_u8(qos);
        self.packet(0x82, &body);
    }

    pub(super) fn unsubscribe(&mut self, id: u16, filter: &str) {
        let mut body = self.with_id(id);
        text(&mut body, filter);
        self.packet(0xA2, &body);
    }

    fn with_id(&self, id: u16) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_u16(id);
        if self.v5 {
            body.put_u8(0);
        }
        body
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP, by the first byte.
    pub(super) fn ack(&mut self, first: u8, id: u16) {
        self.packet(first, &id.to_be_bytes());
    }

    pub(super) fn ping(&mut self) {
        self.packet(0xC0, &[]);
    }

    pub(super) fn disconnect(&mut self, with_will: bool) {
        let reason: &[u8] = if self.v5 && with_will { &[0x04] } else { &[] };
        self.packet(0xE0, reason);
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        self.bytes.put_u8(first);
        let mut left = body.len();
        loop {
            let more = if left > 127 { 0x80 } else { 0 };
            self.bytes.put_u8((left & 127) as u8 | more);
            left >>= 7;
            if left == 0 {
                break;
            }
        }
        self.bytes.put_slice(body);
    }
}

fn text(body: &mut BytesMut, text: &str) {
    body.put_u16(text.len() as u16);
    body.put_slice(text.as_bytes());
}

/// Takes the next whole packet off what was read.
pub(super) fn hear(bytes: &mut BytesMut, v5: bool) -> Option<Heard> {
    let (mut length, mut header) = (0, 1);
    loop {
        let byte = *bytes.get(header)?;
        length |= usize::from(byte & 127) << (7 * (header - 1));
        header += 1;
        if byte < 128 {
            break;
        }
    }
    if bytes.len() < header + length {
        return None;
    }
    let first = bytes[0];
    bytes.advance(header);
    Some(packet(first, bytes.split_to(length), v5))
}

fn packet(first: u8, mut body: BytesMut, v5: bool) -> Heard {
    match first >> 4 {
        2 => Heard::ConnAck {
            present: body.get_u8() == 1,
            reason: body.get_u8(),
        },
        3 => Heard::Publish(parcel(first, body, v5)),
        9 => {
            let id = body.get_u16();
            let reason = *body.last().expect("a reason");
            Heard::SubAck { id, reason }
        }
        11 => Heard::UnsubAck { id: body.get_u16() },
        13 => Heard::Pong,
        14 => Heard::Disconnect {
            reason: body.first().copied().unwrap_or(0),
        },
        kind @ 4..=7 => {
            let id = body.get_u16();
            let reason = body.first().copied().unwrap_or(0);
            match kind {
                4 => Heard::PubAck { id, reason },
                5 => Heard::PubRec { id, reason },
                6 => Heard::PubRel { id },
                _ => Heard::PubComp { id },
            }
        }
        kind => panic!("a server sends no packet of type {kind}"),
    }
}

fn parcel(first: u8, mut body: BytesMut, v5: bool) -> Parcel {
    let qos = first >> 1 & 3;
    let length = usize::from(body.get_u16());
    let topic = body.split_to(length);
    let id = if qos > 0 { body.get_u16() } else { 0 };
    if v5 {
        let length = usize::from(body.get_u8());
        assert!(length < 128, "no property of these messages is so long");
        body.advance(length);
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("what was published is text");
    Parcel {
        dup: first & 8 > 0,
        qos,
        retain: first & 1 > 0,
        id,
        topic: text(&topic),
        payload: text(&body),
    }
}
