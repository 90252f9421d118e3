//! What is kept, and that it is what is delivered.

use conga::core::lease::Attempt;
use conga::core::message::{Body, Id, Record};
use conga::ledger::Kept;

use crate::desk::{Desk, Work, ids, text};

pub(crate) async fn what_is_recorded_is_kept_and_delivered(desk: &impl Desk) {
    let work = Work::at(desk, 3).await;
    let results = [
        text(1, "a", "one"),
        Record {
            sequence: Some(7),
            key: Some("k".to_owned()),
            ..text(2, "7", "two")
        },
        text(3, "c", "three"),
    ];
    assert_eq!(work.end(&results).await, vec![Kept::Given; 3]);
    let mut rows = work.rows().await;
    rows.sort_by_key(|row| row.position);
    assert_eq!(rows, results);
    assert_eq!(work.outputs().await, results);
}

pub(crate) async fn nothing_to_record(desk: &impl Desk) {
    let work = Work::at(desk, 1).await;
    assert_eq!(work.ledger.record(&[]).await.unwrap(), []);
    assert_eq!(work.ledger.look(&[]).await.unwrap(), []);
    assert_eq!(work.rows().await, []);
}

/// The statement takes them by id, whatever the order in which they are given.
pub(crate) async fn a_batch_is_answered_in_its_order(desk: &impl Desk) {
    let work = Work::at(desk, 4).await;
    work.end(&[text(2, "b", "first b")]).await;
    let batch = [text(4, "d", "d"), text(3, "a", "a"), text(1, "c", "c")];
    work.end(&batch).await;
    let found = work.ledger.look(&["a", "none", "b"].map(Id::given)).await.unwrap();
    if work.ledger.is_apart() {
        assert_eq!(found, [Some(text(3, "a", "a")), None, Some(text(2, "b", "first b"))]);
    }
    assert_eq!(ids(&work.outputs().await), ["c", "b", "a", "d"]);
}

pub(crate) async fn said_twice_it_is_recorded_once(desk: &impl Desk) {
    let work = Work::at(desk, 2).await;
    let results = [text(1, "a", "one"), text(2, "b", "two")];
    assert_eq!(work.ledger.record(&results).await.unwrap(), vec![Kept::Given; 2]);
    assert_eq!(work.end(&results).await, vec![Kept::Given; 2]);
    assert_eq!(work.end(&results).await, vec![Kept::Given; 2]);
    assert_eq!(work.rows().await, results);
    assert_eq!(work.outputs().await, results);
}

pub(crate) async fn of_two_results_the_first_stays_and_is_delivered(desk: &impl Desk) {
    let work = Work::at(desk, 2).await;
    work.end(&[text(1, "a", "first")]).await;
    let kept = work.end(&[text(2, "a", "second")]).await;
    if work.ledger.is_apart() {
        assert_eq!(kept, [Kept::Other(text(1, "a", "first"))]);
    }
    assert_eq!(work.rows().await, [text(1, "a", "first")]);
    assert_eq!(work.outputs().await, [text(1, "a", "first")]);
}

pub(crate) async fn two_of_one_id_in_one_batch(desk: &impl Desk) {
    let work = Work::at(desk, 3).await;
    work.end(&[text(1, "a", "first"), text(2, "a", "second"), text(3, "b", "third")])
        .await;
    let (rows, outputs) = (work.rows().await, work.outputs().await);
    assert_eq!(ids(&rows), ["a", "b"]);
    assert_eq!(ids(&outputs), ["a", "b"]);
    assert_eq!(rows[0].body, outputs[0].body);
}

/// One records, and before it can tell the store its lease is gone; the other comes to another result.
pub(crate) async fn a_zombie_and_its_successor_deliver_the_same(desk: &impl Desk) {
    let mut work = Work::at(desk, 1).await;
    work.ledger.record(&[text(1, "a", "the zombie's")]).await.unwrap();
    assert_eq!(work.pass_on().await, 1);
    let second = Record {
        attempts: Attempt(2),
        ..text(1, "a", "the successor's")
    };
    let kept = work.end(&[second]).await;
    // And once more the zombie, which has slept meanwhile.
    work.ledger.record(&[text(1, "a", "the zombie's")]).await.unwrap();
    let (rows, outputs) = (work.rows().await, work.outputs().await);
    assert_eq!((rows.len(), outputs.len()), (1, 1));
    assert_eq!(rows[0].body, outputs[0].body);
    if work.ledger.is_apart() {
        assert_eq!(kept, [Kept::Other(text(1, "a", "the zombie's"))]);
        assert_eq!(outputs[0].body, text(1, "a", "the zombie's").body);
    }
}

pub(crate) async fn lines_do_not_see_each_other(desk: &impl Desk) {
    let (one, other) = (Work::at(desk, 1).await, Work::at(desk, 1).await);
    one.end(&[text(1, "a", "of one")]).await;
    assert_eq!(other.rows().await, []);
    assert_eq!(other.end(&[text(1, "a", "of the other")]).await, [Kept::Given]);
    assert_eq!(one.outputs().await, [text(1, "a", "of one")]);
    assert_eq!(other.outputs().await, [text(1, "a", "of the other")]);
}

/// Two processors that have the same messages, each in batches of its own: no deadlock, and both are told the same.
pub(crate) async fn many_batches_at_once_in_any_order(desk: &impl Desk) {
    const MESSAGES: u64 = 600;
    let work = Work::at(desk, 600).await;
    let of = |who: &str| -> Vec<Record> {
        (1..=MESSAGES)
            .map(|number| text(number, &format!("{}", number * 7_919 % 1_000), who))
            .collect()
    };
    let (one, other) = (of("one"), of("other"));
    let record = |batch: Vec<Record>| {
        let ledger = work.ledger.clone();
        tokio::spawn(async move { (ledger.record(&batch).await.unwrap(), batch) })
    };
    let mut tasks: Vec<_> = Vec::new();
    for (one, other) in one.chunks(200).zip(other.chunks(200)) {
        for _ in 0..3 {
            tasks.push(record(one.to_vec()));
            tasks.push(record(other.iter().rev().cloned().collect()));
        }
    }
    for task in tasks {
        let (kept, batch) = task.await.unwrap();
        for (kept, given) in kept.iter().zip(&batch) {
            let held = work
                .ledger
                .look(std::slice::from_ref(&given.id))
                .await
                .unwrap()
                .remove(0);
            match (kept, held) {
                (Kept::Given, Some(held)) => assert_eq!(held, *given),
                (Kept::Other(kept), Some(held)) => assert_eq!(held, *kept),
                (Kept::Given, None) if !work.ledger.is_apart() => {}
                (kept, held) => panic!("{kept:?} {held:?}"),
            }
        }
    }
    work.end(&one).await;
    let (mut rows, outputs) = (work.rows().await, work.outputs().await);
    rows.sort_by_key(|row| row.position);
    assert_eq!(rows, outputs);
    assert_eq!(rows.len(), 600);
    assert!(rows.iter().all(|row| matches!(row.body, Body::Result(_))));
}

pub(crate) async fn browsed_to_the_end(desk: &impl Desk) {
    let work = Work::at(desk, 2_500).await;
    let results: Vec<Record> = (1..=2_500)
        .map(|number| text(number, &format!("id-{number}"), "x"))
        .collect();
    for batch in results.chunks(1_000) {
        work.end(batch).await;
    }
    let mut rows = work.rows().await;
    rows.sort_by_key(|row| row.position);
    assert_eq!(rows, results);
}
