//! The one place that knows what it runs on: time, threads and files.
//!
//! `native.rs` offers the surface that the rest of the library uses; nothing else may name an operating system's facility.

mod files;
#[cfg(not(target_arch = "wasm32"))]
mod hub;
mod native;

pub use files::{ByteSource, is_file, read_model_text, read_text};
#[cfg(not(target_arch = "wasm32"))]
pub use hub::{
    DownloadProgress, HubOptions, OnProgress, fetch_config_only, fetch_config_only_with, resolve_model, resolve_model_with,
};
pub use native::{CAN_BLOCK, Stopwatch, available_memory_bytes, for_each_row, unix_seconds, write_file};
