//! One concurrency for several partitions: each loop gets its part of it in turn, and one that is alone gets all.
//!
//! Whoever wants to claim stands in a queue, and whoever is at its front gets an equal part of what is free, at least one.
//! So a partition that is alone in having work uses all, and none that has some waits longer than until as many messages
//! have ended as others stand before it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many messages the loops of one process work at, all together.
#[derive(Debug)]
struct Budget {
    total: usize,
    each: Vec<Loop>,
    /// Who wants to claim, the longest waiting first.
    queue: VecDeque<usize>,
}

#[derive(Debug, Default)]
struct Loop {
    /// Claimed and not ended, or asked for.
    holds: usize,
    /// Of these, in their handlers.
    runs: usize,
    /// It waits to be told that there is room.
    waits: bool,
    room: Arc<Notify>,
}

impl Budget {
    fn free(&self) -> usize {
        let held: usize = self.each.iter().map(|each| each.holds).sum();
        self.total.saturating_sub(held)
    }

    fn can_run(&self) -> bool {
        let running: usize = self.each.iter().map(|each| each.runs).sum();
        running < self.total
    }

    fn tell(&mut self) {
        let (free, can_run) = (self.free(), self.can_run());
        let front = self.queue.front().copied();
        for (index, each) in self.each.iter_mut().enumerate() {
            let turn = free > 0 && front == Some(index);
            // One that has something to begin with stands in no queue.
            let begins = can_run && !self.queue.contains(&index);
            if each.waits && (turn || begins) {
                each.waits = false;
                each.room.notify_one();
            }
        }
    }
}

/// One loop's side of the budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Mutex<Budget>>,
    index: usize,
    room: Arc<Notify>,
}

impl Share {
    /// `total` for so many loops.
    pub(crate) fn of(total: usize, loops: usize) -> Vec<Self> {
        let each: Vec<Loop> = (0..loops).map(|_| Loop::default()).collect();
        let rooms: Vec<_> = each.iter().map(|each| each.room.clone()).collect();
        let budget = Arc::new(Mutex::new(Budget {
            total: total.max(1),
            each,
            queue: VecDeque::new(),
        }));
        let share = |(index, room)| Self {
            budget: budget.clone(),
            index,
            room,
        };
        rooms.into_iter().enumerate().map(share).collect()
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what this loop has now: what it works at, and what of that runs.
    pub(crate) fn has(&self, holds: usize, runs: usize) {
        let mut budget = self.budget();
        let mine = &mut budget.each[self.index];
        let gives = holds < mine.holds || runs < mine.runs;
        (mine.holds, mine.runs) = (holds, runs);
        if gives {
            budget.tell();
        }
    }

    /// How many of the `wanted` messages this loop may claim now; none: it is told when it is its turn.
    pub(crate) fn ask(&self, wanted: usize) -> usize {
        let mut budget = self.budget();
        if !budget.queue.contains(&self.index) {
            budget.queue.push_back(self.index);
        }
        let free = budget.free();
        if free == 0 || budget.queue.front() != Some(&self.index) {
            budget.each[self.index].waits = true;
            return 0;
        }
        let part = free.div_ceil(budget.queue.len()).min(wanted);
        budget.queue.pop_front();
        budget.each[self.index].holds += part;
        budget.tell();
        part
    }

    /// This loop has no use for a turn.
    pub(crate) fn withdraw(&self) {
        let mut budget = self.budget();
        budget.queue.retain(|index| *index != self.index);
        budget.tell();
    }

    /// Whether a handler may begin; if not, this loop is told when one may.
    pub(crate) fn can_run(&self) -> bool {
        let mut budget = self.budget();
        let can = budget.can_run();
        budget.each[self.index].waits |= !can;
        can
    }

    /// Returns when there may be room. Cancel-safe.
    pub(crate) async fn told(&self) {
        self.room.notified().await;
    }
}

impl Drop for Share {
    /// What a loop had that has ended is the others'.
    fn drop(&mut self) {
        self.has(0, 0);
        self.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_alone_has_all_and_two_have_half_each() {
        let [busy, other] = <[Share; 2]>::try_from(Share::of(10, 2)).unwrap();
        assert_eq!(busy.ask(100), 10);
        assert_eq!(other.ask(100), 0);
        assert_eq!(busy.ask(100), 0);
        // As what it has ends, the other gets its part.
        busy.has(6, 6);
        assert_eq!(busy.ask(100), 0, "it is not its turn");
        assert_eq!(other.ask(100), 2);
        assert_eq!(busy.ask(100), 2);
    }

    #[test]
    fn none_starves_where_there_is_less_than_one_for_each() {
        let shares = Share::of(1, 3);
        let mut turns = [0; 3];
        for _ in 0..30 {
            let granted: Vec<usize> = shares.iter().map(|share| share.ask(5)).collect();
            assert_eq!(granted.iter().sum::<usize>(), 1);
            for (share, (turn, granted)) in shares.iter().zip(turns.iter_mut().zip(granted)) {
                *turn += granted;
                share.has(0, 0);
            }
        }
        assert_eq!(turns, [10; 3]);
    }

    #[test]
    fn one_that_has_ended_holds_nothing_up() {
        let mut shares = Share::of(4, 2);
        assert_eq!(shares[0].ask(4), 4);
        assert_eq!(shares[1].ask(4), 0);
        drop(shares.remove(0));
        assert_eq!(shares[0].ask(9), 4);
    }
}
