//! Ways that let only so much through at once, and partitions of which more comes than can be in hand.

use std::sync::atomic::Ordering;

use conga::deliver::Consumer;
use conga::process::Processor;
use conga::send::Producer;

use super::*;

const WIDTH: usize = 700_000;

/// A line whose merger has a way of its own to each store.
pub(crate) async fn over_ways(options: MergerOptions) -> (Line, Vec<Arc<Way>>, Arc<Way>) {
    let mut line = Line::new(0, options).await;
    let ways: Vec<_> = (line.shards.partitions().iter())
        .map(|store| Arc::new(Way::to(store.clone())))
        .collect();
    let base = Arc::new(Way::to(line.shards.base().clone()));
    let mut shared: Vec<SharedStore> = Vec::new();
    for way in &ways {
        shared.push(way.clone());
    }
    let shards = Shards::of(base.clone(), shared, By::Sequence);
    let merger = Merger::new(&shards, options).run(line.stop.clone());
    line.running
        .push(tokio::spawn(async move { assert!(merger.await.is_ok()) }));
    (line, ways, base)
}

/// So many are out in each partition.
async fn all_are_processed(line: &Line, each: u64) {
    let processed = async {
        for store in line.shards.partitions() {
            while store.status().await.expect("a step").output < each {
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    timeout(LONG, processed).await.expect("all are processed");
}

/// Else the line stood still for ever.
#[tokio::test(start_paused = true)]
async fn over_a_narrow_way_large_outputs_come_out_whole() {
    let (mut line, ways, base) = over_ways(MergerOptions::default()).await;
    let all = ways.iter().chain([&base]);
    // All of it is there when the first is read.
    ways.iter().for_each(|way| way.is_away.store(true, Ordering::SeqCst));
    line.echo(ProcessorOptions::default());
    line.send(1..=120, &"x".repeat(100_000)).await;
    all_are_processed(&line, 40).await;
    for way in all.clone() {
        way.width.store(WIDTH, Ordering::SeqCst);
        way.is_away.store(false, Ordering::SeqCst);
    }
    line.expect(1..=120).await;
    let lost: Vec<_> = all.map(|way| way.lost.load(Ordering::SeqCst)).collect();
    assert!(lost.iter().all(|lost| (1..20).contains(lost)), "{lost:?}");
    line.end().await;
}

/// Of consumers it was so that each answer that came through made the next as large as it had been.
#[tokio::test(start_paused = true)]
async fn over_a_narrow_way_few_answers_are_lost_to_a_consumer() {
    let store: SharedStore = Arc::new(MemoryStore::new(Clock::Store));
    let way = Arc::new(Way::to(store.clone()));
    way.width.store(WIDTH, Ordering::SeqCst);
    let stop = CancellationToken::new();
    let echo = tower::service_fn(|message: Message| async move { Ok::<_, Infallible>(message.payload) });
    let running = tokio::spawn(Processor::new(store.clone(), echo, ProcessorOptions::default()).run(stop.clone()));
    let text = Payload::string(&"x".repeat(100_000));
    let batch: Vec<_> = (0..120).map(|_| Outgoing::new(text.clone())).collect();
    Producer::new(store.clone()).send(&batch).await.expect("sent");
    let processed = async {
        while store.status().await.expect("a step").output < 120 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, processed).await.expect("all are processed");
    let mut consumer = Consumer::new(way.clone());
    let mut count = 0;
    while count < 120 {
        let batch = timeout(LONG, consumer.next(1_000))
            .await
            .expect("progress")
            .expect("outputs");
        count += batch.outputs.len();
        consumer.acknowledge(&batch);
    }
    assert_eq!(count, 120);
    let lost = way.lost.load(Ordering::SeqCst);
    assert!((1..16).contains(&lost), "{lost}");
    consumer.finish().await.expect("acknowledged");
    stop.cancel();
    running.await.expect("no panic").expect("it ends");
}

/// As long as they wait they are in hand.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_is_read_once() {
    let (mut line, ways, _) = over_ways(MergerOptions::default()).await;
    line.process();
    for first in (2..300).step_by(10) {
        line.send(first..first + 10, "x").await;
        line.expect_nothing(Duration::from_millis(300)).await;
    }
    line.send([1], "x").await;
    line.expect(1..=301).await;
    let read: usize = ways.iter().map(|way| way.read.load(Ordering::SeqCst)).sum();
    assert_eq!(read, 301);
    line.end().await;
}

/// A number that comes behind all that can be in hand is found, and what comes after it too.
#[tokio::test(start_paused = true)]
async fn a_number_behind_all_that_can_be_in_hand_is_found() {
    let options = MergerOptions {
        window: 4,
        places: 10,
        ..MergerOptions::default()
    };
    let mut line = Line::new(1, options).await;
    line.process();
    let (late, rest): (Vec<u64>, Vec<u64>) = (1..=300).partition(|number| number % 3 == 2 && *number < 30);
    line.send(rest, "x").await;
    line.expect([1]).await;
    line.expect_nothing(Duration::from_secs(20)).await;
    line.send(late, "x").await;
    line.expect(2..=300).await;
    line.expect_nothing(Duration::from_secs(5)).await;
    for store in line.shards.partitions() {
        assert_eq!(store.status().await.unwrap().output, 0, "all are acknowledged");
    }
    assert_eq!(line.shards.base().status().await.unwrap().dead, 0);
    line.end().await;
}

/// More than can be in hand behind a number that is missing is no reason to hold the line.
#[tokio::test]
async fn a_number_is_given_up_however_much_waits_behind_it() {
    let options = MergerOptions {
        window: 4,
        places: 10,
        ..gives_up(Duration::from_millis(200))
    };
    let mut line = Line::new(1, options).await;
    line.process();
    line.send((1..=300).filter(|number| *number != 5 && *number != 8), "x")
        .await;
    let outputs = line.receive(300).await;
    let dead = outputs
        .iter()
        .filter(|output| matches!(output.record.body, conga::core::message::Body::Dead { .. }))
        .map(|output| output.record.position.0);
    assert_eq!(dead.collect::<Vec<_>>(), [5, 8]);
    line.end().await;
}

/// What was in hand is not any more when the answer comes, and what comes after it must not be taken for all there is: it would
/// be acknowledged with what is before it.
#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_when_the_base_came_back_older_takes_nothing_along() {
    let (mut line, ways, base) = over_ways(MergerOptions::default()).await;
    line.process();
    line.send([1, 2], "x").await;
    line.expect([1, 2]).await;
    ways[1].gate.forget_permits(Semaphore::MAX_PERMITS);
    line.send([7], "x").await;
    let held = async {
        while line.shards.base().status().await.expect("a step").missing.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        line.send([4], "x").await;
        while ways[1].waiting.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, held).await.expect("the answer with 4 is on its way");
    *base.older.lock().expect("no panic") = Some(Merged::Moved { head: Position(2) });
    line.send([3, 5], "x").await;
    let merged = async {
        while line.shards.base().status().await.expect("a step").head < Position(4) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, merged).await.expect("3 is merged anew");
    assert_eq!(
        *base.older.lock().expect("no panic"),
        None,
        "a merge has found an older base"
    );
    ways[1].gate.add_permits(1_000_000);
    line.send([6], "x").await;
    line.expect(3..=7).await;
    line.end().await;
}

/// Found by a review: what is told of as late went along whatever the way let through, and the line stood still for ever.
#[tokio::test(start_paused = true)]
async fn over_a_narrow_way_what_was_merged_unheard_is_told_of_in_portions() {
    let (mut line, ways, base) = over_ways(MergerOptions::default()).await;
    ways.iter().for_each(|way| way.is_away.store(true, Ordering::SeqCst));
    line.echo(ProcessorOptions::default());
    line.send(1..=120, &"x".repeat(100_000)).await;
    all_are_processed(&line, 40).await;
    // That all is there when the first merge is done, and much is in it.
    base.is_away.store(true, Ordering::SeqCst);
    ways.iter().for_each(|way| way.is_away.store(false, Ordering::SeqCst));
    let read = async {
        while ways.iter().any(|way| way.read.load(Ordering::SeqCst) < 40) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, read).await.expect("all are read");
    base.unheard_merges.store(1, Ordering::SeqCst);
    base.is_away.store(false, Ordering::SeqCst);
    let merged = async {
        while line.shards.base().status().await.expect("a step").head < Position(20) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, merged).await.expect("some are merged");
    base.width.store(WIDTH, Ordering::SeqCst);
    line.expect(1..=120).await;
    line.expect_nothing(Duration::from_secs(5)).await;
    for store in line.shards.partitions() {
        assert_eq!(store.status().await.unwrap().output, 0, "all are acknowledged");
    }
    let lost = base.lost.load(Ordering::SeqCst);
    assert!((1..20).contains(&lost), "{lost}");
    line.end().await;
}

/// The same of what is given up.
#[tokio::test]
async fn over_a_narrow_way_many_numbers_are_given_up_in_portions() {
    let (mut line, _, base) = over_ways(gives_up(Duration::from_millis(50))).await;
    line.process();
    base.width.store(50_000, Ordering::SeqCst);
    line.send([1, 1_000], "x").await;
    line.expect(1..=1_000).await;
    line.end().await;
}
