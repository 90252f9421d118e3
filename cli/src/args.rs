//! The command line as it is typed. What it means is in [`crate::settings`].

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

mod chaos;
mod dead;
mod flow;
mod handle;
mod keep;
mod measure;
mod order;

pub(crate) use chaos::{Chaos, Fault, Fsync, Serve};
pub(crate) use dead::{Dead, Purge, Retry, Skip};
pub(crate) use flow::{Drain, Limited};
pub(crate) use handle::{Handling, HttpMode, limit};
pub(crate) use keep::Stays;
pub(crate) use measure::{
    Ground, Latency, Limit, Part, PartRole, Scale, Series, ServeRedis, Services, Spread, Throughput,
};
pub(crate) use order::{OrderName, Ordering, Orders, PerKey};

/// Messages processed in parallel across processes, delivered in total order, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "conga", version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Where the line lives: sqlite:PATH, redis://HOST:PORT, redis+sentinel://HOST:PORT,…/NAME or
    /// redis+cluster://HOST:PORT,… [default: sqlite:conga.db]
    #[arg(long, global = true, value_name = "URL", env = "CONGA_STORE")]
    pub(crate) store: Option<String>,
    /// Where results are recorded: `postgres://USER@HOST/DATABASE`, or `store` for the store itself; for benchmarks also
    /// `serve`, a PostgreSQL server of their own [default: store]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "CONGA_RECORD",
        hide_env_values = true
    )]
    pub(crate) record: Option<String>,
    /// How many Redis replicas must have what is acknowledged or handed out [default: 0]
    #[arg(long, global = true, value_name = "N", env = "CONGA_REPLICAS")]
    pub(crate) replicas: Option<usize>,
    /// Who delivers in order: the leading sequencer, or the store itself as soon as it can
    #[arg(long, global = true, value_enum, env = "CONGA_DELIVERY")]
    pub(crate) delivery: Option<Delivery>,
    /// The line's name [default: main]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) line: Option<String>,
    /// Settings by the names of the options [default: conga.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print JSON for programs: one object, or one a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Who delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Delivery {
    Leader,
    Store,
}

impl Delivery {
    pub(crate) fn of(delivery: conga::store::Delivery) -> Self {
        match delivery {
            conga::store::Delivery::Leader => Self::Leader,
            conga::store::Delivery::Store => Self::Store,
        }
    }

    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Store => "store",
        }
    }

    pub(crate) fn meant(self) -> conga::store::Delivery {
        match self {
            Self::Leader => conga::store::Delivery::Leader,
            Self::Store => conga::store::Delivery::Store,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole story in half a minute, with kills and a picture, without any server
    Demo(Demo),
    /// One processor and one sequencer in one process
    Run(Service),
    /// A processor: takes messages in order, processes them in parallel
    Process(Service),
    /// A sequencer: one leads and delivers in order, the others stand by
    Sequence(Service),
    /// Messages into the line, from a file or standard input, or generated
    Send(Send),
    /// The line's output as NDJSON, acknowledged once written
    Receive(Receive),
    /// Lines from standard input through a handler to standard output, in parallel and in order
    Pipe(Pipe),
    /// Depths, the head and what blocks it, the leader
    Status(Status),
    /// Hand nothing out any more, to any processor of the line; what is in flight is finished and delivered
    Pause,
    /// Go on after a pause or a drain
    Resume,
    /// Hand nothing new out, wait until all that was begun is delivered, then pause
    Drain(Drain),
    /// Limit how many messages per second the line begins with
    Rate(Limited),
    /// Messages that failed for good: look at them, send them again, have a line that is halted at one go on, or delete them
    Dead {
        /// Of a line of several partitions, which one
        #[arg(long, global = true, value_name = "P")]
        partition: Option<usize>,
        #[command(subcommand)]
        dead: Dead,
    },
    /// Check an output for order, loss and duplicates
    Verify(Verify),
    /// Measure, and verify what came out
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
}

impl Command {
    /// Whether it starts a Redis of its own.
    pub(crate) fn serves(&self) -> bool {
        matches!(self, Self::Bench { bench: Bench::Chaos(chaos) } if chaos.serve.is_some())
    }
}

/// What a service can be told. Each of these may also stand in the settings file.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Service {
    /// What processes a message: exec:CMD, a program that gets JSON lines; http://… or https://…, posted to; sql:FILE, run in
    /// the transaction that records; echo, sleep:DURATION or sleep:LEAST..MOST [default: echo]
    #[arg(long, value_name = "HANDLER")]
    pub(crate) handler: Option<String>,
    #[command(flatten)]
    pub(crate) handling: Handling,
    /// How many messages are processed at once [default: 256]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    /// With sql:FILE and PostgreSQL, how many are in their transactions at once; each has a connection to the database [default: 8]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) transactions: Option<usize>,
    /// How far claims may run ahead of the head: it bounds memory [default: 10000]
    #[arg(long, value_name = "N")]
    pub(crate) window: Option<u64>,
    /// What an input may be: any bytes, or envelopes only, others becoming dead letters [default: any]
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub(crate) input: Option<InputFormat>,
    /// The largest input in bytes; a larger one becomes a dead letter [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_size: Option<u64>,
    /// What stands in the place of a message that failed for good: a tombstone (mark), or nothing (skip); or the line halts at
    /// it, until somebody says `conga dead retry` or `conga dead skip` [default: mark]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) on_dead: Option<OnDead>,
    /// How often a message is tried before it is dead [default: 5]
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// After how many deaths of its processor, in which nothing else was suspect, a message is dead: 4 or more; 0 for never
    /// [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) max_crashes: Option<u32>,
    /// How long a processor that is told to end waits for its handlers [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) drain: Option<Duration>,
    /// How many delivered records stay, or how long, or both: 1000000, 7d, 1000000,7d or all. An id counts once as long
    /// as its record stays [default: 1000000 on Redis, all on SQLite, 100000 with --record postgres://…]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) keep_records: Option<Stays>,
    /// The same of dead letters [default: 1000000 on Redis, all on SQLite]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) keep_dead: Option<Stays>,
    /// The same of outputs that nobody has received yet: with a limit the oldest of them are LOST [default: all]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) keep_output: Option<Stays>,
    #[command(flatten)]
    pub(crate) ordering: Ordering,
    /// In how many partitions a new line has its messages; with `--order total` by their `sequence`, and a sequencer merges
    /// them. Give --order too. A line stays as it is first [default: as the line is, else 1]
    #[arg(long, value_name = "P")]
    pub(crate) partitions: Option<NonZeroU16>,
    /// In total order over several partitions, how long a number may be missing before it is an alarm [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) gap_timeout: Option<Duration>,
    /// What becomes of a number that is missing for that long: the line waits for it, or a tombstone is delivered in its place
    /// [default: hold]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) on_gap: Option<OnGap>,
    /// End when standard input does
    #[arg(long, hide = true)]
    pub(crate) tied: bool,
    /// Abort at a message whose payload is a text that begins like this, once its handler is done: for `bench chaos`
    #[arg(long, hide = true, value_name = "TEXT")]
    pub(crate) abort_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum InputFormat {
    Any,
    Envelope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnDead {
    Skip,
    Mark,
    Halt,
}

impl OnDead {
    pub(crate) fn meant(self) -> conga::core::partition::OnDead {
        match self {
            Self::Skip => conga::core::partition::OnDead::Skip,
            Self::Mark => conga::core::partition::OnDead::Mark,
            Self::Halt => conga::core::partition::OnDead::Halt,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnGap {
    Hold,
    Tombstone,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Send {
    /// NDJSON, or any lines; `-` or nothing: standard input
    #[arg(value_name = "FILE", conflicts_with = "count")]
    pub(crate) file: Option<PathBuf>,
    /// Generate so many messages instead
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Messages per second at most
    #[arg(long, value_name = "R", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// The size of a generated payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 200, requires = "count")]
    pub(crate) size: usize,
    /// Name the producer, to be able to kill it and run the same command again from the beginning of the same input: what
    /// is in the line is skipped. Another input under the same name is refused. A name that is not used is forgotten
    /// after seven days
    #[arg(long, value_name = "NAME", conflicts_with = "count")]
    pub(crate) producer: Option<String>,
    /// Send only while no more than N messages wait to be processed, whoever sent them; of each partition, if the line has
    /// several [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_waiting: Option<u64>,
    /// With --max-waiting: wait until processors have taken some, or end with exit status 3
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "wait",
        requires = "max_waiting"
    )]
    pub(crate) if_full: IfFull,
    /// Give the lines, or the generated messages, the sequences N, N + 1 …: a line in total order over several partitions
    /// goes by them, from 1 on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) first_sequence: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IfFull {
    Wait,
    Refuse,
}

impl IfFull {
    pub(crate) fn meant(self) -> conga::send::WhenFull {
        match self {
            Self::Wait => conga::send::WhenFull::Wait,
            Self::Refuse => conga::send::WhenFull::Refuse,
        }
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Receive {
    /// Wait for so many outputs, then end
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Wait for more until told to end. Of several, one receives and the others stand by
    #[arg(long, conflicts_with = "count")]
    pub(crate) follow: bool,
    /// Print the payloads alone: a string as its text, other values as JSON
    #[arg(long, conflicts_with = "json")]
    pub(crate) payload: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Pipe {
    #[command(flatten)]
    pub(crate) service: Service,
    /// Name the job, to be able to kill it and run the same command again: it goes on where it was
    #[arg(long, value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// Write to FILE, without a line twice even if killed between writing and acknowledging
    #[arg(long, value_name = "FILE", requires = "job")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Status {
    /// Print anew each second
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Verify {
    /// An output: NDJSON as `conga receive` prints it; `-`: standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What was sent, as NDJSON with id or sequence: each must have come out
    #[arg(long, value_name = "FILE")]
    pub(crate) sent: Option<PathBuf>,
    /// How many must have come out
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// The order that the line keeps: of all, of the messages of each key, or none [default: total]
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(crate) order: Option<OrderName>,
    /// With `--order key`: `serial` if the work on a message began only when the one before it of its key was done
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) per_key: Option<PerKey>,
    /// Positions may be missing: after duplicates, skipped dead letters, or in a part of an output
    #[arg(long)]
    pub(crate) gaps: bool,
    /// In how many partitions the line has its messages: positions are then told as partition × 10^12 + position
    #[arg(long, value_name = "P")]
    pub(crate) partitions: Option<NonZeroU16>,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Bench {
    /// Many messages at once: elapsed against the ideal
    Burst(Burst),
    /// A steady rate for a while: latency, and whether a backlog grows
    Soak(Soak),
    /// Faults under load, healed in the end; then all must come out, nothing lost, doubled or out of place
    Chaos(Chaos),
    /// What the store can carry at most, by a yardstick of its own, and how much of it Conga does
    Limit(Limit),
    /// As many messages as go through
    Throughput(Throughput),
    /// What Conga adds to the work, at a part of what goes through
    Latency(Latency),
    /// More services, a longer backlog, a wider window, larger payloads, an older line
    Scale(Scale),
    /// What a message costs the servers and the processors, with more primaries of a cluster and more partitions
    Shards(Spread),
    /// A process of a measurement
    #[command(hide = true)]
    Part(Part),
}

/// The processes of a benchmark.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Fleet {
    /// How many processors, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = at_least_one)]
    pub(crate) processors: usize,
    /// How many messages each processes at once
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = at_least_one)]
    pub(crate) concurrency: usize,
    /// How many sequencers, each a process of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = at_least_one)]
    pub(crate) sequencers: usize,
    /// How far claims may run ahead of the head
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) window: u64,
    /// The size of a payload in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) size: usize,
    #[command(flatten)]
    pub(crate) orders: Orders,
    /// Write a page with the figures and a picture
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Burst {
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) messages: u64,
    /// How long a message takes to process
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration)]
    pub(crate) work: Duration,
    /// Another handler than one that waits, as for `conga process`; --work then says how long it takes
    #[arg(long, value_name = "HANDLER")]
    pub(crate) handler: Option<String>,
    #[command(flatten)]
    pub(crate) handling: Handling,
    #[command(flatten)]
    pub(crate) fleet: Fleet,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// The rate, in percent of what the processors can carry
    #[arg(long, value_name = "PERCENT", default_value_t = 80.0, value_parser = percent)]
    pub(crate) load: f64,
    /// How long a message takes to process
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = work)]
    pub(crate) work: Duration,
    #[command(flatten)]
    pub(crate) fleet: Fleet,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Demo {
    /// Where the report goes
    #[arg(long, value_name = "FILE.html", default_value = "conga-demo.html")]
    pub(crate) report: PathBuf,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 1_200)]
    pub(crate) messages: u64,
}

/// A time with its unit, as in 500ms.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text
        .parse()
        .map_err(|_| "not a duration: write 500ms, 2s or 1m".to_owned())?;
    Duration::try_from(span).map_err(|_| "a duration can't be negative".to_owned())
}

fn work(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0: the rate is a part of what the processors can carry".to_owned()),
        time => Ok(time),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("not a rate: write messages per second, as in 250".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 1_000.0 => Ok(percent),
        _ => Err("not a percentage: write a number above 0, as in 80".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m"), Ok(Duration::from_mins(1)));
        assert!(duration("5").is_err());
        assert!(duration("-5s").is_err());
    }
}
