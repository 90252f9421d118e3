//! Where the primary is now.
//!
//! All that a partition needs is in one slot, and so on one primary: it takes no client for a whole cluster, nor one
//! that keeps connections to sentinels, only an answer to this question whenever the connection is lost or refused.
//! Whoever may know is asked at the same time, so that those who are dead cost nothing, and what they tell of others
//! is remembered, so that those named in the URL may all be gone one day.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::{Client, Cmd, Pipeline, RedisError, Value};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout, timeout_at};

use super::node::{self, Limits};
use super::patience::Patience;
use super::reply::{self, Items};
use super::target::{Address, Kind, Target};
use super::{failure, slot};
use crate::store::{Result, StoreError};

/// So many are asked at once.
const ASKED: usize = 8;
/// So many are remembered.
const REMEMBERED: usize = 64;
/// After the first answer the others are waited for so long, at least: one that was away may be behind the times.
const GRACE: Duration = Duration::from_millis(50);

/// Finds the primary, again and again.
#[derive(Debug)]
pub(super) struct Resolver {
    target: Target,
    slot: u16,
    known: Mutex<Known>,
    patience: Patience,
}

#[derive(Debug)]
struct Known {
    /// Whom to ask, the best first.
    nodes: Vec<Address>,
    /// Where the last one that was asked for something sent us.
    moved: Option<Address>,
    /// Whether there was ever a primary.
    found: bool,
    /// Whose turn it is to be asked alone.
    turn: usize,
}

/// What one of them says.
struct Word {
    primary: Option<Address>,
    /// Whom else to ask from now on.
    others: Vec<Address>,
}

impl Resolver {
    /// For the partition with the hash tag `tag`.
    pub(super) fn new(target: Target, tag: &str, limits: Limits) -> Self {
        let nodes = match &target.kind {
            Kind::Server(address) => vec![address.clone()],
            Kind::Sentinel { seeds, .. } | Kind::Cluster { seeds } => seeds.clone(),
        };
        Self {
            target,
            slot: slot::of_tag(tag),
            known: Mutex::new(Known {
                nodes,
                moved: None,
                found: false,
                turn: 0,
            }),
            patience: Patience::new(limits.connection + limits.response),
        }
    }

    /// Whether the primary may be another one tomorrow.
    pub(super) fn is_movable(&self) -> bool {
        !matches!(self.target.kind, Kind::Server(_))
    }

    /// Whether the slot is one of a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.target.kind, Kind::Cluster { .. })
    }

    pub(super) fn client(&self, address: &Address) -> Result<Client> {
        self.target.client(address)
    }

    /// A server says that the slot is at `address` now.
    pub(super) fn moved(&self, address: Address) {
        self.with_known(|known| known.moved = Some(address));
    }

    /// A primary was found.
    pub(super) fn found(&self) {
        self.with_known(|known| known.found = true);
    }

    /// Whether one of those who may know, each time another one, names a primary other than `address`.
    pub(super) async fn suspects(&self, address: &Address) -> bool {
        let asked = self.with_known(|known| {
            known.turn = known.turn.wrapping_add(1);
            // In a cluster the primary knows itself; that does not count.
            let others: Vec<&Address> = known.nodes.iter().filter(|node| *node != address).take(ASKED).collect();
            (!others.is_empty()).then(|| others[known.turn % others.len()].clone())
        });
        let Some(asked) = asked else { return false };
        let word = match &self.target.kind {
            Kind::Server(_) => return false,
            Kind::Sentinel { name, .. } => self.ask_sentinel(&asked, name).await,
            Kind::Cluster { .. } => self.ask_node(&asked).await,
        };
        word.is_ok_and(|word| word.primary.is_some_and(|primary| primary != *address))
    }

    /// Where the primary should be, the most likely place first; never nowhere.
    pub(super) async fn places(&self) -> Result<Vec<Address>> {
        let (nodes, moved) = self.with_known(|known| (known.nodes.clone(), known.moved.take()));
        if let Some(address) = moved {
            return Ok(vec![address]);
        }
        let mut trouble = None;
        match &self.target.kind {
            Kind::Server(address) => return Ok(vec![address.clone()]),
            Kind::Sentinel { name, .. } => {
                for nodes in nodes.chunks(ASKED) {
                    let asked = nodes.iter().map(|node| self.ask_sentinel(node, name));
                    if let Some(places) = self.heed(asked, &mut trouble).await {
                        return Ok(places);
                    }
                }
            }
            Kind::Cluster { .. } => {
                for nodes in nodes.chunks(ASKED) {
                    let asked = nodes.iter().map(|node| self.ask_node(node));
                    if let Some(places) = self.heed(asked, &mut trouble).await {
                        return Ok(places);
                    }
                }
            }
        }
        self.patience.was_too_short();
        match trouble {
            // One who has served before does not become useless by a wrong word of one of the others.
            Some(StoreError::Broken(text)) if self.with_known(|known| known.found) => {
                Err(StoreError::Unavailable(text))
            }
            Some(error) => Err(error),
            None => Err(StoreError::Unavailable("nobody knows where the primary is".to_owned())),
        }
    }

    /// Takes the answers of some that were asked: the places by how many name them. Nothing, if nobody names one.
    async fn heed(
        &self,
        asked: impl Iterator<Item = impl Future<Output = Result<Word>>>,
        trouble: &mut Option<StoreError>,
    ) -> Option<Vec<Address>> {
        let mut places: Vec<(usize, Address)> = Vec::new();
        for answer in gather(asked, self.patience.limit()).await {
            let word = match answer {
                Ok(word) => word,
                Err(error) => {
                    // What a person has to mend says more than that one of them is away.
                    if !matches!(trouble, Some(StoreError::Broken(_))) {
                        *trouble = Some(error);
                    }
                    continue;
                }
            };
            self.remember(word.others);
            let Some(primary) = word.primary else { continue };
            match places.iter_mut().find(|(_, place)| *place == primary) {
                Some((votes, _)) => *votes += 1,
                None => places.push((1, primary)),
            }
        }
        places.sort_by_key(|(votes, _)| std::cmp::Reverse(*votes));
        let places: Vec<Address> = places.into_iter().map(|(_, place)| place).collect();
        (!places.is_empty()).then_some(places)
    }

    /// Those that are new come first: what a URL names may be long gone.
    fn remember(&self, others: Vec<Address>) {
        let seeds = match &self.target.kind {
            Kind::Server(_) => return,
            Kind::Sentinel { seeds, .. } | Kind::Cluster { seeds } => seeds,
        };
        self.with_known(|known| {
            for other in others.into_iter().rev() {
                if !known.nodes.contains(&other) {
                    known.nodes.insert(0, other);
                }
            }
            while known.nodes.len() > REMEMBERED.max(seeds.len()) {
                let Some(last) = known.nodes.iter().rposition(|node| !seeds.contains(node)) else {
                    break;
                };
                known.nodes.remove(last);
            }
        });
    }

    /// One who did not answer is asked last from now on.
    fn demote(&self, address: &Address) {
        self.with_known(|known| {
            if let Some(at) = known.nodes.iter().position(|node| node == address) {
                let node = known.nodes.remove(at);
                known.nodes.push(node);
            }
        });
    }

    fn with_known<T>(&self, what: impl FnOnce(&mut Known) -> T) -> T {
        what(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask_sentinel(&self, address: &Address, name: &str) -> Result<Word> {
        let mut questions = ::redis::pipe();
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        questions.cmd("SENTINEL").arg("SENTINELS").arg(name);
        let mut answers = self
            .ask(address, &self.target.sentinel(address, false)?, &questions)
            .await?;
        if let Some(Value::ServerError(error)) = answers.first()
            && error.code() == "NOAUTH"
        {
            answers = self
                .ask(address, &self.target.sentinel(address, true)?, &questions)
                .await?;
        }
        let mut answers = answers.into_iter();
        let place = match answers.next() {
            Some(Value::ServerError(error)) => return Err(no_sentinel(address, &error.into())),
            place => place.unwrap_or(Value::Nil),
        };
        let mut place = Items::of(place)?;
        if place.is_empty() {
            return Err(StoreError::Broken(format!(
                "the sentinel at {address} knows no primary by the name of `{name}`: put the name that is in its \
                 configuration (`sentinel monitor NAME …`) behind the hosts of the URL"
            )));
        }
        let primary = Address {
            host: place.text()?,
            port: place.number()?,
        };
        let mut others = Vec::new();
        if let Some(Value::Array(sentinels)) = answers.next() {
            others.extend(
                sentinels
                    .into_iter()
                    .filter_map(|sentinel| fellow(sentinel).ok().flatten()),
            );
        }
        Ok(Word {
            primary: Some(primary),
            others,
        })
    }

    async fn ask_node(&self, address: &Address) -> Result<Word> {
        let mut question = ::redis::pipe();
        question.cmd("CLUSTER").arg("SLOTS");
        let mut answers = self.ask(address, &self.target.client(address)?, &question).await?;
        let ranges = match answers.pop() {
            Some(Value::ServerError(error)) => return Err(no_cluster(address, &error.into())),
            ranges => Items::of(ranges.unwrap_or(Value::Nil))?,
        };
        let mut word = Word {
            primary: None,
            others: Vec::new(),
        };
        each(ranges, |mut range| {
            let (first, last): (u16, u16) = (range.number()?, range.number()?);
            let mut is_primary = true;
            each(range, |mut node| {
                let host = node.optional_text()?.unwrap_or_default();
                let port = node.number()?;
                // `?` is what a node says of one whose name it does not know yet; nothing means itself.
                let host = if host.is_empty() { address.host.clone() } else { host };
                if host != "?" {
                    let node = Address { host, port };
                    if is_primary && (first..=last).contains(&self.slot) {
                        word.primary = Some(node.clone());
                    }
                    word.others.push(node);
                }
                is_primary = false;
                Ok(())
            })
        })?;
        if word.primary.is_none() {
            let slot = self.slot;
            return Err(StoreError::Unavailable(format!(
                "no node of the cluster serves slot {slot}"
            )));
        }
        Ok(word)
    }

    /// The answers to some questions, errors among them.
    async fn ask(&self, address: &Address, client: &Client, questions: &Pipeline) -> Result<Vec<Value>> {
        let limit = self.patience.limit();
        let limits = Limits {
            connection: limit,
            response: limit,
        };
        let ask = async {
            let mut connection = node::open(client, limits).await?;
            let mut questions = questions.clone();
            let answers = questions.ignore_errors().query_async(&mut connection).await;
            answers.map_err(|error| failure::of_connecting(&error))
        };
        let started = Instant::now();
        match timeout(limit, ask).await {
            Ok(Ok(answers)) => {
                self.patience.took(started.elapsed());
                Ok(answers)
            }
            Ok(Err(error)) => {
                self.demote(address);
                Err(error)
            }
            Err(_) => {
                self.demote(address);
                Err(StoreError::Unavailable(format!("{address} does not answer")))
            }
        }
    }
}

/// One of the rows of SENTINEL SENTINELS: names and values in turn.
fn fellow(sentinel: Value) -> Result<Option<Address>> {
    let mut fields = Items::of(sentinel)?;
    let (mut host, mut port) = (None, None);
    while !fields.is_empty() {
        let (name, value) = (fields.text()?, fields.value()?);
        match name.as_str() {
            "ip" => host = reply::text(value).ok(),
            "port" => port = reply::number(&value).ok(),
            _ => {}
        }
    }
    Ok(host.zip(port).map(|(host, port)| Address { host, port }))
}

fn each(mut list: Items, mut what: impl FnMut(Items) -> Result<()>) -> Result<()> {
    while !list.is_empty() {
        what(list.items()?)?;
    }
    Ok(())
}

/// What it means if SENTINEL is refused.
fn no_sentinel(address: &Address, error: &RedisError) -> StoreError {
    if error.to_string().to_lowercase().contains("unknown command") {
        return StoreError::Broken(format!(
            "{address} is no sentinel: redis+sentinel:// names the sentinels (port 26379), redis:// a server"
        ));
    }
    failure::of_connecting(error)
}

/// What it means if CLUSTER is refused.
fn no_cluster(address: &Address, error: &RedisError) -> StoreError {
    if error.to_string().contains("cluster support disabled") {
        return StoreError::Broken(format!(
            "{address} is no node of a cluster: use redis:// for a single server"
        ));
    }
    failure::of_connecting(error)
}

/// The answers that come within `limit`, and not much later than the first good one.
async fn gather<T>(asked: impl Iterator<Item = impl Future<Output = Result<T>>>, limit: Duration) -> Vec<Result<T>> {
    let mut asking: FuturesUnordered<_> = asked.collect();
    let started = Instant::now();
    // Each has a limit of its own; this one is for what they all forget.
    let mut end = started + limit * 2;
    let mut answers = Vec::new();
    let mut first = true;
    while let Ok(Some(answer)) = timeout_at(end, asking.next()).await {
        if answer.is_ok() && std::mem::take(&mut first) {
            end = end.min(Instant::now() + GRACE.max(started.elapsed()));
        }
        answers.push(answer);
    }
    answers
}

/// A command that a node takes although the slot is still on its way to it.
pub(super) fn asking(command: &Cmd) -> Pipeline {
    let mut both = ::redis::pipe();
    both.cmd("ASKING").ignore();
    both.add_command(command.clone());
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_costs_no_more_than_the_grace() {
        let started = Instant::now();
        let ask = |delay_ms: u64| async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            Ok(delay_ms)
        };
        let answers = gather(
            [10_000, 5, 40, 10_000].into_iter().map(ask),
            super::super::patience::LEAST,
        )
        .await;
        assert_eq!(answers, [Ok(5), Ok(40)]);
        assert!(
            started.elapsed() <= Duration::from_millis(5) + GRACE,
            "{:?}",
            started.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_refuse_end_no_wait() {
        let ask = |delay_ms: u64| async move {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            if delay_ms == 0 {
                return Err(StoreError::Unavailable("refused".to_owned()));
            }
            Ok(delay_ms)
        };
        let answers = gather([0, 200].into_iter().map(ask), super::super::patience::LEAST).await;
        assert_eq!(answers.last(), Some(&Ok(200)));
    }
}
