//! The lives of the processes: each does the real thing until it crashes or is told to end, and then another starts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conga::core::partition::Limits;
use conga::core::retry::Backoff;
use conga::core::route::By;
use conga::deliver::Consumer;
use conga::process::{Processor, ProcessorOptions};
use conga::send::{Producer, checksum};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::shards::Shards;
use conga::store::{Result, SharedStore, StoreError};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::flaw::Flaw;
use crate::history::{Happened, Who};
use crate::plan::{Fault, Parcel, Role, name_of};
use crate::process::{Control, End, Process};
use crate::wire::Connection;
use crate::world::{BASE, World};

mod hand;
mod merged;
mod parted;
mod person;

use hand::Hand;
use person::operate;

/// A handler's drain, and twice a call that the store does not answer.
const LONGEST_END: Duration = Duration::from_millis(LONGEST_DRAIN_MS + 2_100);
const LONGEST_DRAIN_MS: u64 = 1_500;

/// One process after the other in one place, until all is over.
pub(crate) async fn lives(world: Arc<World>, place: usize) {
    let plan = &world.plan.places[place];
    let start = world.heal - world.plan.trouble;
    let mut faults: VecDeque<_> = plan.faults.iter().copied().collect();
    for life in 1.. {
        let who = Who {
            role: plan.role,
            number: plan.number,
            life,
        };
        // What would have happened while there was no process has happened to nobody.
        while faults.front().is_some_and(|(at, _)| start + *at < Instant::now()) {
            faults.pop_front();
        }
        let (control, stop) = (Control::default(), CancellationToken::new());
        world.note(Some(who), Happened::Started);
        let work = work(world.clone(), place, who, control.clone(), stop.clone());
        let process = Process::new(control.clone(), work);
        tokio::pin!(process);
        let mut away = Duration::ZERO;
        let mut healed = false;
        // Since when it should be ending, and nothing kept it from that.
        let mut told = None;
        let end = loop {
            let next = faults.front().map_or(world.heal, |(at, _)| start + *at);
            tokio::select! {
                biased;
                end = &mut process => break end,
                () = world.over.cancelled(), if !stop.is_cancelled() => stop.cancel(),
                () = sleep_until(next), if !healed => match faults.pop_front() {
                    Some((_, Fault::Crash { turns, away: a_while })) => {
                        control.crash(turns);
                        away = a_while;
                    }
                    Some((_, Fault::Pause { length })) => {
                        world.note(Some(who), Happened::Paused { length });
                        control.pause((Instant::now() + length).min(world.heal));
                        told = None;
                    }
                    Some((_, Fault::Stop { away: a_while })) => {
                        world.note(Some(who), Happened::ToldToEnd);
                        told = Some(control.stands_until().unwrap_or_else(Instant::now));
                        stop.cancel();
                        away = a_while;
                    }
                    None => {
                        control.spare();
                        healed = true;
                    }
                },
            }
        };
        world.note(
            Some(who),
            if matches!(end, End::Crashed) {
                Happened::Crashed
            } else {
                Happened::Ended
            },
        );
        // A leader that merges gives back several places, one after the other.
        let may_take_long = matches!(plan.role, Role::Producer | Role::Consumer)
            || (plan.role == Role::Sequencer && world.plan.merging.is_some());
        if !may_take_long && told.is_some_and(|told: Instant| told.elapsed() > LONGEST_END) {
            world.wrong(format!("{who} took {:?} to end", told.map(|told| told.elapsed())));
        }
        match end {
            End::Crashed if control.is_killed() && !world.is_healed() => {
                away = world.dice.lock().unwrap().millis(0, 500);
            }
            End::Crashed => {}
            End::Returned(Ok(())) if plan.role == Role::Producer && world.has_sent_all(plan.number) => {
                world.producing.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            End::Returned(Ok(())) if stop.is_cancelled() => {}
            End::Returned(ended) => world.wrong(format!("{who} ended by itself: {ended:?}")),
            End::Panicked => world.wrong(format!("{who} panicked")),
        }
        if world.over.is_cancelled() {
            return;
        }
        sleep_until((Instant::now() + away).min(world.heal)).await;
    }
}

/// What a process does.
async fn work(world: Arc<World>, place: usize, who: Who, control: Control, stop: CancellationToken) -> Result<()> {
    let way = |site: usize| -> SharedStore {
        Arc::new(Connection {
            wakes: world.sites[site].connect(place),
            delivers: world.plan.places[place].delivers && (site != BASE || world.plan.partitions() == 0),
            site,
            world: world.clone(),
            place,
            who,
            control: control.clone(),
        })
    };
    let store = way(BASE);
    if world.plan.partitions() > 0 {
        let mut partitions: Vec<_> = world.plan.sites().map(way).collect();
        if who.role == Role::Operator {
            return operate(world, partitions, stop).await;
        }
        let mut by = world.plan.by();
        match (world.flaw, who.role) {
            (Some(Flaw::ForgetsWhereKeysGo), Role::Producer) => by = By::Identity,
            (Some(Flaw::SendsAgainElsewhere), Role::Producer) => {
                let others = who.life as usize % partitions.len();
                partitions.rotate_left(others);
            }
            (Some(Flaw::ReceivesFromTooFew), Role::Consumer) => _ = partitions.pop(),
            _ => {}
        }
        let shards = Shards::of(store.clone(), partitions, by);
        let numbers = who.role == Role::Producer && world.plan.numbering[who.number];
        match (who.role, world.plan.merging) {
            (Role::Processor, None) if world.flaw == Some(Flaw::IsolatesInOnePartition) => {
                return parted::process_apart(world, &shards, who, control, stop).await;
            }
            (Role::Processor, _) => return merged::process(world, &shards, who, control, stop).await,
            (Role::Sequencer, Some(merging)) => return merged::merge(world, &shards, merging, stop).await,
            (Role::Producer, Some(_)) => return merged::produce(world, &shards, stop).await,
            (Role::Producer, None) if numbers => {
                return parted::produce_numbered(world, &shards, who.number, stop).await;
            }
            (Role::Producer, None) => return parted::produce(world, &shards, who.number, stop).await,
            (Role::Consumer, None) => return parted::consume(world, &shards, who, stop).await,
            _ => {}
        }
    }
    match who.role {
        Role::Processor => process(world, store, who, control, stop).await,
        Role::Sequencer => {
            let options = SequencerOptions {
                window: world.plan.buffer,
                batch: world.plan.emit_batch,
            };
            let sequencer = Sequencer::new(store, options).with_random(world.random());
            sequencer.run(stop).await.map(|_| ())
        }
        Role::Producer if world.plan.numbering[who.number] => produce_numbered(world, store, who.number, stop).await,
        Role::Producer => produce(world, store, who.number, stop).await,
        Role::Consumer => consume(world, store, who, stop).await,
        Role::Operator => operate(world, vec![store], stop).await,
    }
}

async fn process(
    world: Arc<World>,
    store: SharedStore,
    who: Who,
    control: Control,
    stop: CancellationToken,
) -> Result<()> {
    let handler = Hand {
        world: world.clone(),
        who,
        control,
    };
    let processor = Processor::new(store, handler, options_of(&world)).with_random(world.random());
    processor.run(stop).await.map(|_| ())
}

fn options_of(world: &World) -> ProcessorOptions {
    let plan = &world.plan;
    let mut options = ProcessorOptions {
        concurrency: plan.concurrency,
        backoff: Backoff {
            base_us: 20_000,
            max_us: 400_000,
            max_attempts: plan.max_attempts,
        },
        max_crashes: plan.poison.max_crashes,
        on_dead: plan.poison.on_dead,
        keep: Some(plan.keep),
        drain: world.dice.lock().unwrap().millis(0, LONGEST_DRAIN_MS),
        ..ProcessorOptions::default()
    };
    options.claim.lease_us = plan.lease_us;
    options.claim.window = plan.window;
    options.claim.limits = Limits {
        entry_bytes: plan.entry_bytes,
        total_bytes: plan.answer_bytes,
    };
    options
}

/// Which of its parcels a producer that is started goes on with.
fn next_parcel(world: &World, number: usize) -> usize {
    let next = world.sent.lock().unwrap()[number];
    let before = next.checked_sub(1).filter(|_| world.dice.lock().unwrap().chance(300));
    // It may not have noted that it was done with the one before.
    before
        .filter(|before| matches!(world.plan.parcels[number][*before].1, Parcel::Named(_)))
        .unwrap_or(next)
}

async fn produce(world: Arc<World>, store: SharedStore, number: usize, stop: CancellationToken) -> Result<()> {
    let producer = Producer::new(store).with_random(world.random());
    let parcels = &world.plan.parcels[number];
    for (index, (pause, parcel)) in parcels.iter().enumerate().skip(next_parcel(&world, number)) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(*pause) => {}
        }
        match parcel {
            Parcel::Named(batch) => {
                producer.insist(batch).await?;
                world.has_sent(number, index);
            }
            Parcel::Nameless(entries) => {
                // Noted first: sent twice it would count twice.
                world.has_sent(number, index);
                let entries: Vec<_> = entries.iter().cloned().map(Into::into).collect();
                match producer.send_entries(&entries).await {
                    Err(error) if !error.is_passing() => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// Started again, it begins again with its first message, and goes on where the store says. What is refused it sends again
/// later, or leaves out.
async fn produce_numbered(world: Arc<World>, store: SharedStore, number: usize, stop: CancellationToken) -> Result<()> {
    let mut producer = Producer::named(store, name_of(number).as_str()).with_random(world.random());
    if let Some((most, when_full)) = world.plan.limits[number] {
        producer = producer.with_max_waiting(most, when_full);
    }
    let messages = world.plan.messages(number);
    let pause = world.plan.trouble / 12;
    let mut next = usize::try_from(producer.last().await?).unwrap();
    loop {
        let left_out = world.left_out.lock().unwrap()[number].clone();
        let places: Vec<_> = (0..messages.len()).filter(|place| !left_out.contains(place)).collect();
        if next >= places.len() {
            break;
        }
        let a_while = world
            .dice
            .lock()
            .unwrap()
            .millis(0, u64::try_from(pause.as_millis()).unwrap());
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(a_while) => {}
        }
        let count = world.dice.lock().unwrap().size(1, 8).min(places.len() - next);
        let end = next + count;
        let mut mark = 0;
        let marked = places[..end].iter().map(|place| {
            mark = checksum(mark, &messages[*place]);
            (messages[*place].clone(), mark)
        });
        match producer.send_marked(&marked.collect::<Vec<_>>()[next..]).await {
            Ok(()) => next = end,
            Err(StoreError::Full { .. }) => {
                next = usize::try_from(producer.last().await?).unwrap();
                if world.dice.lock().unwrap().chance(500) {
                    world.leave_out(number, &places[next..end]);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let sent = &mut world.sent.lock().unwrap()[number];
    *sent = world.plan.parcels[number].len();
    Ok(())
}

async fn consume(world: Arc<World>, store: SharedStore, who: Who, stop: CancellationToken) -> Result<()> {
    let mut consumer = Consumer::new(store).with_random(world.random());
    loop {
        let max = world.dice.lock().unwrap().size(1, 20);
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => return match consumer.finish().await {
                // Another has taken its place, and is handed out what it could not acknowledge.
                Err(StoreError::Broken(_)) => Ok(()),
                ended => ended,
            },
            batch = consumer.next(max) => batch?,
        };
        // It may fail to write them down. It does not acknowledge them then, and gets them again.
        if !world.is_healed() && world.dice.lock().unwrap().chance(100) {
            continue;
        }
        let outputs = batch.outputs.clone();
        world.note(Some(who), Happened::Wrote { outputs });
        if !world.is_healed() {
            // Here it may crash, and what it has written comes again.
            let a_while = world.dice.lock().unwrap().millis(0, 20);
            sleep(a_while).await;
        }
        consumer.acknowledge(&batch);
    }
}

impl World {
    /// A producer is done with this parcel.
    fn has_sent(&self, producer: usize, index: usize) {
        let sent = &mut self.sent.lock().unwrap()[producer];
        *sent = (*sent).max(index + 1);
    }

    fn has_sent_all(&self, producer: usize) -> bool {
        self.sent.lock().unwrap()[producer] == self.plan.parcels[producer].len()
    }
}
