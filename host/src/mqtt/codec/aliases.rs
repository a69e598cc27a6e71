//! Topic aliases that we set (MQTT 5, 3.3.2.3.4): which topics get one of the few that a client accepts. A table
//! belongs to one connection and is asked when a packet is written, so that what is sent again on another
//! connection carries its topic again.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Shorter topics cost less than the alias property.
const TOPIC_BYTES_MIN: usize = 4;
/// Longer ones would make the table large.
const TOPIC_BYTES_MAX: usize = 1024;
/// Where there are more topics than aliases, at most every so-many-eth message may set one anew: the property
/// costs three bytes, and a topic that never returns does not earn them.
const REPLACE_EVERY: u64 = 16;

/// The aliases of one connection.
#[derive(Debug)]
pub struct Aliases {
    /// The alias of each topic: one above its slot.
    by_topic: HashMap<Box<str>, u16, RandomState>,
    slots: Vec<Slot>,
    max: u16,
    /// Messages so far.
    turn: u64,
    replaced: u64,
}

#[derive(Debug)]
struct Slot {
    topic: Box<str>,
    used: u64,
}

impl Aliases {
    /// A table for a client that accepts `theirs` aliases, of which we use `ours` at most; `None` without any.
    pub fn new(theirs: u16, ours: u16) -> Option<Box<Self>> {
        let max = theirs.min(ours);
        (max > 0).then(|| {
            Box::new(Self {
                by_topic: HashMap::default(),
                slots: Vec::new(),
                max,
                turn: 0,
                replaced: 0,
            })
        })
    }

    /// The alias for the topic of the next message, and whether it is to be set: then the topic is sent, too.
    pub fn choose(&mut self, topic: &str) -> Option<(u16, bool)> {
        self.turn += 1;
        if let Some(alias) = self.by_topic.get(topic) {
            self.slots[usize::from(*alias) - 1].used = self.turn;
            return Some((*alias, false));
        }
        if !(TOPIC_BYTES_MIN..=TOPIC_BYTES_MAX).contains(&topic.len()) {
            return None;
        }
        let slot = Slot {
            topic: topic.into(),
            used: self.turn,
        };
        let alias = match self.slots.len() < usize::from(self.max) {
            true => {
                self.slots.push(slot);
                self.slots.len() as u16
            }
            false => self.replace(slot)?,
        };
        self.by_topic.insert(topic.into(), alias);
        Some((alias, true))
    }

    /// Puts a topic in the place of the one that was not used for longest, if that was long enough ago.
    fn replace(&mut self, slot: Slot) -> Option<u16> {
        if self.turn < self.replaced + REPLACE_EVERY {
            return None;
        }
        let (at, oldest) = self.slots.iter_mut().enumerate().min_by_key(|(_, slot)| slot.used)?;
        if self.turn < oldest.used + 2 * u64::from(self.max) {
            return None;
        }
        self.replaced = self.turn;
        let gone = std::mem::replace(oldest, slot);
        self.by_topic.remove(&gone.topic);
        Some(at as u16 + 1)
    }

    /// The packet that was to set this topic's alias was not written.
    pub fn unset(&mut self, topic: &str) {
        if let Some(alias) = self.by_topic.remove(topic) {
            // The slot stays, with a topic that cannot come, until it is the oldest.
            self.slots[usize::from(alias) - 1] = Slot {
                topic: Box::default(),
                used: 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_set_once_then_left_out() {
        let mut aliases = Aliases::new(10, 2).expect("both want some");
        assert_eq!(aliases.choose("rooms/1"), Some((1, true)));
        assert_eq!(aliases.choose("rooms/2"), Some((2, true)));
        for _ in 0..3 {
            assert_eq!(aliases.choose("rooms/1"), Some((1, false)));
            assert_eq!(aliases.choose("rooms/2"), Some((2, false)));
        }
        assert_eq!(aliases.choose("rooms/3"), None, "those in use stay");
        assert_eq!(aliases.choose("t"), None, "its alias would be longer");
        assert_eq!(aliases.choose(&"x".repeat(2000)), None, "the table stays small");
        assert!(Aliases::new(0, 2).is_none() && Aliases::new(2, 0).is_none());
    }

    #[test]
    fn a_topic_that_does_not_come_any_more_makes_room() {
        let mut aliases = Aliases::new(2, 2).expect("both want some");
        aliases.choose("old/1");
        aliases.choose("old/2");
        let set = (0..40).filter_map(|_| aliases.choose("new/1")).next();
        assert_eq!(set, Some((1, true)));
        assert_eq!(aliases.choose("new/1"), Some((1, false)));
        assert_ne!(
            aliases.choose("old/1"),
            Some((1, false)),
            "the alias is another topic's by now"
        );
    }

    #[test]
    fn topics_that_never_return_hardly_cost_anything() {
        let mut aliases = Aliases::new(16, 16).expect("both want some");
        let set = (0..1600)
            .filter_map(|number| aliases.choose(&format!("once/{number}")))
            .count();
        assert!(set <= 16 + 100, "{set}");
        assert!(aliases.by_topic.len() <= 16 && aliases.slots.len() == 16);
    }

    #[test]
    fn what_was_not_written_is_not_set() {
        let mut aliases = Aliases::new(1, 1).expect("both want some");
        assert_eq!(aliases.choose("rooms/1"), Some((1, true)));
        aliases.unset("rooms/1");
        let set = (0..20).filter_map(|_| aliases.choose("rooms/1")).next();
        assert_eq!(set, Some((1, true)));
    }
}
