//! Attention of one token that does what `qk_rope` does otherwise.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::attention::{LONG_CONTEXT, bias_table, record, relative};
use super::kept;
use super::qk_rope::{RawHeads, specs};
use crate::batch::{CacheShape, Row};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::attention::{self, Buffers};
use crate::kernels::qk_rope;
use crate::quant::{CacheFormat, padded};
use crate::reference::{self, KvCache};
use crate::spec::{AttentionSpec, Mask};

struct AttentionRaw {
    spec: AttentionSpec,
    position: usize,
    cache: CacheFormat,
    context: usize,
}

const CONTEXT: usize = 80;
/// Of which the token belongs to the second.
const SEQUENCES: usize = 2;

/// Those cases of `qk_rope` that between them take every way through `shaders/lib/heads.wgsl`.
const SPECS: [&str; 13] = [
    "norm over Head before, rope",
    "norm over AllHeads before, rope",
    "norm over AllHeads after, magnified rope of 16",
    "norm over Head before without weight, interleaved of 8",
    "norm over AllHeads after without weight, no positions",
    "8/1 heads of 128, norm over Head",
    "5/5 heads of 12, norm over AllHeads",
    "temperature, norm after",
    "values of 8, scaled",
    "clip",
    "norm over AllHeads, clip",
    "value norm",
    "values are keys, norms",
];

/// Those that are tried with a cache in f16 too.
const HALF_CACHE: [&str; 4] =
    [SPECS[0], "8/1 heads of 128, norm over Head", "5/5 heads of 12, norm over AllHeads", "values of 8, scaled"];

const HALF_TOLERANCE: Tolerance = Tolerance {
    max_abs: 2e-4,
    nmse: 1e-9,
    why: "as with f32, and the newest key and value, one of sixty, may be rounded to the f16 beside where they are next to the middle",
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, spec: AttentionSpec, position| {
        let problem = AttentionRaw { spec, position, cache: CacheFormat::F32, context: CONTEXT };
        cases.push(Case::new("attention", format!("raw: {name}"), super::attention::TOLERANCE, problem));
    };
    let all = specs();
    let found = |wanted: &str| all.iter().find(|(name, _)| name == wanted).expect("is in the table of qk_rope").1.clone();
    for name in SPECS {
        add(name.to_owned(), found(name), 37);
    }
    let usual = found(SPECS[0]);
    for position in [0, 1, 31, 32, 79] {
        add(format!("at {position}"), usual.clone(), position);
    }
    for mask in [Mask::Window(20), Mask::Chunk(16)] {
        add(format!("{mask:?}"), AttentionSpec { mask, ..usual.clone() }, 47);
    }
    // Within reach of every key, and of some.
    for max_distance in [128, 9] {
        let name = format!("bias by distance up to {max_distance}");
        add(name.clone(), AttentionSpec { relative_bias: relative(max_distance, false), ..usual.clone() }, 47);
        add(format!("{name}, no norm"), AttentionSpec { relative_bias: relative(max_distance, false), ..found("clip") }, 40);
    }
    add("sinks".to_owned(), AttentionSpec { sinks: true, ..found("clip") }, 40);
    let mut half = |name: &str, spec: AttentionSpec| {
        let problem = AttentionRaw { spec, position: 63, cache: CacheFormat::F16, context: CONTEXT };
        cases.push(Case::new("attention", format!("raw: {name}, f16 cache"), HALF_TOLERANCE, problem));
    };
    for name in HALF_CACHE {
        half(name, found(name));
    }
    half("window and sinks", AttentionSpec { mask: Mask::Window(40), sinks: true, ..found("clip") });
    // A context whose keys several workgroups of a GPU share: all of them turn the queries, one of them appends.
    let mut long = |name: &str, spec: &AttentionSpec, position: usize, cache: CacheFormat| {
        let tolerance = if cache == CacheFormat::F16 { HALF_TOLERANCE } else { super::attention::TOLERANCE };
        let problem = AttentionRaw { spec: spec.clone(), position, cache, context: LONG_CONTEXT };
        cases.push(Case::new("attention", format!("raw, long context: {name} at {position}"), tolerance, problem));
    };
    for position in [0, 255, 256, 1023, 2600, LONG_CONTEXT - 1] {
        long("norm and rope", &usual, position, CacheFormat::F32);
    }
    long("norm over AllHeads", &found(SPECS[1]), 2600, CacheFormat::F32);
    long("no norm", &found("clip"), 2600, CacheFormat::F32);
    let window = AttentionSpec { mask: Mask::Window(2000), sinks: true, ..found("clip") };
    long("window and sinks", &window, 3000, CacheFormat::F32);
    let biased = AttentionSpec { relative_bias: relative(128, false), ..found("clip") };
    long("bias by distance", &biased, 2600, CacheFormat::F32);
    long("f16 cache", &usual, 256, CacheFormat::F16);
    long("f16 cache", &window, 3000, CacheFormat::F16);
    cases
}

impl AttentionRaw {
    fn problem(&self) -> attention::Problem<'_> {
        attention::Problem {
            raw: Some(&self.spec),
            ..attention::Problem::of_spec(&self.spec, 1, CacheShape { context: self.context, format: self.cache })
        }
    }

    /// As the decoder does it: in one kernel where it can, else in two.
    fn turned(&self) -> qk_rope::Problem<'_> {
        qk_rope::Problem { num_tokens: 1, context: self.context, cache: self.cache, attention: &self.spec }
    }
}

impl Problem for AttentionRaw {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        let problem = self.problem();
        let raw = problem.raw.filter(|_| attention::turns(caps, &problem));
        vec![attention::choose(caps, &attention::Problem { raw, ..problem })]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(21));
        let (spec, problem) = (&self.spec, self.problem());
        let rows = [Row::new(0, self.position as u32, SEQUENCES as u32 - 1)];
        let heads = RawHeads::new(spec, 1, self.context, &mut inputs);
        let sinks: Option<Vec<f32>> = spec.sinks.then(|| inputs.floats(spec.num_heads, 1.0));
        let bias = bias_table(spec, &mut inputs);
        let cache_len = |dim: usize| SEQUENCES * spec.num_kv_heads * self.context * dim;
        let mut values = |dim: usize| kept(self.cache, inputs.floats(cache_len(dim), 1.0));
        let before = KvCache { k: values(spec.head_dim), v: values(spec.value_dim), format: self.cache };
        let mut cache = before.clone();
        let q = heads.turn(spec, self.context, &rows, &mut cache);
        let twin = reference::attention::Inputs {
            spec,
            context: self.context,
            rows: &rows,
            q: &q,
            cache: &cache,
            sinks: sinks.as_deref(),
            bias: bias.as_deref(),
            value_dim: None,
        };
        let expected = reference::attention::attention(&twin);

        let rows = stage.input("rows", &rows);
        let heads = heads.stage(stage, spec);
        let sinks = sinks.map(|sinks| stage.input("sinks", &sinks));
        let bias = bias.map(|bias| stage.input("bias", &bias));
        let k_cache = stage.cache("k_cache", &before.k, &cache.k, self.cache);
        let v_cache = stage.cache("v_cache", &before.v, &cache.v, self.cache);
        let y = stage.output("y", &expected, Layout::padded(spec.output_width()));
        let buffers = Buffers {
            rows: &rows,
            query: &heads.qkv,
            rope: heads.rope.as_ref(),
            norms: heads.norms(),
            k_cache: &k_cache.buffer,
            v_cache: &v_cache.buffer,
            y: &y.buffer,
            sinks: sinks.as_ref(),
            bias: bias.as_ref(),
        };
        let mut recording = Recording::default();
        if attention::turns(device.caps(), &problem) {
            record(device, &mut recording, &problem, &buffers)?;
        } else {
            let q = device.storage("q", (padded(spec.query_width()) * 4) as u64);
            let Buffers { rows, query: qkv, rope, norms, k_cache, v_cache, .. } = buffers;
            let turning = qk_rope::Buffers { rows, qkv, rope, norms, q: &q, k_cache, v_cache };
            qk_rope::record(device, &mut recording, None, &self.turned(), &turning)?;
            let problem = attention::Problem { raw: None, ..problem };
            record(device, &mut recording, &problem, &Buffers { query: &q, rope: None, norms: None, ..buffers })?;
        }
        Ok(Prepared { recording, outputs: vec![y, k_cache, v_cache] })
    }
}
