//! Keep: how much of what has been delivered, or has died, stays. What is over goes, the oldest first.
//!
//! An id counts once as long as its record stays: so a record is what a resend is known by, and a limit for records is the
//! horizon of that. A record of which the line may still have to deliver something never goes.
//!
//! Which ones that are is told by a grace period, as where readers are waited for before memory is freed (epochs; RCU,
//! <https://www.kernel.org/doc/html/latest/RCU/whatisRCU.html>). What waits for its turn may ask for a record of a lower
//! position that had not been delivered yet when it was completed; asked for one that had been, it waits for nothing. So
//! when all is delivered that had been claimed when the head stood at some position, then nobody asks for what stands below
//! that position any more.

use super::Partition;
use crate::message::Position;
use crate::time::Micros;

/// One step lets go of so many records, dead letters and outputs at most, each: so that no other step waits for long.
pub const TRIM_MOST: u64 = 1_000;

/// How much of one kind stays. What is over either limit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Limit {
    /// So many at most.
    pub count: Option<u64>,
    /// For so long, in microseconds.
    pub age_us: Option<u64>,
}

/// How much stays. Outputs that were not received yet are lost to their consumer when they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Keep {
    /// Of the records that are delivered, by when they were. The others stay in any case.
    pub records: Limit,
    /// Of the dead letters, by when they died. Those at which the line is halted stay in any case.
    pub dead: Limit,
    /// Of the outputs that were not received yet, by when they were delivered.
    pub outputs: Limit,
}

impl Limit {
    /// All of them.
    pub const NONE: Self = Self {
        count: None,
        age_us: None,
    };

    /// The last so many.
    pub const fn last(count: u64) -> Self {
        Self {
            count: Some(count),
            age_us: None,
        }
    }

    /// Whether anything ever goes.
    pub fn is_set(&self) -> bool {
        *self != Self::NONE
    }

    /// Whether the oldest of `count` goes, which is there since `since`.
    pub fn is_over(&self, count: u64, since: Micros, now: Micros) -> bool {
        self.count.is_some_and(|most| count > most) || self.age_us.is_some_and(|age| now.since(since) >= age)
    }
}

impl Keep {
    /// Everything stays.
    pub const ALL: Self = Self {
        records: Limit::NONE,
        dead: Limit::NONE,
        outputs: Limit::NONE,
    };

    /// The same where the system of record is another one, and the store's only serves to know a resend at once. Dead letters
    /// are in the store alone.
    #[must_use]
    pub const fn beside_a_record(self) -> Self {
        Self {
            records: Limit::last(100_000),
            ..self
        }
    }

    /// Whether anything ever goes.
    pub fn is_set(&self) -> bool {
        *self != Self::ALL
    }

    /// All limits, as a store writes them down: count and age of records, dead letters and outputs.
    pub fn numbers(&self) -> [Option<u64>; 6] {
        let Self { records, dead, outputs } = self;
        [
            records.count,
            records.age_us,
            dead.count,
            dead.age_us,
            outputs.count,
            outputs.age_us,
        ]
    }

    /// As a store writes it down.
    pub fn to_text(&self) -> String {
        self.numbers()
            .map(|number| number.map_or_else(|| "-".to_owned(), |number| number.to_string()))
            .join(" ")
    }

    /// Reads what [`Keep::to_text`] wrote; nothing, where it is something else.
    pub fn of_text(text: &str) -> Option<Self> {
        let numbers: Vec<Option<u64>> = text
            .split(' ')
            .map(|word| match word {
                "-" => Some(None),
                word => word.parse().ok().map(Some),
            })
            .collect::<Option<_>>()?;
        let limit = |at: usize| Limit {
            count: numbers[at],
            age_us: numbers[at + 1],
        };
        (numbers.len() == 6).then(|| Self {
            records: limit(0),
            dead: limit(2),
            outputs: limit(4),
        })
    }
}

/// Since when the oldest of each kind is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Oldest {
    /// When the oldest record that is delivered was.
    pub record: Option<Micros>,
    /// When the oldest dead letter died.
    pub dead: Option<Micros>,
    /// When the oldest output was delivered.
    pub output: Option<Micros>,
}

/// How far the grace period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grace {
    /// Nobody asks for a record below this any more.
    pub safe: Position,
    /// The same will hold of this,
    pub below: Position,
    /// as soon as the head is here.
    pub until: Position,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            safe: Position::FIRST,
            below: Position::FIRST,
            until: Position::FIRST,
        }
    }
}

impl Grace {
    /// Goes on, where the head has come far enough. `next` is the lowest position not yet claimed.
    #[must_use]
    pub fn at(self, head: Position, next: Position) -> Self {
        if head < self.until {
            return self;
        }
        Self {
            // Nothing is claimed: nobody asks for anything.
            safe: if head == next { head } else { self.below },
            below: head,
            until: next,
        }
    }
}

impl Partition {
    /// Lets go of what is over, as much as goes into one step. Whether there is more.
    pub fn trim(&mut self, now: Micros, keep: &Keep) -> bool {
        self.keep = Some(*keep);
        if keep.records.is_set() {
            self.grace = self.grace.at(self.head, self.next);
        }
        let trimmed = [
            Self::trim_one(self, Self::forget_record, now, keep),
            Self::trim_one(self, Self::forget_dead_letter, now, keep),
            Self::trim_one(self, Self::forget_output, now, keep),
        ];
        trimmed.contains(&true)
    }

    /// Lets go of the oldest of a kind, one after the other. Whether there is more.
    fn trim_one(
        partition: &mut Self,
        forget: impl Fn(&mut Self, Micros, &Keep, bool) -> bool,
        now: Micros,
        keep: &Keep,
    ) -> bool {
        let mut gone = 0;
        while gone < TRIM_MOST && forget(partition, now, keep, true) {
            gone += 1;
        }
        forget(partition, now, keep, false)
    }

    /// Lets go of the oldest record, if it is over, or only looks. Whether it is.
    fn forget_record(&mut self, now: Micros, keep: &Keep, really: bool) -> bool {
        let count = self.delivered.len() as u64;
        let is_over = self.delivered.front().is_some_and(|(position, since, _)| {
            *position < self.grace.safe && keep.records.is_over(count, *since, now)
        });
        if is_over
            && really
            && let Some((_, _, id)) = self.delivered.pop_front()
        {
            self.records.remove(&id);
        }
        is_over
    }

    fn forget_dead_letter(&mut self, now: Micros, keep: &Keep, really: bool) -> bool {
        let count = self.dead.len() as u64;
        // At the others the line is halted: what becomes of them a person says, and nobody else.
        let mut letters = self.dead.iter().enumerate();
        let Some((index, oldest)) = letters.find(|(_, letter)| letter.open.is_none()) else {
            return false;
        };
        let is_over = keep.dead.is_over(count, oldest.died, now);
        if is_over && really {
            self.dead.remove(index);
        }
        is_over
    }

    fn forget_output(&mut self, now: Micros, keep: &Keep, really: bool) -> bool {
        let count = self.outputs.len() as u64;
        let is_over = (self.outputs.front()).is_some_and(|(_, since, _)| keep.outputs.is_over(count, *since, now));
        if is_over && really {
            self.outputs.pop_front();
        }
        is_over
    }

    /// Since when the oldest of each kind is there.
    pub(super) fn oldest(&self) -> Oldest {
        Oldest {
            record: self.delivered.front().map(|(_, since, _)| *since),
            dead: self.dead.front().map(|letter| letter.died),
            output: self.outputs.front().map(|(_, since, _)| *since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_either_limit_goes() {
        let (since, now) = (Micros(10), Micros(15));
        let limit = |count, age_us| Limit { count, age_us };
        assert!(!Limit::NONE.is_over(u64::MAX, since, now));
        assert!(!limit(Some(3), Some(6)).is_over(3, since, now));
        assert!(limit(Some(3), None).is_over(4, since, now));
        assert!(limit(None, Some(5)).is_over(1, since, now));
        assert!(
            !limit(None, Some(5)).is_over(1, now, since),
            "a clock that was set back"
        );
        assert!(limit(Some(0), None).is_over(1, now, now) && limit(None, Some(0)).is_over(1, now, now));
    }

    #[test]
    fn what_a_store_wrote_down_is_read_again() {
        let mut keep = Keep::ALL;
        for (count, age_us) in [(None, None), (Some(0), Some(u64::MAX)), (Some(7), None)] {
            keep.dead = Limit { count, age_us };
            keep.outputs.age_us = count;
            assert_eq!(Keep::of_text(&keep.to_text()), Some(keep));
        }
        for bad in ["", "- - - - -", "- - - - - - -", "- - - - - x", "1,2"] {
            assert_eq!(Keep::of_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_grace_lasts_until_all_is_delivered_that_was_claimed() {
        let at = |grace: Grace, head, next| grace.at(Position(head), Position(next));
        let begun = at(Grace::default(), 5, 9);
        assert_eq!(begun.safe, Position(1), "what waits may ask for those below 5");
        assert_eq!(at(begun, 8, 30), begun, "position 8 may still ask");
        let over = at(begun, 9, 30);
        assert_eq!((over.safe, over.until), (Position(5), Position(30)));
        assert_eq!(at(over, 30, 30).safe, Position(30), "nothing is claimed");
    }
}
