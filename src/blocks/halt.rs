//! What a single token leaves on the device for the host where an expert is not there.

use crate::gpu::{Buffer, Device};
use crate::kernels::router_topk::Halting;
use crate::quant::padded;
use crate::spec::ModelSpec;
use std::ops::Range;

/// A halt record: whether a router has halted and where, what routers counted as not finite by layer, what they chose by place, and the residual stream
/// in front of the experts that are missing.
#[derive(Debug)]
pub(crate) struct HaltRecord {
    pub buffer: Buffer,
    num_layers: usize,
    /// Of each place the words of its ids.
    chosen: Vec<Range<usize>>,
    /// Its first word.
    stream: usize,
    stream_len: usize,
}

/// Words of the header: the state, the place, and two that nobody uses.
const HEADER: usize = 4;

impl HaltRecord {
    /// Zeroed: nothing has halted. Call inside [`Device::catch`].
    pub fn new(device: &Device, spec: &ModelSpec) -> Self {
        let num_layers = spec.layers.len();
        let mut end = HEADER + num_layers;
        let mut chosen = Vec::new();
        for (_, moe) in spec.moe_layers() {
            chosen.push(end..end + moe.router.num_experts_per_tok);
            end += moe.router.num_experts_per_tok;
        }
        let (stream, stream_len) = (end.next_multiple_of(4), padded(spec.hidden_size));
        let buffer = device.storage("halt", ((stream + stream_len) * 4) as u64);
        HaltRecord { buffer, num_layers, chosen, stream, stream_len }
    }

    /// Where the router of a place writes.
    pub fn halting(&self, place: usize) -> Halting {
        Halting { place, chosen: self.chosen[place].start, stream: self.stream, stream_quads: self.stream_len / 4 }
    }

    /// Where the router of a layer counts what is not finite.
    pub fn fault_place(&self, layer: usize) -> usize {
        HEADER + layer
    }

    /// Words that the host reads after a step.
    pub fn report_words(&self) -> usize {
        self.chosen.last().map_or(HEADER + self.num_layers, |chosen| chosen.end)
    }

    /// Where the residual stream lies, in bytes.
    pub fn stream_bytes(&self) -> Range<u64> {
        (self.stream * 4) as u64..((self.stream + self.stream_len) * 4) as u64
    }

    /// Words of a header and faults that say that nothing has halted.
    pub fn running(&self) -> Vec<u32> {
        vec![0; HEADER + self.num_layers]
    }

    /// The place that a report says has halted.
    pub fn halted(&self, report: &[u32]) -> Option<usize> {
        (report[0] != 0).then_some(report[1] as usize)
    }

    /// Of a report, what was not finite by layer.
    pub fn faults<'r>(&self, report: &'r [u32]) -> &'r [u32] {
        &report[HEADER..HEADER + self.num_layers]
    }

    /// Of a report, what a place chose.
    pub fn chosen<'r>(&self, report: &'r [u32], place: usize) -> &'r [u32] {
        &report[self.chosen[place].clone()]
    }
}
