//! Whether the system of record is away: a processor that is told to end waits for it no longer than a moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the tasks of a processor know of the system of record. Clones know the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Away(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_so: AtomicBool,
    looking: AtomicUsize,
}

impl Away {
    /// Whether it has answered nothing since it last gave trouble.
    pub(super) fn is_so(&self) -> bool {
        self.0.is_so.load(Ordering::Relaxed)
    }

    pub(super) fn gives_trouble(&self) {
        self.0.is_so.store(true, Ordering::Relaxed);
    }

    pub(super) fn answers(&self) {
        self.0.is_so.store(false, Ordering::Relaxed);
    }

    /// How many attempts have not begun with their handler, for they look into the system of record first.
    pub(super) fn looking(&self) -> usize {
        self.0.looking.load(Ordering::Relaxed)
    }

    /// One more does, until this is dropped.
    pub(super) fn look(&self) -> Looking<'_> {
        self.0.looking.fetch_add(1, Ordering::Relaxed);
        Looking(self)
    }
}

/// An attempt that looks.
pub(super) struct Looking<'a>(&'a Away);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.0.looking.fetch_sub(1, Ordering::Relaxed);
    }
}
