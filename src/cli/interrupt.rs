//! Ctrl-C while text is being generated: the first one ends the text, a second one the program.

use anyhow::{Context, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell reports for a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

static GENERATING: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// While this lives, the first Ctrl-C only sets a flag.
pub struct Watch;

impl Watch {
    pub fn start() -> Result<Self> {
        if INSTALLED.set(()).is_ok() {
            ctrlc::set_handler(on_interrupt).context("cannot listen for Ctrl-C")?;
        }
        REQUESTED.store(false, Ordering::SeqCst);
        GENERATING.store(true, Ordering::SeqCst);
        Ok(Watch)
    }

    pub fn requested(&self) -> bool {
        REQUESTED.load(Ordering::SeqCst)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        GENERATING.store(false, Ordering::SeqCst);
    }
}

fn on_interrupt() {
    let first = !REQUESTED.swap(true, Ordering::SeqCst);
    if !(first && GENERATING.load(Ordering::SeqCst)) {
        std::process::exit(INTERRUPTED.into());
    }
}
