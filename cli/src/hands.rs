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
use conga::process::http::{Http, HttpOptions};
use conga::process::{Handled, Handler, HandlerError, Message, SharedEffects, sleep, within};
use conga::store::sqlite::{self, EffectOptions};
use conga::store::{SharedStore, StoreError};
use tokio_util::sync::CancellationToken;

use crate::settings::{HandlerSpec, RETRY, ServiceSettings, Settings, wrong};

/// How messages are processed.
pub(crate) struct Hands {
    spec: HandlerSpec,
    pub(crate) ledger: SharedLedger,
    script: Option<Scripted>,
    program: Option<Exec>,
    server: Option<Http>,
    timeout: Option<Duration>,
}

/// A script, in the transaction that records.
#[derive(Clone)]
enum Scripted {
    Postgres(Transactional<Script>),
    Sqlite(sqlite::Transactional),
}

impl Hands {
    /// Opens the record, and has it look at the script, if there is one.
    pub(crate) async fn open(
        service: &ServiceSettings,
        record: &LedgerUrl,
        line: &Line,
        store: &SharedStore,
    ) -> anyhow::Result<Self> {
        let spec = &service.handler;
        let HandlerSpec::Sql(path) = spec else {
            return Ok(Self {
                spec: spec.clone(),
                ledger: conga::ledger::open(record, line, store).await?,
                script: None,
                program: program(service),
                server: server(service, line)?,
                timeout: service.handling.timeout,
            });
        };
        let text = read(path)?;
        let LedgerUrl::Postgres(url) = record else {
            let Some(sqlite) = store.as_sqlite() else {
                return Err(wrong(
                    "--handler sql:FILE runs in the transaction that records, which this store has none of: say where by \
                     --record postgres://USER@HOST/DATABASE, or use --store sqlite:PATH",
                ));
            };
            let script = sqlite.script(EffectOptions::default(), &text).await;
            let script = script.map_err(|error| match error {
                StoreError::Broken(told) => wrong(format!("{}: {told}", path.display())),
                passing => LedgerError::from(passing).into(),
            })?;
            return Ok(Self {
                spec: spec.clone(),
                ledger: conga::ledger::open(record, line, store).await?,
                script: Some(Scripted::Sqlite(script)),
                program: None,
                server: None,
                timeout: service.handling.timeout,
            });
        };
        let ledger = Arc::new(PostgresLedger::open(url, line).await?);
        let mut options = TransactionOptions::default();
        options.connections = service.transactions.unwrap_or(options.connections);
        let script = ledger.script(options, &text).await;
        let script = script.map_err(|error| match error {
            LedgerError::Broken(told) => wrong(format!("{}: {told}", path.display())),
            passing => passing.into(),
        })?;
        Ok(Self {
            spec: spec.clone(),
            ledger,
            script: Some(Scripted::Postgres(script)),
            program: None,
            server: None,
            timeout: service.handling.timeout,
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
        if let Some(program) = &self.program {
            // It has the limit itself.
            return within(Hand::Program(program.clone()), None);
        }
        if let Some(server) = &self.server {
            return within(Hand::Server(server.clone()), None);
        }
        let hand = match (&self.script, &self.spec) {
            (Some(Scripted::Postgres(script)), _) => Hand::Script(script.clone()),
            (Some(Scripted::Sqlite(script)), _) => Hand::Effect(script.clone()),
            (None, HandlerSpec::Sleep { least, most }) => Hand::Plain(sleep(*least, *most)),
            // These have what is above.
            (None, _) => Hand::Plain(sleep(Duration::ZERO, Duration::ZERO)),
        };
        within(hand, self.timeout)
    }

    /// Ends the children, if there are any, once no more messages come.
    pub(crate) async fn close(&self) {
        if let Some(program) = &self.program {
            program.close().await;
        }
    }
}

fn program(service: &ServiceSettings) -> Option<Exec> {
    let HandlerSpec::Exec(command) = &service.handler else {
        return None;
    };
    let asked = &service.handling;
    let enough = service.processor.concurrency.div_ceil(asked.at_once);
    Some(Exec::new(ExecOptions {
        workers: asked.workers.unwrap_or(enough),
        at_once: asked.at_once,
        timeout: asked.timeout,
        ..ExecOptions::new(command)
    }))
}

fn server(service: &ServiceSettings, line: &Line) -> anyhow::Result<Option<Http>> {
    let HandlerSpec::Http(url) = &service.handler else {
        return Ok(None);
    };
    let defaults = HttpOptions::new(url.clone(), line);
    let asked = &service.handling;
    let server = Http::new(HttpOptions {
        mode: asked.http_mode,
        http2: asked.http2,
        connections: service.processor.concurrency,
        timeout: asked.timeout.unwrap_or(defaults.timeout),
        ..defaults
    });
    server.map(Some).map_err(wrong)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .with_context(|| format!("can't read {}", path.display()))
        .map_err(|error| wrong(format!("{error:#}")))
}

#[derive(Clone)]
enum Hand<P> {
    Plain(P),
    Script(Transactional<Script>),
    Effect(sqlite::Transactional),
    Program(Exec),
    Server(Http),
}

impl<P: Handler> Handler for Hand<P> {
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        match self {
            Self::Plain(plain) => plain.handle(message).await,
            Self::Script(script) => script.handle(message).await,
            Self::Effect(effect) => effect.handle(message).await,
            Self::Program(program) => program.handle(message).await,
            Self::Server(server) => server.handle(message).await,
        }
    }

    async fn process(self, message: Message) -> Result<Handled, HandlerError> {
        match self {
            Self::Plain(plain) => plain.process(message).await,
            Self::Script(script) => script.process(message).await,
            Self::Effect(effect) => effect.process(message).await,
            Self::Program(program) => program.process(message).await,
            Self::Server(server) => server.process(message).await,
        }
    }

    fn effects(&self) -> Option<SharedEffects> {
        match self {
            Self::Effect(effect) => effect.effects(),
            Self::Plain(_) | Self::Script(_) | Self::Program(_) | Self::Server(_) => None,
        }
    }
}
