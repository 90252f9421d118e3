//! Hints from everybody: a subscriber that forwards the line's channels to this store's [`Wakes`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::{PubSub, PubSubSink, PubSubStream};
use ::redis::{Client, RedisResult};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::keys::Keys;
use crate::wake::{Topic, Wakes};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After this long without a hint the connection is asked whether it is still there: a dead one says nothing either.
const QUIET: Duration = Duration::from_secs(1);

/// The running subscriber. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Hints {
    task: JoinHandle<()>,
    life: String,
    /// Whether the subscription stands, as far as is known here.
    subscribed: Arc<AtomicBool>,
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hints {
    /// Subscribes, and from then on stays subscribed as well as it can. It is no error if that does not work now or
    /// ever: without hints everybody looks every [`crate::wake::FALLBACK`].
    ///
    /// The subscription includes `life`, a channel of this process's own on which nobody ever says anything: that
    /// somebody listens to it tells the others that this process is there.
    pub(super) async fn start(client: Client, keys: &Keys, life: String, wakes: Wakes, limit: Duration) -> Self {
        let subscribed = Arc::new(AtomicBool::new(false));
        let subscriber = Subscriber {
            life: life.clone(),
            subscribed: subscribed.clone(),
            client,
            channels: Topic::ALL.map(|topic| (topic, keys.wake(topic).to_owned())),
            wakes,
            limit,
        };
        let first = subscriber.subscribe().await;
        Self {
            task: tokio::spawn(subscriber.run(first)),
            life,
            subscribed,
        }
    }

    /// The channel of this process's own; none, while there is no subscription to it.
    pub(super) fn life(&self) -> &str {
        if self.subscribed.load(Ordering::SeqCst) {
            &self.life
        } else {
            ""
        }
    }
}

struct Subscriber {
    client: Client,
    channels: [(Topic, String); 4],
    life: String,
    subscribed: Arc<AtomicBool>,
    wakes: Wakes,
    /// How long the server may take to answer.
    limit: Duration,
}

impl Subscriber {
    async fn run(self, mut subscription: Option<PubSub>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            if let Some(subscribed) = subscription {
                pause = SHORTEST_PAUSE;
                // Whatever was said while nobody listened.
                self.wakes.wake_all();
                let (sink, stream) = subscribed.split();
                self.forward(sink, stream).await;
                self.subscribed.store(false, Ordering::SeqCst);
            }
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
            subscription = self.subscribe().await;
        }
    }

    async fn subscribe(&self) -> Option<PubSub> {
        match timeout(self.limit, self.try_subscribe()).await {
            Ok(Ok(subscription)) => {
                self.subscribed.store(true, Ordering::SeqCst);
                Some(subscription)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "no subscription to the line's hints");
                None
            }
            Err(_) => {
                tracing::debug!("no subscription to the line's hints: the server does not answer");
                None
            }
        }
    }

    async fn try_subscribe(&self) -> RedisResult<PubSub> {
        let mut subscription = self.client.get_async_pubsub().await?;
        let mut channels: Vec<&str> = self.channels.iter().map(|(_, channel)| channel.as_str()).collect();
        channels.push(&self.life);
        subscription.subscribe(&channels).await?;
        Ok(subscription)
    }

    /// Forwards hints until the connection is gone.
    async fn forward(&self, mut sink: PubSubSink, mut stream: PubSubStream) {
        loop {
            match timeout(QUIET, stream.next()).await {
                Ok(Some(message)) => {
                    let name = message.get_channel_name();
                    if let Some((topic, _)) = self.channels.iter().find(|(_, channel)| channel == name) {
                        self.wakes.wake(*topic);
                    }
                }
                Ok(None) => return,
                Err(_) => match timeout(self.limit, sink.ping::<::redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                },
            }
        }
    }
}
