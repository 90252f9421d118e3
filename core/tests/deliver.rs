//! Delivery by the store: whatever is done in whichever order, what stands without a gap is out, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::message::{Body, Id, Output, Payload, Position, Record};
use conga_core::partition::{
    Claim, ClaimRequest, Completion, Cursor, EmitRequest, Limits, OnDead, Partition, Ready, ReceiveRequest,
};
use conga_core::time::Micros;
use proptest::prelude::*;

const NOW: Micros = Micros(1_000_000_000_000);
/// Few enough for some to be the same.
const IDS: u8 = 12;

/// How a message ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// With a result; another message may have the same id.
    Done { id: u8 },
    /// In failure for good, under an id of its own.
    Dead { deliver: bool },
}

/// Who delivers after a step.
#[derive(Debug, Clone, Copy)]
enum Who {
    Store,
    Leader,
    Nobody,
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => (0..IDS).prop_map(|id| Ending::Done { id }),
        1 => any::<bool>().prop_map(|deliver| Ending::Dead { deliver }),
    ]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Who::Store), Just(Who::Leader), Just(Who::Nobody)]
}

/// Messages, and the order in which they are done.
fn messages() -> impl Strategy<Value = (Vec<Ending>, Vec<usize>)> {
    prop::collection::vec(ending(), 1..24).prop_flat_map(|endings| {
        let order: Vec<_> = (0..endings.len()).collect();
        (Just(endings), Just(order).prop_shuffle())
    })
}

/// A partition with all of the messages leased to one owner.
fn leased(endings: &[Ending]) -> (Partition, Vec<Claim>) {
    let mut partition = Partition::default();
    let entries: Vec<Bytes> = endings.iter().map(|_| Bytes::from_static(b"{}")).collect();
    partition.send(&entries);
    let claims = partition.claim(
        NOW,
        &ClaimRequest {
            owner: owner(),
            max: endings.len(),
            lease_us: 1_000_000,
            window: endings.len() as u64,
            below: None,
            limits: Limits::default(),
        },
    );
    (partition, claims)
}

fn owner() -> OwnerId {
    OwnerId::new("p")
}

fn completion(claim: &Claim, ending: Ending) -> Completion {
    let record = |id: String, body| Record {
        position: claim.position,
        id: Id::given(id),
        sequence: None,
        key: None,
        body,
        attempts: claim.attempt,
        created: NOW,
        processing: NOW,
    };
    match ending {
        Ending::Done { id } => Completion::Done(record(
            format!("id-{id}"),
            Body::Result(Payload::string(&claim.position.to_string())),
        )),
        Ending::Dead { deliver } => {
            let reason = "planted".to_owned();
            let tombstone = record(format!("dead-{}", claim.position), Body::Dead { reason });
            let on_dead = if deliver { OnDead::Mark } else { OnDead::Skip };
            Completion::Dead { tombstone, on_dead }
        }
    }
}

/// Emits all that a leader finds ready, at most `batch` at once.
fn lead(partition: &mut Partition, batch: usize) {
    loop {
        let followed = partition.follow(NOW, Cursor::default(), usize::MAX);
        let waiting: BTreeMap<_, _> = followed
            .entries
            .into_iter()
            .map(|processed| (processed.position, processed))
            .collect();
        let ready = (followed.head.0..).map_while(|at| waiting.get(&Position(at)));
        let entries: Vec<_> = ready
            .take(batch)
            .map(|processed| Ready {
                processed: processed.clone(),
                sequencing: NOW,
            })
            .collect();
        if entries.is_empty() {
            return;
        }
        let head = followed.head;
        let term = partition.status(NOW).term;
        partition.emit(NOW, &EmitRequest { term, head, entries });
    }
}

fn outputs(partition: &mut Partition) -> Vec<Bytes> {
    let all = ReceiveRequest {
        max: usize::MAX,
        ..ReceiveRequest::default()
    };
    partition.receive(&all).outputs()
}

fn positions(outputs: &[Bytes]) -> Vec<Position> {
    let position = |output| Output::parse(output).expect("an output").record.position;
    outputs.iter().map(position).collect()
}

/// What comes out below `head`: each id once, in the place in which it came first.
fn expected(endings: &[Ending], head: u64) -> Vec<Position> {
    let mut ids = BTreeSet::new();
    (1..head)
        .zip(endings)
        .filter(|(_, ending)| match ending {
            Ending::Done { id } => ids.insert(*id),
            Ending::Dead { deliver } => *deliver,
        })
        .map(|(position, _)| Position(position))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// After each step the head is at the first that is not done, and what stands before it is out.
    #[test]
    fn what_stands_without_a_gap_is_out((endings, order) in messages(), batch in 1_usize..6) {
        let (mut partition, claims) = leased(&endings);
        let mut done: BTreeSet<usize> = BTreeSet::new();
        for batch in order.chunks(batch) {
            let completions: Vec<_> = batch.iter().map(|at| completion(&claims[*at], endings[*at])).collect();
            partition.complete(NOW, &owner(), &completions);
            done.extend(batch);
            let before = partition.status(NOW).head.0;
            let head = (0..=endings.len()).find(|at| !done.contains(at)).unwrap_or_default() as u64 + 1;
            prop_assert_eq!(partition.deliver_ready(NOW), head > before);
            let status = partition.status(NOW);
            prop_assert_eq!((status.head.0, status.processed), (head, done.len() as u64 - (head - 1)));
            prop_assert_eq!(positions(&outputs(&mut partition)), expected(&endings, head));
            let once = partition.clone();
            prop_assert!(!partition.deliver_ready(NOW));
            prop_assert_eq!(&partition, &once);
        }
        prop_assert_eq!(partition.status(NOW).head.0, endings.len() as u64 + 1);
    }

    /// Whoever delivers, and however they take turns, the same comes out.
    #[test]
    fn whoever_delivers_the_same_comes_out(
        (endings, order) in messages(),
        turns in prop::collection::vec((who(), 1_usize..4), 24),
    ) {
        let (mut partition, claims) = leased(&endings);
        for (at, (who, batch)) in order.into_iter().zip(turns) {
            partition.complete(NOW, &owner(), &[completion(&claims[at], endings[at])]);
            match who {
                Who::Store => {
                    partition.deliver_ready(NOW);
                }
                Who::Leader => lead(&mut partition, batch),
                Who::Nobody => {}
            }
        }
        let (mut led, mut left) = (partition.clone(), partition);
        left.deliver_ready(NOW);
        lead(&mut led, 3);
        prop_assert_eq!(&led, &left);
        prop_assert_eq!(positions(&outputs(&mut left)), expected(&endings, endings.len() as u64 + 1));
    }
}

/// What has not had its lease's end is not delivered, whatever waits behind it.
#[test]
fn nothing_goes_past_a_message_that_is_not_done() {
    let endings: Vec<_> = (0..4).map(|id| Ending::Done { id }).collect();
    let (mut partition, claims) = leased(&endings);
    assert!(!Partition::default().deliver_ready(NOW));
    let rest: Vec<_> = (1..4).map(|at| completion(&claims[at], endings[at])).collect();
    partition.complete(NOW, &owner(), &rest);
    let stands = |partition: &Partition| {
        let mut after = partition.clone();
        assert!(!after.deliver_ready(NOW));
        assert_eq!(after, *partition);
    };
    stands(&partition);
    let held = completion(&claims[0], endings[0]).held();
    let mut delayed = partition.clone();
    let retry = Completion::Retry { held, delay_us: 1_000 };
    delayed.complete(NOW, &owner(), &[retry]);
    stands(&delayed);
    let retry = Completion::Retry { held, delay_us: 0 };
    partition.complete(NOW, &owner(), &[retry]);
    stands(&partition);
}
