//! Options that several commands share; each takes those that act on it.

use super::number;
use clap::Args;
use moebius::gpu::DeviceChoice;
use moebius::paging::ExpertMemory;
use moebius::quant::{CacheChoice, QuantChoice};
use std::num::NonZeroUsize;

/// What the shared options come to; what a command does not take is as if it were not given.
#[derive(Clone, Default)]
pub struct Global {
    pub device: DeviceChoice,
    pub quant: QuantChoice,
    pub kv_cache: CacheChoice,
    pub ctx: Option<NonZeroUsize>,
    pub expert_memory: ExpertMemory,
    /// Several of them, one after the other.
    pub expert_memories: Vec<ExpertMemory>,
    pub verbose: bool,
    /// Why this device, where `auto` was looked into.
    pub why: Option<String>,
}

/// Some of the shared options.
pub trait Shared {
    fn global(&self) -> Global;
}

// What is flattened below has no doc comment: clap would take it for what the command does.

#[derive(Args)]
#[command(next_help_heading = "Device and memory")]
struct Device {
    /// Where to compute: auto, gpu, gpu:N (see `moebius devices`), part of an adapter's name, or cpu for the reference, which is plain Rust.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
}

#[derive(Args)]
#[command(next_help_heading = "Device and memory")]
struct Quant {
    /// Format of the weights in device memory: auto (as stored) or one of `moebius list quants`; also by class, the others as stored:
    /// experts=q4_0,head=q8_0. Classes: experts, shared (with dense layers), attention, embedding, head.
    #[arg(long, default_value = "auto", value_name = "FORMATS")]
    quant: QuantChoice,
}

#[derive(Args)]
#[command(next_help_heading = "Device and memory")]
struct Cache {
    /// Format of the KV cache: f16, f32, or auto, which is f16 where the weights of attention have six bits or fewer.
    #[arg(long, default_value = "auto", value_name = "FORMAT")]
    kv_cache: CacheChoice,
    /// Length of the context in tokens, at most the model's own.
    #[arg(long, value_name = "TOKENS", value_parser = number::positive)]
    ctx: Option<NonZeroUsize>,
}

#[derive(Args)]
#[command(next_help_heading = "Device and memory")]
struct Experts {
    /// Device memory for routed experts: auto (all if they fit, otherwise what is left), all, a size such as 6GiB, or a share such as 50%. Experts
    /// without room are loaded when they are chosen, and the text is the same.
    #[arg(long, default_value = "auto", value_name = "BUDGET", env = "MOEBIUS_EXPERT_MEMORY", hide_env_values = true)]
    expert_memory: ExpertMemory,
}

#[derive(Args)]
#[command(next_help_heading = "Device and memory")]
struct ExpertList {
    /// Device memory for routed experts: auto (all if they fit, otherwise what is left), all, a size such as 6GiB, or a share such as 50%. Several,
    /// such as all,50%,25%, are measured one after the other.
    #[arg(
        long,
        default_value = "auto",
        value_name = "BUDGETS",
        value_delimiter = ',',
        env = "MOEBIUS_EXPERT_MEMORY",
        hide_env_values = true
    )]
    expert_memory: Vec<ExpertMemory>,
}

#[derive(Args)]
#[command(next_help_heading = "Device and memory")]
struct Verbose {
    /// Say more on stderr, such as which tensors were ignored, or every case of a check.
    #[arg(short, long)]
    verbose: bool,
}

// For commands that load a model.
#[derive(Args)]
pub struct Loading {
    #[command(flatten)]
    measuring: Measuring,
    #[command(flatten)]
    experts: Experts,
    #[command(flatten)]
    verbose: Verbose,
}

// For the command that measures how fast one is.
#[derive(Args)]
pub struct Benching {
    #[command(flatten)]
    measuring: Measuring,
    #[command(flatten)]
    experts: ExpertList,
}

// For commands that measure one, or say what it takes.
#[derive(Args)]
pub struct Measuring {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    quant: Quant,
    #[command(flatten)]
    cache: Cache,
}

// For commands without a model.
#[derive(Args)]
pub struct DeviceOnly {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    verbose: Verbose,
}

impl Shared for Loading {
    fn global(&self) -> Global {
        let expert_memory = self.experts.expert_memory;
        Global { verbose: self.verbose.verbose, expert_memory, ..self.measuring.global() }
    }
}

impl Shared for Benching {
    fn global(&self) -> Global {
        let expert_memories = self.experts.expert_memory.clone();
        let expert_memory = expert_memories.first().copied().unwrap_or_default();
        Global { expert_memory, expert_memories, ..self.measuring.global() }
    }
}

impl Shared for Measuring {
    fn global(&self) -> Global {
        let Measuring { device, quant, cache } = self;
        let (device, quant) = (device.device.clone(), quant.quant);
        Global { device, quant, kv_cache: cache.kv_cache, ctx: cache.ctx, ..Global::default() }
    }
}

impl Shared for DeviceOnly {
    fn global(&self) -> Global {
        Global { device: self.device.device.clone(), verbose: self.verbose.verbose, ..Global::default() }
    }
}
