//! Mixture-of-Experts language models on any GPU that WebGPU reaches.
//!
//! [`Engine`] is the door: it loads an ordinary Hugging Face checkpoint, generates text, and gives the logits and the routing of any
//! tokens.
//!
//! ```
//! use moebius::generate::GenerateOptions;
//! use moebius::gpu::DeviceChoice;
//! use moebius::{Engine, LoadOptions};
//!
//! # fn main() -> moebius::Result<()> { pollster::block_on(async {
//! // A folder, or a name on the hub such as "allenai/OLMoE-1B-7B-0924". `DeviceChoice::Cpu` needs no GPU; the default is the best one
//! // that there is.
//! let mut engine = Engine::open("examples/models/demo", LoadOptions::on(DeviceChoice::Cpu)).await?;
//!
//! let ids = engine.tokenizer().encode("Once upon a time", true)?;
//! let mut generation = engine.generate(&ids, &GenerateOptions::default())?;
//! let mut text = String::new();
//! for _ in 0..8 {
//!     let Some(piece) = generation.next().await? else { break };
//!     text.push_str(&piece.text);
//! }
//! assert_eq!(text, ", and the king's son was a");
//! # Ok(()) }) }
//! ```
//!
//! The futures need no runtime: any executor will do. Natively they may move between threads. `default-features = false` leaves out what only
//! the command line needs.
//!
//! Below [`Engine`], in the order in which they build on each other: [`spec`] says what a model is, [`checkpoint`] reads its weights,
//! [`mod@reference`] computes it in plain Rust, [`gpu`] and [`kernels`] compute it on a device, [`conformance`] compares
//! the two, [`paging`] decides which experts are on the device, [`model`] puts a whole decoder together, [`generate`] turns it into text,
//! and [`mod@bench`] measures how fast all of it is.

pub mod batch;
pub mod bench;
mod blocks;
pub mod checkpoint;
pub mod conformance;
mod engine;
pub mod error;
pub mod gating;
pub mod generate;
pub mod gpu;
pub mod kernels;
pub mod model;
pub mod paging;
pub mod platform;
pub mod quant;
pub mod reference;
pub mod spec;
pub mod tensor;
pub mod trace;
pub mod train;
pub mod upcycle;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use engine::{
    ChatPrompt, DeviceDescription, Engine, LoadEvent, LoadOptions, Perplexity, check_files, choose_context, fetch_model,
};
pub use error::{Error, Result};
