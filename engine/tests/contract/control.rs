//! Control (law 7): paused, draining, limited, for all processors at once.

use conga::core::partition::{Claim, Control, ControlRequest, Flow, Rate};
use conga::core::shape::{Order, Shape};

use crate::Fixture;
use crate::in_place::keyed;
use crate::pair::{LEASE_US, Pair, attempts, leave, positions, retry};
use conga::core::lease::OwnerId;

const PAUSE: ControlRequest = ControlRequest::Flow(Flow::Paused);
const DRAIN: ControlRequest = ControlRequest::Flow(Flow::Draining);
const RESUME: ControlRequest = ControlRequest::Flow(Flow::Running);

fn limit(rate: f64) -> ControlRequest {
    ControlRequest::Rate(Some(Rate::per_second(rate).expect("a rate")))
}

pub(crate) async fn paused_nothing_is_handed_out<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(6).await;
    let claims = pair.take("p", 3).await;
    let at = pair.now();
    assert_eq!(pair.control(&PAUSE).await.since, at);
    pair.advance(5);
    assert_eq!(pair.control(&PAUSE).await.since, at, "said again it changes nothing");
    pair.complete(&OwnerId::new("p"), &[retry(&claims[0], 0)]).await;
    pair.finish_work("p", &claims[1..2]).await;
    pair.renew(&leave("p")).await;
    assert_eq!(pair.take("q", 9).await, []);
    pair.advance(2 * LEASE_US);
    assert_eq!(pair.take("q", 9).await, []);
    pair.control(&RESUME).await;
    assert_eq!(
        attempts(&pair.take("q", 9).await),
        [(1, 2), (3, 2), (4, 1), (5, 1), (6, 1)]
    );
    pair.drain("r", "s").await;
    pair.finish().await;
}

pub(crate) async fn what_is_in_flight_is_delivered_while_paused<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 2).await;
    pair.control(&PAUSE).await;
    pair.finish_work("p", &claims).await;
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.outputs().await.len(), 2);
    pair.finish().await;
}

pub(crate) async fn draining_only_what_was_claimed_is_handed_out<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(5).await;
    pair.take("p", 2).await;
    pair.control(&DRAIN).await;
    assert_eq!(pair.take("q", 9).await, []);
    assert_eq!(pair.control(&ControlRequest::Settle).await.flow, Flow::Draining);
    pair.renew(&leave("p")).await;
    let again = pair.take("q", 9).await;
    assert_eq!(attempts(&again), [(1, 2), (2, 2)]);
    pair.finish_work("q", &again).await;
    assert_eq!(
        pair.control(&ControlRequest::Settle).await.flow,
        Flow::Draining,
        "not delivered"
    );
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.control(&ControlRequest::Settle).await.flow, Flow::Paused);
    assert_eq!(pair.take("q", 9).await, []);
    pair.control(&RESUME).await;
    assert_eq!(
        pair.control(&ControlRequest::Settle).await.flow,
        Flow::Running,
        "nothing to settle"
    );
    assert_eq!(positions(&pair.take("q", 9).await), [3, 4, 5]);
    pair.finish().await;
}

pub(crate) async fn an_empty_line_is_drained_at_once<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.status().await.control, Control::default());
    pair.control(&DRAIN).await;
    assert_eq!(pair.control(&ControlRequest::Settle).await.flow, Flow::Paused);
    pair.finish().await;
}

pub(crate) async fn a_rate_holds_over_all_processors<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(100).await;
    pair.control(&limit(50.0)).await;
    assert_eq!(positions(&pair.take("p", 9).await), [1]);
    assert_eq!(pair.take("q", 9).await, []);
    pair.advance(19_999);
    assert_eq!(pair.take("q", 9).await, []);
    pair.advance(1);
    assert_eq!(positions(&pair.take("q", 9).await), [2]);
    pair.advance(100_000);
    assert_eq!(positions(&pair.take("p", 2).await), [3, 4]);
    assert_eq!(positions(&pair.take("q", 9).await), [5, 6, 7]);
    // What is free again goes out all the same, and counts for nothing.
    pair.renew(&leave("q")).await;
    assert_eq!(positions(&pair.take("p", 9).await), [2, 5, 6, 7]);
    pair.advance(20_000);
    assert_eq!(positions(&pair.take("p", 9).await), [8]);
    pair.control(&limit(50.0)).await;
    assert_eq!(pair.take("p", 9).await, [], "said again it gives nothing more");
    pair.advance(LEASE_US / 2);
    assert_eq!(pair.take("p", 99).await.len(), 11, "the burst, and one");
    pair.control(&ControlRequest::Rate(None)).await;
    assert_eq!(pair.take("p", 99).await.len(), 81);
    pair.finish().await;
}

pub(crate) async fn a_slow_rate_is_exact<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(9).await;
    pair.control(&limit(0.5)).await;
    let mut taken = Vec::new();
    for tick in 0..=40 {
        taken.extend(pair.take("p", 9).await.iter().map(|claim| (tick, claim.position.0)));
        pair.advance(100_000);
    }
    assert_eq!(taken, [(0, 1), (20, 2), (40, 3)]);
    pair.finish().await;
}

pub(crate) async fn a_clock_set_back_neither_stops_a_rate_nor_adds<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(50).await;
    pair.control(&limit(10.0)).await;
    assert_eq!(pair.take("p", 9).await.len(), 1);
    pair.set_back(3_600_000_000);
    assert_eq!(pair.take("p", 9).await, []);
    pair.advance(100_000);
    assert_eq!(pair.take("p", 9).await.len(), 1);
    pair.set_back(500_000);
    assert_eq!(pair.take("p", 9).await, []);
    pair.advance(500_000);
    assert_eq!(pair.take("p", 9).await, [], "counted once");
    pair.advance(100_000);
    assert_eq!(pair.take("p", 9).await.len(), 1);
    pair.finish().await;
}

/// A line by key and one at a time, with as many messages of each key as it is said, one key after the other.
async fn serial<F: Fixture>(keys: &[(&str, usize)]) -> Pair {
    let pair = Pair::open::<F>().await;
    pair.shape(Some(Shape::of(Order::Key { serial: true }))).await;
    for (key, count) in keys {
        let entries: Vec<_> = (0..*count).map(|nth| keyed(&format!("{key}{nth}"), key)).collect();
        pair.send(&entries).await;
    }
    pair
}

/// One busy key, whose messages are done at once: each is handed out for the first time when its turn has come.
pub(crate) async fn what_was_passed_over_counts_when_it_goes_out<F: Fixture>() {
    let pair = serial::<F>(&[("a", 60), ("b", 2)]).await;
    let claims = pair.take("p", 9).await;
    assert_eq!(positions(&claims), [1, 61]);
    pair.control(&limit(50.0)).await;
    pair.finish_work("p", &claims).await;
    let mut taken: Vec<Claim> = Vec::new();
    for tick in 0..=50_u64 {
        // As often as it is asked within one moment.
        for owner in ["p", "q", "p"] {
            let claims = pair.take(owner, 9).await;
            pair.finish_work(owner, &claims).await;
            taken.extend(claims);
        }
        assert_eq!(taken.len() as u64, 1 + tick / 2, "after {tick} times 10 ms");
        pair.advance(10_000);
    }
    assert_eq!(positions(&taken), (2..=27).collect::<Vec<_>>(), "lowest position first");
    pair.advance(LEASE_US);
    let mut burst = 0;
    loop {
        let claims = pair.take("p", 99).await;
        pair.finish_work("p", &claims).await;
        burst += claims.len();
        if claims.is_empty() {
            break;
        }
    }
    assert_eq!(burst, 11, "the burst, and one");
    pair.control(&ControlRequest::Rate(None)).await;
    for _ in 0..25 {
        let claims = pair.take("p", 99).await;
        pair.finish_work("p", &claims).await;
    }
    assert_eq!(pair.outputs().await.len(), 62);
    pair.finish().await;
}

/// What is free again neither counts nor waits for the rate, but for what stands before it.
pub(crate) async fn what_is_free_again_waits_only_for_what_stands_before_it<F: Fixture>() {
    let pair = serial::<F>(&[("a", 2), ("b", 1), ("c", 2)]).await;
    let claims = pair.take("p", 9).await;
    assert_eq!(positions(&claims), [1, 3, 4], "2 and 5 are passed over");
    // One at once, and no more for a long time.
    pair.control(&limit(1.0)).await;
    pair.finish_work("p", &claims[..1]).await;
    assert_eq!(attempts(&pair.take("p", 9).await), [(2, 1)], "it takes what there is");
    pair.finish_work("p", &claims[2..]).await;
    pair.complete(&OwnerId::new("p"), &[retry(&claims[1], 0)]).await;
    assert_eq!(attempts(&pair.take("q", 9).await), [(3, 2)]);
    pair.advance(LEASE_US / 2);
    assert_eq!(pair.take("q", 9).await, [], "5 waits");
    pair.renew(&leave("p")).await;
    assert_eq!(attempts(&pair.take("q", 9).await), [(2, 2)]);
    pair.advance(LEASE_US / 2);
    pair.renew(&leave("q")).await;
    assert_eq!(attempts(&pair.take("r", 9).await), [(2, 3), (3, 3), (5, 1)]);
    pair.finish().await;
}

/// It was claimed, so a line that drains hands it out; at the rate.
pub(crate) async fn a_line_that_drains_hands_out_what_was_passed_over<F: Fixture>() {
    let pair = serial::<F>(&[("a", 3), ("b", 2)]).await;
    let claims = pair.take("p", 2).await;
    assert_eq!(positions(&claims), [1, 4]);
    pair.control(&limit(1.0)).await;
    pair.control(&DRAIN).await;
    pair.finish_work("p", &claims).await;
    let second = pair.take("p", 9).await;
    assert_eq!(positions(&second), [2]);
    pair.finish_work("p", &second).await;
    assert_eq!(pair.take("p", 9).await, [], "3 has to wait for the rate");
    pair.control(&PAUSE).await;
    pair.advance(LEASE_US);
    assert_eq!(pair.take("p", 9).await, []);
    pair.control(&DRAIN).await;
    let third = pair.take("p", 9).await;
    assert_eq!(positions(&third), [3]);
    pair.finish_work("p", &third).await;
    assert_eq!(
        pair.control(&ControlRequest::Settle).await.flow,
        Flow::Paused,
        "5 was not claimed"
    );
    pair.finish().await;
}
