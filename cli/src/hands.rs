//! What processes messages, and where it records: a script needs a database that runs it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use conga::core::message::Payload;
use conga::ledger::postgres::{PostgresLedger, Script, TransactionOptions, Transactional};
use conga::ledger::{LedgerError, LedgerUrl, SharedLedger};
use conga::line::Line;
use conga::process::{Handled, Handler, HandlerError, Message, SharedEffects, sleep};
use conga::store::sqlite::{self, EffectOptions};
use conga::store::{SharedStore, StoreError};
use tokio_util::sync::CancellationToken;

use crate::settings::{HandlerSpec, RETRY, ServiceSettings, Settings, wrong};

/// How messages are processed.
pub(crate) struct Hands {
    spec: HandlerSpec,
    pub(crate) ledger: SharedLedger,
    script: Option<Scripted>,
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
        match (&self.script, &self.spec) {
            (Some(Scripted::Postgres(script)), _) => Hand::Script(script.clone()),
            (Some(Scripted::Sqlite(script)), _) => Hand::Effect(script.clone()),
            (None, HandlerSpec::Sleep { least, most }) => Hand::Plain(sleep(*least, *most)),
            // It has a script.
            (None, HandlerSpec::Sql(_)) => Hand::Plain(sleep(std::time::Duration::ZERO, std::time::Duration::ZERO)),
        }
    }
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
}

impl<P: Handler> Handler for Hand<P> {
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        match self {
            Self::Plain(plain) => plain.handle(message).await,
            Self::Script(script) => script.handle(message).await,
            Self::Effect(effect) => effect.handle(message).await,
        }
    }

    async fn process(self, message: Message) -> Result<Handled, HandlerError> {
        match self {
            Self::Plain(plain) => plain.process(message).await,
            Self::Script(script) => script.process(message).await,
            Self::Effect(effect) => effect.process(message).await,
        }
    }

    fn effects(&self) -> Option<SharedEffects> {
        match self {
            Self::Effect(effect) => effect.effects(),
            Self::Plain(_) | Self::Script(_) => None,
        }
    }
}
