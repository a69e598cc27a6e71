//! Message ids: 128 bits, ordered by time, never reused (spec C1.1), and their text forms (C1.2).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A message's identity: 64 bits of microseconds since the epoch, 48 bits of node and process,
/// 16 bits of sequence, most significant first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u128);

/// How a pool writes message ids (`msgid_format`, spec C1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdFormat {
    /// 20 characters that sort by time: what EMQ X 3 wrote.
    #[default]
    Base62,
    /// Upper-case hexadecimal without leading zeros.
    Hex,
    /// Standard base64 of the 16 bytes. Does not sort.
    Base64,
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl MessageId {
    /// The id with these 128 bits.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Microseconds since the Unix epoch at which the id was taken.
    pub const fn micros(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The id as text in the given form.
    pub fn text(self, format: IdFormat) -> String {
        match format {
            IdFormat::Base62 => self.base62(),
            IdFormat::Hex => format!("{:X}", self.0),
            IdFormat::Base64 => BASE64.encode(self.0.to_be_bytes()),
        }
    }

    /// Reads any of the text forms, told apart by length and alphabet. `None` where it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        match text.len() {
            24 if text.ends_with('=') => Some(Self(u128::from_be_bytes(BASE64.decode(text).ok()?.try_into().ok()?))),
            29..=32 => u128::from_str_radix(text, 16).ok().map(Self),
            1..=22 => text
                .bytes()
                .try_fold(0u128, |sum, byte| {
                    let digit = BASE62.iter().position(|known| *known == byte)?;
                    sum.checked_mul(62)?.checked_add(digit as u128)
                })
                .map(Self),
            _ => None,
        }
    }

    fn base62(self) -> String {
        let mut digits = [0u8; 22];
        let mut rest = self.0;
        let mut at = digits.len();
        while rest > 0 || at == digits.len() {
            at -= 1;
            digits[at] = BASE62[(rest % 62) as usize];
            rest /= 62;
        }
        digits[at..].iter().map(|byte| *byte as char).collect()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base62())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The process-wide clock of message ids: microseconds that only grow, whatever the wall clock does.
#[derive(Debug)]
pub struct IdClock {
    tag: u64,
    last: AtomicU64,
}

impl IdClock {
    /// A clock for this node and boot. `floor_micros` is the mark that an earlier run reserved: new ids
    /// lie above it, or messages after a clock step would lie below stored positions.
    pub fn new(node: &str, boot: u32, floor_micros: u64) -> Self {
        let hash = node.bytes().fold(0x811c_9dc5u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let node16 = u64::from((hash >> 16) ^ (hash & 0xffff));
        Self {
            tag: (node16 << 32) | u64::from(boot),
            last: AtomicU64::new(floor_micros),
        }
    }

    /// The newest microsecond given out so far.
    pub fn newest_micros(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Opens a turn: a microsecond that nobody else has, 65,536 ids wide.
    fn turn(&self, now_micros: u64) -> u64 {
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = now_micros.max(last + 1);
            match self
                .last
                .compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return next,
                Err(seen) => last = seen,
            }
        }
    }
}

/// Ids that a turn has reserved and not used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stock {
    next: u128,
    left: u32,
}

/// The ids of one turn of a connection, in order.
#[derive(Debug)]
pub struct Ids<'a> {
    clock: &'a IdClock,
    now_micros: u64,
    stock: Stock,
}

impl<'a> Ids<'a> {
    /// Ids for a turn that happens at `now_micros` since the Unix epoch. Costs nothing until one is taken.
    pub fn new(clock: &'a IdClock, now_micros: u64) -> Self {
        Self::with_stock(clock, now_micros, Stock::default())
    }

    /// Ids for a turn that goes on with what it has reserved.
    pub fn with_stock(clock: &'a IdClock, now_micros: u64, stock: Stock) -> Self {
        Self {
            clock,
            now_micros,
            stock,
        }
    }

    /// What is reserved and not used.
    pub fn stock(&self) -> Stock {
        self.stock
    }

    /// The next id: above every id that this process gave out before.
    pub fn take(&mut self) -> MessageId {
        if self.stock.left == 0 {
            let micros = self.clock.turn(self.now_micros);
            let next = (u128::from(micros) << 64) | (u128::from(self.clock.tag) << 16);
            self.stock = Stock { next, left: 1 << 16 };
        }
        let id = MessageId(self.stock.next);
        self.stock.next += 1;
        self.stock.left -= 1;
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of spec C1.2.
    const VECTOR: MessageId = MessageId::from_bits(0x0005_4879_e3ce_ebba_f440_0000_058e_0001);

    #[test]
    fn the_text_forms_agree_with_the_documented_vector() {
        for (format, text) in [
            (IdFormat::Base62, "2PguFrHsrzEvIIBdctmb"),
            (IdFormat::Hex, "54879E3CEEBBAF4400000058E0001"),
            (IdFormat::Base64, "AAVIeePO67r0QAAABY4AAQ=="),
        ] {
            assert_eq!(VECTOR.text(format), text);
            assert_eq!(MessageId::parse(text), Some(VECTOR));
        }
        assert_eq!(VECTOR.micros(), 1_487_063_233_784_762);
    }

    #[test]
    fn ids_grow_when_the_wall_clock_goes_back() {
        let clock = IdClock::new("node", 7, 1_000);
        let first = Ids::new(&clock, 500).take();
        let second = Ids::new(&clock, 400).take();
        assert!(first.micros() > 1_000 && second > first);
    }

    #[test]
    fn text_order_is_id_order() {
        let clock = IdClock::new("node", 7, 1_700_000_000_000_000);
        let mut ids = Ids::new(&clock, 0);
        let texts: Vec<_> = (0..70_000).map(|_| ids.take().to_string()).collect();
        assert!(texts.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "not an id!",
            "AAVIeePO67r0QAAABY4AA===",
            "G4879E3CEEBBAF4400000058E0001",
        ] {
            assert_eq!(MessageId::parse(text), None, "{text}");
        }
    }
}
