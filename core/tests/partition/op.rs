//! What may happen next in a random history.

use conga_core::partition::{OnDead, Verdict};
use proptest::prelude::*;

use crate::ending::Ending;

#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// New messages, or one that was sent before.
    Send {
        count: u8,
        again: bool,
    },
    Claim {
        owner: u8,
        max: u8,
        window: u8,
    },
    /// Ends something that the owner has, or once had; with `forget` it is not asked for a second time.
    Complete {
        owner: u8,
        pick: u8,
        ending: Ending,
        forget: bool,
    },
    /// Says what becomes of a dead letter: of one at which the line is halted, if there is one.
    Judge {
        verdict: Verdict,
        pick: u8,
    },
    Renew {
        owner: u8,
        compare: bool,
    },
    Leave {
        owner: u8,
    },
    Campaign {
        leader: u8,
    },
    Resign {
        leader: u8,
    },
    Follow {
        leader: u8,
    },
    /// Carries out the leader's last wish; with `lost` the reply is lost and it asks again.
    Emit {
        leader: u8,
        lost: bool,
    },
    Receive {
        max: u8,
        acknowledge: bool,
    },
    Advance {
        us: u32,
    },
    SetBack {
        us: u32,
    },
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_u8..5, prop::bool::weighted(0.2)).prop_map(|(count, again)| Op::Send { count, again }),
        6 => (0_u8..3, 1_u8..6, prop_oneof![4 => Just(8_u8), 1 => 1_u8..8])
            .prop_map(|(owner, max, window)| Op::Claim { owner, max, window }),
        12 => (0_u8..3, any::<u8>(), ending(), any::<bool>())
            .prop_map(|(owner, pick, ending, forget)| Op::Complete { owner, pick, ending, forget }),
        3 => (prop_oneof![Just(Verdict::Retry), Just(Verdict::Skip), Just(Verdict::Mark), Just(Verdict::Purge)], any::<u8>())
            .prop_map(|(verdict, pick)| Op::Judge { verdict, pick }),
        3 => (0_u8..3, any::<bool>()).prop_map(|(owner, compare)| Op::Renew { owner, compare }),
        1 => (0_u8..3).prop_map(|owner| Op::Leave { owner }),
        4 => (0_u8..2).prop_map(|leader| Op::Campaign { leader }),
        1 => (0_u8..2).prop_map(|leader| Op::Resign { leader }),
        6 => (0_u8..2).prop_map(|leader| Op::Follow { leader }),
        6 => (0_u8..2, any::<bool>()).prop_map(|(leader, lost)| Op::Emit { leader, lost }),
        2 => (0_u8..9, any::<bool>()).prop_map(|(max, acknowledge)| Op::Receive { max, acknowledge }),
        4 => prop_oneof![Just(1_u32), 1_u32..400_000, Just(1_000_000)].prop_map(|us| Op::Advance { us }),
        1 => prop_oneof![1_u32..400_000, 1_000_000_u32..10_000_000].prop_map(|us| Op::SetBack { us }),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        5 => Just(Ending::Done),
        1 => prop_oneof![Just(OnDead::Mark), Just(OnDead::Skip), Just(OnDead::Halt)]
            .prop_map(|on_dead| Ending::Dead { on_dead }),
        1 => prop_oneof![Just(0), 1_u32..600_000].prop_map(|delay_us| Ending::Retry { delay_us }),
    ]
}
