use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::error::Result;
use crate::gating::{CallCapacity, CallLimit};
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::expert_capacity::{self, Buffers};
use crate::reference;

struct Capacity {
    num_tokens: usize,
    num_experts: usize,
    num_experts_per_tok: usize,
    capacity: CallCapacity,
    /// Every token chooses the same experts.
    crowded: bool,
}

const TOLERANCE: Tolerance = Tolerance { max_abs: 1e-6, nmse: 1e-12, why: "a quotient of f32" };
/// What a token without any expert divides its weights by.
const FLOOR: f32 = f32::EPSILON;
/// Where the layer of the case counts.
const LOAD_OFFSET: usize = 5;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |num_tokens, [num_experts_per_tok, num_experts]: [usize; 2], limit, renormalize, crowded| {
        let what = match limit {
            CallLimit::Tokens(most) => format!("at most {most}"),
            CallLimit::Share(share) => format!("at most {share} of the tokens"),
        };
        let after = if renormalize { ", renormalised" } else { "" };
        let same = if crowded { ", all to the same" } else { "" };
        let name = format!("{num_tokens} tokens, {num_experts_per_tok} of {num_experts}, {what}{after}{same}");
        let capacity = CallCapacity { limit, renormalize: renormalize.then_some(FLOOR) };
        let problem = Capacity { num_tokens, num_experts, num_experts_per_tok, capacity, crowded };
        cases.push(Case::new("expert_capacity", name, TOLERANCE, problem));
    };
    for num_tokens in [1, 2, 15, 63, 64, 65, 130] {
        add(num_tokens, [1, 6], CallLimit::Tokens(14), false, false);
        add(num_tokens, [2, 4], CallLimit::Share(0.5), false, false);
    }
    for limit in [CallLimit::Tokens(0), CallLimit::Tokens(1), CallLimit::Tokens(usize::MAX), CallLimit::Share(0.1)] {
        add(33, [2, 8], limit, false, false);
        add(33, [2, 8], limit, true, false);
    }
    // Second and third choices find what first choices left; then nothing, and places for all.
    add(65, [3, 3], CallLimit::Tokens(40), true, false);
    add(65, [2, 8], CallLimit::Tokens(64), false, true);
    add(65, [2, 8], CallLimit::Tokens(65), true, true);
    add(512, [2, 128], CallLimit::Share(0.01), true, false);
    cases
}

impl Capacity {
    fn problem(&self) -> expert_capacity::Problem {
        let Capacity { num_tokens, num_experts_per_tok, capacity, .. } = *self;
        expert_capacity::Problem { num_tokens, num_experts_per_tok, capacity, load_offset: LOAD_OFFSET }
    }

    /// Of each token different ones, in any order.
    fn ids(&self, inputs: &mut Inputs) -> Vec<u32> {
        let mut one = || {
            let order = inputs.permutation(self.num_experts);
            order.into_iter().take(self.num_experts_per_tok).collect::<Vec<_>>()
        };
        if self.crowded { one().repeat(self.num_tokens) } else { (0..self.num_tokens).flat_map(|_| one()).collect() }
    }
}

impl Problem for Capacity {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![expert_capacity::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(17));
        let ids = self.ids(&mut inputs);
        let before: Vec<f32> = inputs.floats(ids.len(), 0.5).iter().map(|weight| weight.abs() + 0.01).collect();
        let mut loads_before: Vec<u32> = (0..LOAD_OFFSET + self.num_experts).map(|index| index as u32 * 7).collect();
        ids.iter().for_each(|expert| loads_before[LOAD_OFFSET + *expert as usize] += 1);
        let (mut after, mut loads_after) = (before.clone(), loads_before.clone());
        let loads = &mut loads_after[LOAD_OFFSET..];
        let kept = reference::expert_capacity::expert_capacity(&self.capacity, self.num_experts_per_tok, &ids, &mut after, loads);

        let weights = stage.changed("weights", &before, &after, Layout::dense(self.num_experts_per_tok));
        let ids = stage.input("ids", &ids);
        let kept = stage.integers("kept", &kept);
        let loads = stage.changed_integers("loads", &loads_before, &loads_after);
        let buffers = Buffers { ids: &ids, weights: &weights.buffer, kept: &kept.buffer, loads: &loads.buffer };
        let mut recording = Recording::default();
        expert_capacity::record(device, &mut recording, Some(0), &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![weights, kept, loads] })
    }
}
