//! The two clocks of everything from `hook` up, in one place, so that a test can turn both of them at once.

use std::time::{Instant, SystemTime};

/// The wall clock, for expiry and for what is stored: the system's, whatever is done to it while we run.
pub fn wall() -> SystemTime {
    #[cfg(test)]
    if let Some(wall) = virtual_time::wall() {
        return wall;
    }
    SystemTime::now()
}

/// The monotonic clock, for time-outs: the one that the runtime's timers follow.
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A wall clock that goes with the paused clock of the thread's runtime.
#[cfg(test)]
pub(crate) mod virtual_time {
    use std::cell::Cell;
    use std::time::SystemTime;

    use tokio::time::Instant;

    thread_local! {
        static BEGAN: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    }

    /// From now on this thread's wall clock shows `wall` plus what passes by its runtime's clock, until the
    /// answer is dropped.
    pub(crate) fn begin(wall: SystemTime) -> Running {
        BEGAN.set(Some((Instant::now(), wall)));
        Running
    }

    pub(super) fn wall() -> Option<SystemTime> {
        BEGAN.get().map(|(began, wall)| wall + began.elapsed())
    }

    /// Virtual time, as long as it is held.
    pub(crate) struct Running;

    impl Drop for Running {
        fn drop(&mut self) {
            BEGAN.set(None);
        }
    }
}
