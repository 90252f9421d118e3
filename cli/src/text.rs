//! What people read: numbers, times, progress.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error for `total` things, or a count where the total is not known. Nothing where standard error
/// is no terminal, or where programs read.
pub(crate) fn progress(what: &'static str, total: Option<u64>, json: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    if json || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = if total.is_some() {
        "{msg:12} [{bar:40}] {human_pos}/{human_len} {per_sec} {eta}"
    } else {
        "{msg:12} {spinner} {human_pos} {per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar
}

/// Milliseconds, with three decimals.
pub(crate) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A number with its noun, in the plural where it has to be.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// How many characters fit into a line of standard output; no limit, where it is no terminal.
pub(crate) fn width() -> usize {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return usize::MAX;
    }
    rustix::termios::tcgetwinsize(stdout).map_or(usize::MAX, |size| match size.ws_col {
        0 => usize::MAX,
        columns => usize::from(columns),
    })
}
