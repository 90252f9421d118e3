//! What is given up of numbers that are missing, and what is not.

use std::sync::atomic::Ordering;

use conga::clock::ManualClock;
use conga::core::message::Body;
use conga::core::time::Micros;

use super::*;
use crate::narrow::over_ways;
use crate::trouble::until;

fn results(outputs: &[Output]) -> Vec<u64> {
    let results = outputs
        .iter()
        .filter(|output| matches!(output.record.body, Body::Result(_)));
    results.map(|output| output.record.position.0).collect()
}

/// Found by a review: what comes while it is given up may push out what had come in time, and that was given up next: what
/// was proved before counted, although the partition had to be read anew.
#[tokio::test]
async fn what_is_in_time_is_merged_although_there_is_no_room_for_it_while_others_are_given_up() {
    let options = MergerOptions {
        window: 1,
        ..gives_up(Duration::from_millis(100))
    };
    let (mut line, ways, base) = over_ways(options).await;
    base.give_up_gate.forget_permits(Semaphore::MAX_PERMITS);
    // Of its partition it is proved last, so that all before 16 are given up at once.
    let slow = tower::service_fn(|message: Message| async move {
        let pause = if message.sequence == Some(19) { 500 } else { 0 };
        sleep(Duration::from_millis(pause)).await;
        Ok::<_, Infallible>(message.payload)
    });
    line.run(slow, ProcessorOptions::default());
    line.send([16, 19, 30], "x").await;
    until("1 to 15 are given up", async || {
        base.giving_up.load(Ordering::SeqCst) > 0
    })
    .await;
    line.send([4, 7], "x").await;
    until("they have come too late", async || {
        ways[1].read.load(Ordering::SeqCst) >= 4
    })
    .await;
    base.give_up_gate.add_permits(1_000_000);
    let outputs = line.receive(30).await;
    assert_eq!(results(&outputs), [16, 19, 30]);
    until("the other two are buried", async || {
        line.shards.base().status().await.expect("a step").dead == 2
    })
    .await;
    line.end().await;
}

/// Found by a review: of a partition that has come back older it was waited for more than ever came, and the line stood still.
#[tokio::test]
async fn a_number_is_given_up_although_its_partition_has_lost_what_waited_there() {
    let (mut line, ways, _) = over_ways(gives_up(Duration::from_millis(50))).await;
    line.process();
    ways[2].phantoms.store(5, Ordering::SeqCst);
    line.send([1, 3], "x").await;
    until("they are waited for", async || {
        ways[2].haunted.load(Ordering::SeqCst) > 1
    })
    .await;
    line.expect([1]).await;
    ways[2].phantoms.store(0, Ordering::SeqCst);
    assert_eq!(results(&line.receive(2).await), [3]);
    line.end().await;
}

/// Found by a review: the end of that time can't be told, and the merger died of it.
#[tokio::test(start_paused = true)]
async fn a_number_may_be_missing_for_as_long_as_can_be_said() {
    let mut line = Line::new(1, gives_up(Duration::MAX)).await;
    line.process();
    line.send([1, 3], "x").await;
    line.expect([1]).await;
    line.expect_nothing(Duration::from_secs(20)).await;
    line.send([2], "x").await;
    line.expect([2, 3]).await;
    line.end().await;
}

/// Found by a review: the base says anew since when it is missing, and what had been proved before that time counted.
#[tokio::test(start_paused = true)]
async fn what_comes_after_the_clock_was_set_back_is_not_given_up_while_it_is_processed() {
    let start = Micros(1_000_000_000_000);
    let clock = ManualClock::going(start);
    let memory = |clock: &ManualClock| -> SharedStore { Arc::new(MemoryStore::new(Clock::Manual(clock.clone()))) };
    let base = memory(&clock);
    base.shape(Some("total/3".parse().expect("a shape")))
        .await
        .expect("a step");
    let partitions = (0..PARTITIONS).map(|_| memory(&ManualClock::going(start))).collect();
    let mut line = Line::of(Shards::of(base, partitions, By::Sequence));
    line.merge(gives_up(Duration::from_secs(10)));
    let slow = tower::service_fn(|message: Message| async move {
        let pause = if message.sequence == Some(2) { 15 } else { 0 };
        sleep(Duration::from_secs(pause)).await;
        Ok::<_, Infallible>(message.payload)
    });
    line.run(slow, ProcessorOptions::default());
    line.send([1, 3], "x").await;
    line.expect([1]).await;
    sleep(Duration::from_secs(5)).await;
    clock.set_back(3_600_000_000);
    sleep(Duration::from_secs(8)).await;
    line.send([2], "x").await;
    assert_eq!(results(&line.receive(2).await), [2, 3]);
    line.end().await;
}
