//! Receive: in order, and until it is acknowledged; by the active consumer and nobody else.

use conga::core::lease::OwnerId;
use conga::core::partition::Received;
use conga::core::term::{Campaign, Reign, Term};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, place};

#[expect(clippy::unnecessary_wraps, reason = "as a request has it")]
fn reign(name: &str, term: u64) -> Option<Reign> {
    Some(Reign {
        owner: OwnerId::new(name),
        term: Term(term),
    })
}

fn fenced(term: u64) -> Received {
    Received::Fenced { term: Term(term) }
}

fn active(term: u64) -> Campaign {
    Campaign::Leader { term: Term(term) }
}

fn standby(name: &str) -> Campaign {
    Campaign::Standby {
        leader: Some(OwnerId::new(name)),
    }
}

/// With so many outputs.
async fn with_outputs<F: Fixture>(count: u64) -> Pair {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(count).await;
    pair.drain("p", "s").await;
    pair
}

pub(crate) async fn one_is_active_and_the_others_are_fenced<F: Fixture>() {
    let pair = with_outputs::<F>(3).await;
    assert_eq!(pair.stand("a", LEASE_US).await, active(1));
    assert_eq!(pair.stand("b", LEASE_US).await, standby("a"));
    let status = pair.status().await;
    assert_eq!(
        (status.consumer, status.consumer_term),
        (Some(OwnerId::new("a")), Term(1))
    );
    assert_eq!(status.leader, Some(OwnerId::new("s")), "another seat");
    for other in [None, reign("a", 0), reign("a", 2), reign("b", 1)] {
        assert_eq!(pair.receive_as(other.clone(), Some(3), 9).await, fenced(1), "{other:?}");
    }
    let outputs = pair.receive_as(reign("a", 1), None, 9).await.outputs();
    assert_eq!(outputs.len(), 3, "and nothing was taken off");
    pair.finish().await;
}

pub(crate) async fn an_old_reign_neither_acknowledges_nor_gets_anything<F: Fixture>() {
    let pair = with_outputs::<F>(4).await;
    pair.stand("a", LEASE_US).await;
    let mine = pair.receive_as(reign("a", 1), None, 2).await.outputs();
    pair.advance(LEASE_US);
    assert_eq!(pair.status().await.consumer, None);
    assert_eq!(
        pair.receive_as(reign("a", 1), None, 2).await.outputs(),
        mine,
        "as long as there is no other"
    );
    assert_eq!(pair.stand("b", LEASE_US).await, active(2));
    assert_eq!(pair.receive_as(reign("a", 1), Some(2), 9).await, fenced(2));
    assert_eq!(
        pair.receive_as(reign("b", 2), None, 2).await.outputs(),
        mine,
        "again, in order"
    );
    let next = pair.receive_as(reign("b", 2), Some(1), 9).await.outputs();
    assert_eq!(next.iter().map(|output| place(output).0).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(pair.receive_as(reign("a", 1), Some(4), 0).await, fenced(2));
    assert_eq!(pair.stand("a", LEASE_US).await, standby("b"));
    assert_eq!(pair.status().await.output, 3);
    pair.finish().await;
}

pub(crate) async fn who_gives_it_up_hands_over_at_once<F: Fixture>() {
    let pair = with_outputs::<F>(2).await;
    pair.stand("a", LEASE_US).await;
    assert_eq!(pair.stand("b", 0).await, standby("a"), "not its to give up");
    pair.advance(5);
    assert_eq!(pair.stand("a", LEASE_US).await, active(1), "renewed");
    assert_eq!(pair.stand("a", 0).await, Campaign::Standby { leader: None });
    assert_eq!(
        pair.stand("a", 0).await,
        Campaign::Standby { leader: None },
        "said twice"
    );
    let outputs = pair.receive_as(reign("a", 1), None, 9).await.outputs();
    assert_eq!(outputs.len(), 2, "its reign is the latest still");
    pair.advance(7);
    assert_eq!(pair.stand("b", LEASE_US).await, active(2));
    let status = pair.status().await;
    assert_eq!(status.now.since(status.consumer_since), 0);
    assert_eq!(pair.receive_as(reign("a", 1), Some(2), 9).await, fenced(2));
    assert_eq!(pair.stand("b", 0).await, Campaign::Standby { leader: None });
    assert_eq!(
        pair.stand("b", LEASE_US).await,
        active(3),
        "coming back is another reign"
    );
    assert_eq!(pair.receive_as(reign("b", 2), Some(2), 9).await, fenced(3));
    pair.finish().await;
}

pub(crate) async fn a_consumers_name_may_be_odd<F: Fixture>() {
    let pair = with_outputs::<F>(1).await;
    for (name, term) in [("a|5|b", 1), ("|", 2), ("%d+{é}\"'", 3)] {
        assert_eq!(pair.stand(name, LEASE_US).await, active(term));
        assert_eq!(pair.stand("other", LEASE_US).await, standby(name));
        assert_eq!(pair.receive_as(reign(name, term), None, 9).await.outputs().len(), 1);
        pair.stand(name, 0).await;
        assert_eq!(pair.receive_as(reign(name, term), None, 9).await.outputs().len(), 1);
    }
    pair.finish().await;
}

pub(crate) async fn set_back_a_consumers_lock_lasts_no_longer<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.stand("dead", LEASE_US).await;
    pair.set_back(3_600_000_000);
    assert_eq!(pair.stand("b", LEASE_US).await, standby("dead"));
    pair.advance(LEASE_US);
    assert_eq!(pair.stand("b", LEASE_US).await, active(2));
    pair.stand("b", 0).await;
    pair.set_back(3_600_000_000);
    assert_eq!(pair.stand("c", LEASE_US).await, active(3), "given up is given up");
    pair.finish().await;
}

pub(crate) async fn stays_until_it_is_acknowledged<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(5).await;
    pair.drain("p", "s").await;
    let two = pair.receive(None, 2).await;
    assert_eq!(two.len(), 2);
    assert_eq!(pair.receive(None, 2).await, two, "as they were");
    let next = pair.receive(Some(1), 2).await;
    assert_eq!(next[0], two[1]);
    assert_eq!(pair.receive(Some(2), 0).await.len(), 0);
    assert_eq!(pair.status().await.output, 3);
    let rest = pair.receive(None, 9).await;
    assert_eq!(rest.iter().map(|output| place(output).0).collect::<Vec<_>>(), [3, 4, 5]);
    pair.finish().await;
}

pub(crate) async fn acknowledged_twice_or_beyond<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    pair.drain("p", "s").await;
    let after = pair.receive(Some(2), 9).await;
    assert_eq!(pair.receive(Some(2), 9).await, after);
    assert_eq!(pair.receive(Some(1), 9).await, after, "an older word takes nothing");
    assert_eq!(pair.receive(Some(0), 9).await, after);
    assert!(pair.receive(Some(u64::MAX), 9).await.is_empty());
    pair.send_ids(&["later"]).await;
    pair.drain("p", "s").await;
    assert_eq!(
        pair.outputs().await,
        [(4, "later".to_owned())],
        "what came since is still there"
    );
    pair.finish().await;
}
