//! A claim that nobody waits for any more may be done at any time, after both sides have compared what they hold. The store
//! tells of it when the head of the line is held up ([`conga_core::partition::Renewed::blocking`]); where not all messages keep
//! their order the head may be with another, for as long as a person takes to decide. So both compare again, each time after
//! twice as long: what a claim took is found after no more than about twice as long as it was late.

use std::time::Duration;

use tokio::time::Instant;

/// The first time.
const SHORTEST: Duration = Duration::from_secs(1);

/// When to compare again; never, as long as each claim had its answer.
#[derive(Debug, Default)]
pub(super) struct Late(Option<(Instant, Duration)>);

impl Late {
    /// A claim has no answer.
    pub(super) fn may_come(&mut self) {
        self.0 = Some((Instant::now() + SHORTEST, SHORTEST));
    }

    /// Whether it is time to compare.
    pub(super) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let Some((due, pause)) = &mut self.0 else { return false };
        let is_due = *due <= now;
        if is_due {
            *pause = pause.saturating_mul(2);
            *due = now.checked_add(*pause).unwrap_or(now + SHORTEST);
        }
        is_due
    }
}
