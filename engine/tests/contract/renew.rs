//! Renew: who is alive, what it holds, and who leaves.

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::Completed::{Accepted, Stale};
use conga::core::partition::{ClaimRequest, Limits, RenewRequest, Renewed};

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, ask, attempts, holding, leave, positions, stay};

pub(crate) async fn a_zombie_learns_what_it_has_lost<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(5).await;
    let old = pair.take("p", 3).await;
    pair.finish_work("p", &old[..1]).await;
    pair.advance(LEASE_US);
    let taken = pair.take("q", 1).await;
    assert_eq!(attempts(&taken), [(2, 2)]);
    let renewed = pair.renew(&stay("p", Some(&old))).await;
    assert!(!renewed.known);
    assert_eq!(renewed.lost, [Position(1), Position(2), Position(3)]);
    assert_eq!(renewed.found, []);
    assert_eq!(pair.finish_work("p", &old).await, [Stale; 3]);
    assert_eq!(attempts(&pair.take("p", 1).await), [(3, 2)], "it can begin anew");
    let renewed = pair.renew(&stay("p", Some(&old))).await;
    assert_eq!(
        renewed.lost,
        [Position(1), Position(2), Position(3)],
        "of another attempt"
    );
    assert_eq!(attempts(&renewed.found), [(3, 2)]);
    pair.finish().await;
}

pub(crate) async fn a_zombie_that_was_not_missed_keeps_all<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    let claims = pair.take("p", 2).await;
    pair.advance(LEASE_US * 9);
    assert!(pair.status().await.processors.is_empty());
    let renewed = pair.renew(&stay("p", Some(&claims))).await;
    assert_eq!(
        renewed,
        Renewed {
            known: true,
            blocking: Some(holding(&claims[0])),
            ..Renewed::default()
        }
    );
    assert_eq!(pair.take("q", 2).await, []);
    assert_eq!(pair.finish_work("p", &claims).await, [Accepted; 2]);
    pair.finish().await;
}

pub(crate) async fn the_claim_whose_reply_was_lost_is_found<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(5).await;
    let known = pair.take("p", 2).await;
    let lost_reply = pair.take("p", 2).await;
    pair.advance(10);
    let renewed = pair.renew(&stay("p", Some(&known))).await;
    assert_eq!((renewed.known, renewed.lost.len()), (true, 0));
    assert_eq!(renewed.found, lost_reply, "with entry, attempt and time of the claim");
    assert_eq!(
        pair.renew(&stay("p", Some(&known))).await,
        renewed,
        "as often as it is asked"
    );
    assert_eq!(pair.renew(&stay("p", None)).await.found, [], "only if it is asked");
    assert_eq!(pair.finish_work("p", &renewed.found).await, [Accepted; 2]);
    let renewed = pair.renew(&stay("p", Some(&lost_reply))).await;
    assert_eq!(renewed.lost, [Position(3), Position(4)], "done is not held");
    assert_eq!(positions(&renewed.found), [1, 2]);
    pair.finish().await;
}

/// Without being asked to compare: an owner that does not know of it would hold up the line for ever.
pub(crate) async fn who_holds_the_head_is_told<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    assert_eq!(pair.renew(&stay("p", None)).await.blocking, None, "nobody has it");
    let claims = pair.take("p", 2).await;
    pair.take("q", 1).await;
    assert_eq!(pair.renew(&stay("p", None)).await.blocking, Some(holding(&claims[0])));
    assert_eq!(pair.renew(&stay("q", None)).await.blocking, None, "another has it");
    pair.finish_work("p", &claims[..1]).await;
    assert_eq!(pair.renew(&stay("p", None)).await.blocking, None, "it is processed");
    let term = pair.elect("s").await;
    pair.deliver(term).await;
    assert_eq!(pair.renew(&stay("p", None)).await.blocking, Some(holding(&claims[1])));
    assert_eq!(
        pair.renew(&stay("p", Some(&claims))).await.blocking,
        Some(holding(&claims[1])),
        "compared or not"
    );
    pair.finish().await;
}

pub(crate) async fn what_is_found_is_limited<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    let entries = [50_usize, 500, 50, 50].map(|size| vec![b'x'; size].into());
    pair.send(&entries).await;
    let claims = pair.take("p", 4).await;
    let limits = Limits {
        entry_bytes: 100,
        total_bytes: 100,
    };
    let request = |held: &[_]| RenewRequest {
        limits,
        ..stay("p", Some(held))
    };
    let first = pair.renew(&request(&[])).await;
    assert_eq!(positions(&first.found), [1, 2, 3]);
    let second = pair.renew(&request(&claims[..3])).await;
    assert_eq!(positions(&second.found), [4]);
    pair.finish().await;
}

pub(crate) async fn who_leaves_gives_all_back<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(4).await;
    let claims = pair.take("p", 3).await;
    pair.finish_work("p", &claims[1..2]).await;
    assert!(pair.renew(&leave("p")).await.known);
    assert!(pair.status().await.processors.is_empty());
    assert_eq!(pair.finish_work("p", &claims).await, [Stale; 3]);
    assert_eq!(attempts(&pair.take("q", 9).await), [(1, 2), (3, 2), (4, 1)]);
    pair.finish().await;
}

pub(crate) async fn who_leaves_twice_or_was_never_there<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    let claims = pair.take("p", 1).await;
    assert!(!pair.renew(&leave("stranger")).await.known);
    assert!(pair.renew(&leave("p")).await.known);
    assert!(!pair.renew(&leave("p")).await.known);
    let held = RenewRequest {
        held: Some(claims.iter().map(holding).collect()),
        ..leave("p")
    };
    assert_eq!(
        pair.renew(&held).await,
        Renewed::default(),
        "who leaves compares nothing"
    );
    assert!(!pair.renew(&stay("newcomer", None)).await.known);
    assert!(pair.renew(&stay("newcomer", None)).await.known);
    pair.finish().await;
}

pub(crate) async fn a_lease_lasts_until_its_deadline_and_no_longer<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    pair.take("p", 1).await;
    pair.advance(LEASE_US - 1);
    pair.renew(&stay("p", None)).await;
    pair.advance(LEASE_US - 1);
    assert_eq!(pair.status().await.processors, [OwnerId::new("p")]);
    assert_eq!(positions(&pair.take("q", 1).await), [2]);
    pair.advance(1);
    assert_eq!(pair.status().await.processors, [OwnerId::new("q")]);
    assert_eq!(attempts(&pair.take("q", 1).await), [(1, 2)]);
    // A renewal may also shorten.
    let short = RenewRequest {
        lease_us: 5,
        ..stay("q", None)
    };
    pair.renew(&short).await;
    pair.advance(5);
    assert_eq!(attempts(&pair.take("r", 9).await), [(1, 3), (2, 2)]);
    pair.finish().await;
}

pub(crate) async fn owners_may_have_odd_names<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let names = [
        "host:4711/a",
        "{orders}",
        "it's \"quoted\"",
        "é💃",
        "*[?]",
        "%s\\0",
        "a,b;c|d",
        "1e3",
    ];
    pair.send_many(names.len() as u64).await;
    for name in names {
        pair.take(name, 1).await;
    }
    assert_eq!(pair.status().await.processors.len(), names.len());
    pair.advance(LEASE_US);
    let request = ClaimRequest {
        max: 2,
        ..ask(names[2], 1)
    };
    let claims = pair.claim(&request).await;
    assert_eq!(attempts(&claims), [(1, 2), (2, 2)]);
    for name in names {
        pair.renew(&stay(name, Some(&claims))).await;
        pair.renew(&leave(name)).await;
    }
    pair.drain(names[3], names[4]).await;
    pair.finish().await;
}
