//! The merge over real partitions: whoever dies between any two steps, whatever answer is lost, each number comes out once, in
//! its order, and none is given up that had come in time.

use conga_core::message::Position;
use conga_core::partition::{MergeRequest, Merged, Partition, Piece};
use conga_core::term::Term;
use conga_core::time::Micros;
use proptest::prelude::*;

mod merger;
mod op;
mod output;
mod script;
mod world;

use op::op;
use output::processed;
use script::script;
use world::World;

const LOCK_US: u64 = 20_000;
const PARTITIONS: usize = 3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_number_comes_out_once_and_in_order(
        script in script(),
        ops in prop::collection::vec(op(), 0..400),
        gives_up: bool,
        deliver_dead: bool,
    ) {
        let mut world = World::new(script, gives_up, deliver_dead);
        for op in &ops {
            world.act(op);
        }
        world.heal();
        world.judge();
    }
}

#[test]
fn a_merge_counts_only_at_the_base_of_a_merged_line() {
    let request = MergeRequest {
        term: Term(0),
        head: Position(1),
        late: Vec::new(),
        pieces: vec![Piece::Result(processed(Position(1)))],
        is_missing: false,
        give_up: None,
    };
    let mut partition = Partition::default();
    assert_eq!(
        partition.merge(Micros(1), &request),
        Merged::Moved { head: Position(1) }
    );
    partition.shape(Some("key/3".parse().expect("a shape")));
    assert_eq!(
        partition.merge(Micros(1), &request),
        Merged::Moved { head: Position(1) }
    );
    assert_eq!(partition.status(Micros(1)).output, 0);
}
