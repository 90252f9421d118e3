//! Quarantine: a message that was blamed so often that it is to be alone ([`conga_core::partition::ALONE_FROM`]) is begun
//! with when its process works at nothing else, in whatever partition: they all die with it.
//!
//! The store sees to that in the message's own partition; here the loops of one process see to the others. Who is handed such
//! a message while the others hold something gives it back, and wishes to be alone: a message that is leased is blamed for a
//! death, and this one has not run. Then nobody else claims any more, and when the others hold nothing it is claimed again. So
//! each of the others is done with what it has before that, and claims again after it.
//!
//! Nothing is waited for without an end. What a loop has in a store that does not answer counts for [`MOMENT`], and what
//! a process works at for [`LONGEST`]; then such a message runs beside the rest. If it kills the process, the rest is blamed
//! wrongly. But no innocent is given up for that alone: what was blamed [`conga_core::partition::ALONE_FROM`] times is in
//! quarantine itself, and of these no two run at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a store without an answer is waited for.
pub(super) const MOMENT: Duration = Duration::from_millis(500);
/// How long the others' handlers are waited for, and how long the others wait for the one that is alone.
const LONGEST: Duration = Duration::from_mins(1);
/// Who wishes to be alone looks so often whether another process has the message by now.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Who has not begun after so long does not claim any more: by then it would run beside the rest.
const LAPSED: Duration = Duration::from_secs(64);

/// What the loops of one process know of each other.
#[derive(Debug, Default)]
struct Ward {
    each: Vec<Loop>,
    alone: Option<Alone>,
}

#[derive(Debug, Default)]
struct Loop {
    /// What would be blamed for the death of this process: what it has in the store, as far as it knows, or asks for.
    holds: usize,
    news: Arc<Notify>,
}

/// The loop that is alone, or wishes to be.
#[derive(Debug, Clone, Copy)]
struct Alone {
    index: usize,
    has_begun: bool,
    since: Instant,
    /// When it last claimed.
    claimed: Instant,
}

impl Alone {
    fn is_long(&self) -> bool {
        self.since.elapsed() >= LONGEST
    }
}

impl Ward {
    /// Forgets the wish of a loop that does not look any more, as its hands are full, or it is to end.
    fn lapse(&mut self) {
        self.alone = (self.alone).filter(|alone| alone.has_begun || alone.since.elapsed() < LAPSED);
    }

    fn others_hold_nothing(&self, index: usize) -> bool {
        let mut others = self.each.iter().enumerate().filter(|(other, _)| *other != index);
        others.all(|(_, each)| each.holds == 0)
    }

    fn tell_all(&self) {
        for each in &self.each {
            each.news.notify_one();
        }
    }
}

/// One loop's side of it.
#[derive(Debug)]
pub(crate) struct Quarantine {
    ward: Arc<Mutex<Ward>>,
    index: usize,
    news: Arc<Notify>,
}

impl Quarantine {
    /// For the first loop of a process.
    pub(crate) fn new() -> Self {
        Self::in_ward(Arc::default())
    }

    /// For another loop of the same process.
    pub(crate) fn beside(&self) -> Self {
        Self::in_ward(self.ward.clone())
    }

    fn in_ward(ward: Arc<Mutex<Ward>>) -> Self {
        let newcomer = Loop::default();
        let news = newcomer.news.clone();
        let index = {
            let mut ward = ward.lock().unwrap_or_else(PoisonError::into_inner);
            ward.each.push(newcomer);
            ward.each.len() - 1
        };
        Self { ward, index, news }
    }

    fn ward(&self) -> MutexGuard<'_, Ward> {
        self.ward.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what would be blamed for the death of this process.
    pub(super) fn report(&self, holds: usize) {
        let mut ward = self.ward();
        let before = std::mem::replace(&mut ward.each[self.index].holds, holds);
        if let Some(alone) = ward.alone
            && holds == 0
            && before > 0
        {
            ward.each[alone.index].news.notify_one();
        }
    }

    /// Whether this loop, which is at nothing else if it `is_idle`, may claim. Then it counts as if it held something, until
    /// it reports.
    pub(super) fn may_claim(&self, is_idle: bool) -> bool {
        let mut ward = self.ward();
        ward.lapse();
        let is_quiet = is_idle && ward.others_hold_nothing(self.index);
        let may = match &mut ward.alone {
            None => true,
            Some(alone) if alone.has_begun => alone.is_long(),
            Some(alone) if alone.index != self.index => false,
            Some(alone) => {
                let may = is_quiet || alone.claimed.elapsed() >= LOOK_AGAIN;
                if may {
                    alone.claimed = Instant::now();
                }
                may
            }
        };
        ward.each[self.index].holds += usize::from(may);
        may
    }

    /// This loop, which is at nothing else if it `is_idle`, was handed a message that is to be alone. True, if it is to begin
    /// with it now; else it has to give it back, and wishes to be alone, unless another is or does.
    pub(super) fn admit(&self, is_idle: bool) -> bool {
        let mut ward = self.ward();
        ward.lapse();
        let now = Instant::now();
        let is_quiet = is_idle && ward.others_hold_nothing(self.index);
        let wished = match ward.alone {
            Some(alone) if alone.index != self.index || alone.has_begun => return false,
            wished => wished,
        };
        let begins = is_quiet || wished.is_some_and(|alone| alone.is_long());
        ward.alone = Some(Alone {
            index: self.index,
            has_begun: begins,
            since: wished.filter(|_| !begins).map_or(now, |alone| alone.since),
            claimed: now,
        });
        ward.tell_all();
        begins
    }

    /// It is done, or somebody else has it, or nobody can tell.
    pub(super) fn release(&self) {
        let mut ward = self.ward();
        if ward.alone.is_some_and(|alone| alone.index == self.index) {
            ward.alone = None;
            ward.tell_all();
        }
    }

    /// Nothing that is to be alone is there any more.
    pub(super) fn forgo(&self) {
        let mut ward = self.ward();
        if ward
            .alone
            .is_some_and(|alone| alone.index == self.index && !alone.has_begun)
        {
            ward.alone = None;
            ward.tell_all();
        }
    }

    /// Whether another is alone now.
    pub(super) fn is_barred(&self) -> bool {
        let alone = self.ward().alone.filter(|alone| alone.index != self.index);
        alone.is_some_and(|alone| alone.has_begun && !alone.is_long())
    }

    /// Returns when this loop may stand otherwise than it did. Cancel-safe.
    pub(super) async fn news(&self) {
        let now = Instant::now();
        let due = self.ward().alone.map(|alone| match alone {
            _ if alone.has_begun => alone.since + LONGEST,
            _ if alone.index == self.index => alone.claimed + LOOK_AGAIN,
            _ => alone.since + LAPSED,
        });
        match due.filter(|due| *due > now) {
            Some(due) => tokio::select! {
                biased;
                () = self.news.notified() => {}
                () = sleep_until(due) => {}
            },
            None => self.news.notified().await,
        }
    }
}

impl Drop for Quarantine {
    /// A loop that has ended is nobody's neighbour.
    fn drop(&mut self) {
        self.release();
        self.report(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> [Quarantine; 3] {
        let first = Quarantine::new();
        let others = [first.beside(), first.beside()];
        let [second, third] = others;
        [first, second, third]
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_begun_with_before_the_others_hold_nothing() {
        let [first, other, third] = three();
        assert!(other.may_claim(false));
        assert!(!first.admit(true), "another may have claimed something");
        other.report(3);
        first.report(0);
        assert!(!other.may_claim(true) && !third.may_claim(true), "they make way");
        assert!(!other.admit(true), "and what is to be alone there waits");
        assert!(!first.may_claim(true));
        other.report(0);
        assert!(!first.may_claim(false), "it holds something itself");
        assert!(first.may_claim(true));
        assert!(!first.admit(false));
        assert!(first.admit(true));
        assert!(other.is_barred() && !first.is_barred());
        assert!(!other.admit(true) && !other.may_claim(true) && !first.may_claim(true));
        assert!(!first.admit(true), "nor has it two");
        other.release();
        other.forgo();
        first.forgo();
        assert!(other.is_barred(), "it is not theirs to end, and no wish any more");
        first.release();
        first.report(0);
        assert!(!other.is_barred() && other.may_claim(false) && other.admit(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_ends_when_it_is_told_to_or_its_loop_has_ended() {
        let [first, other, third] = three();
        other.report(1);
        assert!(!first.admit(true));
        assert!(!other.may_claim(true));
        first.forgo();
        assert!(other.may_claim(true));
        assert!(!first.admit(true));
        drop(first);
        assert!(third.may_claim(true) && !third.admit(true));
        drop(other);
        assert!(
            third.may_claim(true) && third.admit(true),
            "who has ended holds nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told() {
        let [first, other, third] = three();
        other.report(1);
        first.admit(true);
        for told in [&first, &other, &third] {
            tokio::time::timeout(Duration::ZERO, told.news())
                .await
                .expect("that one wishes to be alone");
        }
        other.report(0);
        tokio::time::timeout(Duration::ZERO, first.news())
            .await
            .expect("that the others hold nothing");
        first.admit(true);
        other.news().await;
        first.release();
        tokio::time::timeout(Duration::ZERO, other.news())
            .await
            .expect("that it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_without_an_end() {
        let [first, other, third] = three();
        let begun = Instant::now();
        other.report(1);
        assert!(!first.admit(true));
        let mut looks = 0;
        loop {
            first.news().await;
            if first.may_claim(true) {
                looks += 1;
                if first.admit(true) {
                    break;
                }
            }
        }
        assert_eq!((begun.elapsed(), looks), (LONGEST, 30), "it looks now and then");
        assert!(!third.may_claim(true));
        third.news().await;
        while !third.may_claim(true) {
            third.news().await;
        }
        assert_eq!(begun.elapsed(), 2 * LONGEST);
        assert!(first.may_claim(false) && !other.is_barred());
        assert!(!third.admit(true), "but no other is alone meanwhile");
    }
}
