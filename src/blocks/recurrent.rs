//! A linear recurrence in place of attention.

use super::attention::{output, project_output};
use super::host::{HostBlock, HostPass};
use super::recorder::{Projection, Recorder};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::{gated_norm, scan, short_conv};
use crate::quant::padded;
use crate::reference::gated_norm::gated_norm as gated_norm_twin;
use crate::reference::matmul::matmul as matmul_twin;
use crate::reference::{scan as scan_twin, short_conv as short_conv_twin};
use crate::spec::{RecurrentSpec, Role};

/// `target += output(gated_norm(scan(convolution(channels)), gate))`
pub(super) fn record(recorder: &mut Recorder, spec: &RecurrentSpec) -> Result<()> {
    let target = recorder.open()?;
    let input = recorder.input();
    let wide = recorder.scratch("recurrent_input", padded(spec.projected()));
    let steps = recorder.scratch("recurrent_steps", padded(spec.value_heads));
    let scanned = recorder.scratch("recurrent_output", padded(spec.inner()));
    let attended = recorder.scratch("attended", padded(spec.inner()));
    for (role, y) in [(Role::RecurrentInput, &wide), (Role::RecurrentStep, &steps)] {
        recorder.project(&Projection::new(recorder.matrix(role), &input, y))?;
    }
    let convolved = convolve(recorder, spec, &wide)?;
    let (device, layer, num_tokens) = (recorder.device, Some(recorder.layer), recorder.pass.num_tokens);
    let vector = |role: Role| recorder.vector(role).expect("a recurrence has all of its vectors");
    let problem = scan::Problem {
        num_tokens,
        spec,
        x_stride: padded(spec.channels()),
        step_stride: padded(spec.value_heads),
        y_stride: padded(spec.inner()),
    };
    let buffers = scan::Buffers {
        rows: &recorder.memory.rows,
        x: &convolved,
        steps: &steps,
        step_bias: vector(Role::RecurrentStepBias),
        decay: vector(Role::RecurrentDecay),
        skip: vector(Role::RecurrentSkip),
        state: recorder.own_memory().state("recurrent_state"),
        y: &scanned,
    };
    let weight = vector(Role::RecurrentNorm);
    scan::record(device, &mut recorder.recording, layer, &problem, &buffers)?;
    let problem = gated_norm::Problem {
        num_tokens,
        cols: spec.inner(),
        norm: &spec.norm,
        stride: padded(spec.inner()),
        gate_stride: padded(spec.projected()),
        gate_first: 0,
    };
    let buffers = gated_norm::Buffers { x: &scanned, gate: &wide, weight, y: &attended };
    gated_norm::record(device, &mut recorder.recording, layer, &problem, &buffers)?;
    project_output(recorder, attended, spec.inner(), &target)
}

/// The channels behind the gate, after the convolution and its activation.
fn convolve(recorder: &mut Recorder, spec: &RecurrentSpec, wide: &Buffer) -> Result<Buffer> {
    let convolved = recorder.scratch("convolved", padded(spec.channels()));
    let problem = short_conv::Problem {
        num_tokens: recorder.pass.num_tokens,
        channels: spec.channels(),
        len: spec.conv_len,
        x_stride: padded(spec.projected()),
        x_first: spec.inner(),
        bias: spec.conv_bias,
        silu: true,
        gated: false,
    };
    let buffers = short_conv::Buffers {
        rows: &recorder.memory.rows,
        x: wide,
        weight: recorder.vector(Role::Convolution).expect("a convolution has a weight"),
        bias: recorder.vector(Role::ConvolutionBias),
        state: recorder.own_memory().state("convolution_inputs"),
        y: &convolved,
    };
    short_conv::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    Ok(convolved)
}

/// `[n, hidden]`
pub(super) fn reference(spec: &RecurrentSpec, pass: &HostPass, memory: &mut HostBlock) -> Vec<f32> {
    let hidden_size = pass.model.hidden_size;
    let wide = matmul_twin(&pass.normed, pass.weight(Role::RecurrentInput), hidden_size);
    let steps = matmul_twin(&pass.normed, pass.weight(Role::RecurrentStep), hidden_size);
    let (mut gate, mut channels) = (Vec::new(), Vec::new());
    for row in wide.chunks_exact(spec.projected()) {
        gate.extend_from_slice(&row[..spec.inner()]);
        channels.extend_from_slice(&row[spec.inner()..]);
    }
    let inputs = short_conv_twin::Inputs {
        rows: pass.rows,
        channels: spec.channels(),
        x: &channels,
        weight: pass.weight(Role::Convolution),
        bias: pass.find(Role::ConvolutionBias),
        silu: true,
        gated: false,
    };
    let convolved = short_conv_twin::short_conv(&inputs, memory.carried("convolution_inputs"));
    let inputs = scan_twin::Inputs {
        spec,
        rows: pass.rows,
        x: &convolved,
        steps: &steps,
        step_bias: pass.weight(Role::RecurrentStepBias),
        decay: pass.weight(Role::RecurrentDecay),
        skip: pass.weight(Role::RecurrentSkip),
    };
    let scanned = scan_twin::scan(&inputs, memory.carried("recurrent_state"));
    let normed = gated_norm_twin(&spec.norm, &scanned, &gate, pass.weight(Role::RecurrentNorm));
    output(pass, &normed, spec.inner())
}
