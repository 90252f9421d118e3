//! What the rules cost: `cargo bench -p conga-core`. Each is one batch of messages, so that a time divided by the batch
//! is a message's.

#![allow(missing_docs, reason = "what criterion's macros write has none")]

use std::hint::black_box;

use bytes::Bytes;
use conga_core::lease::{Attempt, OwnerId};
use conga_core::message::{Body, Entry, Format, Id, Output, Payload, Position, Record, finish, parse, write_open};
use conga_core::partition::{ClaimRequest, Completion, Limits, Partition};
use conga_core::sequencer::{Action, Event, Sequencer};
use conga_core::term::Term;
use conga_core::time::Micros;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// So many messages at once.
const BATCH: u64 = 100;
const NOW: Micros = Micros(1_767_323_045_000_006);

fn payload() -> Payload {
    Payload::string(&"x".repeat(198))
}

fn entry(number: u64) -> Bytes {
    let payload = payload();
    format!(
        "{{\"id\":\"run-{number}\",\"created\":\"{NOW}\",\"payload\":{}}}",
        payload.text()
    )
    .into()
}

fn record(position: Position) -> Record {
    Record {
        position,
        id: Id::given(format!("run-{}", position.0)),
        sequence: None,
        key: None,
        body: Body::Result(payload()),
        attempts: Attempt(1),
        created: NOW,
        processing: NOW,
    }
}

fn output(position: Position) -> Bytes {
    let mut text = write_open(&record(position));
    finish(&mut text, NOW, NOW, NOW);
    text.into()
}

/// Messages are processed in pairs that change places, and emitted.
fn sequencer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sequencer");
    group.throughput(Throughput::Elements(BATCH));
    let mut sequencer = Sequencer::new(10_000, 1_000);
    sequencer.step(Event::Elected { term: Term(1) });
    let mut next = 1;
    group.bench_function("step", |bencher| {
        bencher.iter(|| {
            for offset in 0..BATCH {
                let position = Position(next + (offset ^ 1));
                let event = Event::Processed {
                    position,
                    ticket: position.0,
                };
                if let Action::Emit { head, count, .. } = sequencer.step(black_box(event)) {
                    let head = Position(head.0 + count as u64);
                    sequencer.step(Event::Emitted { head });
                }
            }
            next += BATCH;
        });
    });
    group.finish();
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    group.throughput(Throughput::Elements(1));
    let (input, line, row) = (Entry::Whole(entry(1)), output(Position(1)), record(Position(1)));
    group.bench_function("parse an envelope", |bencher| {
        bencher.iter(|| parse(black_box(&input), Position(1), Format::Any, u64::MAX));
    });
    group.bench_function("write an output", |bencher| {
        bencher.iter(|| {
            let mut text = write_open(black_box(&row));
            finish(&mut text, NOW, NOW, NOW);
            text
        });
    });
    group.bench_function("parse an output", |bencher| {
        bencher.iter(|| Output::parse(black_box(&line)));
    });
    group.finish();
}

fn partition(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partition");
    group.throughput(Throughput::Elements(BATCH));
    let entries: Vec<Bytes> = (1..=BATCH).map(entry).collect();
    let owner = OwnerId::new("a");
    let request = ClaimRequest {
        owner: owner.clone(),
        max: entries.len(),
        lease_us: 1_000_000,
        window: 10_000,
        below: None,
        limits: Limits::default(),
    };
    let mut waiting = Partition::default();
    waiting.send(&entries);
    group.bench_function("claim", |bencher| {
        bencher.iter_batched_ref(
            || waiting.clone(),
            |partition| partition.claim(NOW, &request),
            BatchSize::SmallInput,
        );
    });
    let mut claimed = waiting.clone();
    let completions: Vec<Completion> = claimed
        .claim(NOW, &request)
        .into_iter()
        .map(|claim| Completion::Done(record(claim.position)))
        .collect();
    group.bench_function("complete", |bencher| {
        bencher.iter_batched_ref(
            || claimed.clone(),
            |partition| partition.complete(NOW, &owner, &completions),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, sequencer, messages, partition);
criterion_main!(benches);
