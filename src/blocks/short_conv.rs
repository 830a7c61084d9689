//! A gated short convolution in place of attention.

use super::attention::{output, project_output};
use super::host::{HostBlock, HostPass};
use super::recorder::{Projection, Recorder};
use crate::error::Result;
use crate::kernels::short_conv;
use crate::quant::padded;
use crate::reference::matmul::{add_bias, matmul as matmul_twin};
use crate::reference::short_conv as twin;
use crate::spec::{Role, ShortConvSpec};

/// `target += output(c * convolution(b * u))`
pub(super) fn record(recorder: &mut Recorder, spec: &ShortConvSpec) -> Result<()> {
    let target = recorder.open()?;
    let (channels, input) = (recorder.model.hidden_size, recorder.input());
    let wide = recorder.scratch("convolution_input", padded(3 * channels));
    let convolved = recorder.scratch("convolved", padded(channels));
    let bias = recorder.vector(Role::ConvolutionInputBias);
    let matrix = recorder.matrix(Role::ConvolutionInput);
    recorder.project(&Projection { bias, ..Projection::new(matrix, &input, &wide) })?;
    let problem = short_conv::Problem {
        num_tokens: recorder.pass.num_tokens,
        channels,
        len: spec.len,
        x_stride: padded(3 * channels),
        x_first: 0,
        bias: spec.bias,
        silu: false,
        gated: true,
    };
    let buffers = short_conv::Buffers {
        rows: &recorder.memory.rows,
        x: &wide,
        weight: recorder.vector(Role::Convolution).expect("a convolution has a weight"),
        bias: recorder.vector(Role::ConvolutionBias),
        state: recorder.own_memory().state("convolution_inputs"),
        y: &convolved,
    };
    short_conv::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    project_output(recorder, convolved, channels, &target)
}

/// `[n, hidden]`
pub(super) fn reference(pass: &HostPass, memory: &mut HostBlock) -> Vec<f32> {
    let channels = pass.model.hidden_size;
    let mut x = matmul_twin(&pass.normed, pass.weight(Role::ConvolutionInput), channels);
    if let Some(bias) = pass.find(Role::ConvolutionInputBias) {
        add_bias(&mut x, bias);
    }
    let inputs = twin::Inputs {
        rows: pass.rows,
        channels,
        x: &x,
        weight: pass.weight(Role::Convolution),
        bias: pass.find(Role::ConvolutionBias),
        silu: false,
        gated: true,
    };
    output(pass, &twin::short_conv(&inputs, memory.carried("convolution_inputs")), channels)
}
