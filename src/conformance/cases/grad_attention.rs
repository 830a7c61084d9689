//! The way back through attention: queries, then keys and values.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage, canaries};
use super::super::{Case, Problem, Tolerance};
use super::consecutive_rows;
use crate::batch::Row;
use crate::batch::rope::rope_table;
use crate::error::Result;
use crate::gpu::{Buffer, Caps, Device, Recording, Variant};
use crate::kernels::{grad_key_value, grad_query};
use crate::quant::{CacheFormat, padded};
use crate::reference::KvCache;
use crate::reference::grad_key_value::grad_key_value as key_value_twin;
use crate::reference::grad_query::{Inputs as TwinInputs, grad_query as query_twin};
use crate::spec::{AttentionSpec, RopePairing, RopeScaling, RopeSpec};

const ATTENTION: Tolerance = Tolerance { max_abs: 1e-4, nmse: 1e-10, why: "exp of WGSL, and f32 sums over keys or queries" };

struct Attention {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    /// Dimensions that turn.
    rope_dims: usize,
    /// Lengths of the sequences.
    lens: Vec<usize>,
    context: usize,
}

struct Query(Attention);
struct KeyValue(Attention);

fn all() -> Vec<Attention> {
    let sizes: [([usize; 3], usize, &[usize]); 8] = [
        ([2, 1, 4], 4, &[1]),
        ([4, 2, 32], 32, &[9, 17]),
        ([8, 2, 32], 32, &[33]),
        ([2, 2, 8], 8, &[3, 3, 3, 3]),
        ([3, 1, 12], 8, &[20, 5]),
        ([2, 2, 16], 0, &[11, 70]),
        ([1, 1, 64], 64, &[40]),
        ([4, 1, 128], 64, &[12]),
    ];
    let of_size = |([num_heads, num_kv_heads, head_dim], rope_dims, lens): ([usize; 3], usize, &[usize])| {
        let lens = lens.to_vec();
        let context = lens.iter().max().map_or(1, |longest| longest + 3);
        Attention { num_heads, num_kv_heads, head_dim, rope_dims, lens, context }
    };
    sizes.into_iter().map(of_size).collect()
}

pub fn query_cases() -> Vec<Case> {
    all().into_iter().map(|attention| Case::new("grad_query", attention.name(), ATTENTION, Query(attention))).collect()
}

pub fn key_value_cases() -> Vec<Case> {
    all().into_iter().map(|attention| Case::new("grad_key_value", attention.name(), ATTENTION, KeyValue(attention))).collect()
}

/// What both kernels read, on the host.
struct Host {
    spec: AttentionSpec,
    rows: Vec<Row>,
    rope: Vec<[f32; 2]>,
    q: Vec<f32>,
    dy: Vec<f32>,
    cache: KvCache,
}

impl Attention {
    fn name(&self) -> String {
        let Attention { num_heads, num_kv_heads, head_dim, rope_dims, lens, .. } = self;
        format!("{num_heads} heads on {num_kv_heads} of {head_dim}, {rope_dims} turn, texts of {lens:?}")
    }

    fn problem(&self) -> grad_query::Problem {
        grad_query::Problem {
            num_tokens: self.lens.iter().sum(),
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            context: self.context,
            scale: 0.3,
            rope_pairs: (self.rope_dims > 0).then_some(self.rope_dims / 2),
        }
    }

    fn host(&self) -> Host {
        let mut inputs = Inputs::new(81);
        let scaling = RopeScaling::None;
        let rope = RopeSpec { theta: 100.0, dims: self.rope_dims, pairing: RopePairing::Half, scaling };
        let rope = (self.rope_dims > 0).then_some(rope);
        let table = rope.as_ref().map_or_else(Vec::new, |rope| rope_table(rope, self.context, self.context));
        let spec = AttentionSpec { scale: 0.3, rope, ..AttentionSpec::new(self.num_heads, self.num_kv_heads, self.head_dim) };
        let texts: Vec<[usize; 2]> = self.lens.iter().map(|len| [0, *len]).collect();
        let rows = consecutive_rows(&texts);
        let cached = self.lens.len() * self.num_kv_heads * self.context * self.head_dim;
        let [k, v] = [(); 2].map(|()| inputs.floats(cached, 1.0));
        let [q, dy] = [(); 2].map(|()| inputs.floats(rows.len() * spec.query_width(), 1.0));
        Host { spec, rows, rope: table, q, dy, cache: KvCache { k, v, format: CacheFormat::F32 } }
    }

    /// `dqkv` before, and with the columns of `parts` after it: each its first column and its values.
    fn dqkv(&self, parts: &[(usize, &[f32])]) -> [Vec<f32>; 2] {
        let stride = padded((self.num_heads + 2 * self.num_kv_heads) * self.head_dim);
        let num_tokens: usize = self.lens.iter().sum();
        let before = canaries(num_tokens * stride);
        let mut after = before.clone();
        for (first, values) in parts {
            let width = values.len() / num_tokens;
            for (t, values) in values.chunks_exact(width).enumerate() {
                after[t * stride + first..][..width].copy_from_slice(values);
            }
        }
        [before, after]
    }
}

impl Host {
    fn twin(&self, context: usize) -> TwinInputs<'_> {
        let Host { spec, rows, rope, q, dy, cache } = self;
        TwinInputs { spec, context, rows, q, cache, dy, rope }
    }

    /// Rows, q, both caches, dy, and the rotary table.
    fn inputs(&self, stage: &Stage) -> ([Buffer; 5], Option<Buffer>) {
        let width = self.spec.query_width();
        let buffers = [
            stage.input("rows", &self.rows),
            stage.padded_input("q", &self.q, width),
            stage.input("k_cache", &self.cache.k),
            stage.input("v_cache", &self.cache.v),
            stage.padded_input("dy", &self.dy, width),
        ];
        (buffers, (!self.rope.is_empty()).then(|| stage.input("rope", self.rope.as_flattened())))
    }
}

impl Problem for Query {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_query::choose(caps, &self.0.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, host) = (Stage { device }, self.0.host());
        let (dq, stats) = query_twin(&host.twin(self.0.context));
        let [before, after] = self.0.dqkv(&[(0, &dq)]);
        let dqkv = stage.partly("dqkv", &before, &after);
        let stats = stage.output("stats", stats.as_flattened(), Layout::dense(2));
        let ([rows, q, k_cache, v_cache, dy], rope) = host.inputs(&stage);
        let mut recording = Recording::default();
        let buffers = grad_query::Buffers {
            rows: &rows,
            q: &q,
            k_cache: &k_cache,
            v_cache: &v_cache,
            dy: &dy,
            rope: rope.as_ref(),
            dqkv: &dqkv.buffer,
            stats: &stats.buffer,
        };
        grad_query::record(device, &mut recording, None, &self.0.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dqkv, stats] })
    }
}

impl Problem for KeyValue {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_key_value::choose(caps, &self.0.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, host) = (Stage { device }, self.0.host());
        let twin = host.twin(self.0.context);
        let stats = query_twin(&twin).1;
        let [dk, dv] = key_value_twin(&twin, &stats);
        let keys = self.0.num_heads * self.0.head_dim;
        let [before, after] = self.0.dqkv(&[(keys, &dk), (keys + self.0.num_kv_heads * self.0.head_dim, &dv)]);
        let dqkv = stage.partly("dqkv", &before, &after);
        let stats = stage.input("stats", stats.as_flattened());
        let ([rows, q, k_cache, v_cache, dy], rope) = host.inputs(&stage);
        let mut recording = Recording::default();
        let buffers = grad_key_value::Buffers {
            rows: &rows,
            q: &q,
            k_cache: &k_cache,
            v_cache: &v_cache,
            dy: &dy,
            rope: rope.as_ref(),
            dqkv: &dqkv.buffer,
            stats: &stats,
        };
        grad_key_value::record(device, &mut recording, None, &self.0.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dqkv] })
    }
}
