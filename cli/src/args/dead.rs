//! What can be done about dead letters, as it is typed.

use std::time::Duration;

use clap::Subcommand;

use super::keep::age;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Dead {
    /// What failed for good, the oldest first: where, how often it was tried, when it was given up, and why
    List {
        /// The oldest N of them
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// One of them, with the message as it came in
    Show {
        /// Its place in the order, as `list` prints it
        #[arg(value_name = "POSITION")]
        position: u64,
    },
    /// Send messages again: each goes to the end of the line as a new message, or is tried again in its own place where the line
    /// is halted at it; its dead letter goes
    Retry(Retry),
    /// Have a line go on past messages at which it is halted; they stay as dead letters
    Skip(Skip),
    /// Delete dead letters
    Purge(Purge),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Retry {
    /// Which, by their places in the order, as `list` prints them
    #[arg(value_name = "POSITION", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) positions: Vec<u64>,
    /// All of them, in the order in which they were given up
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Skip {
    /// Which, by their places in the order, as `list` prints them
    #[arg(value_name = "POSITION", required = true)]
    pub(crate) positions: Vec<u64>,
    /// With their tombstones in the output, and not with nothing in their places
    #[arg(long)]
    pub(crate) mark: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Purge {
    /// Which, by their places in the order, as `list` prints them
    #[arg(value_name = "POSITION", required_unless_present_any = ["all", "older"], conflicts_with_all = ["all", "older"])]
    pub(crate) positions: Vec<u64>,
    /// All of them
    #[arg(long, conflicts_with = "older")]
    pub(crate) all: bool,
    /// Those that were given up longer ago than this, as in 7d
    #[arg(long, value_name = "AGE", value_parser = time)]
    pub(crate) older: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, String> {
    age(text).map_err(|_| "not a time: write 7d, 12h or 90s".to_owned())
}
