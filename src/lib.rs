//! Mixture-of-Experts language models on any GPU that WebGPU reaches.
//!
//! [`Engine`] is the door: it loads an ordinary Hugging Face checkpoint, generates text, and gives the logits and the routing of any
//! tokens. Below it, in the order in which they build on each other: [`spec`] says what a model is, [`checkpoint`] reads its weights,
//! [`mod@reference`] computes it in plain Rust, [`gpu`] and [`kernels`] compute it on a device, [`conformance`] compares
//! the two, [`model`] puts a whole decoder together, [`generate`] turns it into text,
//! and [`mod@bench`] measures how fast all of it is.

pub mod bench;
pub mod checkpoint;
pub mod conformance;
mod engine;
pub mod error;
pub mod gating;
pub mod generate;
pub mod gpu;
pub mod kernels;
pub mod model;
pub mod platform;
pub mod quant;
pub mod reference;
pub mod spec;
pub mod tensor;
pub mod trace;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use engine::{DeviceDescription, Engine, LoadEvent, LoadOptions, Perplexity, check_files, choose_context};
pub use error::{Error, Result};
