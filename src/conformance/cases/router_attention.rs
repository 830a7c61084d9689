use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::router_attention::{self, Buffers};
use crate::reference;

struct Router {
    problem: router_attention::Problem,
    /// Of the queries, keys and values.
    size: f32,
}

/// For scores of up to 900.
const LARGE: Tolerance = Tolerance { max_abs: 9e-3, nmse: 1e-9, why: "the exp of a product of 900, whose f32 is off by 3e-5" };

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (num_tokens, num_experts, size) in [(1, 8, 1.0), (9, 8, 1.0), (3, 1, 1.0), (3, 32, 2.0), (2, 65, 1.0), (3, 32, 30.0)] {
        let problem = router_attention::Problem { num_tokens, num_experts };
        let tolerance = if size > 2.0 { LARGE } else { SUM };
        let name = format!("{num_tokens} tokens, {num_experts} experts, values up to {size}");
        cases.push(Case::new("router_attention", name, tolerance, Router { problem, size }));
    }
    cases
}

impl Problem for Router {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![router_attention::choose(caps, &self.problem)]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(17));
        let router_attention::Problem { num_tokens, num_experts } = self.problem;
        let qkv = inputs.floats(num_tokens * 3 * num_experts, self.size);
        let logits = reference::router_attention::router_attention(&qkv, num_experts);
        let logits = stage.output("logits", &logits, Layout::dense(num_experts));
        let buffers = Buffers { qkv: &stage.padded_input("qkv", &qkv, 3 * num_experts), logits: &logits.buffer };
        let mut recording = Recording::default();
        router_attention::record(device, &mut recording, None, &self.problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![logits] })
    }
}
