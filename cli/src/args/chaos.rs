//! The arguments of `conga bench chaos`.

use std::num::NonZeroU16;
use std::time::Duration;

use clap::ValueEnum;

use super::{Orders, at_least_one, duration, rate};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Chaos {
    /// How many messages [default: 2000, or a --duration in which each fault comes once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with = "duration")]
    pub(crate) messages: Option<u64>,
    /// How long messages are sent, at --rate
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Messages per second, fewer while the window is full [default: all at once; 250 with --duration]
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// The handler: what a message takes
    #[arg(long, value_name = "HANDLER", default_value = "sleep:5ms..50ms")]
    pub(crate) handler: String,
    /// What is done, by name; `all`: whatever fits the store
    #[arg(
        long,
        value_name = "FAULT,…",
        value_enum,
        value_delimiter = ',',
        default_value = "kill-processor,kill-leader"
    )]
    pub(crate) faults: Vec<Fault>,
    /// Decides all that is drawn: the order of the faults, whom they hit, what overlaps
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Start the store's own servers, from the PATH, in folders that go away: some faults need that
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) serve: Option<Serve>,
    /// When a served Redis writes its log to the disk (appendfsync)
    #[arg(long, value_name = "WHEN", value_enum, default_value = "always", requires = "serve")]
    pub(crate) fsync: Fsync,
    /// How many processors, each a process of its own; one that is killed is followed by another
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    pub(crate) processors: usize,
    /// How many messages each processes at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// How many sequencers, each a process of its own; one that is killed is followed by another. Of a line that needs none,
    /// none run
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    pub(crate) sequencers: usize,
    /// How far claims may run ahead of the head, and how many messages may be on their way at all
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) window: u64,
    #[command(flatten)]
    pub(crate) orders: Orders,
    /// In how many partitions the line has its messages. With `--order key` or `none` the store delivers: no sequencer runs, and
    /// what would be done to a leader is left out. In total order the producer numbers, and sequencers merge
    #[arg(long, value_name = "P", default_value = "1")]
    pub(crate) partitions: NonZeroU16,
    /// So many of the messages kill their processor, amid everything else: each of them has to end as a dead letter in its
    /// place, and none of the others
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) poison: u32,
    /// Break one law after the other on purpose, in short runs: done if each was found
    #[arg(long, conflicts_with_all = ["messages", "duration", "rate", "faults", "poison"])]
    pub(crate) self_test: bool,
}

const AFTER_HELP: &str = "\
Faults come one after the other, in an order that the seed draws, and then again; kill-processor three times as often. \
Every second time one of the longer ones comes, processes are killed and stopped meanwhile, if those faults were asked \
for too. A fault's stall is the longest time \
without a delivery, until the next fault: from its beginning where it hits one process, from its end (after it is \
healed, answers again, or as many processes were started; for kill-primary the promotion, for move-slot the slot's \
arrival) where it hits all. Only faults that nothing overlapped are \
measured. The time that the handlers take is in it.

In total order over several partitions the leader is the one that merges, and in a cluster the primary of one of the partitions is \
hit, or that of the base. Beside the zombies that emit and complete there is one that merges.

With --poison a fault is measured only where no processor died of one meanwhile.

Network faults need a single Redis server: each process, and the producer, then has a proxy in front of the server, and the \
seed decides whether one or all are hit. Faults of the server need --serve: no other server is touched. \
Faults of the system of record need --record serve. \
kill-primary needs --serve sentinel or cluster, move-slot cluster; of the others only script-flush and client-kill fit \
these. There the line may wait for a replica after a promotion; with --replicas 0 a promotion may lose messages, and \
the run then fails.";

/// A server that is started for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Serve {
    /// One Redis server, with its log on the disk
    Redis,
    /// A primary, a replica and three sentinels, with their logs on the disk; --replicas 1
    Sentinel,
    /// A cluster of three primaries with a replica each, with their logs on the disk; --replicas 1
    Cluster,
}

impl Serve {
    /// Its name, as on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fsync {
    Always,
    Everysec,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Fault {
    /// All that fit the store, and what is served
    All,
    /// kill -9 of a processor; another one starts
    KillProcessor,
    /// kill -9 of the leading sequencer; another one starts
    KillLeader,
    /// SIGTERM of a processor, which drains, once another one has started
    StopProcessor,
    /// SIGTERM of the leading sequencer, which hands over, once another one has started
    StopLeader,
    /// SIGSTOP of a processor; SIGCONT after 5 s
    PauseProcessor,
    /// SIGSTOP of the leading sequencer; SIGCONT after 5 s
    PauseLeader,
    /// kill -9 of all processes at once; as many start
    KillAll,
    /// The connections of one process, or of all, are reset
    Reset,
    /// No bytes for 5 s, of one process or of all: both ways, only to the server, or only to the client
    BlackHole,
    /// 200 ms each way for 3 s, of one process or of all
    Latency,
    /// kill -9 of the served Redis; it starts again within a second
    KillRedis,
    /// kill -9 of the primary, of the line's slot in a cluster; after the promotion it starts again and follows
    KillPrimary,
    /// The line's slot moves to another primary
    MoveSlot,
    /// SCRIPT FLUSH
    ScriptFlush,
    /// CLIENT KILL of all connections, or of all for commands, or of all for hints
    ClientKill,
    /// CLIENT PAUSE for 2 s, of everything or of writes
    ClientPause,
    /// SIGSTOP of the served Redis for 2 s, as DEBUG SLEEP 2
    FreezeRedis,
    /// Somebody else's script loops for 2 s (BUSY), then SCRIPT KILL
    Busy,
    /// maxmemory 1 with noeviction for 2 s
    Oom,
    /// The served Redis is a replica of a dead address for 2 s; the data stay
    ReadOnly,
    /// kill -9 of the served PostgreSQL; it starts again within a second
    KillPostgres,
    /// The served PostgreSQL is shut down, and started again after 10 s
    StopPostgres,
    /// Each connection to the served PostgreSQL is ended, again and again for 1 s: some in the midst of a commit
    KillPostgresConnections,
    /// Another connection holds the SQLite file's write lock for 5 s
    LockDatabase,
}
