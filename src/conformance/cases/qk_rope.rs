use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage, canaries};
use super::super::{Case, Problem};
use super::{SUM, rows_with_gaps};
use crate::batch::Row;
use crate::batch::rope::rope_table;
use crate::error::Result;
use crate::gpu::{Buffer, Caps, Device, Recording, Variant};
use crate::kernels::qk_rope::{self, Buffers};
use crate::quant::CacheFormat;
use crate::reference::{self, KvCache};
use crate::spec::{AttentionSpec, QkNorm, QkNormOver, RopePairing, RopeScaling, RopeSpec, TemperatureTuning};

struct QkRope {
    num_tokens: usize,
    spec: AttentionSpec,
    cache: CacheFormat,
}

const CONTEXT: usize = 40;
const SEQUENCES: usize = 2;
/// Of most cases: 6 query heads share 2 key/value heads of 24.
const HEAD_DIM: usize = 24;

pub fn cases() -> Vec<Case> {
    let case = |(name, num_tokens, spec), cache| Case::new("qk_rope", name, SUM, QkRope { num_tokens, spec, cache });
    let full = table().into_iter().map(|problem| case(problem, CacheFormat::F32));
    let half = table().into_iter().filter(|(name, ..)| HALF_CACHE.contains(&name.as_str()));
    let half = half.map(|(name, num_tokens, spec)| (format!("{name}, f16 cache"), num_tokens, spec)).chain(rounded());
    full.chain(half.map(|problem| case(problem, CacheFormat::F16))).collect()
}

/// Cases that are tried in either format of the cache.
const HALF_CACHE: [&str; 7] = [
    "norm over Head before, rope",
    "norm over AllHeads after, magnified rope of 16",
    "Interleaved of 8",
    "1/1 heads of 4, norm over Head",
    "8/1 heads of 128, norm over Head",
    "5/5 heads of 12, norm over AllHeads",
    "values of 8, scaled",
];

/// Values where an f16 ends: beyond the largest, and below the smallest whose digits are all there.
fn rounded() -> impl Iterator<Item = (String, usize, AttentionSpec)> {
    [1e5, 1e-4, 1e-6, 1e-8].into_iter().map(|value_scale| {
        let spec = AttentionSpec { value_scale, rope: None, ..AttentionSpec::new(2, 2, HEAD_DIM) };
        (format!("values times {value_scale}, f16 cache"), 9, spec)
    })
}

/// What the kernel can do, for another that can do it too.
pub(super) fn specs() -> Vec<(String, AttentionSpec)> {
    table().into_iter().map(|(name, _, spec)| (name, spec)).collect()
}

/// Name, tokens and attention of every case.
fn table() -> Vec<(String, usize, AttentionSpec)> {
    let mut table = Vec::new();
    let mut add = |name: String, num_tokens: usize, spec: AttentionSpec| table.push((name, num_tokens, spec));
    let usual = AttentionSpec { rope: Some(rope(HEAD_DIM)), ..AttentionSpec::new(6, 2, HEAD_DIM) };
    for (name, spec) in norm_specs(&usual).into_iter().chain(rope_specs(&usual)) {
        add(name, 9, spec);
    }
    let norm = QkNorm { eps: 1e-6, over: QkNormOver::Head, after_rope: false, weight: true };
    for over in [QkNormOver::Head, QkNormOver::AllHeads] {
        let qk_norm = Some(QkNorm { over, ..norm });
        for (num_heads, num_kv_heads, head_dim) in [(1, 1, 4), (3, 1, 16), (8, 1, 128), (5, 5, 12)] {
            let spec =
                AttentionSpec { qk_norm, rope: Some(rope(head_dim)), ..AttentionSpec::new(num_heads, num_kv_heads, head_dim) };
            add(format!("{num_heads}/{num_kv_heads} heads of {head_dim}, norm over {over:?}"), 5, spec);
        }
        for num_tokens in [1, 2, 33] {
            add(format!("{num_tokens} tokens, norm over {over:?}"), num_tokens, AttentionSpec { qk_norm, ..usual.clone() });
        }
    }
    // Positions one below, at and one above a multiple of the floor are among those of 17 tokens.
    let temperature = Some(TemperatureTuning { scale: 0.1, floor: 4.0 });
    add("temperature".to_owned(), 17, AttentionSpec { temperature, ..usual.clone() });
    add("temperature, no positions".to_owned(), 17, AttentionSpec { temperature, rope: None, ..usual.clone() });
    let qk_norm = Some(QkNorm { after_rope: true, weight: false, ..norm });
    add("temperature, norm after".to_owned(), 17, AttentionSpec { temperature, qk_norm, ..usual.clone() });
    let clip = Some(0.3);
    add("values of 8, scaled".to_owned(), 9, AttentionSpec { value_dim: 8, value_scale: 0.7, ..usual.clone() });
    add("clip".to_owned(), 9, AttentionSpec { clip, ..usual.clone() });
    add("clip, norm".to_owned(), 9, AttentionSpec { clip, qk_norm: Some(norm), ..usual.clone() });
    let after = AttentionSpec { clip, clip_after_norm: true, qk_norm: Some(norm), ..usual.clone() };
    let over_all = Some(QkNorm { over: QkNormOver::AllHeads, ..norm });
    add("norm, clip".to_owned(), 9, after.clone());
    add("norm over AllHeads, clip".to_owned(), 9, AttentionSpec { qk_norm: over_all, ..after });
    let value_norm = Some(1e-6);
    add("value norm".to_owned(), 9, AttentionSpec { value_norm, value_dim: 8, value_scale: 0.7, ..usual.clone() });
    let values_are_keys = AttentionSpec { values_are_keys: true, ..usual.clone() };
    add("values are keys".to_owned(), 9, values_are_keys.clone());
    add("values are keys, norms".to_owned(), 9, AttentionSpec { value_norm, qk_norm: Some(norm), ..values_are_keys.clone() });
    let proportional = Some(RopeSpec { scaling: RopeScaling::Proportional { pairs: 3 }, ..rope(HEAD_DIM) });
    add("values are keys, 3 pairs turn".to_owned(), 9, AttentionSpec { rope: proportional, ..values_are_keys });
    add("clip, no positions".to_owned(), 9, AttentionSpec { clip, rope: None, ..usual });
    table
}

/// Every norm with every rotary embedding.
fn norm_specs(usual: &AttentionSpec) -> Vec<(String, AttentionSpec)> {
    let interleaved = RopeSpec { pairing: RopePairing::Interleaved, ..rope(HEAD_DIM) };
    let ropes = [
        ("rope", Some(rope(HEAD_DIM))),
        ("rope of 8", Some(rope(8))),
        ("interleaved", Some(interleaved.clone())),
        ("interleaved of 8", Some(RopeSpec { dims: 8, ..interleaved })),
        ("magnified rope of 16", Some(RopeSpec { scaling: yarn(), ..rope(16) })),
        ("no positions", None),
    ];
    let mut specs = Vec::new();
    for over in [QkNormOver::Head, QkNormOver::AllHeads] {
        for after_rope in [false, true] {
            for weight in [false, true] {
                for (rope_name, rope) in &ropes {
                    let place = if after_rope { "after" } else { "before" };
                    let weighted = if weight { "" } else { " without weight" };
                    let qk_norm = Some(QkNorm { eps: 1e-6, over, after_rope, weight });
                    let spec = AttentionSpec { qk_norm, rope: rope.clone(), ..usual.clone() };
                    specs.push((format!("norm over {over:?} {place}{weighted}, {rope_name}"), spec));
                }
            }
        }
    }
    specs
}

/// Rotary embeddings without norms.
fn rope_specs(usual: &AttentionSpec) -> Vec<(String, AttentionSpec)> {
    let mut specs = vec![("no positions".to_owned(), AttentionSpec { rope: None, ..usual.clone() })];
    for pairing in [RopePairing::Half, RopePairing::Interleaved] {
        for dims in [2, 8, 12, HEAD_DIM] {
            let rope = Some(RopeSpec { pairing, ..rope(dims) });
            specs.push((format!("{pairing:?} of {dims}"), AttentionSpec { rope, ..usual.clone() }));
        }
    }
    specs
}

fn rope(dims: usize) -> RopeSpec {
    RopeSpec { theta: 10_000.0, dims, pairing: RopePairing::Half, scaling: RopeScaling::None }
}

/// Makes what it turns longer.
fn yarn() -> RopeScaling {
    RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_positions: 64,
        truncate: true,
        attention_factor: 1.5,
    }
}

impl QkRope {
    fn problem(&self) -> qk_rope::Problem<'_> {
        qk_rope::Problem { num_tokens: self.num_tokens, context: CONTEXT, cache: self.cache, attention: &self.spec }
    }
}

/// What goes into the turning of heads, random.
pub(super) struct RawHeads {
    qkv: Vec<f32>,
    /// Weights of the query and the key norm.
    norms: Option<[Vec<f32>; 2]>,
    rope: Vec<[f32; 2]>,
}

/// The same on a device.
pub(super) struct StagedHeads {
    pub qkv: Buffer,
    norms: Option<[Buffer; 2]>,
    pub rope: Option<Buffer>,
}

impl RawHeads {
    pub fn new(spec: &AttentionSpec, num_tokens: usize, context: usize, inputs: &mut Inputs) -> Self {
        let qkv = inputs.floats(num_tokens * spec.qkv_rows(), 1.0);
        let norms = spec.qk_norm.filter(|norm| norm.weight).map(|norm| {
            let heads = match norm.over {
                QkNormOver::Head => [1, 1],
                QkNormOver::AllHeads => [spec.num_heads, spec.num_kv_heads],
            };
            heads.map(|heads| inputs.floats(heads * spec.head_dim, 1.0))
        });
        let rope = spec.rope.as_ref().map(|rope| rope_table(rope, context, context)).unwrap_or_default();
        RawHeads { qkv, norms, rope }
    }

    /// What the twin makes of it. Returns the queries.
    pub fn turn(&self, spec: &AttentionSpec, context: usize, rows: &[Row], cache: &mut KvCache) -> Vec<f32> {
        let twin = reference::qk_rope::Inputs {
            spec,
            context,
            rows,
            qkv: &self.qkv,
            query_norm: self.norms.as_ref().map(|[query, _]| query.as_slice()),
            key_norm: self.norms.as_ref().map(|[_, key]| key.as_slice()),
            rope: &self.rope,
        };
        reference::qk_rope::qk_rope(&twin, cache)
    }

    pub fn stage(&self, stage: Stage, spec: &AttentionSpec) -> StagedHeads {
        StagedHeads {
            qkv: stage.padded_input("qkv", &self.qkv, spec.qkv_rows()),
            norms: self.norms.as_ref().map(|norms| norms.each_ref().map(|weight| stage.input("norm", weight))),
            rope: spec.rope.as_ref().map(|_| stage.input("rope", &self.rope)),
        }
    }
}

impl StagedHeads {
    pub fn norms(&self) -> Option<[&Buffer; 2]> {
        self.norms.as_ref().map(|norms| norms.each_ref())
    }
}

impl Problem for QkRope {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![qk_rope::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(12));
        let spec = &self.spec;
        let rows = rows_with_gaps(self.num_tokens, CONTEXT);
        let heads = RawHeads::new(spec, self.num_tokens, CONTEXT, &mut inputs);

        let [k_before, v_before] =
            [spec.head_dim, spec.value_dim].map(|dim| canaries(SEQUENCES * spec.num_kv_heads * CONTEXT * dim));
        let mut cache = KvCache { k: k_before.clone(), v: v_before.clone(), format: self.cache };
        let expected = heads.turn(spec, CONTEXT, &rows, &mut cache);

        let rows = stage.input("rows", &rows);
        let heads = heads.stage(stage, spec);
        let q = stage.output("q", &expected, Layout::padded(spec.query_width()));
        let k_cache = stage.cache("k_cache", &k_before, &cache.k, self.cache);
        let v_cache = stage.cache("v_cache", &v_before, &cache.v, self.cache);
        let buffers = Buffers {
            rows: &rows,
            qkv: &heads.qkv,
            rope: heads.rope.as_ref(),
            norms: heads.norms(),
            q: &q.buffer,
            k_cache: &k_cache.buffer,
            v_cache: &v_cache.buffer,
        };
        let mut recording = Recording::default();
        qk_rope::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![q, k_cache, v_cache] })
    }
}
