//! One file per kind of block: what it records on a device, and the same from the reference twins.
//!
//! A layer is a list of blocks ([`BlockSpec`]). Its weights and what it keeps of each position are declared beside its spec; the buffers that
//! it works in it asks for by name ([`Recorder::scratch`]). To add a kind: its spec, its file here, and one line in each `match` below.

mod attention;
mod attention_experts;
mod experts;
mod halt;
mod host;
mod latent;
mod local_filter;
mod memory;
mod mlp;
mod parallel;
mod recorder;
mod recurrent;
mod scratch;
mod short_conv;
mod taps;
mod weights;

pub(crate) use halt::HaltRecord;
pub(crate) use host::{HostBlock, HostPass, HostWeights, norm_if};
pub(crate) use memory::{LayerMemory, Memory, caches};
pub(crate) use parallel::keep_input;
pub(crate) use recorder::{Cut, Normed, Parts, Pass, Recorder};
pub use scratch::TAPS;
pub(crate) use scratch::{Arena, Scratch, Sizes};
pub(crate) use taps::LayerTaps;
pub(crate) use weights::{DeviceWeight, DeviceWeights, Matrix};

use crate::batch::LayerRouting;
use crate::error::Result;
use crate::spec::BlockSpec;

/// Records `x += post_norm(block(norm(x)))`, with the norms that the layer has, for block number `index` of the layer that is being recorded.
pub(crate) fn record(recorder: &mut Recorder, index: usize) -> Result<()> {
    let block = recorder.begin(index);
    match block {
        BlockSpec::Attention(spec) => attention::record(recorder, spec)?,
        BlockSpec::AttentionExperts(spec) => attention_experts::record(recorder, spec)?,
        BlockSpec::Latent(spec) => latent::record(recorder, spec)?,
        BlockSpec::Mlp(spec) => mlp::record(recorder, spec)?,
        BlockSpec::Experts(spec) => experts::record(recorder, spec)?,
        BlockSpec::Parallel(spec) => parallel::record(recorder, spec)?,
        BlockSpec::ShortConv(spec) => short_conv::record(recorder, spec)?,
        BlockSpec::Recurrent(spec) => recurrent::record(recorder, spec)?,
    }
    recorder.close()
}

/// What a block makes of some rows, from the twins.
pub(crate) struct HostOutput {
    /// `[n, hidden]`, added to the residual stream now.
    pub y: Vec<f32>,
    /// `[n, hidden]`, added at the end of the next layer.
    pub deferred: Option<Vec<f32>>,
    /// What a router of experts did.
    pub routing: Option<LayerRouting>,
    /// What a router did that chooses projections of attention.
    pub choice: Option<LayerRouting>,
}

impl HostOutput {
    fn plain(y: Vec<f32>) -> Self {
        HostOutput { y, deferred: None, routing: None, choice: None }
    }
}

/// As [`record`], without the norm that follows: what the block gives for the rows of `pass`.
pub(crate) fn reference(block: &BlockSpec, pass: &HostPass, memory: &mut HostBlock) -> HostOutput {
    match block {
        BlockSpec::Attention(spec) => HostOutput::plain(attention::reference(spec, pass, memory)),
        BlockSpec::AttentionExperts(spec) => attention_experts::reference(spec, pass, memory),
        BlockSpec::Latent(spec) => HostOutput::plain(latent::reference(spec, pass, memory)),
        BlockSpec::Mlp(spec) => HostOutput::plain(mlp::reference(spec, pass)),
        BlockSpec::Experts(spec) => experts::reference(spec, pass),
        BlockSpec::Parallel(spec) => parallel::reference(spec, pass),
        BlockSpec::Recurrent(spec) => HostOutput::plain(recurrent::reference(spec, pass, memory)),
        BlockSpec::ShortConv(_) => HostOutput::plain(short_conv::reference(pass, memory)),
    }
}
