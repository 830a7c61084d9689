//! What the library promises, by subject.

mod chat;
mod checkpoint;
mod cli;
mod cli_models;
mod composer;
mod config;
mod conformance;
mod engine;
mod gating;
mod hub;
mod layers;
mod parameters;
mod quant;
mod readme;
mod reference;
mod safetensors_header;
mod setup;
mod shaders;
mod stop;
mod text_stream;
mod tokenizer;
mod twins;
