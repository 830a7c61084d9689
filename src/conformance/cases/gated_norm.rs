use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::gated_norm::{self, Buffers};
use crate::quant::padded;
use crate::reference;
use crate::spec::{GateActivation, GatedNormSpec};

struct GatedNorm {
    num_tokens: usize,
    cols: usize,
    norm: GatedNormSpec,
}

/// Before the gate lie other columns, and behind it as many.
const GATE_FIRST: usize = 12;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (gate_first, activation) in
        [(true, GateActivation::Silu), (false, GateActivation::Silu), (false, GateActivation::Sigmoid)]
    {
        for (num_tokens, cols, groups, shared_weight) in
            [(1, 128, 1, false), (3, 128, 2, false), (2, 96, 8, false), (5, 96, 8, true), (1, 4, 1, true), (2, 2056, 1, false)]
        {
            let norm = GatedNormSpec { eps: 1e-5, groups, activation, gate_first, shared_weight };
            let (order, weight) =
                (if gate_first { "before" } else { "after" }, if shared_weight { ", one weight for all" } else { "" });
            let name = format!("{num_tokens}x{cols} in {groups}{weight}, {activation:?} {order}");
            cases.push(Case::new("gated_norm", name, SUM, GatedNorm { num_tokens, cols, norm }));
        }
    }
    cases
}

impl GatedNorm {
    fn problem(&self) -> gated_norm::Problem<'_> {
        gated_norm::Problem {
            num_tokens: self.num_tokens,
            cols: self.cols,
            norm: &self.norm,
            stride: padded(self.cols),
            gate_stride: padded(self.cols + 2 * GATE_FIRST),
            gate_first: GATE_FIRST,
        }
    }
}

impl Problem for GatedNorm {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![gated_norm::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, problem) = (Stage { device }, Inputs::new(34), self.problem());
        let x = inputs.floats(self.num_tokens * self.cols, 2.0);
        let gate = inputs.floats(self.num_tokens * self.cols, 3.0);
        let weight = inputs.floats(if self.norm.shared_weight { self.cols / self.norm.groups } else { self.cols }, 1.0);
        let y = reference::gated_norm::gated_norm(&self.norm, &x, &gate, &weight);
        let mut wide = vec![f32::NAN; self.num_tokens * problem.gate_stride];
        for (row, gate) in wide.chunks_exact_mut(problem.gate_stride).zip(gate.chunks_exact(self.cols)) {
            row[GATE_FIRST..][..self.cols].copy_from_slice(gate);
        }
        let y = stage.output("y", &y, Layout::padded(self.cols));
        let buffers = Buffers {
            x: &stage.padded_input("x", &x, self.cols),
            gate: &stage.input("gate", &wide),
            weight: &stage.input("weight", &weight),
            y: &y.buffer,
        };
        let mut recording = Recording::default();
        gated_norm::record(device, &mut recording, None, &problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
