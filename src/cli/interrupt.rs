//! Ctrl-C: while text is being generated, the first one ends the text. Otherwise it ends the program, which then leaves neither a line of
//! progress on the screen nor half a file behind.

use moebius::model::Cancel;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// What a shell reports for a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

static WATCHED: AtomicBool = AtomicBool::new(false);
static REQUESTED: LazyLock<Cancel> = LazyLock::new(Cancel::default);
static LEFTOVERS: Mutex<Leftovers> = Mutex::new(Leftovers { next: 0, undo: BTreeMap::new() });

struct Leftovers {
    next: u64,
    undo: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
}

/// Listens for Ctrl-C from now on.
pub fn listen() {
    // Where that is not possible, Ctrl-C ends the program as the system does it.
    let _ = ctrlc::set_handler(on_interrupt);
}

/// While this lives, the first Ctrl-C only sets a flag.
pub struct Watch;

impl Watch {
    pub fn start() -> Self {
        REQUESTED.reset();
        WATCHED.store(true, Ordering::SeqCst);
        Watch
    }

    pub fn requested(&self) -> bool {
        REQUESTED.is_requested()
    }

    /// The flag.
    pub fn cancel(&self) -> Cancel {
        REQUESTED.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHED.store(false, Ordering::SeqCst);
    }
}

/// What is done if Ctrl-C ends the program while this lives.
pub struct Undo(u64);

impl Undo {
    pub fn new(undo: impl FnOnce() + Send + 'static) -> Self {
        let mut leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let key = leftovers.next;
        leftovers.next += 1;
        leftovers.undo.insert(key, Box::new(undo));
        Undo(key)
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner).undo.remove(&self.0);
    }
}

fn on_interrupt() {
    if WATCHED.load(Ordering::SeqCst) && !REQUESTED.is_requested() {
        REQUESTED.request();
        return;
    }
    let undo = std::mem::take(&mut LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner).undo);
    undo.into_values().for_each(|undo| undo());
    std::process::exit(INTERRUPTED.into());
}
