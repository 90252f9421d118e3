//! Strikes: whom a death is blamed on, and who is handed out alone.

use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::Position;
use conga::core::partition::{ALONE_FROM, Claim, FEW};
use conga::core::shape::{Order, Shape};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, ask, done, halt, holding, leave, positions, retry, stay};

/// Position and crashes of claims.
fn crashes(claims: &[Claim]) -> Vec<(u64, u32)> {
    claims.iter().map(|claim| (claim.position.0, claim.crashes)).collect()
}

/// Whoever holds something is dead.
fn die(pair: &Pair) {
    pair.advance(LEASE_US);
}

/// One message that was with so many that died, alone.
async fn struck<F: Fixture>(times: u32) -> Pair {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    for time in 0..times {
        assert_eq!(crashes(&pair.take(&format!("dead{time}"), 9).await), [(1, time)]);
        die(&pair);
    }
    pair
}

pub(crate) async fn only_what_most_suspicion_is_on_is_blamed<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(40).await;
    pair.take("a", 2).await;
    die(&pair);
    let second = pair.take("b", 20).await;
    assert_eq!(crashes(&second)[..3], [(1, 1), (2, 1), (3, 0)]);
    die(&pair);
    let third = pair.take("c", 20).await;
    assert_eq!(crashes(&third)[..3], [(1, 2), (2, 2), (3, 0)]);
    assert!(third.iter().all(|claim| claim.tries == Attempt(1)), "{third:?}");
    die(&pair);
    let fourth = pair.take("d", 20).await;
    assert_eq!(crashes(&fourth), [(1, 3)], "alone");
    assert!(pair.take("d", 20).await.is_empty(), "and nothing beside it");
    assert_eq!(crashes(&pair.take("e", 20).await), [(2, 3)], "the other with another");
    assert_eq!(pair.take("f", 20).await.len(), 20);
    pair.finish_work("d", &fourth).await;
    assert_eq!(crashes(&pair.take("d", 1).await), [(23, 0)]);
    pair.finish().await;
}

/// Two owners that die at once: each is blamed on what it held.
pub(crate) async fn each_death_is_blamed_by_itself<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(6).await;
    pair.take("a", 2).await;
    die(&pair);
    pair.take("b", 3).await;
    pair.take("c", 2).await;
    die(&pair);
    let claims = pair.take("d", 9).await;
    assert_eq!(crashes(&claims), [(1, 2), (2, 2), (3, 0), (4, 1), (5, 1), (6, 0)]);
    pair.finish().await;
}

pub(crate) async fn what_was_blamed_twice_comes_in_small_numbers<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(100).await;
    for crash in 0..2 {
        pair.take(&format!("dead{crash}"), 50).await;
        die(&pair);
    }
    assert_eq!(pair.take("a", 5).await.len(), 5);
    assert_eq!(pair.take("a", 99).await.len(), FEW - 5);
    assert!(pair.take("a", 99).await.is_empty());
    let other = pair.take("b", 99).await;
    assert_eq!((other.len(), other[0].position), (FEW, Position(17)));
    pair.finish_work("b", &[other[3].clone(), other[5].clone()]).await;
    assert_eq!(positions(&pair.take("b", 99).await), [33, 34]);
    let blocking = pair.renew(&stay("b", None)).await.blocking;
    assert_eq!(blocking, None, "what is free waits for nobody to be alone");
    pair.finish().await;
}

/// What is to be alone waits for somebody who holds nothing; and nothing newer goes before it.
pub(crate) async fn what_is_to_be_alone_waits_for_empty_hands<F: Fixture>() {
    let pair = struck::<F>(ALONE_FROM - 1).await;
    pair.send_many(9).await;
    let beside = pair.take("dead", 1).await;
    assert_eq!(crashes(&beside), [(1, ALONE_FROM - 1)]);
    let held = pair.take("a", 2).await;
    pair.renew(&stay("a", None)).await;
    pair.advance(LEASE_US / 2);
    pair.renew(&stay("a", None)).await;
    pair.advance(LEASE_US / 2);
    assert!(pair.take("a", 9).await.is_empty(), "it holds two");
    // An owner that does not know what it holds would have it wait for ever.
    let blocking = pair.renew(&stay("a", None)).await.blocking;
    assert_eq!(blocking, Some(holding(&held[0])));
    pair.finish_work("a", &held).await;
    assert_eq!(pair.renew(&stay("a", None)).await.blocking, None);
    assert_eq!(crashes(&pair.take("a", 9).await), [(1, ALONE_FROM)]);
    assert_eq!(positions(&pair.take("b", 1).await), [4]);
    pair.finish().await;
}

/// What is delayed is not free: behind it one that is to be alone waits for empty hands all the same.
pub(crate) async fn what_is_delayed_hides_no_suspect<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let first = pair.take("a", 1).await;
    let mut held = Vec::new();
    for time in 0..ALONE_FROM {
        assert_eq!(crashes(&pair.take(&format!("dead{time}"), 1).await), [(2, time)]);
        if time == 0 {
            held = pair.take("b", 1).await;
        }
        for _ in 0..2 {
            pair.advance(LEASE_US / 2);
            pair.renew(&stay("a", None)).await;
            pair.renew(&stay("b", None)).await;
        }
    }
    let later = retry(&first[0], 10 * LEASE_US);
    pair.complete(&OwnerId::new("a"), &[later]).await;
    assert!(pair.take("b", 9).await.is_empty(), "it holds one");
    assert_eq!(
        pair.renew(&stay("b", None)).await.blocking,
        Some(holding(&held[0])),
        "which is in the way"
    );
    pair.finish().await;
}

/// In whatever order the line keeps.
pub(crate) async fn what_is_to_be_alone_comes_with_nothing<F: Fixture>() {
    for order in [Order::Total, Order::Key { serial: false }, Order::None] {
        let pair = Pair::open::<F>().await;
        if order != Order::Total {
            pair.shape(Some(Shape::of(order))).await;
        }
        pair.send_many(9).await;
        let first = pair.take("early", 1).await;
        for time in 0..ALONE_FROM {
            assert_eq!(crashes(&pair.take(&format!("dead{time}"), 1).await), [(2, time)]);
            pair.advance(LEASE_US / 2);
            pair.renew(&stay("early", None)).await;
            pair.advance(LEASE_US / 2);
        }
        // Free again are one that nothing is known of, and then one that is to be alone.
        pair.complete(&OwnerId::new("early"), &[retry(&first[0], 0)]).await;
        assert_eq!(positions(&pair.take("a", 9).await), [1], "{order}");
        assert!(pair.take("a", 9).await.is_empty(), "{order}: nor behind it");
        assert_eq!(crashes(&pair.take("b", 9).await), [(2, ALONE_FROM)], "{order}");
        assert!(pair.take("b", 9).await.is_empty(), "{order}: nor beside it");
        assert_eq!(positions(&pair.take("a", 2).await), [3, 4], "{order}");
        pair.finish().await;
    }
}

pub(crate) async fn who_leaves_is_no_crash<F: Fixture>() {
    let pair = struck::<F>(2).await;
    pair.take("q", 1).await;
    pair.renew(&leave("q")).await;
    let claims = pair.take("r", 1).await;
    let claim = &claims[0];
    assert_eq!((claim.attempt, claim.tries, claim.crashes), (Attempt(4), Attempt(1), 2));
    // Nor is what is given back; and neither counts as an attempt.
    pair.complete(&OwnerId::new("r"), &[retry(claim, 0)]).await;
    let claims = pair.take("r", 1).await;
    let claim = &claims[0];
    assert_eq!((claim.attempt, claim.tries, claim.crashes), (Attempt(5), Attempt(1), 2));
    let found = pair.renew(&stay("r", Some(&[]))).await.found;
    assert_eq!(found, claims, "with its strikes");
    pair.finish().await;
}

pub(crate) async fn an_answer_ends_the_suspicion<F: Fixture>() {
    for times in [1, 2, 5] {
        let pair = struck::<F>(times).await;
        let claims = pair.take("q", 1).await;
        pair.complete(&OwnerId::new("q"), &[retry(&claims[0], 10)]).await;
        pair.advance(10);
        let again = pair.take("q", 1).await;
        assert_eq!((again[0].tries, again[0].crashes), (Attempt(2), 0));
        die(&pair);
        let again = pair.take("r", 1).await;
        assert_eq!((again[0].tries, again[0].crashes), (Attempt(2), 1));
        pair.complete(&OwnerId::new("r"), &[halt(&again[0])]).await;
        pair.dead(conga::core::partition::Verdict::Retry, &[1]).await;
        let again = pair.take("r", 1).await;
        assert_eq!((again[0].tries, again[0].crashes), (Attempt(1), 0));
        pair.finish().await;
    }
}

/// Of another message at the same place nothing is left.
pub(crate) async fn what_is_done_leaves_no_strikes<F: Fixture>() {
    for order in [Order::Total, Order::Key { serial: true }, Order::None] {
        let mut pair = Pair::open::<F>().await;
        if order != Order::Total {
            pair.shape(Some(Shape::of(order))).await;
        }
        pair.send_many(4).await;
        for crash in 0..4 {
            pair.take(&format!("dead{crash}"), 4).await;
            die(&pair);
        }
        for _ in 0..4 {
            let claims = pair.take("p", 4).await;
            pair.complete(&OwnerId::new("p"), &claims.iter().map(done).collect::<Vec<_>>())
                .await;
        }
        assert_eq!(pair.status().await.in_flight, 0, "{order}");
        if order == Order::Total {
            let term = pair.elect("s").await;
            pair.deliver(term).await;
        }
        pair.send_many(3).await;
        let request = ask("p", 3);
        assert_eq!(crashes(&pair.claim(&request).await), [(5, 0), (6, 0), (7, 0)]);
        pair.finish().await;
    }
}
