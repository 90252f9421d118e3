//! What a run cost: processor time and memory of the server and of each process.

use std::time::Duration;

use serde::Serialize;

use super::fleet::{Fleet, Role};
use super::ground::Site;
use super::part::Part;
use super::usage::Usage;

/// Costs are told for so many messages.
const UNIT: f64 = 100_000.0;

/// What one process has used so far.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    who: String,
    usage: Usage,
}

/// What one process took for a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Account {
    /// `server`, or the process's role, with a number where there are several.
    pub(crate) who: String,
    /// User and system time.
    pub(crate) cpu_s_per_100k: f64,
    /// The most memory that it ever had.
    pub(crate) peak_mb: f64,
}

/// What all have used so far.
pub(crate) async fn used(site: &Site, parts: &[&Part], fleet: &Fleet) -> anyhow::Result<Vec<Used>> {
    let mut all = Vec::new();
    let mut add = |who: String, usage: Option<Usage>| {
        if let Some(usage) = usage {
            all.push(Used { who, usage });
        }
    };
    add("server".to_owned(), site.server_usage().await?);
    for part in parts {
        add(part.role.name(), part.usage());
    }
    for (role, name) in [(Role::Processor, "process"), (Role::Sequencer, "sequence")] {
        let members: Vec<_> = fleet.members.iter().filter(|member| member.role == role).collect();
        for (index, member) in members.iter().enumerate() {
            let number = if members.len() > 1 {
                format!(" {}", index + 1)
            } else {
                String::new()
            };
            add(format!("{name}{number}"), member.pid().and_then(Usage::of));
        }
    }
    Ok(all)
}

/// What each took between two looks, in which so many messages went through.
pub(crate) fn accounts(before: &[Used], after: &[Used], messages: u64) -> Vec<Account> {
    after
        .iter()
        .map(|after| {
            let start = before
                .iter()
                .find(|before| before.who == after.who)
                .map_or(Duration::ZERO, |before| before.usage.cpu);
            #[allow(clippy::cast_precision_loss, reason = "figures for people")]
            Account {
                who: after.who.clone(),
                cpu_s_per_100k: after.usage.cpu.saturating_sub(start).as_secs_f64() * UNIT / messages.max(1) as f64,
                peak_mb: after.usage.peak_bytes as f64 / f64::from(1 << 20),
            }
        })
        .collect()
}

/// Processor time per message, in microseconds: of the server and of all services, not of who sends and receives.
pub(crate) fn cpu_us(accounts: &[Account]) -> f64 {
    accounts
        .iter()
        .filter(|account| {
            ["server", "process", "sequence"]
                .iter()
                .any(|role| account.who.starts_with(role))
        })
        .map(|account| account.cpu_s_per_100k * 1e6 / UNIT)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_before_does_not_count() {
        let used = |who: &str, millis| Used {
            who: who.to_owned(),
            usage: Usage {
                cpu: Duration::from_millis(millis),
                peak_bytes: 3 << 20,
            },
        };
        let before = [used("server", 500), used("process", 100)];
        let after = [used("server", 900), used("process", 200), used("produce", 70)];
        let found = accounts(&before, &after, 50_000);
        let times: Vec<f64> = found.iter().map(|account| account.cpu_s_per_100k).collect();
        assert_eq!(times, [0.8, 0.2, 0.14]);
        assert!((cpu_us(&found) - 10.0).abs() < 1e-9);
        assert!((found[0].peak_mb - 3.0).abs() < 1e-9);
    }
}
