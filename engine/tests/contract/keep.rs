//! Keep: what is over goes, the oldest first, and nothing else does.

use conga::core::lease::OwnerId;
use conga::core::partition::Completed::Accepted;
use conga::core::partition::{Keep, Limit, RenewRequest, Shelf, TRIM_MOST};
use conga::store::Delivery;

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, dead, leave, place, stay, trim};

fn records(limit: Limit) -> Keep {
    Keep {
        records: limit,
        ..Keep::ALL
    }
}

fn age(age_us: u64) -> Limit {
    Limit {
        count: None,
        age_us: Some(age_us),
    }
}

impl Pair {
    /// The ids that the record has.
    async fn recorded(&self) -> Vec<String> {
        let mut rows = self.browse(Shelf::Record).await;
        rows.sort_by_key(|row| place(&row.json).0);
        rows.iter().map(|row| row.id.as_str().to_owned()).collect()
    }

    /// Sends these, and delivers them.
    async fn pass(&mut self, ids: &[&str]) {
        self.send_ids(ids).await;
        self.drain("p", "s").await;
    }
}

pub(crate) async fn the_last_so_many_records_stay<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.pass(&["a", "b", "c"]).await;
    pair.pass(&["d", "e"]).await;
    assert!(!pair.renew(&trim("p", Keep::ALL)).await.is_overfull);
    pair.renew(&trim("p", records(Limit::last(5)))).await;
    assert_eq!(pair.recorded().await.len(), 5);
    // Within what came out in one step, and beyond it.
    pair.renew(&trim("p", records(Limit::last(4)))).await;
    assert_eq!(pair.recorded().await, ["b", "c", "d", "e"]);
    pair.renew(&trim("p", records(Limit::last(1)))).await;
    assert_eq!(pair.recorded().await, ["e"]);
    pair.pass(&["f"]).await;
    pair.renew(&trim("p", records(Limit::last(0)))).await;
    assert_eq!(pair.recorded().await, [""; 0]);
    pair.pass(&["g"]).await;
    assert_eq!(pair.recorded().await, ["g"]);
    assert_eq!(pair.outputs().await.len(), 7, "the outputs are not the records");
    pair.finish().await;
}

pub(crate) async fn what_is_too_old_goes<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    for (first, second) in [("a", "b"), ("c", "d"), ("e", "f")] {
        pair.pass(&[first, second]).await;
        pair.advance(100);
    }
    // The last ones are there for 100 µs and a few for the delivery.
    pair.renew(&trim("p", records(age(300)))).await;
    assert_eq!(pair.recorded().await, ["c", "d", "e", "f"]);
    let both = Limit {
        count: Some(3),
        age_us: Some(300),
    };
    pair.renew(&trim("p", records(both))).await;
    assert_eq!(pair.recorded().await, ["d", "e", "f"], "whichever is over");
    pair.set_back(250);
    pair.renew(&trim("p", records(age(1)))).await;
    pair.advance(10_000);
    pair.renew(&trim("p", records(age(10_000)))).await;
    pair.renew(&trim("p", records(age(0)))).await;
    assert_eq!(pair.recorded().await, [""; 0]);
    pair.finish().await;
}

/// Each with a leader that delivers, and where the store does.
pub(crate) async fn what_is_not_delivered_stays<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = delivery;
        let nothing = trim("p", records(Limit::last(0)));
        pair.send_ids(&["a", "b", "c", "d"]).await;
        let claims = pair.take("p", 4).await;
        pair.finish_work("p", &claims[1..3]).await;
        pair.renew(&nothing).await;
        pair.renew(&nothing).await;
        assert_eq!(pair.recorded().await, ["b", "c"]);
        pair.finish_work("p", &claims[..1]).await;
        if delivery == Delivery::Leader {
            assert_eq!(pair.recorded().await, ["a", "b", "c"]);
            let term = pair.elect("s").await;
            pair.deliver(term).await;
        }
        // d is in flight: it could have waited, and have asked for one of them.
        pair.renew(&nothing).await;
        pair.renew(&nothing).await;
        assert_eq!(pair.recorded().await, ["a", "b", "c"]);
        pair.finish_work("p", &claims[3..]).await;
        pair.drain("p", "s").await;
        pair.renew(&nothing).await;
        assert_eq!(pair.recorded().await, [""; 0]);
        assert_eq!(pair.outputs().await.len(), 4);
        pair.finish().await;
    }
}

/// What waits for its turn asks for the record of another, which is delivered before it.
pub(crate) async fn what_is_still_asked_for_stays<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = delivery;
        let nothing = trim("p", records(Limit::last(0)));
        pair.send_ids(&["a", "b", "a", "c"]).await;
        let claims = pair.take("p", 4).await;
        // The duplicate waits behind b, and asks for what a has at the first position.
        pair.finish_work("p", &[claims[0].clone(), claims[2].clone()]).await;
        let term = pair.elect("s").await;
        pair.deliver(term).await;
        for _ in 0..3 {
            pair.renew(&nothing).await;
        }
        assert_eq!(pair.recorded().await, ["a"]);
        pair.finish_work("p", &claims[1..2]).await;
        pair.deliver(term).await;
        pair.renew(&nothing).await;
        pair.finish_work("p", &claims[3..]).await;
        pair.deliver(term).await;
        pair.renew(&nothing).await;
        assert_eq!(pair.recorded().await, [""; 0]);
        let out = [(1, "a".to_owned()), (2, "b".to_owned()), (4, "c".to_owned())];
        assert_eq!(pair.outputs().await, out);
        pair.finish().await;
    }
}

/// A duplicate of what was delivered long ago waits for its turn, and the record goes meanwhile.
pub(crate) async fn a_late_duplicate_asks_for_nothing<F: Fixture>() {
    for delivery in [Delivery::Leader, Delivery::Store] {
        let mut pair = Pair::open::<F>().await;
        pair.delivery = delivery;
        pair.pass(&["a", "b"]).await;
        pair.renew(&trim("p", records(Limit::last(2)))).await;
        pair.send_ids(&["c", "a", "b"]).await;
        let claims = pair.take("p", 3).await;
        let letter = dead(&claims[2], true);
        assert_eq!(pair.finish_work("p", &claims[1..2]).await, [Accepted]);
        assert_eq!(pair.complete(&OwnerId::new("p"), &[letter]).await, [Accepted]);
        for _ in 0..3 {
            pair.renew(&trim("p", records(Limit::last(0)))).await;
        }
        assert_eq!(pair.recorded().await, [""; 0]);
        pair.finish_work("p", &claims[..1]).await;
        let term = pair.elect("s").await;
        pair.deliver(term).await;
        let out = [(1, "a"), (2, "b"), (3, "c")].map(|(position, id)| (position, id.to_owned()));
        assert_eq!(pair.outputs().await, out);
        assert_eq!(pair.status().await.dead, 0, "its result stands");
        pair.finish().await;
    }
}

/// The horizon of "once".
pub(crate) async fn an_id_counts_once_as_long_as_its_record_stays<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let keep = trim("p", records(Limit::last(2)));
    pair.pass(&["a", "b", "c"]).await;
    pair.renew(&keep).await;
    assert_eq!(pair.recorded().await, ["b", "c"]);
    pair.pass(&["b", "c"]).await;
    assert_eq!(pair.outputs().await.len(), 3, "still known");
    pair.pass(&["a"]).await;
    let out = pair.outputs().await;
    assert_eq!(out.last(), Some(&(6, "a".to_owned())), "forgotten, so it counts again");
    pair.renew(&keep).await;
    assert_eq!(pair.recorded().await, ["c", "a"]);
    pair.pass(&["a"]).await;
    assert_eq!(pair.outputs().await.len(), 4);
    pair.finish().await;
}

pub(crate) async fn the_last_so_many_dead_letters_stay<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(6).await;
    let claims = pair.take("p", 6).await;
    // Not in the order of their positions.
    for nth in [3, 0, 5, 1] {
        pair.complete(&OwnerId::new("p"), &[dead(&claims[nth], nth == 0)]).await;
        pair.advance(10);
    }
    pair.complete(&OwnerId::new("p"), &[dead(&claims[4], true), dead(&claims[2], true)])
        .await;
    let keep = |dead| trim("p", Keep { dead, ..Keep::ALL });
    let left = async |pair: &Pair| -> Vec<String> {
        let rows = pair.browse(Shelf::Dead).await;
        rows.iter().map(|row| row.id.as_str().to_owned()).collect()
    };
    pair.renew(&keep(Limit::last(5))).await;
    assert_eq!(left(&pair).await, ["m1", "m2", "m3", "m5", "m6"], "the first that died");
    pair.renew(&keep(age(30))).await;
    assert_eq!(left(&pair).await, ["m2", "m3", "m5", "m6"]);
    pair.renew(&keep(Limit::last(1))).await;
    assert_eq!(left(&pair).await, ["m3"], "the last that died");
    pair.renew(&keep(age(0))).await;
    assert_eq!(left(&pair).await, [""; 0]);
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.outputs().await.len(), 3, "the tombstones are outputs");
    pair.finish().await;
}

pub(crate) async fn the_last_so_many_outputs_stay<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    for ids in [["a", "b"], ["c", "d"], ["e", "f"]] {
        pair.pass(&ids).await;
        pair.advance(100);
    }
    let keep = |outputs| trim("p", Keep { outputs, ..Keep::ALL });
    pair.receive(Some(1), 0).await;
    pair.renew(&keep(Limit::last(5))).await;
    assert_eq!(pair.outputs().await.len(), 5);
    pair.renew(&keep(Limit::last(4))).await;
    assert_eq!(pair.outputs().await[0].0, 3);
    pair.receive(Some(1), 0).await;
    pair.renew(&keep(age(200))).await;
    assert_eq!(pair.outputs().await[0].0, 5);
    pair.receive(Some(5), 0).await;
    pair.renew(&keep(age(0))).await;
    assert_eq!(pair.outputs().await, []);
    assert_eq!(pair.recorded().await.len(), 6, "the records are not the outputs");
    pair.pass(&["g"]).await;
    assert_eq!(pair.outputs().await, [(7, "g".to_owned())]);
    pair.finish().await;
}

pub(crate) async fn a_step_lets_go_of_so_many_and_says_that_there_is_more<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let extra = 7;
    let count = TRIM_MOST + extra;
    pair.send_many(count).await;
    for _ in 0..2 {
        // The window is smaller.
        pair.drain("p", "s").await;
    }
    let keep = Keep {
        records: Limit::last(2),
        outputs: Limit::last(3),
        ..Keep::ALL
    };
    assert!(pair.renew(&trim("p", keep)).await.is_overfull);
    let status = pair.status().await;
    assert_eq!((status.recorded, status.output), (extra, extra));
    assert!(!pair.renew(&trim("p", keep)).await.is_overfull);
    let status = pair.status().await;
    assert_eq!((status.recorded, status.output), (2, 3));
    pair.finish().await;
}

pub(crate) async fn what_was_told_last_is_known<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    assert_eq!(pair.status().await.keep, None);
    pair.pass(&["a"]).await;
    let keep = Keep {
        records: Limit::last(7),
        dead: Limit {
            count: Some(0),
            age_us: Some(u64::MAX),
        },
        outputs: age(LEASE_US),
    };
    pair.renew(&trim("p", keep)).await;
    assert_eq!(pair.status().await.keep, Some(keep));
    pair.renew(&stay("q", None)).await;
    let leaving = RenewRequest {
        keep: Some(Keep::ALL),
        ..leave("p")
    };
    pair.renew(&leaving).await;
    assert_eq!(pair.status().await.keep, Some(keep), "who says nothing, and who leaves");
    assert!(pair.renew(&trim("q", Keep::ALL)).await.known);
    let status = pair.status().await;
    assert_eq!(status.keep, Some(Keep::ALL));
    assert_eq!(status.oldest.record, status.oldest.output);
    assert!(status.oldest.record.is_some());
    pair.finish().await;
}
