use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::attention::{self, Buffers};
use crate::reference::{self, KvCache, Row};
use crate::spec::{AttentionSpec, Mask, RopeSpec};

#[derive(Clone)]
struct Attention {
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    mask: Mask,
    /// Visible keys of each row under a causal mask; sequences take turns.
    lengths: Vec<usize>,
    /// Of the queries: large ones make one key win.
    size: f32,
}

const CONTEXT: usize = 200;
const SEQUENCES: usize = 2;
/// One, and one below, at and above every tile.
const LENGTHS: [usize; 10] = [1, 2, 31, 32, 33, 63, 64, 65, 129, 200];

const TOLERANCE: Tolerance =
    Tolerance { max_abs: 5e-5, nmse: 1e-10, why: "f32 scores, and an exp that WGSL allows to be off by 3 + 2|x| ulp" };

pub fn cases() -> Vec<Case> {
    let usual =
        Attention { num_heads: 6, num_kv_heads: 2, head_dim: 24, mask: Mask::Causal, lengths: LENGTHS.to_vec(), size: 1.0 };
    let mut cases = Vec::new();
    let mut add = |name: String, problem| cases.push(Case::new("attention", name, TOLERANCE, problem));
    // One to four share a head below.
    for group in 5..=8 {
        add(
            format!("{group} heads per key/value head"),
            Attention { num_heads: 2 * group, head_dim: 16, lengths: vec![33, 70], ..usual.clone() },
        );
    }
    for (num_heads, num_kv_heads, head_dim) in [(6, 2, 24), (4, 4, 4), (8, 2, 32), (4, 2, 64), (2, 1, 128), (4, 1, 1024)] {
        let name = format!("prefill {num_heads}/{num_kv_heads} heads of {head_dim}");
        add(name, Attention { num_heads, num_kv_heads, head_dim, ..usual.clone() });
    }
    for length in [1, 32, 33, 200] {
        add(format!("decode at {length}"), Attention { lengths: vec![length], ..usual.clone() });
    }
    for window in [1, 24, 64, 1000] {
        add(format!("window of {window}"), Attention { mask: Mask::Window(window), ..usual.clone() });
    }
    add("one key wins".to_owned(), Attention { size: 100.0, ..usual.clone() });
    add("equal scores".to_owned(), Attention { size: 0.0, ..usual });
    cases
}

impl Attention {
    fn problem(&self) -> attention::Problem {
        attention::Problem {
            num_tokens: self.lengths.len(),
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            context: CONTEXT,
            scale: (self.head_dim as f32).sqrt().recip(),
            mask: self.mask,
        }
    }
}

impl Problem for Attention {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![attention::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(5));
        let problem = self.problem();
        let spec = AttentionSpec {
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            scale: problem.scale,
            rope: RopeSpec { theta: 1.0 },
            mask: self.mask,
        };
        let row = |(token, length): (usize, &usize)| Row::new(0, *length as u32 - 1, (token % SEQUENCES) as u32);
        let rows: Vec<Row> = self.lengths.iter().enumerate().map(row).collect();
        let q = inputs.floats(rows.len() * spec.output_width(), self.size);
        let cache_len = SEQUENCES * self.num_kv_heads * CONTEXT * self.head_dim;
        let mut cache = KvCache { k: inputs.floats(cache_len, 1.0), v: inputs.floats(cache_len, 1.0) };
        let expected = reference::attention::attention(&spec, CONTEXT, &rows, &q, &cache);
        self.poison(&rows, &mut cache);

        let (k_cache, v_cache) = (stage.input("k_cache", &cache.k), stage.input("v_cache", &cache.v));
        let rows = stage.input("rows", &rows);
        let q = stage.padded_input("q", &q, spec.output_width());
        let y = stage.output("y", &expected, Layout::padded(spec.output_width()));
        let mut recording = Recording::default();
        let buffers = Buffers { rows: &rows, q: &q, k_cache: &k_cache, v_cache: &v_cache, y: &y.buffer };
        attention::record(device, &mut recording, None, &problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}

impl Attention {
    /// Makes a NaN of every key that no row may see.
    fn poison(&self, rows: &[Row], cache: &mut KvCache) {
        for (index, (k, v)) in cache.k.chunks_exact_mut(self.head_dim).zip(cache.v.chunks_exact_mut(self.head_dim)).enumerate() {
            let (sequence, key) = (index / CONTEXT / self.num_kv_heads, index % CONTEXT);
            let sees = |row: &Row| row.sequence as usize == sequence && row.position as usize >= key;
            if !rows.iter().any(sees) {
                k.fill(f32::NAN);
                v.fill(f32::NAN);
            }
        }
    }
}
