use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::error::Result;
use crate::gating::{Batch, Dims, Effect, GATES, Gate, NONE, Named, Values};
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::{gate_rule, grad_gate_rule};
use crate::reference::{self, grad_gate_rule::Backward};

/// For shares and gradients of about 1.
const RULE: Tolerance = Tolerance { max_abs: 3e-5, nmse: 1e-9, why: "exp, log and sums of f32, one after the other" };

/// A method in some size. The gradient comes in three parts.
struct Ruled {
    gate: &'static Gate,
    values: Values,
    dims: Dims,
    training: bool,
    gradient: bool,
}

/// What a rule reads. Numbers are f32, as the device has them.
struct Read {
    dims: Dims,
    training: bool,
    x: Vec<f64>,
    router: Vec<f32>,
    wide: Vec<f64>,
    leaves: Named<f64>,
    noise: Named<f64>,
    state: Named<f64>,
    rows: Vec<u32>,
    token_ids: Vec<u32>,
    domains: Vec<u32>,
}

const NUM_PARTS: usize = 3;
const VOCAB_SIZE: usize = 40;

pub fn cases() -> Vec<Case> {
    all(false)
}

pub fn gradient_cases() -> Vec<Case> {
    all(true)
}

/// Every method with 7 and more tokens, the commonest ones in other sizes and with other settings, and without training.
fn all(gradient: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, sizes: [usize; 3], settings: &[(&'static str, &'static str)], training: bool| {
        cases.extend(case(name, sizes, settings, training).map(|ruled| named(Ruled { gradient, ..ruled }, settings)));
    };
    for gate in GATES {
        add(gate.name, [34, 17, 8], &[], true);
    }
    for (name, sizes) in [("top_k_softmax", [1, 1, 64]), ("top1_switch", [129, 129, 3]), ("sigmoid_bias", [9, 9, 64])] {
        add(name, sizes, &[], true);
    }
    for how in ["softmax_before", "sigmoid"] {
        add("top_k_softmax", [34, 17, 5], &[("score", how), ("renormalize", "yes"), ("scale", "2.5")], true);
    }
    add("top_k_softmax", [34, 17, 8], &[("score", "softmax_before"), ("renormalize_after_drop", "yes")], true);
    for second in ["random", "threshold", "gumbel"] {
        add("top2_gshard", [34, 17, 8], &[("second", second), ("renormalize_after_drop", "yes")], true);
    }
    add("top2_gshard", [34, 17, 8], &[("second", "random")], false);
    add("top1_switch", [34, 17, 8], &[("select", "sample")], true);
    add("sparse_mixer", [34, 17, 8], &[("version", "v1"), ("mask_jitter", "0.5")], true);
    add("sparse_mixer", [34, 17, 8], &[], false);
    add("noisy_top_k", [34, 17, 8], &[], false);
    add("sigmoid_bias", [34, 17, 16], &[("score", "sqrt_softplus"), ("num_groups", "4"), ("num_kept_groups", "2")], true);
    add("grouped_top_k", [34, 17, 8], &[("softmax_per_group", "yes")], true);
    add("quantile_balancing", [34, 17, 8], &[("score", "sigmoid")], true);
    cases
}

/// None for a method that devices cannot compute. `sizes` are tokens, tokens of a sequence and experts.
fn case(name: &str, sizes: [usize; 3], settings: &[(&'static str, &'static str)], training: bool) -> Option<Ruled> {
    let gate = GATES.iter().find(|gate| gate.name == name)?;
    gate.wgsl?;
    let [num_tokens, seq_len, num_experts] = sizes;
    let dims = Dims { num_tokens, seq_len, hidden_size: 4, num_experts, vocab_size: VOCAB_SIZE };
    let mut values = Values::new(gate.settings);
    settings.iter().for_each(|(name, text)| values.set(name, text).expect("settings of cases are those of their method"));
    Some(Ruled { gate, values, dims, training, gradient: false })
}

fn named(ruled: Ruled, settings: &[(&str, &str)]) -> Case {
    let Dims { num_tokens, num_experts, .. } = ruled.dims;
    let settings: String = settings.iter().map(|(name, text)| format!(", {name} {text}")).collect();
    let when = if ruled.training { "" } else { ", evaluation" };
    let name = format!("{}, {num_tokens} tokens, {num_experts} experts{settings}{when}", ruled.gate.name);
    Case::new(if ruled.gradient { "grad_gate_rule" } else { "gate_rule" }, name, RULE, ruled)
}

impl Read {
    fn new(ruled: &Ruled, inputs: &mut Inputs) -> Read {
        let Ruled { gate, values, dims, training, .. } = ruled;
        let num_tokens = dims.num_tokens;
        let router = inputs.floats(num_tokens * (gate.router_rows)(dims, values), 2.0);
        // Between 0 and 1: whatever the distribution is, such numbers may be drawn.
        let mut unit = |len: usize| (0..len).map(|_| f64::from(0.5 * inputs.float() + 0.5).max(1e-3)).collect::<Vec<_>>();
        let noise = gate.noise.iter().map(|noise| (noise.name, (noise.per_token)(dims, values)));
        let noise: Named<f64> = noise.map(|(name, len)| (name, unit(num_tokens * len))).collect();
        let parts = values.number("num_tables").or(values.number("num_domains")).unwrap_or(1.0) as usize;
        let experts = (dims.num_experts / parts) as f64;
        let state = gate.state.iter().map(|state| {
            let numbers = unit((state.shape)(dims, values).iter().product()).into_iter();
            (state.name, numbers.map(|u| if state.name == "table" { (u * experts).floor() } else { u }).collect())
        });
        let mut state: Named<f64> = state.collect();
        if let Some(table) = state.get_mut("table").filter(|_| gate.name == "hash_gated") {
            // No expert twice in a row of the table.
            table
                .iter_mut()
                .enumerate()
                .for_each(|(place, expert)| *expert = ((place / 2 * 3 + place % 2) % dims.num_experts) as f64);
        }
        let token_ids: Vec<u32> = (0..num_tokens).map(|token| ((token * 7) % VOCAB_SIZE) as u32).collect();
        Read {
            dims: *dims,
            training: *training,
            x: vec![0.0; num_tokens * dims.hidden_size],
            wide: router.iter().copied().map(f64::from).collect(),
            router,
            leaves: gate.leaves.iter().map(|leaf| (leaf.name, vec![0.5; (leaf.shape)(dims, values).iter().product()])).collect(),
            noise,
            state,
            rows: token_ids.iter().flat_map(|&id| [id, 0]).collect(),
            domains: vec![0; num_tokens],
            token_ids,
        }
    }

    fn batch(&self) -> Batch<'_, f64> {
        Batch {
            dims: self.dims,
            training: self.training,
            x: &self.x,
            router: &self.wide,
            leaves: &self.leaves,
            noise: &self.noise,
            state: &self.state,
            token_ids: &self.token_ids,
            domains: &self.domains,
        }
    }

    /// The kinds of noise beside each other, token by token; one number where there is none.
    fn noise(&self, gate: &Gate) -> Vec<f32> {
        let batch = self.batch();
        let of_token = |token: usize| gate.noise.iter().flat_map(move |noise| batch.noise(noise.name, token));
        let mut numbers: Vec<f32> = (0..self.dims.num_tokens).flat_map(of_token).map(|&number| number as f32).collect();
        numbers.resize(numbers.len().max(1), 0.0);
        numbers
    }

    fn state(&self, gate: &Gate) -> Vec<f32> {
        let state = gate.state.first().map(|state| &self.state[state.name]);
        state.map_or_else(|| vec![0.0], |numbers| numbers.iter().map(|&number| number as f32).collect())
    }
}

/// Slopes of losses at random, for each sequence.
fn effect(dims: &Dims, inputs: &mut Inputs) -> Effect {
    let mut numbers = |len: usize| inputs.floats(len, 0.5).into_iter().map(f64::from).collect::<Vec<_>>();
    let rows = dims.num_tokens / dims.seq_len;
    Effect { shares: numbers(rows * dims.num_experts), weights: numbers(dims.num_experts), lse: 0.125, entropy: 0.25 }
}

impl Ruled {
    fn problem(&self) -> Result<gate_rule::Problem<'_>> {
        gate_rule::Problem::new(self.gate, &self.values, self.dims, self.training)
    }

    fn forward(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(29));
        let (read, problem) = (Read::new(self, &mut inputs), self.problem()?);
        let ruled = reference::gate_rule::gate_rule(self.gate, &read.batch(), &self.values);
        let ids = stage.integers("ids", &ruled.ids);
        let weights = stage.output("weights", &ruled.weights, Layout::dense(problem.width()));
        let shares = stage.output("shares", &ruled.shares, Layout::dense(self.dims.num_experts));
        let log_sums = stage.output("log_sums", &ruled.log_sums, Layout::dense(1));
        let buffers = gate_rule::Buffers {
            router: &self.router(&stage, &read),
            noise: &stage.input("noise", &read.noise(self.gate)),
            state: &stage.input("state", &read.state(self.gate)),
            rows: &stage.input("rows", &read.rows),
            ids: &ids.buffer,
            weights: &weights.buffer,
            shares: &shares.buffer,
            log_sums: &log_sums.buffer,
        };
        let mut recording = Recording::default();
        gate_rule::record(device, &mut recording, None, &problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![ids, weights, shares, log_sums] })
    }

    fn router(&self, stage: &Stage, read: &Read) -> crate::gpu::Buffer {
        let rows = read.router.len() / self.dims.num_tokens;
        if rows == 0 { stage.input("router", &[0.0f32]) } else { stage.padded_input("router", &read.router, rows) }
    }

    fn backward(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(29));
        let (read, rule) = (Read::new(self, &mut inputs), self.problem()?);
        let ruled = reference::gate_rule::gate_rule(self.gate, &read.batch(), &self.values);
        let parts = inputs.floats(ruled.ids.len() * NUM_PARTS, 0.5);
        // Every fifth assignment is dropped.
        let kept: Vec<u32> = ruled.ids.iter().enumerate().map(|(place, &id)| if place % 5 == 3 { NONE } else { id }).collect();
        let dweights: Vec<f32> = parts.chunks_exact(NUM_PARTS).map(|parts| parts.iter().sum()).collect();
        let effect = effect(&self.dims, &mut inputs);
        let backward = Backward { kept: &kept, dweights: &dweights, effect: &effect };
        let mut drouter = reference::grad_gate_rule::grad_gate_rule(self.gate, &read.batch(), &self.values, &backward);
        let rows = drouter.len() / self.dims.num_tokens;
        drouter.resize(drouter.len().max(self.dims.num_tokens), 0.0);
        let drouter = stage.output("drouter", &drouter, Layout::clearing(rows.max(1)));
        let header = [effect.lse, effect.entropy, (self.dims.num_tokens / self.dims.seq_len) as f64, 0.0];
        let slopes: Vec<f32> = header.iter().chain(&effect.weights).chain(&effect.shares).map(|&slope| slope as f32).collect();
        let buffers = grad_gate_rule::Buffers {
            router: &self.router(&stage, &read),
            noise: &stage.input("noise", &read.noise(self.gate)),
            state: &stage.input("state", &read.state(self.gate)),
            rows: &stage.input("rows", &read.rows),
            kept: &stage.input("kept", &kept),
            parts: &stage.input("parts", &parts),
            slopes: &stage.input("slopes", &slopes),
            drouter: &drouter.buffer,
        };
        let mut recording = Recording::default();
        let problem = grad_gate_rule::Problem { rule, num_parts: NUM_PARTS };
        grad_gate_rule::record(device, &mut recording, None, &problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![drouter] })
    }
}

impl Problem for Ruled {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        let Ok(rule) = self.problem() else { return Vec::new() };
        vec![match self.gradient {
            true => grad_gate_rule::choose(caps, &grad_gate_rule::Problem { rule, num_parts: NUM_PARTS }),
            false => gate_rule::choose(caps, &rule),
        }]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        if self.gradient { self.backward(device) } else { self.forward(device) }
    }
}
