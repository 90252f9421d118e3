//! How a lease ends.

use conga_core::lease::Held;
use conga_core::message::{Body, Format, Payload, Record, parse};
use conga_core::partition::{Claim, Completion, OnDead};

#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Done,
    Dead { on_dead: OnDead },
    Retry { delay_us: u32 },
}

/// The end of a lease: only ids that begin with `d` may die.
pub(crate) fn completion(claim: &Claim, ending: &Ending) -> Completion {
    let input = parse(&claim.entry, claim.position, Format::Any, u64::MAX).expect("an envelope");
    let mut record = Record {
        position: claim.position,
        id: input.id,
        sequence: input.sequence,
        key: input.key,
        // Which of two attempts or twins it was can be told from the result.
        body: Body::Result(Payload::string(&format!("{}/{}", claim.position, claim.attempt))),
        attempts: claim.attempt,
        created: claim.claimed,
        processing: claim.claimed,
    };
    match ending {
        Ending::Retry { delay_us } => Completion::Retry {
            held: Held {
                position: claim.position,
                attempt: claim.attempt,
            },
            delay_us: u64::from(*delay_us),
        },
        Ending::Dead { on_dead } if record.id.as_str().starts_with('d') => {
            record.body = Body::Dead {
                reason: "planted".to_owned(),
            };
            Completion::Dead {
                tombstone: record,
                on_dead: *on_dead,
            }
        }
        Ending::Done | Ending::Dead { .. } => Completion::Done(record),
    }
}
