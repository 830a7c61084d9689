use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{SUM, effective_weights};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::expert_combine::{self, Buffers};
use crate::reference;

struct Combine(expert_combine::Problem);

/// More rows than a grid may have workgroups.
pub fn large_cases() -> Vec<Case> {
    let problem = expert_combine::Problem {
        num_tokens: 33_000,
        num_experts_per_tok: 2,
        hidden_size: 32,
        weight_on: WeightOn::Output,
        scale: 1.0,
    };
    vec![Case::new("expert_combine", "33000x32 of 2", SUM, Combine(problem))]
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |[num_tokens, num_experts_per_tok, hidden_size]: [usize; 3], weight_on, scale| {
        let mut name = format!("{num_tokens}x{hidden_size} of {num_experts_per_tok}");
        if weight_on == WeightOn::Input {
            name.push_str(", weighted before");
        }
        if scale != 1.0 {
            name.push_str(&format!(", times {scale}"));
        }
        let problem = expert_combine::Problem { num_tokens, num_experts_per_tok, hidden_size, weight_on, scale };
        cases.push(Case::new("expert_combine", name, SUM, Combine(problem)));
    };
    for size in [[1, 2, 64], [5, 2, 96], [3, 1, 33], [4, 6, 256], [33, 8, 31], [2, 2, 2048]] {
        add(size, WeightOn::Output, 1.0);
    }
    add([5, 2, 33], WeightOn::Output, 0.22);
    add([5, 2, 33], WeightOn::Input, 1.0);
    add([5, 2, 33], WeightOn::Input, 0.22);
    cases
}

impl Problem for Combine {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![expert_combine::choose(caps, &self.0)]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(8));
        let expert_combine::Problem { num_tokens, num_experts_per_tok, hidden_size, weight_on, scale } = self.0;
        let y = inputs.floats(num_tokens * num_experts_per_tok * hidden_size, 1.0);
        let weights = inputs.floats(num_tokens * num_experts_per_tok, 1.0);
        let before = inputs.floats(num_tokens * hidden_size, 1.0);
        let mut after = before.clone();
        reference::expert_combine::expert_combine(
            &y,
            &effective_weights(&weights, weight_on, scale),
            num_experts_per_tok,
            &mut after,
        );

        let (y, weights) = (stage.padded_input("y", &y, hidden_size), stage.input("weights", &weights));
        let x = stage.changed("x", &before, &after, Layout::clear(hidden_size));
        let mut recording = Recording::default();
        let buffers = Buffers { y: &y, weights: &weights, x: &x.buffer };
        expert_combine::record(device, &mut recording, None, &self.0, &buffers)?;
        Ok(Prepared { recording, outputs: vec![x] })
    }
}
