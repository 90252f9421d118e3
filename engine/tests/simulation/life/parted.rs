//! The ends of a line of several partitions that nothing merges: who sends into all of them, and who receives from all.

use std::sync::Arc;

use bytes::Bytes;
use conga::process::{Place, Processor};
use conga::send::Producer;
use conga::shards::{Consumers, Lines, Producers, Refused, Shards};
use conga::store::{Result, StoreError};
use futures_util::future::try_join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Hand, next_parcel, options_of};
use crate::history::{Happened, Who};
use crate::plan::{Parcel, name_of};
use crate::process::Control;
use crate::world::World;

/// What has an identity is sent until it is there, and what has none once.
pub(super) async fn produce(world: Arc<World>, shards: &Shards, number: usize, stop: CancellationToken) -> Result<()> {
    let producers = Producers::new(shards).with_random(&world.random());
    let parcels = &world.plan.parcels[number];
    for (index, (pause, parcel)) in parcels.iter().enumerate().skip(next_parcel(&world, number)) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(*pause) => {}
        }
        match parcel {
            Parcel::Named(batch) => {
                producers.insist(batch).await?;
                world.has_sent(number, index);
            }
            Parcel::Nameless(entries) => {
                // Noted first: sent twice it would count twice.
                world.has_sent(number, index);
                send_raw(&world, shards, entries).await?;
            }
        }
    }
    Ok(())
}

/// As a foreign client does that knows the rule.
async fn send_raw(world: &World, shards: &Shards, entries: &[Vec<u8>]) -> Result<()> {
    for (turn, entry) in (1..).zip(entries) {
        let entry = Bytes::from(entry.clone());
        let partition = shards.router().partition_of(&entry, turn).unwrap();
        let store = shards.partitions()[partition as usize].clone();
        match Producer::new(store)
            .with_random(world.random())
            .send_entries(&[entry])
            .await
        {
            Err(error) if !error.is_passing() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// All of it is one input, which is given from its beginning each time that the producer is started.
pub(super) async fn produce_numbered(
    world: Arc<World>,
    shards: &Shards,
    number: usize,
    stop: CancellationToken,
) -> Result<()> {
    let named = |store| {
        let producer = Producer::named(store, name_of(number).as_str()).with_random(world.random());
        match world.plan.limits[number] {
            Some((most, when_full)) => producer.with_max_waiting(most, when_full),
            None => producer,
        }
    };
    let mut lines = Lines::begin(shards, named).await?;
    let draw = |most| world.dice.lock().unwrap().size(1, most);
    let a_while = || {
        let most = u64::try_from((world.plan.trouble / 12).as_millis()).unwrap();
        world.dice.lock().unwrap().millis(0, most)
    };
    let mut together = draw(8);
    for entry in world.plan.messages(number) {
        let given = lines.give(&entry, || entry.clone()).await;
        given.or_else(|refused| fails(&world, refused))?;
        if lines.waiting() >= together {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = sleep(a_while()) => {}
            }
            flush(&world, &mut lines).await?;
            together = draw(8);
        }
    }
    while !flush(&world, &mut lines).await? {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(a_while()) => {}
        }
    }
    if let Err(error) = lines.end() {
        world.wrong(format!("producer {number} has given its whole input: {error}"));
    }
    let sent = &mut world.sent.lock().unwrap()[number];
    *sent = world.plan.parcels[number].len();
    Ok(())
}

/// Whether there was room for all that waits; what is refused waits on.
async fn flush(world: &World, lines: &mut Lines) -> Result<bool> {
    match lines.flush().await {
        Ok(_) => Ok(true),
        Err(Refused::Store(StoreError::Full { .. })) => Ok(false),
        Err(refused) => fails(world, refused).map(|()| true),
    }
}

fn fails(world: &World, refused: Refused) -> Result<()> {
    match refused {
        Refused::Store(error) => Err(error),
        refused => {
            world.wrong(format!("a line of the same input is refused: {refused}"));
            Ok(())
        }
    }
}

/// Processors that know nothing of each other, though they are one process: a flaw.
pub(super) async fn process_apart(
    world: Arc<World>,
    shards: &Shards,
    who: Who,
    control: Control,
    stop: CancellationToken,
) -> Result<()> {
    let each = (0..).zip(shards.partitions()).map(|(partition, store)| {
        let handler = Hand {
            world: world.clone(),
            who,
            control: control.clone(),
        };
        let mut options = options_of(&world);
        options.place = Some(Place {
            partition,
            router: shards.router(),
        });
        let processor = Processor::new(store.clone(), handler, options).with_random(world.random());
        processor.run(stop.clone())
    });
    try_join_all(each).await.map(drop)
}

pub(super) async fn consume(world: Arc<World>, shards: &Shards, who: Who, stop: CancellationToken) -> Result<()> {
    let max = world.dice.lock().unwrap().size(1, 20);
    let mut consumers = Consumers::drawn(shards, max, || world.random());
    loop {
        let portion = tokio::select! {
            biased;
            () = stop.cancelled() => return match consumers.finish().await {
                // Another has taken its place, and is handed out what it could not acknowledge.
                Err(StoreError::Broken(_)) => Ok(()),
                ended => ended,
            },
            portion = consumers.next() => portion?,
        };
        // It may fail to write them down. It does not acknowledge them then, and gets them again.
        if !world.is_healed() && world.dice.lock().unwrap().chance(100) {
            continue;
        }
        let outputs = portion.batch.outputs.clone();
        world.note_at(portion.partition + 1, Some(who), Happened::Wrote { outputs });
        if !world.is_healed() {
            // Here it may crash, and what it has written comes again.
            let a_while = world.dice.lock().unwrap().millis(0, 20);
            sleep(a_while).await;
        }
        consumers.acknowledge(&portion);
    }
}
