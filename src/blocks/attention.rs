//! Softmax attention over cached keys and values.

use super::host::{HostBlock, HostPass};
use super::local_filter;
use super::recorder::{Input, Projection, Recorder, Target};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::{attention, attention_merge, matmul, qk_rope, qkv};
use crate::quant::{Quant, padded};
use crate::reference::attention as twin;
use crate::reference::matmul::{add_bias, matmul as matmul_twin, sigmoid};
use crate::reference::{qk_rope as qk_rope_twin, qkv as qkv_twin};
use crate::spec::{AttentionSpec, Role};

/// Where queries, keys and values are after their projection.
enum Projected {
    /// The queries are here, rotated; keys and values are in the cache.
    Rotated(Buffer),
    /// All are here, before norms and rotary embedding.
    Raw(Buffer),
}

/// `target += output(attention(input))`, gated where the spec says so.
pub(super) fn record(recorder: &mut Recorder, spec: &AttentionSpec) -> Result<()> {
    let target = recorder.open()?;
    let problem = problem(recorder, spec);
    let attended = recorder.scratch("attended", padded(spec.output_width()));
    let sinks = recorder.vector(Role::Sinks);
    match project_qkv(recorder, spec)? {
        Projected::Rotated(query) => {
            over_cache(recorder, &problem, &OverCache { query: &query, y: &attended, norms: None, sinks })?;
        }
        Projected::Raw(query) => {
            let problem = attention::Problem { raw: Some(spec), ..problem };
            let norms = qk_norms(recorder);
            over_cache(recorder, &problem, &OverCache { query: &query, y: &attended, norms, sinks })?;
        }
    }
    if let Some(gate) = recorder.find_matrix(Role::AttentionGate) {
        let input = recorder.input();
        recorder.project(&Projection { output: matmul::Output::Gate, ..Projection::new(gate, &input, &attended) })?;
    }
    project_output(recorder, attended, spec.output_width(), &target)
}

/// `target += output(attended)`
pub(super) fn project_output(recorder: &mut Recorder, attended: Buffer, width: usize, target: &Target) -> Result<()> {
    let input = Input::plain(attended, width);
    let (matrix, bias) = (recorder.matrix(Role::AttentionOutput), recorder.vector(Role::AttentionOutputBias));
    let (output, scale) = (matmul::Output::Add, target.scale);
    recorder.project(&Projection { bias, output, scale, ..Projection::new(matrix, &input, &target.buffer) })
}

pub(super) fn problem(recorder: &Recorder, spec: &AttentionSpec) -> attention::Problem<'static> {
    attention::Problem::of_spec(spec, recorder.pass.num_tokens, recorder.memory.cache)
}

/// What attention over a cache reads and writes.
pub(super) struct OverCache<'b> {
    pub query: &'b Buffer,
    pub y: &'b Buffer,
    /// Those of query and key, of a raw problem.
    pub norms: Option<[&'b Buffer; 2]>,
    pub sinks: Option<&'b Buffer>,
}

/// `y = attention of query over the cache`
pub(super) fn over_cache(recorder: &mut Recorder, problem: &attention::Problem, own: &OverCache) -> Result<()> {
    let memory = recorder.own_memory();
    over(recorder, problem, own, [memory.state("k_cache"), memory.state("v_cache")])
}

/// As [`over_cache`], over any keys and values.
pub(super) fn over(
    recorder: &mut Recorder,
    problem: &attention::Problem,
    own: &OverCache,
    [k_cache, v_cache]: [&Buffer; 2],
) -> Result<()> {
    let (device, layer, memory) = (recorder.device, Some(recorder.layer), recorder.own_memory());
    let merge = attention::merge(device.caps(), problem);
    let partials = merge.as_ref().map(|merge| recorder.arena.whole("partials", merge.num_partials()));
    let buffers = attention::Buffers {
        rows: &recorder.memory.rows,
        query: own.query,
        rope: problem.raw.and(memory.rope.as_ref()),
        norms: own.norms,
        k_cache,
        v_cache,
        y: partials.as_ref().unwrap_or(own.y),
        sinks: own.sinks.filter(|_| merge.is_none()),
        bias: None,
    };
    attention::record(device, &mut recorder.recording, layer, problem, &buffers)?;
    let (Some(merge), Some(partials)) = (merge, &partials) else { return Ok(()) };
    let buffers = attention_merge::Buffers { partials, y: own.y, sinks: own.sinks };
    attention_merge::record(device, &mut recorder.recording, layer, &merge, &buffers)
}

fn qk_norms<'a>(recorder: &Recorder<'a>) -> Option<[&'a Buffer; 2]> {
    Some([recorder.vector(Role::QueryNorm)?, recorder.vector(Role::KeyNorm)?])
}

/// Queries to scratch, keys and values to the cache: in one kernel where it can, in two otherwise. Of a single token the second one may be left
/// to the attention.
fn project_qkv(recorder: &mut Recorder, spec: &AttentionSpec) -> Result<Projected> {
    let rope = recorder.own_memory().rope.as_ref();
    if let (false, Some(rope)) = (qk_rope::is_needed(spec), rope) {
        return project_and_rotate(recorder, spec, rope);
    }
    let qkv = recorder.scratch("qkv", padded(spec.qkv_rows()));
    if let Some(filter) = &spec.filter {
        local_filter::record(recorder, spec, filter, &qkv)?;
    } else {
        let input = recorder.input();
        recorder.project_qkv(&input, &qkv, padded(spec.qkv_rows()))?;
    }
    let raw = attention::Problem { raw: Some(spec), ..problem(recorder, spec) };
    if attention::turns(recorder.device.caps(), &raw) {
        return Ok(Projected::Raw(qkv));
    }
    let norms = qk_norms(recorder);
    Ok(Projected::Rotated(rotate(recorder, spec, &qkv, norms)?))
}

/// In one kernel.
fn project_and_rotate(recorder: &mut Recorder, spec: &AttentionSpec, rope: &Buffer) -> Result<Projected> {
    let bias = recorder.vector(Role::QkvBias);
    // With a bias no binding is left for the weight of the norm.
    let input = if bias.is_some() { recorder.normed_input()? } else { recorder.input() };
    let q = recorder.scratch("q", padded(spec.query_width()));
    let (memory, cache) = (recorder.own_memory(), recorder.memory.cache);
    let problem = |quant: Quant| qkv::Problem {
        num_tokens: recorder.pass.num_tokens,
        hidden_size: recorder.model.hidden_size,
        num_heads: spec.num_heads,
        num_kv_heads: spec.num_kv_heads,
        head_dim: spec.head_dim,
        context: cache.context,
        cache: cache.format,
        bias: spec.qkv_bias,
        clip: spec.clip,
        norm: input.norm.map(|norm| norm.fused),
        quant,
    };
    let buffers = |weight| qkv::Buffers {
        rows: &recorder.memory.rows,
        x: &input.x,
        weight,
        bias,
        norm: input.norm.map(|norm| norm.weight),
        rope,
        q: &q,
        k_cache: memory.state("k_cache"),
        v_cache: memory.state("v_cache"),
    };
    for matrix in recorder.matrices(Role::Qkv) {
        let (problem, buffers) = (problem(matrix.quant), buffers(&matrix.shards));
        qkv::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    }
    Ok(Projected::Rotated(q))
}

/// From raw projections to rotated queries, which it gives, and to the cache.
pub(super) fn rotate(recorder: &mut Recorder, spec: &AttentionSpec, qkv: &Buffer, norms: Option<[&Buffer; 2]>) -> Result<Buffer> {
    let q = recorder.scratch("q", padded(spec.query_width()));
    let (memory, cache) = (recorder.own_memory(), recorder.memory.cache);
    let num_tokens = recorder.pass.num_tokens;
    let problem = qk_rope::Problem { num_tokens, context: cache.context, cache: cache.format, attention: spec };
    let buffers = qk_rope::Buffers {
        rows: &recorder.memory.rows,
        qkv,
        rope: memory.rope.as_ref(),
        norms,
        q: &q,
        k_cache: memory.state("k_cache"),
        v_cache: memory.state("v_cache"),
    };
    qk_rope::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    Ok(q)
}

/// `[n, hidden]`
pub(super) fn reference(spec: &AttentionSpec, pass: &HostPass, memory: &mut HostBlock) -> Vec<f32> {
    let (rows, context, x) = (pass.rows, pass.context, &*pass.normed);
    let [query_norm, key_norm] = [Role::QueryNorm, Role::KeyNorm].map(|role| pass.find(role));
    let q = if let Some(filter) = &spec.filter {
        let qkv = local_filter::reference(spec, filter, pass, memory);
        let inputs = qk_rope_twin::Inputs { spec, context, rows, qkv: &qkv, query_norm, key_norm, rope: &memory.rope };
        qk_rope_twin::qk_rope(&inputs, &mut memory.cache)
    } else {
        let (weight, bias) = (pass.weight(Role::Qkv), pass.find(Role::QkvBias));
        let inputs = qkv_twin::Inputs { spec, context, rows, x, weight, bias, query_norm, key_norm, rope: &memory.rope };
        qkv_twin::qkv(&inputs, &mut memory.cache)
    };
    let sinks = pass.find(Role::Sinks);
    let inputs = twin::Inputs { spec, context, rows, q: &q, cache: &memory.cache, sinks, bias: None, value_dim: None };
    let mut attended = twin::attention(&inputs);
    if let Some(gate) = pass.find(Role::AttentionGate) {
        let gates = matmul_twin(x, gate, pass.model.hidden_size);
        attended.iter_mut().zip(gates).for_each(|(value, gate)| *value *= sigmoid(gate));
    }
    output(pass, &attended, spec.output_width())
}

/// `[n, hidden]` from what the heads give.
pub(super) fn output(pass: &HostPass, attended: &[f32], width: usize) -> Vec<f32> {
    let mut y = matmul_twin(attended, pass.weight(Role::AttentionOutput), width);
    if let Some(bias) = pass.find(Role::AttentionOutputBias) {
        add_bias(&mut y, bias);
    }
    y
}
