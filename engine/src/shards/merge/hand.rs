//! How a partition is read: how much at once, and what of it is only looked through.

use std::sync::Arc;

use bytes::Bytes;
use conga_core::merge::{Merge, Room};
use conga_core::message::Position;
use tokio::sync::Notify;

use super::MergerOptions;
use crate::fits::Portions;

/// So many bytes of a partition are kept.
const KEPT_BYTES: usize = 64 << 20;

/// What a partition is asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Question {
    /// So many were in hand.
    pub(super) held: usize,
    pub(super) acknowledge: Option<Position>,
    pub(super) skip: usize,
    pub(super) max: usize,
    /// Whether what comes is not taken in hand.
    pub(super) glimpses: bool,
}

/// What is known of a partition besides what the rules know.
#[derive(Debug, Default)]
pub(super) struct Hand {
    pub(super) question: Question,
    /// Told when there is room again, or much to be acknowledged.
    pub(super) nudge: Arc<Notify>,
    /// Of what comes after all that can be in hand: how much was looked through for the number that is missing.
    glimpsed: Glimpsed,
}

#[derive(Debug, Clone, Copy, Default)]
struct Glimpsed {
    /// Which.
    head: Option<Position>,
    count: usize,
    last: Option<Position>,
}

impl Hand {
    /// What to ask for next, if anything; nothing at all, if what is in hand has to be read anew.
    pub(super) fn ask(
        &mut self,
        machine: &Merge<Bytes>,
        partition: usize,
        portions: &Portions,
        options: &MergerOptions,
    ) -> Option<Question> {
        let (held, done) = (machine.held(partition), machine.acknowledge(partition));
        // What has its turn and was not kept is read anew, after what is merged is acknowledged.
        let again = machine.again() == Some(partition);
        if again && done.is_none() {
            return None;
        }
        if self.glimpsed.head != Some(machine.head()) {
            self.glimpsed = Glimpsed {
                head: Some(machine.head()),
                ..Glimpsed::default()
            };
        }
        let is_sought = machine.is_sought_in(partition);
        let room = options.window.saturating_sub(held);
        let bytes = KEPT_BYTES.saturating_sub(machine.bytes(partition));
        let max = if again {
            0
        } else if is_sought {
            portions.count()
        } else if bytes == 0 {
            0
        } else {
            room.min(portions.within(bytes as u64))
        };
        let glimpses = is_sought && held >= options.places.max(options.window);
        let beyond = if glimpses { self.glimpsed.count } else { 0 };
        self.question = Question {
            held,
            acknowledge: done.map(|(position, _)| position),
            skip: held - done.map_or(0, |(_, count)| count) + beyond,
            max,
            glimpses,
        };
        Some(self.question)
    }

    /// How much of it may be kept.
    pub(super) fn room(options: &MergerOptions) -> Room {
        Room {
            count: options.window,
            bytes: KEPT_BYTES,
        }
    }

    /// The last output that was read for the number that is missing.
    pub(super) fn last(&self, machine: &Merge<Bytes>, partition: usize) -> Option<Position> {
        let glimpsed = self
            .glimpsed
            .last
            .filter(|_| self.glimpsed.head == Some(machine.head()));
        glimpsed.max(machine.last(partition))
    }

    /// So many came, up to there.
    pub(super) fn came(&mut self, count: usize, last: Option<Position>) {
        let glimpsed = &mut self.glimpsed;
        if self.question.glimpses {
            glimpsed.count += count;
            glimpsed.last = last.or(glimpsed.last);
        } else {
            glimpsed.count = glimpsed.count.saturating_sub(count);
        }
    }

    /// It is read anew.
    pub(super) fn lose(&mut self) {
        self.glimpsed = Glimpsed::default();
    }

    /// Wakes who waits to read where much can be acknowledged by now.
    pub(super) fn nudge(&self, machine: &Merge<Bytes>, partition: usize, window: usize) {
        let held = machine.held(partition);
        let is_much = || (machine.acknowledge(partition)).is_some_and(|(_, count)| count >= (window / 2).max(1));
        if held >= window && is_much() {
            self.nudge.notify_one();
        }
    }
}
