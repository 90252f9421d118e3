//! The network between the processes of a run and their Redis server: a proxy for each process.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Context as _;
use conga::store::StoreUrl;
use tokio::net::lookup_host;

use super::proxy::{Proxy, Weather};

/// All proxies, and the weather that all of them have.
#[derive(Debug)]
pub(crate) struct Network {
    url: StoreUrl,
    server: SocketAddr,
    proxies: Mutex<Proxies>,
}

#[derive(Debug, Default)]
struct Proxies {
    /// Those of processes that have ended are gone.
    all: Vec<Weak<Proxy>>,
    weather: Weather,
}

impl Network {
    /// In front of the server that `url` names. `None`: this store has no network that a proxy could stand in.
    pub(crate) async fn to(url: &StoreUrl) -> anyhow::Result<Option<Self>> {
        let StoreUrl::Redis(text) = url else { return Ok(None) };
        let Some((_, host, _)) = split(text) else {
            return Ok(None);
        };
        let host = if has_port(host) {
            host.to_owned()
        } else {
            format!("{host}:6379")
        };
        let server = lookup_host(&host)
            .await
            .with_context(|| format!("can't find {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        Ok(Some(Self {
            url: url.clone(),
            server,
            proxies: Mutex::default(),
        }))
    }

    /// A way to the server for one more process. It has the weather that all have.
    pub(crate) async fn join(&self) -> anyhow::Result<(Arc<Proxy>, StoreUrl)> {
        let proxy = Arc::new(Proxy::start(self.server).context("can't start a proxy")?);
        let weather = {
            let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
            proxies.all.retain(|proxy| proxy.strong_count() > 0);
            proxies.all.push(Arc::downgrade(&proxy));
            proxies.weather
        };
        proxy.set(weather).await?;
        let url = through(&self.url, &proxy.address().to_string()).context("a store without a network")?;
        Ok((proxy, url))
    }

    /// Changes the weather of all, those to come included.
    pub(crate) async fn set(&self, weather: Weather) -> anyhow::Result<()> {
        let all = {
            let mut proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
            proxies.weather = weather;
            proxies.all.clone()
        };
        for proxy in all.iter().filter_map(Weak::upgrade) {
            proxy.set(weather).await?;
        }
        Ok(())
    }

    /// Resets all connections of all. How many there were.
    pub(crate) fn reset(&self) -> usize {
        let proxies = self.proxies.lock().unwrap_or_else(PoisonError::into_inner);
        proxies
            .all
            .iter()
            .filter_map(Weak::upgrade)
            .map(|proxy| proxy.reset())
            .sum()
    }
}

/// The URL with another host and port.
fn through(url: &StoreUrl, address: &str) -> Option<StoreUrl> {
    let StoreUrl::Redis(text) = url else { return None };
    let (before, _, after) = split(text)?;
    Some(StoreUrl::Redis(format!("{before}{address}{after}")))
}

/// What stands before the host and port, they themselves, and what stands behind.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let authority = url.find("://")? + 3;
    let end = url[authority..].find(['/', '?']).map_or(url.len(), |at| authority + at);
    let host = url[authority..end]
        .rfind('@')
        .map_or(authority, |at| authority + at + 1);
    Some((&url[..host], &url[host..end], &url[end..]))
}

fn has_port(host: &str) -> bool {
    let name = host.rfind(']').map_or(0, |end| end + 1);
    host[name..].contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_is_another() {
        let redis = |url: &str| StoreUrl::Redis(url.to_owned());
        for (url, other) in [
            ("redis://h", "redis://127.0.0.1:9"),
            ("redis://h:6379/3", "redis://127.0.0.1:9/3"),
            (
                "redis://u:p@w@[::1]:1?protocol=resp3",
                "redis://u:p@w@127.0.0.1:9?protocol=resp3",
            ),
        ] {
            assert_eq!(through(&redis(url), "127.0.0.1:9"), Some(redis(other)));
        }
        assert!(has_port("[::1]:1") && !has_port("[::1]") && has_port("h:1") && !has_port("h"));
        assert_eq!(through(&StoreUrl::Sqlite("x".into()), "127.0.0.1:9"), None);
    }
}
