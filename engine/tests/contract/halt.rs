//! Halt: a line that stops at what failed for good, until a person says what becomes of it.

use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::Position;
use conga::core::partition::Completed::{Accepted, Stale};
use conga::core::partition::Judged::{Done, Early, Missing, Passed};
use conga::core::partition::{Blocker, Claim, Completion, Keep, Limit, Shelf, Verdict};
use conga::core::shape::{Order, Shape};
use conga::store::Delivery;

use crate::Fixture;
use crate::in_place::keyed;
use crate::pair::{Pair, attempts, dead, done, halt, place, positions, stay, trim};

impl Pair {
    /// Delivers what is ready, where a leader has to.
    async fn bring_out(&mut self) {
        if self.delivery == Delivery::Leader {
            let term = self.elect("s").await;
            self.deliver(term).await;
        }
    }

    /// The positions of all that is out.
    async fn out(&self) -> Vec<u64> {
        self.outputs().await.into_iter().map(|(position, _)| position).collect()
    }

    async fn end_with(&mut self, completions: &[Completion]) {
        self.complete(&OwnerId::new("p"), completions).await;
        self.bring_out().await;
    }

    /// The ids of the dead letters, and whether the line is halted at each.
    async fn halted_letters(&self) -> Vec<(u64, bool)> {
        let rows = self.browse(Shelf::Dead).await;
        let halted = |json: &[u8]| json.windows(13).any(|part| part == b"\"halted\":true");
        let mut letters: Vec<_> = rows.iter().map(|row| (place(&row.json).0, halted(&row.json))).collect();
        letters.sort_unstable();
        letters
    }
}

/// Three messages of which the second has failed for good, and the others are done, by the way of delivering given.
async fn halted<F: Fixture>(delivery: Delivery) -> (Pair, Vec<Claim>) {
    let mut pair = Pair::open::<F>().await;
    pair.delivery = delivery;
    pair.send_ids(&["a", "b", "c"]).await;
    let claims = pair.take("p", 3).await;
    pair.end_with(&[done(&claims[2]), halt(&claims[1]), done(&claims[0])])
        .await;
    assert_eq!(pair.out().await, [1], "nothing goes past it");
    let status = pair.status().await;
    assert_eq!((status.head, status.dead, status.halted), (Position(2), 1, 1));
    assert!(matches!(status.blocker, Some(Blocker::Halted { .. })), "{status:?}");
    assert_eq!(pair.halted_letters().await, [(2, true)]);
    assert!(pair.take("q", 9).await.is_empty(), "it is not handed out");
    (pair, claims)
}

pub(crate) async fn retried_it_has_its_old_place<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let (mut pair, claims) = halted::<F>(delivery).await;
        assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Done]);
        assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Missing], "said again");
        assert_eq!(pair.status().await.blocker, Some(Blocker::Free));
        assert_eq!(pair.halted_letters().await, []);
        let again = pair.take("q", 9).await;
        assert_eq!(attempts(&again), [(2, 2)], "as an attempt of its own");
        assert_eq!(again[0].tries, Attempt(1), "but it begins anew");
        assert_eq!(again[0].entry, claims[1].entry);
        pair.finish_work("q", &again).await;
        pair.bring_out().await;
        assert_eq!(pair.out().await, [1, 2, 3]);
        assert_eq!(pair.status().await.halted, 0);
        pair.finish().await;
    }
}

pub(crate) async fn skipped_or_marked_the_line_goes_on<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        for verdict in [Verdict::Skip, Verdict::Mark] {
            let (mut pair, _) = halted::<F>(delivery).await;
            pair.advance(1_000_000);
            assert_eq!(pair.dead(verdict, &[2]).await, [Done]);
            for again in [Verdict::Skip, Verdict::Mark] {
                assert_eq!(pair.dead(again, &[2]).await, [Passed], "said again");
            }
            pair.bring_out().await;
            let expected: &[u64] = if verdict == Verdict::Mark { &[1, 2, 3] } else { &[1, 3] };
            assert_eq!(pair.out().await, expected);
            assert_eq!(pair.halted_letters().await, [(2, false)], "it stays");
            assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Done]);
            assert_eq!(
                positions(&pair.take("q", 9).await),
                [4],
                "at the end, now that it is past"
            );
            pair.finish().await;
        }
    }
}

pub(crate) async fn only_a_line_that_is_halted_goes_on<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let (mut pair, _) = halted::<F>(delivery).await;
        assert_eq!(pair.dead(Verdict::Purge, &[2]).await, [Early]);
        pair.send_ids(&["d"]).await;
        let claims = pair.take("p", 9).await;
        pair.end_with(&[dead(&claims[0], true)]).await;
        for verdict in [Verdict::Skip, Verdict::Mark] {
            assert_eq!(pair.dead(verdict, &[1, 4, 9]).await, [Missing, Passed, Missing]);
        }
        assert_eq!(pair.dead(Verdict::Retry, &[4]).await, [Early], "its turn has not come");
        assert_eq!(pair.out().await, [1]);
        // Several at once, in whatever order, and one that is none.
        assert_eq!(pair.dead(Verdict::Mark, &[4, 2, 2]).await, [Passed, Done, Passed]);
        pair.bring_out().await;
        assert_eq!(pair.out().await, [1, 2, 3, 4]);
        pair.finish().await;
    }
}

/// Two at once, and the head still at work.
pub(crate) async fn behind_the_head_it_is_decided_too<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = delivery;
        pair.send_ids(&["a", "b", "c", "d"]).await;
        let claims = pair.take("p", 4).await;
        pair.end_with(&[halt(&claims[2]), halt(&claims[1]), done(&claims[3])])
            .await;
        let status = pair.status().await;
        assert!(matches!(status.blocker, Some(Blocker::Leased { .. })), "{status:?}");
        assert_eq!(status.halted, 2);
        assert_eq!(pair.dead(Verdict::Mark, &[3]).await, [Done]);
        assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Done]);
        assert!(pair.out().await.is_empty());
        let again = pair.take("q", 9).await;
        assert_eq!(attempts(&again), [(2, 2)]);
        pair.complete(&OwnerId::new("q"), &[halt(&again[0])]).await;
        pair.end_with(&[done(&claims[0])]).await;
        assert_eq!(pair.out().await, [1], "halted once more");
        assert_eq!(pair.dead(Verdict::Skip, &[2]).await, [Done]);
        pair.bring_out().await;
        assert_eq!(pair.out().await, [1, 3, 4]);
        pair.finish().await;
    }
}

/// A late repetition of the call by which it died does not end the attempt that a person asked for.
pub(crate) async fn what_ended_before_does_not_end_it_again<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let (mut pair, claims) = halted::<F>(delivery).await;
        let owner = OwnerId::new("p");
        assert_eq!(pair.complete(&owner, &[halt(&claims[1])]).await, [Stale]);
        assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Done]);
        let again = pair.take("p", 9).await;
        assert_eq!(pair.complete(&owner, &[halt(&claims[1])]).await, [Stale]);
        assert_eq!(pair.complete(&owner, &[done(&claims[1])]).await, [Stale]);
        let found = pair.renew(&stay("p", Some(&[]))).await.found;
        assert_eq!(found, again, "with its tries");
        assert_eq!(pair.complete(&owner, &[done(&again[0])]).await, [Accepted]);
        pair.bring_out().await;
        assert_eq!(pair.out().await, [1, 2, 3]);
        pair.finish().await;
    }
}

/// Its id has a result, by another position: that stands.
pub(crate) async fn a_duplicate_does_not_halt<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = delivery;
        pair.send_ids(&["a", "a", "b"]).await;
        let claims = pair.take("p", 3).await;
        pair.end_with(&[done(&claims[0]), halt(&claims[1]), done(&claims[2])])
            .await;
        assert_eq!(pair.out().await, [1, 3]);
        assert_eq!(pair.status().await.halted, 0);
        pair.finish().await;
    }
}

pub(crate) async fn by_key_only_its_key_waits<F: Fixture>() {
    for verdict in [Verdict::Retry, Verdict::Skip, Verdict::Mark] {
        for serial in [false, true] {
            let mut pair = Pair::open::<F>().await;
            pair.shape(Some(Shape::of(Order::Key { serial }))).await;
            let keys = ["k", "l", "k", "", "l"];
            let entries: Vec<_> = (1..)
                .zip(keys)
                .map(|(nth, key)| keyed(&format!("m{nth}"), key))
                .collect();
            pair.send(&entries).await;
            let claims = pair.take("p", 9).await;
            pair.end_with(&[halt(&claims[0])]).await;
            for claim in &claims[1..] {
                pair.end_with(&[done(claim)]).await;
            }
            for claim in pair.take("p", 9).await {
                pair.end_with(&[done(&claim)]).await;
            }
            assert_eq!(pair.out().await, [2, 4, 5], "serial: {serial}");
            assert_eq!(pair.halted_letters().await, [(1, true)]);
            assert_eq!(pair.dead(verdict, &[1]).await, [Done]);
            for _ in 0..2 {
                for claim in pair.take("p", 9).await {
                    pair.end_with(&[done(&claim)]).await;
                }
            }
            let expected: &[u64] = if verdict == Verdict::Skip {
                &[2, 4, 5, 3]
            } else {
                &[2, 4, 5, 1, 3]
            };
            assert_eq!(pair.out().await, expected, "serial: {serial}");
            assert_eq!(pair.status().await.head, Position(6));
            pair.finish().await;
        }
    }
}

/// One of a key is marked that has another before it: it waits for that.
pub(crate) async fn by_key_what_is_marked_has_its_turn<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.shape(Some(Shape::of(Order::Key { serial: false }))).await;
    pair.send(&["a", "b", "c"].map(|id| keyed(id, "k"))).await;
    let claims = pair.take("p", 9).await;
    pair.end_with(&[halt(&claims[1]), done(&claims[2])]).await;
    pair.advance(500_000);
    assert_eq!(pair.dead(Verdict::Mark, &[2]).await, [Done]);
    assert!(pair.out().await.is_empty());
    pair.end_with(&[done(&claims[0])]).await;
    assert_eq!(pair.out().await, [1, 2, 3]);
    pair.finish().await;
}

pub(crate) async fn without_order_or_key_it_waits_alone<F: Fixture>() {
    for order in [Order::None, Order::Key { serial: false }] {
        for verdict in [Verdict::Retry, Verdict::Skip, Verdict::Mark] {
            let mut pair = Pair::open::<F>().await;
            pair.shape(Some(Shape::of(order))).await;
            pair.send_many(3).await;
            let claims = pair.take("p", 9).await;
            pair.end_with(&[halt(&claims[0]), done(&claims[1]), done(&claims[2])])
                .await;
            assert_eq!(pair.out().await, [2, 3]);
            let blocker = pair.status().await.blocker;
            assert!(matches!(blocker, Some(Blocker::Halted { .. })), "{blocker:?}");
            assert_eq!(pair.dead(verdict, &[1]).await, [Done]);
            for claim in pair.take("p", 9).await {
                pair.end_with(&[done(&claim)]).await;
            }
            let expected: &[u64] = if verdict == Verdict::Skip { &[2, 3] } else { &[2, 3, 1] };
            assert_eq!(pair.out().await, expected);
            assert_eq!(pair.status().await.head, Position(4));
            pair.finish().await;
        }
    }
}

pub(crate) async fn retention_leaves_it<F: Fixture>() {
    for keep in [
        Limit::last(1),
        Limit::last(0),
        Limit {
            count: None,
            age_us: Some(0),
        },
    ] {
        let mut pair = Pair::open::<F>().await;
        pair.send_many(6).await;
        let claims = pair.take("p", 6).await;
        for (nth, claim) in claims.iter().enumerate() {
            let ending = if nth % 3 == 1 { halt(claim) } else { dead(claim, true) };
            pair.complete(&OwnerId::new("p"), &[ending]).await;
            pair.advance(10);
        }
        pair.bring_out().await;
        let keep = Keep {
            dead: keep,
            ..Keep::ALL
        };
        pair.renew(&trim("p", keep)).await;
        assert_eq!(pair.halted_letters().await, [(2, true), (5, true)]);
        assert_eq!(pair.dead(Verdict::Skip, &[2, 5]).await, [Done, Done]);
        pair.renew(&trim("p", keep)).await;
        let left = usize::from(keep.dead.count == Some(1));
        assert_eq!(pair.halted_letters().await.len(), left, "now they go as all others");
        pair.finish().await;
    }
}

/// The call before may have done it, and its answer be lost.
pub(crate) async fn what_is_ready_goes_out_whatever_is_judged<F: Fixture>() {
    for verdict in [Verdict::Skip, Verdict::Mark, Verdict::Retry, Verdict::Purge] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = Delivery::Leader;
        pair.send_many(2).await;
        let claims = pair.take("p", 1).await;
        pair.finish_work("p", &claims).await;
        pair.delivery = Delivery::Store;
        assert_eq!(pair.dead(verdict, &[7]).await, [Missing]);
        let goes_out = matches!(verdict, Verdict::Skip | Verdict::Mark);
        assert_eq!(pair.status().await.output, u64::from(goes_out), "{verdict:?}");
        pair.finish().await;
    }
}
