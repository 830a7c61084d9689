//! Writes small checkpoints, whole or broken.

use moebius::spec::ModelSpec;
use serde_json::{Map, Value, json};
use std::path::Path;
use tempfile::TempDir;

/// One tensor to be written.
#[derive(Debug, Clone)]
pub struct TinyTensor {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// The tensors of a checkpoint in the order in which they are written.
#[derive(Debug, Clone)]
pub struct TinyCheckpoint {
    pub tensors: Vec<TinyTensor>,
}

impl TinyTensor {
    /// An f32 tensor.
    pub fn new(name: impl Into<String>, shape: &[usize], values: impl IntoIterator<Item = f32>) -> Self {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(bytes.len(), 4 * shape.iter().product::<usize>());
        TinyTensor { name: name.into(), dtype: "F32", shape: shape.to_vec(), bytes }
    }
}

impl TinyCheckpoint {
    /// Everything `spec` needs under its Mixtral names. Every value of the model is another: element `i` of tensor `n` is `1000 n + i`.
    pub fn whole(spec: &ModelSpec) -> Self {
        let (hidden, vocab) = (spec.hidden_size, spec.vocab_size);
        let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
        for (layer, layer_spec) in spec.layers.iter().enumerate() {
            let (attention, moe) = (layer_spec.attention().unwrap(), layer_spec.moe().unwrap());
            let (q, kv) = (attention.num_heads * attention.head_dim, attention.num_kv_heads * attention.head_dim);
            let (experts, inner) = (moe.router.num_experts, moe.expert.intermediate_size);
            let mut add = |name: &str, shape: &[usize]| {
                shapes.push((format!("model.layers.{layer}.{name}.weight"), shape.to_vec()));
            };
            add("input_layernorm", &[hidden]);
            add("self_attn.q_proj", &[q, hidden]);
            add("self_attn.k_proj", &[kv, hidden]);
            add("self_attn.v_proj", &[kv, hidden]);
            add("self_attn.o_proj", &[hidden, q]);
            add("post_attention_layernorm", &[hidden]);
            add("block_sparse_moe.gate", &[experts, hidden]);
            for expert in 0..experts {
                add(&format!("block_sparse_moe.experts.{expert}.w1"), &[inner, hidden]);
                add(&format!("block_sparse_moe.experts.{expert}.w2"), &[hidden, inner]);
                add(&format!("block_sparse_moe.experts.{expert}.w3"), &[inner, hidden]);
            }
        }
        shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
        if !spec.tied_embeddings {
            shapes.push(("lm_head.weight".to_owned(), vec![vocab, hidden]));
        }
        let numbered = shapes.into_iter().enumerate().map(|(number, (name, shape))| {
            let len = shape.iter().product::<usize>();
            TinyTensor::new(name, &shape, (0..len).map(|element| (1000 * number + element) as f32))
        });
        TinyCheckpoint { tensors: numbered.collect() }
    }

    /// The values of a tensor.
    pub fn values(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name).unwrap();
        tensor.bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    pub fn tensor_mut(&mut self, name: &str) -> &mut TinyTensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// Removes a tensor.
    pub fn take(&mut self, name: &str) -> TinyTensor {
        let index = self.tensors.iter().position(|tensor| tensor.name == name).unwrap();
        self.tensors.remove(index)
    }

    /// The header as JSON.
    pub fn header(&self) -> Map<String, Value> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
        let mut start = 0;
        for TinyTensor { name, dtype, shape, bytes } in &self.tensors {
            let end = start + bytes.len();
            header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] }));
            start = end;
        }
        header
    }

    /// The bytes of a safetensors file.
    pub fn file(&self) -> Vec<u8> {
        self.file_with_header(&Value::Object(self.header()).to_string())
    }

    /// The same data after another header.
    pub fn file_with_header(&self, header: &str) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(self.tensors.iter().flat_map(|tensor| &tensor.bytes));
        file
    }

    /// A directory with `model.safetensors`.
    pub fn write(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        write_model(directory.path(), &self.file());
        directory
    }
}

/// Writes `model.safetensors`.
fn write_model(directory: &Path, bytes: &[u8]) {
    std::fs::write(directory.join("model.safetensors"), bytes).unwrap();
}
