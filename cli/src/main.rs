//! conga: the command line of Conga.

mod args;
mod bench;
mod cmd;
mod hands;
mod settings;
mod signal;
mod text;

use std::process::ExitCode;

use clap::Parser as _;
use conga::store::StoreError;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Bench, Command};
use crate::settings::{Settings, WrongUsage};

/// Done; the check failed or the work could not be done; wrong usage; more messages wait than may.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const FULL: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_env("CONGA_LOG").unwrap_or_else(|_| EnvFilter::new(default_log(&args.command))),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    let runtime = match threads(&args.command).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("conga: can't start: {error}");
            return FAILED.into();
        }
    };
    let code = match runtime.block_on(run(args)) {
        Ok(true) => DONE,
        Ok(false) => FAILED,
        Err(error) => {
            eprintln!("conga: {error:#}");
            match error.downcast_ref() {
                Some(StoreError::Full { .. }) => FULL,
                _ if error.is::<WrongUsage>() => USAGE,
                _ => FAILED,
            }
        }
    };
    // Whoever still reads a terminal or a pipe is not waited for.
    runtime.shutdown_background();
    code.into()
}

/// A service, or one end of a line, is one flow from and to the store: on several threads it would mostly wake one from
/// another. What runs many things at once has as many threads as there are cores.
fn threads(command: &Command) -> tokio::runtime::Builder {
    match command {
        Command::Demo(_) | Command::Bench { .. } => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    }
}

/// Services tell what they do, the others only what goes wrong.
fn default_log(command: &Command) -> &'static str {
    match command {
        Command::Run(_) | Command::Process(_) | Command::Sequence(_) => "warn,conga=info",
        // There a store that does not answer is no news.
        Command::Bench { bench: Bench::Chaos(_) } => "error",
        _ => "warn",
    }
}

/// Whether it was done and, where it was a check, passed.
async fn run(args: Args) -> anyhow::Result<bool> {
    let settings = Settings::load(&args.common, args.command.serves())?;
    match args.command {
        Command::Demo(demo) => cmd::demo::run(&settings, demo).await,
        Command::Run(service) => cmd::service::run(&settings, &service).await,
        Command::Process(service) => cmd::service::process(&settings, &service).await,
        Command::Sequence(service) => cmd::service::sequence(&settings, &service).await,
        Command::Send(send) => cmd::send::run(&settings, send).await,
        Command::Receive(receive) => cmd::receive::run(&settings, receive).await,
        Command::Pipe(pipe) => cmd::pipe::run(&settings, pipe).await,
        Command::Status(status) => cmd::status::run(&settings, status).await,
        Command::Pause => cmd::control::pause(&settings).await,
        Command::Resume => cmd::control::resume(&settings).await,
        Command::Drain(drain) => cmd::control::drain(&settings, drain).await,
        Command::Rate(limited) => cmd::control::rate(&settings, limited).await,
        Command::Dead { partition, dead } => cmd::dead::run(&settings, partition, dead).await,
        Command::Verify(verify) => cmd::verify::run(&settings, &verify).await,
        Command::Bench { bench } => cmd::bench::run(&settings, bench).await,
    }
}
