//! How long to wait before a store that failed is asked again: twice as long each time, and never all at once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first pause is at least so long.
const SHORTEST: Duration = Duration::from_millis(100);

/// Pauses without end, none of them much longer than `longest`.
pub(super) fn pauses(longest: Duration) -> impl FnMut() -> Duration {
    let mut pauses: ExponentialBackoff = ExponentialBuilder::default()
        .with_min_delay(SHORTEST)
        .with_max_delay(longest)
        .without_max_times()
        .with_jitter()
        .build();
    move || pauses.next().unwrap_or(longest)
}
