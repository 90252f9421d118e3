//! Delivery by the store: the step that completes the head delivers it, and all that follow it without a gap.

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::Completed::{Accepted, Stale};
use conga::core::partition::{Blocker, Emitted, Shelf};
use conga::store::Delivery;

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, dead, done, retry, stay};

async fn delivering<F: Fixture>() -> Pair {
    let mut pair = Pair::open::<F>().await;
    pair.delivery = Delivery::Store;
    pair
}

pub(crate) async fn the_head_goes_out_with_its_complete<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 3).await;
    pair.advance(5);
    assert_eq!(pair.finish_work("p", &claims[..2]).await, [Accepted; 2]);
    assert_eq!(pair.outputs().await, [(1, "m1".to_owned()), (2, "m2".to_owned())]);
    let status = pair.status().await;
    assert_eq!((status.head, status.processed), (Position(3), 0));
    assert_eq!(pair.finish_work("p", &claims).await, [Stale, Stale, Accepted]);
    assert_eq!(pair.outputs().await.len(), 3);
    pair.finish().await;
}

pub(crate) async fn what_waited_goes_out_with_the_head<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_many(9).await;
    let claims = pair.take("p", 9).await;
    pair.finish_work("p", &claims[3..5]).await;
    pair.advance(1);
    pair.finish_work("p", &[claims[1].clone(), claims[7].clone()]).await;
    pair.advance(1);
    pair.finish_work("p", &claims[2..3]).await;
    assert_eq!(pair.outputs().await, []);
    assert!(matches!(pair.status().await.blocker, Some(Blocker::Leased { .. })));
    pair.advance(1);
    pair.finish_work("p", &claims[..1]).await;
    assert_eq!(pair.outputs().await.len(), 5);
    let status = pair.status().await;
    assert_eq!((status.head, status.processed), (Position(6), 1));
    pair.advance(1);
    // Its own before what waited, and after it.
    let rest = [claims[8].clone(), claims[6].clone(), claims[5].clone()];
    pair.finish_work("p", &rest).await;
    assert_eq!(pair.outputs().await.len(), 9);
    assert_eq!(pair.browse(Shelf::Record).await.len(), 9);
    pair.finish().await;
}

pub(crate) async fn tombstones_and_nothing_at_all_have_their_turn<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_many(6).await;
    let claims = pair.take("p", 6).await;
    let later = [dead(&claims[1], true), dead(&claims[2], false), done(&claims[3])];
    pair.complete(&OwnerId::new("p"), &later).await;
    pair.advance(3);
    pair.complete(&OwnerId::new("p"), &[dead(&claims[0], true)]).await;
    assert_eq!(pair.outputs().await.len(), 3);
    pair.complete(&OwnerId::new("p"), &[dead(&claims[4], false)]).await;
    assert_eq!(pair.status().await.head, Position(6));
    pair.complete(&OwnerId::new("p"), &[retry(&claims[5], 0)]).await;
    assert_eq!(pair.status().await.blocker, Some(Blocker::Free));
    pair.finish().await;
}

pub(crate) async fn an_id_that_came_twice_comes_out_once<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_ids(&["a", "a", "b", "c", "b", "c", "c", "d"]).await;
    let claims = pair.take("p", 8).await;
    pair.finish_work("p", &claims[..2]).await;
    assert_eq!(pair.outputs().await, [(1, "a".to_owned())]);
    pair.finish_work("p", &claims[4..6]).await;
    pair.finish_work("p", &claims[2..4]).await;
    let expected = [(1, "a"), (3, "b"), (4, "c")].map(|(position, id)| (position, id.to_owned()));
    assert_eq!(pair.outputs().await, expected);
    pair.finish_work("p", &claims[6..]).await;
    assert_eq!(pair.outputs().await.last(), Some(&(8, "d".to_owned())));
    pair.finish().await;
}

/// Found by a review: `@+7` was taken for the identity of position 7, which nobody else can have.
pub(crate) async fn an_id_that_looks_like_a_position<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_ids(&["a", "@+3", "@+3", "@-4"]).await;
    let claims = pair.take("p", 4).await;
    for claim in &claims {
        pair.finish_work("p", std::slice::from_ref(claim)).await;
    }
    let expected = [(1, "a"), (2, "@+3"), (4, "@-4")].map(|(position, id)| (position, id.to_owned()));
    assert_eq!(pair.outputs().await, expected);
    pair.finish().await;
}

pub(crate) async fn what_a_leader_left_goes_out_with_the_next_step<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(5).await;
    let claims = pair.take("p", 5).await;
    pair.finish_work("p", &claims[..3]).await;
    assert_eq!(pair.outputs().await, []);
    pair.delivery = Delivery::Store;
    pair.advance(9);
    pair.renew(&stay("p", None)).await;
    assert_eq!(pair.outputs().await.len(), 3, "with a renewal");
    pair.delivery = Delivery::Leader;
    pair.finish_work("p", &claims[4..]).await;
    pair.delivery = Delivery::Store;
    pair.finish_work("p", &claims[3..4]).await;
    assert_eq!(pair.outputs().await.len(), 5, "with a complete");
    pair.finish().await;
}

pub(crate) async fn a_leader_delivers_what_the_store_has_not<F: Fixture>() {
    let mut pair = delivering::<F>().await;
    pair.send_many(6).await;
    let claims = pair.take("p", 6).await;
    pair.finish_work("p", &claims[1..4]).await;
    pair.delivery = Delivery::Leader;
    pair.finish_work("p", &claims[..1]).await;
    let term = pair.elect("s").await;
    let (head, mut entries) = pair.ready().await;
    let whole = conga::core::partition::EmitRequest {
        term,
        head,
        entries: entries.clone(),
    };
    entries.truncate(2);
    let part = conga::core::partition::EmitRequest { term, head, entries };
    assert_eq!(
        pair.emit(&part).await,
        Emitted::Advanced { head: Position(3) },
        "in the midst of a batch"
    );
    pair.delivery = Delivery::Store;
    pair.finish_work("p", &claims[4..5]).await;
    assert_eq!(pair.status().await.head, Position(6));
    assert_eq!(pair.emit(&whole).await, Emitted::Moved { head: Position(6) });
    pair.finish().await;
}

pub(crate) async fn a_lease_that_another_took_delivers_nothing<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_many(3).await;
    let old = pair.take("p", 3).await;
    pair.advance(LEASE_US);
    let new = pair.take("q", 1).await;
    assert_eq!(pair.finish_work("p", &old).await, [Stale; 3]);
    assert_eq!(pair.outputs().await, []);
    assert_eq!(pair.finish_work("q", &new).await, [Accepted]);
    assert_eq!(pair.outputs().await.len(), 1);
    pair.finish().await;
}

/// More than goes into one step: it all comes out all the same.
pub(crate) async fn thousands_wait_for_one<F: Fixture>() {
    let pair = delivering::<F>().await;
    pair.send_many(3_500).await;
    let claims = pair
        .claim(&conga::core::partition::ClaimRequest {
            window: 5_000,
            ..crate::pair::ask("p", 3_500)
        })
        .await;
    for part in claims[1..].chunks(700) {
        pair.finish_work("p", part).await;
    }
    pair.advance(1);
    pair.finish_work("p", &claims[..1]).await;
    assert_eq!(pair.outputs().await.len(), 3_500);
    pair.finish().await;
}
