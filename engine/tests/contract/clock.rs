//! The store's clock is set back, or forward, by an hour: a deadline lasts about as long as was asked for all the same.

use conga::core::lease::OwnerId;
use conga::core::partition::{Completed, SET_BACK_US, TELL_EVERY_US};
use conga::core::term::{Campaign, Term};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, attempts, positions, retry, stay};

const HOUR_US: u64 = 3_600_000_000;

pub(crate) async fn set_back_leases_last_no_longer<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    pair.take("dead", 2).await;
    pair.set_back(HOUR_US);
    assert_eq!(positions(&pair.take("p", 10).await), [3], "its time is not up yet");
    pair.advance(LEASE_US);
    assert_eq!(attempts(&pair.take("q", 10).await), [(1, 2), (2, 2), (3, 2)]);
    pair.finish().await;
}

pub(crate) async fn set_back_a_delay_lasts_no_longer<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    let claims = pair.take("p", 1).await;
    let failed = [retry(&claims[0], LEASE_US)];
    assert_eq!(pair.complete(&OwnerId::new("p"), &failed).await, [Completed::Accepted]);
    pair.set_back(HOUR_US);
    assert_eq!(pair.take("p", 1).await, []);
    pair.advance(LEASE_US);
    assert_eq!(attempts(&pair.take("p", 1).await), [(1, 2)]);
    pair.finish().await;
}

pub(crate) async fn set_back_the_lock_lasts_no_longer<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.elect("dead").await, Term(1));
    pair.set_back(HOUR_US);
    assert!(matches!(
        pair.lead("b", LEASE_US).await,
        Campaign::Standby { leader: Some(_) }
    ));
    pair.advance(LEASE_US);
    assert_eq!(pair.elect("b").await, Term(2));
    pair.finish().await;
}

/// Whoever notices it first, and whatever he asked for: what others had said before is set back, what is said now is not.
pub(crate) async fn set_back_the_living_keep_what_they_hold<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(4).await;
    let mine = pair.take("p", 2).await;
    let failing = pair.take("q", 1).await;
    assert_eq!(pair.elect("s").await, Term(1));
    pair.set_back(HOUR_US);
    let failed = [retry(&failing[0], LEASE_US)];
    assert_eq!(pair.complete(&OwnerId::new("q"), &failed).await, [Completed::Accepted]);
    assert!(pair.renew(&stay("p", Some(&mine))).await.known);
    assert_eq!(pair.elect("s").await, Term(1), "the same reign");
    pair.advance(LEASE_US - 1);
    assert_eq!(positions(&pair.take("r", 10).await), [4], "nobody lost anything");
    assert_eq!(pair.finish_work("p", &mine).await, [Completed::Accepted; 2]);
    pair.finish().await;
}

pub(crate) async fn set_back_again_and_again<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    pair.take("dead", 1).await;
    pair.elect("dead").await;
    for _ in 0..3 {
        pair.advance(LEASE_US / 4);
        pair.set_back(HOUR_US);
        assert_eq!(pair.take("p", 1).await, []);
        assert!(matches!(
            pair.lead("b", LEASE_US).await,
            Campaign::Standby { leader: Some(_) }
        ));
    }
    pair.advance(LEASE_US);
    assert_eq!(attempts(&pair.take("p", 1).await), [(1, 2)]);
    assert_eq!(pair.elect("b").await, Term(2));
    pair.finish().await;
}

/// Processes read the time before they have the lock, so that a later step may have an earlier time.
pub(crate) async fn a_clock_that_wavers_changes_no_deadline<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    pair.advance(2 * TELL_EVERY_US);
    let mine = pair.take("p", 1).await;
    for _ in 0..20 {
        pair.set_back(SET_BACK_US / 20);
        pair.take("q", 0).await;
        pair.advance(SET_BACK_US / 20);
    }
    pair.advance(LEASE_US - 1);
    assert_eq!(pair.take("q", 1).await, []);
    pair.advance(1);
    assert_eq!(attempts(&pair.take("q", 1).await), [(1, 2)]);
    assert_eq!(pair.finish_work("p", &mine).await, [Completed::Stale]);
    pair.finish().await;
}

pub(crate) async fn set_forward_it_costs_an_attempt<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    let mine = pair.take("p", 1).await;
    pair.advance(HOUR_US);
    let again = pair.take("q", 1).await;
    assert_eq!(attempts(&again), [(1, 2)]);
    assert_eq!(pair.finish_work("p", &mine).await, [Completed::Stale]);
    assert_eq!(pair.finish_work("q", &again).await, [Completed::Accepted]);
    pair.drain("q", "s").await;
    assert_eq!(pair.outputs().await.len(), 1);
    pair.finish().await;
}
