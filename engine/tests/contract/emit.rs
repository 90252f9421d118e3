//! Emit and follow (law 3): the right term, the right head, what really waits there; all of it or nothing.

use conga::core::message::{Id, Position};
use conga::core::partition::{Cursor, EmitRequest, Emitted, Processed, Ready, Turn};
use conga::core::term::Term;

use crate::Fixture;
use crate::pair::Pair;

const MOVED: Emitted = Emitted::Moved { head: Position::FIRST };

/// A line with `count` processed messages and a leader.
async fn processed<F: Fixture>(count: u64) -> (Pair, Term, Vec<Ready>) {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(count + 2).await;
    let claims = pair.take("p", usize::try_from(count).expect("small")).await;
    let backwards: Vec<_> = claims.into_iter().rev().collect();
    pair.finish_work("p", &backwards).await;
    let term = pair.elect("s").await;
    let (_, entries) = pair.ready().await;
    assert_eq!(entries.len() as u64, count);
    (pair, term, entries)
}

fn request(term: Term, head: u64, entries: &[Ready]) -> EmitRequest {
    EmitRequest {
        term,
        head: Position(head),
        entries: entries.to_vec(),
    }
}

pub(crate) async fn said_twice_it_counts_once<F: Fixture>() {
    let (pair, term, entries) = processed::<F>(3).await;
    let once = request(term, 1, &entries);
    assert_eq!(pair.emit(&once).await, Emitted::Advanced { head: Position(4) });
    pair.advance(5);
    assert_eq!(pair.emit(&once).await, Emitted::Moved { head: Position(4) });
    assert_eq!(pair.outputs().await.len(), 3);
    pair.receive(Some(3), 0).await;
    assert_eq!(pair.emit(&once).await, Emitted::Moved { head: Position(4) });
    assert!(pair.outputs().await.is_empty());
    pair.finish().await;
}

pub(crate) async fn a_wrong_head_moves<F: Fixture>() {
    let (pair, term, entries) = processed::<F>(3).await;
    assert_eq!(pair.emit(&request(term, 2, &entries[1..])).await, MOVED);
    assert_eq!(pair.emit(&request(term, 0, &entries)).await, MOVED);
    assert_eq!(pair.emit(&request(term, 2, &[])).await, MOVED);
    assert_eq!(pair.emit(&request(term, 2, &entries)).await, MOVED);
    pair.finish().await;
}

pub(crate) async fn what_is_not_processed_moves<F: Fixture>() {
    let (pair, term, entries) = processed::<F>(2).await;
    let made_up = |position| Ready {
        processed: Processed {
            cursor: Cursor(1, 999),
            position: Position(position),
            turn: Turn::Record(Id::given(format!("m{position}"))),
        },
        sequencing: pair.now(),
    };
    pair.take("q", 1).await;
    let leased = [&entries[..], &[made_up(3)]].concat();
    assert_eq!(pair.emit(&request(term, 1, &leased)).await, MOVED, "nothing of it");
    let waiting = [&leased[..], &[made_up(4)]].concat();
    assert_eq!(pair.emit(&request(term, 1, &waiting)).await, MOVED);
    assert_eq!(
        pair.emit(&request(term, 1, &[made_up(1)])).await,
        MOVED,
        "not under that cursor"
    );
    assert!(pair.outputs().await.is_empty());
    assert_eq!(
        pair.emit(&request(term, 1, &entries)).await,
        Emitted::Advanced { head: Position(3) }
    );
    assert_eq!(
        pair.emit(&request(term, 3, &[made_up(3)])).await,
        Emitted::Moved { head: Position(3) }
    );
    pair.finish().await;
}

pub(crate) async fn what_does_not_stand_there_moves<F: Fixture>() {
    let (pair, term, entries) = processed::<F>(2).await;
    let mut another_turn = entries.clone();
    another_turn[1].processed.turn = Turn::Nothing;
    assert_eq!(pair.emit(&request(term, 1, &another_turn)).await, MOVED);
    let mut another_id = entries.clone();
    another_id[0].processed.turn = Turn::Record(Id::given("m2"));
    assert_eq!(pair.emit(&request(term, 1, &another_id)).await, MOVED);
    let mut swapped = entries.clone();
    let cursor = swapped[0].processed.cursor;
    swapped[0].processed.cursor = swapped[1].processed.cursor;
    swapped[1].processed.cursor = cursor;
    assert_eq!(pair.emit(&request(term, 1, &swapped)).await, MOVED);
    assert_eq!(
        pair.emit(&request(term, 1, &entries)).await,
        Emitted::Advanced { head: Position(3) }
    );
    pair.finish().await;
}

pub(crate) async fn a_gap_moves<F: Fixture>() {
    let (pair, term, entries) = processed::<F>(3).await;
    let gap = [entries[0].clone(), entries[2].clone()];
    assert_eq!(pair.emit(&request(term, 1, &gap)).await, MOVED);
    let backwards = [entries[1].clone(), entries[0].clone()];
    assert_eq!(pair.emit(&request(term, 1, &backwards)).await, MOVED);
    let twice = [entries[0].clone(), entries[0].clone()];
    assert_eq!(pair.emit(&request(term, 1, &twice)).await, MOVED);
    assert!(pair.outputs().await.is_empty());
    pair.finish().await;
}

pub(crate) async fn part_of_what_waits<F: Fixture>() {
    let (mut pair, term, entries) = processed::<F>(5).await;
    assert_eq!(
        pair.emit(&request(term, 1, &entries[..2])).await,
        Emitted::Advanced { head: Position(3) }
    );
    pair.advance(3);
    let (head, rest) = pair.ready().await;
    assert_eq!((head, rest.len()), (Position(3), 3));
    pair.deliver(term).await;
    assert_eq!(pair.outputs().await.len(), 5);
    pair.finish().await;
}

pub(crate) async fn nothing_at_all<F: Fixture>() {
    let (pair, term, _) = processed::<F>(1).await;
    assert_eq!(
        pair.emit(&request(term, 1, &[])).await,
        Emitted::Advanced { head: Position(1) }
    );
    assert_eq!(
        pair.emit(&request(Term(term.0 + 1), 1, &[])).await,
        Emitted::Fenced { term }
    );
    pair.finish().await;
}

pub(crate) async fn the_stream_is_followed_in_pages<F: Fixture>() {
    let (mut pair, term, _) = processed::<F>(5).await;
    let mut cursor = Cursor::default();
    let mut seen = Vec::new();
    loop {
        let page = pair.follow(cursor, 2).await;
        let Some(last) = page.entries.last() else { break };
        cursor = last.cursor;
        seen.extend(page.entries.iter().map(|entry| entry.position.0));
    }
    assert_eq!(seen, [5, 4, 3, 2, 1], "in the order in which they were processed");
    let claims = pair.take("q", 1).await;
    pair.finish_work("q", &claims).await;
    let news = pair.follow(cursor, 9).await;
    assert_eq!(news.entries.len(), 1, "only what is new");
    assert_eq!(pair.follow(cursor, 0).await.entries, []);
    pair.deliver(term).await;
    assert_eq!(pair.follow(cursor, 9).await.entries, [], "delivered ones are gone");
    assert_eq!(pair.follow(Cursor::default(), 9).await.entries, []);
    let claims = pair.take("q", 1).await;
    pair.finish_work("q", &claims).await;
    let news = pair.follow(cursor, 9).await;
    assert_eq!(
        news.entries.len(),
        1,
        "the stream goes on where it was, though it was empty meanwhile"
    );
    pair.finish().await;
}
