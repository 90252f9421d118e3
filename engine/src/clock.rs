//! Whose clock tells the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use conga_core::time::Micros;
use tokio::time::Instant;

/// The clock of a store. Clients never bring one of their own (law 5); tests set one by hand.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The store's own: Redis's `TIME`, the machine's clock for stores that live on it.
    #[default]
    Store,
    /// A test's: it stands still until it is moved, or goes with the runtime's paused time.
    Manual(ManualClock),
}

impl Clock {
    /// The time by the machine's clock, or as it was set by hand.
    pub fn now(&self) -> Micros {
        match self {
            Self::Store => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
            }
            Self::Manual(clock) => clock.now(),
        }
    }
}

/// A clock that is set by hand. Clones show the same time.
#[derive(Debug, Clone)]
pub struct ManualClock {
    set: Arc<AtomicU64>,
    /// Since when it goes by itself, if it does.
    going: Option<Instant>,
}

impl ManualClock {
    /// Stands at `start`.
    pub fn new(start: Micros) -> Self {
        Self {
            set: Arc::new(AtomicU64::new(start.0)),
            going: None,
        }
    }

    /// Is at `start` now and goes on by the runtime's clock: where a test pauses that or lets it jump, so does this.
    pub fn going(start: Micros) -> Self {
        Self {
            going: Some(Instant::now()),
            ..Self::new(start)
        }
    }

    /// The time.
    pub fn now(&self) -> Micros {
        let gone = self.going.map_or(0, |since| since.elapsed().as_micros());
        Micros(self.set.load(Ordering::SeqCst)) + u64::try_from(gone).unwrap_or(u64::MAX)
    }

    /// Moves on by so many microseconds.
    pub fn advance(&self, micros: u64) {
        self.set.fetch_add(micros, Ordering::SeqCst);
    }

    /// Is set back by so many microseconds.
    pub fn set_back(&self, micros: u64) {
        self.set.fetch_sub(micros, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_follows_paused_time_and_one_that_stands_does_not() {
        let (going, standing) = (ManualClock::going(Micros(5)), ManualClock::new(Micros(5)));
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(going.now(), Micros(3_600_000_005));
        assert_eq!(standing.now(), Micros(5));
        going.advance(1);
        assert_eq!(going.now(), Micros(3_600_000_006));
    }
}
