//! Connections: a bounded pool of them, made as the URL says.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{Host, LoadBalanceHosts, TargetSessionAttrs};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, NoTls, Socket};

use super::failure::{self, Why};
use super::tls::{self, Trust};
use crate::ledger::{LedgerError, Result};

/// So many connections a process has at most: one for each batch on its way, and some for who looks.
const CONNECTIONS: usize = 6;
/// How long a server may take to take a connection and the login.
const CONNECT: Duration = Duration::from_secs(3);
/// How long what was sent may stay unacknowledged by the other machine: then the way is dead, whatever it seems.
const SILENCE: Duration = Duration::from_secs(5);
/// How long a statement may take. A server that works at it is not hurried; one that hangs is left.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How long the server may work at a statement: it has to end before whoever asked goes away, or each repetition leaves one
/// more behind that waits, as for a lock.
const STATEMENT: Duration = PATIENCE.saturating_sub(Duration::from_secs(2));

/// Connections to one database.
pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    /// For people: hosts and the database.
    name: String,
}

impl fmt::Debug for Pool {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Pool {
    /// Reads the URL. Nothing is connected yet.
    pub(super) fn to(url: &str) -> Result<Self> {
        Self::of(url, CONNECTIONS, Some(PATIENCE))
    }

    /// The same, with so many connections at most, of which one may be waited for so long.
    pub(super) fn of(url: &str, connections: usize, wait: Option<Duration>) -> Result<Self> {
        let (config, trust) = configure(url)?;
        let name = name(&config);
        // The config's own limit is of TCP only: what is taken and not answered after that would be waited for for ever. It is
        // of each host, and the last of them has to have its turn.
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(1).max(1);
        let create = config.get_connect_timeout().copied().unwrap_or(CONNECT) * hosts;
        let recycle = ManagerConfig {
            // Whether it is closed; whatever else is wrong with it, the next statement tells, and is repeated.
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match tls::connector(&trust)? {
            Some(tls) => Manager::from_connect(config, Limited(tls), recycle),
            None => Manager::from_connect(config, Limited(NoTls), recycle),
        };
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(connections)
            .create_timeout(Some(create))
            .recycle_timeout(Some(CONNECT))
            .wait_timeout(wait)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| LedgerError::Broken(error.to_string()))?;
        Ok(Self { pool, name })
    }

    /// A connection of one's own, for a while. Waits for one to be free, but not for ever.
    pub(super) async fn take(&self) -> Result<Connection> {
        match self.pool.get().await {
            Ok(object) => Ok(Connection(object)),
            Err(error) => Err(failure::of_pool(&self.name, &error)),
        }
    }

    /// What an error means here.
    pub(super) fn failed(&self, error: &Error) -> LedgerError {
        failure::of(&self.name, error)
    }
}

/// What a URL asks for, completed by what it does not say.
fn configure(url: &str) -> Result<(Config, Trust)> {
    let (url, trust) = Trust::read(url)?;
    let mut config = Config::from_str(&url).map_err(|error| {
        LedgerError::Broken(format!(
            "{error}: a record's URL looks like postgres://user:password@host:5432/database"
        ))
    })?;
    // What is left of a password that holds one itself.
    if config
        .get_hosts()
        .iter()
        .any(|host| matches!(host, Host::Tcp(host) if host.contains('@')))
    {
        return Err(LedgerError::Broken(
            "an @ in the user or the password of a record's URL is written %40".to_owned(),
        ));
    }
    if config.get_application_name().is_none() {
        config.application_name("conga");
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENCE);
    }
    if config.get_hosts().len() > 1 && !url.contains("target_session_attrs=") {
        // Of several at most one can be written to. Which of them it is changes, so none has to be the first; and one that
        // takes a connection and is silent does not stand before the others each time.
        config
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .load_balance_hosts(LoadBalanceHosts::Random);
    }
    config.ssl_mode(trust.mode());
    config
        .keepalives_idle(SILENCE)
        .keepalives_interval(SILENCE / 5)
        .keepalives_retries(3);
    Ok((config, trust))
}

/// Makes connections whose statements are limited.
struct Limited<T>(T);

impl<T> Connect for Limited<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, config: &Config) -> BoxFuture<'_, std::result::Result<(Client, JoinHandle<()>), Error>> {
        let (config, tls) = (config.clone(), self.0.clone());
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            let driving = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the system of record ended");
                }
            });
            client.execute(LIMIT, &[&millis(STATEMENT)]).await?;
            Ok((client, driving))
        })
    }
}

/// What the URL's `options` say (source `client`) stands, and what is shorter than ours.
const LIMIT: &str = "SELECT set_config('statement_timeout', $1, false) FROM pg_settings
    WHERE name = 'statement_timeout' AND source <> 'client' AND (setting = '0' OR setting::bigint > $1::text::bigint)";

/// As PostgreSQL takes a time.
pub(super) fn millis(time: Duration) -> String {
    time.as_millis().max(1).to_string()
}

fn name(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5_432);
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| match host {
        Host::Tcp(host) => format!("{host}:{}", port(index)),
        #[cfg(unix)]
        Host::Unix(path) => path.display().to_string(),
    });
    let hosts: Vec<String> = hosts.collect();
    format!("PostgreSQL at {}", hosts.join(","))
}

/// A connection that is taken out of the pool. It goes back when it is dropped, unless it is no good any more.
pub(super) struct Connection(Object);

impl Connection {
    /// The client, with its prepared statements.
    pub(super) fn client(&mut self) -> &mut deadpool_postgres::Client {
        &mut self.0
    }

    /// Leaves a connection that is no good any more, or of which nobody knows in what state it is.
    pub(super) fn leave(self) {
        drop(Object::take(self.0));
    }

    /// Ends what was asked: a connection that did not answer, or to a server that can't do this now, is left, so that the
    /// next one may find a better.
    pub(super) fn settle<T>(self, pool: &Pool, answer: Answer<T>) -> std::result::Result<T, Failed> {
        match answer {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => {
                if failure::spoils_the_connection(&error) {
                    drop(Object::take(self.0));
                }
                Err(Failed {
                    why: Why::of(&error),
                    error: pool.failed(&error),
                })
            }
            None => {
                drop(Object::take(self.0));
                Err(Failed {
                    why: Why::Other,
                    error: LedgerError::Unknown(format!("{} did not answer in {} s", pool.name, PATIENCE.as_secs())),
                })
            }
        }
    }
}

/// What became of something that was asked; nothing, when it was not waited for any longer.
pub(super) type Answer<T> = Option<std::result::Result<T, Error>>;

/// An answer, unless it takes too long.
pub(super) async fn patiently<T>(asking: impl Future<Output = std::result::Result<T, Error>>) -> Answer<T> {
    timeout(PATIENCE, asking).await.ok()
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: LedgerError,
    pub(super) why: Why,
}

impl Failed {
    /// Before anything was asked.
    pub(super) fn before(error: LedgerError) -> Self {
        Self { error, why: Why::Other }
    }
}

impl From<Failed> for LedgerError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_server_that_takes_a_connection_and_is_silent_is_unavailable() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let pool = Pool::to(&format!("postgres://u@127.0.0.1:{port}/d")).unwrap();
        let asking = timeout(3 * CONNECT, pool.take());
        let (asked, silent) = tokio::join!(asking, server.accept());
        let error = asked.expect("it is given up").err().unwrap();
        assert!(
            matches!(&error, LedgerError::Unavailable(text) if text.contains("in time")),
            "{error}"
        );
        drop(silent);
    }

    #[test]
    fn of_several_hosts_the_one_that_can_be_written_to_is_meant() {
        for (rest, meant) in [
            ("h/d", TargetSessionAttrs::Any),
            ("h,i/d", TargetSessionAttrs::ReadWrite),
            ("h,i/d?target_session_attrs=any", TargetSessionAttrs::Any),
        ] {
            let (config, _) = configure(&format!("postgres://u@{rest}")).unwrap();
            assert_eq!(config.get_target_session_attrs(), meant, "{rest}");
        }
    }

    #[test]
    fn what_is_left_of_a_password_is_not_taken_for_a_host() {
        let error = Pool::to("postgres://u:p@secret@h/d").unwrap_err().to_string();
        assert!(error.contains("%40") && !error.contains("secret"), "{error}");
    }
}
