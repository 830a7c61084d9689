//! Time, threads and files of an operating system.

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A thread may wait here; a browser page may not.
pub const CAN_BLOCK: bool = true;

/// Is told what happens while something is done. It may be called on another thread than the one that made it, so that whoever waits may
/// move between threads.
pub type Listener<'a, E> = dyn FnMut(E) + Send + 'a;

/// Is told how much is done, and how much that is of.
pub type Progress<'a> = dyn FnMut(u64, u64) + Send + 'a;

/// Measures elapsed time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "this is the wrapper that clippy.toml points to")]
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Calls `work(index, row)` for every `row_len` values of `rows`, on all cores. Every row is written by one thread, so the result does not
/// depend on their number.
pub fn for_each_row<T: Send>(rows: &mut [T], row_len: usize, work: impl Fn(usize, &mut [T]) + Sync + Send) {
    rows.par_chunks_mut(row_len).enumerate().for_each(|(index, row)| work(index, row));
}

/// Creates or replaces a file.
///
/// # Errors
/// [`Error::Io`].
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that clippy.toml points to")]
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).map_err(Error::io("write", path))
}

/// Creates or replaces a file together with the directories above it; whoever reads meanwhile sees the old one or the new one.
///
/// # Errors
/// [`Error::Io`].
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that clippy.toml points to")]
pub fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let unique = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = path.with_extension(format!("{}-{}.part", unique.0, unique.1));
    let directory = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&temporary, content))
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| {
            let _ = std::fs::remove_file(&temporary);
            Error::io("write", path)(error)
        })
}

/// Where this user's programs keep what they can make again: `XDG_CACHE_HOME`, or `.cache` at home.
pub fn cache_directory() -> Option<PathBuf> {
    let set = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    set.or_else(|| Some(std::env::home_dir()?.join(".cache")))
}

/// Seconds since 1970 in UTC; 0 for a clock that is set before that.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// Seconds by which local time is ahead of UTC, now.
pub fn local_offset_seconds() -> i32 {
    chrono::Local::now().offset().local_minus_utc()
}

/// The most memory that this process takes from some moment on, beyond what it had then; pages of mapped files count as long as they are
/// mapped in.
#[derive(Debug)]
pub struct HostPeak {
    resident_bytes: Option<u64>,
}

impl HostPeak {
    #[allow(clippy::disallowed_methods, reason = "this is the wrapper that clippy.toml points to")]
    pub fn start() -> Self {
        // Forgets the highest mark so far. Where that is forbidden the answer is at most too high by what has been given back since.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        HostPeak { resident_bytes: memory_field("/proc/self/status", "VmRSS:") }
    }

    /// `None` where the system does not tell (it does on Linux).
    pub fn bytes(&self) -> Option<u64> {
        Some(memory_field("/proc/self/status", "VmHWM:")?.saturating_sub(self.resident_bytes?))
    }
}

/// Host memory that could be used without swapping, in bytes, where the system says so.
pub fn available_memory_bytes() -> Option<u64> {
    memory_field("/proc/meminfo", "MemAvailable:")
}

/// A line of what Linux reports about memory, in bytes.
#[allow(clippy::disallowed_methods, reason = "this is the wrapper that clippy.toml points to")]
fn memory_field(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}
