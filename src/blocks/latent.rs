//! Attention over latents, in absorbed form: only the latent is cached, and one key head serves all queries.

use super::attention::{OverCache, output, over, project_output};
use super::host::{HostBlock, HostPass};
use super::recorder::{Input, Projection, Recorder};
use crate::error::Result;
use crate::gpu::Buffer;
use crate::kernels::{attention, head_matmul, latent, norm};
use crate::quant::padded;
use crate::reference::attention as attention_twin;
use crate::reference::head_matmul as head_matmul_twin;
use crate::reference::latent as latent_twin;
use crate::reference::matmul::matmul as matmul_twin;
use crate::reference::norm::norm as norm_twin;
use crate::spec::{LatentSpec, NormSpec, Role};

/// `target += output(value_up(attention over the cache of latents))`
pub(super) fn record(recorder: &mut Recorder, spec: &LatentSpec) -> Result<()> {
    let target = recorder.open()?;
    let (num_tokens, over_cache) = (recorder.pass.num_tokens, spec.over_cache());
    let raw = recorder.scratch("qkv", padded(spec.query_width()));
    let q = recorder.scratch("q", padded(over_cache.query_width()));
    let values = recorder.scratch("latent_values", padded(spec.num_heads * spec.latent_dim));
    let attended = recorder.scratch("attended", padded(spec.output_width()).max(padded(over_cache.query_width())));
    project(recorder, spec, [&raw, &q])?;

    let key_up = recorder.matrix(Role::LatentKeyUp);
    let problem = head_matmul::Problem {
        num_tokens,
        rows: spec.latent_dim,
        cols: spec.nope_dim,
        x: head_matmul::Layout { token_stride: padded(spec.query_width()), head_stride: spec.key_dim() },
        y: head_matmul::Layout { token_stride: padded(over_cache.query_width()), head_stride: spec.cache_dim() },
        quant: key_up.quant,
    };
    let buffers = head_matmul::Buffers { x: &raw, weight: &key_up.shards, y: &q };
    head_matmul::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;

    let problem = attention::Problem::of_latent(spec, num_tokens, recorder.memory.cache);
    let cache = recorder.own_memory().state("latent_cache");
    over(recorder, &problem, &OverCache { query: &q, y: &values, norms: None, sinks: None }, [cache, cache])?;

    let value_up = recorder.matrix(Role::LatentValueUp);
    let problem = head_matmul::Problem {
        num_tokens,
        rows: spec.value_dim,
        cols: spec.latent_dim,
        x: head_matmul::Layout { token_stride: padded(spec.num_heads * spec.latent_dim), head_stride: spec.latent_dim },
        y: head_matmul::Layout { token_stride: padded(spec.output_width()), head_stride: spec.value_dim },
        quant: value_up.quant,
    };
    let buffers = head_matmul::Buffers { x: &values, weight: &value_up.shards, y: &attended };
    head_matmul::record(recorder.device, &mut recorder.recording, Some(recorder.layer), &problem, &buffers)?;
    project_output(recorder, attended, spec.output_width(), &target)
}

/// Raw queries to the first buffer, their rotated parts to the second, and the latent to the cache.
fn project(recorder: &mut Recorder, spec: &LatentSpec, [raw, q]: [&Buffer; 2]) -> Result<()> {
    let (num_tokens, layer) = (recorder.pass.num_tokens, Some(recorder.layer));
    let input = recorder.input();
    let query = match (recorder.find_matrix(Role::LatentQueryDown), spec.query_rank) {
        (Some(down), Some(rank)) => {
            let (middle, normed) =
                (recorder.scratch("latent_query", padded(rank)), recorder.scratch("latent_query_normed", padded(rank)));
            recorder.project(&Projection::new(down, &input, &middle))?;
            let norm = NormSpec::rms(spec.norm_eps);
            let problem =
                norm::Problem { first_row: 0, num_tokens, cols: rank, norm, residual: None, output_scale: false, rescale: None };
            let weight = recorder.vector(Role::LatentQueryNorm).expect("two projections have a norm between them");
            let buffers = norm::Buffers { x: &middle, weight, y: &normed, output_scale: None };
            norm::record(recorder.device, &mut recorder.recording, layer, &problem, &buffers)?;
            Input::plain(normed, rank)
        }
        _ => input.clone(),
    };
    recorder.project(&Projection::new(recorder.matrix(Role::LatentQueryUp), &query, raw))?;
    let kv = recorder.scratch("latent", padded(spec.cache_dim()));
    recorder.project(&Projection::new(recorder.matrix(Role::LatentDown), &input, &kv))?;
    let (memory, cache) = (recorder.own_memory(), recorder.memory.cache);
    let problem = latent::Problem { num_tokens, context: cache.context, cache: cache.format, latent: spec };
    let buffers = latent::Buffers {
        rows: &recorder.memory.rows,
        q: raw,
        kv: &kv,
        norm: recorder.vector(Role::LatentNorm).expect("a latent has a norm"),
        rope: memory.rope.as_ref(),
        query: q,
        cache: memory.state("latent_cache"),
    };
    latent::record(recorder.device, &mut recorder.recording, layer, &problem, &buffers)
}

/// `[n, hidden]`
pub(super) fn reference(spec: &LatentSpec, pass: &HostPass, memory: &mut HostBlock) -> Vec<f32> {
    let (rows, context, hidden_size, x) = (pass.rows, pass.context, pass.model.hidden_size, &*pass.normed);
    let LatentSpec { num_heads, latent_dim, nope_dim, .. } = *spec;
    let query_up = pass.weight(Role::LatentQueryUp);
    let mut q = match spec.query_rank {
        Some(rank) => {
            let down = matmul_twin(x, pass.weight(Role::LatentQueryDown), hidden_size);
            let normed = norm_twin(&NormSpec::rms(spec.norm_eps), &down, pass.weight(Role::LatentQueryNorm));
            matmul_twin(&normed, query_up, rank)
        }
        None => matmul_twin(x, query_up, hidden_size),
    };
    let kv = matmul_twin(x, pass.weight(Role::LatentDown), hidden_size);
    let norm = pass.weight(Role::LatentNorm);
    let inputs = latent_twin::Inputs { spec, context, rows, kv: &kv, norm, rope: &memory.rope };
    latent_twin::latent(&inputs, &mut q, &mut memory.cache);

    let weight = pass.weight(Role::LatentKeyUp);
    let x_stride = spec.key_dim();
    let q = head_matmul_twin::head_matmul(&head_matmul_twin::Inputs { num_heads, cols: nope_dim, x_stride, x: &q, weight });
    let (sinks, bias, value_dim) = (None, None, Some(latent_dim));
    let over = spec.over_cache();
    let inputs = attention_twin::Inputs { spec: &over, context, rows, q: &q, cache: &memory.cache, sinks, bias, value_dim };
    let x = attention_twin::attention(&inputs);
    let weight = pass.weight(Role::LatentValueUp);
    let inputs = head_matmul_twin::Inputs { num_heads, cols: latent_dim, x_stride: latent_dim, x: &x, weight };
    output(pass, &head_matmul_twin::head_matmul(&inputs), spec.output_width())
}
