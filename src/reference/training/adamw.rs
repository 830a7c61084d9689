//! The optimiser: AdamW with a bound on the norm of all gradients together.

use super::{Weights, zeros_like};
use crate::spec::{Kind, WeightKey};

/// Loshchilov and Hutter 2019, arXiv 1711.05101.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Of everything but vectors, which are the norms.
    pub weight_decay: f64,
    /// The norm that all gradients together have at most.
    pub clip_norm: f64,
}

/// Running means of the gradients and of their squares.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moments {
    pub first: Weights,
    pub second: Weights,
    /// Steps that they are the means of.
    pub steps: u64,
}

impl Moments {
    pub fn new(weights: &Weights) -> Self {
        Moments { first: zeros_like(weights), second: zeros_like(weights), steps: 0 }
    }
}

/// Whether decay makes a weight smaller.
pub fn decays(key: WeightKey) -> bool {
    key.role.facts().kind != Kind::Vector
}

/// The root of the sum of all squares.
pub fn norm(gradients: &Weights) -> f64 {
    gradients.values().flatten().map(|gradient| gradient * gradient).sum::<f64>().sqrt()
}

impl AdamW {
    /// What gradients of this norm are multiplied by.
    pub fn clip_factor(&self, norm: f64) -> f64 {
        (self.clip_norm / (norm + 1e-6)).min(1.0)
    }

    /// What the learning rate and the second moment are divided by in step number `steps`, counted from one.
    pub fn corrections(&self, steps: u64) -> [f64; 2] {
        let steps = steps.min(i32::MAX as u64) as i32;
        [1.0 - self.beta1.powi(steps), 1.0 - self.beta2.powi(steps)]
    }

    /// Changes the weights, unless the norm of the gradients is no number; then nothing happens. Returns that norm.
    pub fn step(&self, weights: &mut Weights, moments: &mut Moments, gradients: &Weights, lr: f64) -> f64 {
        let norm = norm(gradients);
        if !norm.is_finite() {
            return norm;
        }
        let factor = self.clip_factor(norm);
        moments.steps += 1;
        let [first_correction, second_correction] = self.corrections(moments.steps);
        for (key, weights) in weights {
            let decay = if decays(*key) { self.weight_decay } else { 0.0 };
            let of_key = "moments and gradients are those of the weights";
            let first = moments.first.get_mut(key).expect(of_key);
            let second = moments.second.get_mut(key).expect(of_key);
            for (i, weight) in weights.iter_mut().enumerate() {
                let gradient = gradients[key][i] * factor;
                *weight -= lr * decay * *weight;
                first[i] = self.beta1 * first[i] + (1.0 - self.beta1) * gradient;
                second[i] = self.beta2 * second[i] + (1.0 - self.beta2) * gradient * gradient;
                let root = (second[i] / second_correction).sqrt() + self.eps;
                *weight -= lr * first[i] / first_correction / root;
            }
        }
        norm
    }
}
