//! Who does it: carries out the schedule on a fleet at work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use conga::core::partition::Status;
use conga::line::Line;
use conga::shards::Shards;
use conga::store::{SharedStore, StoreUrl};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::blame::Blame;
use super::database::Lock;
use super::fault::Nature;
use super::group::Over;
use super::log::Injection;
use super::postgres::{self, Record};
use super::schedule::{Lot, Schedule};
use super::server::{self, Served};
use super::zombie::{AllTries, Tries, Zombie};
use crate::args::Fault;
use crate::bench::fleet::{Fleet, Member, Role, Work};
use crate::bench::proxy::{Door, Proxy, Weather};
use crate::bench::recorder::Recorder;

mod cast;

/// How long after a kill another process is started: later than those who are left must have noticed.
const REPLACE: Duration = Duration::from_millis(250);
/// How long the store may take to say who leads.
const LOOK: Duration = Duration::from_millis(300);
/// What latency is, each way.
const LATENCY: Duration = Duration::from_millis(200);

/// What new processes are started with.
#[derive(Debug, Clone)]
pub(super) struct Cast {
    pub(super) url: StoreUrl,
    pub(super) line: Line,
    pub(super) work: Work,
    pub(super) processors: usize,
    pub(super) sequencers: usize,
    /// Some messages kill their processor.
    pub(super) poisoned: bool,
}

/// Injects faults into a fleet at work.
pub(super) struct Injector {
    cast: Arc<Cast>,
    /// The line by its own name.
    store: SharedStore,
    fleet: Fleet,
    served: Option<Served>,
    record: Record,
    /// The hash tags of all that the line has, and so where it is: its partitions, and the base of a merged line.
    tags: Vec<String>,
    /// One at each partition; they come by turns.
    zombies: Vec<Zombie>,
    at_the_base: Option<Zombie>,
    /// How often one has come.
    visits: usize,
    /// Processes on their way; and who ends when one is there.
    starting: JoinSet<anyhow::Result<(Member, Option<String>)>>,
    /// Processes that were told to end; whether one died of a poison instead.
    ending: JoinSet<anyhow::Result<bool>>,
    paused: Option<String>,
    /// When processors died of a poison.
    pub(super) deaths: Vec<Instant>,
    blame: Option<Blame>,
    pub(super) log: Vec<Injection>,
}

/// What ends a fault.
enum Undo {
    Nothing,
    Resume(String),
    Fair(Arc<Proxy>),
    AllFair,
    Server(server::Undo),
    Record(postgres::Undo),
    Unlock(Lock),
}

/// What was done.
struct Done {
    undo: Undo,
    everybody: bool,
    form: String,
    /// Where the fault is over before this is known.
    over: Option<Instant>,
}

impl Done {
    fn one(form: impl Into<String>, undo: Undo) -> Self {
        Self {
            undo,
            everybody: false,
            form: form.into(),
            over: None,
        }
    }

    fn all(form: impl Into<String>, undo: Undo) -> Self {
        Self {
            undo,
            everybody: true,
            form: form.into(),
            over: None,
        }
    }
}

impl Injector {
    pub(super) fn new(cast: Cast, shards: &Shards, fleet: Fleet, served: Option<Served>, recorder: Recorder) -> Self {
        let partitions = shards.partitions().iter();
        let zombies: Vec<Zombie> = partitions
            .map(|store| Zombie::new(store.clone(), cast.work.window))
            .collect();
        let mut tags = vec![cast.line.tag()];
        if shards.are_several() {
            let count = u32::try_from(zombies.len()).unwrap_or(u32::MAX);
            tags = (0..count)
                .map(|partition| cast.line.partition(partition).tag())
                .collect();
        }
        let blame = cast.poisoned.then(|| Blame::watch(&cast.url, tags.clone())).flatten();
        if shards.are_merged() {
            tags.push(cast.line.tag());
        }
        Self {
            tags,
            zombies,
            at_the_base: shards.are_merged().then(|| Zombie::at_a_base(shards.base().clone())),
            visits: 0,
            cast: Arc::new(cast),
            store: shards.base().clone(),
            fleet,
            served,
            record: Record(recorder),
            starting: JoinSet::new(),
            ending: JoinSet::new(),
            paused: None,
            deaths: Vec::new(),
            blame,
            log: Vec::new(),
        }
    }

    /// Carries out rounds until `stop`; the last one to its end, so that nothing is left to heal. Tells `each` when all
    /// `faults` have come.
    pub(super) async fn run(
        &mut self,
        mut schedule: Schedule,
        faults: &[Fault],
        each: &CancellationToken,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        while let Some(round) = schedule.next() {
            if matches!(self.served, Some(Served::Group(_))) {
                // Such servers promote another one whenever they find the primary silent, and not only when it was killed.
                let all = self.zombies.iter_mut().chain(&mut self.at_the_base);
                all.for_each(Zombie::forget);
            }
            self.haunt().await?;
            let Some(passed) = stop.run_until_cancelled(self.pass(Instant::now() + round.before)).await else {
                break;
            };
            passed?;
            let began = Instant::now();
            let Some(done) = self.inject(round.fault, round.lot).await? else {
                // Nobody was there to be hit.
                if let Some(passed) = stop.run_until_cancelled(self.pass(Instant::now() + LATENCY)).await {
                    passed?;
                }
                continue;
            };
            let first = self.log.len();
            let everybody = done.everybody;
            self.log.push(Injection::new(round.fault, began, everybody, done.form));
            for (after, fault, lot) in round.company {
                self.pass(began + after).await?;
                let at = Instant::now();
                if let Some(done) = self.inject(fault, lot).await? {
                    self.log[first].overlapped = true;
                    let mut injection = Injection::new(fault, at, done.everybody, done.form);
                    injection.overlapped = true;
                    self.log.push(injection);
                }
            }
            self.pass(began + round.fault.lasts()).await?;
            self.undo(done.undo, round.lot).await?;
            self.log[first].ended = done.over.unwrap_or_else(Instant::now);
            let rested = Instant::now() + round.fault.rest();
            let Some(passed) = stop.run_until_cancelled(self.pass(rested)).await else {
                break;
            };
            passed?;
            if faults
                .iter()
                .all(|fault| self.log.iter().any(|done| done.fault == *fault))
            {
                each.cancel();
            }
        }
        self.attend(stop).await
    }

    /// One partition by its turn, and the base of a merged line each time.
    async fn haunt(&mut self) -> anyhow::Result<()> {
        let turn = self.visits % self.zombies.len();
        self.visits += 1;
        self.zombies[turn].haunt().await?;
        if let Some(at_the_base) = &mut self.at_the_base {
            at_the_base.haunt().await?;
        }
        Ok(())
    }

    /// Does it, if it can be done now.
    async fn inject(&mut self, fault: Fault, lot: Lot) -> anyhow::Result<Option<Done>> {
        self.tend()?;
        match fault.nature() {
            Nature::Processes => self.hit(fault, lot).await,
            Nature::Network => self.disturb(fault, lot).await,
            Nature::Connections | Nature::Server | Nature::Primary | Nature::Slots => {
                self.strike(fault, lot).await.map(Some)
            }
            Nature::Record => {
                let undo = self.record.inject(fault).await?;
                Ok(Some(Done::all("", Undo::Record(undo))))
            }
            Nature::Database => {
                let StoreUrl::Sqlite(path) = &self.cast.url else {
                    anyhow::bail!("no file to lock");
                };
                let lock = Lock::take(&PathBuf::from(path)).await?;
                Ok(Some(Done::all("", Undo::Unlock(lock))))
            }
        }
    }

    async fn undo(&mut self, undo: Undo, lot: Lot) -> anyhow::Result<()> {
        match undo {
            Undo::Nothing => {}
            Undo::Resume(owner) => {
                self.paused = None;
                // It may have been killed meanwhile.
                self.fleet.pause(&owner, false)?;
            }
            Undo::Fair(proxy) => proxy.heal().await?,
            Undo::AllFair => self.network()?.set(Weather::Fair).await?,
            Undo::Server(undo) => {
                let Some(Served::One(server)) = &mut self.served else {
                    anyhow::bail!("no server of our own");
                };
                server.undo(undo, lot).await?;
            }
            Undo::Record(undo) => self.record.undo(undo, lot).await?,
            Undo::Unlock(lock) => lock.release().await?,
        }
        Ok(())
    }

    async fn hit(&mut self, fault: Fault, lot: Lot) -> anyhow::Result<Option<Done>> {
        if fault == Fault::KillAll {
            return self.replace_all().await.map(Some);
        }
        let role = match fault {
            Fault::KillProcessor | Fault::StopProcessor | Fault::PauseProcessor => Role::Processor,
            _ => Role::Sequencer,
        };
        let Some(victim) = self.victim(role, lot).await else {
            return Ok(None);
        };
        let mut undo = Undo::Nothing;
        match fault {
            Fault::KillProcessor | Fault::KillLeader => {
                self.fleet.kill(|member| member.owner == victim).await?;
                self.start(role, REPLACE, None);
            }
            // One that stands still can't end by itself.
            Fault::StopProcessor | Fault::StopLeader if self.paused.as_ref() == Some(&victim) => return Ok(None),
            Fault::StopProcessor | Fault::StopLeader => self.relieve(&victim, role).await?,
            _ => {
                self.fleet.pause(&victim, true)?;
                self.paused = Some(victim.clone());
                undo = Undo::Resume(victim.clone());
            }
        }
        Ok(Some(Done::one(victim, undo)))
    }

    async fn disturb(&mut self, fault: Fault, lot: Lot) -> anyhow::Result<Option<Done>> {
        let (weather, form) = match fault {
            Fault::BlackHole => black_hole(lot),
            Fault::Latency => (Weather::Delay(LATENCY), ""),
            _ => (Weather::Fair, ""),
        };
        if lot.one_of(0, 2) == 0 {
            let network = self.network()?;
            if fault == Fault::Reset {
                return Ok(Some(Done::all(
                    format!("{} connections of all", network.reset()),
                    Undo::Nothing,
                )));
            }
            network.set(weather).await?;
            return Ok(Some(Done::all(format!("all {form}"), Undo::AllFair)));
        }
        let role = [Role::Processor, Role::Sequencer][lot.one_of(1, 2)];
        let Some(victim) = self.victim(role, lot).await else {
            return Ok(None);
        };
        let members = self.fleet.members.iter();
        let Some(proxy) = members
            .filter(|member| member.owner == victim)
            .find_map(|member| member.proxy.clone())
        else {
            return Ok(None);
        };
        if fault == Fault::Reset {
            proxy.reset();
            return Ok(Some(Done::one(victim, Undo::Nothing)));
        }
        proxy.set(weather).await?;
        Ok(Some(Done::one(format!("{victim} {form}"), Undo::Fair(proxy))))
    }

    /// To the servers that are served.
    async fn strike(&mut self, fault: Fault, lot: Lot) -> anyhow::Result<Done> {
        match self.served.as_mut().context("no server of our own")? {
            Served::One(server) => {
                let (form, undo) = server.inject(fault, lot).await?;
                Ok(Done::all(form, Undo::Server(undo)))
            }
            Served::Group(group) => {
                // Where there are partitions one of them is hit, or the base.
                let tag = &self.tags[lot.one_of(3, self.tags.len())];
                let Over { form, at } = group.inject(fault, lot, tag).await?;
                let form = match self.tags.len() {
                    1 => form,
                    _ => format!("{tag} {form}"),
                };
                Ok(Done {
                    over: Some(at),
                    ..Done::all(form, Undo::Nothing)
                })
            }
        }
    }

    fn network(&self) -> anyhow::Result<&crate::bench::network::Network> {
        self.cast.work.network.as_deref().context("no network to disturb")
    }

    /// Any processor, or the leader; nobody, if that can't be told now.
    async fn victim(&self, role: Role, lot: Lot) -> Option<String> {
        if role == Role::Sequencer {
            let leader = self.status().await?.leader?.to_string();
            return self
                .fleet
                .members
                .iter()
                .any(|member| member.owner == leader)
                .then_some(leader);
        }
        let processors = self.fleet.members.iter().filter(|member| member.role == role);
        let owners: Vec<&String> = processors.map(|member| &member.owner).collect();
        owners.get(lot.one_of(2, owners.len())).map(|owner| (*owner).clone())
    }

    async fn status(&self) -> Option<Status> {
        timeout(LOOK, self.store.status()).await.ok()?.ok()
    }

    /// What the zombies have tried, and how much of it counted.
    pub(super) fn tries(&self) -> AllTries {
        let sum = |of: fn(&Zombie) -> Tries| self.all_zombies().map(of).fold(Tries::default(), Tries::plus);
        AllTries {
            emits: sum(|zombie| zombie.emits),
            completes: sum(|zombie| zombie.completes),
            merges: sum(|zombie| zombie.merges),
        }
    }

    /// The most that a message was blamed which killed nobody, as far as that can be seen.
    pub(super) async fn blame(&self, shards: &Shards) -> anyhow::Result<Option<u32>> {
        match &self.blame {
            Some(blame) => blame.of_innocents(shards).await.map(Some),
            None => Ok(None),
        }
    }

    fn all_zombies(&self) -> impl Iterator<Item = &Zombie> {
        self.zombies.iter().chain(&self.at_the_base)
    }

    /// What the zombies saw that must not be.
    pub(super) fn strange(&self) -> Vec<String> {
        self.all_zombies().flat_map(Zombie::violations).collect()
    }
}

fn black_hole(lot: Lot) -> (Weather, &'static str) {
    let (to_server, to_client, form) = [
        (true, true, "both ways"),
        (true, false, "to the server"),
        (false, true, "to the client"),
    ][lot.one_of(2, 3)];
    let door = [Door::Open, Door::Shut][lot.one_of(3, 2)];
    let weather = Weather::BlackHole {
        to_server,
        to_client,
        door,
    };
    (weather, form)
}
