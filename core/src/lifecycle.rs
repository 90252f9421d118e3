//! The states of a message and the legal moves between them.

/// Where a message is. It is in exactly one of these at any time (G2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// In the input, not yet claimed; or claimed once and free again.
    Waiting,
    /// Passed over by a claim, because an earlier message of its key is not done yet.
    Parked,
    /// Failed for now: waits for its next attempt to be due.
    Delayed,
    /// Held by a processor.
    Leased,
    /// Its result is recorded and waits for its turn.
    Processed,
    /// Failed for good, and the line is to stop at it: it waits for a person to say what becomes of it.
    Halted,
    /// Failed for good; its tombstone waits for its turn.
    Dead,
    /// Written to the output (or, as a duplicate or a skipped dead letter, passed over). Where not all messages keep their
    /// order, it may still stand beyond the head.
    Delivered,
}

impl State {
    /// All states, in the order in which a message meets them.
    pub const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Parked,
        Self::Delayed,
        Self::Leased,
        Self::Processed,
        Self::Halted,
        Self::Dead,
        Self::Delivered,
    ];

    /// Whether the one step from here to `next` is legal.
    pub fn may_become(self, next: Self) -> bool {
        use State::{Dead, Delayed, Delivered, Halted, Leased, Parked, Processed, Waiting};
        matches!(
            (self, next),
            // claimed
            // claimed; behind another of its key
            (Waiting, Leased | Parked)
                // and no longer behind it; due again
                | (Parked | Delayed, Waiting)
                // completed; failed for good; failed for now; its owner is gone
                | (Leased, Processed | Dead | Halted | Delayed | Waiting)
                // a person has it tried again, or given up
                | (Halted, Waiting | Dead)
                // its turn came
                | (Processed | Dead, Delivered)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_delivered_and_nothing_skips_the_lease() {
        for next in State::ALL {
            assert!(!State::Delivered.may_become(next));
            assert_eq!(
                State::Waiting.may_become(next),
                matches!(next, State::Leased | State::Parked)
            );
            assert_eq!(State::Parked.may_become(next), next == State::Waiting);
            assert_eq!(
                State::Halted.may_become(next),
                matches!(next, State::Waiting | State::Dead),
                "only a person's word moves it"
            );
        }
    }

    #[test]
    fn every_state_but_the_last_has_a_way_to_the_end() {
        for start in State::ALL {
            let mut reached = vec![start];
            while let Some(next) = State::ALL
                .into_iter()
                .find(|next| !reached.contains(next) && reached.iter().any(|from| from.may_become(*next)))
            {
                reached.push(next);
            }
            assert!(reached.contains(&State::Delivered), "{start:?} is a trap");
        }
    }
}
