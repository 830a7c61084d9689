//! The one place that knows what it runs on: time, threads and files.
//!
//! `native.rs` and `web.rs` offer the same surface to the rest of the library; nothing else may name an operating system's or a browser's
//! facility.

#[cfg(not(target_arch = "wasm32"))]
mod background;
mod fetching;
#[cfg(not(target_arch = "wasm32"))]
mod files;
mod gguf_choice;
mod gguf_name;
#[cfg(not(target_arch = "wasm32"))]
mod hub;
#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(not(target_arch = "wasm32"))]
mod new_directory;
#[cfg(not(target_arch = "wasm32"))]
mod read_pool;
mod together;
#[cfg(target_arch = "wasm32")]
mod web;

pub use fetching::{Fetching, Preview};
#[cfg(not(target_arch = "wasm32"))]
pub use files::{ByteSource, file_length, file_names, folders_in, is_file, read_model_text, read_text, remove_directory};
#[cfg(target_arch = "wasm32")]
pub use gguf_choice::{GgufChoice, gguf_parts};
pub use gguf_name::is_gguf_name;
pub(crate) use gguf_name::{PartName, is_gguf_model};
#[cfg(not(target_arch = "wasm32"))]
pub use hub::{
    Accept, CachedModel, DownloadProgress, HubOptions, OnProgress, RemoteHeader, cached_models, cached_models_with,
    fetch_config_only, fetch_config_only_with, fetch_gguf_start, fetch_gguf_start_with, fetch_headers, fetch_headers_with,
    fetch_model, fetch_model_with, hub_of, hub_of_with, remove_cached_model, remove_cached_model_with, resolve_model,
    resolve_model_with,
};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{
    CAN_BLOCK, HostPeak, Listener, Progress, Stopwatch, available_memory_bytes, cache_directory, for_each_row,
    local_offset_seconds, replace_file, unix_seconds, write_file,
};
#[cfg(not(target_arch = "wasm32"))]
pub use new_directory::{NewDirectory, NewFile};
pub use together::{at_once, together};
#[cfg(target_arch = "wasm32")]
pub use web::{
    ByteSource, CAN_BLOCK, HostPeak, JsFile, Listener, Mount, NewDirectory, NewFile, Progress, Stopwatch, available_memory_bytes,
    fetch_model, file_names, for_each_row, is_file, local_offset_seconds, read_model_text, read_text, replace_file, unix_seconds,
    write_file,
};
