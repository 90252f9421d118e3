//! What can happen next.

use proptest::prelude::*;

use crate::PARTITIONS;

/// What one step of a merge became.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    Answered,
    /// It was done, and nobody heard of it.
    Unheard,
    Dropped,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Send(usize),
    Process(usize),
    Campaign(usize),
    Read(usize, usize, usize),
    Merge(usize, Fate),
    Prove(usize),
    Crash(usize),
    Pass(u64),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let merger = 0..2_usize;
    let partition = 0..PARTITIONS;
    prop_oneof![
        3 => (1..3_usize).prop_map(Op::Send),
        4 => partition.clone().prop_map(Op::Process),
        3 => merger.clone().prop_map(Op::Campaign),
        6 => (merger.clone(), partition, 1..5_usize).prop_map(|(who, partition, max)| Op::Read(who, partition, max)),
        6 => (merger.clone(), prop_oneof![5 => Just(Fate::Answered), 2 => Just(Fate::Unheard), 1 => Just(Fate::Dropped)])
            .prop_map(|(who, fate)| Op::Merge(who, fate)),
        3 => merger.clone().prop_map(Op::Prove),
        1 => merger.prop_map(Op::Crash),
        4 => (0..1_500_u64).prop_map(Op::Pass),
    ]
}
