//! The connection, and the transactions in which every step runs.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use conga_core::lease::OwnerId;
use conga_core::time::Micros;
use rusqlite::{Connection, OptionalExtension};

use super::SqliteOptions;
use super::alive::Alive;
use super::bell::Bell;
use super::fault::{fault, fault_of_commit, wants_room};
use super::guard::Guard;
use super::open::{log_of, open};
use super::sql::sql;
use super::step::{LAST_LINE, Step};
use crate::clock::Clock;
use crate::line::Line;
use crate::store::{Delivery, Result, StoreError};
use crate::wake::{Topic, Wakes};

mod disk;

/// What the answer to a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    /// The disk. For what somebody outside relies on once it is acknowledged.
    Synced,
    /// Nothing. For leases, deadlines and the lock: a power cut that takes them with it has taken their owners too,
    /// for all of them are on this machine. And for an emit: what it appends is synced before anybody receives it.
    Written,
}

/// A line in a file of SQLite.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    line: i64,
    connection: Connection,
    options: SqliteOptions,
    bell: Bell,
    /// None under a manual clock, where nothing may depend on what time it is.
    alive: Option<Alive>,
    /// The answer to the step that runs has to wait for the disk.
    unsynced: bool,
    /// When the log was written again for the last time, with what error.
    mended: Option<(Instant, StoreError)>,
    /// What keeps effects within their bounds; once there are any.
    guard: Option<Guard>,
}

/// Why a step came to nothing.
enum Failed {
    NoRoom(StoreError),
    Else(StoreError),
}

impl Database {
    /// Opens the file, makes it ours if it is new, and finds or adds the line.
    pub(super) fn open(path: &Path, line: &Line, options: SqliteOptions, wakes: Wakes) -> Result<Self> {
        let mut connection = open(path, busy_handler(options.busy_limit))?;
        let number = number_of(&mut connection, line).and_then(|number| warm_up(&connection).map(|()| number));
        let number = number.map_err(|error| fault(path, &error))?;
        if number > LAST_LINE {
            return Err(StoreError::Broken(format!(
                "{} has had {LAST_LINE} lines, which is all that it can; choose another file with --store sqlite:PATH",
                path.display()
            )));
        }
        // What stands beside it stands beside the file, not beside a link to it: so all processes find the same.
        let path = fs::canonicalize(path)
            .map_err(|error| StoreError::Unavailable(format!("{} can't be found: {error}", path.display())))?;
        Ok(Self {
            line: number,
            connection,
            alive: match options.clock {
                Clock::Store => Some(Alive::beside(&path, number)),
                Clock::Manual(_) => None,
            },
            options,
            bell: Bell::hang(&path, number, wakes),
            unsynced: false,
            mended: None,
            guard: None,
            path,
        })
    }

    /// A step that changes nothing, on one snapshot.
    pub(super) fn read<T>(&self, step: impl FnOnce(&Step<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let done = self.begin("BEGIN").and_then(|()| step(&self.step()));
        // Only a lock is given back here, so there is nothing to be said about a failure.
        self.roll_back();
        done.map_err(|error| fault(&self.path, &error))
    }

    /// A step that may change something: wholly or not at all. One that finds nothing to change writes nothing.
    pub(super) fn write<T>(
        &mut self,
        commit: Commit,
        mut step: impl FnMut(&Step<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.unsynced |= commit == Commit::Synced;
        match self.attempt(&mut step) {
            Err(Failed::NoRoom(error)) if !self.make_room() => Err(error),
            Err(Failed::NoRoom(_)) => self.attempt(&mut step).map_err(Failed::into_error),
            done => done.map_err(Failed::into_error),
        }
    }

    fn attempt<T>(&self, step: &mut impl FnMut(&Step<'_>) -> rusqlite::Result<T>) -> std::result::Result<T, Failed> {
        let classed = |fault: fn(&Path, &rusqlite::Error) -> StoreError, error: rusqlite::Error| {
            let class = if wants_room(&error) {
                Failed::NoRoom
            } else {
                Failed::Else
            };
            class(fault(&self.path, &error))
        };
        let begun = self.begin("BEGIN IMMEDIATE");
        let done = match begun.and_then(|()| step(&self.step())) {
            Err(error) => Err(classed(fault, error)),
            Ok(answer) => match self.execute("COMMIT") {
                Err(error) => Err(classed(fault_of_commit, error)),
                Ok(()) => Ok(answer),
            },
        };
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// What is read from here on is shown to somebody outside, so it must be on the disk first.
    pub(super) fn expose(&mut self) {
        self.unsynced = true;
    }

    /// Whether the store is to deliver what is ready.
    pub(super) fn delivers(&self) -> bool {
        self.options.delivery == Delivery::Store
    }

    /// Whether time is the machine's, and no test's.
    pub(super) fn is_real_time(&self) -> bool {
        matches!(self.options.clock, Clock::Store)
    }

    /// Whether the answer has to wait for the disk. Asked once for each step.
    pub(super) fn take_unsynced(&mut self) -> bool {
        std::mem::take(&mut self.unsynced)
    }

    /// What keeps effects within their bounds.
    pub(super) fn guard(&mut self) -> Result<Guard> {
        if self.guard.is_none() {
            let guard = Guard::over(&mut self.connection).map_err(|error| fault(&self.path, &error))?;
            self.guard = Some(guard);
        }
        self.guard.clone().ok_or(StoreError::Closed)
    }

    /// A look at the connection itself, outside any step.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Takes up what could not be had before.
    pub(super) fn tend(&mut self) {
        self.bell.tend();
    }

    /// The write-ahead log.
    pub(super) fn log(&self) -> PathBuf {
        log_of(&self.path)
    }

    /// Shows that `owner`'s process is alive.
    pub(super) fn show_alive(&mut self, owner: &OwnerId) {
        if let Some(alive) = &mut self.alive {
            alive.show(owner);
        }
    }

    /// Shows it no more.
    pub(super) fn show_gone(&mut self, owner: &OwnerId) {
        if let Some(alive) = &mut self.alive {
            alive.leave(owner);
        }
    }

    /// Whether `owner`'s process is known to be gone.
    pub(super) fn is_gone(&self, owner: &OwnerId) -> bool {
        self.alive.as_ref().is_some_and(|alive| alive.is_gone(owner))
    }

    /// The owners whose processes are gone, if it is time to look.
    pub(super) fn look_for_gone(&mut self) -> Result<Vec<OwnerId>> {
        if !self.alive.as_mut().is_some_and(Alive::may_look) {
            return Ok(Vec::new());
        }
        let (owners, seated) = self.read(|step| {
            let owners = step
                .prepare(sql!("status.sql", "processors"))?
                .query_map(rusqlite::params![step.line, 0], |row| {
                    row.get::<_, String>(0).map(OwnerId::new)
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let line = step.load()?;
            let seated = line.lock.into_iter().chain(line.consumer).map(|lock| lock.owner);
            Ok((owners, seated.collect::<Vec<_>>()))
        })?;
        if let Some(alive) = &mut self.alive {
            let known: Vec<OwnerId> = owners.iter().cloned().chain(seated).collect();
            alive.sweep(&known);
        }
        Ok(owners.into_iter().filter(|owner| self.is_gone(owner)).collect())
    }

    /// Tells everybody that there is something about `topic`.
    pub(super) fn wake(&mut self, topic: Topic) {
        self.bell.ring(&[topic]);
    }

    /// As [`Database::wake`], for the head has moved.
    pub(super) fn wake_of_head(&mut self) {
        self.bell.ring(&[Topic::Output, Topic::Window]);
    }

    /// Whether a new deadline is so near to the one that stands that the write can be spared.
    pub(super) fn is_spared(&self, stands: Option<Micros>, new: Micros, lease_us: u64) -> bool {
        let slack = lease_us / 100 * self.options.owner_slack_percent.min(100);
        stands.is_some_and(|stands| stands <= new && new.since(stands) <= slack)
    }

    fn step(&self) -> Step<'_> {
        Step::at(self.line, self.options.clock.now(), &self.connection)
    }

    fn begin(&self, how: &'static str) -> rusqlite::Result<()> {
        self.roll_back();
        self.execute(how)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            // The next step tries it again before it begins.
            tracing::warn!(path = %self.path.display(), %error, "can't roll back");
        }
    }

    fn execute(&self, statement: &'static str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }
}

impl Failed {
    fn into_error(self) -> StoreError {
        match self {
            Self::NoRoom(error) | Self::Else(error) => error,
        }
    }
}

fn number_of(connection: &mut Connection, line: &Line) -> rusqlite::Result<i64> {
    let find = |connection: &Connection| {
        connection
            .query_row(sql!("line.sql", "number"), [line.tag()], |row| row.get(0))
            .optional()
    };
    if let Some(number) = find(connection)? {
        return Ok(number);
    }
    connection.execute(sql!("line.sql", "add"), [line.tag()])?;
    find(connection)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Has the statements of the steps that every message takes compiled, so that the first message does not wait for it.
fn warm_up(connection: &Connection) -> rusqlite::Result<()> {
    for statement in [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "ROLLBACK",
        sql!("line.sql", "load"),
        sql!("send.sql", "append"),
        sql!("send.sql", "advance"),
        sql!("claim.sql", "look"),
        sql!("claim.sql", "has_suspects"),
        sql!("claim.sql", "bury_owners"),
        sql!("claim.sql", "free_due"),
        sql!("claim.sql", "free_again"),
        sql!("claim.sql", "new"),
        sql!("claim.sql", "lease_new"),
        sql!("claim.sql", "advance"),
        sql!("complete.sql", "end"),
        sql!("complete.sql", "between"),
        sql!("complete.sql", "end_run"),
        sql!("complete.sql", "record"),
        sql!("complete.sql", "append"),
        sql!("line.sql", "save"),
        sql!("follow.sql", "follow"),
        sql!("emit.sql", "waiting"),
        sql!("emit.sql", "ready"),
        sql!("emit.sql", "is_ready"),
        sql!("emit.sql", "deliver"),
        sql!("emit.sql", "delivered"),
        sql!("emit.sql", "remove"),
        sql!("emit.sql", "forget"),
        sql!("receive.sql", "acknowledge"),
        sql!("receive.sql", "advance"),
        sql!("receive.sql", "oldest"),
        sql!("renew.sql", "deadline"),
        sql!("renew.sql", "alive"),
        sql!("campaign.sql", "take"),
    ] {
        // Back in the cache as soon as it is dropped.
        drop(connection.prepare_cached(statement)?);
    }
    Ok(())
}

/// Waits for another process's lock. SQLite's own handler sleeps up to 100 ms at a time, and every waiter alike; here
/// they try every 0.05 to 0.5 ms, each at times of its own.
fn busy_handler(limit: Duration) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    let random = RandomState::new();
    move |count| {
        if count == 0 {
            since = Instant::now();
        }
        if since.elapsed() >= limit {
            return false;
        }
        thread::sleep(Duration::from_micros(50 + random.hash_one(since.elapsed()) % 450));
        true
    }
}
