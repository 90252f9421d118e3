//! Claim (law 1): free ones first, then new ones, in ascending position, within the window and the limits.

use conga::core::message::{Entry, Position};
use conga::core::partition::{Blocker, ClaimRequest, Emitted, Limits};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, ask, attempts, dead, done, entry, positions, retry};

pub(crate) async fn flows_from_send_to_receive<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["a", "b", "c"]).await;
    let first = pair.take("p", 2).await;
    let second = pair.take("q", 2).await;
    assert_eq!((positions(&first), positions(&second)), (vec![1, 2], vec![3]));
    pair.advance(10);
    pair.finish_work("q", &second).await;
    pair.advance(10);
    pair.finish_work("p", &[first[1].clone(), first[0].clone()]).await;
    let term = pair.elect("s").await;
    pair.advance(10);
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(4) });
    let places = [(1, "a"), (2, "b"), (3, "c")].map(|(position, id)| (position, id.to_owned()));
    assert_eq!(pair.outputs().await, places);
    assert!(pair.receive(Some(3), 10).await.is_empty());
    pair.finish().await;
}

pub(crate) async fn an_empty_line_answers<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send(&[]).await;
    assert_eq!(pair.take("p", 10).await, []);
    assert_eq!(pair.finish_work("p", &[]).await, []);
    assert!(pair.outputs().await.is_empty());
    let (head, ready) = pair.ready().await;
    assert_eq!((head, ready.len()), (Position::FIRST, 0));
    pair.receive(Some(5), 0).await;
    let status = pair.status().await;
    assert_eq!((status.waiting, status.term.0, status.blocker), (0, 0, None));
    pair.finish().await;
}

pub(crate) async fn claims_ascend_and_end_at_the_most_asked_for<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(25).await;
    pair.send(&[entry("last")]).await;
    assert_eq!(positions(&pair.take("p", 10).await), (1..=10).collect::<Vec<_>>());
    assert_eq!(positions(&pair.take("q", 1).await), [11]);
    assert_eq!(positions(&pair.take("p", 100).await), (12..=26).collect::<Vec<_>>());
    assert_eq!(pair.take("p", 100).await, []);
    pair.finish().await;
}

pub(crate) async fn an_answer_ends_at_its_bytes<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    let entries = [40_usize, 60, 10, 300, 1].map(|size| vec![b'x'; size].into());
    pair.send(&entries).await;
    let request = |total_bytes| ClaimRequest {
        limits: Limits {
            total_bytes,
            entry_bytes: 200,
        },
        ..ask("p", 10)
    };
    assert_eq!(positions(&pair.claim(&request(0)).await), [0_u64; 0]);
    assert_eq!(positions(&pair.claim(&request(100)).await), [1, 2]);
    // What is too large is not handed out, and so has no bytes.
    assert_eq!(positions(&pair.claim(&request(11)).await), [3, 4, 5]);
    pair.advance(LEASE_US);
    let other = ClaimRequest {
        owner: ask("q", 1).owner,
        ..request(41)
    };
    assert_eq!(positions(&pair.claim(&other).await), [1, 2], "of the free ones too");
    pair.finish().await;
}

pub(crate) async fn what_is_too_large_is_not_handed_out<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let entries = [vec![b'a'; 64], vec![b'b'; 65], Vec::new()].map(Into::into);
    pair.send(&entries).await;
    let request = |entry_bytes| ClaimRequest {
        limits: Limits {
            entry_bytes,
            ..Limits::default()
        },
        ..ask("p", 10)
    };
    let claims = pair.claim(&request(64)).await;
    assert_eq!(claims[0].entry, Entry::Whole(entries[0].clone()));
    assert_eq!(claims[1].entry, Entry::Oversize { bytes: 65 });
    assert_eq!(claims[2].entry, Entry::Whole(entries[2].clone()));
    pair.complete(
        &ask("p", 1).owner,
        &[done(&claims[0]), dead(&claims[1], true), done(&claims[2])],
    )
    .await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    pair.finish().await;
}

pub(crate) async fn no_limit_at_all<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let request = ClaimRequest {
        max: usize::MAX,
        window: u64::MAX,
        limits: Limits {
            entry_bytes: u64::MAX,
            total_bytes: u64::MAX,
        },
        ..ask("p", 1)
    };
    assert_eq!(positions(&pair.claim(&request).await), [1, 2, 3]);
    pair.finish().await;
}

pub(crate) async fn a_full_window_hands_out_nothing_new<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(9).await;
    let request = |name, max| ClaimRequest {
        window: 3,
        ..ask(name, max)
    };
    let claims = pair.claim(&request("p", 9)).await;
    assert_eq!(positions(&claims), [1, 2, 3]);
    assert_eq!(pair.claim(&request("q", 9)).await, []);
    pair.finish_work("p", &claims[1..]).await;
    assert_eq!(pair.claim(&request("q", 9)).await, [], "the head has not moved");
    pair.finish_work("p", &claims[..1]).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(positions(&pair.claim(&request("q", 2)).await), [4, 5]);
    assert_eq!(positions(&pair.claim(&request("q", 2)).await), [6]);
    pair.finish().await;
}

pub(crate) async fn a_window_smaller_than_what_is_in_flight<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(9).await;
    let claims = pair.take("p", 6).await;
    let request = |window| ClaimRequest { window, ..ask("q", 9) };
    assert_eq!(pair.claim(&request(0)).await, []);
    assert_eq!(pair.claim(&request(2)).await, []);
    pair.complete(&ask("p", 0).owner, &[retry(&claims[4], 0)]).await;
    assert_eq!(
        positions(&pair.claim(&request(2)).await),
        [5],
        "what was once in the window comes back, wherever the window is"
    );
    pair.finish_work("p", &claims[..3]).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.claim(&request(3)).await, []);
    assert_eq!(positions(&pair.claim(&request(5)).await), [7, 8]);
    pair.finish().await;
}

/// However many claim at once, none is told of more than that.
pub(crate) async fn nothing_new_beyond_what_the_caller_says<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(9).await;
    let request = |below| ClaimRequest {
        below: Some(Position(below)),
        ..ask("q", 9)
    };
    assert_eq!(pair.claim(&request(1)).await, []);
    let claims = pair.claim(&request(4)).await;
    assert_eq!(positions(&claims), [1, 2, 3]);
    assert_eq!(pair.claim(&request(4)).await, []);
    assert_eq!(pair.claim(&request(2)).await, []);
    pair.complete(&ask("q", 0).owner, &[retry(&claims[2], 0)]).await;
    assert_eq!(
        positions(&pair.claim(&request(1)).await),
        [3],
        "what is free again was claimed before"
    );
    let narrow = ClaimRequest {
        window: 4,
        ..request(9)
    };
    assert_eq!(positions(&pair.claim(&narrow).await), [4], "the window counts as well");
    pair.finish_work("q", &claims[..2]).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.claim(&request(5)).await, [], "wherever the head is");
    assert_eq!(positions(&pair.claim(&request(6)).await), [5]);
    assert_eq!(positions(&pair.claim(&ask("q", 9)).await), [6, 7, 8, 9]);
    pair.finish().await;
}

pub(crate) async fn what_is_free_again_goes_before_what_is_new<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(8).await;
    let early = pair.take("p", 2).await;
    pair.take("q", 2).await;
    let late = pair.take("p", 1).await;
    pair.advance(LEASE_US / 2);
    pair.take("r", 1).await;
    pair.complete(&ask("p", 0).owner, &[retry(&late[0], 0), retry(&early[1], 1)])
        .await;
    pair.advance(LEASE_US / 2);
    // p's first and q's two are free: their owners are gone. 2 and 5 were given back; 6 is r's.
    assert_eq!(
        attempts(&pair.take("s", 6).await),
        [(1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (7, 1)]
    );
    assert_eq!(attempts(&pair.take("s", 6).await), [(8, 1)]);
    pair.finish().await;
}

pub(crate) async fn an_expired_lease_in_each_state<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(7).await;
    let claims = pair.take("p", 6).await;
    let completions = [
        done(&claims[1]),
        dead(&claims[2], true),
        retry(&claims[3], 0),
        retry(&claims[4], 2 * LEASE_US),
        dead(&claims[5], false),
    ];
    pair.complete(&ask("p", 0).owner, &completions).await;
    assert!(matches!(pair.status().await.blocker, Some(Blocker::Leased { .. })));
    pair.advance(LEASE_US);
    assert!(matches!(pair.status().await.blocker, Some(Blocker::Leased { .. })));
    // Only what was leased (1) and what is free (4) can be had; the rest does not depend on its owner any more.
    let again = pair.take("q", 2).await;
    assert_eq!(attempts(&again), [(1, 2), (4, 2)]);
    pair.renew(&crate::pair::leave("q")).await;
    assert_eq!(pair.status().await.blocker, Some(Blocker::Free));
    pair.advance(LEASE_US);
    let again = pair.take("q", 9).await;
    assert_eq!(attempts(&again), [(1, 3), (4, 3), (5, 2), (7, 1)]);
    pair.finish_work("q", &again).await;
    let term = pair.elect("s").await;
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(8) });
    let places: Vec<_> = pair.outputs().await.into_iter().map(|(position, _)| position).collect();
    assert_eq!(places, [1, 2, 3, 4, 5, 7]);
    pair.finish().await;
}

pub(crate) async fn an_owner_that_claims_keeps_what_it_holds<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(4).await;
    let first = pair.take("p", 1).await;
    pair.advance(LEASE_US - 1);
    pair.take("p", 1).await;
    pair.advance(LEASE_US - 1);
    assert_eq!(positions(&pair.take("q", 1).await), [3], "nothing of p's is free");
    pair.advance(LEASE_US * 5);
    assert_eq!(
        positions(&pair.take("p", 1).await),
        [3],
        "late, but nobody had missed it: q's is free, its own is not"
    );
    pair.finish_work("p", &first).await;
    pair.finish().await;
}

pub(crate) async fn claiming_nothing_says_that_one_is_alive<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    pair.take("p", 1).await;
    pair.advance(LEASE_US / 2);
    assert_eq!(pair.take("p", 0).await, []);
    pair.advance(LEASE_US / 2);
    assert_eq!(positions(&pair.take("q", 2).await), [2]);
    assert_eq!(pair.status().await.processors.len(), 2);
    pair.finish().await;
}

pub(crate) async fn thousands_at_once<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(2_000).await;
    let request = ClaimRequest {
        window: 5_000,
        ..ask("p", 5_000)
    };
    let claims = pair.claim(&request).await;
    assert_eq!(claims.len(), 2_000);
    let found = pair.renew(&crate::pair::stay("p", Some(&claims[..1_500]))).await.found;
    assert_eq!(found.len(), 500);
    pair.finish_work("p", &claims).await;
    let term = pair.elect("s").await;
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(2_001) });
    pair.finish().await;
}
