//! Brake: in a line whose partitions are merged, no new claims while as many messages of a partition are claimed and not merged as
//! the window has. A number that is missing for long would else have all others processed meanwhile.
//!
//! The partition in which the missing number belongs is not held back, or the number could not come through behind what came before
//! it.
//!
//! A position says how far claims may go: that of what was merged and taken off, and a window. It only grows, so that one that is not
//! fresh holds back too early and never too late; the claim keeps to it in its own step, and all processors together to the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conga_core::message::Position;
use conga_core::partition::{Claim, Status};
use tokio::time::Instant;

use crate::process::Place;
use crate::store::{SharedStore, Store};
use crate::wake::FALLBACK;

/// After a claim that brought less than it asked for the brake may be the reason.
const SOON: Duration = Duration::from_millis(10);

/// How far may be claimed. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Brake {
    base: SharedStore,
    place: Place,
    look: Arc<Mutex<Look>>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Option<Instant>,
    /// How far; nothing, where the missing number is looked for.
    below: Option<Position>,
    /// Whether the last claim brought less than it asked for.
    is_short: bool,
}

impl Brake {
    /// For a partition of a line whose base is merged.
    pub(crate) fn new(base: SharedStore, place: Place) -> Self {
        let nothing = Look {
            at: None,
            below: Some(Position::FIRST),
            is_short: false,
        };
        Self {
            base,
            place,
            look: Arc::new(Mutex::new(nothing)),
        }
    }

    /// Below which position may be claimed. Of a store that does not answer it is what it was.
    pub(crate) async fn below(&self, store: &dyn Store, window: u64) -> Option<Position> {
        let look = *self.look();
        let fresh = if look.is_short { SOON } else { FALLBACK };
        if look.at.is_none_or(|at| at.elapsed() >= fresh)
            && let Ok(status) = store.status().await
        {
            let below = reach(&status, window);
            let is_free = status.next >= below && self.is_sought().await;
            let mut look = self.look();
            look.at = Some(Instant::now());
            look.below = (!is_free).then_some(below);
        }
        self.look().below
    }

    /// Whether the number that is missing belongs here.
    async fn is_sought(&self) -> bool {
        let Ok(base) = self.base.status().await else {
            return false;
        };
        let home = self.place.router.partition(None, None, Some(base.head.0), 0);
        base.missing.is_some() && home == Ok(self.place.partition)
    }

    /// This was claimed, of so many that were asked for.
    pub(crate) fn took(&self, claims: &[Claim], max: usize) {
        self.look().is_short = claims.len() < max;
    }

    fn look(&self) -> MutexGuard<'_, Look> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was merged and taken off, and a window more.
fn reach(status: &Status, window: u64) -> Position {
    Position(status.head.0.saturating_sub(status.output).max(1)).plus(window)
}
