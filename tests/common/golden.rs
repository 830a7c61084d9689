//! Stored outputs of transformers for the fixtures.

use super::{golden, spec_of};
use moebius::reference::LayerRouting;
use moebius::spec::ModelSpec;
use moebius::tensor::Dtype;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;

/// Largest difference of a logit from the stored one that the project allows itself.
pub const MAX_LOGIT_ERROR: f32 = 2e-3;
/// Below this gap between the last chosen and the first other expert, the stored choice is not binding.
const BINDING_GAP: f32 = 1e-4;

pub struct Golden {
    pub name: &'static str,
    pub directory: PathBuf,
    pub spec: ModelSpec,
    /// Token ids of each stored prompt.
    pub prompts: Vec<Vec<u32>>,
    /// `(prompt, the tokens that follow it)`
    pub greedy: Vec<(usize, Vec<u32>)>,
    tensors: Vec<u8>,
}

impl Golden {
    /// Every fixture.
    pub fn all() -> Vec<Golden> {
        ["mixtral", "mixtral_swa"].into_iter().map(Self::load).collect()
    }

    fn load(name: &'static str) -> Golden {
        let directory = golden("fixtures").join(name);
        let text = std::fs::read_to_string(directory.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let entries = |key: &str| expected[key].as_array().unwrap().clone();
        Golden {
            name,
            spec: spec_of(&directory),
            prompts: entries("prompts").iter().map(|prompt| ids(&prompt["input_ids"])).collect(),
            greedy: entries("greedy")
                .iter()
                .map(|greedy| (greedy["prompt"].as_u64().unwrap() as usize, ids(&greedy["ids"])))
                .collect(),
            tensors: std::fs::read(directory.join("expected.safetensors")).unwrap(),
            directory,
        }
    }

    /// Positions that suffice for every prompt and its continuation.
    pub fn context(&self) -> usize {
        self.prompts.iter().map(Vec::len).max().unwrap() + 32
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let mut values = Vec::new();
        Dtype::F32.widen_into(tensors.tensor(name).unwrap().data(), &mut values);
        values
    }

    fn i32s(&self, name: &str) -> Vec<i32> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::I32);
        tensor.data().chunks_exact(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect()
    }

    /// Asserts that `logits [n, vocab]` of a prompt are the stored ones; returns the largest difference.
    pub fn assert_logits(&self, prompt: usize, logits: &[f32]) -> f32 {
        let worst = max_difference(logits, &self.f32s(&format!("p{prompt}.logits")));
        assert!(worst <= MAX_LOGIT_ERROR, "{} prompt {prompt}: logits differ by {worst}", self.name);
        worst
    }

    /// Asserts that every layer routed a prompt as stored. Returns how many choices were too close to be binding.
    pub fn assert_routing(&self, prompt: usize, layers: &[LayerRouting]) -> usize {
        assert_eq!(layers.len(), self.spec.layers.len());
        let mut close = 0;
        for routing in layers {
            let tag = format!("p{prompt}.L{}", routing.layer);
            let router = &self.spec.layers[routing.layer].ffn.moe().router;
            let (num_experts, top_k) = (router.num_experts, router.num_experts_per_tok);
            let stored_logits = self.f32s(&format!("{tag}.router_logits"));
            assert!(max_difference(&routing.router_logits, &stored_logits) <= MAX_LOGIT_ERROR, "{tag}.router_logits");
            let stored_ids = self.i32s(&format!("{tag}.topk_idx"));
            let stored_weights = self.f32s(&format!("{tag}.topk_w"));
            for (token, logits) in stored_logits.chunks_exact(num_experts).enumerate() {
                let chosen = token * top_k..(token + 1) * top_k;
                let mut sorted = logits.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                if top_k < num_experts && sorted[top_k - 1] - sorted[top_k] <= BINDING_GAP {
                    close += 1;
                    continue;
                }
                // Stored by ascending id, ours is best first.
                let ids = &routing.expert_ids[chosen.clone()];
                let mut ours: Vec<(i32, f32)> =
                    ids.iter().map(|id| *id as i32).zip(routing.routing_weights[chosen.clone()].iter().copied()).collect();
                assert!(ours.is_sorted_by(|a, b| a.1 >= b.1), "{} {tag} token {token}: not best first: {ours:?}", self.name);
                ours.sort_by_key(|(id, _)| *id);
                for ((id, weight), (stored_id, stored_weight)) in
                    ours.iter().zip(stored_ids[chosen.clone()].iter().zip(&stored_weights[chosen]))
                {
                    assert_eq!(id, stored_id, "{} {tag} token {token}", self.name);
                    assert!(
                        (weight - stored_weight).abs() <= 1e-3,
                        "{} {tag} token {token}: {weight} {stored_weight}",
                        self.name
                    );
                }
            }
        }
        close
    }
}

/// The largest absolute difference of two equally long slices; NaN counts as infinite.
pub fn max_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let difference = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    found.iter().zip(expected).map(difference).fold(0.0, f32::max)
}

/// A JSON array of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}
