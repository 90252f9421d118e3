//! The lives of the processes: each does the real thing until it crashes or is told to end, and then another starts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use conga::core::lease::Held;
use conga::core::message::{Payload, Position};
use conga::core::partition::{DeadRequest, Limits, Row, Shelf};
use conga::core::retry::Backoff;
use conga::core::route::By;
use conga::deliver::{Consumer, position_of};
use conga::process::{Handler, HandlerError, Message, Processor, ProcessorOptions};
use conga::send::{Producer, checksum};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::shards::Shards;
use conga::store::{Result, SharedStore, StoreError};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::history::{Happened, Outcome, Who};
use crate::plan::{Command, Dice, Fate, Fault, Parcel, Role, name_of, number_of};
use crate::process::{Control, End, Part, Process};
use crate::wire::Connection;
use crate::world::{BASE, World};

mod merged;

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
            delivers: world.plan.places[place].delivers && (site != BASE || world.plan.merging.is_none()),
            site,
            world: world.clone(),
            place,
            who,
            control: control.clone(),
        })
    };
    let store = way(BASE);
    if let Some(merging) = world.plan.merging {
        let partitions = (1..=merging.partitions).map(way).collect();
        let shards = Shards::of(store.clone(), partitions, By::Sequence);
        match who.role {
            Role::Processor => return merged::process(world, &shards, who, control, stop).await,
            Role::Sequencer => return merged::merge(world, &shards, merging, stop).await,
            Role::Producer => return merged::produce(world, &shards, stop).await,
            Role::Consumer | Role::Operator => {}
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
        Role::Operator => operate(world, store, stop).await,
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

async fn produce(world: Arc<World>, store: SharedStore, number: usize, stop: CancellationToken) -> Result<()> {
    let producer = Producer::new(store).with_random(world.random());
    let parcels = &world.plan.parcels[number];
    let mut next = world.sent.lock().unwrap()[number];
    // It may not have noted that it was done with the one before.
    if next > 0 && world.dice.lock().unwrap().chance(300) && matches!(parcels[next - 1].1, Parcel::Named(_)) {
        next -= 1;
    }
    for (index, (pause, parcel)) in parcels.iter().enumerate().skip(next) {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(*pause) => {}
        }
        let done = |world: &World| {
            let sent = &mut world.sent.lock().unwrap()[number];
            *sent = (*sent).max(index + 1);
        };
        match parcel {
            Parcel::Named(batch) => {
                producer.insist(batch).await?;
                done(&world);
            }
            Parcel::Nameless(entries) => {
                // Noted first: sent twice it would count twice.
                done(&world);
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

/// Asks for one thing after the other, each once, as long as things go wrong.
async fn operate(world: Arc<World>, store: SharedStore, stop: CancellationToken) -> Result<()> {
    loop {
        let next = *world.commanded.lock().unwrap();
        let Some((pause, command)) = world.plan.commands.get(next).copied() else {
            break;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
        if world.is_healed() {
            break;
        }
        *world.commanded.lock().unwrap() = next + 1;
        let answered = match command {
            Command::Control(request) => store.control(&request).await.map(drop),
            Command::Dead(verdict) => {
                let rows = store.browse(Shelf::Dead, None).await?.rows;
                let positions = some_of(&rows, &mut world.dice.lock().unwrap());
                store.dead(&DeadRequest { verdict, positions }).await.map(drop)
            }
        };
        match answered {
            Err(error) if !error.is_passing() => return Err(error),
            _ => {}
        }
    }
    stop.cancelled().await;
    Ok(())
}

/// Some dead letters, one that is none, mostly, and one twice.
fn some_of(rows: &[Row], dice: &mut Dice) -> Vec<Position> {
    let mut letters: Vec<_> = rows.iter().filter_map(|row| position_of(&row.json)).collect();
    letters.sort_unstable();
    letters.retain(|_| dice.chance(700));
    letters.push(Position(dice.between(1, 60)));
    letters.extend(letters.first().copied());
    letters
}

/// The handler of one process.
#[derive(Debug, Clone)]
struct Hand {
    world: Arc<World>,
    who: Who,
    control: Control,
}

impl Handler for Hand {
    fn handle(self, message: Message) -> impl Future<Output = std::result::Result<Payload, HandlerError>> + Send {
        Part::new(self.control.clone(), self.work(message))
    }
}

impl Hand {
    /// In which store the message is.
    fn site_of(&self, message: &Message) -> usize {
        let merging = self.world.plan.merging.as_ref();
        let site = merging.zip(message.sequence);
        site.map_or(BASE, |(merging, number)| merging.site_of(number))
    }

    async fn work(self, message: Message) -> std::result::Result<Payload, HandlerError> {
        let held = Held {
            position: message.position,
            attempt: message.attempt,
        };
        let site = self.site_of(&message);
        self.world.note_at(site, Some(self.who), Happened::Begins { held });
        let mut running = Running {
            hand: &self,
            site,
            held,
            outcome: Outcome::Dropped,
        };
        let world = &self.world;
        let at_most = if world.is_healed() { 20 } else { world.plan.handler_ms };
        let length = world.dice.lock().unwrap().millis(0, at_most);
        // When all is healed the handlers are quick: what then takes long is not their doing.
        let latest = Instant::now().max(world.heal) + Duration::from_millis(20);
        sleep_until((Instant::now() + length).min(latest)).await;
        let payload: String = serde_json::from_str(message.payload.text()).unwrap_or_default();
        let Some(number) = number_of(&payload) else {
            self.world.wrong(format!(
                "position {}: a payload that nobody sent: {payload}",
                message.position
            ));
            return Err(HandlerError::permanent("nobody sent this"));
        };
        let attempt = message.attempt.0;
        running.outcome = Outcome::Failure;
        match self.world.plan.fate(number) {
            Fate::Kills => {
                self.world.note_at(site, Some(self.who), Happened::Kills { held });
                self.control.kill();
                std::future::pending::<()>().await;
            }
            Fate::FailsForGood => return Err(HandlerError::permanent("never")),
            Fate::FailsAtFirst(times) if attempt <= times => return Err(HandlerError::passing("not yet")),
            Fate::PanicsAtFirst if attempt == 1 => {
                running.outcome = Outcome::Panic;
                drop(running);
                // As a panic is, but silent.
                std::panic::resume_unwind(Box::new("the handler"));
            }
            _ => {}
        }
        running.outcome = Outcome::Result;
        // Another attempt has another result: which one came out can be told.
        Ok(Payload::string(&format!("m{number} by {}#{attempt}", self.who)))
    }
}

/// Sees the end of a handler, however it comes.
struct Running<'a> {
    hand: &'a Hand,
    site: usize,
    held: Held,
    outcome: Outcome,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (held, outcome) = (self.held, self.outcome);
        let Hand { world, who, .. } = self.hand;
        world.note_at(self.site, Some(*who), Happened::Ends { held, outcome });
    }
}

impl World {
    fn has_sent_all(&self, producer: usize) -> bool {
        self.sent.lock().unwrap()[producer] == self.plan.parcels[producer].len()
    }
}
