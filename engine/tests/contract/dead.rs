//! Dead: what a person decides about dead letters.

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::partition::Judged::{Done, Early, Missing};
use conga::core::partition::{Judged, Keep, Limit, Shelf, Verdict};
use conga::store::Delivery;

use crate::Fixture;
use crate::pair::{Pair, attempts, dead, done, place, trim};

impl Pair {
    /// Claims all there is; those with these ids fail for good, the others are done. Then delivers.
    async fn pass_but(&mut self, ids: &[&str], marked: bool) {
        let claims = self.take("p", usize::MAX).await;
        let completions: Vec<_> = claims
            .iter()
            .map(|claim| {
                let id = crate::pair::record(claim).id;
                if ids.contains(&id.as_str()) {
                    dead(claim, marked)
                } else {
                    done(claim)
                }
            })
            .collect();
        self.complete(&OwnerId::new("p"), &completions).await;
        if self.delivery == Delivery::Leader {
            let term = self.elect("s").await;
            self.deliver(term).await;
        }
    }

    /// Positions and ids of the dead letters.
    async fn letters(&self) -> Vec<(u64, String)> {
        let rows = self.browse(Shelf::Dead).await;
        let mut letters: Vec<_> = rows.iter().map(|row| place(&row.json)).collect();
        letters.sort();
        letters
    }
}

fn at(position: u64, id: &str) -> (u64, String) {
    (position, id.to_owned())
}

/// With a tombstone and without one, by either way of delivering.
pub(crate) async fn retried_it_comes_again_at_the_end<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        for marked in [true, false] {
            let mut pair = Pair::open::<F>().await;
            pair.delivery = delivery;
            pair.send_ids(&["a", "b", "c"]).await;
            pair.pass_but(&["b"], marked).await;
            pair.send_ids(&["d"]).await;
            assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Done]);
            assert_eq!(pair.letters().await, []);
            assert_eq!(pair.status().await.waiting, 2);
            let claims = pair.take("q", 9).await;
            assert_eq!(
                attempts(&claims),
                [(4, 1), (5, 1)],
                "it begins anew, behind what was there"
            );
            pair.finish_work("q", &claims).await;
            if delivery == Delivery::Leader {
                let term = pair.elect("s").await;
                pair.deliver(term).await;
            }
            let mut expected = vec![at(1, "a"), at(3, "c"), at(4, "d"), at(5, "b")];
            if marked {
                expected.insert(1, at(2, "b"));
            }
            assert_eq!(pair.outputs().await, expected, "under its own id");
            pair.finish().await;
        }
    }
}

pub(crate) async fn said_twice_it_counts_once<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["a", "b"]).await;
    pair.pass_but(&["a"], true).await;
    for verdict in [Verdict::Retry, Verdict::Purge] {
        assert_eq!(pair.dead(verdict, &[0, 2, 3, u64::from(u32::MAX)]).await, [Missing; 4]);
    }
    assert_eq!(pair.dead(Verdict::Retry, &[1, 1]).await, [Done, Missing]);
    assert_eq!(pair.dead(Verdict::Retry, &[1]).await, [Missing]);
    assert_eq!(pair.dead(Verdict::Purge, &[1]).await, [Missing]);
    assert_eq!(pair.status().await.waiting, 1);
    assert_eq!(pair.dead(Verdict::Retry, &[]).await, [Judged::Done; 0]);
    pair.drain("q", "s").await;
    assert_eq!(pair.outputs().await, [at(1, "a"), at(2, "b"), at(3, "a")]);
    pair.finish().await;
}

pub(crate) async fn purged_it_is_gone<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["a", "b", "c"]).await;
    pair.pass_but(&["a", "b", "c"], true).await;
    assert_eq!(pair.dead(Verdict::Purge, &[3, 1]).await, [Done, Done]);
    assert_eq!(pair.letters().await, [at(2, "b")]);
    assert_eq!(pair.status().await.waiting, 0);
    assert_eq!(pair.outputs().await.len(), 3, "what was delivered stays");
    pair.finish().await;
}

/// Behind a message that is still being processed.
pub(crate) async fn what_waits_for_its_turn_is_left_alone<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = delivery;
        pair.send_ids(&["a", "b"]).await;
        let claims = pair.take("p", 2).await;
        pair.complete(&OwnerId::new("p"), &[dead(&claims[1], true)]).await;
        for verdict in [Verdict::Retry, Verdict::Purge] {
            assert_eq!(pair.dead(verdict, &[2]).await, [Early]);
        }
        assert_eq!(pair.letters().await, [at(2, "b")]);
        pair.finish_work("p", &claims[..1]).await;
        if delivery == Delivery::Leader {
            let term = pair.elect("s").await;
            pair.deliver(term).await;
        }
        assert_eq!(pair.dead(Verdict::Retry, &[2]).await, [Done]);
        pair.drain("q", "s").await;
        assert_eq!(pair.outputs().await, [at(1, "a"), at(2, "b"), at(3, "b")]);
        pair.finish().await;
    }
}

pub(crate) async fn what_is_retried_keeps_its_bytes_and_comes_in_the_order_asked_for<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let entries: Vec<Bytes> = vec![
        b"\xff\x00\n\"".to_vec().into(),
        b"{\"id\":".to_vec().into(),
        Bytes::new(),
        vec![b'x'; 100_000].into(),
    ];
    pair.send(&entries).await;
    let claims = pair.take("p", 9).await;
    // Under whatever id, as what can't be read.
    let buried: Vec<_> = claims.iter().map(|claim| dead(claim, false)).collect();
    pair.complete(&OwnerId::new("p"), &buried).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.dead(Verdict::Retry, &[4, 2, 3, 1]).await, [Done; 4]);
    let again = pair.take("q", 9).await;
    let bytes: Vec<_> = again.iter().map(|claim| claim.entry.clone()).collect();
    let before: Vec<_> = [3, 1, 2, 0].iter().map(|index| claims[*index].entry.clone()).collect();
    assert!(bytes == before, "byte for byte");
    pair.finish().await;
}

pub(crate) async fn what_was_retried_may_die_again<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_ids(&["a"]).await;
    for position in 1..=3 {
        pair.pass_but(&["a"], true).await;
        assert_eq!(pair.letters().await, [at(position, "a")]);
        assert_eq!(pair.dead(Verdict::Retry, &[position]).await, [Done]);
    }
    // Its id counts once: the second of two letters finds a result.
    pair.send_ids(&["a"]).await;
    let claims = pair.take("p", 9).await;
    assert_eq!(attempts(&claims), [(4, 1), (5, 1)]);
    pair.finish_work("p", &claims[..1]).await;
    pair.complete(&OwnerId::new("p"), &[dead(&claims[1], true)]).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.letters().await, []);
    assert_eq!(pair.outputs().await, [at(1, "a"), at(2, "a"), at(3, "a"), at(4, "a")]);
    pair.finish().await;
}

pub(crate) async fn retention_goes_on_with_what_is_left<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    for id in ["a", "b", "c", "d"] {
        pair.send_ids(&[id]).await;
        pair.pass_but(&[id], true).await;
        pair.advance(100);
    }
    assert_eq!(pair.dead(Verdict::Purge, &[2]).await, [Done]);
    let last_two = Keep {
        dead: Limit::last(2),
        ..Keep::ALL
    };
    pair.renew(&trim("p", last_two)).await;
    assert_eq!(pair.letters().await, [at(3, "c"), at(4, "d")]);
    assert_eq!(pair.dead(Verdict::Retry, &[1, 3]).await, [Missing, Done]);
    assert_eq!(pair.letters().await, [at(4, "d")]);
    pair.finish().await;
}
