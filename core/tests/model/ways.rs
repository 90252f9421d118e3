//! Ways to the end that were walked already, so that none is walked twice.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use crate::shared::hash;

/// The states from which all is known to come out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ways(Arc<Mutex<HashSet<u64>>>);

impl Ways {
    pub(crate) fn leads_on(&self, state: &impl Hash) -> bool {
        self.0.lock().expect("nobody panics with it").contains(&hash(state))
    }

    /// All of these, by their hashes, are on such a way.
    pub(crate) fn keep(&self, way: Vec<u64>) {
        self.0.lock().expect("nobody panics with it").extend(way);
    }
}
