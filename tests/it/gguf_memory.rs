//! What published models take on a device when they come as GGUF files: hardly more than in the file. The files here have the headers of such
//! models, and holes in place of their weights.

use crate::common::{GgufFile, GgufValue};
use moebius::checkpoint::gguf::BLOCK_TYPES;
use moebius::checkpoint::{Checkpoint, ModelFiles, WeightStore};
use moebius::model::{footprint, format_names};
use moebius::quant::QuantChoice;
use pollster::block_on;
use std::path::Path;

/// Numbers of types in a file.
const F32: u32 = 0;
const Q4_K: u32 = 12;
const Q6_K: u32 = 14;

/// A published model, as far as it decides the sizes of its tensors.
struct Shape {
    arch: &'static str,
    layers: u64,
    hidden: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    experts: u64,
    expert_width: u64,
    vocabulary: u64,
    /// Norms of query and key go over a head, not over all of them.
    norms_per_head: bool,
}

const OLMOE: Shape = Shape {
    arch: "olmoe",
    layers: 16,
    hidden: 2048,
    heads: 16,
    kv_heads: 16,
    head_dim: 128,
    experts: 64,
    expert_width: 1024,
    vocabulary: 50_304,
    norms_per_head: false,
};

const QWEN3_30B: Shape = Shape {
    arch: "qwen3moe",
    layers: 48,
    hidden: 2048,
    heads: 32,
    kv_heads: 4,
    head_dim: 128,
    experts: 128,
    expert_width: 768,
    vocabulary: 151_936,
    norms_per_head: true,
};

impl Shape {
    fn metadata(&self) -> GgufFile {
        let number = |value: u64| GgufValue::u32(value as u32);
        let keys = [
            ("block_count", number(self.layers)),
            ("embedding_length", number(self.hidden)),
            ("feed_forward_length", number(self.expert_width)),
            ("expert_feed_forward_length", number(self.expert_width)),
            ("attention.head_count", number(self.heads)),
            ("attention.head_count_kv", number(self.kv_heads)),
            ("attention.key_length", number(self.head_dim)),
            ("attention.value_length", number(self.head_dim)),
            ("attention.layer_norm_rms_epsilon", GgufValue::f32(1e-6)),
            ("rope.freq_base", GgufValue::f32(1e6)),
            ("context_length", number(4096)),
            ("expert_count", number(self.experts)),
            ("expert_used_count", number(8)),
        ];
        let file = GgufFile::default().with("general.architecture", GgufValue::text(self.arch));
        keys.into_iter().fold(file, |file, (key, value)| file.with(&format!("{}.{key}", self.arch), value))
    }

    /// The file that `llama-quantize` makes with Q4_K_M.
    fn q4_k_m(&self) -> GgufFile {
        let (hidden, width, experts) = (self.hidden, self.expert_width, self.experts);
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let file = tensor(self.metadata(), "token_embd.weight", &[hidden, self.vocabulary], Q4_K);
        let file = tensor(file, "output.weight", &[hidden, self.vocabulary], Q6_K);
        let mut file = tensor(file, "output_norm.weight", &[hidden], F32);
        for layer in 0..self.layers {
            let more = if self.has_more_bits(layer) { Q6_K } else { Q4_K };
            let norms = if self.norms_per_head { [self.head_dim; 2] } else { [queries, keys] };
            for (name, dimensions, type_id) in [
                ("attn_norm", vec![hidden], F32),
                ("ffn_norm", vec![hidden], F32),
                ("attn_q_norm", vec![norms[0]], F32),
                ("attn_k_norm", vec![norms[1]], F32),
                ("attn_q", vec![hidden, queries], Q4_K),
                ("attn_k", vec![hidden, keys], Q4_K),
                ("attn_v", vec![hidden, keys], more),
                ("attn_output", vec![queries, hidden], Q4_K),
                ("ffn_gate_inp", vec![hidden, experts], F32),
                ("ffn_gate_exps", vec![hidden, width, experts], Q4_K),
                ("ffn_up_exps", vec![hidden, width, experts], Q4_K),
                ("ffn_down_exps", vec![width, hidden, experts], more),
            ] {
                file = tensor(file, &format!("blk.{layer}.{name}.weight"), &dimensions, type_id);
            }
        }
        file
    }

    /// Layers whose values and down projections `llama-quantize` keeps in Q6_K: the first and the last eighth, and every third between.
    fn has_more_bits(&self, layer: u64) -> bool {
        let eighth = self.layers / 8;
        layer < eighth || layer >= 7 * self.layers / 8 || (layer - eighth) % 3 == 2
    }
}

fn tensor(file: GgufFile, name: &str, dimensions: &[u64], type_id: u32) -> GgufFile {
    let values: u64 = dimensions.iter().product();
    file.hole(name, dimensions, type_id, bytes_of(type_id, values))
}

fn bytes_of(type_id: u32, values: u64) -> u64 {
    let block = BLOCK_TYPES.iter().find(|block| block.id == type_id).unwrap();
    values / block.len as u64 * block.bytes as u64
}

fn open(path: &Path) -> (ModelFiles, Checkpoint) {
    let files = block_on(ModelFiles::open(path)).unwrap();
    let weights = block_on(files.weights()).unwrap();
    (files, weights)
}

#[test]
fn published_models_take_what_their_files_have() {
    for shape in [OLMOE, QWEN3_30B] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("{}-Q4_K_M.gguf", shape.arch));
        shape.q4_k_m().write_sparse(&path);
        let (files, weights) = open(&path);
        let spec = weights.spec().clone();
        let stored: u64 = files.gguf().unwrap().tensors().iter().map(|tensor| tensor.bytes.end - tensor.bytes.start).sum();
        let store = WeightStore::Checkpoint(weights);
        let choice: QuantChoice = "auto".parse().unwrap();
        let (on_device, _) = footprint(&store, &spec, choice).unwrap();
        let ratio = on_device as f64 / stored as f64;
        assert!((1.0..1.02).contains(&ratio), "{}: {on_device} of {stored} bytes, {ratio:.4}", shape.arch);
        let (names, bytes) = format_names(&store, &spec, choice).unwrap();
        assert_eq!((names, bytes), (vec!["q4_k", "q6_k"], on_device), "{}", shape.arch);
    }
}
