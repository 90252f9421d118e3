//! What is meant: the command line over the environment over the settings file over the defaults, validated.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use conga::core::message::Format;
use conga::core::partition::{self, ALONE_FROM, Keep, Limits};
use conga::core::shape::{Order, Shape};
use conga::ledger::LedgerUrl;
use conga::line::Line;
use conga::process::ProcessorOptions;
use conga::sequence::SequencerOptions;
use conga::shards::{MergerOptions, Shards};
use conga::store::{OpenOptions, SharedStore, StoreError, StoreUrl};
use tokio_util::sync::CancellationToken;

use crate::args::{
    Common, Delivery, HttpMode, InputFormat, OnDead, OnGap, OrderName, PerKey, Service, Stays, duration, limit,
};

mod handler;

pub(crate) use handler::{HandlerSpec, HandlingSettings};

/// How long to wait before looking again for a store that is not there.
pub(crate) const RETRY: Duration = Duration::from_millis(200);

/// The command can't be carried out as it was given. The text says how to give it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(pub(crate) String);

/// Refuses what was typed.
pub(crate) fn wrong(why: impl ToString) -> anyhow::Error {
    WrongUsage(why.to_string()).into()
}

/// The settings file: the options by their names.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    store: Option<String>,
    record: Option<String>,
    replicas: Option<usize>,
    delivery: Option<Delivery>,
    line: Option<String>,
    handler: Option<String>,
    concurrency: Option<usize>,
    timeout: Option<String>,
    workers: Option<usize>,
    exec_at_once: Option<usize>,
    exec_ready: Option<String>,
    http_mode: Option<HttpMode>,
    http2: Option<bool>,
    transactions: Option<usize>,
    window: Option<u64>,
    input: Option<InputFormat>,
    max_size: Option<u64>,
    on_dead: Option<OnDead>,
    max_attempts: Option<u32>,
    max_crashes: Option<u32>,
    drain: Option<String>,
    keep_records: Option<Stays>,
    keep_dead: Option<Stays>,
    keep_output: Option<Stays>,
    order: Option<OrderName>,
    per_key: Option<PerKey>,
    partitions: Option<NonZeroU16>,
    gap_timeout: Option<String>,
    on_gap: Option<OnGap>,
}

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// As it was asked for; `None`: nothing was said.
    store: Option<StoreUrl>,
    options: OpenOptions,
    /// `None`: a benchmark starts a server of its own.
    record: Option<LedgerUrl>,
    /// As they were asked for.
    replicas: Option<usize>,
    line: Option<Line>,
    /// Whether to print for programs.
    pub(crate) json: bool,
    file: File,
}

impl Settings {
    /// Reads the settings file and what goes before it. Whoever serves Redis needs no store for its replicas.
    pub(crate) fn load(common: &Common, serves: bool) -> anyhow::Result<Self> {
        let file = match &common.config {
            Some(path) => read(path)?,
            None if Path::new("conga.toml").exists() => read(Path::new("conga.toml"))?,
            None => File::default(),
        };
        let store = common.store.as_ref().or(file.store.as_ref());
        let line = common.line.as_ref().or(file.line.as_ref());
        let store: Option<StoreUrl> = store.map(|url| url.parse()).transpose().map_err(wrong)?;
        let record = match common.record.as_ref().or(file.record.as_ref()).map(String::as_str) {
            Some("serve") => None,
            Some(url) => Some(url.parse().map_err(wrong)?),
            None => Some(LedgerUrl::Store),
        };
        let replicas = common.replicas.or(file.replicas);
        let options = OpenOptions {
            replicas: replicas.unwrap_or(0),
            delivery: common
                .delivery
                .or(file.delivery)
                .map(Delivery::meant)
                .unwrap_or_default(),
            shape: None,
        };
        if options.replicas > 0 && !serves && !matches!(store, Some(StoreUrl::Redis(_))) {
            return Err(wrong(
                "--replicas is for Redis, as in --store redis+sentinel://…: an SQLite store has none to wait for",
            ));
        }
        Ok(Self {
            store,
            options,
            record,
            replicas,
            line: line.map(|name| name.parse()).transpose().map_err(wrong)?,
            json: common.json,
            file,
        })
    }

    /// The store that was asked for.
    pub(crate) fn given_store(&self) -> Option<&StoreUrl> {
        self.store.as_ref()
    }

    /// The store to use.
    pub(crate) fn store(&self) -> StoreUrl {
        self.store
            .clone()
            .unwrap_or_else(|| StoreUrl::Sqlite(PathBuf::from("conga.db")))
    }

    /// How to open it.
    pub(crate) fn options(&self) -> &OpenOptions {
        &self.options
    }

    /// Where to record.
    pub(crate) fn record(&self) -> anyhow::Result<LedgerUrl> {
        match &self.record {
            Some(url) => Ok(url.clone()),
            None => Err(wrong("--record serve is for benchmarks: give the URL of a database")),
        }
    }

    /// Whether a benchmark is to start a server to record in.
    pub(crate) fn serves_record(&self) -> bool {
        self.record.is_none()
    }

    /// How many replicas were asked for.
    pub(crate) fn given_replicas(&self) -> Option<usize> {
        self.replicas
    }

    /// The line that was asked for.
    pub(crate) fn given_line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// The line to use.
    pub(crate) fn line(&self) -> anyhow::Result<Line> {
        match &self.line {
            Some(line) => Ok(line.clone()),
            None => "main".parse().map_err(wrong),
        }
    }

    /// Opens the line.
    pub(crate) async fn open(&self) -> anyhow::Result<SharedStore> {
        Ok(conga::store::open_with(&self.store(), &self.line()?, &self.options).await?)
    }

    /// Opens the line; waits for a store that is away, unless told to end: then there is none.
    pub(crate) async fn open_patiently(&self, shutdown: &CancellationToken) -> anyhow::Result<Option<SharedStore>> {
        let (url, line, mut said) = (self.store(), self.line()?, false);
        loop {
            // Whoever is told to end while a server takes its time ends.
            let opened = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(None),
                opened = conga::store::open_with(&url, &line, &self.options) => opened,
            };
            let error = match opened {
                Ok(store) => return Ok(Some(store)),
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error.into()),
            };
            if !said {
                tracing::warn!(store = %url, %error, "can't open the store; trying again until it is there");
                said = true;
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => return Ok(None),
            }
        }
    }

    /// Opens the line with all its partitions.
    pub(crate) async fn open_shards(&self) -> anyhow::Result<Shards> {
        Ok(Shards::open(&self.store(), &self.line()?, &self.options).await?)
    }

    /// The same; waits for a store that is away, unless told to end: then there is none.
    pub(crate) async fn open_shards_patiently(&self, shutdown: &CancellationToken) -> anyhow::Result<Option<Shards>> {
        self.open_settled(None, shutdown).await
    }

    /// The same for a service, which may say what the line has to be.
    pub(crate) async fn open_for(
        &self,
        service: &ServiceSettings,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Shards>> {
        self.open_settled(Some(service), shutdown).await
    }

    async fn open_settled(
        &self,
        service: Option<&ServiceSettings>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Option<Shards>> {
        loop {
            let Some(store) = self.open_patiently(shutdown).await? else {
                return Ok(None);
            };
            let opened = async {
                if let Some(service) = service {
                    self.settle(&store, service).await?;
                }
                anyhow::Ok(Shards::beside(store, &self.store(), &self.line()?, &self.options).await?)
            };
            match opened.await {
                Err(error) if error.downcast_ref().is_some_and(StoreError::is_passing) => {
                    tracing::warn!(%error, "trying again");
                }
                opened => return opened.map(Some),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => return Ok(None),
            }
        }
    }

    /// Makes the line what the service was told that it is, if it is new.
    pub(crate) async fn settle(&self, store: &SharedStore, service: &ServiceSettings) -> anyhow::Result<()> {
        let Some(order) = service.order else {
            let on_dead = service.processor.on_dead;
            if on_dead == partition::OnDead::Halt {
                refuse_to_halt(on_dead, store.shape(None).await?.unwrap_or_default().order)?;
            }
            return Ok(());
        };
        let partitions = match service.partitions {
            Some(partitions) => partitions,
            // As many as it has.
            None => store.shape(None).await?.unwrap_or_default().partitions,
        };
        match conga::store::settle(store, &self.line()?, Shape { order, partitions }).await {
            Err(error) if !error.is_passing() => Err(wrong(error)),
            settled => Ok(settled?),
        }
    }

    /// What a service was told, completed from the settings file.
    pub(crate) fn service(&self, given: &Service) -> anyhow::Result<ServiceSettings> {
        let file = &self.file;
        let defaults = ProcessorOptions::default();
        let handler = given.handler.as_ref().or(file.handler.as_ref());
        let time = |name: &str, given: Option<Duration>, written: &Option<String>, default| match (given, written) {
            (Some(given), _) => Ok(given),
            (None, Some(text)) => parse_duration(text).with_context(|| format!("`{name}` in the settings file")),
            (None, None) => Ok(default),
        };
        let drain = time("drain", given.drain, &file.drain, defaults.drain)?;
        let window = given.window.or(file.window).unwrap_or(defaults.claim.window);
        let concurrency = given.concurrency.or(file.concurrency).unwrap_or(defaults.concurrency);
        let max_attempts = given
            .max_attempts
            .or(file.max_attempts)
            .unwrap_or(defaults.backoff.max_attempts);
        if window == 0 || concurrency == 0 || max_attempts == 0 {
            return Err(wrong("--window, --concurrency and --max-attempts must be at least 1"));
        }
        let max_crashes = given.max_crashes.or(file.max_crashes).unwrap_or(defaults.max_crashes);
        if (1..=ALONE_FROM).contains(&max_crashes) {
            return Err(wrong(
                "--max-crashes must be at least 4, or 0 for never: before that a message is not alone when its processor dies",
            ));
        }
        let mut processor = ProcessorOptions {
            max_crashes,
            concurrency,
            drain,
            format: match given.input.or(file.input) {
                Some(InputFormat::Envelope) => Format::Envelope,
                Some(InputFormat::Any) | None => Format::Any,
            },
            on_dead: given.on_dead.or(file.on_dead).map_or(defaults.on_dead, OnDead::meant),
            ..defaults
        };
        processor.backoff.max_attempts = max_attempts;
        processor.keep = Some(self.keep(given));
        processor.claim.window = window;
        processor.claim.limits = Limits {
            entry_bytes: given
                .max_size
                .or(file.max_size)
                .unwrap_or(defaults.claim.limits.entry_bytes),
            ..defaults.claim.limits
        };
        let order = given.ordering.or(file.order, file.per_key).meant().map_err(wrong)?;
        if order.is_some_and(|order| order != Order::Total) && self.options.delivery == conga::store::Delivery::Leader {
            return Err(wrong(
                "--delivery leader is for --order total: with another order the store delivers as soon as it may",
            ));
        }
        let partitions = given.partitions.or(file.partitions);
        if let Some(order) = order {
            refuse_to_halt(processor.on_dead, order)?;
        }
        if partitions.is_some_and(|partitions| partitions.get() > 1) && order.is_none() {
            return Err(wrong(
                "--partitions needs --order: with key or none messages go by their key or identity, with total by their sequence",
            ));
        }
        let merged = MergerOptions::default();
        let merger = MergerOptions {
            window: usize::try_from(window).unwrap_or(usize::MAX),
            mark_dead: processor.on_dead != partition::OnDead::Skip,
            gap_timeout: time("gap-timeout", given.gap_timeout, &file.gap_timeout, merged.gap_timeout)?,
            on_gap: match given.on_gap.or(file.on_gap) {
                Some(OnGap::Tombstone) => conga::shards::OnGap::GiveUp,
                Some(OnGap::Hold) | None => conga::shards::OnGap::Hold,
            },
            keep: processor.keep,
            ..merged
        };
        Ok(ServiceSettings {
            order,
            partitions,
            handler: handler.map_or(Ok(HandlerSpec::ECHO), |text| text.parse())?,
            handling: self.handling(given)?,
            processor,
            transactions: given.transactions.or(file.transactions),
            merger,
            abort_at: given.abort_at.clone(),
            sequencer: SequencerOptions {
                window: usize::try_from(window).unwrap_or(usize::MAX),
                ..SequencerOptions::default()
            },
        })
    }

    /// How a handler is asked: as it was asked for.
    fn handling(&self, given: &Service) -> anyhow::Result<HandlingSettings> {
        let (file, given) = (&self.file, &given.handling);
        let written = |name: &str, text: &Option<String>| {
            let read = text.as_deref().map(|text| {
                limit(text).map_err(|error| wrong(format!("`{name}` in the settings file: `{text}`: {error}")))
            });
            read.transpose()
        };
        let (timeout, ready) = (
            written("timeout", &file.timeout)?,
            written("exec-ready", &file.exec_ready)?,
        );
        let (workers, at_once) = (given.workers.or(file.workers), given.exec_at_once.or(file.exec_at_once));
        if workers == Some(0) || at_once == Some(0) {
            return Err(wrong("`workers` and `exec-at-once` must be at least 1"));
        }
        Ok(HandlingSettings {
            timeout: given.timeout.or(timeout),
            workers,
            at_once: at_once.unwrap_or(1),
            ready: given.exec_ready.or(ready),
            http_mode: match given.http_mode.or(file.http_mode) {
                Some(HttpMode::Structured) => conga::process::http::HttpMode::Structured,
                Some(HttpMode::Binary) | None => conga::process::http::HttpMode::Binary,
            },
            http2: given.http2 || file.http2.unwrap_or(false),
        })
    }

    /// How much stays: as asked for, else as the store has it, alone or beside another record.
    fn keep(&self, given: &Service) -> Keep {
        let (file, mut default) = (&self.file, self.store().keeps());
        if self.record != Some(LedgerUrl::Store) {
            default = default.beside_a_record();
        }
        let asked =
            |given: Option<Stays>, file: Option<Stays>, default| given.or(file).map_or(default, |stays| stays.0);
        Keep {
            records: asked(given.keep_records, file.keep_records, default.records),
            dead: asked(given.keep_dead, file.keep_dead, default.dead),
            outputs: asked(given.keep_output, file.keep_output, default.outputs),
        }
    }
}

/// A line without order has nothing that waits for what failed.
fn refuse_to_halt(on_dead: partition::OnDead, order: Order) -> anyhow::Result<()> {
    if on_dead == partition::OnDead::Halt && order == Order::None {
        return Err(wrong(
            "--on-dead halt is for --order total or key: without order nothing waits for a message that failed; say mark or skip",
        ));
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text =
        std::fs::read_to_string(path).map_err(|error| wrong(format!("can't read {}: {error}", path.display())))?;
    parse_file(&text).map_err(|why| wrong(format!("{}{why}", path.display())))
}

/// Why not is told without what stands in the file: that may be a password.
fn parse_file(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(String::new(), |before| {
            format!(", line {}", before.matches('\n').count() + 1)
        });
        // What is of another type than it should be is told with its value.
        let message = match error.message() {
            message if message.contains("://") => "a value that can't be meant",
            message => message,
        };
        format!("{line}: {message}")
    })
}

fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    duration(text).map_err(|error| wrong(format!("`{text}`: {error}")))
}

/// What a service works with.
#[derive(Debug, Clone)]
pub(crate) struct ServiceSettings {
    /// What order the line has to keep; nothing: whatever it does.
    pub(crate) order: Option<Order>,
    /// In how many partitions it has to be; nothing: as many as it is.
    pub(crate) partitions: Option<NonZeroU16>,
    pub(crate) handler: HandlerSpec,
    pub(crate) handling: HandlingSettings,
    pub(crate) processor: ProcessorOptions,
    /// How many at once, as it was asked for.
    pub(crate) transactions: Option<usize>,
    pub(crate) sequencer: SequencerOptions,
    /// Of a line in total order over several partitions.
    pub(crate) merger: MergerOptions,
    /// How the payload begins at which the process aborts.
    pub(crate) abort_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_by_store_and_record_unless_it_is_told() {
        use clap::Parser as _;
        let keep = |store: &str, more: &[&str]| {
            let typed = [&["conga", "process", "--store", store, "--record"][..], more].concat();
            let args = crate::args::Args::parse_from(typed);
            let crate::args::Command::Process(service) = args.command else {
                panic!("another command");
            };
            Settings::load(&args.common, false).unwrap().keep(&service)
        };
        let counts = |keep: Keep| (keep.records.count, keep.dead.count, keep.outputs.count);
        let (redis, million, beside) = ("redis://host", Some(1_000_000), "postgres://host/name");
        assert_eq!(keep("sqlite:a.db", &["store"]), Keep::ALL);
        assert_eq!(counts(keep(redis, &["store"])), (million, million, None));
        assert_eq!(counts(keep("sqlite:a.db", &[beside])), (Some(100_000), None, None));
        assert_eq!(counts(keep(redis, &[beside])), (Some(100_000), million, None));
        assert_eq!(
            counts(keep(redis, &[beside, "--keep-records", "all"])),
            (None, million, None)
        );
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<File>("line = \"a\"\nmax-size = 5").is_ok());
        assert!(toml::from_str::<File>("lines = \"a\"").is_err());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_without_its_text() {
        for (text, told) in [
            (
                "line = \"a\"\nrecrod = \"postgres://u:secret@h/d\"",
                ", line 2: unknown field `recrod`",
            ),
            ("record = postgres://u:secret@h/d", ", line 1: "),
            ("record = \"postgres://u:secret@h/d", ", line 1: "),
            ("record = \"postgres://u:se\\cret@h/d\"", ", line 1: "),
            ("\nreplicas = \"postgres://u:secret@h/d\"", ", line 2: "),
            ("on-dead = \"postgres://u:secret@h/d\"", ", line 1: "),
        ] {
            let why = parse_file(text).unwrap_err();
            assert!(why.starts_with(told) && !why.contains("cret"), "{why}");
        }
    }
}
