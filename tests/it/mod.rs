//! What the library promises, by subject.

mod checkpoint;
mod composer;
mod config;
mod conformance;
mod gating;
mod parameters;
mod quant;
mod reference;
mod safetensors_header;
mod shaders;
mod twins;
