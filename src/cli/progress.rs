//! What there is to see while something takes long: one line on stderr, where a person reads.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a line counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Tokens,
    Cases,
    Tests,
    Knobs,
}

impl Unit {
    fn template(self) -> &'static str {
        match self {
            Unit::Bytes => "{binary_bytes} of {binary_total_bytes}, {eta} left  {wide_msg}",
            Unit::Tokens => "{pos} of {len} tokens, {eta} left  {wide_msg}",
            Unit::Cases => "{pos} of {len} cases  {wide_msg}",
            Unit::Tests => "test {pos} of {len}: {wide_msg}",
            Unit::Knobs => "knob {pos} of {len}: {wide_msg}",
        }
    }
}

/// A line that says what is waited for, and becomes a bar once it is known how much there is. It goes away when it is dropped.
pub struct Progress {
    bar: ProgressBar,
    unit: Unit,
    is_counting: AtomicBool,
}

impl Progress {
    /// `what` in one word, and what happens until something can be counted.
    pub fn new(what: &'static str, unit: Unit, message: impl Into<String>) -> Self {
        let bar = spinner(what, message.into());
        Progress { bar, unit, is_counting: AtomicBool::new(false) }
    }

    pub fn set(&self, done: u64, total: u64) {
        let is_first = !self.is_counting.swap(true, Ordering::Relaxed);
        if is_first {
            self.bar.disable_steady_tick();
            self.bar.set_length(total);
            self.bar.set_position(done);
            self.bar.set_style(style(&format!("{{prefix:8}} {{bar:16}} {}", self.unit.template())));
            self.bar.set_message("");
            self.bar.reset_eta();
        } else {
            self.bar.set_position(done);
        }
    }

    pub fn say(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Hides the line while `talk` prints.
    pub fn suspend(&self, talk: impl FnOnce()) {
        self.bar.suspend(talk);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A line that says what is waited for, where nothing can be counted. It goes away when it is dropped.
pub struct Waiting(ProgressBar);

impl Waiting {
    pub fn new(what: &'static str, message: impl Into<String>) -> Self {
        Waiting(spinner(what, message.into()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar for one file of a download, on one line of any terminal, with the time left.
pub fn download(file: &str, total_bytes: Option<u64>) -> ProgressBar {
    let template = match total_bytes {
        Some(_) => "download {bar:16} {binary_bytes} of {binary_total_bytes}, {eta} left  {wide_msg}",
        None => "download {binary_bytes}  {wide_msg}",
    };
    ProgressBar::with_draw_target(total_bytes, target()).with_style(style(template)).with_message(file.to_owned())
}

fn spinner(what: &'static str, message: String) -> ProgressBar {
    const TICK: Duration = Duration::from_millis(100);
    let bar = ProgressBar::with_draw_target(None, target());
    let bar = bar.with_style(style("{prefix:8} {spinner} {wide_msg}")).with_prefix(what).with_message(message);
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant and valid")
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
