//! What can be done: each fault by its nature.

use std::time::Duration;

use clap::ValueEnum as _;
use conga::store::StoreUrl;

use crate::args::{Fault, Serve};
use crate::settings::wrong;

/// What a fault is done to, and so what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// The processes: fits every store.
    Processes,
    /// The way between the processes and a Redis server.
    Network,
    /// The connections and the scripts of Redis servers that are ours.
    Connections,
    /// A Redis server that is ours and alone.
    Server,
    /// The primary of Redis servers that are ours.
    Primary,
    /// The slots of a Redis cluster that is ours.
    Slots,
    /// An SQLite file.
    Database,
    /// A PostgreSQL server that is ours, in which is recorded.
    Record,
}

impl Fault {
    /// Its name, as on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    pub(super) fn nature(self) -> Nature {
        match self {
            Self::All
            | Self::KillProcessor
            | Self::KillLeader
            | Self::StopProcessor
            | Self::StopLeader
            | Self::PauseProcessor
            | Self::PauseLeader
            | Self::KillAll => Nature::Processes,
            Self::Reset | Self::BlackHole | Self::Latency => Nature::Network,
            Self::ScriptFlush | Self::ClientKill => Nature::Connections,
            Self::KillPrimary => Nature::Primary,
            Self::MoveSlot => Nature::Slots,
            Self::KillRedis | Self::ClientPause | Self::FreezeRedis | Self::Busy | Self::Oom | Self::ReadOnly => {
                Nature::Server
            }
            Self::LockDatabase => Nature::Database,
            Self::KillPostgres | Self::StopPostgres | Self::KillPostgresConnections => Nature::Record,
        }
    }

    /// Whether it needs a leader to hit.
    pub(super) fn hits_the_leader(self) -> bool {
        matches!(self, Self::KillLeader | Self::StopLeader | Self::PauseLeader)
    }

    /// How long it goes on.
    pub(super) fn lasts(self) -> Duration {
        Duration::from_millis(match self {
            Self::PauseProcessor | Self::PauseLeader | Self::BlackHole | Self::LockDatabase => 5_000,
            Self::Latency => 3_000,
            Self::StopPostgres => 10_000,
            Self::KillPostgresConnections => 1_000,
            Self::ClientPause | Self::FreezeRedis | Self::Busy | Self::Oom | Self::ReadOnly => 2_000,
            _ => 0,
        })
    }

    /// How long it mostly takes until it is over, however long that may be.
    pub(super) fn takes(self) -> Duration {
        match self {
            Self::KillPrimary => Duration::from_secs(8),
            Self::MoveSlot => Duration::from_secs(2),
            _ => self.lasts(),
        }
    }

    /// How long nothing else happens after it, so that its stall can be told. What is replaced is back by then.
    pub(super) fn rest(self) -> Duration {
        Duration::from_millis(match self {
            Self::KillProcessor => 300,
            Self::StopProcessor => 400,
            Self::KillLeader | Self::StopLeader | Self::ScriptFlush => 700,
            Self::PauseProcessor | Self::PauseLeader => 500,
            Self::BlackHole | Self::Latency | Self::Reset => 1_800,
            _ => 1_300,
        })
    }

    /// How often it comes before all the others have come again.
    pub(super) fn weight(self) -> usize {
        if self == Self::KillProcessor { 3 } else { 1 }
    }

    /// Whether it may happen while a longer one goes on.
    pub(super) fn is_company(self) -> bool {
        matches!(
            self,
            Self::KillProcessor | Self::KillLeader | Self::StopProcessor | Self::StopLeader
        )
    }

    /// The stall that the design allows.
    pub(super) fn bound(self) -> Duration {
        Duration::from_millis(match self {
            Self::KillProcessor | Self::KillLeader => 300,
            Self::StopProcessor | Self::StopLeader => 100,
            Self::PauseProcessor | Self::PauseLeader | Self::Reset | Self::BlackHole | Self::Latency => 1_500,
            _ => 1_000,
        })
    }
}

/// The faults that were asked for, each once; `all` is those that fit.
///
/// # Errors
/// Wrong usage: one that does not fit the store.
pub(super) fn chosen(
    asked: &[Fault],
    url: &StoreUrl,
    serve: Option<Serve>,
    serves_record: bool,
) -> anyhow::Result<Vec<Fault>> {
    let lacking = |fault| lacking(fault, url, serve, serves_record);
    let mut faults = Vec::new();
    for &fault in asked {
        if fault == Fault::All {
            let fitting = Fault::value_variants()
                .iter()
                .copied()
                .filter(|fault| *fault != Fault::All);
            faults.extend(fitting.filter(|fault| lacking(*fault).is_none()));
        } else if let Some(needs) = lacking(fault) {
            return Err(wrong(format!("{} does not fit: it needs {needs}", fault.name())));
        } else {
            faults.push(fault);
        }
    }
    let mut seen = std::collections::HashSet::new();
    faults.retain(|fault| seen.insert(*fault));
    Ok(faults)
}

/// What the fault needs that is not there.
fn lacking(fault: Fault, url: &StoreUrl, serve: Option<Serve>, serves_record: bool) -> Option<&'static str> {
    let (is_there, needs) = match fault.nature() {
        Nature::Processes => (true, ""),
        Nature::Network => (
            matches!(url, StoreUrl::Redis(text) if !text.starts_with("redis+")),
            "a single Redis server, in front of which a proxy fits: --serve redis, or --store redis://HOST:PORT",
        ),
        Nature::Connections => (
            serve.is_some(),
            "Redis servers of its own, which nobody else uses: --serve redis, sentinel or cluster",
        ),
        Nature::Primary => (
            matches!(serve, Some(Serve::Sentinel | Serve::Cluster)),
            "a primary of its own with replicas: --serve sentinel, or --serve cluster",
        ),
        Nature::Slots => (
            serve == Some(Serve::Cluster),
            "a Redis cluster of its own: --serve cluster",
        ),
        Nature::Server => (
            serve == Some(Serve::Redis),
            "a Redis server of its own, which nobody else uses: --serve redis",
        ),
        Nature::Record => (
            serves_record,
            "a PostgreSQL server of its own to record in: --record serve",
        ),
        Nature::Database => (
            matches!(url, StoreUrl::Sqlite(_)),
            "an SQLite store: leave out --store and --serve, or --store sqlite:PATH",
        ),
    };
    (!is_there).then_some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_what_fits_and_the_rest_is_refused() {
        let sqlite = StoreUrl::Sqlite("x.db".into());
        let redis = StoreUrl::Redis("redis://h".to_owned());
        let all = |url, serve| chosen(&[Fault::All, Fault::KillAll], url, serve, false).unwrap();
        assert_eq!(all(&sqlite, None).len(), 8);
        assert_eq!(chosen(&[Fault::All], &sqlite, None, true).unwrap().len(), 11);
        assert_eq!(all(&redis, None).len(), 10);
        assert_eq!(all(&redis, Some(Serve::Redis)).len(), 18);
        let several = |serve: Serve| StoreUrl::Redis(serve.scheme().to_owned());
        let (sentinel, cluster) = (several(Serve::Sentinel), several(Serve::Cluster));
        assert_eq!(all(&sentinel, Some(Serve::Sentinel)).len(), 10);
        assert_eq!(all(&cluster, Some(Serve::Cluster)).len(), 11);
        assert_eq!(all(&sentinel, None).len(), 7);
        for (fault, url, serve) in [
            (Fault::KillRedis, &redis, None),
            (Fault::BlackHole, &sqlite, None),
            (Fault::StopPostgres, &sqlite, None),
            (Fault::LockDatabase, &redis, None),
            (Fault::ClientKill, &cluster, None),
            (Fault::KillPrimary, &redis, Some(Serve::Redis)),
            (Fault::Latency, &cluster, Some(Serve::Cluster)),
            (Fault::Oom, &sentinel, Some(Serve::Sentinel)),
            (Fault::MoveSlot, &sentinel, Some(Serve::Sentinel)),
        ] {
            let error = chosen(&[fault], url, serve, false).unwrap_err().to_string();
            assert!(error.contains(&fault.name()) && error.contains("needs"), "{error}");
        }
    }
}
