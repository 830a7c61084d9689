//! The one place that knows what it runs on: time, threads and files.
//!
//! `native.rs` offers the surface that the rest of the library uses; nothing else may name an operating system's facility.

mod native;

pub use native::{Stopwatch, for_each_row, is_file, read_text, unix_seconds};
