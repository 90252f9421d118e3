//! A clock that is set back: without care every deadline would last that much longer.
//!
//! Who sets a deadline tells the time. When the clock then stands clearly before what was last told, all deadlines are
//! set back with it, so that each lasts about as long as was asked for. A clock that is set forward needs no care: what
//! expires too early costs an attempt, or a change of leader, and nothing else (laws 2 and 3).

use super::{Flight, Partition};
use crate::time::Micros;

/// From here on a clock was set back. By less it only wavers: where processes read it before they have the lock, a
/// later step may have an earlier time.
pub const SET_BACK_US: u64 = 1_000_000;

/// The time is told so often at most, so that telling it costs nothing. A deadline is longer by as much at worst.
pub const TELL_EVERY_US: u64 = 100_000;

impl Partition {
    /// Sets all deadlines back where the clock was.
    pub(super) fn notice_set_back(&mut self, now: Micros) {
        let back = self.told.since(now);
        if back < SET_BACK_US {
            return;
        }
        let flights = self.flights.values_mut().filter_map(|flight| match flight {
            Flight::Delayed { due, .. } => Some(due),
            _ => None,
        });
        let seats = [&mut self.leader, &mut self.consumer].into_iter();
        let locks = seats
            .filter_map(|seat| seat.lock.as_mut())
            .map(|lock| &mut lock.deadline);
        for deadline in self.owners.values_mut().chain(flights).chain(locks) {
            deadline.0 = deadline.0.saturating_sub(back);
        }
        self.bucket.set_back(back);
        self.told = now;
    }

    /// Says what time it is, before a deadline is set.
    pub(super) fn tell_time(&mut self, now: Micros) {
        self.notice_set_back(now);
        if now >= self.told + TELL_EVERY_US {
            self.told = now;
        }
    }
}
