//! What was done when, and what came of it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::args::Fault;
use crate::bench::collect::stall;
use crate::text;

/// The longest time for which a stall is looked for.
const LONGEST: Duration = Duration::from_secs(5);

/// One fault that happened.
#[derive(Debug, Clone)]
pub(super) struct Injection {
    pub(super) fault: Fault,
    began: Instant,
    pub(super) ended: Instant,
    /// It hit all, not only one process.
    everybody: bool,
    /// Something else happened meanwhile, so that nobody can tell what a stall came from.
    pub(super) overlapped: bool,
    form: String,
}

impl Injection {
    /// One that is over at once.
    pub(super) fn new(fault: Fault, began: Instant, everybody: bool, form: String) -> Self {
        Self {
            fault,
            began,
            ended: Instant::now(),
            everybody,
            overlapped: false,
            form,
        }
    }

    /// What is counted from: what hits all lets nothing through before it is over.
    fn counts_from(&self) -> Instant {
        if self.everybody { self.ended } else { self.began }
    }
}

/// One line of the log.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    fault: String,
    began_ms: f64,
    ended_ms: f64,
    /// Whom, or in which form.
    form: String,
    everybody: bool,
    overlapped: bool,
    /// None, where something overlapped it.
    stall_ms: Option<f64>,
}

/// One kind of fault.
#[derive(Debug, Serialize)]
pub(super) struct Kind {
    pub(super) fault: String,
    pub(super) injected: usize,
    /// How many of them nothing overlapped.
    pub(super) measured: usize,
    pub(super) stall_p50_ms: f64,
    pub(super) stall_max_ms: f64,
    /// What the design allows.
    pub(super) bound_ms: f64,
}

/// Something else happened in these moments.
pub(super) fn overlap(log: &mut [Injection], moments: &[Instant]) {
    let mut begins: Vec<Instant> = log.iter().map(|injection| injection.began).collect();
    begins.sort_unstable();
    for injection in log {
        let next = begins.iter().copied().find(|begin| *begin > injection.ended);
        let until = next.unwrap_or(injection.ended + LONGEST);
        injection.overlapped |= moments.iter().any(|at| (injection.began..until).contains(at));
    }
}

fn stalls(log: &[Injection], arrivals: &[Instant]) -> Vec<Option<Duration>> {
    let mut begins: Vec<Instant> = log.iter().map(|injection| injection.began).collect();
    begins.sort_unstable();
    log.iter()
        .map(|injection| {
            let from = injection.counts_from();
            let limit = injection.ended.max(from) + LONGEST;
            let next = begins.iter().copied().find(|begin| *begin > injection.ended);
            (!injection.overlapped).then(|| stall(arrivals, from, next.map_or(limit, |next| next.min(limit))))
        })
        .collect()
}

/// All that was done, since `start`.
pub(super) fn lines(log: &[Injection], arrivals: &[Instant], start: Instant) -> Vec<Line> {
    let since = |at: Instant| text::millis(at - start);
    let stalls = stalls(log, arrivals);
    log.iter()
        .zip(stalls)
        .map(|(injection, stall)| Line {
            fault: injection.fault.name(),
            began_ms: since(injection.began),
            ended_ms: since(injection.ended),
            form: injection.form.clone(),
            everybody: injection.everybody,
            overlapped: injection.overlapped,
            stall_ms: stall.map(text::millis),
        })
        .collect()
}

/// What each kind came to.
pub(super) fn kinds(faults: &[Fault], log: &[Injection], arrivals: &[Instant]) -> Vec<Kind> {
    let stalls = stalls(log, arrivals);
    let of = |fault: &Fault| {
        let mine = || {
            log.iter()
                .zip(&stalls)
                .filter(|(injection, _)| injection.fault == *fault)
        };
        let mut measured: Vec<Duration> = mine().filter_map(|(_, stall)| *stall).collect();
        measured.sort_unstable();
        let at = |index: usize| measured.get(index).map_or(0.0, |stall| text::millis(*stall));
        Kind {
            fault: fault.name(),
            injected: mine().count(),
            measured: measured.len(),
            stall_p50_ms: at(measured.len() / 2),
            stall_max_ms: at(measured.len().saturating_sub(1)),
            bound_ms: text::millis(fault.bound()),
        }
    };
    faults.iter().map(of).collect()
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>10.0} to {:>8.0} ms  {:<15}",
            self.began_ms, self.ended_ms, self.fault
        )?;
        match self.stall_ms {
            Some(stall) => write!(f, " stall {stall:>7.1} ms")?,
            None => write!(f, " overlapped      ")?,
        }
        write!(f, "  {}", self.form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_counts_from_the_end_of_what_hits_all_and_from_the_beginning_of_what_hits_one() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let injection = |fault, began, ended, everybody| Injection {
            ended: at(ended),
            ..Injection::new(fault, at(began), everybody, String::new())
        };
        let mut log = vec![
            injection(Fault::KillProcessor, 1_000, 1_000, false),
            injection(Fault::Oom, 2_000, 4_000, true),
            injection(Fault::PauseLeader, 6_000, 7_500, false),
        ];
        // Something every 10 ms but from 1,000 to 1,200, from 2,000 to 4,500 and from 6,100 to 6,900.
        let gaps = [(1_000, 1_200), (2_000, 4_500), (6_100, 6_900)];
        let arrivals: Vec<Instant> = (0..1_000)
            .map(|nth| nth * 10)
            .filter(|millis| !gaps.iter().any(|(from, to)| millis > from && millis < to))
            .map(at)
            .collect();
        let told = |log: &[Injection]| -> Vec<Option<u128>> {
            stalls(log, &arrivals)
                .iter()
                .map(|stall| stall.map(|stall| stall.as_millis()))
                .collect()
        };
        assert_eq!(told(&log), [Some(200), Some(500), Some(800)]);
        overlap(&mut log, &[at(500), at(3_000), at(5_999)]);
        assert_eq!(told(&log), [Some(200), None, Some(800)]);
        let kinds = kinds(&[Fault::Oom, Fault::KillProcessor, Fault::Busy], &log, &arrivals);
        let counts: Vec<_> = kinds.iter().map(|kind| (kind.injected, kind.measured)).collect();
        assert_eq!(counts, [(1, 0), (1, 1), (0, 0)]);
    }
}
