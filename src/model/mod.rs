//! A model that is ready to run: a spec and its weights, on a device or on the reference twins.

mod ahead;
mod buffers;
mod cancel;
mod chunk;
mod cost;
mod faults;
mod formats;
mod gpu_decoder;
mod host_records;
mod ledger;
mod load_stats;
mod paged;
mod plan;
mod probing;
mod quantize;
mod reach;
mod records;
mod reference_decoder;
mod reference_pass;
mod resume;
mod sampler;
mod scratch_taps;
mod upload;
mod walk;

pub use crate::blocks::TAPS;
pub use cancel::Cancel;
pub use cost::{TokenCost, expert_bytes, footprint, format_names};
pub use formats::cache_format;
pub use gpu_decoder::{GpuDecoder, LoadParts};
pub use load_stats::{LoadStats, LoadStep};
pub use quantize::{QuantizeOptions, Quantized, quantize, quantize_synthetic};
pub use reach::{Extent, Reach, Resume, Run};
pub use reference_decoder::ReferenceDecoder;
pub use reference_pass::{ReferenceForward, ReferencePass};
pub use scratch_taps::{Tap, TapChoice};

use crate::batch::{LayerRouting, Row, Sampling};
use crate::error::{Error, Result};
use crate::platform::Progress;
use crate::spec::ModelSpec;

/// Either way to run a decoder.
#[derive(Debug)]
pub enum Decoder {
    Gpu(Box<GpuDecoder>),
    Reference(Box<ReferenceDecoder>),
}

/// What a pass over some tokens gives when everything is asked for.
#[derive(Debug, Clone, Default)]
pub struct Forward {
    /// `[num_tokens, vocab_size]`
    pub logits: Vec<f32>,
    /// One entry per MoE layer.
    pub layers: Vec<LayerRouting>,
}

impl Decoder {
    /// Starts a generation: how to choose tokens, and the tokens that count as seen for the repetition penalty.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    pub async fn begin(&mut self, sampling: &Sampling, seen: &[u32]) -> Result<()> {
        match self {
            Decoder::Gpu(decoder) => decoder.begin(sampling, seen).await,
            Decoder::Reference(decoder) => {
                decoder.begin(sampling, seen);
                Ok(())
            }
        }
    }

    /// Routes as `spec` says from now on: the loaded one, but for its routers. The weights stay where they are; what the KV cache holds is to
    /// be replaced.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and [`Error::DeviceLimit`] where activations of more experts do not fit. Then nothing has changed.
    pub async fn set_spec(&mut self, spec: ModelSpec) -> Result<()> {
        match self {
            Decoder::Gpu(decoder) => decoder.set_spec(spec).await,
            Decoder::Reference(decoder) => {
                decoder.set_spec(spec);
                Ok(())
            }
        }
    }

    /// From now on a [`prefill`](Self::prefill) ends between two chunks where `cancel` asks for it.
    pub fn heed(&mut self, cancel: Cancel) {
        match self {
            Decoder::Gpu(decoder) => decoder.cancel = cancel,
            Decoder::Reference(decoder) => decoder.heed(cancel),
        }
    }

    /// Has the device finish compiling what a prompt of so many tokens and its continuation run. `progress` hears the kernels done and in all.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); [`Error::Stopped`] as [`heed`](Self::heed) says.
    pub async fn compile_for(&mut self, num_tokens: usize, progress: &mut Progress<'_>) -> Result<()> {
        match self {
            Decoder::Gpu(decoder) => decoder.compile_for(num_tokens, progress).await,
            Decoder::Reference(_) => Ok(()),
        }
    }

    /// Whether [`routing`](Self::routing) is filled from now on.
    pub fn keep_routing(&mut self, keep: bool) {
        match self {
            Decoder::Gpu(decoder) => decoder.keep_routing(keep),
            Decoder::Reference(decoder) => decoder.keep_routing(keep),
        }
    }

    /// What the routers did with the tokens of the last [`prefill`](Self::prefill) or [`decode`](Self::decode), one entry per MoE layer;
    /// empty unless it is kept.
    pub fn routing(&self) -> &[LayerRouting] {
        match self {
            Decoder::Gpu(decoder) => decoder.routing(),
            Decoder::Reference(decoder) => decoder.routing(),
        }
    }

    /// The longest beginning of the text so far, of at most `wanted` tokens, that [`prefill`](Self::prefill) and [`forward`](Self::forward) can go on
    /// from: all of it where keys and values are all that is kept. A state that does not grow is there only as it was after some positions, so that
    /// up to 63 tokens have to run again.
    pub fn resumable(&self, wanted: usize) -> usize {
        match self {
            Decoder::Gpu(decoder) => decoder.ledger.resumable(wanted),
            Decoder::Reference(decoder) => decoder.resumable(wanted),
        }
    }

    /// Appends `ids` at `position` and chooses the token that follows. What the KV cache holds from `position` on is replaced. The position is one
    /// that [`resumable`](Self::resumable) gives.
    ///
    /// # Errors
    /// As [`begin`](Self::begin); [`Error::Nonsense`] where what a router or the head gives is not finite; [`Error::Stopped`] as
    /// [`heed`](Self::heed) says.
    pub async fn prefill(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        debug_assert_eq!(self.resumable(position), position, "the state is not that after the text so far");
        match self {
            Decoder::Gpu(decoder) => decoder.prefill(ids, position).await,
            Decoder::Reference(decoder) => decoder.prefill(ids, position),
        }
    }

    /// Feeds the last chosen token back and chooses the next. `wanted`: tokens that may be asked for from now on, this one included. A
    /// device may run ahead so far; what it ran for nothing, because the text ends or goes on differently, does not show.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub async fn decode(&mut self, wanted: usize) -> Result<u32> {
        match self {
            Decoder::Gpu(decoder) => decoder.decode(wanted).await,
            Decoder::Reference(decoder) => decoder.decode(),
        }
    }

    /// Appends `ids` at `position` and returns the logits and the routing of each.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill).
    pub async fn forward(&mut self, ids: &[u32], position: usize) -> Result<Forward> {
        debug_assert_eq!(self.resumable(position), position, "the state is not that after the text so far");
        match self {
            Decoder::Gpu(decoder) => decoder.forward(ids, position).await,
            Decoder::Reference(decoder) => decoder.forward(ids, position),
        }
    }

    /// Assignments of each expert of each MoE layer since the generation began.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub async fn expert_loads(&self) -> Result<Vec<Vec<u64>>> {
        match self {
            Decoder::Gpu(decoder) => decoder.expert_loads().await,
            Decoder::Reference(decoder) => Ok(decoder.expert_loads()),
        }
    }
}

/// Consecutive tokens of the one sequence, from `position` on.
fn chunk_rows(ids: &[u32], position: usize) -> Vec<Row> {
    (position as u32..).zip(ids).map(|(position, &token)| Row::new(token, position, 0)).collect()
}

/// Ends a prompt of which the caller wants no more.
fn go_on(cancel: &Cancel) -> Result<()> {
    if cancel.is_requested() { Err(Error::Stopped { what: "reading the prompt" }) } else { Ok(()) }
}

/// A model that cannot fit is refused before anything is read.
fn check_memory(device: &crate::gpu::Device, needed_bytes: u64) -> Result<()> {
    match device.caps().memory_bytes {
        Some(available) if needed_bytes > available => Err(Error::OutOfMemory {
            what: "the model".to_owned(),
            device: device.name().to_owned(),
            needed_bytes,
            available_bytes: Some(available),
        }),
        _ => Ok(()),
    }
}
