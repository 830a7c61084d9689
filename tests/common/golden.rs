//! Stored outputs of transformers for the fixtures.

use super::{golden, spec_of};
use moebius::batch::LayerRouting;
use moebius::gating::{RouterMethod, RouterSpec};
use moebius::spec::ModelSpec;
use moebius::tensor::Dtype;
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Directories under `fixtures`, sorted: a new family needs no list of tests. The variable `FIXTURE` leaves only one, while working on it.
pub static FIXTURES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let entries = std::fs::read_dir(golden("fixtures")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<&str> = entries.map(|name| &*name.leak()).collect();
    names.sort_unstable();
    if let Ok(only) = std::env::var("FIXTURE") {
        names.retain(|name| *name == only);
        assert!(!names.is_empty(), "no fixture is called `{only}`");
    }
    names
});
/// No logit of any fixture may differ by more, on any device: less than the tolerances that are stored with them.
pub const LOGITS_WITHIN: f32 = 1e-3;
/// A weight may differ by this.
const MAX_WEIGHT_ERROR: f32 = 1e-3;

pub struct Golden {
    pub name: &'static str,
    pub directory: PathBuf,
    pub spec: ModelSpec,
    /// Token ids of each stored prompt.
    pub prompts: Vec<Vec<u32>>,
    /// `(prompt, the tokens that follow it)`
    pub greedy: Vec<(usize, Vec<u32>)>,
    /// Largest difference from a stored value, absolute and relative to it, added.
    atol: f32,
    rtol: f32,
    /// What is stored as router logits are the probabilities, says a note.
    stores_probabilities: bool,
    tensors: Vec<u8>,
}

impl Golden {
    /// Every fixture.
    pub fn all() -> Vec<Golden> {
        FIXTURES.iter().map(|name| Self::load(name)).collect()
    }

    pub fn load(name: &'static str) -> Golden {
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
            atol: expected["tolerance"]["atol"].as_f64().unwrap() as f32,
            rtol: expected["tolerance"]["rtol"].as_f64().unwrap() as f32,
            stores_probabilities: entries("notes").iter().any(|note| note.as_str().unwrap().contains("softmax probabilities")),
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

    /// `None` where the oracle kept no such tensor.
    fn i32s(&self, name: &str) -> Option<Vec<i32>> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), safetensors::Dtype::I32);
        Some(tensor.data().chunks_exact(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect())
    }

    /// Asserts that `found` are the stored values; returns the largest difference.
    fn assert_close(&self, found: &[f32], name: &str) -> f32 {
        let stored = self.f32s(name);
        assert_eq!(found.len(), stored.len(), "{} {name}", self.name);
        for (index, (found, stored)) in found.iter().zip(&stored).enumerate() {
            let within = (found - stored).abs() <= self.atol + self.rtol * stored.abs();
            assert!(within, "{} {name}[{index}]: {found}, stored {stored}", self.name);
        }
        max_difference(found, &stored)
    }

    /// Whether the oracle kept the chosen experts, not only the logits they were chosen by.
    pub fn stores_choices(&self) -> bool {
        let first = self.spec.moe_layers().next();
        first.is_some_and(|(layer, _)| self.i32s(&format!("p0.L{}.topk_idx", layer / self.spec.names.sub_layers)).is_some())
    }

    /// Asserts that `logits [n, vocab]` of a prompt are the stored ones; returns the largest difference.
    pub fn assert_logits(&self, prompt: usize, logits: &[f32]) -> f32 {
        self.assert_close(logits, &format!("p{prompt}.logits"))
    }

    /// Asserts that every layer routed a prompt as stored: the fixtures are made so that no choice is close.
    pub fn assert_routing(&self, prompt: usize, layers: &[LayerRouting]) {
        let expected: Vec<usize> = self.spec.moe_layers().map(|(layer, _)| layer).collect();
        assert_eq!(layers.iter().map(|routing| routing.layer).collect::<Vec<_>>(), expected, "{}", self.name);
        for routing in layers {
            // The oracle counts layers as they are stored.
            let tag = format!("p{prompt}.L{}", routing.layer / self.spec.names.sub_layers);
            self.assert_router(&self.spec.layers[routing.layer].moe().unwrap().router, routing, &tag);
        }
    }

    /// The same of routers that choose the projections of an attention.
    pub fn assert_choices(&self, prompt: usize, choices: &[LayerRouting]) {
        let experts = |layer: usize| self.spec.layers[layer].attention_experts();
        let expected = (0..self.spec.layers.len()).filter(|&layer| experts(layer).is_some());
        let found = choices.iter().map(|routing| routing.layer);
        assert_eq!(found.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{}", self.name);
        for routing in choices {
            let router = &experts(routing.layer).unwrap().router;
            self.assert_router(router, routing, &format!("p{prompt}.Lattn.{}", routing.layer));
        }
    }

    /// What one router did, against what is stored under `tag`.
    fn assert_router(&self, router: &RouterSpec, routing: &LayerRouting, tag: &str) {
        if self.stores_probabilities {
            let found: Vec<f32> = routing.router_logits.chunks(router.num_experts).flat_map(softmax).collect();
            self.assert_close(&found, &format!("{tag}.router_logits"));
        } else {
            self.assert_close(&routing.router_logits, &format!("{tag}.router_logits"));
        }
        let Some(stored_ids) = self.i32s(&format!("{tag}.topk_idx")) else { return };
        let mut stored_weights = self.f32s(&format!("{tag}.topk_w"));
        if self.name == "llama_moe" {
            // Stored before the scale, which its oracle applies to the sum.
            stored_weights.iter_mut().for_each(|weight| *weight *= router.scale);
        }
        let top_k = router.num_experts_per_tok;
        assert_eq!(routing.expert_ids.len(), stored_ids.len());
        for start in (0..stored_ids.len()).step_by(top_k) {
            let chosen = start..start + top_k;
            let (ids, weights) = (&routing.expert_ids[chosen.clone()], &routing.routing_weights[chosen.clone()]);
            let found = Choice { ids: ids.iter().map(|&id| id as i32).collect(), weights };
            let stored = Choice { ids: stored_ids[chosen.clone()].to_vec(), weights: &stored_weights[chosen] };
            assert_choice(router, &found, &stored, &format!("{} {tag} token {}", self.name, start / top_k));
        }
    }
}

/// The experts of one token.
struct Choice<'a> {
    ids: Vec<i32>,
    weights: &'a [f32],
}

/// Asserts that the experts of one token are the stored ones, which are sorted by id; ours come best first.
fn assert_choice(router: &RouterSpec, found: &Choice<'_>, stored: &Choice<'_>, token: &str) {
    let mut ours: Vec<(i32, f32)> = found.ids.iter().copied().zip(found.weights.iter().copied()).collect();
    // A bias for choosing, and the second round of a sparse mixer, choose by something else than the weight.
    let by_weight = !router.selection_bias && !router.expert_scale && !matches!(router.method, RouterMethod::SparseMixer { .. });
    assert!(!by_weight || ours.is_sorted_by(|a, b| a.1 >= b.1), "{token}: not best first: {ours:?}");
    ours.sort_by_key(|(id, _)| *id);
    for ((id, weight), (stored_id, stored_weight)) in ours.iter().zip(stored.ids.iter().zip(stored.weights)) {
        assert_eq!(id, stored_id, "{token}: {ours:?}");
        assert!((weight - stored_weight).abs() <= MAX_WEIGHT_ERROR, "{token}: {weight} {stored_weight}");
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::MIN, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    logits.iter().map(|logit| (logit - top).exp() / total).collect()
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
