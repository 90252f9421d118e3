//! Hints from everybody: a subscriber that forwards the line's channels to this store's [`Wakes`].
//!
//! It follows the commands: each time they get a new connection, it subscribes anew at the same server. So hints are
//! heard where they are given, and that somebody listens is seen where it is asked. Now and then it looks whether the
//! primary is still where the commands go.
//!
//! Of the line's channels it hears those that somebody here listens for, from the first time on: each other one would wake
//! this process, and cost the server a write, for nothing.
//!
//! In a cluster that has them, and lets this user, by sharded channels: plain ones would go to every node of it. Which it is
//! the server decides, and so alike for all. Where somebody is refused them all the same, or is of a version before, a
//! plain hint is heard by all, and the name of the channel by which a process is seen to be alive says how to ask for it.

use std::collections::HashSet;
use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::connection::Connection;
use super::failure;
use super::keys::Keys;
use super::node::Node;
use super::subscription::{Channels, Subscription};
use crate::store::StoreError;
use crate::wake::{Topic, Wakes};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After this long without a hint the connection is asked whether it is still there: a dead one says nothing either.
const QUIET: Duration = Duration::from_secs(1);
/// So often it is looked whether the primary is another one, whose predecessor does not know it.
const LOOK: Duration = Duration::from_secs(1);

/// What stands: the subscription, and the channel of this process's own in it.
#[derive(Debug, Clone)]
struct Standing {
    /// Of the connection for commands for which it was made.
    number: u64,
    life: String,
    /// Who is shown to be there by it.
    shown: HashSet<String>,
    /// One of them was taken for dead: maybe nobody knows of this any more.
    is_doubted: bool,
}

/// The running subscriber. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Hints {
    task: JoinHandle<()>,
    standing: Arc<Mutex<Option<Standing>>>,
    doubt: Arc<Notify>,
    nodes: watch::Receiver<Option<Arc<Node>>>,
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
    /// The subscription includes a channel of this process's own, for `process`, on which nobody ever says anything:
    /// that somebody listens to it tells the others that this process is there.
    pub(super) async fn start(
        connection: Arc<Connection>,
        keys: &Keys,
        process: String,
        wakes: Wakes,
        limit: Duration,
    ) -> Self {
        let standing = Arc::new(Mutex::new(None));
        let doubt = Arc::new(Notify::new());
        let nodes = connection.node();
        let mut subscriber = Subscriber {
            connection,
            keys: keys.clone(),
            process,
            standing: standing.clone(),
            doubt: doubt.clone(),
            nodes: nodes.clone(),
            wanted: wakes.wanted(),
            wakes,
            limit,
            is_refused: false,
        };
        let first = match subscriber.node() {
            Some(node) => subscriber.subscribe(&node).await,
            None => None,
        };
        Self {
            task: tokio::spawn(subscriber.run(first)),
            standing,
            doubt,
            nodes,
        }
    }

    /// By which channels hints are to be given where the commands go.
    pub(super) fn channels(&self) -> Channels {
        let node = self.nodes.borrow();
        node.as_ref().map_or(Channels::Plain, |node| node.channels())
    }

    /// An owner is shown to be there, by the channel of this process, and was not before. If it was by what this one knows, it was
    /// taken for dead; and if the end of the subscription was lost on the way, that would go on: so it is shown by no channel
    /// any more until the server has answered on it.
    pub(super) fn shown(&self, owner: &str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = &mut *standing
            && !standing.shown.insert(owner.to_owned())
        {
            standing.is_doubted = true;
            standing.shown.clear();
            self.doubt.notify_one();
        }
    }

    /// An owner has left.
    pub(super) fn forget(&self, owner: &str) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = &mut *standing {
            standing.shown.remove(owner);
        }
    }

    /// The channel of this process's own; none, while there is no subscription to it where the commands go.
    pub(super) fn life(&self) -> String {
        let number = self.nodes.borrow().as_ref().map(|node| node.number);
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = (standing.as_ref()).filter(|standing| Some(standing.number) == number && !standing.is_doubted);
        standing.map(|standing| standing.life.clone()).unwrap_or_default()
    }
}

struct Subscriber {
    connection: Arc<Connection>,
    keys: Keys,
    process: String,
    standing: Arc<Mutex<Option<Standing>>>,
    doubt: Arc<Notify>,
    nodes: watch::Receiver<Option<Arc<Node>>>,
    wanted: watch::Receiver<[bool; Topic::ALL.len()]>,
    wakes: Wakes,
    /// How long the server may take to answer.
    limit: Duration,
    /// Whether sharded channels were ever refused.
    is_refused: bool,
}

/// A subscription, and the number of the connection for commands for which it was made.
struct Subscribed {
    number: u64,
    subscription: Subscription,
    topics: [bool; Topic::ALL.len()],
}

impl Subscriber {
    async fn run(mut self, mut current: Option<Subscribed>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            if let Some(subscribed) = &mut current {
                pause = SHORTEST_PAUSE;
                // Whatever was said while nobody listened.
                self.wakes.wake_all();
                if self.forward(subscribed).await == Ended::Lost {
                    self.stand(None);
                    current = None;
                    sleep(pause).await;
                }
            } else {
                tokio::select! {
                    () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                    () = changed(&mut self.nodes) => pause = SHORTEST_PAUSE,
                }
            }
            // The old one stands until the new one does: where it is the same server, nobody is missed meanwhile.
            let Some(node) = self.node() else { continue };
            if current
                .as_ref()
                .is_none_or(|subscribed| subscribed.number != node.number)
            {
                current = self.subscribe(&node).await;
            }
        }
    }

    /// Where the commands go now.
    fn node(&mut self) -> Option<Arc<Node>> {
        self.nodes.borrow_and_update().clone()
    }

    fn stand(&self, standing: Option<Standing>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The server has answered on the subscription.
    fn is_there(&self) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(standing) = &mut *standing {
            standing.is_doubted = false;
        }
    }

    /// By sharded channels where the node has them, else, or where they are refused, by plain ones.
    async fn subscribe(&mut self, node: &Node) -> Option<Subscribed> {
        let subscribed = match self.subscribe_by(node.channels(), node).await {
            Err(StoreError::Broken(error)) if node.channels() == Channels::Sharded => {
                let subscribed = self.subscribe_by(Channels::Plain, node).await;
                if subscribed.is_ok() {
                    node.refuses_sharded();
                    if !std::mem::replace(&mut self.is_refused, true) {
                        tracing::info!(
                            %error,
                            "hints go to all nodes of the cluster, as sharded channels are refused: allow the Redis user \
                             SSUBSCRIBE, SUNSUBSCRIBE and SPUBLISH"
                        );
                    }
                }
                subscribed
            }
            subscribed => subscribed,
        };
        let report = |error: &StoreError| tracing::debug!(%error, "no subscription to the line's hints");
        subscribed.inspect_err(report).ok()
    }

    async fn subscribe_by(&self, channels: Channels, node: &Node) -> Result<Subscribed, StoreError> {
        let life = self.keys.life(channels, &node.run, &self.process);
        let topics = *self.wanted.borrow();
        let subscribed = tokio::select! {
            subscribed = timeout(self.limit, self.try_subscribe(channels, node, &life, topics)) => subscribed,
            () = node.gone.cancelled() => return Err(unavailable("the primary is another one by now")),
        };
        let (subscription, is_there) = subscribed.map_err(|_| unavailable("the server does not answer"))??;
        self.stand((is_there && !node.run.is_empty()).then_some(Standing {
            number: node.number,
            life,
            shown: HashSet::new(),
            is_doubted: false,
        }));
        Ok(Subscribed {
            number: node.number,
            subscription,
            topics,
        })
    }

    /// The subscription, and whether it is where the commands go: the name is resolved anew for it, and another server
    /// may stand behind it. Who is asked whether somebody is alive would not see it there.
    async fn try_subscribe(
        &self,
        channels: Channels,
        node: &Node,
        life: &str,
        topics: [bool; Topic::ALL.len()],
    ) -> Result<(Subscription, bool), StoreError> {
        // The old subscription may still be at the right server, and has the other channels too.
        let proof = format!("{life}:{}", uuid::Uuid::new_v4().simple());
        let subscribe = async {
            let mut subscription = Subscription::open(&node.client, channels, self.limit).await?;
            let hints: Vec<&str> = chosen(topics).map(|topic| self.keys.wake(topic)).collect();
            if !hints.is_empty() {
                subscription.hear(&hints).await?;
            }
            subscription.show(&[life, &proof]).await?;
            Ok(subscription)
        };
        let refused = |error| failure::of_connecting(&error);
        let mut subscription = subscribe.await.map_err(refused)?;
        let is_there = channels.are_heard(&self.connection, node, &proof).await?;
        subscription.leave(&proof).await.map_err(refused)?;
        Ok((subscription, is_there))
    }

    /// Subscribes to what somebody listens for since.
    async fn subscribe_more(&self, subscribed: &mut Subscribed) -> Result<(), Ended> {
        let wanted = *self.wanted.borrow();
        let new: Vec<Topic> = chosen(wanted)
            .filter(|topic| !subscribed.topics[*topic as usize])
            .collect();
        let channels: Vec<&str> = new.iter().map(|topic| self.keys.wake(*topic)).collect();
        match timeout(self.limit, subscribed.subscription.hear(&channels)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Ended::Lost),
        }
        subscribed.topics = wanted;
        // Whatever was said while nobody listened.
        new.iter().for_each(|topic| self.wakes.wake(*topic));
        Ok(())
    }

    /// Forwards hints until the connection is gone or the commands go elsewhere.
    async fn forward(&mut self, subscribed: &mut Subscribed) -> Ended {
        let mut look_at = Instant::now() + LOOK;
        let mut ask_at = Instant::now() + QUIET;
        loop {
            if *self.wanted.borrow_and_update() != subscribed.topics && self.subscribe_more(subscribed).await.is_err() {
                return Ended::Lost;
            }
            let heard = tokio::select! {
                biased;
                () = sleep_until(look_at) => {
                    let node = self.nodes.borrow().clone();
                    if let Some(node) = node {
                        self.connection.glance(&node).await;
                    }
                    // From now: a glance that took longer than that would be due again before anything is heard.
                    look_at = Instant::now() + LOOK;
                    continue;
                }
                heard = timeout_at(ask_at, subscribed.subscription.next()) => heard.ok(),
                () = self.doubt.notified() => None,
                () = changed(&mut self.nodes) => {
                    match self.nodes.borrow().as_ref() {
                        Some(node) if node.number != subscribed.number => return Ended::Moved,
                        _ => continue,
                    }
                }
                Ok(()) = self.wanted.changed() => continue,
            };
            match heard {
                Some(Some(name)) => {
                    if let Some(topic) = Topic::ALL.into_iter().find(|topic| self.keys.wake(*topic) == name) {
                        self.wakes.wake(topic);
                    }
                }
                Some(None) => return Ended::Lost,
                None => match timeout(self.limit, subscribed.subscription.ping()).await {
                    Ok(Ok(())) => self.is_there(),
                    Ok(Err(_)) | Err(_) => return Ended::Lost,
                },
            }
            ask_at = Instant::now() + QUIET;
        }
    }
}

fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}

fn chosen(topics: [bool; Topic::ALL.len()]) -> impl Iterator<Item = Topic> {
    Topic::ALL.into_iter().filter(move |topic| topics[*topic as usize])
}

/// Why a subscription is of no use any more.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Lost,
    Moved,
}

/// Returns when the commands go elsewhere, or nowhere.
async fn changed(nodes: &mut watch::Receiver<Option<Arc<Node>>>) {
    if nodes.changed().await.is_err() {
        // The store is gone, and this with it in a moment.
        pending::<()>().await;
    }
}
