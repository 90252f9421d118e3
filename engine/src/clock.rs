//! Whose clock tells the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use conga_core::time::Micros;

/// The clock of a store. Clients never bring one of their own (law 5); tests set one by hand.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The store's own: Redis's `TIME`, the machine's clock for stores that live on it.
    #[default]
    Store,
    /// Stands still until a test moves it.
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
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Stands at `start`.
    pub fn new(start: Micros) -> Self {
        Self(Arc::new(AtomicU64::new(start.0)))
    }

    /// The time.
    pub fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }

    /// Moves on by so many microseconds.
    pub fn advance(&self, micros: u64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}
