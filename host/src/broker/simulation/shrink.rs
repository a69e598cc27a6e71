//! From a scenario that fails to a short one that fails.

use super::scenario::Scenario;

/// Runs that are spent on it at most.
const TRIES: usize = 600;

/// Leaves out steps, many at once and then fewer, as long as what is left still `fails`.
pub(super) fn shrunk(scenario: &Scenario, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    let mut best = scenario.clone();
    let mut tries = 0;
    let mut size = best.steps.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let before = best.steps.len();
        while at < best.steps.len() {
            if tries >= TRIES {
                return best;
            }
            tries += 1;
            let mut candidate = best.clone();
            candidate.steps.drain(at..(at + size).min(best.steps.len()));
            match fails(&candidate) {
                true => best = candidate,
                false => at += size,
            }
        }
        if size == 1 && best.steps.len() == before {
            return best;
        }
        size = size.div_ceil(2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::simulation::scenario::Step;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let mut scenario = Scenario::of(1);
        scenario.steps = (0..100).map(Step::Rest).collect();
        let needed = [Step::Rest(17), Step::Rest(60), Step::Rest(61)];
        let short = shrunk(&scenario, |candidate| {
            needed.iter().all(|step| candidate.steps.contains(step))
        });
        assert_eq!(short.steps, needed);
    }
}
