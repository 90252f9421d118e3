//! One run: the store in the middle, the processes around it, the faults, and then the time in which all has to come
//! out.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use conga::clock::{Clock, ManualClock};
use conga::core::partition::{ControlRequest, Flow, Shelf};
use conga::core::shape::{Order, Shape};
use conga::core::time::Micros;
use conga::random::{Random, SeededRandom};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore};
use conga::wake::{Listener, Topic, Wakes};
use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::flaw::{Flaw, Flawed};
use crate::history::{Happened, History, Rest, Who};
use crate::life;
use crate::plan::{Dice, Plan};

/// All that the processes of one run share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) store: SharedStore,
    /// The same store, for those who have it deliver.
    pub(crate) delivering: SharedStore,
    /// The store's.
    clock: ManualClock,
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
    start: Instant,
    /// What the store hints at.
    heard: Mutex<Vec<(Topic, Listener)>>,
    /// Who is to hear of it, by place.
    hinted: Mutex<Vec<Option<Wakes>>>,
    history: Arc<Mutex<History>>,
}

impl World {
    /// What was on its way when all is healed arrives so soon after.
    pub(crate) const AFTERMATH_MS: u64 = 300;
    /// All that was sent has to be out and received so long after.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// The processes have to end so long after they were told to.
    const GOODBYE: Duration = Duration::from_secs(5);

    fn new(seed: u64, flaw: Option<Flaw>, history: Arc<Mutex<History>>) -> Arc<Self> {
        let plan = Plan::new(seed);
        // Any time after 1970; the same in each run.
        let clock = ManualClock::going(Micros(0));
        let memory = MemoryStore::new(Clock::Manual(clock.clone())).delivering(Delivery::Leader);
        let (store, delivering): (SharedStore, SharedStore) = match flaw {
            None => {
                let delivering = memory.delivering(Delivery::Store);
                (Arc::new(memory), Arc::new(delivering))
            }
            Some(flaw) => {
                let flawed = Flawed::new(memory, flaw);
                let delivering = flawed.delivering();
                (Arc::new(flawed), Arc::new(delivering))
            }
        };
        let start = Instant::now();
        Arc::new(Self {
            seed,
            dice: Mutex::new(Dice::new(!seed)),
            heal: start + plan.trouble,
            sent: Mutex::new(vec![0; plan.parcels.len()]),
            left_out: Mutex::new(vec![BTreeSet::new(); plan.parcels.len()]),
            commanded: Mutex::new(0),
            producing: AtomicUsize::new(plan.parcels.len()),
            over: CancellationToken::new(),
            start,
            heard: Mutex::new(Topic::ALL.map(|topic| (topic, store.wakes().listen(&[topic]))).into()),
            hinted: Mutex::new(vec![None; plan.places.len()]),
            history,
            plan,
            store,
            delivering,
            clock,
        })
    }

    /// The store's time.
    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }

    pub(crate) fn is_healed(&self) -> bool {
        Instant::now() >= self.heal
    }

    /// Writes down what happened.
    pub(crate) fn note(&self, who: Option<Who>, what: Happened) {
        self.history.lock().unwrap().happened.push((self.now(), who, what));
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

    /// Until when `place` can't reach the store at `moment`, and whether it is told so at once.
    pub(crate) fn cut_off(&self, place: usize, moment: Instant) -> Option<(Instant, bool)> {
        let since = moment.duration_since(self.start);
        let cuts = &self.plan.places[place].cuts;
        let cut = cuts.iter().find(|cut| cut.from <= since && since < cut.to)?;
        Some((self.start + cut.to, cut.refused))
    }

    /// A source of randomness of its own for somebody.
    pub(crate) fn random(&self) -> Random {
        Random::Seeded(SeededRandom::new(self.dice.lock().unwrap().any()))
    }

    /// A place where a process gets its hints from now on.
    pub(crate) fn connect(&self, place: usize) -> Wakes {
        let wakes = Wakes::default();
        self.hinted.lock().unwrap()[place] = Some(wakes.clone());
        wakes
    }

    /// Hands on what the store has hinted at since the last time, to those whom it reaches.
    pub(crate) fn pass_on_hints(&self) {
        for (topic, listener) in &mut *self.heard.lock().unwrap() {
            if tokio::task::unconstrained(listener.hinted()).now_or_never().is_none() {
                continue;
            }
            for (place, wakes) in self.hinted.lock().unwrap().iter().enumerate() {
                let Some(wakes) = wakes else { continue };
                let now = Instant::now();
                let lost = self.dice.lock().unwrap().chance(self.plan.weather.unhinted);
                if now < self.heal && (lost || self.cut_off(place, now).is_some()) {
                    self.note(None, Happened::HintLost);
                } else {
                    wakes.wake(*topic);
                }
            }
        }
    }

    /// Whether nothing is left to be sent, and nothing in the line.
    async fn is_done(&self) -> bool {
        let all_sent = self.producing.load(Ordering::Relaxed) == 0;
        let status = self.store.status().await;
        all_sent && status.is_ok_and(|now| now.waiting + now.in_flight + now.processed + now.output == 0)
    }

    /// Whoever paused or limited the line, now it goes on.
    async fn resume(&self) {
        for request in [ControlRequest::Flow(Flow::Running), ControlRequest::Rate(None)] {
            let control = self.store.control(&request).await.unwrap();
            self.note(None, Happened::Controlled { request, control });
        }
        self.pass_on_hints();
    }

    async fn run(self: Arc<Self>) {
        if self.plan.order != Order::Total {
            self.store.shape(Some(Shape::of(self.plan.order))).await.unwrap();
        }
        let mut places = JoinSet::new();
        for place in 0..self.plan.places.len() {
            places.spawn(life::lives(self.clone(), place));
        }
        for (at, by) in &self.plan.jumps {
            sleep_until(self.start + *at).await;
            self.clock.advance(u64::try_from(by.as_micros()).unwrap());
            self.note(None, Happened::ClockJumped);
        }
        sleep_until(self.heal).await;
        self.note(None, Happened::Healed);
        sleep(Duration::from_millis(Self::AFTERMATH_MS + 10)).await;
        if !self.plan.commands.is_empty() {
            self.resume().await;
        }
        self.note(None, Happened::Settled);
        let all_out = async {
            while !self.is_done().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(Self::PATIENCE, all_out).await.is_err() {
            let status = self.store.status().await;
            self.wrong(format!("not all has come out in {:?}: {status:?}", Self::PATIENCE));
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
        let shelf = async |shelf| {
            let mut rows = self.store.browse(shelf, None).await.unwrap().rows;
            rows.sort_by(|a, b| (&a.id, &a.json).cmp(&(&b.id, &b.json)));
            rows
        };
        let rest = Rest {
            record: shelf(Shelf::Record).await,
            dead: shelf(Shelf::Dead).await,
            status: self.store.status().await.unwrap(),
        };
        self.history.lock().unwrap().rest = Some(rest);
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
