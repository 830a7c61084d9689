use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage, canaries};
use super::super::{Case, Problem, Tolerance};
use super::kept;
use crate::batch::{CacheShape, Row};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::attention::{self, Buffers};
use crate::kernels::attention_merge;
use crate::quant::CacheFormat;
use crate::reference::{self, KvCache};
use crate::spec::{AttentionSpec, Mask, RelativeBias};

#[derive(Clone)]
struct Attention {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    /// At most `head_dim`.
    value_dim: usize,
    mask: Mask,
    /// Visible keys of each row under a causal mask.
    lengths: Vec<usize>,
    /// That take turns.
    sequences: usize,
    /// Of the queries: large ones make one key win.
    size: f32,
    /// Sinks around this.
    sinks: Option<f32>,
    softcap: Option<f32>,
    bias: Option<RelativeBias>,
    cache: CacheFormat,
    context: usize,
}

const CONTEXT: usize = 200;
pub(super) const LONG_CONTEXT: usize = 4096;
const SEQUENCES: usize = 2;
/// One, and one below, at and above every tile.
const LENGTHS: [usize; 10] = [1, 2, 31, 32, 33, 63, 64, 65, 129, 200];

pub(super) const TOLERANCE: Tolerance =
    Tolerance { max_abs: 5e-5, nmse: 1e-10, why: "f32 scores, and an exp that WGSL allows to be off by 3 + 2|x| ulp" };

pub fn cases() -> Vec<Case> {
    let usual = Attention {
        num_heads: 6,
        num_kv_heads: 2,
        head_dim: 24,
        value_dim: 24,
        mask: Mask::Causal,
        lengths: LENGTHS.to_vec(),
        sequences: SEQUENCES,
        size: 1.0,
        sinks: None,
        softcap: None,
        bias: None,
        cache: CacheFormat::F32,
        context: CONTEXT,
    };
    let mut cases = Vec::new();
    let mut add = |name: String, problem| cases.push(Case::new("attention", name, TOLERANCE, problem));
    // One to four share a head below.
    for group in 5..=8 {
        add(
            format!("{group} heads per key/value head"),
            Attention { num_heads: 2 * group, head_dim: 16, value_dim: 16, lengths: vec![33, 70], ..usual.clone() },
        );
    }
    for (num_heads, num_kv_heads, head_dim) in [(6, 2, 24), (4, 4, 4), (8, 2, 32), (4, 2, 64), (2, 1, 128), (4, 1, 1024)] {
        let name = format!("prefill {num_heads}/{num_kv_heads} heads of {head_dim}");
        add(name, Attention { num_heads, num_kv_heads, head_dim, value_dim: head_dim, ..usual.clone() });
    }
    [two_stack_problems, half_problems].iter().flat_map(|of| of(&usual)).for_each(|(name, problem)| add(name, problem));
    for value_dim in [4, 16] {
        add(format!("values of {value_dim}"), Attention { value_dim, ..usual.clone() });
    }
    for length in [1, 32, 33, 200] {
        add(format!("decode at {length}"), Attention { lengths: vec![length], ..usual.clone() });
    }
    for window in [1, 24, 64, 1000] {
        add(format!("window of {window}"), Attention { mask: Mask::Window(window), ..usual.clone() });
    }
    // The first position of a chunk sees itself alone, the last one all of it.
    for chunk in [1, 31, 32, 33, 64, 100, 1000] {
        add(format!("chunks of {chunk}"), Attention { mask: Mask::Chunk(chunk), ..usual.clone() });
    }
    for sink in [-20.0, 0.0, 4.0, 60.0] {
        add(format!("sinks around {sink}"), Attention { sinks: Some(sink), ..usual.clone() });
    }
    run_problems(&usual).into_iter().for_each(|(name, problem)| add(name, problem));
    add("sinks and a window".to_owned(), Attention { sinks: Some(1.0), mask: Mask::Window(24), ..usual.clone() });
    add("sinks where one key wins".to_owned(), Attention { sinks: Some(1.0), size: 100.0, ..usual.clone() });
    for cap in [0.5, 30.0] {
        add(format!("capped at {cap}"), Attention { softcap: Some(cap), size: 4.0, ..usual.clone() });
    }
    add("far beyond the cap".to_owned(), Attention { softcap: Some(3.0), size: 1e4, ..usual.clone() });
    add("sinks and cap".to_owned(), Attention { sinks: Some(1.0), softcap: Some(2.0), size: 4.0, ..usual.clone() });
    add("one key wins".to_owned(), Attention { size: 100.0, ..usual.clone() });
    add("equal scores".to_owned(), Attention { size: 0.0, ..usual.clone() });
    split_problems(&usual).into_iter().for_each(|(name, problem)| add(format!("long context: {name}"), problem));
    cases.extend(super::attention_raw::cases());
    cases
}

/// A bias of T5 that is different up to `max_distance`.
pub(super) fn relative(max_distance: usize, bidirectional: bool) -> Option<RelativeBias> {
    Some(RelativeBias { num_buckets: 32, max_distance, bidirectional })
}

/// What attention with such a bias is given, large enough to decide which key wins.
pub(super) fn bias_table(spec: &AttentionSpec, inputs: &mut Inputs) -> Option<Vec<f32>> {
    let bias = spec.relative_bias?;
    Some(bias.table(&inputs.floats(bias.num_buckets * spec.num_heads, 3.0), spec.num_heads))
}

/// What encoders and decoders of two stacks have: all keys, also later ones, and a bias by distance.
fn two_stack_problems(usual: &Attention) -> Vec<(String, Attention)> {
    let mut problems = Vec::new();
    let mut add = |name: &str, problem| problems.push((name.to_owned(), problem));
    let run = |first: usize, len: usize| (first..first + len).collect::<Vec<_>>();
    let all = Attention { mask: Mask::All, ..usual.clone() };
    add("all keys", all.clone());
    add("all keys of one token", Attention { lengths: vec![33], ..all.clone() });
    add("all keys, bias by distance", Attention { bias: relative(128, true), ..all.clone() });
    add("bias by distance", Attention { bias: relative(128, false), ..usual.clone() });
    add("bias by distance up to 20, capped", Attention { bias: relative(20, false), softcap: Some(2.0), ..usual.clone() });
    for (num_heads, num_kv_heads, head_dim) in [(6, 2, 24), (4, 4, 12), (4, 4, 32), (8, 1, 64)] {
        let heads = Attention { num_heads, num_kv_heads, head_dim, value_dim: head_dim, sequences: 1, ..all.clone() };
        let name = format!("{num_heads}/{num_kv_heads} heads of {head_dim}");
        let encoder = Attention { lengths: run(1, 37), bias: relative(20, true), ..heads.clone() };
        add(&format!("37 rows, all keys, bias, {name}"), encoder);
        add(&format!("13 rows from 60 on, all keys, {name}"), Attention { lengths: run(60, 13), ..heads.clone() });
        let causal = Attention { mask: Mask::Causal, lengths: run(60, 13), bias: relative(20, false), ..heads };
        add(&format!("13 rows from 60 on, bias, {name}"), causal);
    }
    let half = Attention { cache: CacheFormat::F16, lengths: run(1, 20), sequences: 1, ..all };
    add("f16 cache, all keys, bias by distance", Attention { bias: relative(20, true), ..half });
    problems
}

/// Keys and values in f16.
fn half_problems(usual: &Attention) -> Vec<(String, Attention)> {
    let mut problems = Vec::new();
    let mut add = |name: String, problem| problems.push((name, problem));
    let half = Attention { cache: CacheFormat::F16, ..usual.clone() };
    for (num_heads, num_kv_heads, head_dim) in [(6, 2, 24), (4, 4, 4), (4, 2, 64), (2, 1, 128), (4, 1, 1024)] {
        let name = format!("f16 cache, {num_heads}/{num_kv_heads} heads of {head_dim}");
        add(name, Attention { num_heads, num_kv_heads, head_dim, value_dim: head_dim, ..half.clone() });
    }
    add("f16 cache, values of 16".to_owned(), Attention { value_dim: 16, ..half.clone() });
    add("f16 cache, decode at 33".to_owned(), Attention { lengths: vec![33], ..half.clone() });
    for mask in [Mask::Window(24), Mask::Chunk(31)] {
        add(format!("f16 cache, {mask:?}"), Attention { mask, sinks: Some(1.0), ..half.clone() });
    }
    let rows = (60..73).collect();
    add(
        "f16 cache, 13 rows from 60 on".to_owned(),
        Attention { lengths: rows, sequences: 1, num_heads: 8, num_kv_heads: 4, ..half },
    );
    problems
}

/// Rows that follow each other share what they load: whole tiles of them, a rest, and two runs in one tile.
fn run_problems(usual: &Attention) -> Vec<(String, Attention)> {
    let mut problems = Vec::new();
    let mut add = |name: String, problem| problems.push((name, problem));
    let run = |first: usize, len: usize| (first..first + len).collect::<Vec<_>>();
    let runs =
        [("16 rows", run(1, 16)), ("13 rows from 60 on", run(60, 13)), ("rows of two runs", [run(30, 5), run(90, 6)].concat())];
    for (name, lengths) in runs {
        let usual = Attention { lengths, sequences: 1, ..usual.clone() };
        for (num_heads, num_kv_heads, head_dim) in [(6, 2, 24), (4, 4, 32), (8, 1, 64), (2, 2, 128)] {
            let name = format!("{name}, {num_heads}/{num_kv_heads} heads of {head_dim}");
            add(name, Attention { num_heads, num_kv_heads, head_dim, value_dim: head_dim, ..usual.clone() });
        }
        for mask in [Mask::Window(3), Mask::Window(40), Mask::Chunk(4), Mask::Chunk(64)] {
            add(format!("{name}, {mask:?}"), Attention { mask, ..usual.clone() });
        }
        add(format!("{name}, sinks and cap"), Attention { sinks: Some(1.0), softcap: Some(2.0), size: 4.0, ..usual });
    }
    problems
}

/// One token over a context so long that several workgroups of a GPU share its keys.
fn split_problems(usual: &Attention) -> Vec<(String, Attention)> {
    let usual = Attention { num_heads: 8, head_dim: 32, value_dim: 32, context: LONG_CONTEXT, ..usual.clone() };
    let at = |length: usize| Attention { lengths: vec![length], ..usual.clone() };
    let mut problems = Vec::new();
    // One key, one below, at and above the end of a part, and the last part full or not.
    for length in [1, 255, 256, 257, 512, 1024, 2600, 4095, 4096] {
        problems.push((format!("decode at {length}"), at(length)));
    }
    for (num_heads, num_kv_heads, head_dim) in [(2, 1, 128), (5, 5, 12), (6, 2, 64)] {
        let heads = Attention { num_heads, num_kv_heads, head_dim, value_dim: head_dim, ..at(3000) };
        problems.push((format!("{num_heads}/{num_kv_heads} heads of {head_dim}"), heads));
    }
    problems.push(("values of 8".to_owned(), Attention { value_dim: 8, ..at(1300) }));
    for (mask, length) in [
        (Mask::Window(2000), 4000),
        (Mask::Window(1500), 700),
        (Mask::Window(300), 4000),
        (Mask::Chunk(1500), 3000),
        (Mask::Chunk(1500), 3001),
    ] {
        problems.push((format!("{mask:?} at {length}"), Attention { mask, ..at(length) }));
    }
    for length in [3, 2500] {
        problems.push((format!("sinks at {length}"), Attention { sinks: Some(1.0), ..at(length) }));
    }
    let capped = Attention { sinks: Some(1.0), softcap: Some(2.0), size: 4.0, ..at(2500) };
    problems.push(("sinks and cap".to_owned(), capped));
    problems.push(("one key wins".to_owned(), Attention { size: 100.0, ..at(2500) }));
    let half = |length: usize| Attention { cache: CacheFormat::F16, ..at(length) };
    let all = Attention { mask: Mask::All, ..at(2500) };
    problems.push(("all keys".to_owned(), all.clone()));
    problems.push(("all keys, bias by distance".to_owned(), Attention { bias: relative(128, true), ..all }));
    problems.push(("f16 cache at 2049".to_owned(), half(2049)));
    let window = Attention { mask: Mask::Window(2000), sinks: Some(1.0), ..half(4000) };
    problems.push(("f16 cache, window and sinks".to_owned(), window));
    problems
}

/// Attention, and what follows it where keys are split.
pub(super) fn record(device: &Device, recording: &mut Recording, problem: &attention::Problem, buffers: &Buffers) -> Result<()> {
    let Some(merge) = attention::merge(device.caps(), problem) else {
        return attention::record(device, recording, None, problem, buffers);
    };
    // Whatever is not written shows.
    let partials = Stage { device }.input("partials", &canaries(merge.num_partials()));
    attention::record(device, recording, None, problem, &Buffers { y: &partials, sinks: None, ..*buffers })?;
    let buffers = attention_merge::Buffers { partials: &partials, y: buffers.y, sinks: buffers.sinks };
    attention_merge::record(device, recording, None, &merge, &buffers)
}

impl Attention {
    fn spec(&self) -> AttentionSpec {
        AttentionSpec {
            mask: self.mask,
            sinks: self.sinks.is_some(),
            softcap: self.softcap,
            relative_bias: self.bias,
            value_dim: self.value_dim,
            ..AttentionSpec::new(self.num_heads, self.num_kv_heads, self.head_dim)
        }
    }

    fn problem(&self) -> attention::Problem<'_> {
        attention::Problem::of_spec(&self.spec(), self.lengths.len(), CacheShape { context: self.context, format: self.cache })
    }
}

impl Problem for Attention {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![attention::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(5));
        let problem = self.problem();
        let spec = self.spec();
        let row = |(token, length): (usize, &usize)| Row::new(0, *length as u32 - 1, (token % self.sequences) as u32);
        let mut rows: Vec<Row> = self.lengths.iter().enumerate().map(row).collect();
        if self.mask == Mask::All {
            self.count_keys(&mut rows);
        }
        let q = inputs.floats(rows.len() * spec.query_width(), self.size);
        let bias = bias_table(&spec, &mut inputs);
        let cache_len = |dim: usize| SEQUENCES * self.num_kv_heads * self.context * dim;
        let mut values = |dim: usize| kept(self.cache, inputs.floats(cache_len(dim), 1.0));
        let mut cache = KvCache { k: values(self.head_dim), v: values(self.value_dim), format: self.cache };
        let sinks: Option<Vec<f32>> = self.sinks.map(|center| (0..self.num_heads).map(|_| center + inputs.float()).collect());
        let twin = reference::attention::Inputs {
            spec: &spec,
            context: self.context,
            rows: &rows,
            q: &q,
            cache: &cache,
            sinks: sinks.as_deref(),
            bias: bias.as_deref(),
            value_dim: None,
        };
        let expected = reference::attention::attention(&twin);
        self.poison(&rows, &mut cache);

        let (k_cache, v_cache) =
            (stage.input("k_cache", &self.cache.pack(&cache.k)), stage.input("v_cache", &self.cache.pack(&cache.v)));
        let rows = stage.input("rows", &rows);
        let q = stage.padded_input("q", &q, spec.query_width());
        let y = stage.output("y", &expected, Layout::padded(spec.output_width()));
        let mut recording = Recording::default();
        let bias = bias.map(|bias| stage.input("bias", &bias));
        let sinks = sinks.map(|sinks| stage.input("sinks", &sinks));
        let buffers = Buffers {
            rows: &rows,
            query: &q,
            rope: None,
            norms: None,
            k_cache: &k_cache,
            v_cache: &v_cache,
            y: &y.buffer,
            sinks: sinks.as_ref(),
            bias: bias.as_ref(),
        };
        record(device, &mut recording, &problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}

impl Attention {
    /// Keys of each sequence, fewer and more than the positions of its rows.
    fn count_keys(&self, rows: &mut [Row]) {
        let longest = self.lengths.iter().max().copied().unwrap_or(1);
        rows.iter_mut().for_each(|row| row.keys = (longest.min(self.context - 7) + 3 - 5 * row.sequence as usize).max(1) as u32);
    }

    fn is_visible(&self, key: usize, row: &Row) -> bool {
        let position = row.position as usize;
        (key <= position || self.mask == Mask::All)
            && match self.mask {
                Mask::Causal => true,
                Mask::All => key < row.keys as usize,
                Mask::Window(window) => position < key + window,
                Mask::Chunk(chunk) => position / chunk == key / chunk,
            }
    }

    /// Makes a NaN of every key that no row may see.
    fn poison(&self, rows: &[Row], cache: &mut KvCache) {
        let values = cache.v.chunks_exact_mut(self.value_dim);
        for (index, (k, v)) in cache.k.chunks_exact_mut(self.head_dim).zip(values).enumerate() {
            let (sequence, key) = (index / self.context / self.num_kv_heads, index % self.context);
            let sees = |row: &Row| row.sequence as usize == sequence && self.is_visible(key, row);
            if !rows.iter().any(sees) {
                k.fill(f32::NAN);
                v.fill(f32::NAN);
            }
        }
    }
}
