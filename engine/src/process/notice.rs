//! What a person reads about the control of the line: once for each change.
//!
//! A claim does not tell why it brought nothing (ADR 23). So a processor that gets nothing asks now and then, and one that
//! has said that the line is held back asks until it goes on.

use std::time::Duration;

use conga_core::partition::{Control, Flow, Status};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::persist::answer;
use crate::store::{Result, SharedStore};

/// How often it asks.
const LOOK: Duration = Duration::from_secs(1);

/// What was said last, and the question that is on its way.
pub(super) struct Notice {
    flow: Flow,
    look_at: Instant,
    looking: Option<BoxFuture<'static, Result<Status>>>,
}

impl Notice {
    /// The line runs, for all that was said.
    pub(super) fn new() -> Self {
        Self {
            flow: Flow::Running,
            look_at: Instant::now(),
            looking: None,
        }
    }

    /// A claim has brought something, or nothing.
    pub(super) fn claimed(&mut self, something: bool, store: &SharedStore) {
        let is_quiet = something && self.flow == Flow::Running;
        if is_quiet || self.looking.is_some() || Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + LOOK;
        let store = store.clone();
        self.looking = Some(Box::pin(async move { store.status().await }));
    }

    /// Waits for an answer, and says what is news; never returns without a question. Cancel-safe.
    pub(super) async fn heard(&mut self) {
        // Others say that the store does not answer.
        if let Ok(status) = answer(&mut self.looking).await
            && self.is_news(&status.control)
        {
            say(&status.control);
        }
    }

    fn is_news(&mut self, control: &Control) -> bool {
        std::mem::replace(&mut self.flow, control.flow) != control.flow
    }
}

fn say(control: &Control) {
    let since = control.since;
    match control.flow {
        Flow::Running => tracing::info!(%since, "the line goes on"),
        Flow::Draining => tracing::info!(%since, "the line is draining: only what was begun is handed out"),
        Flow::Paused => {
            tracing::info!(%since, "the line is paused: nothing is handed out until `conga resume`");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conga_core::partition::ControlRequest;

    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn each_change_is_news_once() {
        let mut notice = Notice {
            flow: Flow::Running,
            look_at: Instant::now(),
            looking: None,
        };
        let flows = [
            (Flow::Running, false),
            (Flow::Draining, true),
            (Flow::Draining, false),
            (Flow::Paused, true),
            (Flow::Paused, false),
            (Flow::Running, true),
            (Flow::Running, false),
        ];
        for (flow, news) in flows {
            let control = Control {
                flow,
                ..Control::default()
            };
            assert_eq!(notice.is_news(&control), news, "{flow:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_nothing_asks_once_a_second_and_who_gets_something_not_at_all() {
        let store: SharedStore = Arc::new(MemoryStore::default());
        let mut notice = Notice::new();
        notice.claimed(true, &store);
        assert!(notice.looking.is_none());
        store.control(&ControlRequest::Flow(Flow::Paused)).await.unwrap();
        notice.claimed(false, &store);
        notice.heard().await;
        assert_eq!(notice.flow, Flow::Paused);
        for something in [true, false] {
            notice.claimed(something, &store);
            assert!(notice.looking.is_none(), "that was just asked");
        }
        tokio::time::advance(LOOK).await;
        store.control(&ControlRequest::Flow(Flow::Running)).await.unwrap();
        // It was said that the line is paused, so that it goes on has to be said too.
        notice.claimed(true, &store);
        notice.heard().await;
        assert_eq!(notice.flow, Flow::Running);
    }
}
