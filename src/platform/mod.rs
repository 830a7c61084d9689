//! The one place that knows what it runs on: time, threads and files.
//!
//! `native.rs` offers the surface that the rest of the library uses; nothing else may name an operating system's facility.

mod files;
mod native;

pub use files::{ByteSource, is_file, read_model_text, read_text};
pub use native::{CAN_BLOCK, Stopwatch, for_each_row, write_file};
