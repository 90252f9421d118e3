//! The arguments of what measures speed, and of the processes that it starts.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use super::{Fsync, Orders, at_least_one, duration, percent, rate};

/// Where runs take place.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Ground {
    /// Start a Redis server of its own for each run, from the PATH, in a folder that goes away
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) serve: Option<ServeRedis>,
    /// What a served Redis writes to the disk: nothing, its log each second, or its log before it answers
    #[arg(long, value_name = "WHEN", value_enum, default_value = "no", requires = "serve")]
    pub(crate) fsync: Fsync,
}

/// A server that is started for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServeRedis {
    Redis,
}

/// Conga's processes in a measurement.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Services {
    /// How many processors, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) processors: usize,
    /// How many messages each processes at once
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// How many sequencers, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) sequencers: usize,
    /// How far claims may run ahead of the head
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) window: u64,
}

/// How much goes through.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Volume {
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) messages: u64,
    /// The size of a payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) size: usize,
    /// How often; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    pub(crate) runs: usize,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = LIMIT_HELP)]
pub(crate) struct Limit {
    #[command(flatten)]
    pub(crate) volume: Volume,
    #[command(flatten)]
    pub(crate) services: Services,
    #[command(flatten)]
    pub(crate) ground: Ground,
    /// How many messages in each step of the yardstick [default: 100 on Redis, 1000 on SQLite]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=2_000))]
    pub(crate) batch: Option<u16>,
    /// Write a page with the figures and plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

const LIMIT_HELP: &str = "\
The yardstick is the least that is still safe, written by hand for the store, with one process each that sends, works \
and receives, --batch messages a step. On Redis: LPUSH; one script that moves entries to an in-flight list and hands \
them out, and one that under a fence writes the record and the output and forgets them; RPOP. On SQLite: one \
transaction each; what was sent, and what is received, is on the disk before it counts. Its messages are, byte for byte, like Conga's; what came out is \
checked after the clock has stopped. With --record postgres://… or serve: one program that inserts the same rows into a \
table like Conga's, --batch rows a statement [default: 1000], one after the other (`limit`), and four at once (`alone`). \
Elsewhere `alone`: the yardstick's worker by itself, all messages there before and received \
after.

Each run goes from the word to the producer until the last output is in the consumer's hands, all processes being up \
before. CPU seconds are the user and system time within that.";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Throughput {
    #[command(flatten)]
    pub(crate) volume: Volume,
    #[command(flatten)]
    pub(crate) services: Services,
    #[command(flatten)]
    pub(crate) ground: Ground,
    #[command(flatten)]
    pub(crate) orders: Orders,
    /// Write a page with the figures and plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    pub(crate) volume: Volume,
    /// How long messages are sent at each rate
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// The rates, in percent of the throughput
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', default_value = "10,50,80", value_parser = percent)]
    pub(crate) loads: Vec<f64>,
    /// The throughput, where it is known: it is not measured then
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) throughput: Option<f64>,
    #[command(flatten)]
    pub(crate) services: Services,
    #[command(flatten)]
    pub(crate) ground: Ground,
    /// Write a page with the figures and plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = SCALE_HELP)]
pub(crate) struct Scale {
    /// What is varied
    #[arg(
        long,
        value_name = "SERIES,…",
        value_enum,
        value_delimiter = ',',
        default_value = "services,backlog,window,payload,memory,age"
    )]
    pub(crate) series: Vec<Series>,
    /// How many messages are measured at each point, fewer where they are large
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) messages: u64,
    /// How many messages go through one line for `age`
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(crate) age: u64,
    /// The numbers of processors for `services`
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,8,16", value_parser = at_least_one)]
    pub(crate) counts: Vec<usize>,
    /// How many messages wait, for `backlog`
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "1000,10000,100000,1000000",
        value_parser = clap::value_parser!(u64).range(10..)
    )]
    pub(crate) backlogs: Vec<u64>,
    /// How far claims may run ahead, for `window`
    #[arg(
        long,
        value_name = "N,…",
        value_delimiter = ',',
        default_value = "100,1000,10000,100000",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) windows: Vec<u64>,
    /// The payloads in bytes, for `payload` and `memory`
    #[arg(
        long,
        value_name = "BYTES,…",
        value_delimiter = ',',
        default_value = "10,100,1000,10000,100000"
    )]
    pub(crate) payloads: Vec<usize>,
    /// The size of a payload in bytes, for the others
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) services: Services,
    #[command(flatten)]
    pub(crate) ground: Ground,
    /// Write a page with the figures and plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// The number of processors
    Services,
    /// How many messages wait all the while
    Backlog,
    /// How far claims may run ahead of the head
    Window,
    /// The size of a payload
    Payload,
    /// What a message takes in Redis, waiting and in flight, by the size of its payload
    Memory,
    /// How many messages have gone through the line
    Age,
}

const SCALE_HELP: &str = "\
Each point is a run of its own, verified. `backlog`: so many messages are there before the services start, and the \
producer adds what is delivered, so that as many wait all the while; measured once the services have warmed up, until \
the producer has ended. `age`: the same with 50,000, the first part of the messages compared with the last. \
`memory`: what Redis says that it uses (INFO used_memory) before the messages are there, with them there, and with all \
of them in flight. Processor time is the server's and the services', not the producer's nor the consumer's.";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = SPREAD_HELP)]
pub(crate) struct Spread {
    /// On how many primaries the partitions are spread
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,3", value_parser = at_least_one)]
    pub(crate) primaries: Vec<usize>,
    /// In how many partitions the line is there
    #[arg(long, value_name = "P", default_value = "12")]
    pub(crate) partitions: NonZeroU16,
    /// The numbers of partitions on one primary
    #[arg(long, value_name = "P,…", value_delimiter = ',', default_value = "1,2,4,8,16,32")]
    pub(crate) counts: Vec<NonZeroU16>,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) messages: u64,
    /// How many keys they have
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// The size of a payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) size: usize,
    /// How many may be sent and not delivered
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) bound: u64,
    /// How often; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    pub(crate) runs: usize,
    /// How long it is measured what they take with nothing to do
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) idle: Duration,
    /// How many processors, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) processors: usize,
    /// How many messages each processes at once
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// Write a page with the figures and plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

const SPREAD_HELP: &str = "\
Starts clusters of its own, without replicas and persistence, and a line with --order key whose partitions lie as evenly on \
the primaries as they can. One process sends and receives, --processors process; all outputs are verified. Processor time is what \
INFO says of each server, and the system of the processors, between the first send and the last output; it says what a \
server has to do for a message, and nothing about how many messages go through on a machine that all of them share. \
Before each run all wait for --idle with nothing to do.";

/// A process of a measurement.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Part {
    #[arg(value_enum)]
    pub(crate) role: PartRole,
    /// The run's name: it is in the messages' ids
    #[arg(long)]
    pub(crate) run: String,
    #[arg(long)]
    pub(crate) messages: u64,
    #[arg(long)]
    pub(crate) size: usize,
    #[arg(long, value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// How many may be sent and not delivered
    #[arg(long)]
    pub(crate) bound: Option<u64>,
    /// How many messages in a step of the yardstick
    #[arg(long)]
    pub(crate) batch: Option<u16>,
    /// How many keys the messages have
    #[arg(long, default_value_t = 0)]
    pub(crate) keys: u64,
    /// How many percent have the hot one
    #[arg(long, default_value_t = 0)]
    pub(crate) hot: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PartRole {
    /// Conga's producer
    Produce,
    /// Conga's consumer
    Consume,
    /// The yardstick's producer
    LimitProduce,
    /// The yardstick's worker
    LimitWork,
    /// The yardstick's consumer
    LimitConsume,
}

impl PartRole {
    /// Its name, as on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
