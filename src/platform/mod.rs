//! The one place that knows what it runs on: time, threads and files.
//!
//! `native.rs` offers the surface that the rest of the library uses; nothing else may name an operating system's facility.

#[cfg(not(target_arch = "wasm32"))]
mod hub;
mod native;

#[cfg(not(target_arch = "wasm32"))]
pub use hub::{
    DownloadProgress, HubOptions, OnProgress, fetch_config_only, fetch_config_only_with, resolve_model, resolve_model_with,
};
pub use native::{Stopwatch, for_each_row, is_file, read_text, unix_seconds};
