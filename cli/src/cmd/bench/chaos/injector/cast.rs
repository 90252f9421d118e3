//! Who comes and goes: processes that follow those that were killed, were told to end, or died of a poison.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Done, Injector, LOOK, Undo};
use crate::bench::fleet::{Member, Role};

/// How often it is looked whether somebody died by itself.
const PATROL: Duration = Duration::from_millis(20);

impl Injector {
    /// Does nothing more until `over`, but to what dies by itself.
    pub(in super::super) async fn attend(&mut self, over: &CancellationToken) -> anyhow::Result<()> {
        while !over.is_cancelled() {
            match over.run_until_cancelled(self.pass(Instant::now() + PATROL)).await {
                Some(passed) => passed?,
                None => break,
            }
        }
        Ok(())
    }

    /// Returns at that time. Processors that die of a poison meanwhile are followed by others. Cancel-safe.
    pub(super) async fn pass(&mut self, until: Instant) -> anyhow::Result<()> {
        while self.cast.poisoned && Instant::now() < until {
            self.tend()?;
            self.follow_the_dead()?;
            sleep_until(until.min(Instant::now() + PATROL)).await;
        }
        sleep_until(until).await;
        Ok(())
    }

    fn follow_the_dead(&mut self) -> anyhow::Result<()> {
        let mut index = 0;
        while index < self.fleet.members.len() {
            match self.fleet.members[index].gone()? {
                Some(status) if died_of_poison(status) => {
                    self.deaths.push(Instant::now());
                    let member = self.fleet.members.swap_remove(index);
                    self.start(member.role, Duration::ZERO, None);
                }
                Some(status) => anyhow::bail!("{} ended with {status}", self.fleet.members[index].owner),
                None => index += 1,
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, role: Role, after: Duration, then_ends: Option<String>) {
        let cast = self.cast.clone();
        self.starting.spawn(async move {
            sleep(after).await;
            let member = Member::spawn(&cast.url, &cast.line, &cast.work, role).await?;
            Ok((member.ready().await?, then_ends))
        });
    }

    /// Starts another, then tells this one to end.
    pub(super) async fn relieve(&mut self, owner: &str, role: Role) -> anyhow::Result<()> {
        let cast = self.cast.clone();
        let spawned = Member::spawn(&cast.url, &cast.line, &cast.work, role).await?;
        if let Ok(ready) = timeout(LOOK, spawned.ready()).await {
            self.fleet.members.push(ready?);
            return self.dismiss(owner);
        }
        // The store is away just now: it comes later.
        self.start(role, Duration::ZERO, Some(owner.to_owned()));
        Ok(())
    }

    fn dismiss(&mut self, owner: &str) -> anyhow::Result<()> {
        if let Some(mut member) = self.fleet.dismiss(owner)? {
            let poisoned = self.cast.poisoned;
            self.ending.spawn(async move {
                match member.end().await? {
                    status if status.success() => Ok(false),
                    // It had one in its hands when it was told to.
                    status if poisoned && died_of_poison(status) => Ok(true),
                    status => anyhow::bail!("{} ended with {status}", member.owner),
                }
            });
        }
        Ok(())
    }

    pub(super) async fn replace_all(&mut self) -> anyhow::Result<Done> {
        self.starting.shutdown().await;
        self.ending.shutdown().await;
        while self.fleet.kill(|_| true).await?.is_some() {}
        for (role, count) in [
            (Role::Sequencer, self.cast.sequencers),
            (Role::Processor, self.cast.processors),
        ] {
            for _ in 0..count {
                self.start(role, Duration::ZERO, None);
            }
        }
        Ok(Done::all("", Undo::Nothing))
    }

    /// Takes in who has started, and lets go of who has ended.
    pub(super) fn tend(&mut self) -> anyhow::Result<()> {
        while let Some(started) = self.starting.try_join_next() {
            self.enter(started??)?;
        }
        while let Some(ended) = self.ending.try_join_next() {
            self.note_end(ended??);
        }
        Ok(())
    }

    fn note_end(&mut self, died: bool) {
        if died {
            self.deaths.push(Instant::now());
        }
    }

    fn enter(&mut self, (member, relieved): (Member, Option<String>)) -> anyhow::Result<()> {
        self.fleet.members.push(member);
        relieved.map_or(Ok(()), |owner| self.dismiss(&owner))
    }

    /// Ends the fleet, which must end cleanly.
    pub(in super::super) async fn end(&mut self) -> anyhow::Result<()> {
        while let Some(started) = self.starting.join_next().await {
            self.enter(started??)?;
        }
        while let Some(ended) = self.ending.join_next().await {
            self.note_end(ended??);
        }
        std::mem::take(&mut self.fleet).stop().await
    }
}

/// Processes here abort at nothing else; and another signal is somebody else's.
fn died_of_poison(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal() == Some(Signal::ABORT.as_raw())
}
