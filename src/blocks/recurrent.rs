//! A linear recurrence in place of attention.

use super::attention::{output, project_output};
use super::host::{HostBlock, HostPass};
use super::recorder::{Input, InputNorm, Projection, Recorder};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::norm::Fused;
use crate::kernels::scan::DecayBuffers;
use crate::kernels::{gated_norm, matmul, norm, scan, short_conv};
use crate::quant::padded;
use crate::reference::gated_norm::gated_norm as gated_norm_twin;
use crate::reference::matmul::{add_bias, decays, matmul as matmul_twin};
use crate::reference::norm::norm as norm_twin;
use crate::reference::{scan as scan_twin, short_conv as short_conv_twin};
use crate::spec::{ConvolutionSpec, Decay, NormSpec, RecurrentSpec, Role, Rule};

/// Where the gate of the output lies: the first columns of the rows of a buffer.
struct Gate {
    buffer: Buffer,
    stride: usize,
}

/// `target += output(gated_norm(scan(convolution(channels)), gate))`
pub(super) fn record(recorder: &mut Recorder, spec: &RecurrentSpec) -> Result<()> {
    let target = recorder.open()?;
    let input = recorder.input();
    let wide = recorder.scratch("recurrent_input", padded(spec.projected()));
    recorder.project(&Projection::new(recorder.matrix(Role::RecurrentInput), &input, &wide))?;
    let scanned = recorder.scratch("recurrent_output", padded(spec.inner()));
    let gate = match spec.decay {
        Decay::Head { .. } => by_head(recorder, spec, [&wide, &scanned])?,
        Decay::Channel { rank } => by_channel(recorder, spec, rank, [&wide, &scanned])?,
        Decay::Pair { rank, eps } => by_pair(recorder, spec, NormSpec::rms(eps), [rank, spec.inner()], [&wide, &scanned])?,
        Decay::Constant { .. } => constant(recorder, spec, [&wide, &scanned])?,
    };
    let Some(norm) = &spec.norm else { return project_output(recorder, scanned, spec.inner(), &target) };
    let attended = recorder.scratch("attended", padded(spec.inner()));
    let problem = gated_norm::Problem {
        num_tokens: recorder.pass.num_tokens,
        cols: spec.inner(),
        norm,
        stride: padded(spec.inner()),
        gate_stride: gate.stride,
        gate_first: 0,
    };
    let weight = vector(recorder, Role::RecurrentNorm);
    let buffers = gated_norm::Buffers { x: &scanned, gate: &gate.buffer, weight, y: &attended };
    gated_norm::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    project_output(recorder, attended, spec.inner(), &target)
}

/// # Panics
/// If the layer has no such vector: the spec of the block declares it.
fn vector<'a>(recorder: &Recorder<'a>, role: Role) -> &'a Buffer {
    recorder.vector(role).unwrap_or_else(|| panic!("layer {} has no {role:?}", recorder.layer))
}

/// What a scan reads besides its decays, and writes.
struct Scanned<'b> {
    x: &'b Buffer,
    steps: Option<&'b Buffer>,
    y: &'b Buffer,
    decay: DecayBuffers<'b>,
}

fn scan(recorder: &mut Recorder, spec: &RecurrentSpec, scanned: Scanned) -> Result<()> {
    let Scanned { x, steps, y, decay } = scanned;
    let (rows, state) = (&recorder.memory.rows, recorder.own_memory().state("recurrent_state"));
    let buffers = scan::Buffers { rows, x, steps, state, y, decay };
    let problem = scan::Problem { num_tokens: recorder.pass.num_tokens, spec };
    scan::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)
}

/// Steps and betas, or what leads to them.
fn project_steps(recorder: &mut Recorder, stride: usize) -> Result<Buffer> {
    let input = recorder.input();
    let steps = recorder.scratch("recurrent_steps", stride);
    let projection = Projection::new(recorder.matrix(Role::RecurrentStep), &input, &steps);
    recorder.project(&Projection { y_stride: stride, ..projection })?;
    Ok(steps)
}

fn by_head(recorder: &mut Recorder, spec: &RecurrentSpec, [wide, scanned]: [&Buffer; 2]) -> Result<Gate> {
    let steps = project_steps(recorder, spec.step_stride())?;
    let x = &convolve(recorder, spec, wide)?;
    let (step_bias, decay) = (vector(recorder, Role::RecurrentStepBias), vector(recorder, Role::RecurrentDecay));
    let decay = DecayBuffers::Head { step_bias, decay, skip: recorder.vector(Role::RecurrentSkip) };
    scan(recorder, spec, Scanned { x, steps: Some(&steps), y: scanned, decay })?;
    Ok(Gate { buffer: wide.clone(), stride: padded(spec.projected()) })
}

fn by_channel(recorder: &mut Recorder, spec: &RecurrentSpec, rank: usize, [wide, scanned]: [&Buffer; 2]) -> Result<Gate> {
    let stride = spec.step_stride();
    let steps = project_steps(recorder, stride)?;
    let decays = recorder.scratch("recurrent_decays", padded(spec.value_heads * spec.key_dim));
    let gate = recorder.scratch("recurrent_gate", padded(spec.inner()));
    let down = |first: usize| Input { part: Some(matmul::Part { stride, first }), ..Input::plain(steps.clone(), rank) };
    recorder.project(&Projection {
        bias: Some(vector(recorder, Role::RecurrentStepBias)),
        decay: Some(vector(recorder, Role::RecurrentDecay)),
        output: matmul::Output::Decay { rows: spec.key_dim },
        ..Projection::new(recorder.matrix(Role::RecurrentStepUp), &down(0), &decays)
    })?;
    recorder.project(&Projection::new(recorder.matrix(Role::RecurrentGate), &down(rank), &gate))?;
    let x = &convolve(recorder, spec, wide)?;
    let decay = DecayBuffers::Channel { decays: &decays };
    scan(recorder, spec, Scanned { x, steps: Some(&steps), y: scanned, decay })?;
    Ok(Gate { buffer: gate, stride: padded(spec.inner()) })
}

fn by_pair(
    recorder: &mut Recorder,
    spec: &RecurrentSpec,
    norm: NormSpec,
    [rank, inner]: [usize; 2],
    [wide, scanned]: [&Buffer; 2],
) -> Result<Gate> {
    let x = convolve(recorder, spec, wide)?;
    let input = Input::plain(x.clone(), inner);
    let middle = recorder.scratch("recurrent_steps_raw", padded(rank));
    let steps = recorder.scratch("recurrent_steps", spec.step_stride());
    let keys = recorder.scratch("recurrent_keys", padded(2 * spec.key_dim));
    recorder.project(&Projection::new(recorder.matrix(Role::RecurrentStep), &input, &middle))?;
    recorder.project(&Projection::new(recorder.matrix(Role::RecurrentSelection), &input, &keys))?;
    let (matrix, bias) = (recorder.matrix(Role::RecurrentStepUp), recorder.vector(Role::RecurrentStepBias));
    let input = normed_steps(recorder, norm, middle, rank)?;
    recorder.project(&Projection { bias, ..Projection::new(matrix, &input, &steps) })?;
    let vectors = vector(recorder, Role::RecurrentDecay);
    let decay = DecayBuffers::Pair { keys: &keys, vectors, gate: wide };
    scan(recorder, spec, Scanned { x: &x, steps: Some(&steps), y: scanned, decay })?;
    Ok(Gate { buffer: wide.clone(), stride: padded(spec.projected()) })
}

/// `middle` through its norm: of a single token the product does that itself.
fn normed_steps<'a>(recorder: &mut Recorder<'a>, norm: NormSpec, middle: Buffer, rank: usize) -> Result<Input<'a>> {
    let (weight, num_tokens) = (vector(recorder, Role::RecurrentStepNorm), recorder.pass.num_tokens);
    if let (true, Some(fused)) = (recorder.pass.is_decode(), Fused::from_spec(norm)) {
        return Ok(Input { norm: Some(InputNorm { fused, weight }), ..Input::plain(middle, rank) });
    }
    let normed = recorder.scratch("recurrent_steps_normed", padded(rank));
    let problem =
        norm::Problem { first_row: 0, num_tokens, cols: rank, norm, residual: None, output_scale: false, rescale: None };
    let buffers = norm::Buffers { x: &middle, weight, y: &normed, output_scale: None };
    norm::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    Ok(Input::plain(normed, rank))
}

fn constant(recorder: &mut Recorder, spec: &RecurrentSpec, [wide, scanned]: [&Buffer; 2]) -> Result<Gate> {
    let gate = recorder.scratch("recurrent_gate", padded(spec.inner()));
    let input = recorder.input();
    recorder.project(&Projection::new(recorder.matrix(Role::RecurrentGate), &input, &gate))?;
    scan(recorder, spec, Scanned { x: wide, steps: None, y: scanned, decay: DecayBuffers::Constant })?;
    Ok(Gate { buffer: gate, stride: padded(spec.inner()) })
}

/// The channels behind the gate, after the convolution and its activation.
fn convolve(recorder: &mut Recorder, spec: &RecurrentSpec, wide: &Buffer) -> Result<Buffer> {
    let ConvolutionSpec { len, bias } = convolution(spec);
    let convolved = recorder.scratch("convolved", padded(spec.channels()));
    let problem = short_conv::Problem {
        num_tokens: recorder.pass.num_tokens,
        channels: spec.channels(),
        len,
        x_stride: padded(spec.projected()),
        x_first: spec.gate_width(),
        bias,
        silu: true,
        gated: false,
    };
    let buffers = short_conv::Buffers {
        rows: &recorder.memory.rows,
        x: wide,
        weight: vector(recorder, Role::Convolution),
        bias: recorder.vector(Role::ConvolutionBias),
        state: recorder.own_memory().state("convolution_inputs"),
        y: &convolved,
    };
    short_conv::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    Ok(convolved)
}

fn convolution(spec: &RecurrentSpec) -> ConvolutionSpec {
    spec.conv.expect("only channels with constant decays go through no convolution")
}

/// `[n, hidden]`
pub(super) fn reference(spec: &RecurrentSpec, pass: &HostPass, memory: &mut HostBlock) -> Vec<f32> {
    let hidden_size = pass.model.hidden_size;
    let wide = matmul_twin(&pass.normed, pass.weight(Role::RecurrentInput), hidden_size);
    let [gate, channels] = split(&wide, [spec.gate_width(), spec.channels()]);
    let x = if spec.conv.is_some() { convolve_on_host(spec, pass, memory, &channels) } else { channels };
    let made = Made::new(spec, pass, &x, gate);
    let decay = pass.find(Role::RecurrentDecay).unwrap_or_default();
    let inputs = scan_twin::Inputs {
        steps: &made.steps,
        betas: &made.betas,
        step_bias: pass.find(Role::RecurrentStepBias).unwrap_or_default(),
        decay,
        decays: &made.decays,
        skip: pass.find(Role::RecurrentSkip).unwrap_or_default(),
        ..scan_twin::Inputs::new(spec, pass.rows, &x)
    };
    let inputs = match spec.decay {
        Decay::Pair { .. } => {
            let (decay, others) = decay.split_at(spec.inner() * spec.key_dim);
            let (skip, norms) = others.split_at(spec.inner());
            let key_norms = [&norms[..spec.key_dim], &norms[spec.key_dim..]];
            scan_twin::Inputs { decay, skip, keys: &made.keys, key_norms, gate: &made.gate, ..inputs }
        }
        _ => inputs,
    };
    let scanned = scan_twin::scan(&inputs, memory.carried("recurrent_state"));
    match &spec.norm {
        Some(norm) => output(pass, &gated_norm_twin(norm, &scanned, &made.gate, pass.weight(Role::RecurrentNorm)), spec.inner()),
        None => output(pass, &scanned, spec.inner()),
    }
}

/// Rows of two parts, each part by itself.
fn split(rows: &[f32], [first, second]: [usize; 2]) -> [Vec<f32>; 2] {
    let mut parts = [Vec::new(), Vec::new()];
    for row in rows.chunks_exact(first + second) {
        parts[0].extend_from_slice(&row[..first]);
        parts[1].extend_from_slice(&row[first..]);
    }
    parts
}

fn convolve_on_host(spec: &RecurrentSpec, pass: &HostPass, memory: &mut HostBlock, channels: &[f32]) -> Vec<f32> {
    let inputs = short_conv_twin::Inputs {
        rows: pass.rows,
        channels: spec.channels(),
        x: channels,
        weight: pass.weight(Role::Convolution),
        bias: pass.find(Role::ConvolutionBias),
        silu: true,
        gated: false,
    };
    short_conv_twin::short_conv(&inputs, memory.carried("convolution_inputs"))
}

/// What is made for a scan and for the norm after it.
#[derive(Default)]
struct Made {
    steps: Vec<f32>,
    betas: Vec<f32>,
    decays: Vec<f32>,
    keys: Vec<f32>,
    gate: Vec<f32>,
}

impl Made {
    /// `x` is what the channels are after their convolution, `gate` what the input projection gives of it.
    fn new(spec: &RecurrentSpec, pass: &HostPass, x: &[f32], gate: Vec<f32>) -> Self {
        let (normed, hidden_size) = (&*pass.normed, pass.model.hidden_size);
        match spec.decay {
            Decay::Head { .. } => {
                let steps = matmul_twin(normed, pass.weight(Role::RecurrentStep), hidden_size);
                let betas = if spec.rule == Rule::Delta { spec.value_heads } else { 0 };
                let [steps, betas] = split(&steps, [spec.value_heads, betas]);
                Made { steps, betas, gate, ..Made::default() }
            }
            Decay::Channel { rank } => {
                let steps = matmul_twin(normed, pass.weight(Role::RecurrentStep), hidden_size);
                let [downs, betas] = split(&steps, [2 * rank, spec.value_heads]);
                let [step, gate] = split(&downs, [rank, rank]);
                let mut values = matmul_twin(&step, pass.weight(Role::RecurrentStepUp), rank);
                add_bias(&mut values, pass.weight(Role::RecurrentStepBias));
                decays(&mut values, spec.value_heads * spec.key_dim, pass.weight(Role::RecurrentDecay));
                let gate = matmul_twin(&gate, pass.weight(Role::RecurrentGate), rank);
                Made { betas, decays: values, gate, ..Made::default() }
            }
            Decay::Pair { rank, eps } => {
                let middle = matmul_twin(x, pass.weight(Role::RecurrentStep), spec.inner());
                let middle = norm_twin(&NormSpec::rms(eps), &middle, pass.weight(Role::RecurrentStepNorm));
                let mut steps = matmul_twin(&middle, pass.weight(Role::RecurrentStepUp), rank);
                add_bias(&mut steps, pass.weight(Role::RecurrentStepBias));
                let keys = matmul_twin(x, pass.weight(Role::RecurrentSelection), spec.inner());
                Made { steps, keys, gate, ..Made::default() }
            }
            Decay::Constant { .. } => {
                Made { gate: matmul_twin(normed, pass.weight(Role::RecurrentGate), hidden_size), ..Made::default() }
            }
        }
    }
}
