//! What the library promises, by subject.

mod bench;
mod chat;
mod checkpoint;
mod cli;
mod cli_models;
mod composer;
mod config;
mod conformance;
mod engine;
mod families;
mod gating;
mod hub;
mod latent;
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
mod twins_sample;
