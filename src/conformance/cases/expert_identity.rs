use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{SUM, effective_weights};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::expert_identity::{self, Buffers};
use crate::reference;

struct Identity(expert_identity::Problem);

/// With and without weights.
const NUM_EXPERTS: usize = 10;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |[num_tokens, num_experts_per_tok, hidden_size]: [usize; 3], num_weighted, scale| {
        let name = format!(
            "{num_tokens}x{hidden_size}, {num_experts_per_tok} of {NUM_EXPERTS}, {num_weighted} with weights, times {scale}"
        );
        let problem = expert_identity::Problem { num_tokens, num_experts_per_tok, num_weighted, hidden_size, scale };
        cases.push(Case::new("expert_identity", name, SUM, Identity(problem)));
    };
    for size in [[1, 2, 64], [5, 2, 96], [3, 1, 33], [4, 6, 256], [33, 8, 31], [2, 2, 2048]] {
        add(size, 6, 1.0);
    }
    // One and all of the experts.
    add([9, 3, 33], NUM_EXPERTS - 1, 1.0);
    add([9, 3, 33], 0, 0.22);
    cases
}

impl Problem for Identity {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![expert_identity::choose(caps, &self.0)]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(15));
        let expert_identity::Problem { num_tokens, num_experts_per_tok: top_k, num_weighted, hidden_size, scale } = self.0;
        let input = inputs.floats(num_tokens * hidden_size, 1.0);
        let mut ids: Vec<u32> = (0..num_tokens * top_k).map(|_| inputs.below(NUM_EXPERTS) as u32).collect();
        // Some token goes to the last expert, which is among those without weights in every case.
        ids[0] = NUM_EXPERTS as u32 - 1;
        let weights = inputs.floats(ids.len(), 1.0);
        let before = inputs.floats(input.len(), 1.0);
        let mut after = before.clone();
        let scaled = effective_weights(&weights, WeightOn::Output, scale);
        reference::expert_identity::expert_identity(&input, (&ids, &scaled), num_weighted, top_k, &mut after);

        let x = stage.changed("x", &before, &after, Layout::clear(hidden_size));
        let buffers = Buffers {
            input: &stage.padded_input("input", &input, hidden_size),
            ids: &stage.input("ids", &ids),
            weights: &stage.input("weights", &weights),
            x: &x.buffer,
        };
        let mut recording = Recording::default();
        expert_identity::record(device, &mut recording, None, &self.0, &buffers)?;
        Ok(Prepared { recording, outputs: vec![x] })
    }
}
