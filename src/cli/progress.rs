//! What there is to see while something takes long: one line on stderr, where a person reads.

use super::interrupt::Undo;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Terminals with fewer columns get the numbers alone.
const COLUMNS_FOR_BAR: u16 = 64;

/// What a line counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Tokens,
    Kernels,
    Cases,
    Tests,
    Knobs,
}

impl Unit {
    /// What stands behind the word that a line begins with.
    fn template(self) -> String {
        let (bar, left) = if is_narrow() { ("", "") } else { ("{bar:16} ", ", {eta} left") };
        match self {
            Unit::Bytes => format!("{bar}{{binary_bytes}} of {{binary_total_bytes}}{left}  {{wide_msg}}"),
            Unit::Tokens => format!("{bar}{{pos}} of {{len}} tokens{left}  {{wide_msg}}"),
            Unit::Kernels => format!("{bar}{{pos}} of {{len}} kernels  {{wide_msg}}"),
            Unit::Cases => format!("{bar}{{pos}} of {{len}} cases  {{wide_msg}}"),
            Unit::Tests => format!("{bar}test {{pos}} of {{len}}: {{wide_msg}}"),
            Unit::Knobs => format!("{bar}knob {{pos}} of {{len}}: {{wide_msg}}"),
        }
    }
}

/// Whether a bar and the time left have no room beside the numbers.
fn is_narrow() -> bool {
    console::Term::stderr().size_checked().is_some_and(|(_, columns)| columns < COLUMNS_FOR_BAR)
}

/// A line that says what is waited for, and becomes a bar once it is known how much there is. It goes away when it is dropped.
pub struct Progress {
    line: Line,
    unit: Unit,
    is_counting: AtomicBool,
}

impl Progress {
    /// `what` in one word, and what happens until something can be counted.
    pub fn new(what: &'static str, unit: Unit, message: impl Into<String>) -> Self {
        Progress { line: Line::spinner(what, message.into()), unit, is_counting: AtomicBool::new(false) }
    }

    pub fn set(&self, done: u64, total: u64) {
        let bar = &self.line.bar;
        let is_first = !self.is_counting.swap(true, Ordering::Relaxed);
        if is_first {
            bar.disable_steady_tick();
            bar.set_length(total);
            bar.set_position(done);
            bar.set_style(style(&format!("{{prefix:8}} {}", self.unit.template())));
            bar.set_message("");
            bar.reset_eta();
        } else {
            bar.set_position(done);
        }
    }

    pub fn say(&self, message: impl Into<String>) {
        self.line.bar.set_message(message.into());
    }

    /// Hides the line while `talk` prints.
    pub fn suspend(&self, talk: impl FnOnce()) {
        self.line.bar.suspend(talk);
    }
}

/// Puts the count of compiled kernels in place of the line that was there.
pub fn compiling(line: &mut Option<Progress>, done: u64, total: u64) {
    match line {
        Some(line) if line.unit == Unit::Kernels => line.set(done, total),
        _ => {
            // The line from before goes first.
            *line = None;
            let kernels = Progress::new("compile", Unit::Kernels, "the kernels of this model");
            kernels.set(done, total);
            *line = Some(kernels);
        }
    }
}

/// A line that says what is waited for, where nothing can be counted. It goes away when it is dropped.
pub struct Waiting {
    _line: Line,
}

impl Waiting {
    pub fn new(what: &'static str, message: impl Into<String>) -> Self {
        Waiting { _line: Line::spinner(what, message.into()) }
    }
}

/// A bar for one file of a download, on one line of any terminal, with the time left. It goes away when it is dropped.
pub struct Download {
    line: Line,
}

impl Download {
    pub fn new(file: &str, total_bytes: Option<u64>) -> Self {
        let template = match total_bytes {
            Some(_) => format!("download {}", Unit::Bytes.template()),
            None => "download {binary_bytes}  {wide_msg}".to_owned(),
        };
        let bar = ProgressBar::with_draw_target(total_bytes, target());
        Download { line: Line::new(bar.with_style(style(&template)).with_message(file.to_owned())) }
    }

    pub fn set(&self, received_bytes: u64) {
        self.line.bar.set_position(received_bytes);
    }
}

/// Something on the last line of the terminal. It goes away when it is dropped, and where Ctrl-C ends the program.
struct Line {
    bar: ProgressBar,
    _undo: Undo,
}

impl Line {
    fn new(bar: ProgressBar) -> Self {
        let weak = bar.downgrade();
        let clear = move || {
            if let Some(bar) = weak.upgrade() {
                bar.finish_and_clear();
            }
        };
        Line { bar, _undo: Undo::new(clear) }
    }

    fn spinner(what: &'static str, message: String) -> Self {
        const TICK: Duration = Duration::from_millis(100);
        let bar = ProgressBar::with_draw_target(None, target());
        let bar = bar.with_style(style("{prefix:8} {spinner} {wide_msg}")).with_prefix(what).with_message(message);
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Line::new(bar)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant and valid")
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}
