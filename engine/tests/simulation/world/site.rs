//! One store of a line: its state, its clock, and who hears of its hints.

use std::sync::{Arc, Mutex};

use conga::clock::{Clock, ManualClock};
use conga::core::time::Micros;
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore};
use conga::wake::{Listener, Topic, Wakes};
use futures_util::FutureExt as _;

use crate::flaw::{Flaw, Flawed};

/// The line by its own name: where it has several partitions, the base.
pub(crate) const BASE: usize = 0;

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) store: SharedStore,
    /// The same store, for those who have it deliver.
    pub(crate) delivering: SharedStore,
    clock: ManualClock,
    /// What the store hints at.
    heard: Mutex<Vec<(Topic, Listener)>>,
    /// Who is to hear of it, by place.
    hinted: Mutex<Vec<Option<Wakes>>>,
}

impl Site {
    pub(super) fn new(flaw: Option<Flaw>, places: usize) -> Self {
        // Any time after 1970; the same in each run.
        let clock = ManualClock::going(Micros(0));
        let memory = MemoryStore::new(Clock::Manual(clock.clone())).delivering(Delivery::Leader);
        let (store, delivering): (SharedStore, SharedStore) = match flaw {
            None => {
                let delivering = memory.delivering(Delivery::Store);
                (Arc::new(memory), Arc::new(delivering))
            }
            Some(flaw) => {
                let flawed = Flawed::new(memory, flaw);
                let delivering = flawed.delivering();
                (Arc::new(flawed), Arc::new(delivering))
            }
        };
        Self {
            heard: Mutex::new(Topic::ALL.map(|topic| (topic, store.wakes().listen(&[topic]))).into()),
            hinted: Mutex::new(vec![None; places]),
            store,
            delivering,
            clock,
        }
    }

    pub(super) fn now(&self) -> Micros {
        self.clock.now()
    }

    pub(super) fn jump(&self, by_us: u64) {
        self.clock.advance(by_us);
    }

    /// Where a process in this place gets its hints from now on.
    pub(crate) fn connect(&self, place: usize) -> Wakes {
        let wakes = Wakes::default();
        self.hinted.lock().unwrap()[place] = Some(wakes.clone());
        wakes
    }

    /// What the store has hinted at since the last time.
    pub(super) fn hints(&self) -> Vec<Topic> {
        let mut heard = self.heard.lock().unwrap();
        let news = heard.iter_mut().filter_map(|(topic, listener)| {
            let hinted = tokio::task::unconstrained(listener.hinted()).now_or_never();
            hinted.map(|()| *topic)
        });
        news.collect()
    }

    /// Who listens, by place.
    pub(super) fn listeners(&self) -> Vec<(usize, Wakes)> {
        let hinted = self.hinted.lock().unwrap();
        let each = hinted.iter().enumerate();
        each.filter_map(|(place, wakes)| Some((place, wakes.clone()?)))
            .collect()
    }
}
