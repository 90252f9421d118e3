//! When a message that failed is tried again.

use std::time::Duration;

use crate::lease::Attempt;

/// Nobody is made to wait longer than this by what a handler asks for: the line's delivery waits too.
pub const ASKED_MOST: Duration = Duration::from_mins(10);

/// When a message was in flight so often as its processor died, and was blamed for it, it is given up. Generous: the first
/// few blame many, and a processor may be killed by chance; the others count for a message that was there alone
/// ([`crate::partition::ALONE_FROM`]).
pub const MAX_CRASHES: u32 = 10;

/// Exponential backoff with full jitter, up to a number of attempts.
///
/// The delay after attempt *n* is drawn evenly from 0 to `min(max, base × 2^(n−1))`. Source: M. Brooker,
/// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The largest delay after the first attempt, in microseconds.
    pub base_us: u64,
    /// The largest delay at all, in microseconds.
    pub max_us: u64,
    /// After this many attempts the failure is for good.
    pub max_attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base_us: 100_000,
            max_us: 30_000_000,
            max_attempts: 5,
        }
    }
}

impl Backoff {
    /// The delay in microseconds before the attempt after `failed`, or `None` when the failure is for good.
    /// `random` is any number, evenly distributed over all of `u64`.
    pub fn delay_us(&self, failed: Attempt, random: u64) -> Option<u64> {
        if failed.0 >= self.max_attempts {
            return None;
        }
        let doublings = failed.0.saturating_sub(1).min(63);
        let ceiling = self.base_us.saturating_mul(1 << doublings).min(self.max_us);
        Some(ceiling.checked_add(1).map_or(random, |delays| random % delays))
    }

    /// The same, and no sooner than the handler `asked` for, up to [`ASKED_MOST`].
    pub fn delay_asked_us(&self, failed: Attempt, random: u64, asked: Option<Duration>) -> Option<u64> {
        let asked = asked.map_or(0, |asked| asked.min(ASKED_MOST).as_micros());
        let asked_us = u64::try_from(asked).unwrap_or(u64::MAX);
        self.delay_us(failed, random).map(|drawn_us| drawn_us.max(asked_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum_and_ends() {
        let backoff = Backoff {
            base_us: 100,
            max_us: 350,
            max_attempts: 4,
        };
        let largest = |attempt| {
            (0..2_000)
                .filter_map(|random| backoff.delay_us(Attempt(attempt), random))
                .max()
        };
        assert_eq!(largest(1), Some(100));
        assert_eq!(largest(2), Some(200));
        assert_eq!(largest(3), Some(350));
        assert_eq!(largest(4), None);
    }

    #[test]
    fn no_attempt_number_overflows() {
        let backoff = Backoff {
            max_attempts: u32::MAX,
            ..Backoff::default()
        };
        assert!(backoff.delay_us(Attempt(u32::MAX - 1), u64::MAX).is_some());
        let without_end = Backoff {
            max_us: u64::MAX,
            ..backoff
        };
        assert_eq!(without_end.delay_us(Attempt(100), 7), Some(7));
    }

    #[test]
    fn what_is_asked_for_is_the_least_and_has_a_limit() {
        let backoff = Backoff::default();
        let delay = |asked| backoff.delay_asked_us(Attempt(1), 70_000, asked);
        assert_eq!(delay(None), Some(70_000));
        assert_eq!(delay(Some(Duration::from_millis(50))), Some(70_000));
        assert_eq!(delay(Some(Duration::from_mins(1))), Some(60_000_000));
        assert_eq!(delay(Some(Duration::MAX)), Some(600_000_000));
        let last = Attempt(backoff.max_attempts);
        assert_eq!(backoff.delay_asked_us(last, 0, Some(Duration::from_secs(1))), None);
    }
}
