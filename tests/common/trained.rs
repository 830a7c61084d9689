//! Stored runs of training: initial weights, batches, and what PyTorch made of them.

use super::{config_with, golden};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::reference::training::adamw::AdamW;
use moebius::reference::training::{Batch, Weights};
use moebius::spec::{ModelSpec, Role, WeightKey};
use moebius::train::{Settings, StepReport, Trainer, TrainerOptions};
use serde_json::{Value, json};
use std::path::Path;

/// A run of `tests/golden/gating/train`, with the names of its tensors as the program has them.
pub struct TrainedRun {
    pub spec: ModelSpec,
    pub json: Value,
    /// Windows of tokens, one step after the other.
    pub batches: Vec<Batch>,
    name: &'static str,
}

/// A float tensor, or one of integers.
pub fn tensor(path: &Path, name: &str) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let quads = tensor.data().as_chunks::<4>().0.iter();
    match tensor.dtype() {
        safetensors::Dtype::F32 => quads.map(|bytes| f64::from(f32::from_le_bytes(*bytes))).collect(),
        safetensors::Dtype::I32 => quads.map(|bytes| f64::from(i32::from_le_bytes(*bytes))).collect(),
        other => panic!("{other:?}"),
    }
}

impl TrainedRun {
    pub fn open(name: &'static str) -> Self {
        let text = std::fs::read_to_string(golden("gating/train").join(name).join("run.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let config = &json["config"];
        let size = |key: &str| config[key].as_u64().unwrap() as usize;
        let head_dim = size("hidden_size") / size("num_attention_heads");
        let text = config_with(&[
            ("vocab_size", config["vocab_size"].clone()),
            ("hidden_size", config["hidden_size"].clone()),
            ("num_hidden_layers", config["num_hidden_layers"].clone()),
            ("num_attention_heads", config["num_attention_heads"].clone()),
            ("num_key_value_heads", config["num_attention_heads"].clone()),
            ("head_dim", json!(head_dim)),
            ("num_local_experts", config["num_experts"].clone()),
            ("num_experts_per_tok", json["run"]["k"].clone()),
            ("intermediate_size", config["moe_intermediate_size"].clone()),
            ("rope_theta", config["rope_theta"].clone()),
        ]);
        let spec = ModelSpec::parse(&text, "config.json").unwrap();
        let tokens = tensor(&golden("gating/train").join(name).join("batches.safetensors"), "tokens");
        let tokens: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
        let len = size("seq_len");
        let batches = tokens.chunks_exact(size("batch") * (len + 1)).map(|tokens| Batch::of_windows(tokens, len)).collect();
        TrainedRun { spec, json, batches, name }
    }

    /// All tensors of one of its files, by what they are for.
    pub fn weights(&self, file: &str) -> Weights {
        let path = golden("gating/train").join(self.name).join(file);
        WeightKey::all(&self.spec).map(|key| (key, stored(&path, key, key.shape(&self.spec)))).collect()
    }

    /// Experts of every step, layer and token: `[20][2][128 k]`.
    pub fn routing(&self) -> Vec<Vec<Vec<u32>>> {
        let ids = tensor(&golden("gating/train").join(self.name).join("routing.safetensors"), "expert_ids");
        let layers = self.spec.layers.len();
        let of_layer = ids.len() / self.batches.len() / layers;
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        ids.chunks_exact(of_layer * layers).map(|step| step.chunks_exact(of_layer).map(<[u32]>::to_vec).collect()).collect()
    }

    pub fn optimiser(&self) -> AdamW {
        let number = |key: &str| self.json["config"][key].as_f64().unwrap();
        AdamW {
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("adam_eps"),
            weight_decay: number("weight_decay"),
            clip_norm: number("clip_norm"),
        }
    }

    pub fn lr(&self, step: usize) -> f64 {
        let number = |key: &str| self.json["config"][key].as_f64().unwrap();
        number("lr") * ((step + 1) as f64 / number("warmup_steps")).min(1.0)
    }
}

fn stored(path: &Path, key: WeightKey, (rows, cols): (usize, usize)) -> Vec<f64> {
    let of_layer = |name: &str| tensor(path, &format!("layers.{}.{name}", key.layer));
    let of_expert = |name: &str, len: usize| of_layer(name)[key.expert * len..][..len].to_vec();
    match key.role {
        Role::Embedding => tensor(path, "embed"),
        Role::FinalNorm => tensor(path, "norm"),
        Role::Head => tensor(path, "lm_head"),
        Role::AttentionNorm => of_layer("attn_norm"),
        Role::FfnNorm => of_layer("ffn_norm"),
        Role::Qkv => ["q_proj", "k_proj", "v_proj"].map(of_layer).concat(),
        Role::AttentionOutput => of_layer("o_proj"),
        Role::Router => of_layer("router"),
        Role::ExpertDown => of_expert("down_proj", rows * cols),
        Role::ExpertGateUp => {
            let [gate, up] = ["gate_proj", "up_proj"].map(|name| of_expert(name, rows / 2 * cols));
            gate.chunks_exact(cols).zip(up.chunks_exact(cols)).flat_map(|(gate, up)| [gate, up].concat()).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// A trainer of `settings` on a device, or one that goes on after a checkpoint.
pub fn trainer_on(choice: DeviceChoice, settings: &Settings, resume: Option<&Path>) -> Trainer {
    let options = TrainerOptions { device: DeviceOptions::from_env(choice), resume: resume.map(Path::to_owned), documents: None };
    pollster::block_on(Trainer::new(settings, &options)).unwrap()
}

/// Reports of the next steps, without their speed.
pub fn steps_of(trainer: &mut Trainer, count: usize) -> Vec<StepReport> {
    let timeless = |report: StepReport| StepReport { tokens_per_s: 0.0, ..report };
    (0..count).map(|_| timeless(pollster::block_on(trainer.step()).unwrap())).collect()
}
