//! A line in total order over several partitions: the services in paused time, over stores in memory.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conga::clock::Clock;
use conga::core::message::{Output, Payload, Position};
use conga::core::partition::{Merged, Shelf};
use conga::core::route::By;
use conga::core::shape::Shape;
use conga::process::{Handler, HandlerError, Message, ProcessorOptions};
use conga::send::Outgoing;
use conga::shards::{Consumers, Merger, MergerOptions, OnGap, Processors, Producers, Shards, erase_all};
use conga::store::memory::MemoryStore;
use conga::store::{OpenOptions, Result, SharedStore, StoreUrl};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use way::Way;

mod missing;
mod narrow;
mod trouble;
mod way;

const PARTITIONS: usize = 3;
const LONG: Duration = Duration::from_mins(1);

struct Line {
    shards: Shards,
    consumers: Consumers,
    stop: CancellationToken,
    running: Vec<JoinHandle<()>>,
}

impl Line {
    async fn new(mergers: usize, options: MergerOptions) -> Self {
        let memory = || -> SharedStore { Arc::new(MemoryStore::new(Clock::Store)) };
        let base = memory();
        base.shape(Some("total/3".parse::<Shape>().expect("a shape")))
            .await
            .expect("a step");
        let partitions: Vec<_> = (0..PARTITIONS).map(|_| memory()).collect();
        let mut line = Self::of(Shards::of(base, partitions, By::Sequence));
        for _ in 0..mergers {
            line.merge(options);
        }
        line
    }

    fn of(shards: Shards) -> Self {
        Self {
            consumers: Consumers::new(&shards, 100),
            shards,
            stop: CancellationToken::new(),
            running: Vec::new(),
        }
    }

    fn merge(&mut self, options: MergerOptions) {
        let merger = Merger::new(&self.shards, options).run(self.stop.clone());
        self.running
            .push(tokio::spawn(async move { assert!(merger.await.is_ok()) }));
    }

    /// A processor whose handler takes longer for some, and fails for a payload that says so.
    fn process(&mut self) {
        let handler = tower::service_fn(|message: Message| async move {
            let number = message.sequence.unwrap_or_default();
            sleep(Duration::from_millis(number * 7 % 40)).await;
            match message.payload.text() {
                "\"fail\"" => Err(HandlerError::permanent("it can't be")),
                _ => Ok::<_, HandlerError>(Payload::string(&format!("done {number}"))),
            }
        });
        self.run(handler, ProcessorOptions::default());
    }

    /// A processor whose result is the payload.
    fn echo(&mut self, options: ProcessorOptions) {
        let echo = tower::service_fn(|message: Message| async move { Ok::<_, Infallible>(message.payload) });
        self.run(echo, options);
    }

    fn run<H: Handler>(&mut self, handler: H, options: ProcessorOptions) {
        let running = Processors::new(&self.shards, handler, options).run(self.stop.clone());
        self.running
            .push(tokio::spawn(async move { assert!(running.await.is_ok()) }));
    }

    async fn send(&self, numbers: impl IntoIterator<Item = u64>, payload: &str) {
        let batch: Vec<_> = numbers
            .into_iter()
            .map(|number| Outgoing {
                sequence: Some(number),
                ..Outgoing::new(Payload::string(payload))
            })
            .collect();
        Producers::new(&self.shards).send(&batch).await.expect("sent");
    }

    /// The next so many outputs, acknowledged.
    async fn receive(&mut self, count: usize) -> Vec<Output> {
        let mut outputs = Vec::new();
        while outputs.len() < count {
            let portion = timeout(LONG, self.consumers.next())
                .await
                .expect("progress")
                .expect("outputs");
            outputs.extend(
                portion
                    .batch
                    .outputs
                    .iter()
                    .map(|output| Output::parse(output).expect("an output")),
            );
            self.consumers.acknowledge(&portion);
        }
        assert_eq!(outputs.len(), count);
        outputs
    }

    async fn expect(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<_> = numbers.into_iter().collect();
        let outputs = self.receive(numbers.len()).await;
        let came: Vec<_> = outputs.iter().map(|output| output.record.position.0).collect();
        assert_eq!(came, numbers);
        for output in outputs {
            assert_eq!(output.record.sequence, Some(output.record.position.0));
        }
    }

    /// Nothing comes for a while.
    async fn expect_nothing(&mut self, during: Duration) {
        let next = timeout(during, self.consumers.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    async fn end(self) {
        self.stop.cancel();
        for running in self.running {
            timeout(LONG, running).await.expect("it ends").expect("no panic");
        }
        self.consumers.finish().await.expect("acknowledged");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_in_any_order_comes_out_in_that_of_the_sequences() {
    let mut line = Line::new(2, MergerOptions::default()).await;
    line.process();
    line.process();
    line.send((1..=600).rev(), "x").await;
    line.expect(1..=600).await;
    line.send(601..=900, "x").await;
    line.send(1..=900, "x").await;
    line.expect(601..=900).await;
    line.expect_nothing(Duration::from_secs(5)).await;
    for store in line.shards.partitions() {
        assert_eq!(store.status().await.unwrap().output, 0, "all are acknowledged");
    }
    assert_eq!(line.shards.base().status().await.unwrap().dead, 0);
    line.end().await;
}

/// Else all that comes would be processed behind a number that is missing, and kept.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_is_bounded_by_the_window() {
    let window = 40;
    let mut line = Line::new(
        1,
        MergerOptions {
            window,
            ..MergerOptions::default()
        },
    )
    .await;
    let mut options = ProcessorOptions::default();
    options.claim.window = window as u64;
    for _ in 0..4 {
        line.echo(options.clone());
    }
    line.send((1..=3_000).filter(|number| *number != 2), "x").await;
    line.expect([1]).await;
    line.expect_nothing(Duration::from_secs(20)).await;
    for store in line.shards.partitions() {
        let output = store.status().await.unwrap().output;
        // Where it belongs it may come behind all others.
        let is_sought = Arc::ptr_eq(store, &line.shards.partitions()[2]);
        assert!(is_sought || output == window as u64, "{output} wait");
    }
    line.send([2], "x").await;
    line.expect(2..=3_000).await;
    line.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_has_its_tombstone_in_its_place_or_is_passed_over() {
    for mark_dead in [true, false] {
        let mut line = Line::new(
            1,
            MergerOptions {
                mark_dead,
                ..MergerOptions::default()
            },
        )
        .await;
        line.process();
        line.send([1, 2, 4, 6], "x").await;
        line.send([3], "fail").await;
        let refused = Bytes::from_static(br#"{"sequence":5,"id":"another","payload":0}"#);
        line.shards.partitions()[2].send(&[refused], None).await.unwrap();
        let astray = [&br#"{"sequence":7,"payload":0}"#[..], b"garbage"].map(Bytes::from_static);
        line.shards.partitions()[0].send(&astray, None).await.unwrap();
        if mark_dead {
            line.expect(1..=6).await;
        } else {
            line.expect([1, 2, 4, 6]).await;
        }
        let dead = |store: SharedStore| async move { store.status().await.unwrap().dead };
        let letters: Vec<_> = line.shards.partitions().to_vec();
        assert_eq!(dead(letters[0].clone()).await, 3, "3, and what has no place there");
        assert_eq!(dead(letters[2].clone()).await, 1);
        line.send([7], "x").await;
        line.expect([7]).await;
        line.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_missing_holds_the_line_and_is_told_of() {
    let mut line = Line::new(1, MergerOptions::default()).await;
    line.process();
    line.send([1, 3, 4, 5], "x").await;
    line.expect([1]).await;
    line.expect_nothing(Duration::from_mins(5)).await;
    let status = line.shards.base().status().await.unwrap();
    assert_eq!(status.head.0, 2);
    assert!(
        status.missing.is_some_and(|since| status.now.since(since) > 0),
        "{status:?}"
    );
    line.send([2], "x").await;
    line.expect(2..=5).await;
    assert_eq!(line.shards.base().status().await.unwrap().missing, None);
    line.end().await;
}

/// As the store's own clock is the machine's, which is not paused, its time is given.
fn gives_up(gap_timeout: Duration) -> MergerOptions {
    MergerOptions {
        gap_timeout,
        on_gap: OnGap::GiveUp,
        ..MergerOptions::default()
    }
}

#[tokio::test]
async fn a_number_that_does_not_come_is_given_up_and_buried_when_it_comes() {
    let mut line = Line::new(2, gives_up(Duration::from_millis(200))).await;
    line.process();
    line.send([1, 4, 5], "x").await;
    let outputs = line.receive(5).await;
    let reason = |nth: usize| match &outputs[nth].record.body {
        conga::core::message::Body::Dead { reason } => reason.clone(),
        conga::core::message::Body::Result(_) => String::new(),
    };
    assert_eq!(reason(1), "sequence 2 did not come within 200ms");
    assert_eq!(reason(2), "sequence 3 did not come within 200ms");
    assert_eq!((reason(0), reason(3), reason(4)), Default::default());
    line.send([2, 6], "x").await;
    line.expect([6]).await;
    let letters = timeout(LONG, async {
        loop {
            let letters = line.shards.base().browse(Shelf::Dead, None).await.unwrap().rows;
            if !letters.is_empty() {
                return letters;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let letters = letters.await.expect("it is buried");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].id.as_str(), "2");
    line.end().await;
}

/// It is not missing as long as it may be in its partition.
#[tokio::test]
async fn a_number_that_waits_to_be_processed_is_not_given_up() {
    let mut line = Line::new(1, gives_up(Duration::from_millis(50))).await;
    line.send([2], "x").await;
    let slow = tower::service_fn(|message: Message| async move {
        let pause = if message.sequence == Some(2) { 600 } else { 0 };
        sleep(Duration::from_millis(pause)).await;
        Ok::<_, Infallible>(message.payload)
    });
    line.run(slow, ProcessorOptions::default());
    line.send([1, 3, 4], "x").await;
    let outputs = line.receive(4).await;
    for output in &outputs {
        assert!(
            matches!(output.record.body, conga::core::message::Body::Result(_)),
            "{output:?}"
        );
    }
    line.end().await;
}

#[tokio::test]
async fn whoever_leads_goes_on_where_the_last_one_was() -> Result<()> {
    let mut line = Line::new(0, MergerOptions::default()).await;
    line.process();
    for round in 0..6 {
        let first = round * 50 + 1;
        line.send(first..first + 50, "x").await;
        let stop = CancellationToken::new();
        let merger = Merger::new(&line.shards, MergerOptions::default());
        let running = tokio::spawn(merger.run(stop.clone()));
        line.expect(first..first + 50).await;
        if round % 2 == 0 {
            // As if it had died.
            running.abort();
        } else {
            stop.cancel();
            timeout(LONG, running).await.expect("it ends").unwrap()?;
        }
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(Merger::new(&line.shards, MergerOptions::default()).run(stop.clone()));
    line.expect_nothing(Duration::from_millis(500)).await;
    for store in line.shards.partitions() {
        assert_eq!(store.status().await?.output, 0);
    }
    stop.cancel();
    timeout(LONG, running).await.expect("it ends").unwrap()?;
    line.end().await;
    Ok(())
}

#[tokio::test]
async fn erased_a_line_is_gone_with_all_its_partitions() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder");
    let url: StoreUrl = format!("sqlite:{}", folder.path().join("conga.db").display())
        .parse()
        .unwrap();
    let line = "orders".parse().unwrap();
    let options = OpenOptions {
        shape: Some("total/3".parse().unwrap()),
        ..OpenOptions::default()
    };
    let shards = Shards::open(&url, &line, &options).await?;
    for (store, number) in shards.partitions().iter().zip(3..) {
        let entry = format!("{{\"sequence\":{number},\"payload\":0}}");
        store.send(&[entry.into()], None).await?;
    }
    let waiting = |status: Vec<conga::core::partition::Status>| status.iter().map(|part| part.waiting).sum::<u64>();
    assert_eq!(waiting(shards.status().await?), 3);
    drop(shards);
    erase_all(&url, &line).await?;
    let base = conga::store::open(&url, &line).await?;
    assert_eq!(base.shape(None).await?, None, "nobody has said what it is");
    drop(base);
    let shards = Shards::open(&url, &line, &options).await?;
    assert_eq!(waiting(shards.status().await?), 0);
    Ok(())
}
