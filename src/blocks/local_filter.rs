//! The local filter before query and key: two causal convolutions over two positions.

use super::host::{HostBlock, HostPass};
use super::recorder::{Input, Normed, Placed, Projection, Recorder};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::{causal_pair, matmul};
use crate::quant::padded;
use crate::reference::causal_pair::causal_pair as pair_twin;
use crate::reference::matmul::{add_bias, matmul as matmul_twin};
use crate::reference::norm::norm as norm_twin;
use crate::spec::{AttentionSpec, FilterSpec, NormSpec, Role};

/// Raw query, key and value to `qkv`: the first two of the filtered input, the value of the input.
pub(super) fn record(recorder: &mut Recorder, attention: &AttentionSpec, filter: &FilterSpec, qkv: &Buffer) -> Result<()> {
    let (hidden, middle, num_rows) = (recorder.model.hidden_size, filter.middle, recorder.pass.num_tokens);
    let x = recorder.normed_input()?.x;
    let row = padded(attention.qkv_rows());
    let memory = recorder.own_memory();
    let (inputs, middles) = (memory.state("filter_inputs"), memory.state("filter_middles"));
    let pairs = recorder.scratch("filter_pair", padded(2 * hidden.max(middle)));
    let middle_rows = recorder.scratch("filter_middle", padded(middle));
    let (sum, normed) = (recorder.stream("filter_sum"), recorder.stream("filter_normed"));

    pair(recorder, hidden, &x, [inputs, &pairs])?;
    let input = Input::plain(pairs.clone(), 2 * hidden);
    let first = recorder.matrix(Role::FilterFirst);
    let bias = recorder.vector(Role::FilterFirstBias);
    recorder.project(&Projection { bias, ..Projection::new(first, &input, &middle_rows) })?;
    pair(recorder, middle, &middle_rows, [middles, &pairs])?;
    let bytes = recorder.stream_bytes();
    recorder.recording.copy(&x, &sum, 0, bytes);
    let input = Input { cols: 2 * middle, ..input };
    let second = recorder.matrix(Role::FilterSecond);
    let bias = recorder.vector(Role::FilterSecondBias);
    recorder.project(&Projection { bias, output: matmul::Output::Add, ..Projection::new(second, &input, &sum) })?;
    let norm = NormSpec::rms(filter.norm_eps);
    let weight = recorder.vector(Role::FilterNorm).expect("a filter has a norm");
    let layer = Some(recorder.layer);
    recorder.norm(layer, &Normed { norm, weight, x: &sum, y: &normed, first_row: 0, num_rows, residual: None, rescale: None })?;

    let input = Input::plain(normed, hidden);
    recorder.project_qkv(&input, qkv, row)?;
    let values = attention.value_rows();
    // They wait where the output of the heads comes to lie.
    let waiting = recorder.scratch("attended", padded(attention.qkv_rows()));
    let input = Input::plain(x, hidden);
    recorder.project(&Projection::new(recorder.matrix(Role::Value), &input, &waiting))?;
    let first = attention.projected_rows();
    recorder.place(&Placed { x: &waiting, x_stride: padded(values), len: values, y: qkv, y_stride: row, first })
}

fn pair(recorder: &mut Recorder, width: usize, x: &Buffer, [cache, y]: [&Buffer; 2]) -> Result<()> {
    let (num_tokens, context) = (recorder.pass.num_tokens, recorder.memory.cache.context);
    let problem = causal_pair::Problem { num_tokens, width, context };
    let buffers = causal_pair::Buffers { rows: &recorder.memory.rows, x, cache, y };
    causal_pair::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)
}

/// `[n, qkv_rows]`: query and key of the filtered input, value of the input.
pub(super) fn reference(spec: &AttentionSpec, filter: &FilterSpec, pass: &HostPass, memory: &mut HostBlock) -> Vec<f32> {
    let (rows, context, hidden_size, x) = (pass.rows, pass.context, pass.model.hidden_size, &*pass.normed);
    let [inputs, middles] = &mut memory.filter;
    let pair = pair_twin(rows, context, hidden_size, x, inputs);
    let mut middle = matmul_twin(&pair, pass.weight(Role::FilterFirst), 2 * hidden_size);
    add_bias(&mut middle, pass.weight(Role::FilterFirstBias));
    let pair = pair_twin(rows, context, filter.middle, &middle, middles);
    let mut filtered = matmul_twin(&pair, pass.weight(Role::FilterSecond), 2 * filter.middle);
    add_bias(&mut filtered, pass.weight(Role::FilterSecondBias));
    filtered.iter_mut().zip(x).for_each(|(y, x)| *y += x);
    let normed = norm_twin(&NormSpec::rms(filter.norm_eps), &filtered, pass.weight(Role::FilterNorm));

    let mut qk = matmul_twin(&normed, pass.weight(Role::Qkv), hidden_size);
    if let Some(bias) = pass.find(Role::QkvBias) {
        add_bias(&mut qk, bias);
    }
    let values = matmul_twin(x, pass.weight(Role::Value), hidden_size);
    let (qk_wide, values_wide) = (spec.projected_rows(), spec.value_rows());
    let rows = qk.chunks_exact(qk_wide).zip(values.chunks_exact(values_wide));
    rows.flat_map(|(qk, values)| qk.iter().chain(values)).copied().collect()
}
