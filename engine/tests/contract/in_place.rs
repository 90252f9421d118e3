//! Where not all messages keep their order: order by key, serial or not, and no order.

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{
    Claim, ClaimRequest, Cursor, EmitRequest, Emitted, Keep, Limit, PASS_MOST, Processed, REACH, Ready, Turn,
};
use conga::core::shape::{Order, Shape};
use conga::core::term::Term;

use crate::Fixture;
use crate::pair::{LEASE_US, Pair, ask, attempts, dead, done, leave, positions, retry, stay, trim};

const KEY: Order = Order::Key { serial: false };
const SERIAL: Order = Order::Key { serial: true };

async fn open<F: Fixture>(order: Order) -> Pair {
    let pair = Pair::open::<F>().await;
    pair.shape(Some(Shape::of(order))).await;
    pair
}

/// An entry of this id and key; without a key where it is empty.
pub(crate) fn keyed(id: &str, key: &str) -> Bytes {
    if key.is_empty() {
        return crate::pair::entry(id);
    }
    let (id, key) = (serde_json::Value::from(id), serde_json::Value::from(key));
    format!("{{\"id\":{id},\"key\":{key},\"payload\":{{\"of\":{id}}}}}").into()
}

/// Sends one message for each of these keys; their ids are `m1`, `m2` … .
async fn send_keys(pair: &Pair, keys: &[&str]) {
    let entries: Vec<_> = (1..)
        .zip(keys)
        .map(|(nth, key)| keyed(&format!("m{nth}"), key))
        .collect();
    pair.send(&entries).await;
}

async fn end(pair: &Pair, claim: &Claim) {
    pair.complete(&OwnerId::new("p"), &[done(claim)]).await;
}

async fn out(pair: &Pair) -> Vec<u64> {
    pair.outputs().await.into_iter().map(|(position, _)| position).collect()
}

pub(crate) async fn without_order_what_is_done_goes_out<F: Fixture>() {
    let pair = open::<F>(Order::None).await;
    pair.send_many(5).await;
    let claims = pair.take("p", 5).await;
    for nth in [3, 1, 0] {
        end(&pair, &claims[nth]).await;
    }
    assert_eq!(out(&pair).await, [4, 2, 1]);
    assert_eq!(pair.status().await.head, Position(3), "it moves over what is delivered");
    pair.finish_work("p", &[claims[4].clone(), claims[2].clone()]).await;
    assert_eq!(out(&pair).await, [4, 2, 1, 5, 3]);
    assert_eq!(pair.status().await.head, Position(6));
    pair.finish().await;
}

pub(crate) async fn by_key_a_result_waits_for_its_key_alone<F: Fixture>() {
    let pair = open::<F>(KEY).await;
    send_keys(&pair, &["a", "b", "a", "", "b", "a", ""]).await;
    let claims = pair.take("p", 7).await;
    for nth in [2, 6, 1, 4, 5] {
        end(&pair, &claims[nth]).await;
    }
    assert_eq!(out(&pair).await, [7, 2, 5], "3 and 6 wait for 1");
    assert_eq!(pair.status().await.processed, 2);
    end(&pair, &claims[0]).await;
    assert_eq!(out(&pair).await, [7, 2, 5, 1, 3, 6]);
    assert_eq!(pair.status().await.head, Position(4));
    pair.finish().await;
}

pub(crate) async fn what_fails_holds_up_its_key_alone<F: Fixture>() {
    let pair = open::<F>(KEY).await;
    send_keys(&pair, &["a", "b", "a", "b"]).await;
    let claims = pair.take("p", 4).await;
    let p = OwnerId::new("p");
    let ends = [retry(&claims[0], 1_000), dead(&claims[3], true), done(&claims[2])];
    pair.complete(&p, &ends).await;
    assert!(out(&pair).await.is_empty(), "a tombstone waits for its turn too");
    pair.complete(&p, &[dead(&claims[1], false)]).await;
    assert_eq!(out(&pair).await, [4], "and a dead letter that leaves none has had it");
    pair.advance(1_000);
    let again = pair.take("q", 9).await;
    assert_eq!(attempts(&again), [(1, 2)]);
    pair.complete(&OwnerId::new("q"), &[dead(&again[0], true)]).await;
    assert_eq!(out(&pair).await, [4, 1, 3]);
    pair.finish().await;
}

pub(crate) async fn whoever_is_to_deliver_the_store_does<F: Fixture>() {
    for delivery in [conga::store::Delivery::Leader, conga::store::Delivery::Store] {
        let mut pair = open::<F>(KEY).await;
        pair.delivery = delivery;
        send_keys(&pair, &["a", "b", "a"]).await;
        let claims = pair.take("p", 3).await;
        end(&pair, &claims[1]).await;
        end(&pair, &claims[2]).await;
        assert_eq!(out(&pair).await, [2]);
        // A sequencer finds nothing to do, and what it would make up is refused.
        assert!(pair.follow(Cursor::default(), 9).await.entries.is_empty());
        let term = pair.elect("s").await;
        let processed = Processed {
            cursor: Cursor::default(),
            position: Position(1),
            turn: Turn::Nothing,
        };
        let entries = vec![Ready {
            processed,
            sequencing: pair.now(),
        }];
        let head = Position(1);
        let request = EmitRequest { term, head, entries };
        assert_eq!(pair.emit(&request).await, Emitted::Moved { head });
        let term = Term(9);
        let fenced = pair.emit(&EmitRequest { term, ..request }).await;
        assert!(matches!(fenced, Emitted::Fenced { .. }));
        pair.finish().await;
    }
}

pub(crate) async fn the_window_counts_what_is_not_delivered<F: Fixture>() {
    let pair = open::<F>(Order::None).await;
    pair.send_many(2 * 3 * REACH).await;
    let ask = ClaimRequest {
        window: 3,
        ..ask("p", usize::MAX)
    };
    let stuck = pair.claim(&ask).await;
    assert_eq!(positions(&stuck), [1, 2, 3]);
    assert!(pair.claim(&ask).await.is_empty());
    pair.finish_work("p", &stuck[1..]).await;
    let mut last = 3;
    loop {
        let claims = pair.claim(&ask).await;
        let Some(newest) = claims.last() else { break };
        last = newest.position.0;
        pair.finish_work("p", &claims).await;
    }
    assert_eq!(last, 3 * REACH, "so far and no further without the first");
    pair.finish_work("p", &stuck[..1]).await;
    assert_eq!(pair.status().await.head, Position(last + 1));
    assert_eq!(pair.claim(&ask).await.len(), 3);
    pair.finish().await;
}

pub(crate) async fn one_of_a_key_at_a_time<F: Fixture>() {
    let pair = open::<F>(SERIAL).await;
    send_keys(&pair, &["a", "a", "b", "", "a", "b", ""]).await;
    let claims = pair.take("p", 9).await;
    assert_eq!(positions(&claims), [1, 3, 4, 7]);
    assert_eq!(pair.status().await.in_flight, 7, "what is passed over counts");
    end(&pair, &claims[1]).await;
    assert_eq!(attempts(&pair.take("p", 9).await), [(6, 1)]);
    end(&pair, &claims[0]).await;
    let second = pair.take("p", 9).await;
    assert_eq!(attempts(&second), [(2, 1)], "its first attempt, in its turn");
    end(&pair, &second[0]).await;
    let third = pair.take("p", 9).await;
    assert_eq!(positions(&third), [5]);
    pair.send(&[keyed("m8", "a"), keyed("m9", "c")]).await;
    assert_eq!(positions(&pair.take("p", 9).await), [9]);
    pair.finish_work("p", &third).await;
    assert_eq!(positions(&pair.take("p", 9).await), [8]);
    assert_eq!(out(&pair).await, [3, 1, 2, 5]);
    pair.finish().await;
}

pub(crate) async fn whatever_happens_to_it_the_next_of_its_key_waits<F: Fixture>() {
    let pair = open::<F>(SERIAL).await;
    send_keys(&pair, &["a", "a", "a"]).await;
    let p = OwnerId::new("p");
    let first = pair.take("p", 9).await;
    pair.complete(&p, &[retry(&first[0], 5)]).await;
    assert!(pair.take("p", 9).await.is_empty(), "delayed");
    pair.set_back(3_000_000);
    assert!(pair.take("p", 9).await.is_empty(), "the clock was set back");
    pair.advance(10);
    let again = pair.take("p", 9).await;
    assert_eq!(attempts(&again), [(1, 2)], "due");
    pair.renew(&leave("p")).await;
    let again = pair.take("q", 9).await;
    assert_eq!(attempts(&again), [(1, 3)], "left behind");
    pair.advance(LEASE_US);
    let again = pair.take("p", 9).await;
    assert_eq!(attempts(&again), [(1, 4)], "expired");
    pair.complete(&p, &[retry(&again[0], 0)]).await;
    let again = pair.take("p", 1).await;
    assert_eq!(attempts(&again), [(1, 5)], "given back");
    pair.complete(&p, &[dead(&again[0], false)]).await;
    assert_eq!(attempts(&pair.take("p", 9).await), [(2, 1)], "dead is done");
    pair.finish().await;
}

pub(crate) async fn what_is_passed_over_counts_and_is_bounded<F: Fixture>() {
    let pair = open::<F>(SERIAL).await;
    let count = PASS_MOST + 20;
    let mut entries: Vec<_> = (0..count).map(|nth| keyed(&format!("h{nth}"), "hot")).collect();
    entries.push(keyed("c", "cold"));
    pair.send(&entries).await;
    let narrow = ClaimRequest {
        window: 5,
        ..ask("p", 9)
    };
    assert_eq!(positions(&pair.claim(&narrow).await), [1]);
    assert_eq!(pair.status().await.next, Position(6), "the window is full");
    let wide = ClaimRequest {
        window: u64::MAX,
        ..ask("p", 9)
    };
    assert!(pair.claim(&wide).await.is_empty());
    assert_eq!(
        pair.status().await.next,
        Position(6 + PASS_MOST as u64),
        "one step passes over so many"
    );
    assert_eq!(positions(&pair.claim(&wide).await), [count as u64 + 1]);
    pair.finish().await;
}

/// Messages with these entries, each with one before it that has the key `k`: which of them are held back?
async fn held_back<F: Fixture>(entries: &[Vec<u8>]) -> Vec<bool> {
    let mut held = Vec::new();
    let pair = open::<F>(SERIAL).await;
    pair.send(&[keyed("first", "k")]).await;
    assert_eq!(pair.take("p", 1).await.len(), 1);
    for entry in entries {
        pair.send(&[Bytes::copy_from_slice(entry)]).await;
        held.push(pair.take("p", 1).await.is_empty());
    }
    pair.finish().await;
    held
}

pub(crate) async fn a_key_is_read_however_it_is_written<F: Fixture>() {
    let deep = |depth: usize| {
        format!(
            "{{\"payload\":{}{},\"key\":\"k\"}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    let huge = format!("{{\"payload\":\"{}\",\"key\":\"k\"}}", "\\\"{key".repeat(300_000));
    let same: Vec<Vec<u8>> = [
        r#"{"payload":1,"key":"k"}"#.to_owned(),
        " {\"\\u006bey\"\t:\n\"\\u006b\",\"payload\":0}".to_owned(),
        r#"{"payload":{"key":"x"},"x":["key","y"],"key":"k"}"#.to_owned(),
        r#"{"payload":"\\\"key\":\"x\"","key":"k"}"#.to_owned(),
        r#"{"key":null,"key":"k","payload":1}"#.to_owned(),
        r#"{"key":"k","key":"x","payload":1}"#.to_owned(),
        r#"{"payload":NaN,"n":1e999999,"key":"k"}"#.to_owned(),
        deep(100),
        deep(3_000),
        huge,
        r#"{"key":"k""#.to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([b"{\"payload\":\"\xff\xfe\",\"key\":\"k\"}".to_vec()])
    .collect();
    assert_eq!(held_back::<F>(&same).await, vec![true; same.len()]);
    let other: Vec<Vec<u8>> = [
        &br#"{"payload":1}"#[..],
        br#"{"key":"K","payload":1}"#,
        br#"{"key":"k ","payload":1}"#,
        br#"{"key":"k\u0000","payload":1}"#,
        br#"{"key":"","payload":1}"#,
        br#"{"payload":{"key":"k"}}"#,
        br#"{"payload":"\"key\":\"k\""}"#,
        br#"["key","k"]"#,
        br#"{"key":["k"],"payload":1}"#,
        b"k",
        b"",
        b"{",
        b"{\"key\":\"k\xff\"}",
        "{\"key\":\"k\u{e9}\u{1f40d}\"}".as_bytes(),
        br#"{"key":"\ud800","payload":1}"#,
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    assert_eq!(held_back::<F>(&other).await, vec![false; other.len()]);
    // Escaped or not, it is the same key.
    let twice = [
        "{\"key\":\"\u{e9}\u{1f40d}\"}".as_bytes(),
        br#"{"key":"\u00e9\ud83d\udc0d"}"#,
    ]
    .map(<[u8]>::to_vec);
    assert_eq!(held_back::<F>(&twice).await, [false, true]);
}

pub(crate) async fn what_is_too_large_keeps_its_key<F: Fixture>() {
    let pair = open::<F>(SERIAL).await;
    send_keys(&pair, &["a", "a", "b"]).await;
    let mut small = ask("p", 9);
    small.limits.entry_bytes = 10;
    assert_eq!(positions(&pair.claim(&small).await), [1, 3]);
    small.limits.total_bytes = 10;
    pair.finish().await;
}

pub(crate) async fn an_id_comes_out_once<F: Fixture>() {
    for (order, keys) in [(Order::None, ["", "", ""]), (KEY, ["", "", ""]), (KEY, ["a", "b", "c"])] {
        for turns in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let pair = open::<F>(order).await;
            let entries: Vec<_> = keys.iter().map(|key| keyed("x", key)).collect();
            pair.send(&entries).await;
            let claims = pair.take("p", 3).await;
            for nth in turns {
                end(&pair, &claims[nth]).await;
            }
            let first = turns[0] as u64 + 1;
            assert_eq!(
                out(&pair).await,
                [first],
                "{order:?} {turns:?}: what is done first counts"
            );
            assert_eq!(pair.status().await.head, Position(4));
            pair.finish().await;
        }
    }
}

pub(crate) async fn an_id_keeps_its_first_place_in_its_key<F: Fixture>() {
    for turns in [[0, 1, 2], [2, 1, 0], [2, 0, 1], [1, 2, 0]] {
        let pair = open::<F>(KEY).await;
        pair.send(&[keyed("x", "a"), keyed("y", "a"), keyed("x", "a")]).await;
        let claims = pair.take("p", 3).await;
        for nth in turns {
            end(&pair, &claims[nth]).await;
        }
        assert_eq!(out(&pair).await, [1, 2], "{turns:?}");
        pair.finish().await;
    }
}

pub(crate) async fn an_id_in_two_keys_does_not_wait_twice<F: Fixture>() {
    let pair = open::<F>(KEY).await;
    send_keys(&pair, &["a", "b"]).await;
    pair.send(&[keyed("x", "a"), keyed("x", "b"), keyed("x", "")]).await;
    let claims = pair.take("p", 9).await;
    end(&pair, &claims[3]).await;
    end(&pair, &claims[2]).await;
    end(&pair, &claims[4]).await;
    assert!(out(&pair).await.is_empty(), "it waits where it was done first");
    end(&pair, &claims[0]).await;
    assert_eq!(out(&pair).await, [1]);
    end(&pair, &claims[1]).await;
    assert_eq!(out(&pair).await, [1, 2, 4]);
    pair.finish().await;
}

pub(crate) async fn one_of_two_dies<F: Fixture>() {
    for order in [Order::None, KEY] {
        let pair = open::<F>(order).await;
        pair.send(&[keyed("x", "a"), keyed("x", "a"), keyed("y", "a"), keyed("y", "a")])
            .await;
        let claims = pair.take("p", 9).await;
        let p = OwnerId::new("p");
        pair.complete(&p, &[done(&claims[1]), dead(&claims[0], true)]).await;
        pair.complete(&p, &[dead(&claims[2], true), done(&claims[3])]).await;
        let first = if order == Order::None { 2 } else { 1 };
        assert_eq!(out(&pair).await, [first, 3, 4], "{order:?}");
        pair.finish().await;
    }
}

pub(crate) async fn many_in_one_batch<F: Fixture>() {
    for order in [Order::None, KEY] {
        let pair = open::<F>(order).await;
        pair.send(&[
            keyed("x", "a"),
            keyed("y", "b"),
            keyed("x", "a"),
            keyed("z", ""),
            keyed("y", "b"),
        ])
        .await;
        pair.send_many(3).await;
        let claims = pair.take("p", 9).await;
        let mixed: Vec<_> = [4, 7, 2, 1, 0, 5, 6, 3, 3].map(|nth: usize| claims[nth].clone()).into();
        pair.finish_work("p", &mixed).await;
        assert_eq!(out(&pair).await.len(), 6, "{order:?}");
        assert_eq!(pair.status().await.head, Position(9));
        pair.finish().await;
    }
}

pub(crate) async fn acknowledged_is_what_came_before<F: Fixture>() {
    let pair = open::<F>(Order::None).await;
    pair.send_many(5).await;
    let claims = pair.take("p", 5).await;
    for nth in [4, 0, 2] {
        end(&pair, &claims[nth]).await;
    }
    assert_eq!(pair.receive(None, 2).await.len(), 2);
    assert_eq!(pair.receive(Some(1), 9).await.len(), 1, "5 and 1 are gone");
    assert_eq!(pair.receive(Some(1), 9).await.len(), 1, "said twice");
    assert_eq!(pair.receive(Some(5), 9).await.len(), 1);
    assert_eq!(
        pair.receive(Some(2), 9).await.len(),
        1,
        "what is not there takes nothing along"
    );
    assert_eq!(out(&pair).await, [3]);
    pair.receive(Some(3), 0).await;
    end(&pair, &claims[1]).await;
    assert_eq!(out(&pair).await, [2]);
    pair.finish().await;
}

pub(crate) async fn an_owner_finds_what_it_holds_beyond_the_head<F: Fixture>() {
    let pair = open::<F>(SERIAL).await;
    send_keys(&pair, &["a", "a", "b", "b", ""]).await;
    let claims = pair.take("p", 9).await;
    end(&pair, &claims[2]).await;
    let renewed = pair.renew(&stay("p", Some(&claims[2..]))).await;
    assert_eq!(positions(&renewed.found), [1, 3]);
    assert_eq!(renewed.lost, [Position(5)]);
    assert!(renewed.blocking.is_some());
    pair.finish().await;
}

pub(crate) async fn thousands_wait_for_one_of_their_key<F: Fixture>() {
    const COUNT: u64 = 2_500;
    for order in [KEY, Order::None] {
        let pair = open::<F>(order).await;
        let entries: Vec<_> = (0..COUNT).map(|nth| keyed(&format!("m{nth}"), "hot")).collect();
        pair.send(&entries).await;
        let request = ClaimRequest {
            window: COUNT,
            ..ask("p", usize::MAX)
        };
        let claims = pair.claim(&request).await;
        pair.finish_work("p", &claims[1..]).await;
        assert_eq!(out(&pair).await.len() as u64, if order == KEY { 0 } else { COUNT - 1 });
        pair.finish_work("p", &claims[..1]).await;
        assert_eq!(out(&pair).await.len() as u64, COUNT);
        assert_eq!(pair.status().await.head, Position(COUNT + 1));
        pair.finish().await;
    }
}

pub(crate) async fn a_record_stays_until_the_head_is_past_it<F: Fixture>() {
    let pair = open::<F>(KEY).await;
    send_keys(&pair, &["a", "b", "a"]).await;
    let claims = pair.take("p", 9).await;
    end(&pair, &claims[1]).await;
    end(&pair, &claims[2]).await;
    let none = Keep {
        records: Limit::last(0),
        ..Keep::ALL
    };
    for _ in 0..3 {
        pair.renew(&trim("p", none)).await;
    }
    assert_eq!(pair.status().await.recorded, 2, "position 1 may be a duplicate of it");
    end(&pair, &claims[0]).await;
    assert_eq!(out(&pair).await, [2, 1, 3]);
    for _ in 0..2 {
        pair.renew(&trim("p", none)).await;
    }
    assert_eq!(pair.status().await.recorded, 0);
    pair.finish().await;
}
