//! Complete (law 2): only the lease's own owner and attempt, and only once.

use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::{Entry, Position};
use conga::core::partition::Completed::{Accepted, Stale};
use conga::core::partition::{Claim, Completion, Emitted, OnDead, Shelf};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, attempts, dead, done, positions, record, retry};

pub(crate) async fn a_lease_that_another_took_is_stale<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    let old = pair.take("p", 1).await;
    pair.advance(LEASE_US);
    let new = pair.take("q", 1).await;
    assert_eq!(attempts(&new), [(1, 2)]);
    let name = OwnerId::new("p");
    for late in [done(&old[0]), dead(&old[0], true), retry(&old[0], 0), done(&new[0])] {
        assert_eq!(pair.complete(&name, &[late]).await, [Stale]);
    }
    assert_eq!(
        pair.finish_work("q", &old).await,
        [Stale],
        "its own, but not its attempt"
    );
    assert_eq!(pair.finish_work("q", &new).await, [Accepted]);
    assert_eq!(pair.finish_work("p", &old).await, [Stale]);
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.finish_work("p", &old).await, [Stale], "delivered long ago");
    assert_eq!(pair.finish_work("q", &new).await, [Stale]);
    pair.finish().await;
}

pub(crate) async fn an_older_attempt_of_the_same_owner_is_stale<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    let first = pair.take("p", 1).await;
    pair.complete(&OwnerId::new("p"), &[retry(&first[0], 0)]).await;
    let second = pair.take("p", 1).await;
    assert_eq!(attempts(&second), [(1, 2)]);
    assert_eq!(pair.finish_work("p", &first).await, [Stale]);
    assert_eq!(pair.complete(&OwnerId::new("p"), &[retry(&first[0], 5)]).await, [Stale]);
    assert_eq!(pair.finish_work("p", &second).await, [Accepted]);
    pair.finish().await;
}

pub(crate) async fn what_was_never_claimed_is_stale<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    let made_up = |position, attempt| Claim {
        position: Position(position),
        attempt: Attempt(attempt),
        tries: Attempt(attempt),
        crashes: 0,
        claimed: pair.now(),
        entry: Entry::Whole("x".into()),
    };
    let none = [
        made_up(1, 1),
        made_up(1, 0),
        made_up(2, 1),
        made_up(3, 1),
        made_up(0, 1),
        made_up(1 << 40, 1),
    ];
    assert_eq!(pair.finish_work("p", &none).await, [Stale; 6]);
    pair.take("p", 1).await;
    let others = [made_up(1, 2), made_up(1, 0), made_up(2, 1)];
    assert_eq!(pair.finish_work("p", &others).await, [Stale; 3]);
    assert_eq!(pair.finish_work("stranger", &[made_up(1, 1)]).await, [Stale]);
    pair.finish().await;
}

pub(crate) async fn an_expired_lease_that_nobody_took_counts<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    let claims = pair.take("p", 2).await;
    pair.advance(LEASE_US * 3);
    assert_eq!(pair.finish_work("p", &claims[..1]).await, [Accepted]);
    assert_eq!(attempts(&pair.take("q", 2).await), [(2, 2)]);
    assert_eq!(pair.finish_work("p", &claims[1..]).await, [Stale]);
    let term = pair.elect("s").await;
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(2) });
    pair.finish().await;
}

pub(crate) async fn said_twice_it_counts_once<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(4).await;
    let claims = pair.take("p", 4).await;
    let all = [
        done(&claims[0]),
        dead(&claims[1], true),
        retry(&claims[2], 0),
        retry(&claims[3], 50),
    ];
    assert_eq!(pair.complete(&OwnerId::new("p"), &all).await, [Accepted; 4]);
    pair.advance(1);
    assert_eq!(pair.complete(&OwnerId::new("p"), &all).await, [Stale; 4]);
    let other_way = [dead(&claims[0], true), done(&claims[1])];
    assert_eq!(pair.complete(&OwnerId::new("p"), &other_way).await, [Stale; 2]);
    assert_eq!(pair.browse(Shelf::Record).await.len(), 1);
    assert_eq!(pair.browse(Shelf::Dead).await.len(), 1);
    pair.finish().await;
}

pub(crate) async fn a_batch_is_answered_one_by_one<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(4).await;
    let mine = pair.take("p", 2).await;
    let others = pair.take("q", 2).await;
    let batch = [
        done(&others[0]),
        done(&mine[1]),
        dead(&mine[1], true),
        retry(&mine[0], 0),
        done(&mine[0]),
        retry(&others[1], 0),
    ];
    assert_eq!(
        pair.complete(&OwnerId::new("p"), &batch).await,
        [Stale, Accepted, Stale, Accepted, Stale, Stale]
    );
    pair.finish().await;
}

pub(crate) async fn a_retry_waits_out_its_delay<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 2).await;
    pair.complete(&OwnerId::new("p"), &[retry(&claims[0], 1_000)]).await;
    assert_eq!(positions(&pair.take("q", 1).await), [3], "the others go on");
    pair.advance(999);
    assert_eq!(pair.take("q", 1).await, []);
    pair.advance(1);
    let again = pair.take("q", 1).await;
    assert_eq!(attempts(&again), [(1, 2)]);
    pair.complete(&OwnerId::new("q"), &[retry(&again[0], 1)]).await;
    pair.advance(1);
    let again = pair.take("p", 1).await;
    assert_eq!(attempts(&again), [(1, 3)]);
    pair.finish_work("p", &again).await;
    pair.finish_work("p", &claims[1..]).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    pair.finish().await;
}

pub(crate) async fn a_retry_without_delay_is_free_at_once<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    let claims = pair.take("p", 2).await;
    pair.complete(&OwnerId::new("p"), &[retry(&claims[1], 0)]).await;
    assert_eq!(attempts(&pair.take("q", 2).await), [(2, 2)]);
    pair.finish().await;
}

pub(crate) async fn a_dead_letter_leaves_a_tombstone<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 3).await;
    pair.complete(
        &OwnerId::new("p"),
        &[done(&claims[2]), dead(&claims[1], true), done(&claims[0])],
    )
    .await;
    pair.advance(77);
    let term = pair.elect("s").await;
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(4) });
    let outputs = pair.receive(None, 9).await;
    assert_eq!(outputs.len(), 3);
    let tombstone: serde_json::Value = serde_json::from_slice(&outputs[1]).expect("JSON");
    assert_eq!(tombstone["dead"]["attempts"], 1);
    let letters = pair.browse(Shelf::Dead).await;
    assert_eq!(letters.len(), 1);
    let letter: serde_json::Value = serde_json::from_slice(&letters[0].json).expect("JSON");
    assert_eq!(letter["entry"], "{\"id\":\"m2\",\"payload\":{\"of\":\"m2\"}}");
    pair.finish().await;
}

pub(crate) async fn a_dead_letter_without_a_tombstone_leaves_nothing<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 3).await;
    pair.complete(
        &OwnerId::new("p"),
        &[dead(&claims[0], false), done(&claims[1]), dead(&claims[2], false)],
    )
    .await;
    let term = pair.elect("s").await;
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(4) });
    assert_eq!(pair.outputs().await, [(2, "m2".to_owned())]);
    assert_eq!(pair.status().await.dead, 2);
    pair.finish().await;
}

pub(crate) async fn nothing_to_complete<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.finish_work("nobody", &[]).await, []);
    assert!(
        pair.status().await.processors.is_empty(),
        "completing does not make an owner"
    );
    pair.finish().await;
}

pub(crate) async fn what_is_no_result_and_what_is_no_tombstone<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 3).await;
    let completions = [
        match dead(&claims[0], true) {
            Completion::Dead { tombstone, .. } => Completion::Done(tombstone),
            other => other,
        },
        Completion::Dead {
            tombstone: record(&claims[1]),
            on_dead: OnDead::Mark,
        },
        Completion::Dead {
            tombstone: record(&claims[2]),
            on_dead: OnDead::Skip,
        },
    ];
    pair.complete(&OwnerId::new("p"), &completions).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    pair.finish().await;
}
