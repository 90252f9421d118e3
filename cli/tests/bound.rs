//! The head is stuck for a minute: claims stop at the window, and the memory of every process, and of Redis, stays flat.
//! When it is freed everything flows again, in order.

#[path = "support/flow.rs"]
mod flow;
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{ClaimRequest, Limits, RenewRequest, Status};
use conga::store::SharedStore;
use flow::{Flow, ended, wait_for};
use support::Place;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const MESSAGES: u64 = 30_000;
const WINDOW: u64 = 10_000;
/// How long the one who has the head may say nothing: this is about the window, not about leases.
const LEASE_US: u64 = 30_000_000;

/// How much more a process may have in the second half of the time than in the first.
const PROCESS_GROWS_BY: u64 = 4 << 20;
/// The same of Redis, in percent.
const REDIS_GROWS_BY: u64 = 3;

/// How long the head is stuck.
fn stuck_for() -> Duration {
    let seconds = std::env::var("CONGA_STUCK_SECONDS").ok();
    Duration::from_secs(seconds.map_or(60, |seconds| seconds.parse().expect("a number of seconds")))
}

/// One who has claimed the head, and keeps it.
struct Holder {
    runtime: Runtime,
    store: SharedStore,
    owner: OwnerId,
    free: CancellationToken,
}

impl Holder {
    fn take_the_head(place: &Place) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (url, line) = (place.url.parse().expect("a store"), "main".parse().expect("a line"));
        let store = runtime.block_on(conga::store::open(&url, &line)).expect("the store");
        let holder = Self {
            runtime,
            store,
            owner: OwnerId::new("holder"),
            free: CancellationToken::new(),
        };
        let request = ClaimRequest {
            owner: holder.owner.clone(),
            max: 1,
            lease_us: LEASE_US,
            window: WINDOW,
            below: None,
            limits: Limits::default(),
        };
        let claims = holder.runtime.block_on(holder.store.claim(&request)).expect("a claim");
        assert_eq!(
            claims.iter().map(|claim| claim.position).collect::<Vec<_>>(),
            [Position(1)]
        );
        let (store, owner, free) = (Arc::clone(&holder.store), holder.owner.clone(), holder.free.clone());
        holder.runtime.spawn(async move {
            let stay = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    // One that fails is followed by the next, long before the lease ends.
                    let _ = store.renew(&renewal(&owner, LEASE_US)).await;
                }
            };
            free.run_until_cancelled(stay).await
        });
        holder
    }

    fn status(&self) -> Status {
        self.runtime.block_on(self.store.status()).expect("a status")
    }

    /// Gives the head back: others claim it.
    fn leave(self) {
        self.free.cancel();
        let left = self.runtime.block_on(self.store.renew(&renewal(&self.owner, 0)));
        assert!(left.expect("it leaves").known, "it had lost the head before");
    }
}

fn renewal(owner: &OwnerId, lease_us: u64) -> RenewRequest {
    RenewRequest {
        keep: None,
        owner: owner.clone(),
        lease_us,
        held: None,
        limits: Limits::default(),
    }
}

/// The memory that a process has, in bytes. Source: `VmRSS` in proc(5).
fn memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its memory");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes << 10
}

/// The memory that the server has given out, in bytes.
fn memory_of_redis(port: u16) -> u64 {
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).expect("a connection"));
    stream.get_mut().write_all(b"INFO memory\r\n").expect("asked");
    let mut size = String::new();
    stream.read_line(&mut size).expect("a size");
    let mut text = vec![0; size.trim_start_matches('$').trim().parse().expect("a size")];
    stream.read_exact(&mut text).expect("an answer");
    let text = String::from_utf8(text).expect("text");
    let used = text
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"))
        .expect("its memory");
    used.trim().parse().expect("a number")
}

/// What something had over time: its most in each half.
struct Memory {
    name: String,
    samples: Vec<u64>,
}

impl Memory {
    fn halves(&self) -> (u64, u64) {
        let (first, second) = self.samples.split_at(self.samples.len() / 2);
        let most = |half: &[u64]| half.iter().copied().max().expect("a sample");
        (most(first), most(second))
    }

    fn print(&self) {
        let (first, second) = self.halves();
        let mb = |bytes: u64| f64::from(u32::try_from(bytes >> 10).expect("less than 4 TB")) / 1024.0;
        println!(
            "  {:<12} {:7.2} MB, then {:7.2} MB at most",
            self.name,
            mb(first),
            mb(second)
        );
    }
}

fn the_head_is_stuck(place: &Place) {
    let mut flow = Flow::new(place);
    ended(flow.produce(MESSAGES, None));
    let holder = Holder::take_the_head(place);
    let window = WINDOW.to_string();
    let processor = ["process", "--handler", "sleep:0ms..5ms", "--window", &window];
    let sequencer = ["sequence", "--window", &window];
    flow.serve(&[&sequencer, &processor, &processor, &processor, &sequencer]);
    flow.consume();
    wait_for("the claims to get to the end of the window", || {
        let status = holder.status();
        assert!(status.in_flight + status.processed <= WINDOW, "{status:?}");
        (status.processed == WINDOW - 1).then_some(())
    });
    let members = flow.members();
    let names = members.iter().map(|(name, _)| name.clone());
    let mut memories: Vec<Memory> = names
        .chain(place.server.as_ref().map(|_| "redis".to_owned()))
        .map(|name| Memory {
            name,
            samples: Vec::new(),
        })
        .collect();
    let (stuck, mut most) = (Instant::now(), 0);
    while stuck.elapsed() < stuck_for() {
        flow.all_run();
        let status = holder.status();
        assert_eq!((status.head, status.in_flight), (Position(1), 1), "{status:?}");
        most = most.max(status.in_flight + status.processed);
        assert!(status.in_flight + status.processed <= WINDOW, "{status:?}");
        assert_eq!(status.next, Position(WINDOW + 1), "{status:?}");
        let of_services = members.iter().map(|(_, pid)| memory_of(*pid));
        let of_redis = place.server.as_ref().map(|server| memory_of_redis(server.port()));
        for (memory, bytes) in memories.iter_mut().zip(of_services.chain(of_redis)) {
            memory.samples.push(bytes);
        }
        // So often, not for so long until something has happened.
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(flow.delivered(), 0);
    println!(
        "{}: stuck for {:?}, {most} claimed and not delivered",
        place.url,
        stuck.elapsed()
    );
    memories.iter().for_each(Memory::print);
    for memory in &memories {
        let (first, second) = memory.halves();
        let may = if memory.name == "redis" {
            first / 100 * REDIS_GROWS_BY
        } else {
            PROCESS_GROWS_BY
        };
        assert!(second <= first + may, "{} grows: {:?}", memory.name, memory.samples);
    }
    holder.leave();
    let free = Instant::now();
    let stall = flow.stall(free);
    let messages = usize::try_from(MESSAGES).expect("a count");
    flow.wait_until_delivered(messages);
    println!(
        "  freed: {stall:?} until the first output, {:?} until all were out",
        free.elapsed()
    );
    flow.judge(messages);
}

#[test]
fn sqlite() {
    the_head_is_stuck(&Place::sqlite());
}

#[test]
fn redis() {
    the_head_is_stuck(&Place::redis());
}
