//! The dispatches of experts beside a dense MLP.

use super::experts::Experts;
use super::plan::{Planner, Target};
use super::state::LayerTaps;
use super::weights::{LayerWeights, ParallelWeights};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::Buffer;
use crate::kernels::expert_combine;
use crate::spec::{Ffn, LayerSpec, ParallelInputs, ParallelSpec};

impl<'a> Planner<'a> {
    /// `sum += mlp(..) + experts(..)`, with the inputs and the norms that the spec says, where `sum` is where the part's result goes.
    pub(super) fn parallel(
        &mut self,
        layer: usize,
        spec: &LayerSpec,
        (parallel, weights): (&ParallelSpec, &LayerWeights),
        own: &ParallelWeights,
        taps: &LayerTaps,
    ) -> Result<()> {
        let state = &self.decoder.state;
        let rows = (0, self.key.num_tokens);
        self.fused_norm = None;
        if parallel.inputs != ParallelInputs::LayerInput {
            // Whatever is added to the stream first, the second part reads it as it was.
            self.recording.copy(&state.x, &state.layer_input, 0, state.row_bytes(self.key.num_tokens));
        }
        let sum = if weights.norms.after.is_some() {
            self.recording.clear(&state.part);
            Target { buffer: &state.part, scale: 1.0 }
        } else {
            Target { buffer: &state.x, scale: spec.residual_scale }
        };
        let before_dense = own.norm.as_ref().or(weights.norms.before.as_ref());
        if let Some(weight) = before_dense {
            self.norm(Some(layer), spec.norm, weight, [&state.x, &state.normed], rows, None)?;
        }
        let target = self.branch_target(parallel, sum);
        Experts { planner: self, layer, target }.dense(&parallel.dense, &own.dense)?;
        self.close_branch(layer, spec, own.post_norms.as_ref().map(|[dense, _]| dense), sum)?;

        if let (Some(_), Some(weight)) = (&own.norm, &weights.norms.before) {
            self.norm(Some(layer), spec.norm, weight, [&state.layer_input, &state.normed], rows, None)?;
        }
        let target = if parallel.deferred {
            self.recording.clear(&state.deferred);
            Target { buffer: &state.deferred, scale: spec.residual_scale }
        } else {
            self.branch_target(parallel, sum)
        };
        Experts { planner: self, layer, target }.moe(&parallel.moe, &own.moe, taps)?;
        self.close_branch(layer, spec, own.post_norms.as_ref().map(|[_, experts]| experts), sum)
    }

    /// Where one of the two puts its result: where the sum goes, or before a norm of its own.
    fn branch_target(&mut self, parallel: &ParallelSpec, sum: Target<'a>) -> Target<'a> {
        if !parallel.post_norms {
            return sum;
        }
        let branch = &self.decoder.state.branch;
        self.recording.clear(branch);
        Target { buffer: branch, scale: 1.0 }
    }

    fn close_branch(&mut self, layer: usize, spec: &LayerSpec, norm: Option<&Buffer>, sum: Target) -> Result<()> {
        let Some(weight) = norm else { return Ok(()) };
        let buffers = [&self.decoder.state.branch, sum.buffer];
        self.norm(Some(layer), spec.norm, weight, buffers, (0, self.key.num_tokens), Some(sum.scale))
    }

    /// `x += ` what the experts of the layer before gave, where it had to wait.
    pub(super) fn add_deferred(&mut self, layer: usize) -> Result<()> {
        let before = layer.checked_sub(1).map(|before| &self.decoder.spec.layers[before].ffn);
        if !matches!(before, Some(Ffn::Parallel(ParallelSpec { deferred: true, .. }))) {
            return Ok(());
        }
        let state = &self.decoder.state;
        // A sum over one assignment of weight one.
        let problem = expert_combine::Problem {
            num_tokens: self.key.num_tokens,
            num_experts_per_tok: 1,
            hidden_size: self.decoder.spec.hidden_size,
            weight_on: WeightOn::Output,
            scale: 1.0,
        };
        let buffers = expert_combine::Buffers { y: &state.deferred, weights: &state.ones, x: &state.x };
        expert_combine::record(&self.decoder.device, &mut self.recording, Some(layer), &problem, &buffers)
    }
}
