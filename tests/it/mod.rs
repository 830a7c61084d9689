//! What the library promises, by subject.

mod checkpoint;
mod config;
mod gating;
mod parameters;
mod quant;
mod reference;
mod safetensors_header;
mod twins;
