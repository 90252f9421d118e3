//! Merge (law 3): the base of a merged line takes what came out of the partitions, in the order of the sequences.

use conga::core::lease::Attempt;
use conga::core::message::{Body, Id, Payload, Position, Record, write_open};
use conga::core::partition::{GIVE_UP_MOST, GiveUp, Late, MergeRequest, Merged, Piece, Shelf};
use conga::core::shape::Shape;
use conga::core::term::Term;
use conga::core::time::Micros;

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, START};

/// The base of a line in three partitions, and its leader's term.
async fn base<F: Fixture>() -> (Pair, Term) {
    let pair = Pair::open::<F>().await;
    pair.shape(Some("total/3".parse().expect("a shape"))).await;
    let term = pair.elect("s").await;
    (pair, term)
}

fn open(number: u64) -> String {
    write_open(&Record {
        position: Position(number),
        id: Id::given(number.to_string()),
        sequence: Some(number),
        key: None,
        body: Body::Result(Payload::string("r\u{e9}sult \"100 %\"")),
        attempts: Attempt(1),
        created: START,
        processing: START,
    })
}

fn processed(number: u64) -> String {
    format!("{},\"processed\":\"{START}\"", open(number))
}

fn results(numbers: impl IntoIterator<Item = u64>) -> Vec<Piece> {
    numbers
        .into_iter()
        .map(|number| Piece::Result(processed(number)))
        .collect()
}

fn ask(term: Term, head: u64) -> MergeRequest {
    MergeRequest {
        term,
        head: Position(head),
        late: Vec::new(),
        pieces: Vec::new(),
        is_missing: false,
        give_up: None,
    }
}

/// With what has its turn; after it something is missing or not.
fn put(term: Term, head: u64, pieces: Vec<Piece>, is_missing: bool) -> MergeRequest {
    MergeRequest {
        pieces,
        is_missing,
        ..ask(term, head)
    }
}

fn give_up(term: Term, head: u64, after_us: u64, tombstones: Vec<String>) -> MergeRequest {
    MergeRequest {
        is_missing: true,
        give_up: Some(GiveUp { after_us, tombstones }),
        ..ask(term, head)
    }
}

fn late(term: Term, head: u64, numbers: &[u64]) -> MergeRequest {
    let late = numbers.iter().map(|number| Late {
        position: Position(*number),
        reason: format!("{number} came \"late\""),
        output: format!("{}}}", processed(*number)),
    });
    MergeRequest {
        late: late.collect(),
        ..ask(term, head)
    }
}

fn advanced(pair: &Pair, head: u64, missing: Option<Micros>) -> Merged {
    Merged::Advanced {
        now: pair.now(),
        head: Position(head),
        missing,
    }
}

async fn places(pair: &Pair) -> Vec<u64> {
    pair.outputs().await.into_iter().map(|(position, _)| position).collect()
}

pub(crate) async fn what_has_its_turn_comes_out<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    let pieces = vec![
        Piece::Result(processed(1)),
        Piece::Nothing,
        Piece::Tombstone(processed(3)),
    ];
    assert_eq!(pair.merge(&put(term, 1, pieces, false)).await, advanced(&pair, 4, None));
    pair.advance(3);
    assert_eq!(
        pair.merge(&put(term, 4, results(4..6), true)).await,
        advanced(&pair, 6, Some(pair.now()))
    );
    assert_eq!(places(&pair).await, [1, 3, 4, 5]);
    let status = pair.status().await;
    assert_eq!(
        (status.head, status.next, status.waiting),
        (Position(6), Position(6), 0)
    );
    pair.receive(Some(3), 10).await;
    assert_eq!(places(&pair).await, [4, 5]);
    pair.finish().await;
}

pub(crate) async fn said_twice_it_counts_once<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    let once = put(term, 1, results(1..3), false);
    pair.merge(&once).await;
    pair.advance(5);
    assert_eq!(pair.merge(&once).await, Merged::Moved { head: Position(3) });
    pair.merge(&put(term, 3, Vec::new(), true)).await;
    pair.advance(5);
    pair.merge(&put(term, 3, Vec::new(), true)).await;
    let up = give_up(term, 3, 10, vec![open(3)]);
    pair.advance(5);
    pair.merge(&up).await;
    assert_eq!(pair.merge(&up).await, Merged::Moved { head: Position(4) });
    assert_eq!(places(&pair).await, [1, 2, 3]);
    pair.finish().await;
}

pub(crate) async fn a_wrong_head_moves<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    for head in [0, 2, 9] {
        let wrong = pair.merge(&put(term, head, results(head..head + 1), true)).await;
        assert_eq!(wrong, Merged::Moved { head: Position(1) });
    }
    assert_eq!(pair.merge(&ask(term, 1)).await, advanced(&pair, 1, None));
    pair.finish().await;
}

pub(crate) async fn another_line_is_no_base<F: Fixture>() {
    for shape in [None, Some("total"), Some("key/3"), Some("none/2")] {
        let pair = Pair::open::<F>().await;
        if let Some(shape) = shape {
            pair.shape(Some(shape.parse::<Shape>().expect("a shape"))).await;
        }
        let term = pair.elect("s").await;
        let moved = pair.merge(&put(term, 1, results(1..2), true)).await;
        assert_eq!(moved, Merged::Moved { head: Position(1) });
        pair.finish().await;
    }
}

pub(crate) async fn an_old_term_is_fenced<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    pair.merge(&put(term, 1, results(1..2), true)).await;
    pair.advance(LEASE_US);
    let latest = pair.elect("t").await;
    for old in [put(term, 2, results(2..3), false), give_up(term, 2, 1, vec![open(2)])] {
        assert_eq!(pair.merge(&old).await, Merged::Fenced { term: latest });
    }
    assert_eq!(places(&pair).await, [1]);
    pair.finish().await;
}

pub(crate) async fn what_is_missing_is_given_up_when_it_is_time<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    let since = pair.now();
    let up = give_up(term, 1, 1_000, vec![open(1), String::new()]);
    assert_eq!(
        pair.merge(&up).await,
        advanced(&pair, 1, Some(since)),
        "it is only told now"
    );
    pair.advance(999);
    assert_eq!(pair.merge(&up).await, advanced(&pair, 1, Some(since)));
    pair.advance(1);
    let with_pieces = MergeRequest {
        pieces: results(1..2),
        ..give_up(term, 9, 0, vec![open(9)])
    };
    assert_eq!(pair.merge(&with_pieces).await, Merged::Moved { head: Position(1) });
    assert_eq!(
        pair.merge(&up).await,
        advanced(&pair, 3, Some(since)),
        "the next ones are missing as long"
    );
    let more = give_up(term, 3, 1_000, vec![open(3)]);
    assert_eq!(pair.merge(&more).await, advanced(&pair, 4, Some(since)));
    assert_eq!(places(&pair).await, [1, 3]);
    let many = (4..).take(GIVE_UP_MOST + 3).map(open).collect();
    let end = 4 + GIVE_UP_MOST as u64;
    assert_eq!(
        pair.merge(&give_up(term, 4, 0, many)).await,
        advanced(&pair, end, Some(since))
    );
    pair.finish().await;
}

pub(crate) async fn what_is_missing_later_is_missing_since_then<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    pair.merge(&put(term, 1, Vec::new(), true)).await;
    pair.advance(5);
    assert_eq!(
        pair.merge(&put(term, 1, results(1..2), true)).await,
        advanced(&pair, 2, Some(pair.now()))
    );
    pair.advance(5);
    let both = MergeRequest {
        pieces: results(2..3),
        ..give_up(term, 2, 0, vec![open(3)])
    };
    assert_eq!(
        pair.merge(&both).await,
        advanced(&pair, 3, Some(pair.now())),
        "nothing is given up with it"
    );
    pair.advance(5);
    assert_eq!(
        pair.merge(&put(term, 3, results(3..4), false)).await,
        advanced(&pair, 4, None)
    );
    let nothing_missing = MergeRequest {
        is_missing: false,
        ..give_up(term, 4, 0, vec![open(4)])
    };
    assert_eq!(pair.merge(&nothing_missing).await, advanced(&pair, 4, None));
    pair.finish().await;
}

pub(crate) async fn set_back_it_is_missing_since_now<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    pair.merge(&put(term, 1, Vec::new(), true)).await;
    pair.set_back(5_000);
    let up = give_up(term, 1, 1_000, vec![open(1)]);
    assert_eq!(pair.merge(&up).await, advanced(&pair, 1, Some(pair.now())));
    let since = pair.now();
    pair.advance(1_000);
    assert_eq!(pair.merge(&up).await, advanced(&pair, 2, Some(since)));
    pair.finish().await;
}

pub(crate) async fn what_comes_late_is_buried_once<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    let pieces = vec![
        Piece::Tombstone(processed(1)),
        Piece::Nothing,
        Piece::Result(processed(3)),
    ];
    pair.merge(&put(term, 1, pieces, true)).await;
    pair.advance(5);
    pair.merge(&give_up(term, 4, 5, vec![open(4)])).await;
    let all = late(term, 5, &[1, 2, 3, 4, 5, 1]);
    pair.merge(&all).await;
    pair.advance(5);
    pair.merge(&all).await;
    let letters = pair.browse(Shelf::Dead).await;
    let buried: Vec<_> = letters.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(buried, ["1", "2", "4"], "3 is there, and 5 is not passed");
    assert_eq!(pair.status().await.dead, 3);
    pair.dead(conga::core::partition::Verdict::Purge, &[2]).await;
    pair.finish().await;
}

pub(crate) async fn what_came_again_is_nothing<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    pair.merge(&put(term, 1, results(1..4), false)).await;
    pair.merge(&late(term, 4, &[1, 2, 3])).await;
    assert!(pair.browse(Shelf::Dead).await.is_empty());
    assert_eq!(places(&pair).await, [1, 2, 3]);
    pair.finish().await;
}

pub(crate) async fn a_thousand_at_once<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    let pieces = (1..=3_000).map(|number| match number % 3 {
        0 => Piece::Tombstone(processed(number)),
        1 => Piece::Result(processed(number)),
        _ => Piece::Nothing,
    });
    pair.merge(&put(term, 1, pieces.collect(), false)).await;
    pair.merge(&late(term, 3_001, &(1..=3_000).collect::<Vec<_>>())).await;
    assert_eq!(pair.status().await.dead, 2_000);
    assert_eq!(places(&pair).await.len(), 2_000);
    pair.finish().await;
}

pub(crate) async fn outputs_in_hand_are_passed_over<F: Fixture>() {
    let (pair, term) = base::<F>().await;
    pair.stand("c", LEASE_US).await;
    pair.merge(&put(term, 1, results(1..8), false)).await;
    let numbers = |outputs: Vec<bytes::Bytes>| -> Vec<u64> {
        outputs.iter().map(|output| crate::pair::place(output).0).collect()
    };
    assert_eq!(numbers(pair.receive_after(0, None, 3).await), [1, 2, 3]);
    assert_eq!(numbers(pair.receive_after(3, None, 2).await), [4, 5]);
    assert_eq!(
        numbers(pair.receive_after(3, Some(2), 2).await),
        [6, 7],
        "after what is acknowledged is gone"
    );
    assert_eq!(numbers(pair.receive_after(5, None, 2).await), [0; 0]);
    assert_eq!(numbers(pair.receive_after(9, None, 2).await), [0; 0]);
    assert_eq!(numbers(pair.receive_after(4, None, usize::MAX).await), [7]);
    pair.finish().await;
}
