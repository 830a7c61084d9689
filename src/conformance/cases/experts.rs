//! Both expert matmuls: they share problems, routing and the way slabs are cut.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Output, Prepared, Stage};
use super::super::{Case, Problem};
use super::{SUM, THOROUGH, effective_weights, fused_norm, normed};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Buffer, Caps, Device, Recording, Variant};
use crate::kernels::expert_gate_up::Routing;
use crate::kernels::{SHARDS_PER_DISPATCH, SlabShape, Slabs, expert_down, expert_gate_up, expert_sort};
use crate::quant::{BF16, F16, F32, I8M, I8S, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, Q8_0, Quant};
use crate::reference;
use crate::reference::expert_combine::expert_combine;
use crate::spec::Activation;

#[derive(Clone, Copy)]
struct Experts {
    num_tokens: usize,
    num_experts: usize,
    top_k: usize,
    hidden_size: usize,
    intermediate_size: usize,
    activation: Activation,
    bias: bool,
    weight_on: WeightOn,
    scale: f32,
    /// Before the gate and up projections.
    norm: bool,
    quant: Quant,
    sorted: bool,
    spread: Spread,
    /// Slots beyond the number of experts, with other weights in them.
    spare_slots: usize,
    /// Cuts the slabs; 0 for the device's own limit.
    max_shard_bytes: u64,
}

/// Which experts the tokens go to.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Random,
    /// The first ones, always.
    Same,
    /// Only every second expert.
    Gaps,
}

/// One of the two kernels over [`Experts`].
struct GateUp(Experts);
struct Down(Experts);

pub fn gate_up_cases() -> Vec<Case> {
    problems().into_iter().map(|problem| Case::new("expert_gate_up", problem.name(), SUM, GateUp(problem))).collect()
}

pub fn down_cases() -> Vec<Case> {
    problems().into_iter().map(|problem| Case::new("expert_down", problem.name(), SUM, Down(problem))).collect()
}

/// As [`gate_up_cases`] and [`down_cases`], in sizes that take seconds.
pub fn large_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for sorted in [false, true] {
        let usual = usual(sorted);
        // More rows of weights than a grid may have workgroups, and slabs of 144 MiB and of 136 MiB in one slot.
        let wide = Experts { hidden_size: 32, intermediate_size: 33_000, spare_slots: 0, ..usual };
        let tall = Experts { hidden_size: 66_000, intermediate_size: 32, ..wide };
        let slots = Experts { num_experts: 9, hidden_size: 2048, intermediate_size: 1024, spare_slots: 0, ..usual };
        let one = Experts { num_experts: 1, top_k: 1, intermediate_size: 8704, ..slots };
        let gate_up = [wide, slots, one];
        let down = [tall, Experts { intermediate_size: 2048, ..slots }, Experts { intermediate_size: 17408, ..one }];
        // More rows of activations than that.
        let many = Experts { num_tokens: 33_000, hidden_size: 32, intermediate_size: 16, ..usual };
        let many = sorted.then_some(many);
        cases.extend(gate_up.into_iter().chain(many).map(|large| Case::new("expert_gate_up", large.name(), SUM, GateUp(large))));
        cases.extend(down.into_iter().chain(many).map(|large| Case::new("expert_down", large.name(), SUM, Down(large))));
    }
    cases
}

fn usual(sorted: bool) -> Experts {
    Experts {
        num_tokens: 1,
        num_experts: 6,
        top_k: 2,
        hidden_size: 96,
        intermediate_size: 52,
        activation: Activation::Silu,
        bias: false,
        weight_on: WeightOn::Output,
        scale: 1.0,
        norm: false,
        quant: &F32,
        sorted,
        spread: Spread::Random,
        spare_slots: 3,
        max_shard_bytes: 0,
    }
}

fn problems() -> Vec<Experts> {
    let mut problems = Vec::new();
    for sorted in [false, true] {
        let usual = usual(sorted);
        for num_tokens in [1, 2, 7, 8, 9, 33] {
            problems.push(Experts { num_tokens, ..usual });
        }
        for quant in &THOROUGH[1..] {
            problems.push(Experts { num_tokens: 9, quant, ..usual });
        }
        // Formats with superblocks of 256 columns, and what is like them.
        let seldom: &[Quant] = if sorted { &[&Q6_K, &Q5_K, &Q4_K, &I8M] } else { &[&Q6_K, &Q4_K, &I8S] };
        problems.extend(seldom.iter().map(|quant| Experts {
            num_tokens: 9,
            hidden_size: 288,
            intermediate_size: 272,
            spare_slots: 0,
            quant,
            ..usual
        }));
        let sizes = if sorted { [(64, 72), (31, 33)] } else { [(1, 1), (256, 384)] };
        problems.extend(sizes.map(|(hidden_size, intermediate_size)| Experts {
            num_tokens: 3,
            hidden_size,
            intermediate_size,
            ..usual
        }));
        let experts = if sorted { [(5, 5), (64, 6)] } else { [(1, 1), (64, 6)] };
        problems.extend(experts.map(|(num_experts, top_k)| Experts { num_tokens: 5, num_experts, top_k, ..usual }));
        for spread in [Spread::Same, Spread::Gaps] {
            problems.push(Experts { num_tokens: 17, spread, ..usual });
        }
        // One expert for all tokens; one or all experts for each; many experts, nearly all of them empty.
        problems.push(Experts { num_tokens: 17, num_experts: 7, top_k: 1, spread: Spread::Same, ..usual });
        problems.push(Experts { num_tokens: 9, num_experts: 7, top_k: 1, ..usual });
        problems.push(Experts { num_tokens: 9, num_experts: 7, top_k: 7, ..usual });
        problems.push(Experts { num_tokens: 9, num_experts: 300, top_k: 8, hidden_size: 64, intermediate_size: 16, ..usual });
        // Nine slots of 20 and 12 KB: several in a shard, or one in each, more than a dispatch binds, and cut in the middle.
        let shards: &[u64] = if sorted { &[10_000] } else { &[10_000, 60_000, 100_000] };
        let sharded = Experts { num_tokens: 9, quant: &BF16, ..usual };
        problems.extend(shards.iter().map(|max_shard_bytes| Experts { max_shard_bytes: *max_shard_bytes, ..sharded }));
        problems.extend(options(Experts { num_tokens: 9, ..usual }));
        // Whole passes and a piece of one, whole workgroups and a piece of one.
        let wide = Experts { num_tokens: 3, num_experts: 3, hidden_size: 608, intermediate_size: 520, spare_slots: 0, ..usual };
        problems.extend([wide, Experts { quant: &Q4_0, ..wide }]);
        if sorted {
            problems.extend(tiled(usual));
        } else {
            let normed = Experts { norm: true, ..usual };
            let both = Experts { bias: true, weight_on: WeightOn::Input, ..normed };
            problems.extend([normed, both, Experts { max_shard_bytes: 20_000, ..both }, Experts { quant: &Q8_0, ..normed }]);
            problems.push(Experts { hidden_size: 33, intermediate_size: 31, ..normed });
        }
    }
    problems
}

/// Enough tokens for each expert that tiles of 16, 32 and 64 tokens and 64 rows pay.
fn tiled(usual: Experts) -> Vec<Experts> {
    // Every token on one expert, as in a dense layer: full tiles, one token less and one more.
    let dense = Experts { num_experts: 1, top_k: 1, ..usual };
    let mut problems: Vec<Experts> =
        [15, 16, 17, 31, 32, 33, 127, 128, 129].map(|num_tokens| Experts { num_tokens, ..dense }).into();
    // Values of every width; matmul tries the formats.
    problems.extend([&F32, &F16, &Q8_0, &Q4_1].map(|quant| Experts { num_tokens: 40, quant, ..usual }));
    problems.push(Experts { num_tokens: 97, intermediate_size: 70, quant: &Q4_1, ..dense });
    // Whatever each expert has on the average, some have none and one has all.
    for num_tokens in [40, 300] {
        problems.extend([Spread::Same, Spread::Gaps].map(|spread| Experts { num_tokens, spread, ..usual }));
    }
    problems.push(Experts { num_tokens: 97, num_experts: 64, top_k: 6, ..usual });
    // Many steps and many tiles of rows, and columns and rows that end inside of one.
    let wide = Experts { num_tokens: 49, num_experts: 3, hidden_size: 608, intermediate_size: 520, spare_slots: 0, ..usual };
    problems.push(Experts { quant: &Q4_0, ..wide });
    let both = Experts { num_tokens: 40, bias: true, weight_on: WeightOn::Input, ..usual };
    let odd = Experts { hidden_size: 33, intermediate_size: 31, ..both };
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 0.5 };
    problems.extend([both, odd, Experts { activation: clamped, ..both }, Experts { max_shard_bytes: 5_000, ..both }]);
    problems.extend([both, odd, Experts { quant: &Q4_0, ..wide }].map(without_gate));
    problems
}

fn without_gate(problem: Experts) -> Experts {
    Experts { activation: Activation::SquaredRelu, ..problem }
}

/// What a spec can ask of the experts.
fn options(usual: Experts) -> Vec<Experts> {
    let clamped = Activation::ClampedSwiglu { alpha: 1.702, limit: 0.5 };
    let [biased, weighted] = [Experts { bias: true, ..usual }, Experts { weight_on: WeightOn::Input, ..usual }];
    let both = Experts { bias: true, ..weighted };
    let mut problems = vec![biased, weighted, both];
    for activation in [Activation::GeluTanh, clamped, Activation::ClampedSwiglu { alpha: 1.702, limit: 7.0 }] {
        problems.extend([Experts { activation, ..usual }, Experts { activation, ..both }]);
    }
    problems.extend([usual, weighted, both].map(|problem| Experts { scale: 0.22, ..problem }));
    // Quads of rows and of biases that are cut short.
    let odd = Experts { hidden_size: 33, intermediate_size: 31, ..usual };
    problems.extend([usual, both, odd, Experts { max_shard_bytes: 5_000, ..biased }].map(without_gate));
    problems.extend([Experts { bias: true, ..odd }, Experts { bias: true, quant: &F16, ..odd }]);
    // Shards of several slots, of one, and of some rows of one.
    for max_shard_bytes in [120_000, 60_000, 20_000, 5_000] {
        problems.extend([biased, weighted, both].map(|problem| Experts { max_shard_bytes, ..problem }));
    }
    problems.extend([20_000, 2_000].map(|max_shard_bytes| Experts { bias: true, max_shard_bytes, ..odd }));
    problems
}

/// What the twin computes from, and where each token goes.
struct Routed {
    ids: Vec<u32>,
    slots: Vec<u32>,
    slot_table: Vec<u32>,
    weights: Vec<f32>,
}

/// Slabs and their values as stored, by slot.
struct Stored {
    slabs: Slabs,
    weights: Vec<Vec<f32>>,
    /// Empty: no biases.
    biases: Vec<Vec<f32>>,
}

impl Stored {
    fn weights(&self) -> Vec<&[f32]> {
        self.weights.iter().map(Vec::as_slice).collect()
    }

    fn biases(&self) -> Vec<&[f32]> {
        self.biases.iter().map(Vec::as_slice).collect()
    }
}

/// The buffers behind a [`Routing`].
enum RoutingBuffers {
    Direct { slots: Buffer },
    Sorted { tiles: Buffer, order: Buffer },
}

impl RoutingBuffers {
    fn routing(&self) -> Routing<'_> {
        match self {
            RoutingBuffers::Direct { slots } => Routing::Direct { slots },
            RoutingBuffers::Sorted { tiles, order } => Routing::Sorted { tiles, order },
        }
    }
}

impl Experts {
    fn name(&self) -> String {
        let Experts { num_tokens, num_experts, top_k, hidden_size, intermediate_size, quant, .. } = self;
        let mut name = format!("{num_tokens} tokens, {top_k} of {num_experts}, {hidden_size}x{intermediate_size} {}", quant.name);
        name.push_str(if self.sorted { " sorted" } else { " direct" });
        if self.activation != Activation::Silu {
            name.push_str(&format!(" {:?}", self.activation));
        }
        if self.norm {
            name.push_str(", norm");
        }
        if self.bias {
            name.push_str(", bias");
        }
        if self.weight_on == WeightOn::Input {
            name.push_str(", weighted before");
        }
        if self.scale != 1.0 {
            name.push_str(&format!(", times {}", self.scale));
        }
        match self.spread {
            Spread::Random => {}
            Spread::Same => name.push_str(", all to the same"),
            Spread::Gaps => name.push_str(", empty experts"),
        }
        if self.max_shard_bytes > 0 {
            name.push_str(&format!(", shards of {} bytes", self.max_shard_bytes));
        }
        name
    }

    fn problem(&self) -> expert_gate_up::Problem {
        expert_gate_up::Problem {
            num_tokens: self.num_tokens,
            num_experts: self.num_experts,
            num_experts_per_tok: self.top_k,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            activation: self.activation,
            weight_on: self.weight_on,
            scale: self.scale,
            norm: fused_norm(self.norm),
            quant: self.quant,
        }
    }

    /// A matrix of every slot.
    fn shape(&self, rows: usize, cols: usize) -> SlabShape {
        SlabShape { num_slots: self.num_experts + self.spare_slots, rows, cols, quant: self.quant, bias: self.bias }
    }

    fn gate_up_shape(&self) -> SlabShape {
        self.shape(self.activation.gate_up_rows(self.intermediate_size), self.hidden_size)
    }

    fn down_shape(&self) -> SlabShape {
        self.shape(self.hidden_size, self.intermediate_size)
    }

    /// The capabilities that decide how slabs are cut.
    fn cutting(&self, caps: &Caps) -> Caps {
        let max_binding_bytes = match self.max_shard_bytes {
            0 => caps.max_binding_bytes,
            bytes => bytes.min(caps.max_binding_bytes),
        };
        Caps { max_binding_bytes, ..caps.clone() }
    }

    fn variants(&self, caps: &Caps, shape: &SlabShape, base: &Variant, max_shards: usize) -> Vec<Variant> {
        let mut variants = shape.variants(&self.cutting(caps), base, max_shards).unwrap_or_default();
        variants.sort();
        variants.dedup();
        variants
    }

    /// Slabs of random weights and biases.
    fn slabs(&self, device: &Device, inputs: &mut Inputs, shape: SlabShape) -> Result<Stored> {
        let slabs = Slabs::within(device, &self.cutting(device.caps()), "slabs", shape)?;
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for slot in 0..shape.num_slots {
            let bytes = self.quant.pack(&inputs.weights(shape.rows, shape.cols), shape.cols);
            weights.push(self.quant.unpack(&bytes, shape.cols));
            // In two pieces, as a checkpoint is uploaded.
            let (head, tail) = bytes.split_at(shape.rows / 2 * shape.row_bytes());
            slabs.write_rows(device, slot, 0, head);
            slabs.write_rows(device, slot, shape.rows / 2, tail);
            if self.bias {
                let bias = inputs.floats(shape.rows, 1.0);
                slabs.write_bias(device, slot, &bias);
                biases.push(bias);
            }
        }
        Ok(Stored { slabs, weights, biases })
    }

    fn route(&self, inputs: &mut Inputs) -> Routed {
        // Slots are no expert ids: a permutation of more of them.
        let slots = inputs.permutation(self.num_experts + self.spare_slots);
        let slot_table = slots[..self.num_experts].to_vec();
        let mut ids = Vec::new();
        for _ in 0..self.num_tokens {
            let mut order = inputs.permutation(self.num_experts);
            match self.spread {
                Spread::Random => {}
                Spread::Same => order.sort(),
                Spread::Gaps => order.retain(|expert| expert % 2 == 1),
            }
            ids.extend_from_slice(&order[..self.top_k]);
        }
        let slots = ids.iter().map(|expert| slot_table[*expert as usize]).collect();
        let weights = inputs.floats(ids.len(), 1.0);
        Routed { ids, slots, slot_table, weights }
    }

    fn routing_buffers(&self, stage: Stage, routed: &Routed) -> RoutingBuffers {
        if !self.sorted {
            return RoutingBuffers::Direct { slots: stage.input("slots", &routed.slots) };
        }
        let caps = stage.device.caps();
        let problem = expert_sort::Problem { num_assignments: routed.ids.len(), num_experts: self.num_experts };
        let sorted =
            reference::expert_sort::expert_sort(&routed.ids, &routed.slot_table, problem.tile_len(caps), problem.num_tiles(caps));
        RoutingBuffers::Sorted {
            tiles: stage.input("tiles", sorted.tiles.as_flattened()),
            order: stage.input("order", &sorted.order),
        }
    }
}

impl Problem for GateUp {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        let base = expert_gate_up::choose(caps, &self.0.problem(), self.0.sorted);
        self.0.variants(caps, &self.0.gate_up_shape(), &base, expert_gate_up::shards_per_dispatch(&self.0.problem()))
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(9));
        let experts = self.0;
        let routed = experts.route(&mut inputs);
        let stored = experts.slabs(device, &mut inputs, experts.gate_up_shape())?;
        let x = inputs.floats(experts.num_tokens * experts.hidden_size, 1.0);
        let norm = experts.norm.then(|| inputs.floats(experts.hidden_size, 1.0));
        let expected = reference::expert_gate_up::expert_gate_up(&reference::expert_gate_up::Inputs {
            x: &normed(&x, norm.as_deref()),
            slots: &routed.slots,
            top_k: experts.top_k,
            slabs: &stored.weights(),
            biases: &stored.biases(),
            input_weights: (experts.weight_on == WeightOn::Input).then_some(routed.weights.as_slice()),
            hidden_size: experts.hidden_size,
            activation: experts.activation,
        });

        let x = stage.padded_input("x", &x, experts.hidden_size);
        let norm = norm.map(|norm| stage.padded_input("norm", &norm, experts.hidden_size));
        let weights = stage.input("weights", &routed.weights);
        let routing = experts.routing_buffers(stage, &routed);
        let h = stage.output("h", &expected, Layout::padded(experts.intermediate_size));
        let buffers = expert_gate_up::Buffers {
            x: &x,
            routing: routing.routing(),
            weights: &weights,
            norm: norm.as_ref(),
            h: &h.buffer,
            gate_up: None,
            slabs: &stored.slabs,
        };
        let mut recording = Recording::default();
        expert_gate_up::record(device, &mut recording, None, &experts.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![h] })
    }
}

impl Problem for Down {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        let base = expert_down::choose(caps, &self.0.problem(), self.0.sorted);
        self.0.variants(caps, &self.0.down_shape(), &base, SHARDS_PER_DISPATCH)
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(10));
        let experts = self.0;
        let routed = experts.route(&mut inputs);
        let stored = experts.slabs(device, &mut inputs, experts.down_shape())?;
        let h = inputs.floats(routed.slots.len() * experts.intermediate_size, 1.0);
        let (weights, biases) = (stored.weights(), stored.biases());
        let down = reference::expert_down::expert_down(&h, &routed.slots, &weights, &biases, experts.intermediate_size);

        let y = self.output(stage, &mut inputs, &routed, &down);
        let h = stage.padded_input("h", &h, experts.intermediate_size);
        let weights = stage.input("weights", &routed.weights);
        let routing = experts.routing_buffers(stage, &routed);
        let buffers =
            expert_down::Buffers { h: &h, routing: routing.routing(), weights: &weights, y: &y.buffer, slabs: &stored.slabs };
        let mut recording = Recording::default();
        expert_down::record(device, &mut recording, None, &experts.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}

impl Down {
    /// The outputs of the assignments, or the residual stream that their weighted sum is added to.
    fn output(&self, stage: Stage, inputs: &mut Inputs, routed: &Routed, down: &[f32]) -> Output {
        let Experts { num_tokens, top_k, hidden_size, weight_on, scale, sorted, .. } = self.0;
        let layout = Layout::padded(hidden_size);
        if sorted {
            return stage.output("y", down, layout);
        }
        let before = inputs.floats(num_tokens * hidden_size, 1.0);
        let mut after = before.clone();
        expert_combine(down, &effective_weights(&routed.weights, weight_on, scale), top_k, &mut after);
        stage.changed("y", &before, &after, layout)
    }
}
