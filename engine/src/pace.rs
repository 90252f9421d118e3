//! How often to ask when there is always a little: rather some at once than each by itself.
//!
//! A question that brought something may be followed by the next at once. Only those in vain are spread, the wider the more
//! of them there are: where ten processes ask for each message, nine ask in vain.

use std::time::Duration;

use tokio::time::Instant;

/// After a question that brought nothing.
const SHORTEST: Duration = Duration::from_millis(1);
/// Between two questions after a number of them that brought nothing.
const LONGEST: Duration = Duration::from_millis(8);

#[derive(Debug)]
pub(crate) struct Pace {
    gap: Duration,
    due: Instant,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            gap: Duration::ZERO,
            due: Instant::now(),
        }
    }

    /// When the next question may go out.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// A question goes out.
    pub(crate) fn asked(&mut self) {
        self.due = Instant::now() + self.gap;
    }

    /// It brought something, or nothing.
    pub(crate) fn answered(&mut self, something: bool) {
        self.gap = if something {
            Duration::ZERO
        } else {
            (self.gap * 2).clamp(SHORTEST, LONGEST)
        };
    }

    /// There is more, for sure: the next question need not wait.
    pub(crate) fn hurry(&mut self) {
        self.due = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_in_vain_are_spread_and_the_first_after_a_pause_is_not() {
        let mut pace = Pace::new();
        let start = Instant::now();
        for _ in 0..100 {
            tokio::time::sleep_until(pace.due()).await;
            pace.asked();
            pace.answered(false);
        }
        assert!(start.elapsed() > 90 * LONGEST);
        tokio::time::sleep(LONGEST).await;
        assert!(pace.is_due());
        pace.asked();
        pace.answered(true);
        pace.asked();
        assert!(pace.is_due());
    }
}
