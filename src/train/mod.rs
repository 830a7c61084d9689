//! Training small Mixture-of-Experts models: settings, text, steps, checkpoints that run.
//!
//! [`Trainer`] is the second door beside [`Engine`](crate::Engine). What it computes is the forward pass of the engine, the way back, and AdamW; on
//! the reference ([`mod@crate::reference::training`]) in f64. Every number that is drawn is a function of the seed and of what it is for, so that a run
//! that was stopped goes on with the same bits.

mod arena;
mod blocks;
mod checkpoint;
mod config;
mod data;
mod device;
mod init;
mod metrics;
mod plan;
mod reference;
mod settings;
mod trainer;
mod vocabulary;

pub use checkpoint::{Saved, step_directory};
pub use data::Data;
pub use device::DeviceSteps;
pub use metrics::metrics_line;
pub use reference::Outcome;
pub use settings::{KEYS, Key, Settings};
pub use trainer::{StepReport, Trainer, TrainerOptions};
pub use vocabulary::Vocabulary;
