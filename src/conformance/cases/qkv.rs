use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage, canaries};
use super::super::{Case, Problem};
use super::{ONE_SHARD, SELDOM, SUM, THOROUGH, fused_norm, normed, rows_with_gaps};
use crate::batch::rope::rope_table;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::qkv::{self, Buffers};
use crate::quant::{BF16, CacheFormat, F32, Q4_0, Quant};
use crate::reference::{self, KvCache};
use crate::spec::{AttentionSpec, RopePairing, RopeScaling, RopeSpec};

#[derive(Clone, Copy)]
struct Qkv {
    num_tokens: usize,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    hidden_size: usize,
    bias: bool,
    clip: Option<f32>,
    norm: bool,
    quant: Quant,
    heads_per_shard: usize,
    cache: CacheFormat,
}

/// Two sequences have places for 128 tokens, whose positions are three apart.
const CONTEXT: usize = 64;
const SEQUENCES: usize = 2;

pub fn cases() -> Vec<Case> {
    let usual = Qkv {
        num_tokens: 9,
        num_heads: 6,
        num_kv_heads: 2,
        head_dim: 24,
        hidden_size: 64,
        bias: false,
        clip: None,
        norm: false,
        quant: &F32,
        heads_per_shard: ONE_SHARD,
        cache: CacheFormat::F32,
    };
    let mut problems = Vec::new();
    for (num_heads, num_kv_heads, head_dim) in [(1, 1, 4), (6, 2, 24), (8, 1, 128), (4, 4, 64)] {
        problems.push(Qkv { num_heads, num_kv_heads, head_dim, ..usual });
    }
    problems.push(Qkv { num_heads: 5, num_kv_heads: 5, head_dim: 12, hidden_size: 256, ..usual });
    problems.extend(SELDOM.iter().map(|quant| Qkv { num_tokens: 1, hidden_size: 320, quant, ..usual }));
    for num_tokens in [1, 9] {
        problems.push(Qkv { num_tokens, num_heads: 3, num_kv_heads: 1, head_dim: 16, ..usual });
        problems.extend(THOROUGH[1..].iter().map(|quant| Qkv { num_tokens, quant, ..usual }));
        problems.push(Qkv { num_tokens, heads_per_shard: 3, ..usual });
        for (bias, clip) in [(true, None), (false, Some(0.3)), (true, Some(0.3))] {
            let problem = Qkv { num_tokens, bias, clip, ..usual };
            problems.extend([problem, Qkv { heads_per_shard: 3, ..problem }]);
        }
    }
    // Heads that end inside a tile of 64 rows, cut between shards, of few tokens and of many.
    let tiled = Qkv { bias: true, heads_per_shard: 3, quant: &Q4_0, ..usual };
    problems.extend([8, 33, 97].map(|num_tokens| Qkv { num_tokens, ..tiled }));
    let normed = Qkv { num_tokens: 1, norm: true, ..usual };
    problems.extend([normed, Qkv { hidden_size: 33, ..normed }, Qkv { heads_per_shard: 3, quant: &BF16, ..normed }]);
    problems.extend([1, 2, 7, 8, 17].map(|num_tokens| Qkv { num_tokens, ..usual }));
    let half = Qkv { cache: CacheFormat::F16, ..usual };
    problems.extend([1, 9].map(|num_tokens| Qkv { num_tokens, ..half }));
    for (num_heads, num_kv_heads, head_dim) in [(1, 1, 4), (8, 1, 128), (5, 5, 12)] {
        problems.push(Qkv { num_heads, num_kv_heads, head_dim, ..half });
    }
    problems.extend([Qkv { heads_per_shard: 3, bias: true, ..half }, Qkv { cache: CacheFormat::F16, ..normed }]);
    problems.into_iter().map(|problem| Case::new("qkv", problem.name(), SUM, problem)).collect()
}

impl Qkv {
    fn name(&self) -> String {
        let Qkv { num_tokens, num_heads, num_kv_heads, head_dim, hidden_size, bias, clip, norm, quant, heads_per_shard, cache } =
            self;
        let norm = if *norm { " norm" } else { "" };
        let shards = if *heads_per_shard == ONE_SHARD { "" } else { " shards" };
        let bias = if *bias { " bias" } else { "" };
        let cache = if *cache == CacheFormat::F16 { ", f16 cache" } else { "" };
        let clip = if clip.is_some() { " clip" } else { "" };
        format!(
            "{num_tokens}x{hidden_size} {num_heads}/{num_kv_heads} heads of {head_dim} {}{norm}{bias}{clip}{shards}{cache}",
            quant.name
        )
    }

    fn problem(&self) -> qkv::Problem {
        qkv::Problem {
            num_tokens: self.num_tokens,
            hidden_size: self.hidden_size,
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            context: CONTEXT,
            cache: self.cache,
            bias: self.bias,
            clip: self.clip,
            norm: fused_norm(self.norm),
            quant: self.quant,
        }
    }

    fn spec(&self) -> AttentionSpec {
        let rope = RopeSpec { theta: 10_000.0, dims: self.head_dim, pairing: RopePairing::Half, scaling: RopeScaling::None };
        AttentionSpec {
            qkv_bias: self.bias,
            clip: self.clip,
            rope: Some(rope),
            ..AttentionSpec::new(self.num_heads, self.num_kv_heads, self.head_dim)
        }
    }
}

impl Problem for Qkv {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![qkv::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(4));
        let (spec, hidden_size) = (self.spec(), self.hidden_size);
        let rows = rows_with_gaps(self.num_tokens, CONTEXT);
        let x = inputs.floats(self.num_tokens * hidden_size, 1.0);
        let weight = inputs.weights(spec.qkv_rows(), hidden_size);
        let rows_per_shard = self.heads_per_shard.saturating_mul(self.head_dim);
        let (weight, stored) = stage.weights(&weight, hidden_size, self.quant, rows_per_shard);
        let rope = spec.rope.as_ref().map(|rope| rope_table(rope, CONTEXT, CONTEXT)).unwrap_or_default();
        let bias = self.bias.then(|| inputs.floats(spec.qkv_rows(), 1.0));

        let norm = self.norm.then(|| inputs.floats(hidden_size, 1.0));
        let normed_x = normed(&x, norm.as_deref());

        let before = canaries(SEQUENCES * self.num_kv_heads * CONTEXT * self.head_dim);
        let mut cache = KvCache { k: before.clone(), v: before.clone(), format: self.cache };
        let twin = reference::qkv::Inputs {
            spec: &spec,
            context: CONTEXT,
            rows: &rows,
            x: &normed_x,
            weight: &stored,
            bias: bias.as_deref(),
            query_norm: None,
            key_norm: None,
            rope: &rope,
        };
        let expected = reference::qkv::qkv(&twin, &mut cache);

        let (rows, rope) = (stage.input("rows", &rows), stage.input("rope", &rope));
        let x = stage.padded_input("x", &x, hidden_size);
        let bias = bias.map(|bias| stage.input("bias", &bias));
        let norm = norm.map(|norm| stage.padded_input("norm", &norm, hidden_size));
        let q = stage.output("q", &expected, Layout::padded(spec.output_width()));
        let k_cache = stage.cache("k_cache", &before, &cache.k, self.cache);
        let v_cache = stage.cache("v_cache", &before, &cache.v, self.cache);
        let buffers = Buffers {
            rows: &rows,
            x: &x,
            weight: &weight,
            bias: bias.as_ref(),
            norm: norm.as_ref(),
            rope: &rope,
            q: &q.buffer,
            k_cache: &k_cache.buffer,
            v_cache: &v_cache.buffer,
        };
        let mut recording = Recording::default();
        qkv::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![q, k_cache, v_cache] })
    }
}
