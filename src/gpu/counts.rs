//! What a device was asked to do, counted where it is handed to the queue.

use std::iter::Sum;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicU64, Ordering};

/// Work handed to a device's queue. The difference of two is what happened in between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub dispatches: u64,
    /// Submissions with commands; those of readbacks are among them.
    pub submits: u64,
    /// Buffers that were mapped for the host to read.
    pub readbacks: u64,
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts {
            dispatches: self.dispatches - earlier.dispatches,
            submits: self.submits - earlier.submits,
            readbacks: self.readbacks - earlier.readbacks,
        }
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            dispatches: self.dispatches + other.dispatches,
            submits: self.submits + other.submits,
            readbacks: self.readbacks + other.readbacks,
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), Counts::add)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    dispatches: AtomicU64,
    submits: AtomicU64,
    readbacks: AtomicU64,
    largest_binding_bytes: AtomicU64,
}

impl Counters {
    pub fn bound(&self, bytes: u64) {
        self.largest_binding_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    pub fn largest_binding_bytes(&self) -> u64 {
        self.largest_binding_bytes.load(Ordering::Relaxed)
    }

    pub fn submitted(&self, num_dispatches: usize) {
        self.dispatches.fetch_add(num_dispatches as u64, Ordering::Relaxed);
        self.submits.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read_back(&self) {
        self.readbacks.fetch_add(1, Ordering::Relaxed);
    }

    pub fn now(&self) -> Counts {
        Counts {
            dispatches: self.dispatches.load(Ordering::Relaxed),
            submits: self.submits.load(Ordering::Relaxed),
            readbacks: self.readbacks.load(Ordering::Relaxed),
        }
    }
}
