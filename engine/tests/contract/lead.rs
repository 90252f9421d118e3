//! Campaign (law 6): a lock that expires, and a term that grows with each change of hands.

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::Emitted;
use conga::core::term::{Campaign, Term};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair};

fn standby(leader: &str) -> Campaign {
    Campaign::Standby {
        leader: Some(OwnerId::new(leader)),
    }
}

pub(crate) async fn one_leads_and_the_other_waits<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.elect("a").await, Term(1));
    assert_eq!(pair.lead("b", LEASE_US).await, standby("a"));
    let status = pair.status().await;
    assert_eq!((status.leader, status.term), (Some(OwnerId::new("a")), Term(1)));
    pair.finish().await;
}

pub(crate) async fn a_renewal_keeps_the_term<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.elect("a").await, Term(1));
    assert_eq!(pair.elect("a").await, Term(1), "said twice");
    for _ in 0..3 {
        pair.advance(LEASE_US - 1);
        assert_eq!(pair.elect("a").await, Term(1));
    }
    pair.advance(LEASE_US - 1);
    assert_eq!(pair.lead("b", LEASE_US).await, standby("a"));
    pair.lead("a", 10).await;
    pair.advance(10);
    assert_eq!(pair.elect("b").await, Term(2), "a renewal may also shorten");
    pair.finish().await;
}

pub(crate) async fn an_expired_lock_goes_to_the_next_with_a_new_term<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.elect("a").await;
    pair.advance(LEASE_US);
    assert_eq!(pair.status().await.leader, None);
    assert_eq!(pair.elect("b").await, Term(2));
    assert_eq!(pair.lead("a", LEASE_US).await, standby("b"));
    pair.finish().await;
}

pub(crate) async fn an_expired_lock_taken_again_by_its_owner_is_a_new_term<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.elect("a").await;
    pair.advance(LEASE_US);
    assert_eq!(pair.elect("a").await, Term(2));
    assert_eq!(pair.elect("a").await, Term(2));
    pair.finish().await;
}

pub(crate) async fn who_resigns_hands_over_at_once<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.elect("a").await;
    assert_eq!(pair.lead("a", 0).await, Campaign::Standby { leader: None });
    assert_eq!(
        pair.lead("a", 0).await,
        Campaign::Standby { leader: None },
        "said twice"
    );
    assert_eq!(pair.status().await.term, Term(1), "nobody has led since");
    assert_eq!(pair.elect("b").await, Term(2));
    assert_eq!(pair.lead("b", 0).await, Campaign::Standby { leader: None });
    assert_eq!(pair.elect("b").await, Term(3), "coming back is another reign");
    pair.finish().await;
}

pub(crate) async fn only_the_leader_can_resign<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.lead("b", 0).await, Campaign::Standby { leader: None });
    pair.elect("a").await;
    assert_eq!(pair.lead("b", 0).await, standby("a"));
    assert_eq!(pair.elect("a").await, Term(1));
    pair.advance(LEASE_US);
    assert_eq!(pair.lead("b", 0).await, Campaign::Standby { leader: None });
    assert_eq!(pair.elect("b").await, Term(2));
    pair.finish().await;
}

pub(crate) async fn an_old_term_is_fenced<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    let claims = pair.take("p", 3).await;
    pair.finish_work("p", &claims[..1]).await;
    let old = pair.elect("a").await;
    pair.advance(LEASE_US);
    let new = pair.elect("b").await;
    let fenced = Emitted::Fenced { term: new };
    assert_eq!(pair.deliver(old).await, fenced);
    assert_eq!(pair.deliver(Term(99)).await, fenced, "nor one that is still to come");
    assert_eq!(pair.deliver(new).await, Emitted::Advanced { head: Position(2) });
    pair.finish_work("p", &claims[1..]).await;
    assert_eq!(pair.deliver(old).await, fenced);
    assert_eq!(pair.deliver(new).await, Emitted::Advanced { head: Position(4) });
    assert_eq!(pair.outputs().await.len(), 3);
    pair.finish().await;
}

pub(crate) async fn after_the_lock_ran_out_the_term_counts_until_the_next<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    let claims = pair.take("p", 2).await;
    pair.finish_work("p", &claims[..1]).await;
    let term = pair.elect("a").await;
    pair.advance(LEASE_US * 2);
    assert_eq!(pair.deliver(term).await, Emitted::Advanced { head: Position(2) });
    pair.elect("a").await;
    pair.finish_work("p", &claims[1..]).await;
    assert_eq!(pair.deliver(term).await, Emitted::Fenced { term: Term(2) });
    assert_eq!(pair.lead("a", 0).await, Campaign::Standby { leader: None });
    assert_eq!(pair.deliver(Term(2)).await, Emitted::Advanced { head: Position(3) });
    pair.finish().await;
}
