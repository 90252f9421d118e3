//! Brake: in a line whose partitions are merged, no new claims while as many outputs of a partition wait for their turn as the
//! window has. A number that is missing for long would else have all others processed meanwhile.
//!
//! The partition in which the missing number belongs is not held back, or the number could not come through behind what came before
//! it.
//!
//! Each process sees to it for itself, by a look at the store before so many claims: together they may go beyond by
//! what each has claimed since its last look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::process::Place;
use crate::store::{SharedStore, Store};
use crate::wake::FALLBACK;

/// How many more may be claimed. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Brake {
    base: SharedStore,
    place: Place,
    look: Arc<Mutex<Look>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Look {
    at: Option<Instant>,
    room: u64,
}

impl Brake {
    /// For a partition of a line whose base is merged.
    pub(crate) fn new(base: SharedStore, place: Place) -> Self {
        Self {
            base,
            place,
            look: Arc::default(),
        }
    }

    /// How many more may be claimed so that no more outputs wait than `window`. Of a store that does not answer it is what it was.
    pub(crate) async fn room(&self, store: &dyn Store, window: u64) -> u64 {
        let look = *self.look();
        let is_fresh = look.at.is_some_and(|at| at.elapsed() < FALLBACK);
        if is_fresh && look.room > 0 {
            return look.room;
        }
        if let Ok(status) = store.status().await {
            let room = window.saturating_sub(status.output + status.processed + status.in_flight);
            let is_sought = room == 0 && self.is_sought().await;
            *self.look() = Look {
                at: Some(Instant::now()),
                room: if is_sought { window } else { room },
            };
        }
        self.look().room
    }

    /// Whether the number that is missing belongs here.
    async fn is_sought(&self) -> bool {
        let Ok(base) = self.base.status().await else {
            return false;
        };
        let home = self.place.router.partition(None, None, Some(base.head.0), 0);
        base.missing.is_some() && home == Ok(self.place.partition)
    }

    /// So many more are claimed.
    pub(crate) fn took(&self, count: usize) {
        let mut look = self.look();
        look.room = look.room.saturating_sub(count as u64);
    }

    fn look(&self) -> MutexGuard<'_, Look> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
