//! A message that is to be alone in a process that works at two partitions, while something is wrong in one of them.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use conga::clock::Clock;
use conga::core::lease::{Held, OwnerId};
use conga::core::message::Payload;
use conga::core::partition::{ALONE_FROM, Claim, ClaimRequest, Completion, Limits, RenewRequest};
use conga::core::retry::MAX_CRASHES;
use conga::core::route::By;
use conga::process::{Handler, HandlerError, Message, Processing, Processor, ProcessorOptions};
use conga::shards::{Processors, Shards};
use conga::store::memory::MemoryStore;
use conga::store::{Result, SharedStore, Store};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::{LATE, Troubled};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
/// When what does not end is not waited for any longer, and a little more.
const AT_LAST: Duration = Duration::from_secs(65);

/// Takes so many milliseconds as its message says, and notes what runs beside what.
#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    running: Vec<String>,
    /// What has ended.
    done: Vec<String>,
    /// What a suspect ran beside, whoever began first.
    beside: Vec<String>,
}

impl Watch {
    fn done(&self, what: &str) -> usize {
        let seen = self.0.lock().unwrap();
        seen.done.iter().filter(|done| done.starts_with(what)).count()
    }

    fn beside(&self) -> Vec<String> {
        self.0.lock().unwrap().beside.clone()
    }

    fn runs(&self, what: &str) -> bool {
        let seen = self.0.lock().unwrap();
        seen.running.iter().any(|running| running.starts_with(what))
    }
}

impl Handler for Watch {
    async fn handle(self, message: Message) -> std::result::Result<Payload, HandlerError> {
        let text = String::from_utf8_lossy(&message.payload.to_bytes()).into_owned();
        let (_, takes) = text.split_once(' ').unwrap();
        let takes = Duration::from_millis(takes.parse().unwrap());
        {
            let mut seen = self.0.lock().unwrap();
            let others = seen.running.clone();
            if text.starts_with("suspect") {
                seen.beside.extend(others);
            } else if others.iter().any(|other| other.starts_with("suspect")) {
                seen.beside.push(text.clone());
            }
            seen.running.push(text.clone());
        }
        sleep(takes).await;
        let mut seen = self.0.lock().unwrap();
        let at = seen.running.iter().position(|running| *running == text).unwrap();
        seen.running.remove(at);
        seen.done.push(text);
        Ok(message.payload)
    }
}

/// One process at two partitions.
struct Line {
    parts: [Arc<Troubled>; 2],
    watch: Watch,
    running: Option<JoinHandle<Result<Processing>>>,
    owner: Option<OwnerId>,
    stop: CancellationToken,
}

impl Line {
    fn new() -> Self {
        Self {
            parts: [Troubled::new(), Troubled::new()],
            watch: Watch::default(),
            running: None,
            owner: None,
            stop: CancellationToken::new(),
        }
    }

    async fn send(&self, part: usize, what: &str, takes: Duration) {
        let entry = Bytes::from(format!("{what} {}", takes.as_millis()));
        self.parts[part].send(&[entry], None).await.unwrap();
    }

    /// A message in the first partition that was with so many that died that it is to be alone.
    async fn suspect(&self, takes: Duration) {
        self.struck("suspect", takes, ALONE_FROM).await;
    }

    /// A message in the first partition that was with so many that died.
    async fn struck(&self, what: &str, takes: Duration, times: u32) {
        self.send(0, what, takes).await;
        for time in 0..times {
            let dead = self.claim(&format!("dead{time}"), 1, 1).await;
            assert_eq!((dead.len(), dead[0].crashes), (1, time));
            // The store's clock does not know of paused time.
            std::thread::sleep(Duration::from_micros(2));
        }
    }

    /// What somebody else gets of the first partition.
    async fn claim(&self, owner: &str, max: usize, lease_us: u64) -> Vec<Claim> {
        let request = ClaimRequest {
            below: None,
            owner: OwnerId::new(owner),
            max,
            lease_us,
            window: 1_000,
            limits: Limits::default(),
        };
        self.parts[0].inner.claim(&request).await.unwrap()
    }

    async fn give_back(&self, owner: &str, claim: &Claim) {
        let held = Held {
            position: claim.position,
            attempt: claim.attempt,
        };
        let retry = Completion::Retry { held, delay_us: 0 };
        self.parts[0].complete(&OwnerId::new(owner), &[retry]).await.unwrap();
    }

    fn process(&mut self, concurrency: usize) {
        let stores = self.parts.each_ref().map(|part| -> SharedStore { part.clone() });
        let base: SharedStore = Arc::new(MemoryStore::new(Clock::Store));
        let shards = Shards::of(base, stores.to_vec(), By::Key);
        let options = ProcessorOptions {
            concurrency,
            ..ProcessorOptions::default()
        };
        let processors = Processors::new(&shards, self.watch.clone(), options);
        self.owner = Some(processors.owner().clone());
        self.running = Some(tokio::spawn(processors.run(self.stop.clone())));
    }

    async fn wait(&self, what: &str, count: usize, most: Duration) {
        let begun = Instant::now();
        let done = async {
            while self.watch.done(what) < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let is_done = timeout(most, done).await.is_ok();
        assert!(is_done, "{what}: {} of {count} in {most:?}", self.watch.done(what));
        println!("{what}: {count} after {:?}", begun.elapsed());
    }

    /// The process ends in good order, and no suspect ran beside anything.
    async fn end(mut self) {
        assert_eq!(self.watch.beside(), Vec::<String>::new());
        self.stop.cancel();
        self.running.take().unwrap().await.unwrap().unwrap();
    }
}

/// Whatever it is that the store of the other partition does not answer.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_holds_up_its_own_partition_only() {
    type Trouble = fn(&Troubled, bool);
    let troubles: [(&str, Trouble); 4] = [
        ("silent claims", |store, on| store.silent_claims.store(on, SeqCst)),
        ("refused claims", |store, on| store.refused_claims.store(on, SeqCst)),
        ("silent completes", |store, on| store.silent_completes.store(on, SeqCst)),
        ("silence", |store, on| {
            store.silent_claims.store(on, SeqCst);
            store.silent_completes.store(on, SeqCst);
            store.silent_renewals.store(on, SeqCst);
        }),
    ];
    for (name, trouble) in troubles {
        println!("{name}");
        let mut line = Line::new();
        trouble(&line.parts[1], true);
        line.send(1, "other", SHORT).await;
        line.process(8);
        sleep(Duration::from_secs(1)).await;
        for count in 1..=3 {
            line.suspect(SHORT).await;
            line.wait("suspect", count, Duration::from_secs(3)).await;
            line.send(0, "after", SHORT).await;
            line.wait("after", count, Duration::from_secs(1)).await;
        }
        trouble(&line.parts[1], false);
        line.send(1, "other", SHORT).await;
        line.wait("other", 2, Duration::from_secs(3)).await;
        sleep(Duration::from_secs(1)).await;
        for (part, processed) in line.parts.iter().zip([6, 2]) {
            assert_eq!(part.status().await.unwrap().processed, processed, "{name}");
        }
        line.end().await;
    }
}

/// The other way round: the store of the one that is to be alone.
#[tokio::test(start_paused = true)]
async fn who_is_to_be_alone_in_a_store_that_does_not_answer_holds_up_no_other() {
    let mut line = Line::new();
    line.suspect(SHORT).await;
    line.parts[0].silent_completes.store(true, SeqCst);
    line.process(8);
    line.wait("suspect", 1, Duration::from_secs(1)).await;
    line.send(1, "other", SHORT).await;
    line.wait("other", 1, Duration::from_secs(1)).await;
    line.parts[0].silent_completes.store(false, SeqCst);
    sleep(Duration::from_secs(1)).await;
    // And one that wishes to be alone, is given back, and then is not heard of.
    line.send(1, "other", 10 * SHORT).await;
    sleep(SHORT).await;
    line.suspect(SHORT).await;
    sleep(SHORT).await;
    line.parts[0].silent_claims.store(true, SeqCst);
    line.wait("other", 2, Duration::from_secs(2)).await;
    line.send(1, "other", SHORT).await;
    line.wait("other", 3, Duration::from_secs(1)).await;
    assert_eq!(line.watch.done("suspect"), 1);
    line.parts[0].silent_claims.store(false, SeqCst);
    line.wait("suspect", 2, Duration::from_secs(1)).await;
    line.end().await;
}

/// And one that wishes to be alone, and whose store takes what it is asked, but says nothing any more: it has nothing to wait for
/// but to compare.
#[tokio::test(start_paused = true)]
async fn who_wishes_to_be_alone_and_has_lost_a_reply_holds_up_no_other_while_its_store_is_away() {
    let mut line = Line::new();
    line.process(8);
    line.send(1, "other", 10 * SHORT).await;
    sleep(SHORT).await;
    line.suspect(SHORT).await;
    sleep(SHORT).await;
    line.parts[0].silent_renewals.store(true, SeqCst);
    line.parts[0].lost_claims.store(u32::MAX, SeqCst);
    line.wait("other", 1, Duration::from_secs(2)).await;
    for count in 2..=4 {
        line.send(1, "other", SHORT).await;
        line.wait("other", count, Duration::from_secs(1)).await;
    }
    assert_eq!(line.watch.done("suspect"), 0);
    line.parts[0].lost_claims.store(0, SeqCst);
    line.parts[0].silent_renewals.store(false, SeqCst);
    line.wait("suspect", 1, Duration::from_secs(3)).await;
    line.end().await;
}

/// The other partition always has more to do than there are hands, and each takes long.
#[tokio::test(start_paused = true)]
async fn what_is_to_be_alone_is_not_leased_before_it_runs_and_runs_all_the_same() {
    let mut line = Line::new();
    for ends in [4, 10, 20, 28] {
        line.send(1, "slow", Duration::from_secs(ends)).await;
    }
    for _ in 0..36 {
        line.send(1, "slow", LONG).await;
    }
    line.process(4);
    sleep(LONG / 2).await;
    line.suspect(SHORT).await;
    // At first there is no hand free, and then three are not empty.
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        let free = line.claim("witness", 1, 1_000_000).await;
        assert_eq!((free.len(), free[0].crashes), (1, ALONE_FROM));
        line.give_back("witness", &free[0]).await;
    }
    line.wait("suspect", 1, LONG).await;
    let claims = line.parts[0].claims.load(SeqCst);
    assert!(claims < 100, "{claims} claims");
    line.wait("slow", 8, 2 * LONG).await;
    for count in 2..=4 {
        line.suspect(SHORT).await;
        line.wait("suspect", count, 2 * LONG).await;
        line.wait("slow", 4 * count, 2 * LONG).await;
    }
    line.wait("slow", 40, 10 * LONG).await;
    line.end().await;
}

/// Once somebody else has it, this process goes on.
#[tokio::test(start_paused = true)]
async fn what_another_has_taken_is_not_waited_for() {
    let mut line = Line::new();
    line.send(1, "slow", 2 * LONG).await;
    line.process(4);
    sleep(SHORT).await;
    line.suspect(SHORT).await;
    sleep(SHORT).await;
    line.send(1, "other", SHORT).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(line.watch.done("other"), 0, "it makes way");
    let taken = line.claim("another", 1, 1_000_000_000).await;
    assert_eq!(taken[0].crashes, ALONE_FROM);
    line.wait("other", 1, Duration::from_secs(3)).await;
    line.send(0, "after", SHORT).await;
    line.wait("after", 1, Duration::from_secs(1)).await;
    line.end().await;
}

/// What this process has lost its lease of runs on, and may be what kills it.
#[tokio::test(start_paused = true)]
async fn what_runs_without_a_lease_is_waited_for_too() {
    let mut line = Line::new();
    line.send(0, "lost", LONG).await;
    line.process(4);
    sleep(SHORT).await;
    let leave = RenewRequest {
        owner: line.owner.clone().unwrap(),
        lease_us: 0,
        held: None,
        limits: Limits::default(),
        keep: None,
    };
    line.parts[0].inner.renew(&leave).await.unwrap();
    assert_eq!(line.claim("another", 1, 1_000_000_000).await.len(), 1);
    line.suspect(SHORT).await;
    sleep(LONG / 2).await;
    assert_eq!(line.watch.done("suspect"), 0);
    line.wait("suspect", 1, LONG).await;
    line.end().await;
}

/// It does not run, and so needs nobody to make way.
#[tokio::test(start_paused = true)]
async fn what_is_given_up_waits_for_nobody() {
    let mut line = Line::new();
    line.send(1, "slow", LONG).await;
    line.process(4);
    sleep(SHORT).await;
    line.struck("poison", SHORT, MAX_CRASHES).await;
    sleep(SHORT).await;
    assert_eq!(line.parts[0].status().await.unwrap().dead, 1);
    line.struck("suspect", SHORT, MAX_CRASHES - 1).await;
    line.wait("suspect", 1, 2 * LONG).await;
    assert_eq!(line.watch.done("poison"), 0);
    line.end().await;
}

/// Two partitions have one each, and again and again.
#[tokio::test(start_paused = true)]
async fn two_are_never_begun_with_at_once() {
    let mut line = Line::new();
    line.process(4);
    for count in 1..=3 {
        for _ in 0..2 {
            line.suspect(10 * SHORT).await;
            line.send(0, "other", SHORT).await;
            line.parts.swap(0, 1);
        }
        line.wait("suspect", 2 * count, Duration::from_secs(3)).await;
        line.wait("other", 2 * count, Duration::from_secs(1)).await;
    }
    line.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_ends_holds_up_no_suspect_of_another_partition_for_ever() {
    let mut line = Line::new();
    line.send(1, "hung", 100 * LONG).await;
    line.process(4);
    sleep(SHORT).await;
    line.suspect(SHORT).await;
    line.wait("suspect", 1, AT_LAST).await;
    line.send(1, "other", SHORT).await;
    line.wait("other", 1, Duration::from_secs(1)).await;
    assert_eq!(line.watch.beside().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_that_never_ends_holds_up_no_other_partition_for_ever() {
    let mut line = Line::new();
    line.suspect(100 * LONG).await;
    line.process(4);
    sleep(SHORT).await;
    for count in 1..=3 {
        line.send(1, "other", SHORT).await;
        let most = if count == 1 { AT_LAST } else { Duration::from_secs(1) };
        line.wait("other", count, most).await;
    }
}

/// A claim that is answered while a suspect of another partition runs: what it took would be blamed for it.
#[tokio::test(start_paused = true)]
async fn what_is_claimed_while_another_is_alone_is_given_back() {
    let mut line = Line::new();
    line.parts[1].silent_claims.store(true, SeqCst);
    line.process(4);
    sleep(10 * SHORT).await;
    line.suspect(LONG).await;
    line.send(1, "other", SHORT).await;
    sleep(10 * SHORT).await;
    assert!(line.watch.runs("suspect"));
    line.parts[1].silent_claims.store(false, SeqCst);
    sleep(LONG / 2).await;
    assert!(line.watch.runs("suspect"));
    assert_eq!(line.parts[1].status().await.unwrap().in_flight, 1, "it was claimed");
    line.parts.swap(0, 1);
    assert_eq!(line.claim("witness", 1, 1).await.len(), 1, "it is free for others");
    line.parts.swap(0, 1);
    line.wait("other", 1, LONG).await;
    line.end().await;
}

/// Whatever has no answer yet may be in flight: a claim, or the end of what was processed.
#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_in_another_partition_is_waited_for() {
    for claims in [true, false] {
        let mut line = Line::new();
        let silence = |store: &Troubled, on| {
            let silent = if claims {
                &store.silent_claims
            } else {
                &store.silent_completes
            };
            silent.store(on, SeqCst);
        };
        silence(&line.parts[1], true);
        line.send(1, "other", SHORT).await;
        // More than is claimed at once: there are hands for both.
        line.process(5_000);
        sleep(2 * SHORT).await;
        line.suspect(SHORT).await;
        sleep(SHORT).await;
        assert_eq!(line.watch.done("suspect"), 0);
        assert!(!line.watch.runs("suspect"), "claims: {claims}");
        silence(&line.parts[1], false);
        line.wait("other", 1, 2 * SHORT).await;
        assert!(!claims || line.watch.done("suspect") == 0, "what came first goes first");
        line.wait("suspect", 1, Duration::from_secs(1)).await;
        line.end().await;
    }
}

/// Who wishes to be alone does not claim before what it gave back is free, or it would find nothing and let the others go first.
#[tokio::test(start_paused = true)]
async fn a_wish_lasts_until_what_was_given_back_is_free() {
    let mut line = Line::new();
    line.send(1, "slow", 5 * SHORT / 2).await;
    line.process(4);
    sleep(SHORT / 2).await;
    line.parts[0].silent_completes.store(true, SeqCst);
    line.suspect(SHORT).await;
    sleep(SHORT / 2).await;
    line.send(1, "next", LONG).await;
    line.wait("slow", 1, 2 * SHORT).await;
    sleep(SHORT).await;
    line.parts[0].silent_completes.store(false, SeqCst);
    line.wait("suspect", 1, 4 * SHORT).await;
    line.wait("next", 1, 2 * LONG).await;
    line.end().await;
}

/// A program that runs two processors, of two lines.
#[tokio::test(start_paused = true)]
async fn two_processors_of_one_program_are_one_process() {
    let line = Line::new();
    let stop = CancellationToken::new();
    let [first, second] = line.parts.each_ref().map(|part| {
        let store: SharedStore = part.clone();
        Processor::new(store, line.watch.clone(), ProcessorOptions::default())
    });
    let second = second.beside(&first);
    line.send(1, "slow", LONG).await;
    let second = tokio::spawn(second.run(stop.clone()));
    sleep(SHORT).await;
    line.suspect(LONG).await;
    let first = tokio::spawn(first.run(stop.clone()));
    line.send(1, "after", SHORT).await;
    line.wait("suspect", 1, 3 * LONG).await;
    line.wait("slow", 1, SHORT).await;
    line.wait("after", 1, SHORT * 2).await;
    assert_eq!(line.watch.beside(), Vec::<String>::new());
    stop.cancel();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

/// It has wished to be alone, and then has its hands full with what it finds after a reply was lost.
#[tokio::test(start_paused = true)]
async fn a_wish_of_one_that_can_claim_no_more_holds_up_no_other_for_ever() {
    let line = Line::new();
    let stop = CancellationToken::new();
    let [first, second] = line.parts.each_ref().map(|part| {
        let store: SharedStore = part.clone();
        let options = ProcessorOptions {
            concurrency: 1,
            ..ProcessorOptions::default()
        };
        Processor::new(store, line.watch.clone(), options)
    });
    let second = second.beside(&first);
    line.send(1, "slow", 10 * SHORT).await;
    tokio::spawn(second.run(stop.clone()));
    sleep(SHORT).await;
    line.suspect(SHORT).await;
    tokio::spawn(first.run(stop.clone()));
    sleep(SHORT).await;
    // Another process takes it.
    assert_eq!(line.claim("another", 1, 1_000_000_000).await[0].crashes, ALONE_FROM);
    line.send(0, "hung", 100 * LONG).await;
    line.parts[0].lost_claims.store(1, SeqCst);
    line.wait("slow", 1, 10 * SHORT).await;
    sleep(10 * SHORT).await;
    assert!(line.watch.runs("hung"), "it was found");
    line.send(1, "other", SHORT).await;
    line.wait("other", 1, AT_LAST).await;
}

/// A claim that arrives late, and is found while a suspect of another partition runs: it would be blamed for it.
#[tokio::test(start_paused = true)]
async fn what_is_found_while_another_is_alone_is_given_back() {
    let mut line = Line::new();
    line.parts.swap(0, 1);
    line.parts[0].late_claims.store(1, SeqCst);
    line.parts.swap(0, 1);
    line.process(4);
    sleep(LATE / 2).await;
    line.suspect(2 * LATE).await;
    sleep(SHORT).await;
    assert!(line.watch.runs("suspect"));
    line.send(1, "late", SHORT).await;
    sleep(LATE + LATE / 2).await;
    assert!(line.watch.runs("suspect"));
    line.parts.swap(0, 1);
    let free = line.claim("witness", 1, 1_000_000).await;
    assert_eq!((free.len(), free[0].attempt.0), (1, 2), "it is free again");
    line.give_back("witness", &free[0]).await;
    line.parts.swap(0, 1);
    line.wait("late", 1, LATE).await;
    line.end().await;
}
