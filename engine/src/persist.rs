//! Calls to a store: one that is on its way, and going on trying while the store is away.

use std::future::Future;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::random::Random;
use crate::store::StoreError;
use futures_util::future::BoxFuture;

/// The longest pause between two attempts: what is away for long is found again so soon.
const LONGEST_DELAY: Duration = Duration::from_millis(200);

/// Why a call has no answer.
pub(crate) trait Trouble: std::fmt::Display {
    /// Who was asked, as the beginning of a sentence.
    const WHO: &'static str;

    /// Whether trying again can help.
    fn is_passing(&self) -> bool;
}

impl Trouble for StoreError {
    const WHO: &'static str = "the store";

    fn is_passing(&self) -> bool {
        self.is_passing()
    }
}

/// The answer of a call that is on its way; without one, never. Cancel-safe.
pub(crate) async fn answer<T>(call: &mut Option<BoxFuture<'static, T>>) -> T {
    match call {
        Some(future) => {
            let value = future.await;
            *call = None;
            value
        }
        None => std::future::pending().await,
    }
}

/// Repeats `step` until it succeeds or can't any more. Waits in between, from some 10 ms growing to a fifth
/// of a second at most, each process at times of its own. Tells
/// `trouble` of each failure that will be tried again. Only for steps that may be repeated (law 4).
pub(crate) async fn persist<T, E, F>(
    what: &'static str,
    random: &Random,
    mut step: impl FnMut() -> F,
    mut trouble: impl FnMut(&E),
) -> Result<T, E>
where
    E: Trouble,
    F: Future<Output = Result<T, E>>,
{
    let mut delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(10))
        .with_max_delay(LONGEST_DELAY / 2)
        .without_max_times()
        // It adds up to the whole delay. Without a seed every process would draw the same.
        .with_jitter()
        .with_jitter_seed(random.draw())
        .build();
    let mut failures = 0_u32;
    loop {
        match step().await {
            Ok(value) => {
                if failures > 0 {
                    tracing::info!(what, failures, "{} answers again", E::WHO);
                }
                return Ok(value);
            }
            Err(error) if error.is_passing() => {
                if failures == 0 {
                    tracing::warn!(what, %error, "{} does not answer; trying again until it does", E::WHO);
                }
                failures += 1;
                trouble(&error);
                tokio::time::sleep(delays.next().unwrap_or(LONGEST_DELAY)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_on_while_it_may_help_and_not_longer() {
        let mut answers = vec![
            Err(StoreError::Broken("no".to_owned())),
            Ok(1),
            Err(StoreError::Unknown("late".to_owned())),
            Err(StoreError::Unavailable("away".to_owned())),
        ];
        let mut troubles = 0;
        let mut step = || {
            let answer = answers.pop().expect("an answer is left");
            async move { answer }
        };
        assert_eq!(
            persist("test", &Random::System, &mut step, |_| troubles += 1).await,
            Ok(1)
        );
        assert_eq!(troubles, 2);
        assert!(matches!(
            persist("test", &Random::System, &mut step, |_| ()).await,
            Err(StoreError::Broken(_))
        ));
    }
}
