//! Steps on the reference, in f64.

use super::checkpoint::State;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::gating::{Normalize, RouterMethod};
use crate::reference::training::adamw::{AdamW, Moments};
use crate::reference::training::gate::TopKSoftmax;
use crate::reference::training::{Batch, LossCoefficients, Model, Report, Weights, zeros_like};
use crate::spec::ModelSpec;

/// A model and its optimiser in host memory.
pub(super) struct ReferenceSteps {
    model: Model,
    moments: Moments,
    optimiser: AdamW,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Of all its parts together.
    pub report: Report,
    /// Before it was bounded; NaN where it is no number, and nothing was changed.
    pub grad_norm: f64,
}

pub(super) fn optimiser(settings: &Settings) -> AdamW {
    let train = &settings.train;
    let (beta1, beta2, eps) = (train.beta1, train.beta2, train.eps);
    AdamW { beta1, beta2, eps, weight_decay: train.weight_decay, clip_norm: train.clip_norm }
}

/// The rule of every routed layer, which has to be the same.
///
/// # Errors
/// [`Error::NotTrained`].
pub(super) fn rule(spec: &ModelSpec) -> Result<TopKSoftmax> {
    let mut rules = spec.moe_layers().map(|(_, moe)| TopKSoftmax {
        k: moe.router.num_experts_per_tok,
        renormalize: moe.router.method == RouterMethod::SoftmaxOfTopK || moe.router.normalize != Normalize::No,
    });
    let first = rules.next().unwrap_or(TopKSoftmax { k: 1, renormalize: true });
    if rules.all(|rule| rule == first) {
        return Ok(first);
    }
    Err(Error::NotTrained { family: spec.family, part: "routers that differ from layer to layer" })
}

pub(super) fn coefficients(settings: &Settings) -> LossCoefficients {
    let losses = &settings.losses;
    LossCoefficients { load_balancing: losses.load_balancing_loss, router_z: losses.router_z_loss }
}

impl ReferenceSteps {
    /// # Errors
    /// [`Error::NotTrained`].
    pub fn new(settings: &Settings, spec: &ModelSpec, weights: Weights) -> Result<Self> {
        let moments = Moments::new(&weights);
        let model = Model::new(spec.clone(), weights, Box::new(rule(spec)?), coefficients(settings))?;
        Ok(ReferenceSteps { model, moments, optimiser: optimiser(settings) })
    }

    /// One step over the gradients of all batches. Each counts its own balance.
    pub fn step(&mut self, batches: &[Batch], lr: f64) -> Outcome {
        let mut gradients = zeros_like(&self.model.weights);
        let num_targets = batches.iter().map(Batch::num_targets).sum();
        let mut report = Report::default();
        // The losses beside the cross-entropy are means over the parts.
        let (whole, parts) = (self.model.losses, batches.len() as f64);
        self.model.losses = LossCoefficients { load_balancing: whole.load_balancing / parts, router_z: whole.router_z / parts };
        for batch in batches {
            add_report(&mut report, self.model.gradients(batch, num_targets, &mut gradients), batches.len());
        }
        self.model.losses = whole;
        let grad_norm = self.optimiser.step(&mut self.model.weights, &mut self.moments, &gradients, lr);
        Outcome { report, grad_norm }
    }

    pub fn evaluate(&self, batch: &Batch) -> Report {
        self.model.evaluate(batch)
    }

    pub fn state(&self) -> State {
        State { weights: self.model.weights.clone(), moments: self.moments.clone(), exact: true }
    }

    pub fn restore(&mut self, state: State) {
        (self.model.weights, self.moments) = (state.weights, state.moments);
    }
}

/// Adds the report of one of `parts` parts: sums of counts, means of losses.
pub(super) fn add_report(sum: &mut Report, part: Report, parts: usize) {
    let share = 1.0 / parts as f64;
    sum.cross_entropy += part.cross_entropy;
    sum.loss += part.loss;
    sum.layers.resize(part.layers.len(), Default::default());
    for (sum, part) in sum.layers.iter_mut().zip(part.layers) {
        sum.counts.resize(part.counts.len(), 0);
        sum.counts.iter_mut().zip(part.counts).for_each(|(sum, count)| *sum += count);
        sum.dropped += part.dropped;
        sum.load_balancing += share * part.load_balancing;
        sum.router_z += share * part.router_z;
    }
}
