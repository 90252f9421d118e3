//! Send, numbered: each message once, whatever is sent again, and never with a gap.

use bytes::Bytes;
use conga::core::partition::{FORGOTTEN_AT_ONCE, KEPT_US, Numbered, ProducerId, Sent};

use crate::Fixture;
use crate::pair::{Pair, entry};

fn of(producer: &str, first: u64, mark: u64) -> Numbered {
    Numbered {
        producer: ProducerId::new(producer),
        first,
        mark,
    }
}

/// The messages `m{first}` … `m{last}`.
fn messages(first: u64, last: u64) -> Vec<Bytes> {
    (first..=last).map(|number| entry(&format!("m{number}"))).collect()
}

fn accepted(last: u64, mark: u64) -> Sent {
    Sent::Accepted { last, mark }
}

/// The ids that are waiting, in their order.
async fn waiting(pair: &Pair) -> Vec<String> {
    let claims = pair.take("p", usize::MAX).await;
    claims
        .iter()
        .map(|claim| crate::pair::record(claim).id.to_string())
        .collect()
}

pub(crate) async fn what_is_sent_again_is_there_once<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    let a = "a b";
    assert_eq!(pair.send_as(Some(&of(a, 1, 7)), &messages(1, 3)).await, accepted(3, 7));
    assert_eq!(pair.send_as(Some(&of(a, 1, 7)), &messages(1, 3)).await, accepted(3, 7));
    assert_eq!(
        pair.send_as(Some(&of(a, 2, 9)), &messages(2, 3)).await,
        accepted(3, 7),
        "a part of it, in another batch"
    );
    assert_eq!(pair.status().await.waiting, 3);
    assert_eq!(pair.status().await.producers, 1);
    assert_eq!(waiting(&pair).await, ["m1", "m2", "m3"]);
    pair.finish().await;
}

pub(crate) async fn what_goes_beyond_is_appended<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_as(Some(&of("a", 1, 1)), &messages(1, 2)).await;
    assert_eq!(
        pair.send_as(Some(&of("a", 2, 2)), &messages(2, 4)).await,
        accepted(4, 2)
    );
    assert_eq!(
        pair.send_as(Some(&of("a", 0, 3)), &messages(1, 5)).await,
        accepted(5, 3)
    );
    assert_eq!(
        pair.send_as(Some(&of("a", 6, 4)), &messages(6, 6)).await,
        accepted(6, 4)
    );
    assert_eq!(waiting(&pair).await, ["m1", "m2", "m3", "m4", "m5", "m6"]);
    pair.finish().await;
}

pub(crate) async fn a_gap_is_refused<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(
        pair.send_as(Some(&of("a", 2, 1)), &messages(2, 3)).await,
        Sent::Missing { from: 1 },
        "nobody knows of number 1"
    );
    assert_eq!(pair.status().await.producers, 0);
    pair.send_as(Some(&of("a", 1, 1)), &messages(1, 2)).await;
    assert_eq!(
        pair.send_as(Some(&of("a", 4, 2)), &messages(4, 5)).await,
        Sent::Missing { from: 3 }
    );
    assert_eq!(
        pair.send_as(Some(&of("a", 1 << 50, 2)), &messages(1, 1)).await,
        Sent::Missing { from: 3 }
    );
    assert_eq!(pair.status().await.waiting, 2);
    assert_eq!(
        pair.send_as(Some(&of("a", 3, 2)), &messages(3, 5)).await,
        accepted(5, 2)
    );
    pair.finish().await;
}

pub(crate) async fn nothing_sent_tells_the_last_number<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.send_as(Some(&of("a", 1, 5)), &[]).await, accepted(0, 0));
    assert_eq!(pair.status().await.producers, 0, "asking costs nothing");
    pair.send_as(Some(&of("a", 1, u64::MAX)), &messages(1, 2)).await;
    for first in [0, 1, 9] {
        assert_eq!(pair.send_as(Some(&of("a", first, 5)), &[]).await, accepted(2, u64::MAX));
    }
    assert_eq!(pair.send_as(Some(&of("b", 1, 5)), &[]).await, accepted(0, 0));
    assert_eq!(pair.send_as(None, &messages(9, 9)).await, Sent::UNNUMBERED);
    pair.finish().await;
}

pub(crate) async fn producers_and_those_without_a_name_do_not_mix<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    for name in ["a", "b", "é\"'%{}", "0 0"] {
        assert_eq!(
            pair.send_as(Some(&of(name, 1, 1)), &messages(1, 2)).await,
            accepted(2, 1)
        );
        pair.send(&[entry("x"), entry("x")]).await;
    }
    assert_eq!(
        pair.send_as(Some(&of("b", 3, 2)), &messages(3, 3)).await,
        accepted(3, 2)
    );
    let status = pair.status().await;
    assert_eq!((status.waiting, status.producers), (17, 4));
    pair.finish().await;
}

/// What was sent once stays sent when it is delivered and received.
pub(crate) async fn what_is_out_is_not_sent_again<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_as(Some(&of("a", 1, 1)), &messages(1, 3)).await;
    pair.drain("p", "s").await;
    pair.receive(Some(3), 0).await;
    assert_eq!(
        pair.send_as(Some(&of("a", 1, 1)), &messages(1, 4)).await,
        accepted(4, 1)
    );
    assert_eq!(waiting(&pair).await, ["m4"]);
    pair.finish().await;
}

pub(crate) async fn thousands_in_one_batch<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_as(Some(&of("a", 1, 1)), &messages(1, 700)).await;
    let sent = pair.send_as(Some(&of("a", 1, 2)), &messages(1, 3_500)).await;
    assert_eq!(sent, accepted(3_500, 2));
    let request = conga::core::partition::ClaimRequest {
        window: 10_000,
        ..crate::pair::ask("p", 10_000)
    };
    let claims = pair.claim(&request).await;
    let ids = claims.iter().map(|claim| crate::pair::record(claim).id.to_string());
    assert!(ids.eq((1..=3_500).map(|number| format!("m{number}"))), "in their order");
    pair.finish().await;
}

pub(crate) async fn who_was_not_heard_of_for_long_is_forgotten<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    for name in ["d", "c", "b", "a", "later"] {
        pair.send_as(Some(&of(name, 1, 1)), &messages(1, 1)).await;
        pair.advance(u64::from(name != "d"));
    }
    pair.advance(KEPT_US - 3);
    // Asking is being heard of.
    pair.send_as(Some(&of("b", 1, 1)), &[]).await;
    pair.send_as(Some(&of("new", 1, 1)), &messages(1, 1)).await;
    let status = pair.status().await;
    assert_eq!(status.producers, 6 - FORGOTTEN_AT_ONCE as u64, "the two oldest");
    assert_eq!(pair.send_as(Some(&of("c", 1, 1)), &[]).await, accepted(0, 0));
    assert_eq!(pair.send_as(Some(&of("a", 1, 1)), &[]).await, accepted(1, 1));
    // Who goes on after that is told, and has nothing appended.
    assert_eq!(
        pair.send_as(Some(&of("d", 2, 1)), &messages(2, 2)).await,
        Sent::Missing { from: 1 }
    );
    pair.advance(2 * KEPT_US);
    for (count, name) in [(3, "n1"), (2, "n2"), (3, "n3")] {
        pair.send_as(Some(&of(name, 1, 1)), &messages(1, 1)).await;
        assert_eq!(pair.status().await.producers, count, "after {name}");
    }
    pair.finish().await;
}
