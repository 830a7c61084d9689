//! Colours, where a person reads and wants them. What is written through `anstream` loses them elsewhere.

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;

/// `--color`
#[derive(Clone, Copy, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// For all that is written from now on.
    pub fn apply(self) {
        match self {
            // Looks at NO_COLOR, CLICOLOR_FORCE and the terminal.
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::AlwaysAnsi,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

pub fn good(text: &str) -> String {
    paint(AnsiColor::Green.on_default(), text)
}

pub fn bad(text: &str) -> String {
    paint(AnsiColor::Red.on_default().bold(), text)
}

/// A bar of some height out of `most`: cold where little happens, warm where much does.
pub fn bar(text: &str, height: usize, most: usize) -> String {
    const SCALE: [AnsiColor; 4] = [AnsiColor::Blue, AnsiColor::Cyan, AnsiColor::Yellow, AnsiColor::Red];
    match height {
        0 => paint(Style::new().dimmed(), text),
        height => paint(SCALE[((height - 1) * SCALE.len() / most.max(1)).min(SCALE.len() - 1)].on_default(), text),
    }
}

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
