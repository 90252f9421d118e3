//! The services of a merged line: who numbers, who processes in all partitions, and who merges them.

use std::sync::Arc;

use conga::shards::{Merger, MergerOptions, Processors, Producers, Shards};
use conga::store::Result;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Hand, options_of};
use crate::history::Who;
use crate::plan::{Merging, Parcel};
use crate::process::Control;
use crate::world::World;

pub(super) async fn process(
    world: Arc<World>,
    shards: &Shards,
    who: Who,
    control: Control,
    stop: CancellationToken,
) -> Result<()> {
    let handler = Hand {
        world: world.clone(),
        who,
        control,
    };
    let processors = Processors::new(shards, handler, options_of(&world)).with_random(&world.random());
    processors.run(stop).await.map(|_| ())
}

pub(super) async fn merge(world: Arc<World>, shards: &Shards, merging: Merging, stop: CancellationToken) -> Result<()> {
    let options = MergerOptions {
        window: merging.window,
        // Behind the window it knows the places of what comes, or looks it through again and again.
        places: merging.window * if merging.window.is_multiple_of(2) { 1 } else { 1_000 },
        batch: merging.batch,
        mark_dead: merging.mark_dead,
        gap_timeout: merging.gap_timeout,
        on_gap: merging.on_gap,
        keep: None,
    };
    let merger = Merger::new(shards, options).with_random(&world.random());
    merger.run(stop).await.map(|_| ())
}

/// Started again, it begins again with what it may not have noted that it had sent.
pub(super) async fn produce(world: Arc<World>, shards: &Shards, stop: CancellationToken) -> Result<()> {
    let producers = Producers::new(shards).with_random(&world.random());
    let next = world.sent.lock().unwrap()[0].saturating_sub(1);
    for (index, (pause, parcel)) in world.plan.parcels[0].iter().enumerate().skip(next) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(*pause) => {}
        }
        if let Parcel::Named(batch) = parcel {
            producers.insist(batch).await?;
        }
        let sent = &mut world.sent.lock().unwrap()[0];
        *sent = (*sent).max(index + 1);
    }
    Ok(())
}
