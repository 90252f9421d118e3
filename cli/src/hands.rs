//! What processes messages, and where it records: a script needs a database that runs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use conga::core::message::Payload;
use conga::ledger::postgres::{PostgresLedger, Script, TransactionOptions, Transactional};
use conga::ledger::{LedgerError, LedgerUrl, SharedLedger};
use conga::line::Line;
use conga::process::exec::{Exec, ExecOptions};
use conga::process::http::{Http, HttpOptions, HttpUrl};
use conga::process::{Handled, Handler, HandlerError, Message, SharedEffects, sleep, within};
use conga::store::sqlite::{self, EffectOptions};
use conga::store::{SharedStore, StoreError};
use tokio_util::sync::CancellationToken;

use self::fatal::Fatal;
use crate::settings::{HandlerSpec, RETRY, ServiceSettings, Settings, wrong};

mod fatal;

/// How messages are processed.
pub(crate) struct Hands {
    hand: Hand,
    pub(crate) ledger: SharedLedger,
    /// How long an attempt may take, where the hand does not see to that itself.
    limit: Option<Duration>,
    /// How the payload begins at which the process aborts.
    abort_at: Option<Arc<str>>,
}

impl Hands {
    /// Opens the record, and has it look at the script, if there is one. Children that are asked for are started.
    pub(crate) async fn open(
        service: &ServiceSettings,
        record: &LedgerUrl,
        line: &Line,
        store: &SharedStore,
    ) -> anyhow::Result<Self> {
        let timeout = service.handling.timeout;
        let abort_at = service.abort_at.as_deref().map(Arc::from);
        if let (HandlerSpec::Sql(path), LedgerUrl::Postgres(url)) = (&service.handler, record) {
            let text = read(path)?;
            let ledger = Arc::new(PostgresLedger::open(url, line).await?);
            let script = scripted(&ledger, service, path, &text).await?;
            return Ok(Self {
                hand: Hand::Script(script),
                ledger,
                limit: timeout,
                abort_at,
            });
        }
        // First, since this may have to be tried again.
        let ledger = conga::ledger::open(record, line, store).await?;
        let (hand, limit) = match &service.handler {
            HandlerSpec::Sleep { least, most } => {
                let (least, most) = (*least, *most);
                (Hand::Sleep { least, most }, timeout)
            }
            HandlerSpec::Sql(path) => (Hand::Effect(effect(store, path).await?), timeout),
            HandlerSpec::Exec(command) => (Hand::Program(program(service, command).await), None),
            HandlerSpec::Http(url) => (Hand::Server(server(service, url, line)?), None),
        };
        Ok(Self {
            hand,
            ledger,
            limit,
            abort_at,
        })
    }

    /// The same for a service: waits for a database that is away, unless told to end. Then there is none.
    pub(crate) async fn open_patiently(
        settings: &Settings,
        service: &ServiceSettings,
        store: &SharedStore,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let (url, line) = (settings.record()?, settings.line()?);
        let mut said = false;
        loop {
            let opened = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                opened = Self::open(service, &url, &line, store) => opened,
            };
            let error = match opened {
                Ok(hands) => return Ok(Some(hands)),
                Err(error) => error,
            };
            if !error.downcast_ref().is_some_and(LedgerError::is_passing) {
                return Err(error);
            }
            if !said {
                tracing::warn!(record = %url, %error, "can't open the system of record; trying again until it is there");
                said = true;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => return Ok(None),
            }
        }
    }

    /// The handler.
    pub(crate) fn handler(&self) -> impl Handler + use<> {
        Fatal {
            inner: within(self.hand.clone(), self.limit),
            at: self.abort_at.clone(),
        }
    }

    /// Ends the children, if there are any, once no more messages come.
    pub(crate) async fn close(&self) {
        if let Hand::Program(program) = &self.hand {
            program.close().await;
        }
    }
}

/// A script in the PostgreSQL transaction that records.
async fn scripted(
    ledger: &Arc<PostgresLedger>,
    service: &ServiceSettings,
    path: &Path,
    text: &str,
) -> anyhow::Result<Transactional<Script>> {
    let mut options = TransactionOptions::default();
    options.connections = service.transactions.unwrap_or(options.connections);
    let script = ledger.script(options, text).await;
    script.map_err(|error| match error {
        LedgerError::Broken(told) => wrong(format!("{}: {told}", path.display())),
        passing => passing.into(),
    })
}

/// A script in the step of the SQLite store that completes.
async fn effect(store: &SharedStore, path: &Path) -> anyhow::Result<sqlite::Transactional> {
    let text = read(path)?;
    let Some(sqlite) = store.as_sqlite() else {
        return Err(wrong(
            "--handler sql:FILE runs in the transaction that records, which this store has none of: say where by \
             --record postgres://USER@HOST/DATABASE, or use --store sqlite:PATH",
        ));
    };
    let script = sqlite.script(EffectOptions::default(), &text).await;
    script.map_err(|error| match error {
        StoreError::Broken(told) => wrong(format!("{}: {told}", path.display())),
        passing => LedgerError::from(passing).into(),
    })
}

async fn program(service: &ServiceSettings, command: &str) -> Exec {
    let asked = &service.handling;
    let enough = service.processor.concurrency.div_ceil(asked.at_once);
    let program = Exec::new(ExecOptions {
        workers: asked.workers.unwrap_or(enough),
        at_once: asked.at_once,
        timeout: asked.timeout,
        ready: asked.ready,
        ..ExecOptions::new(command)
    });
    // So many may be too many for a line with few messages, unless somebody has said so.
    if asked.workers.is_some() || asked.ready.is_some() {
        program.start().await;
    }
    program
}

fn server(service: &ServiceSettings, url: &HttpUrl, line: &Line) -> anyhow::Result<Http> {
    let defaults = HttpOptions::new(url.clone(), line);
    let asked = &service.handling;
    let server = Http::new(HttpOptions {
        mode: asked.http_mode,
        http2: asked.http2,
        connections: service.processor.concurrency,
        timeout: asked.timeout.unwrap_or(defaults.timeout),
        ..defaults
    });
    server.map_err(wrong)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("can't read {}", path.display()))
        .map_err(|error| wrong(format!("{error:#}")))
}

/// What processes a message. The programs and servers see to their time limits themselves.
#[derive(Clone)]
enum Hand {
    Sleep { least: Duration, most: Duration },
    Script(Transactional<Script>),
    Effect(sqlite::Transactional),
    Program(Exec),
    Server(Http),
}

impl Handler for Hand {
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        match self {
            Self::Sleep { least, most } => sleep(least, most).handle(message).await,
            Self::Script(script) => script.handle(message).await,
            Self::Effect(effect) => effect.handle(message).await,
            Self::Program(program) => program.handle(message).await,
            Self::Server(server) => server.handle(message).await,
        }
    }

    async fn process(self, message: Message) -> Result<Handled, HandlerError> {
        match self {
            Self::Sleep { least, most } => sleep(least, most).process(message).await,
            Self::Script(script) => script.process(message).await,
            Self::Effect(effect) => effect.process(message).await,
            Self::Program(program) => program.process(message).await,
            Self::Server(server) => server.process(message).await,
        }
    }

    fn effects(&self) -> Option<SharedEffects> {
        match self {
            Self::Effect(effect) => effect.effects(),
            Self::Sleep { .. } | Self::Script(_) | Self::Program(_) | Self::Server(_) => None,
        }
    }
}
