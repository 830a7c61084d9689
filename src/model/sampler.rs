//! Device memory of the sampler, and what leaves the device after every step.

use super::ahead::NUM_SLOTS;
use super::chunk::Chunk;
use crate::batch::{Sampling, seen_words};
use crate::blocks::{HaltRecord, LayerTaps, Memory};
use crate::gpu::{Buffer, Device, Pace, Recording};
use crate::spec::ModelSpec;

/// Sampled tokens that the device keeps for the host to fetch.
pub(super) const RING: usize = 64;

#[derive(Debug)]
pub(super) struct Sampler {
    pub logits: Buffer,
    pub sampling: Buffer,
    /// One bit for every token of the vocabulary.
    pub seen: Buffer,
    /// The chosen tokens, then a copy of the faults that the routers have counted.
    pub sampled: Buffer,
    /// Copies of the expert loads after steps that ran ahead, a slot for each.
    pub load_steps: Buffer,
    /// The expert loads while something runs that is not counted.
    pub loads_aside: Buffer,
    /// A copy of `sampled`, then of the taps after every step of a batch; filled only where routing is asked for.
    pub tap_steps: Buffer,
    /// Where experts may be absent: a copy of `sampled`, then reports of the halt record, then taps.
    pub report: Buffer,
    num_layers: usize,
}

impl Sampler {
    /// Zeroed memory. Call inside [`Device::catch`].
    pub fn new(device: &Device, spec: &ModelSpec, chunk: Chunk, memory: &Memory) -> Self {
        let f32s = |label: &str, len: usize| device.storage(label, (len * 4) as u64);
        let num_layers = spec.layers.len();
        let num_loads = (memory.loads.size_bytes() / 4) as usize;
        let tap_len = LayerTaps::len(&memory.taps, 1);
        let report_len = |halt: &HaltRecord| RING + num_layers + Pace::MOST_STEPS * (halt.report_words() + tap_len);
        Sampler {
            logits: f32s("logits", chunk.max_logit_rows * spec.vocab_size),
            sampling: device.uniform("sampling", bytemuck::bytes_of(&Sampling::GREEDY)),
            seen: f32s("seen", seen_words(spec.vocab_size)),
            sampled: f32s("sampled", RING + num_layers),
            load_steps: f32s("load_steps", NUM_SLOTS * num_loads),
            loads_aside: f32s("loads_aside", num_loads),
            tap_steps: f32s("tap_steps", RING + num_layers + Pace::MOST_STEPS * tap_len),
            report: f32s("report", memory.halt.as_ref().map_or(0, report_len)),
            num_layers,
        }
    }

    /// Bytes of [`sampled`](Self::sampled): the ring, and a word for every layer.
    pub fn sampled_bytes(&self) -> u64 {
        ((RING + self.num_layers) * 4) as u64
    }

    /// Puts what routers counted as not finite behind the ring of tokens, to be read with them.
    pub fn copy_faults(&self, memory: &Memory, recording: &mut Recording) {
        recording.copy(&memory.loads, &self.sampled, (RING * 4) as u64, (self.num_layers * 4) as u64);
    }
}
