//! Experts in training: what the activation gets is kept, and the way back through it.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::SUM;
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Buffer, Caps, Device, Recording, Variant};
use crate::kernels::expert_gate_up::{self, Routing};
use crate::kernels::{SlabShape, Slabs, expert_sort, grad_hidden};
use crate::quant::{F32, padded};
use crate::reference;
use crate::spec::Activation;

#[derive(Clone, Copy)]
struct Experts {
    num_tokens: usize,
    num_experts: usize,
    top_k: usize,
    hidden_size: usize,
    intermediate_size: usize,
    /// All tokens go to the first experts.
    all_on_few: bool,
}

struct Keep(Experts);
struct Back(Experts);

const LONG: Tolerance = Tolerance { max_abs: 1e-4, nmse: 1e-11, why: "f32 sums of some hundred products, one after the other" };

fn experts() -> Vec<Experts> {
    let usual = Experts { num_tokens: 9, num_experts: 6, top_k: 2, hidden_size: 96, intermediate_size: 52, all_on_few: false };
    let mut all = vec![usual, Experts { all_on_few: true, ..usual }];
    all.extend([1, 8, 33, 70].map(|num_tokens| Experts { num_tokens, ..usual }));
    all.extend([(10, 6), (31, 33), (64, 48), (33, 1), (130, 130)].map(|(hidden_size, intermediate_size)| Experts {
        hidden_size,
        intermediate_size,
        ..usual
    }));
    all.push(Experts { num_tokens: 100, num_experts: 1, top_k: 1, ..usual });
    all
}

pub fn keep_cases() -> Vec<Case> {
    let case = |experts: Experts| Case::new("expert_gate_up", format!("{}, kept", experts.name()), SUM, Keep(experts));
    experts().into_iter().map(case).collect()
}

pub fn back_cases() -> Vec<Case> {
    experts().into_iter().map(|experts| Case::new("grad_hidden", experts.name(), LONG, Back(experts))).collect()
}

impl Experts {
    fn name(&self) -> String {
        let Experts { num_tokens, num_experts, top_k, hidden_size, intermediate_size, all_on_few } = self;
        let how = if *all_on_few { ", all on few" } else { "" };
        format!("{num_tokens} tokens, {top_k} of {num_experts}, {hidden_size}x{intermediate_size}{how}")
    }

    fn num_assignments(&self) -> usize {
        self.num_tokens * self.top_k
    }

    fn ids(&self, inputs: &mut Inputs) -> Vec<u32> {
        let of_token = |inputs: &mut Inputs| -> Vec<u32> {
            let order = inputs.permutation(self.num_experts);
            if self.all_on_few { (0..self.top_k as u32).collect() } else { order[..self.top_k].to_vec() }
        };
        (0..self.num_tokens).flat_map(|_| of_token(inputs)).collect()
    }

    /// What `expert_sort` would leave: tiles and order.
    fn sorted(&self, stage: &Stage, ids: &[u32]) -> [Buffer; 2] {
        let caps = stage.device.caps();
        let problem = expert_sort::Problem { num_assignments: self.num_assignments(), num_experts: self.num_experts };
        let slots: Vec<u32> = (0..self.num_experts as u32).collect();
        let sorted = reference::expert_sort::expert_sort(ids, &slots, problem.tile_len(caps), problem.num_tiles(caps));
        [stage.input("tiles", sorted.tiles.as_flattened()), stage.input("order", &sorted.order)]
    }

    fn gate_up_problem(&self) -> expert_gate_up::Problem {
        expert_gate_up::Problem {
            num_tokens: self.num_tokens,
            num_experts: self.num_experts,
            num_experts_per_tok: self.top_k,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            activation: Activation::Silu,
            weight_on: WeightOn::Output,
            scale: 1.0,
            norm: None,
            quant: &F32,
        }
    }

    fn back_problem(&self) -> grad_hidden::Problem {
        grad_hidden::Problem {
            num_tokens: self.num_tokens,
            num_experts: self.num_experts,
            num_experts_per_tok: self.top_k,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
        }
    }

    fn slabs(&self) -> SlabShape {
        let (rows, cols) = (2 * self.intermediate_size, self.hidden_size);
        SlabShape { num_slots: self.num_experts, rows, cols, quant: &F32, bias: false }
    }
}

impl Problem for Keep {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        let problem = self.0.gate_up_problem();
        let base = expert_gate_up::keeping(expert_gate_up::choose(caps, &problem, true), &problem, true);
        let shards = expert_gate_up::shards_per_dispatch(&problem) - 1;
        self.0.slabs().variants(caps, &base, shards).unwrap_or_default()
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, experts) = (Stage { device }, Inputs::new(71), &self.0);
        let Experts { hidden_size, intermediate_size, top_k, .. } = *experts;
        let x = inputs.floats(experts.num_tokens * hidden_size, 1.0);
        let slabs: Vec<Vec<f32>> = (0..experts.num_experts).map(|_| inputs.weights(2 * intermediate_size, hidden_size)).collect();
        let ids = experts.ids(&mut inputs);
        let stored = Slabs::new(device, "slabs", experts.slabs())?;
        for (slot, slab) in slabs.iter().enumerate() {
            stored.write_rows(device, slot, 0, &F32.pack(slab, hidden_size));
        }
        let slabs: Vec<&[f32]> = slabs.iter().map(Vec::as_slice).collect();
        let h = reference::expert_gate_up::expert_gate_up(&reference::expert_gate_up::Inputs {
            x: &x,
            slots: &ids,
            top_k,
            slabs: &slabs,
            biases: &[],
            input_weights: None,
            hidden_size,
            activation: Activation::Silu,
        });
        let of_assignment = |(assignment, &expert): (usize, &u32)| {
            let x = &x[assignment / top_k * hidden_size..][..hidden_size];
            reference::matmul::matmul(x, slabs[expert as usize], hidden_size)
        };
        let gate_up: Vec<f32> = ids.iter().enumerate().flat_map(of_assignment).collect();

        let h = stage.output("h", &h, Layout::padded(intermediate_size));
        let gate_up = stage.output("gate_up", &gate_up, Layout::padded(2 * intermediate_size));
        let [tiles, order] = experts.sorted(&stage, &ids);
        let x = stage.padded_input("x", &x, hidden_size);
        let mut recording = Recording::default();
        let routing = Routing::Sorted { tiles: &tiles, order: &order };
        let (h_buffer, kept) = (&h.buffer, Some(&gate_up.buffer));
        let buffers =
            expert_gate_up::Buffers { x: &x, routing, weights: &x, norm: None, h: h_buffer, gate_up: kept, slabs: &stored };
        expert_gate_up::record(device, &mut recording, None, &experts.gate_up_problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![h, gate_up] })
    }
}

impl Problem for Back {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_hidden::choose(caps, &self.0.back_problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, experts) = (Stage { device }, Inputs::new(72), &self.0);
        let Experts { num_tokens, num_experts, hidden_size, intermediate_size, .. } = *experts;
        let dy = inputs.floats(num_tokens * hidden_size, 1.0);
        let down: Vec<f32> = (0..num_experts).flat_map(|_| inputs.weights(hidden_size, intermediate_size)).collect();
        let ids = experts.ids(&mut inputs);
        let gate_up = inputs.floats(experts.num_assignments() * 2 * intermediate_size, 2.0);
        // As of a router: none is negative.
        let weights: Vec<f32> = inputs.floats(experts.num_assignments(), 1.0).into_iter().map(f32::abs).collect();
        let by_expert: Vec<&[f32]> = down.chunks_exact(hidden_size * intermediate_size).collect();
        let [dgate_up, parts] = reference::grad_hidden::grad_hidden(&reference::grad_hidden::Inputs {
            dy: &dy,
            down: &by_expert,
            ids: &ids,
            gate_up: &gate_up,
            weights: &weights,
            hidden_size,
        });
        let num_parts = padded(intermediate_size) / 4;
        let of_quads = |row: &[f32]| -> Vec<f32> { (0..num_parts).map(|quad| row.iter().skip(4 * quad).take(4).sum()).collect() };
        let parts: Vec<f32> = parts.chunks_exact(intermediate_size).flat_map(of_quads).collect();

        let dgate_up = stage.output("dgate_up", &dgate_up, Layout::clearing(2 * intermediate_size));
        let parts = stage.output("parts", &parts, Layout::dense(num_parts));
        let [tiles, order] = experts.sorted(&stage, &ids);
        let dy = stage.padded_input("dy", &dy, hidden_size);
        let down = stage.padded_input("down", &down, intermediate_size);
        let gate_up = stage.padded_input("gate_up", &gate_up, 2 * intermediate_size);
        let weights = stage.input("weights", &weights);
        let mut recording = Recording::default();
        let buffers = grad_hidden::Buffers {
            dy: &dy,
            down: &down,
            tiles: &tiles,
            order: &order,
            gate_up: &gate_up,
            weights: &weights,
            dgate_up: &dgate_up.buffer,
            parts: &parts.buffer,
        };
        grad_hidden::record(device, &mut recording, None, &experts.back_problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dgate_up, parts] })
    }
}
