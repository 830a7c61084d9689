//! Gating rules: the choice, what the losses need of it, and the gradient of the logits.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::gate::{self, Rule, TOP_K_RENORMALIZED, TOP_K_SOFTMAX};
use crate::kernels::{gate_stats, grad_gate};
use crate::reference;
use crate::reference::training::LossCoefficients;
use crate::reference::training::gate::{Routing, TopKSoftmax};

#[derive(Clone, Copy)]
struct Gate {
    num_tokens: usize,
    num_experts: usize,
    k: usize,
    renormalize: bool,
    logits: Logits,
}

#[derive(Clone, Copy, PartialEq)]
enum Logits {
    Random,
    /// Several of a token are equal.
    Ties,
    /// One is far above all others.
    Saturated,
}

struct Choose(Gate);
struct Stats(Gate);
struct Gradient(Gate);

/// `exp` and `log` of WGSL, of logits up to 10.
const EXP: Tolerance = Tolerance { max_abs: 1e-5, nmse: 1e-10, why: "exp and log of WGSL, and f32 sums" };
/// Sums over a few hundred tokens.
const TOKENS: Tolerance = Tolerance { max_abs: 1e-2, nmse: 1e-10, why: "f32 sums over some hundred tokens" };

const LOSSES: LossCoefficients = LossCoefficients { load_balancing: 0.5, router_z: 0.25 };

fn gates() -> Vec<(String, Gate)> {
    let mut gates = Vec::new();
    for renormalize in [false, true] {
        let sizes = [(1, 1, 1), (1, 2, 1), (7, 5, 2), (33, 8, 2), (64, 8, 1), (65, 4, 4), (130, 64, 8), (9, 33, 3)];
        for (num_tokens, num_experts, k) in sizes {
            gates.push(Gate { num_tokens, num_experts, k, renormalize, logits: Logits::Random });
        }
        for logits in [Logits::Ties, Logits::Saturated] {
            gates.push(Gate { num_tokens: 33, num_experts: 8, k: 2, renormalize, logits });
        }
    }
    gates.into_iter().map(|gate| (gate.name(), gate)).collect()
}

pub fn gate_cases() -> Vec<Case> {
    gates().into_iter().map(|(name, gate)| Case::new("gate", name, EXP, Choose(gate))).collect()
}

pub fn stats_cases() -> Vec<Case> {
    gates().into_iter().map(|(name, gate)| Case::new("gate_stats", name, TOKENS, Stats(gate))).collect()
}

pub fn gradient_cases() -> Vec<Case> {
    gates().into_iter().map(|(name, gate)| Case::new("grad_gate", name, SUM, Gradient(gate))).collect()
}

impl Gate {
    fn name(&self) -> String {
        let Gate { num_tokens, num_experts, k, renormalize, logits } = self;
        let how = match logits {
            Logits::Random => "",
            Logits::Ties => ", ties",
            Logits::Saturated => ", saturated",
        };
        format!("{num_tokens} tokens, {k} of {num_experts}{}{how}", if *renormalize { " renormalized" } else { "" })
    }

    fn rule(&self) -> Rule {
        if self.renormalize { TOP_K_RENORMALIZED } else { TOP_K_SOFTMAX }
    }

    fn problem(&self) -> gate::Problem {
        gate::Problem { num_tokens: self.num_tokens, num_experts: self.num_experts, width: self.k, rule: self.rule() }
    }

    fn twin(&self) -> TopKSoftmax {
        TopKSoftmax { k: self.k, renormalize: self.renormalize }
    }

    fn logits(&self, inputs: &mut Inputs) -> Vec<f32> {
        let mut logits = inputs.floats(self.num_tokens * self.num_experts, 3.0);
        for (index, logit) in logits.iter_mut().enumerate() {
            match self.logits {
                Logits::Random => {}
                Logits::Ties => *logit = logit.round(),
                Logits::Saturated => *logit += if index % self.num_experts == index / self.num_experts % 3 { 30.0 } else { 0.0 },
            }
        }
        logits
    }

    /// As the twin routes, with its numbers rounded to f32.
    fn routed(&self, logits: &[f32]) -> Routing {
        let mut routing = reference::gate::gate(&self.twin(), logits, self.num_experts);
        let rounded = |value: &mut f64| *value = f64::from(*value as f32);
        routing.weights.iter_mut().chain(&mut routing.scores).for_each(rounded);
        routing
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

impl Problem for Choose {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![gate::choose(caps, &self.0.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(61));
        let logits = self.0.logits(&mut inputs);
        let routing = self.0.routed(&logits);
        let ids = stage.integers("ids", &routing.expert_ids);
        let weights = stage.output("weights", &narrow(&routing.weights), Layout::dense(self.0.k));
        let scores = stage.output("scores", &narrow(&routing.scores), Layout::dense(self.0.num_experts));
        let logits = stage.padded_input("logits", &logits, self.0.num_experts);
        let mut recording = Recording::default();
        let buffers = gate::Buffers { logits: &logits, ids: &ids.buffer, weights: &weights.buffer, scores: &scores.buffer };
        gate::record(device, &mut recording, None, &self.0.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![ids, weights, scores] })
    }
}

impl Problem for Stats {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![gate_stats::choose(caps, &self.0.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(62));
        let logits = self.0.logits(&mut inputs);
        let routing = self.0.routed(&logits);
        let scores = narrow(&routing.scores);
        let stats = reference::gate_stats::gate_stats(&logits, &routing.expert_ids, &scores, self.0.num_experts);
        let stats = stage.output("stats", stats.as_flattened(), Layout::dense(4));
        let logits = stage.padded_input("logits", &logits, self.0.num_experts);
        let (ids, scores) = (stage.input("ids", &routing.expert_ids), stage.input("scores", &scores));
        let mut recording = Recording::default();
        let buffers = gate_stats::Buffers { logits: &logits, ids: &ids, scores: &scores, stats: &stats.buffer };
        gate_stats::record(device, &mut recording, None, &self.0.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![stats] })
    }
}

/// Parts of the gradient of a routing weight.
const NUM_PARTS: usize = 8;

impl Gradient {
    fn problem(&self) -> grad_gate::Problem {
        grad_gate::Problem { gate: self.0.problem(), num_parts: NUM_PARTS }
    }
}

impl Problem for Gradient {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_gate::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, num_experts) = (Stage { device }, Inputs::new(63), self.0.num_experts);
        let logits = self.0.logits(&mut inputs);
        let routing = self.0.routed(&logits);
        let parts = inputs.floats(routing.weights.len() * NUM_PARTS, 0.3);
        let sum = |parts: &[f32]| parts.iter().copied().map(f64::from).sum();
        let dweights: Vec<f64> = parts.chunks_exact(NUM_PARTS).map(sum).collect();
        let dlogits = reference::grad_gate::grad_gate(&self.0.twin(), &LOSSES, &logits, &routing, &dweights);
        let (weights, scores) = (narrow(&routing.weights), narrow(&routing.scores));
        let stats = reference::gate_stats::gate_stats(&logits, &routing.expert_ids, &scores, num_experts);
        let live = [0.0, 0.0, 0.0, LOSSES.load_balancing as f32, LOSSES.router_z as f32];

        let dlogits = stage.output("dlogits", &dlogits, Layout::clearing(num_experts));
        let logits = stage.padded_input("logits", &logits, num_experts);
        let [parts, weights, scores] =
            [("parts", &parts), ("weights", &weights), ("scores", &scores)].map(|(name, values)| stage.input(name, values));
        let [stats, live] = [("stats", stats.as_flattened()), ("live", &live)].map(|(name, values)| stage.input(name, values));
        let ids = stage.input("ids", &routing.expert_ids);
        let mut recording = Recording::default();
        let buffers = grad_gate::Buffers {
            parts: &parts,
            logits: &logits,
            ids: &ids,
            weights: &weights,
            scores: &scores,
            stats: &stats,
            live: &live,
            dlogits: &dlogits.buffer,
        };
        grad_gate::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dlogits] })
    }
}
