//! The same id more than once (G3): one record, one output, in the first place that has it.

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{Emitted, Shelf};

use crate::Fixture;
use crate::pair::{Pair, dead, done, place};

fn named(places: &[(u64, &str)]) -> Vec<(u64, String)> {
    places
        .iter()
        .map(|(position, id)| (*position, (*id).to_owned()))
        .collect()
}

pub(crate) async fn the_first_is_done_first<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["a", "x", "b", "x"]).await;
    let claims = pair.take("p", 4).await;
    pair.finish_work("p", &claims).await;
    assert_eq!(pair.browse(Shelf::Record).await.len(), 3);
    let term = pair.elect("s").await;
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(5) });
    assert_eq!(pair.outputs().await, named(&[(1, "a"), (2, "x"), (3, "b")]));
    pair.finish().await;
}

pub(crate) async fn the_second_is_done_first<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["x", "a", "x"]).await;
    let claims = pair.take("p", 3).await;
    pair.finish_work("p", &claims[2..]).await;
    pair.advance(5);
    pair.finish_work("p", &claims[..2]).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    let outputs = pair.receive(None, 9).await;
    let places: Vec<_> = outputs.iter().map(|output| place(output)).collect();
    assert_eq!(places, named(&[(1, "x"), (2, "a")]));
    let first: serde_json::Value = serde_json::from_slice(&outputs[0]).expect("JSON");
    assert_eq!(
        first["payload"], "done at 3 in attempt 1",
        "what the record held first is what comes out"
    );
    pair.finish().await;
}

pub(crate) async fn after_delivery<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["x", "a"]).await;
    pair.drain("p", "s").await;
    pair.send_ids(&["x", "b"]).await;
    assert_eq!(pair.drain("p", "s").await, Emitted::Advanced { head: Position(5) });
    pair.receive(Some(4), 0).await;
    pair.send_ids(&["x"]).await;
    pair.drain("p", "s").await;
    assert!(pair.outputs().await.is_empty());
    assert_eq!(pair.status().await.recorded, 3);
    pair.finish().await;
}

pub(crate) async fn three_of_them<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["x", "x", "x"]).await;
    let claims = pair.take("p", 3).await;
    let term = pair.elect("s").await;
    pair.finish_work("p", &claims[1..2]).await;
    pair.finish_work("p", &claims[2..]).await;
    pair.finish_work("p", &claims[..1]).await;
    let (head, entries) = pair.ready().await;
    for (index, entry) in entries.into_iter().enumerate() {
        let request = conga::core::partition::EmitRequest {
            term,
            head: head.plus(index as u64),
            entries: vec![entry],
        };
        pair.emit(&request).await;
        pair.browse(Shelf::Record).await;
    }
    assert_eq!(pair.outputs().await, named(&[(1, "x")]));
    pair.finish().await;
}

/// A result that is recorded stands, whatever becomes of the others with its id. Before there is one, a failure is a
/// dead letter of its own.
pub(crate) async fn one_of_two_dies<F: Fixture>() {
    for (first_dies, deliver) in [(true, false), (true, true), (false, false), (false, true)] {
        for second_first in [false, true] {
            let mut pair = Pair::open::<F>().await;
            pair.send_ids(&["x", "x"]).await;
            let claims = pair.take("p", 2).await;
            let mut completions = if first_dies {
                [dead(&claims[0], deliver), done(&claims[1])]
            } else {
                [done(&claims[0]), dead(&claims[1], deliver)]
            };
            if second_first {
                completions.reverse();
            }
            pair.complete(&OwnerId::new("p"), &completions).await;
            let term = pair.elect("s").await;
            pair.deliver(term).await;
            let done_first = first_dies == second_first;
            let places: &[(u64, &str)] = match (done_first, first_dies, deliver) {
                (true, ..) | (false, false, false) => &[(1, "x")],
                (false, true, false) => &[(2, "x")],
                (false, _, true) => &[(1, "x"), (2, "x")],
            };
            assert_eq!(pair.outputs().await, named(places));
            assert_eq!(pair.status().await.dead, u64::from(!done_first));
            pair.finish().await;
        }
    }
}

pub(crate) async fn in_one_batch<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["x", "y", "x", "y"]).await;
    let claims = pair.take("p", 4).await;
    let completions: Vec<_> = claims.iter().rev().map(done).collect();
    pair.complete(&OwnerId::new("p"), &completions).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.outputs().await, named(&[(1, "x"), (2, "y")]));
    pair.finish().await;
}
