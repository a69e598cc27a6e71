//! Which stored messages somebody still has to read: positions of readers, by filter. Pure.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::upkeep::Floors;
use crate::model::delivery::Position;
use crate::model::hold::{Held, Hold};
use crate::model::topic::Filter;

/// Readers without a row, for as long as they live.
#[derive(Default)]
pub(super) struct Holds(Mutex<List>);

#[derive(Default)]
struct List {
    held: Vec<Weak<Held>>,
    /// How long it was after the dead were taken out the last time.
    clean: usize,
}

impl Holds {
    /// A claim for a reader that begins.
    pub(super) fn take(&self, filter: Filter) -> Hold {
        let hold = Hold::new(filter);
        let mut list = self.0.lock();
        if list.held.len() >= 2 * list.clean + 64 {
            list.held.retain(|held| held.strong_count() > 0);
            list.clean = list.held.len();
        }
        list.held.push(Arc::downgrade(hold.held()));
        hold
    }

    /// Those that live.
    pub(super) fn living(&self) -> Vec<Arc<Held>> {
        self.0.lock().held.iter().filter_map(Weak::upgrade).collect()
    }
}

/// What readers need.
#[derive(Debug)]
pub(super) struct Needs {
    /// Everything behind it is needed, whatever its topic.
    of_all: Position,
    exact: HashMap<String, Position>,
    /// By what every topic that matches starts with, so that a topic meets few filters.
    wild: HashMap<String, Vec<(Filter, Position)>>,
}

/// Behind every message: nobody needs anything.
const NOBODY: Position = Position(u128::MAX);

impl Needs {
    /// Everything is needed.
    pub(super) fn everything() -> Self {
        Self {
            of_all: Position::START,
            exact: HashMap::new(),
            wild: HashMap::new(),
        }
    }

    /// What readers with a row and readers without one need.
    pub(super) fn new(floors: Floors, living: &[Arc<Held>]) -> Self {
        let mut needs = Self {
            of_all: floors.of_all.unwrap_or(NOBODY),
            ..Self::everything()
        };
        for (filter, position) in floors.by_filter {
            // Nobody can read through a filter that is none.
            if let Ok(filter) = Filter::new(filter) {
                needs.add(filter, position);
            }
        }
        for held in living {
            needs.add(held.filter().clone(), held.position());
        }
        needs
    }

    fn add(&mut self, filter: Filter, position: Position) {
        if filter.is_exact() {
            let known = self.exact.entry(filter.as_str().to_owned()).or_insert(NOBODY);
            *known = position.min(*known);
            return;
        }
        let likes = self.wild.entry(filter.literal_prefix().to_owned()).or_default();
        match likes.iter_mut().find(|(known, _)| *known == filter) {
            Some((_, known)) => *known = position.min(*known),
            None => likes.push((filter, position)),
        }
    }

    /// Messages of this topic behind this place are needed by somebody.
    pub(super) fn floor(&self, topic: &str) -> Position {
        let exact = self.exact.get(topic).copied().unwrap_or(NOBODY);
        let slashes = topic
            .match_indices('/')
            .flat_map(|(at, _)| [&topic[..at], &topic[..=at]]);
        let starts = std::iter::once("").chain(slashes).chain([topic]);
        let wild = starts
            .filter_map(|start| self.wild.get(start))
            .flatten()
            .filter(|(filter, _)| filter.matches(topic))
            .map(|(_, position)| *position)
            .min();
        exact.min(wild.unwrap_or(NOBODY)).min(self.of_all)
    }

    /// The smallest position of all; `None` where nobody reads.
    pub(super) fn horizon(&self) -> Option<Position> {
        let wild = self.wild.values().flatten().map(|(_, position)| *position);
        let smallest = self.exact.values().copied().chain(wild).chain([self.of_all]).min();
        smallest.filter(|position| *position != NOBODY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::new(text.to_owned()).expect("a filter")
    }

    fn needs(rows: &[(&str, u128)]) -> Needs {
        let by_filter = rows.iter().map(|(filter, at)| ((*filter).to_owned(), Position(*at)));
        let floors = Floors {
            by_filter: by_filter.collect(),
            of_all: None,
        };
        Needs::new(floors, &[])
    }

    #[test]
    fn a_topic_is_needed_from_the_smallest_position_of_a_filter_that_matches() {
        let needs = needs(&[
            ("a/b", 7),
            ("a/b", 5),
            ("a/+", 9),
            ("c/#", 3),
            ("+/d/+", 4),
            ("x//y/#", 2),
            ("no+filter", 0),
        ]);
        for (topic, floor) in [
            ("a/b", Some(5)),
            ("a/x", Some(9)),
            ("a/b/c", None),
            ("c", Some(3)),
            ("c/e/f", Some(3)),
            ("q/d/e", Some(4)),
            ("c/d/e", Some(3)),
            ("x//y/z", Some(2)),
            ("x//y", Some(2)),
            ("/", None),
            ("$SYS/d/e", None),
        ] {
            let expected = floor.map_or(NOBODY, Position);
            assert_eq!(needs.floor(topic), expected, "{topic}");
        }
        assert_eq!(needs.horizon(), Some(Position(2)));
    }

    #[test]
    fn a_reader_without_a_row_is_heard_as_long_as_it_lives() {
        let holds = Holds::default();
        let (gone, stays) = (holds.take(filter("a")), holds.take(filter("a")));
        gone.move_to(Position(4));
        stays.move_to(Position(6));
        let floor = || Needs::new(Floors::default(), &holds.living()).floor("a");
        assert_eq!(floor(), Position(4));
        drop(gone);
        assert_eq!(floor(), Position(6));
        assert_eq!(Needs::new(Floors::default(), &[]).horizon(), None);
    }

    #[test]
    fn readers_that_are_gone_take_no_room() {
        let holds = Holds::default();
        let stays: Vec<Hold> = (0..100).map(|_| holds.take(filter("a"))).collect();
        (0..10_000).for_each(|_| drop(holds.take(filter("b"))));
        assert!(holds.0.lock().held.len() <= 3 * stays.len() + 64);
        assert_eq!(holds.living().len(), stays.len());
    }
}
