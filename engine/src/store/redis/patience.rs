//! How long to wait for one of several servers: not long, since another may answer, and longer where that is too short.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// At first, and at least.
pub(super) const LEAST: Duration = Duration::from_millis(300);

/// Learns from how long things take.
#[derive(Debug)]
pub(super) struct Patience {
    ms: AtomicU64,
    most: Duration,
}

impl Patience {
    /// Never more than `most`.
    pub(super) fn new(most: Duration) -> Self {
        let patience = Self {
            ms: AtomicU64::new(0),
            most,
        };
        patience.set(LEAST);
        patience
    }

    /// How long to wait.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.ms.load(Ordering::Relaxed))
    }

    /// Something took so long: three times as long is in order.
    pub(super) fn took(&self, time: Duration) {
        self.set(LEAST.max(time * 3));
    }

    /// Something would have taken longer, or nobody is there.
    pub(super) fn was_too_short(&self) {
        self.set(self.limit() * 2);
    }

    fn set(&self, limit: Duration) {
        let ms = u64::try_from(limit.min(self.most).as_millis()).unwrap_or(u64::MAX);
        self.ms.store(ms, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_network_is_learned_and_forgotten() {
        let patience = Patience::new(Duration::from_secs(1));
        assert_eq!(patience.limit(), LEAST);
        patience.was_too_short();
        patience.was_too_short();
        assert_eq!(patience.limit(), Duration::from_secs(1), "never more than that");
        patience.took(Duration::from_millis(200));
        assert_eq!(patience.limit(), Duration::from_millis(600));
        patience.took(Duration::from_millis(1));
        assert_eq!(patience.limit(), LEAST);
    }
}
