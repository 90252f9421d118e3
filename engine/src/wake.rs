//! Wake-ups: hints that there may be something to do.
//!
//! A hint says nothing but "look"; a lost one costs at most [`FALLBACK`], after which everybody looks anyway.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;
use tokio::time::Instant;

/// After this long without a hint everybody looks for themselves.
pub const FALLBACK: Duration = Duration::from_millis(100);

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// There may be something to claim.
    Input,
    /// There may be something to sequence.
    Processed,
    /// There may be something to receive.
    Output,
    /// The window has moved since a claim found it full; or may have.
    Window,
    /// The leadership may be free.
    Lock,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Input, Self::Processed, Self::Output, Self::Window, Self::Lock];

    /// The last part of the name of its channel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Processed => "processed",
            Self::Output => "out",
            Self::Window => "window",
            Self::Lock => "lock",
        }
    }
}

/// Where a store gives its hints. Clones share their listeners.
#[derive(Debug, Clone)]
pub struct Wakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hints: [watch::Sender<()>; Topic::ALL.len()],
    /// Which topics anybody has ever listened for. A store need not hear of the others.
    wanted: watch::Sender<[bool; Topic::ALL.len()]>,
}

impl Default for Wakes {
    fn default() -> Self {
        Self(Arc::new(Shared {
            hints: std::array::from_fn(|_| watch::Sender::new(())),
            wanted: watch::Sender::default(),
        }))
    }
}

impl Wakes {
    /// Wakes everybody who listens for `topic`.
    pub fn wake(&self, topic: Topic) {
        self.0.hints[topic as usize].send_replace(());
    }

    /// Wakes everybody.
    pub fn wake_all(&self) {
        for topic in Topic::ALL {
            self.wake(topic);
        }
    }

    /// Listens for any of `topics` from now on.
    pub fn listen(&self, topics: &[Topic]) -> Listener {
        self.0.wanted.send_if_modified(|wanted| {
            let before = *wanted;
            topics.iter().for_each(|topic| wanted[*topic as usize] = true);
            *wanted != before
        });
        Listener {
            hints: (topics.iter())
                .map(|topic| self.0.hints[*topic as usize].subscribe())
                .collect(),
            look_at: None,
        }
    }

    /// Which topics anybody has ever listened for, by [`Topic`].
    pub(crate) fn wanted(&self) -> watch::Receiver<[bool; Topic::ALL.len()]> {
        self.0.wanted.subscribe()
    }
}

/// Hears hints. One that comes while nobody waits is kept until somebody does.
#[derive(Debug)]
pub struct Listener {
    hints: Vec<watch::Receiver<()>>,
    /// When the wait that began and has not ended is over. A wait that is cancelled and begun again goes on.
    look_at: Option<Instant>,
}

impl Listener {
    /// Returns at the next hint, or [`FALLBACK`] after the wait began. Cancel-safe: no hint is lost, and a wait that
    /// is begun again ends when the first one would have.
    pub async fn heard(&mut self) {
        let look_at = *self.look_at.get_or_insert_with(|| Instant::now() + FALLBACK);
        tokio::select! {
            biased;
            () = any(&mut self.hints) => {}
            () = tokio::time::sleep_until(look_at) => {}
        }
        self.look_at = None;
    }

    /// Returns [`FALLBACK`] after the wait began, whatever the hints. Cancel-safe, as [`Listener::heard`].
    pub async fn looked(&mut self) {
        let look_at = *self.look_at.get_or_insert_with(|| Instant::now() + FALLBACK);
        tokio::time::sleep_until(look_at).await;
        self.look_at = None;
    }

    /// Returns at the next hint and not without one. Cancel-safe: no hint is lost.
    pub async fn hinted(&mut self) {
        any(&mut self.hints).await;
    }
}

/// The next change of any; none ever, if there is nobody left to change them.
async fn any(hints: &mut [watch::Receiver<()>]) {
    if hints.is_empty() {
        return std::future::pending().await;
    }
    if select_all(hints.iter_mut().map(|hint| Box::pin(hint.changed())))
        .await
        .0
        .is_err()
    {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hint_ends_the_wait_and_none_is_lost_between_waits() {
        let wakes = Wakes::default();
        let mut listener = wakes.listen(&[Topic::Input, Topic::Output]);
        wakes.wake(Topic::Output);
        let start = tokio::time::Instant::now();
        listener.heard().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        wakes.wake(Topic::Lock);
        listener.heard().await;
        assert_eq!(start.elapsed(), FALLBACK, "that was not for us");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_interrupted_again_and_again_ends_in_time() {
        let mut listener = Wakes::default().listen(&[Topic::Input]);
        let start = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = listener.heard() => break,
                () = tokio::time::sleep(FALLBACK / 3) => {}
            }
        }
        assert_eq!(start.elapsed(), FALLBACK);
    }
}
