//! Wake-ups: hints that there may be something to do.
//!
//! A hint says nothing but "look"; a lost one costs at most [`FALLBACK`], after which everybody looks anyway.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::sync::watch;

/// After this long without a hint everybody looks for themselves.
pub const FALLBACK: Duration = Duration::from_millis(100);

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// There may be something to claim.
    Input,
    /// There may be something to sequence.
    Processed,
    /// There may be something to receive; and the window may have moved.
    Output,
    /// The leadership may be free.
    Lock,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Input, Self::Processed, Self::Output, Self::Lock];

    /// The last part of the name of its channel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "in",
            Self::Processed => "processed",
            Self::Output => "out",
            Self::Lock => "lock",
        }
    }
}

/// Where a store gives its hints. Clones share their listeners.
#[derive(Debug, Clone)]
pub struct Wakes(Arc<[watch::Sender<()>; 4]>);

impl Default for Wakes {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| watch::Sender::new(()))))
    }
}

impl Wakes {
    /// Wakes everybody who listens for `topic`.
    pub fn wake(&self, topic: Topic) {
        self.0[topic as usize].send_replace(());
    }

    /// Wakes everybody.
    pub fn wake_all(&self) {
        Topic::ALL.into_iter().for_each(|topic| self.wake(topic));
    }

    /// Listens for any of `topics` from now on.
    pub fn listen(&self, topics: &[Topic]) -> Listener {
        Listener(topics.iter().map(|topic| self.0[*topic as usize].subscribe()).collect())
    }
}

/// Hears hints. One that comes while nobody waits is kept until somebody does.
#[derive(Debug)]
pub struct Listener(Vec<watch::Receiver<()>>);

impl Listener {
    /// Returns at the next hint, or after [`FALLBACK`]. Cancel-safe: a hint is not lost.
    pub async fn heard(&mut self) {
        self.heard_within(FALLBACK).await;
    }

    /// Returns at the next hint, or after `limit`. Cancel-safe: a hint is not lost.
    pub async fn heard_within(&mut self, limit: Duration) {
        if self.0.is_empty() {
            return tokio::time::sleep(limit).await;
        }
        let hint = select_all(self.0.iter_mut().map(|receiver| Box::pin(receiver.changed())));
        // An error says that the store is gone: then only the time is left.
        if let Ok((Err(_), ..)) = tokio::time::timeout(limit, hint).await {
            tokio::time::sleep(limit).await;
        }
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
}
