//! What is sent.

use proptest::prelude::*;

/// Numbers about in order: some fail, some come twice, some late, and some never.
pub(crate) fn script() -> impl Strategy<Value = Vec<(u64, bool)>> {
    let message = (0..8_u64, 0..10_u8, any::<bool>());
    prop::collection::vec(message, 0..90).prop_map(|messages| {
        let mut script: Vec<(u64, u64, bool)> = Vec::new();
        for ((shift, kind, fails), number) in messages.into_iter().zip(1..) {
            match kind {
                0 => {}
                1 => {
                    script.push((number + shift, number, false));
                    script.push((number + 2 * shift, number, fails));
                }
                2 => script.push((number, number, true)),
                3 => script.push((number + 40 * shift, number, false)),
                _ => script.push((number + shift / 3, number, false)),
            }
        }
        script.sort_by_key(|(when, ..)| *when);
        script.into_iter().map(|(_, number, fails)| (number, fails)).collect()
    })
}
