//! What must hold of what came out.

use std::collections::BTreeSet;

use conga_core::message::Output;
use conga_core::partition::{ReceiveRequest, Shelf};

use super::World;

impl World {
    /// Each number once and in order; what was given up is a dead letter if it came, and nothing else is.
    pub(crate) fn judge(&mut self) {
        let outputs = self.base.receive(&ReceiveRequest {
            max: usize::MAX,
            ..ReceiveRequest::default()
        });
        let outputs: Vec<_> = outputs.outputs();
        let positions: Vec<u64> = outputs
            .iter()
            .map(|output| Output::parse(output).expect("an output").record.position.0)
            .collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        let head = self.base.status(self.now).head.0;
        let last = self.came.keys().next_back().copied().unwrap_or(0);
        let first_gap = (1..=last + 1)
            .find(|number| !self.came.contains_key(number))
            .expect("one");
        let should = if self.gives_up { last + 1 } else { first_gap };
        assert_eq!(head, should, "all went out that could; {:?}", self.mergers[0].machine);
        for number in 1..head {
            let is_there = positions.binary_search(&number).is_ok();
            let may_be_left_out = !self.deliver_dead && self.failed.contains(&number);
            assert!(is_there || may_be_left_out, "{number} is not there");
        }
        let letters = self.base.browse(Shelf::Dead).rows;
        let dead: BTreeSet<u64> = letters
            .iter()
            .map(|row| row.id.as_str().parse().expect("a number"))
            .collect();
        assert_eq!(dead.len(), letters.len(), "each is buried once");
        for number in &self.given_up {
            let has_result = self.script.iter().any(|(sent, fails)| sent == number && !fails);
            assert_eq!(dead.contains(number), has_result, "{number} came late");
        }
        for number in &dead {
            assert!(
                self.given_up.contains(number) || self.failed.contains(number),
                "{number} is no dead letter"
            );
        }
        let left = self.parts.iter().map(|part| part.status(self.now).output).sum::<u64>();
        assert!(left == 0 || !self.gives_up, "{left} outputs are not acknowledged");
    }
}
