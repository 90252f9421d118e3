//! `conga process`, `conga sequence`, and both in one: `conga run`.

use std::pin::pin;
use std::time::Duration;

use conga::process::{Handler, Processing, Processor};
use conga::sequence::{Sequencer, Sequencing};
use conga::shards::{Merger, Processors, Shards};
use conga::store::SharedStore;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::args::Service;
use crate::hands::Hands;
use crate::settings::{ServiceSettings, Settings, wrong};
use crate::{signal, text};

const NO_SEQUENCER: &str = "this line has several partitions, and there the store delivers: no sequencer is needed";

/// `conga process`.
pub(crate) async fn process(settings: &Settings, given: &Service) -> anyhow::Result<bool> {
    let (service, shutdown) = prepare(settings, given)?;
    let Some(shards) = settings.open_for(&service, &shutdown).await? else {
        return Ok(true);
    };
    let Some(hands) = Hands::open_patiently(settings, &service, shards.base(), &shutdown).await? else {
        return Ok(true);
    };
    let processor = processors(&shards, &hands, &service);
    announce(settings, processor.owner().as_str())?;
    let processing = processor.run(shutdown).await;
    hands.close().await;
    report(settings, Some(processing?), None);
    Ok(true)
}

/// `conga sequence`.
pub(crate) async fn sequence(settings: &Settings, given: &Service) -> anyhow::Result<bool> {
    let (service, shutdown) = prepare(settings, given)?;
    while let Some(shards) = settings.open_for(&service, &shutdown).await? {
        if shards.are_merged() {
            let merger = Merger::new(&shards, service.merger);
            announce(settings, merger.owner().as_str())?;
            report(settings, None, Some(merger.run(shutdown).await?));
            return Ok(true);
        }
        if shards.are_several() {
            return Err(wrong(NO_SEQUENCER));
        }
        let sequencer = Sequencer::new(shards.base().clone(), service.sequencer);
        announce(settings, sequencer.owner().as_str())?;
        let until = shutdown.child_token();
        let sequencing = sequencer.run(until.clone());
        let (sequencing, is_parted) = unless_parted(sequencing, shards.base(), &until).await;
        let sequencing = sequencing?;
        if !is_parted || shutdown.is_cancelled() {
            report(settings, None, Some(sequencing));
            break;
        }
    }
    Ok(true)
}

/// `conga run`.
pub(crate) async fn run(settings: &Settings, given: &Service) -> anyhow::Result<bool> {
    let (service, shutdown) = prepare(settings, given)?;
    while let Some(shards) = settings.open_for(&service, &shutdown).await? {
        let Some(hands) = Hands::open_patiently(settings, &service, shards.base(), &shutdown).await? else {
            return Ok(true);
        };
        announce(settings, "run")?;
        if shards.are_merged() {
            let processing = processors(&shards, &hands, &service).run(shutdown.clone());
            let drained = CancellationToken::new();
            let sequencing = Merger::new(&shards, service.merger).run(drained.clone());
            let (processing, sequencing) = together(processing, sequencing, shutdown, drained).await;
            hands.close().await;
            report(settings, Some(processing?), Some(sequencing?));
            return Ok(true);
        }
        if shards.are_several() {
            let processing = processors(&shards, &hands, &service).run(shutdown).await;
            hands.close().await;
            report(settings, Some(processing?), None);
            return Ok(true);
        }
        let until = shutdown.child_token();
        let working = both(shards.base(), &hands, &service, until.clone());
        let (worked, is_parted) = unless_parted(working, shards.base(), &until).await;
        let (processing, sequencing) = worked?;
        if !is_parted || shutdown.is_cancelled() {
            report(settings, Some(processing), Some(sequencing));
            break;
        }
    }
    Ok(true)
}

/// How often who works at a line of which nobody has said yet what it is looks whether somebody has.
const LOOK: Duration = Duration::from_secs(1);

/// Works at a line as at one partition. Who begins before it was said what the line is can't know of others; if there are, the work
/// is told to end by `until`, and this says so.
async fn unless_parted<T>(work: impl Future<Output = T>, base: &SharedStore, until: &CancellationToken) -> (T, bool) {
    let parted = async {
        loop {
            match base.shape(None).await {
                Ok(Some(shape)) => return shape.partitions.get() > 1,
                Ok(None) | Err(_) => sleep(LOOK).await,
            }
        }
    };
    let mut work = pin!(work);
    tokio::select! {
        biased;
        worked = &mut work => return (worked, false),
        is_parted = parted => if is_parted {
            tracing::info!("the line has several partitions, as was said meanwhile; beginning anew");
            until.cancel();
            return (work.await, true);
        },
    }
    (work.await, false)
}

/// A processor and a sequencer until they are told to end. If one can't go on the other ends too.
pub(crate) async fn both(
    store: &SharedStore,
    hands: &Hands,
    service: &ServiceSettings,
    shutdown: CancellationToken,
) -> anyhow::Result<(Processing, Sequencing)> {
    let processor = processor(store, hands, service).run(shutdown.clone());
    let drained = CancellationToken::new();
    let sequencer = Sequencer::new(store.clone(), service.sequencer).run(drained.clone());
    let (processing, sequencing) = together(processor, sequencer, shutdown, drained).await;
    hands.close().await;
    Ok((processing?, sequencing?))
}

/// Both until `shutdown`: the sequencer leads on while the processor drains, until `drained`. What it does not get to, the next
/// leader delivers. If one can't go on the other ends too.
async fn together<P, S>(
    processor: impl Future<Output = P>,
    sequencer: impl Future<Output = S>,
    shutdown: CancellationToken,
    drained: CancellationToken,
) -> (P, S) {
    let processing = async {
        let processing = processor.await;
        drained.cancel();
        processing
    };
    let sequencing = async {
        let sequencing = sequencer.await;
        shutdown.cancel();
        sequencing
    };
    tokio::join!(processing, sequencing)
}

/// On all partitions.
fn processors(shards: &Shards, hands: &Hands, service: &ServiceSettings) -> Processors<impl Handler + use<>> {
    Processors::new(shards, hands.handler(), service.processor.clone()).with_ledger(&hands.ledger)
}

fn processor(store: &SharedStore, hands: &Hands, service: &ServiceSettings) -> Processor<impl Handler + use<>> {
    Processor::new(store.clone(), hands.handler(), service.processor.clone()).with_ledger(hands.ledger.clone())
}

fn prepare(settings: &Settings, given: &Service) -> anyhow::Result<(ServiceSettings, CancellationToken)> {
    let service = settings.service(given)?;
    let shutdown = signal::shutdown()?;
    if given.tied {
        signal::tie(&shutdown);
    }
    Ok((service, shutdown))
}

/// Says that the service is connected and works.
fn announce(settings: &Settings, owner: &str) -> anyhow::Result<()> {
    if settings.json {
        println!("{}", json!({ "event": "ready", "owner": owner }));
    } else {
        tracing::info!(owner, store = %settings.store(), line = %settings.line()?, "works");
    }
    Ok(())
}

fn report(settings: &Settings, processing: Option<Processing>, sequencing: Option<Sequencing>) {
    if settings.json {
        let mut ended = json!({ "event": "ended" });
        if let Some(did) = processing {
            ended["done"] = did.done.into();
            ended["dead"] = did.dead.into();
            ended["retried"] = did.retried.into();
            ended["stale"] = did.stale.into();
        }
        if let Some(did) = sequencing {
            ended["emitted"] = did.emitted.into();
            ended["reigns"] = did.reigns.into();
            ended["refused"] = did.refused.into();
        }
        println!("{ended}");
        return;
    }
    if let Some(did) = processing {
        eprintln!(
            "processed {}: {} dead, {} retried, {} too late",
            text::count(did.done, "message"),
            did.dead,
            did.retried,
            did.stale
        );
    }
    if let Some(did) = sequencing {
        eprintln!(
            "delivered {} in {}",
            text::count(did.emitted, "message"),
            text::count(did.reigns, "reign")
        );
    }
}
