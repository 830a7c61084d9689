//! Experts beside a dense MLP. Both are added.

use super::HostOutput;
use super::experts::{Everyone, add_experts, everyone, route_and_run};
use super::host::{HostPass, norm_if};
use super::mlp;
use super::recorder::{Normed, Recorder, Target};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::spec::{ParallelInputs, ParallelSpec, Role};

/// `sum += mlp(..) + experts(..)`, with the inputs and the norms that the spec says, where `sum` is where the block's result goes.
pub(super) fn record(recorder: &mut Recorder, spec: &ParallelSpec) -> Result<()> {
    if spec.inputs != ParallelInputs::LayerInput {
        // Whatever is added to the stream first, the second part reads it as it was.
        keep_input(recorder);
    }
    let sum = recorder.target();
    let before_experts = recorder.vector(Role::FfnNorm);
    let own_norm = recorder.vector(Role::ParallelNorm);
    if let Some(weight) = own_norm.or(before_experts) {
        recorder.norm_stream(weight, "x")?;
    }
    let target = branch_target(recorder, spec, &sum);
    let weights = &recorder.memory.ones;
    everyone(recorder, &Everyone { spec: &spec.dense, roles: mlp::ROLES, weights, target: &target })?;
    close_branch(recorder, recorder.vector(Role::ParallelPostNorm), &sum)?;

    if let (Some(_), Some(weight)) = (own_norm, before_experts) {
        recorder.norm_stream(weight, "layer_input")?;
    }
    let target = if spec.deferred {
        let deferred = recorder.stream("deferred");
        recorder.recording.clear(&deferred);
        Target { buffer: deferred, scale: recorder.layer_spec().residual_scale }
    } else {
        branch_target(recorder, spec, &sum)
    };
    add_experts(recorder, &spec.moe, "layer_input", &target)?;
    close_branch(recorder, recorder.vector(Role::ExpertPostNorm), &sum)
}

/// Keeps the residual stream for the experts, as it is now.
pub(crate) fn keep_input(recorder: &mut Recorder) {
    let (x, layer_input, bytes) = (recorder.x(), recorder.stream("layer_input"), recorder.stream_bytes());
    recorder.recording.copy(&x, &layer_input, 0, bytes);
}

/// Where one of the two puts its result: where the sum goes, or before a norm of its own.
fn branch_target(recorder: &mut Recorder, spec: &ParallelSpec, sum: &Target) -> Target {
    if !spec.post_norms {
        return sum.clone();
    }
    let branch = recorder.stream("branch");
    recorder.recording.clear(&branch);
    Target { buffer: branch, scale: 1.0 }
}

fn close_branch(recorder: &mut Recorder, norm: Option<&Buffer>, sum: &Target) -> Result<()> {
    let Some(weight) = norm else { return Ok(()) };
    let (x, layer) = (recorder.stream("branch"), Some(recorder.layer));
    let (norm, num_rows, residual) = (recorder.layer_spec().norm, recorder.pass.num_tokens, Some(sum.scale));
    recorder.norm(layer, &Normed { norm, weight, x: &x, y: &sum.buffer, first_row: 0, num_rows, residual, rescale: None })
}

/// `[n, hidden]` of both, or of the MLP alone where what the experts give has to wait.
pub(super) fn reference(spec: &ParallelSpec, pass: &HostPass) -> HostOutput {
    let layer = pass.layer_spec();
    let before_experts = pass.find(Role::FfnNorm);
    let before_dense = pass.find(Role::ParallelNorm).or(before_experts);
    let mut dense = vec![0.0; pass.x.len()];
    pass.run_for_all(&spec.dense, mlp::ROLES, &norm_if(layer, pass.x, before_dense), &mut dense);
    let stream = if spec.inputs == ParallelInputs::LayerInput { pass.layer_input } else { pass.x };
    let normed = norm_if(layer, stream, before_experts);
    let (experts, routing) = route_and_run(&spec.moe, pass, [&normed, stream]);
    let dense = norm_if(layer, &dense, pass.find(Role::ParallelPostNorm));
    let experts = norm_if(layer, &experts, pass.find(Role::ExpertPostNorm));
    let (y, deferred) = if spec.deferred {
        (dense, Some(experts.iter().map(|value| layer.residual_scale * value).collect()))
    } else {
        (dense.iter().zip(&experts).map(|(dense, expert)| dense + expert).collect(), None)
    };
    HostOutput { y, deferred, routing: Some(routing), choice: None }
}
