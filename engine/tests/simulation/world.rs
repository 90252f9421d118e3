//! One run: the store in the middle, the processes around it, the faults, and then the time in which all has to come
//! out.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conga::core::message::Position;
use conga::core::partition::Shelf;
use conga::core::shape::Shape;
use conga::random::{Random, SeededRandom};
use conga::store::SharedStore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::flaw::Flaw;
use crate::history::{Happened, History, Noted, Rest, Who};
use crate::life;
use crate::plan::{Dice, Plan};

mod person;
mod site;

pub(crate) use site::BASE;
use site::Site;

/// All that the processes of one run share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    /// The base, and after it the partitions, if the line has several.
    pub(crate) sites: Vec<Site>,
    pub(crate) dice: Mutex<Dice>,
    /// From then on nothing goes wrong any more.
    pub(crate) heal: Instant,
    /// How far each producer has come.
    pub(crate) sent: Mutex<Vec<usize>>,
    /// What each producer was refused and leaves out, by the places in what it has to send.
    pub(crate) left_out: Mutex<Vec<BTreeSet<usize>>>,
    /// How far the person has come who asks for things.
    pub(crate) commanded: Mutex<usize>,
    /// How many producers are not done.
    pub(crate) producing: AtomicUsize,
    /// All has come out: everybody is to end.
    pub(crate) over: CancellationToken,
    /// What somebody does wrong.
    pub(crate) flaw: Option<Flaw>,
    start: Instant,
    history: Arc<Mutex<History>>,
}

impl World {
    /// What was on its way when all is healed arrives so soon after.
    pub(crate) const AFTERMATH_MS: u64 = 300;
    /// How long it takes at most where nothing kills.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// The processes have to end so long after they were told to.
    const GOODBYE: Duration = Duration::from_secs(5);

    fn new(seed: u64, flaw: Option<Flaw>, history: Arc<Mutex<History>>) -> Arc<Self> {
        let plan = Plan::new(seed);
        let sites = (0..=plan.partitions()).map(|_| Site::new(flaw, plan.places.len()));
        let start = Instant::now();
        Arc::new(Self {
            dice: Mutex::new(Dice::new(!seed)),
            heal: start + plan.trouble,
            sent: Mutex::new(vec![0; plan.parcels.len()]),
            left_out: Mutex::new(vec![BTreeSet::new(); plan.parcels.len()]),
            commanded: Mutex::new(0),
            producing: AtomicUsize::new(plan.parcels.len()),
            over: CancellationToken::new(),
            flaw,
            start,
            sites: sites.collect(),
            history,
            plan,
        })
    }

    /// The base.
    pub(crate) fn store(&self) -> &SharedStore {
        &self.sites[BASE].store
    }

    pub(crate) fn is_healed(&self) -> bool {
        Instant::now() >= self.heal
    }

    /// Writes down what happened, in no store.
    pub(crate) fn note(&self, who: Option<Who>, what: Happened) {
        self.note_at(BASE, who, what);
    }

    /// Writes down what happened in a store, by its clock.
    pub(crate) fn note_at(&self, site: usize, who: Option<Who>, what: Happened) {
        self.history.lock().unwrap().happened.push(Noted {
            at: self.sites[site].now(),
            elapsed: self.start.elapsed(),
            site,
            who,
            what,
        });
    }

    /// A producer was refused these of its messages, and does not send them again.
    pub(crate) fn leave_out(&self, producer: usize, places: &[usize]) {
        self.left_out.lock().unwrap()[producer].extend(places);
        let places = places.to_vec();
        self.note(None, Happened::LeftOut { producer, places });
    }

    pub(crate) fn wrong(&self, what: String) {
        self.note(None, Happened::Wrong { what });
    }

    /// Until when `place` can't reach a store at `moment`, and whether it is told so at once.
    pub(crate) fn cut_off(&self, place: usize, site: usize, moment: Instant) -> Option<(Instant, bool)> {
        let since = moment.duration_since(self.start);
        let cuts = &self.plan.places[place].cuts;
        let cut = cuts
            .iter()
            .find(|cut| cut.is_of(site) && cut.from <= since && since < cut.to)?;
        Some((self.start + cut.to, cut.refused))
    }

    /// A source of randomness of its own for somebody.
    pub(crate) fn random(&self) -> Random {
        Random::Seeded(SeededRandom::new(self.dice.lock().unwrap().any()))
    }

    /// Hands on what the stores have hinted at since the last time, to those whom it reaches.
    pub(crate) fn pass_on_hints(&self) {
        for (site, of) in self.sites.iter().enumerate() {
            for topic in of.hints() {
                for (place, wakes) in of.listeners() {
                    let now = Instant::now();
                    let lost = self.dice.lock().unwrap().chance(self.plan.weather.unhinted);
                    if now < self.heal && (lost || self.cut_off(place, site, now).is_some()) {
                        self.note_at(site, None, Happened::HintLost);
                    } else {
                        wakes.wake(topic);
                    }
                }
            }
        }
    }

    /// Whether nothing is left to be sent, and nothing in the line.
    async fn is_done(&self) -> bool {
        if self.producing.load(Ordering::Relaxed) > 0 {
            return false;
        }
        for site in &self.sites {
            let status = site.store.status().await.unwrap();
            if status.waiting + status.in_flight + status.processed + status.output > 0 {
                return false;
            }
        }
        let head = self.store().status().await.unwrap().head;
        (self.plan.merging.as_ref()).is_none_or(|merging| head == Position(merging.last + 1))
    }

    /// All that was sent has to be out and received so long after. Each death by poison costs a lease.
    fn patience(&self) -> Duration {
        let poison = &self.plan.poison;
        // A person may have some of it sent again.
        let deaths = 3 * poison.numbers.len() as u64 * u64::from(poison.max_crashes);
        Self::PATIENCE + Duration::from_micros(deaths * (self.plan.lease_us + 200_000))
    }

    async fn run(self: Arc<Self>) {
        let shape = self.plan.shape();
        if shape != Shape::default() {
            self.store().shape(Some(shape)).await.unwrap();
        }
        // A merged line's are in total order, as what has no shape is.
        if self.plan.parted.is_some() {
            for site in self.plan.sites() {
                let of_one = Shape::of(self.plan.order);
                self.sites[site].store.shape(Some(of_one)).await.unwrap();
            }
        }
        let mut places = JoinSet::new();
        for place in 0..self.plan.places.len() {
            places.spawn(life::lives(self.clone(), place));
        }
        for (at, by, site) in &self.plan.jumps {
            sleep_until(self.start + *at).await;
            self.sites[*site].jump(u64::try_from(by.as_micros()).unwrap());
            self.note_at(*site, None, Happened::ClockJumped);
        }
        sleep_until(self.heal).await;
        self.note(None, Happened::Healed);
        sleep(Duration::from_millis(Self::AFTERMATH_MS + 10)).await;
        if !self.plan.commands.is_empty() {
            self.resume().await;
        }
        self.note(None, Happened::Settled);
        let all_out = async {
            let mut retried = Vec::new();
            while !self.is_done().await {
                self.see_to_the_halted(&mut retried).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        let patience = self.patience();
        if timeout(patience, all_out).await.is_err() {
            let mut status = Vec::new();
            for site in &self.sites {
                status.push(site.store.status().await);
            }
            self.wrong(format!("not all has come out in {patience:?}: {status:?}"));
        }
        self.over.cancel();
        let all_ended = async {
            while let Some(ended) = places.join_next().await {
                if ended.is_err() {
                    self.wrong("a place has panicked".to_owned());
                }
            }
        };
        if timeout(Self::GOODBYE, all_ended).await.is_err() {
            self.wrong("some process did not end when it was told to".to_owned());
        }
        for site in &self.sites {
            let shelf = async |shelf| {
                let mut rows = site.store.browse(shelf, None).await.unwrap().rows;
                rows.sort_by(|a, b| (&a.id, &a.json).cmp(&(&b.id, &b.json)));
                rows
            };
            let rest = Rest {
                record: shelf(Shelf::Record).await,
                dead: shelf(Shelf::Dead).await,
                status: site.store.status().await.unwrap(),
            };
            self.history.lock().unwrap().rest.push(rest);
        }
    }
}

/// Runs one seed from its beginning to its end.
pub(crate) fn run(seed: u64, flaw: Option<Flaw>) -> History {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let history = Arc::new(Mutex::new(History::default()));
    runtime.block_on(async {
        World::new(seed, flaw, history.clone()).run().await;
    });
    drop(runtime);
    std::mem::take(&mut *history.lock().unwrap())
}
