//! Control of a line, as it is typed.

use std::time::Duration;

use conga::core::partition::Rate;

use super::duration;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Drain {
    /// Give up waiting after so long; the line stays draining [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Limited {
    /// Messages per second over all processors together, as in 250 or 0.5; or `none`
    #[arg(value_name = "RATE", value_parser = rate_or_none)]
    pub(crate) rate: AtMost,
}

/// At most so fast, or as fast as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AtMost(pub(crate) Option<Rate>);

fn rate_or_none(text: &str) -> Result<AtMost, String> {
    if text == "none" {
        return Ok(AtMost(None));
    }
    let rate = text.parse().ok().and_then(Rate::per_second);
    rate.map(|rate| AtMost(Some(rate))).ok_or_else(|| {
        "not a rate: write messages per second, as in 250 or 0.5 (at least one a day), or none".to_owned()
    })
}
