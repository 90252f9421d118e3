//! Send, numbered: each message once, whatever is sent again, and never with a gap.

use bytes::Bytes;
use conga::core::partition::{FORGOTTEN_AT_ONCE, KEPT_US, Numbered, ProducerId, Sent, Session};

use crate::Fixture;
use crate::pair::{Pair, entry};

/// Under the first session of all.
fn of(producer: &str, first: u64, mark: u64) -> Numbered {
    Numbered {
        producer: ProducerId::new(producer),
        session: session(1, 1),
        first,
        mark,
        max_waiting: None,
    }
}

fn session(number: u64, process: u64) -> Session {
    Session { number, process }
}

/// The same under another session.
fn under(session: Session, numbered: Numbered) -> Numbered {
    Numbered { session, ..numbered }
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
    assert_eq!(pair.status().await.waiting, 0);
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
    assert_eq!(pair.status().await.producers, 1, "its session is open");
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
    // To ask makes it known again, and takes the place of another.
    assert_eq!(pair.send_as(Some(&of("c", 1, 1)), &[]).await, accepted(0, 0));
    assert_eq!(pair.send_as(Some(&of("a", 1, 1)), &[]).await, accepted(1, 1));
    // Who goes on after that is told, and has nothing appended.
    assert_eq!(
        pair.send_as(Some(&of("d", 2, 1)), &messages(2, 2)).await,
        Sent::Missing { from: 1 }
    );
    assert_eq!(pair.status().await.producers, 6);
    pair.advance(2 * KEPT_US);
    for (count, name) in [(5, "n1"), (4, "n2"), (3, "n3"), (4, "n4")] {
        pair.send_as(Some(&of(name, 1, 1)), &messages(1, 1)).await;
        assert_eq!(pair.status().await.producers, count, "after {name}");
    }
    pair.finish().await;
}

pub(crate) async fn a_late_send_of_an_earlier_session_is_refused<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let (first, second) = (session(1, u64::MAX), session(2, 0));
    let send = |session, number, entries: Vec<Bytes>| (under(session, of("a b", number, 7)), entries);
    let (numbered, entries) = send(first, 1, messages(1, 3));
    assert_eq!(pair.send_as(Some(&numbered), &entries).await, accepted(3, 7));
    let (opening, none) = send(second, 1, Vec::new());
    assert_eq!(pair.send_as(Some(&opening), &none).await, accepted(3, 7));
    let replaced = Sent::Replaced { session: second };
    for (late, entries) in [
        send(first, 4, messages(4, 5)),
        send(first, 1, messages(1, 5)),
        send(first, 1, messages(1, 3)),
        send(first, 9, messages(9, 9)),
        send(first, 1, Vec::new()),
        // Of one that was killed while it opened its session.
        send(session(2, 1), 4, messages(4, 5)),
        send(session(2, u64::MAX), 1, Vec::new()),
    ] {
        assert_eq!(pair.send_as(Some(&late), &entries).await, replaced, "{late:?}");
    }
    let other = pair.send_as(Some(&of("other", 1, 1)), &messages(9, 9)).await;
    assert_eq!(other, accepted(1, 1), "another name is another matter");
    let (numbered, entries) = send(second, 3, messages(3, 4));
    assert_eq!(pair.send_as(Some(&numbered), &entries).await, accepted(4, 7));
    // Nor when all of it is out.
    pair.drain("p", "s").await;
    let ids: Vec<_> = pair.outputs().await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["m1", "m2", "m3", "m9", "m4"]);
    pair.receive(Some(5), 0).await;
    let (late, entries) = send(first, 4, messages(4, 5));
    assert_eq!(pair.send_as(Some(&late), &entries).await, replaced);
    pair.finish().await;
}

pub(crate) async fn a_session_that_is_opened_again_is_the_same<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    let one = under(session(1, 5), of("a", 1, 3));
    for _ in 0..2 {
        assert_eq!(pair.send_as(Some(&one), &[]).await, accepted(0, 0));
    }
    assert_eq!(pair.send_as(Some(&one), &messages(1, 2)).await, accepted(2, 3));
    assert_eq!(pair.send_as(Some(&one), &[]).await, accepted(2, 3));
    // Two that propose the same: the first has it, and the other is told what to go beyond.
    let two = under(session(2, 6), of("a", 3, 4));
    let other = under(session(2, 7), of("a", 3, 4));
    assert_eq!(pair.send_as(Some(&two), &[]).await, accepted(2, 3));
    let replaced = Sent::Replaced { session: two.session };
    assert_eq!(pair.send_as(Some(&other), &[]).await, replaced);
    assert_eq!(pair.send_as(Some(&two), &messages(3, 3)).await, accepted(3, 4));
    assert_eq!(
        pair.send_as(Some(&under(session(3, 7), other)), &[]).await,
        accepted(3, 4)
    );
    assert_eq!(pair.status().await.producers, 1);
    pair.finish().await;
}

/// As it comes to a store that has come back older than it was, or has lost all or forgotten a name.
pub(crate) async fn a_session_that_is_not_known_counts<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    let lost = under(session(1 << 50, 1), of("a", 5, 3));
    assert_eq!(
        pair.send_as(Some(&lost), &messages(5, 6)).await,
        Sent::Missing { from: 1 },
        "whose messages are lost with it"
    );
    let late = under(session((1 << 50) - 1, 2), of("a", 1, 3));
    let replaced = Sent::Replaced { session: lost.session };
    assert_eq!(pair.send_as(Some(&late), &messages(1, 2)).await, replaced);
    let again = under(lost.session, of("a", 1, 9));
    assert_eq!(pair.send_as(Some(&again), &messages(1, 6)).await, accepted(6, 9));
    // A number has more digits than the one before it.
    for number in [9, 10, 99, 100] {
        let next = under(session(number, 1), of("b", 1, 3));
        assert_eq!(pair.send_as(Some(&next), &[]).await, accepted(0, 0), "{number}");
    }
    let late = under(session(20, 1), of("b", 1, 3));
    let replaced = Sent::Replaced {
        session: session(100, 1),
    };
    assert_eq!(pair.send_as(Some(&late), &messages(1, 1)).await, replaced);
    pair.finish().await;
}

/// The same, with so many waiting at most.
fn at_most(max_waiting: u64, numbered: Numbered) -> Numbered {
    Numbered {
        max_waiting: Some(max_waiting),
        ..numbered
    }
}

pub(crate) async fn nothing_is_appended_where_too_many_would_wait<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    let full = |waiting, last| Sent::Full { waiting, last };
    let none = pair.send_as(Some(&at_most(2, of("a", 1, 7))), &messages(1, 3)).await;
    assert_eq!(none, full(0, 0), "three are more than two, whoever waits");
    assert_eq!(pair.status().await.producers, 1, "its session is open all the same");
    let two = pair.send_as(Some(&at_most(2, of("a", 1, 7))), &messages(1, 2)).await;
    assert_eq!(two, accepted(2, 7));
    let third = at_most(2, of("a", 3, 9));
    assert_eq!(pair.send_as(Some(&third), &messages(3, 3)).await, full(2, 2));
    let asked = pair.send_as(Some(&at_most(1, of("a", 1, 9))), &[]).await;
    assert_eq!(asked, accepted(2, 7), "neither the number nor the mark has changed");
    // Others count, and with a higher limit there is room; without one always.
    pair.send_ids(&["x"]).await;
    assert_eq!(
        pair.send_as(Some(&at_most(4, of("b", 1, 1))), &messages(5, 6)).await,
        full(3, 0)
    );
    assert_eq!(
        pair.send_as(Some(&at_most(4, third)), &messages(3, 3)).await,
        accepted(3, 9)
    );
    let highest = at_most(u64::MAX, of("b", 1, 1));
    assert_eq!(pair.send_as(Some(&highest), &messages(5, 5)).await, accepted(1, 1));
    assert_eq!(
        pair.send_as(Some(&of("b", 2, 2)), &messages(6, 9)).await,
        accepted(5, 2)
    );
    assert_eq!(
        waiting(&pair).await,
        ["m1", "m2", "x", "m3", "m5", "m6", "m7", "m8", "m9"]
    );
    pair.finish().await;
}

pub(crate) async fn what_is_there_already_needs_no_room<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_as(Some(&of("a", 1, 7)), &messages(1, 3)).await;
    let again = at_most(1, of("a", 1, 7));
    assert_eq!(pair.send_as(Some(&again), &messages(1, 3)).await, accepted(3, 7));
    // One more is refused, and told what is there.
    let more = pair.send_as(Some(&at_most(3, of("a", 2, 9))), &messages(2, 4)).await;
    assert_eq!(more, Sent::Full { waiting: 3, last: 3 });
    let more = pair.send_as(Some(&at_most(4, of("a", 2, 9))), &messages(2, 4)).await;
    assert_eq!(more, accepted(4, 9));
    // What is wrong otherwise is told first.
    let gap = pair.send_as(Some(&at_most(1, of("a", 6, 9))), &messages(6, 6)).await;
    assert_eq!(gap, Sent::Missing { from: 5 });
    let next = under(session(2, 1), of("a", 1, 9));
    pair.send_as(Some(&next), &[]).await;
    let late = pair.send_as(Some(&at_most(1, of("a", 5, 9))), &messages(5, 5)).await;
    assert_eq!(late, Sent::Replaced { session: session(2, 1) });
    pair.finish().await;
}

/// What is claimed, free again, processed or delivered does not wait to be claimed for the first time.
pub(crate) async fn only_what_waits_to_be_claimed_counts<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    let bounded = |first| at_most(2, of("a", first, first));
    pair.send_as(Some(&bounded(1)), &messages(1, 2)).await;
    let claims = pair.take("p", 1).await;
    assert_eq!(pair.send_as(Some(&bounded(3)), &messages(3, 3)).await, accepted(3, 3));
    let full = Sent::Full { waiting: 2, last: 3 };
    assert_eq!(pair.send_as(Some(&bounded(4)), &messages(4, 4)).await, full);
    pair.finish_work("p", &claims).await;
    assert_eq!(pair.send_as(Some(&bounded(4)), &messages(4, 4)).await, full);
    pair.drain("p", "s").await;
    assert_eq!(pair.send_as(Some(&bounded(4)), &messages(4, 5)).await, accepted(5, 4));
    pair.take("p", 1).await;
    assert_eq!(pair.send_as(Some(&bounded(6)), &messages(6, 6)).await, accepted(6, 6));
    pair.finish().await;
}
