//! Filters with wildcards as a tree of levels. A way down that nobody turns off is one piece, however many levels it
//! has: a filter adds two nodes at most, so that it takes what its text does.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

/// What lies at filters.
pub(super) struct Tree<T> {
    root: Node<T>,
}

struct Node<T> {
    /// Of filters that end here.
    here: Vec<T>,
    /// Of filters that end in `#` below here; they match here too.
    below: Vec<T>,
    /// The way down whose first level is `+`.
    any: Option<Box<Way<T>>>,
    /// Those whose first level is a name.
    named: HashMap<Box<str>, Box<Way<T>>, RandomState>,
}

/// A way down to the next node.
struct Way<T> {
    /// Its levels behind the first.
    rest: Option<Box<str>>,
    to: Node<T>,
}

/// Walks are loops here: a topic may have 65,536 levels, and a thread has no stack for as many calls.
impl<T> Tree<T> {
    /// What lies at this filter, to put something in or to take it out, and then to [`Tree::prune`].
    pub(super) fn entries(&mut self, filter: &str) -> &mut Vec<T> {
        let (mut filter, is_below) = levels_of(filter);
        let mut node = &mut self.root;
        while let Some(levels) = filter {
            let (first, rest) = split(levels);
            filter = rest;
            node = node.go(first, &mut filter);
        }
        if is_below { &mut node.below } else { &mut node.here }
    }

    /// What lies at this filter, if it is there.
    pub(super) fn at(&self, filter: &str) -> Option<&Vec<T>> {
        let (mut filter, is_below) = levels_of(filter);
        let mut node = &self.root;
        while let Some(levels) = filter {
            let (first, rest) = split(levels);
            let way = node.way(first)?;
            filter = way.along(rest)?;
            node = &way.to;
        }
        Some(if is_below { &node.below } else { &node.here })
    }

    /// Everything whose filter matches this topic.
    pub(super) fn collect<'a>(&'a self, topic: &str, found: &mut Vec<&'a T>) {
        let mut open: SmallVec<[(&Node<T>, Option<&str>); 8]> = SmallVec::new();
        match topic.starts_with('$') {
            false => open.push((&self.root, Some(topic))),
            true => {
                // [MQTT-4.7.2-1]: a leading wildcard does not match.
                let (first, rest) = split(topic);
                let way = self.root.named.get(first);
                open.extend(way.and_then(|way| Some((&way.to, way.matches(rest)?))));
            }
        }
        while let Some((node, rest)) = open.pop() {
            found.extend(&node.below);
            let Some(rest) = rest else {
                found.extend(&node.here);
                continue;
            };
            let (first, rest) = split(rest);
            let ways = node.any.iter().chain(node.named.get(first));
            open.extend(ways.filter_map(|way| Some((&way.to, way.matches(rest)?))));
        }
    }

    /// Nothing lies at this filter any more: what was there for its sake alone goes.
    pub(super) fn prune(&mut self, filter: &str) {
        let (mut filter, _) = levels_of(filter);
        let mut turns: SmallVec<[&str; 8]> = SmallVec::new();
        let mut node = &self.root;
        while let Some(levels) = filter {
            let (first, rest) = split(levels);
            let Some(way) = node.way(first) else { return };
            let Some(rest) = way.along(rest) else { return };
            turns.push(first);
            (filter, node) = (rest, &way.to);
        }
        if node.is_empty()
            && let Some(last) = turns.pop()
        {
            self.walk(&turns).remove(last);
        }
        // Where two ways meet and nothing else, they are one.
        if let Some(last) = turns.pop()
            && let Some(way) = self.walk(&turns).way_mut(last)
        {
            way.join();
        }
    }

    /// The node behind these turns, which are there.
    fn walk(&mut self, turns: &[&str]) -> &mut Node<T> {
        turns.iter().fold(&mut self.root, |node, first| {
            &mut node.way_mut(first).expect("somebody was there before").to
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// How many nodes there are below the root.
    #[cfg(test)]
    fn nodes(&self) -> usize {
        let mut open = vec![&self.root];
        let mut count = 0;
        while let Some(node) = open.pop() {
            open.extend(node.any.iter().chain(node.named.values()).map(|way| &way.to));
            count += 1;
        }
        count - 1
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        let root = Node::default();
        Self { root }
    }
}

impl<T> Node<T> {
    fn way(&self, first: &str) -> Option<&Way<T>> {
        match first {
            "+" => self.any.as_deref(),
            _ => self.named.get(first).map(Box::as_ref),
        }
    }

    fn way_mut(&mut self, first: &str) -> Option<&mut Way<T>> {
        match first {
            "+" => self.any.as_deref_mut(),
            _ => self.named.get_mut(first).map(Box::as_mut),
        }
    }

    /// Goes down a filter as far as the next node, which is made where there is none; the levels are taken off.
    fn go(&mut self, first: &str, filter: &mut Option<&str>) -> &mut Self {
        let way = match first {
            "+" => self.any.get_or_insert_default(),
            _ => self.named.entry(first.into()).or_default(),
        };
        if way.to.is_empty() {
            // It was made just now.
            way.rest = filter.take().map(Into::into);
        } else {
            way.part(filter);
        }
        &mut way.to
    }

    fn remove(&mut self, first: &str) {
        match first {
            "+" => self.any = None,
            _ => drop(self.named.remove(first)),
        }
    }

    /// Takes the only way down from here, where nothing lies.
    fn take_only_way(&mut self) -> Option<(Box<str>, Box<Way<T>>)> {
        let lies = !self.here.is_empty() || !self.below.is_empty();
        if lies || self.named.len() + usize::from(self.any.is_some()) != 1 {
            return None;
        }
        let any = self.any.take().map(|way| ("+".into(), way));
        any.or_else(|| std::mem::take(&mut self.named).into_iter().next())
    }

    fn is_empty(&self) -> bool {
        self.here.is_empty() && self.below.is_empty() && self.any.is_none() && self.named.is_empty()
    }

    fn take_children(&mut self) -> impl Iterator<Item = Self> + use<T> {
        let ways = std::mem::take(&mut self.named).into_values().chain(self.any.take());
        ways.map(|way| way.to)
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            here: Vec::new(),
            below: Vec::new(),
            any: None,
            named: HashMap::default(),
        }
    }
}

impl<T> Drop for Node<T> {
    fn drop(&mut self) {
        let mut open: Vec<Self> = self.take_children().collect();
        while let Some(mut node) = open.pop() {
            open.extend(node.take_children());
        }
    }
}

impl<T> Way<T> {
    /// What is left of a filter behind this way, if it goes along it to its end.
    fn along<'f>(&self, mut filter: Option<&'f str>) -> Option<Option<&'f str>> {
        let mut own = self.rest.as_deref();
        take_common(&mut own, &mut filter);
        own.is_none().then_some(filter)
    }

    /// What is left of a topic behind this way, if it matches.
    fn matches<'t>(&self, mut topic: Option<&'t str>) -> Option<Option<&'t str>> {
        let mut own = self.rest.as_deref();
        while let Some(levels) = own {
            let (wanted, rest) = split(levels);
            let (level, behind) = split(topic?);
            if wanted != "+" && wanted != level {
                return None;
            }
            (own, topic) = (rest, behind);
        }
        Some(topic)
    }

    /// Ends this way where a filter leaves it; what was behind goes on from there.
    fn part(&mut self, filter: &mut Option<&str>) {
        let mut own = self.rest.as_deref();
        let common = take_common(&mut own, filter).map(Box::from);
        let Some(behind) = own else { return };
        let (first, rest) = split(behind);
        let (first, rest): (Box<str>, _) = (first.into(), rest.map(Box::from));
        let to = std::mem::take(&mut self.to);
        let way = Box::new(Self { rest, to });
        match &*first {
            "+" => self.to.any = Some(way),
            _ => drop(self.to.named.insert(first, way)),
        }
        self.rest = common;
    }

    /// Goes on to where the only way down from its end leads.
    fn join(&mut self) {
        if let Some((first, way)) = self.to.take_only_way() {
            let levels = [self.rest.take(), Some(first), way.rest];
            let levels: SmallVec<[Box<str>; 3]> = levels.into_iter().flatten().collect();
            self.rest = Some(levels.join("/").into());
            self.to = way.to;
        }
    }
}

impl<T> Default for Way<T> {
    fn default() -> Self {
        Self {
            rest: None,
            to: Node::default(),
        }
    }
}

/// The levels that lead to where a filter lies, and whether it ends in `#` below.
fn levels_of(filter: &str) -> (Option<&str>, bool) {
    match filter.strip_suffix('#') {
        None => (Some(filter), false),
        Some(above) => (above.strip_suffix('/'), true),
    }
}

/// The first level, and those behind it.
fn split(levels: &str) -> (&str, Option<&str>) {
    levels
        .split_once('/')
        .map_or((levels, None), |(first, rest)| (first, Some(rest)))
}

/// Takes off both with what both begin, level by level; answers it.
fn take_common<'a>(one: &mut Option<&'a str>, other: &mut Option<&str>) -> Option<&'a str> {
    let whole = *one;
    let mut bytes = 0;
    while let (Some(left), Some(right)) = (*one, *other) {
        let ((level, left), (same, right)) = (split(left), split(right));
        if level != same {
            break;
        }
        bytes += level.len() + 1;
        (*one, *other) = (left, right);
    }
    whole.filter(|_| bytes > 0).map(|whole| &whole[..bytes - 1])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::model::topic::Filter;

    fn filters() -> impl Strategy<Value = String> {
        let level = select(vec!["a", "b", "", "+", "$x"]);
        (vec(level, 1..7), any::<bool>()).prop_map(|(levels, below)| {
            let end = if below { "/#" } else { "" };
            levels.join("/") + end
        })
    }

    fn topics() -> impl Strategy<Value = String> {
        vec(select(vec!["a", "b", "", "$x"]), 1..8).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_matches_and_has_no_more_nodes_than_filters_and_turns(
            changes in vec((filters(), any::<bool>()), 1..40),
            topics in vec(topics(), 1..10),
        ) {
            let mut tree = Tree::default();
            let mut there = BTreeSet::new();
            for (filter, adds) in changes {
                let entries = tree.entries(&filter);
                entries.retain(|known| *known != filter);
                if adds {
                    entries.push(filter.clone());
                } else if entries.is_empty() {
                    tree.prune(&filter);
                }
                _ = if adds { there.insert(filter) } else { there.remove(&filter) };
                prop_assert!(tree.nodes() <= 2 * there.len(), "{} nodes for {there:?}", tree.nodes());
            }
            for filter in &there {
                prop_assert_eq!(tree.at(filter), Some(&vec![filter.clone()]));
            }
            for topic in topics.iter().filter(|topic| !topic.is_empty()) {
                let mut found = Vec::new();
                tree.collect(topic, &mut found);
                let found: BTreeSet<_> = found.into_iter().cloned().collect();
                let matches = |filter: &&String| Filter::new(filter.to_string()).is_ok_and(|it| it.matches(topic));
                prop_assert_eq!(found, there.iter().filter(matches).cloned().collect(), "{}", topic);
            }
            for filter in &there {
                tree.entries(filter).clear();
                tree.prune(filter);
            }
            prop_assert!(tree.is_empty());
        }
    }

    #[test]
    fn a_filter_of_a_thousand_levels_is_one_node() {
        let mut tree = Tree::default();
        let deep = "a/+/".repeat(500);
        tree.entries(&format!("{deep}x/+")).push(1);
        assert_eq!(tree.nodes(), 1);
        tree.entries(&format!("{deep}y/+")).push(2);
        assert_eq!(tree.nodes(), 3);
        tree.entries(&format!("{deep}y/+")).clear();
        tree.prune(&format!("{deep}y/+"));
        assert_eq!(tree.nodes(), 1);
    }
}
