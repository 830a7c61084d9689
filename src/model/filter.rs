//! The dispatches of attention whose query and key are made of a local filter.

use super::gpu_decoder::GpuDecoder;
use super::plan::{Input, Planner};
use super::weights::{AttentionWeights, FilterWeights};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::{causal_pair, matmul};
use crate::quant::padded;
use crate::spec::{AttentionSpec, FilterSpec, LayerSpec, NormSpec};

impl Planner<'_> {
    /// Raw query, key and value to `state.qkv`: the first two of the filtered input, the value of the input.
    pub(super) fn project_filtered(
        &mut self,
        layer: usize,
        spec: &LayerSpec,
        (attention, filter): (&AttentionSpec, &FilterSpec),
        weights: &AttentionWeights,
        own: &FilterWeights,
    ) -> Result<()> {
        let GpuDecoder { spec: model, state, .. } = self.decoder;
        let (hidden, middle, x) = (model.hidden_size, filter.middle, self.normed_input(layer, spec)?.x);
        let row = padded(attention.qkv_rows());
        let caches = state.layers[layer].filter.as_ref().expect("a filter has its caches");
        let memory = &state.filter;

        self.pair(layer, hidden, x, [&caches[0], &memory.pair])?;
        let replace = |width: usize| (matmul::Output::Replace, width);
        let input = Input { x: &memory.pair, cols: 2 * hidden, norm: None };
        self.project(layer, (&own.first, Some(&own.first_bias)), input, replace(padded(middle)), &memory.middle)?;
        self.pair(layer, middle, &memory.middle, [&caches[1], &memory.pair])?;
        self.recording.copy(x, &memory.sum, 0, state.row_bytes(self.key.num_tokens));
        let (input, add) = (Input { cols: 2 * middle, ..input }, (matmul::Output::Add, padded(hidden)));
        self.project(layer, (&own.second, Some(&own.second_bias)), input, add, &memory.sum)?;
        let norm = NormSpec::rms(filter.norm_eps);
        self.norm(Some(layer), norm, &own.norm, [&memory.sum, &memory.normed], (0, self.key.num_tokens), None)?;

        let qk = (&weights.qkv, weights.qkv_bias.as_ref());
        self.project(layer, qk, Input { x: &memory.normed, cols: hidden, norm: None }, replace(row), &state.qkv)?;
        let values = attention.num_kv_heads * attention.value_dim;
        self.project(layer, (&own.value, None), Input { x, cols: hidden, norm: None }, replace(padded(values)), &state.attended)?;
        self.place(layer, values, attention.projected_rows(), [&state.attended, &state.qkv], [padded(values), row])
    }

    fn pair(&mut self, layer: usize, width: usize, x: &Buffer, [cache, y]: [&Buffer; 2]) -> Result<()> {
        let GpuDecoder { device, state, shape, .. } = self.decoder;
        let problem = causal_pair::Problem { num_tokens: self.key.num_tokens, width, context: shape.context };
        let buffers = causal_pair::Buffers { rows: &state.rows, x, cache, y };
        causal_pair::record(device, &mut self.recording, Some(layer), &problem, &buffers)
    }
}
