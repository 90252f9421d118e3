//! What is to be done, as it is meant.

use std::collections::BTreeSet;
use std::time::Duration;

use conga::core::shape::Shape;
use conga::store::{OpenOptions, StoreUrl};
use tokio_util::sync::CancellationToken;

use super::Campaign;
use super::fault::{self, Nature};
use super::schedule::{Schedule, mixed};
use crate::args::{Chaos, Serve};
use crate::bench::load::Until;
use crate::settings::{Settings, wrong};

/// So many messages, where nothing else was said.
const MESSAGES: u64 = 2_000;
/// Messages per second, where messages are sent for a while. Half of the processors carry that.
const RATE: f64 = 250.0;
/// Nothing for so long is not slow but stuck: longer than any fault.
const PATIENCE: Duration = Duration::from_secs(20);
/// The same where there is poison: to find one takes some ten processors, and while one is looked for all others wait.
const PATIENCE_WITH_POISON: Duration = Duration::from_mins(1);

impl Campaign {
    pub(super) fn of(settings: &Settings, chaos: &Chaos) -> anyhow::Result<Self> {
        let url = match (settings.given_store(), chaos.serve) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "--serve starts a store of its own: leave out --store, CONGA_STORE and `store` in the settings file",
                ));
            }
            (None, Some(serve)) => StoreUrl::Redis(serve.scheme().to_owned()),
            (Some(url), None) => url.clone(),
            (None, None) => StoreUrl::Sqlite("".into()),
        };
        let shape = shape(chaos)?;
        let mut faults = fault::chosen(&chaos.faults, &url, chaos.serve, settings.serves_record())?;
        let is_led = leads(shape);
        if !is_led {
            faults.retain(|fault| !fault.hits_the_leader());
        }
        let each = CancellationToken::new();
        let (until, rate) = match (chaos.messages, chaos.duration) {
            (Some(count), _) => (Until::Count(count), chaos.rate),
            (None, Some(time)) => (Until::Elapsed(time), Some(chaos.rate.unwrap_or(RATE))),
            (None, None) if faults.iter().all(|fault| fault.nature() == Nature::Processes) => {
                (Until::Count(MESSAGES), chaos.rate)
            }
            (None, None) => {
                let limit = 2 * Schedule::once(&faults) + PATIENCE;
                (Until::Told(each.clone(), limit), Some(chaos.rate.unwrap_or(RATE)))
            }
        };
        let about = match &until {
            Until::Count(count) => *count,
            Until::Elapsed(time) => expected(rate, *time),
            Until::Told(..) => expected(rate, Schedule::once(&faults)),
        };
        Ok(Self {
            chaos: chaos.clone(),
            faults,
            options: OpenOptions {
                shape,
                ..options(settings, chaos.serve)?
            },
            sequencers: if is_led { chaos.sequencers } else { 0 },
            until,
            rate,
            poison: poison(chaos, about)?,
            each,
            patience: if chaos.poison > 0 {
                PATIENCE_WITH_POISON
            } else {
                PATIENCE
            },
            broken: None,
        })
    }
}

/// What the line has to be.
fn shape(chaos: &Chaos) -> anyhow::Result<Option<Shape>> {
    let shape = chaos.orders.shape().map_err(wrong)?;
    if chaos.partitions.get() == 1 {
        return Ok(shape);
    }
    let shape = Shape {
        partitions: chaos.partitions,
        ..shape.unwrap_or_default()
    };
    if chaos.self_test && !shape.is_merged() {
        return Err(wrong("--self-test goes with one partition, or with --order total"));
    }
    if shape.is_merged() && chaos.sequencers < 2 {
        return Err(wrong(
            "--sequencers must be at least 2: one merges, and another follows it",
        ));
    }
    Ok(Some(shape))
}

/// Whether a line of this shape has a leader.
fn leads(shape: Option<Shape>) -> bool {
    shape.is_none_or(|shape| shape.partitions.get() == 1 || shape.is_merged())
}

/// What is served is there to be killed: what is acknowledged waits for a replica, unless told otherwise.
fn options(settings: &Settings, serve: Option<Serve>) -> anyhow::Result<OpenOptions> {
    let Some(serve) = serve else {
        return Ok(settings.options().clone());
    };
    let most = serve.replicas();
    let replicas = settings.given_replicas().unwrap_or(most.min(1));
    if replicas > most {
        let name = serve.name();
        return Err(wrong(format!(
            "--replicas {replicas} is too many: with --serve {name} a primary has {most}"
        )));
    }
    Ok(OpenOptions {
        replicas,
        ..settings.options().clone()
    })
}

/// How many messages a rate makes in a time.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that a rate and a time give"
)]
fn expected(rate: Option<f64>, time: Duration) -> u64 {
    (rate.unwrap_or(RATE) * time.as_secs_f64()) as u64
}

/// Which messages are poison, of about so many: one in each part of the first two thirds, where the seed says.
fn poison(chaos: &Chaos, about: u64) -> anyhow::Result<BTreeSet<u64>> {
    let count = u64::from(chaos.poison);
    if count == 0 {
        return Ok(BTreeSet::new());
    }
    let part = about * 2 / 3 / count;
    if part == 0 {
        return Err(wrong(format!(
            "--poison {count} is too many for some {about} messages: send more of them, or longer"
        )));
    }
    let number = |nth: u64| nth * part + 1 + mixed(mixed(chaos.seed) ^ nth) % part;
    Ok((0..count).map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chaos(typed: &[&str]) -> Chaos {
        use clap::Parser as _;
        let all = [&["conga", "bench", "chaos"][..], typed].concat();
        match crate::args::Args::parse_from(all).command {
            crate::args::Command::Bench {
                bench: crate::args::Bench::Chaos(chaos),
            } => chaos,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn poison_is_drawn_by_the_seed_and_stands_apart() {
        let of = |seed| poison(&chaos(&["--poison", "4", "--seed", seed]), 1_200).unwrap();
        assert_eq!(of("1"), of("1"));
        assert_ne!(of("1"), of("2"));
        for (nth, number) in (0..).zip(of("3")) {
            assert!((nth * 200 + 1..=nth * 200 + 200).contains(&number), "{number}");
        }
        assert!(poison(&chaos(&["--poison", "4"]), 5).is_err());
        assert!(poison(&chaos(&[]), 0).unwrap().is_empty());
    }

    #[test]
    fn only_a_line_that_is_merged_or_of_one_partition_has_a_leader() {
        let led = |typed: &[&str]| leads(shape(&chaos(typed)).unwrap());
        assert!(led(&[]) && led(&["--order", "key"]));
        assert!(led(&["--order", "total", "--partitions", "3"]) && led(&["--partitions", "3"]));
        assert!(!led(&["--order", "key", "--partitions", "3"]) && !led(&["--order", "none", "--partitions", "3"]));
        assert!(shape(&chaos(&["--partitions", "3", "--sequencers", "1"])).is_err());
        assert!(shape(&chaos(&["--partitions", "3", "--order", "key", "--self-test"])).is_err());
    }
}
