//! Mixture-of-Experts language models on any GPU that WebGPU reaches.

pub mod checkpoint;
pub mod conformance;
pub mod error;
pub mod gating;
pub mod gpu;
pub mod kernels;
pub mod platform;
pub mod quant;
pub mod reference;
pub mod spec;
pub mod tensor;

pub use error::{Error, Result};
