//! Gradients of what works row by row: cross-entropy, norms, the embedding.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::{cross_entropy, grad_embed, grad_norm, grad_norm_weight};
use crate::reference;
use crate::reference::cross_entropy::NO_TARGET;

/// `exp` and `log` of WGSL may be some units of the last place off, of losses up to 100.
const LOG: Tolerance = Tolerance { max_abs: 1e-4, nmse: 1e-10, why: "exp and log of WGSL, of values up to 100" };

struct Entropy {
    num_tokens: usize,
    vocab_size: usize,
    /// Of the logits.
    size: f32,
    masked: bool,
    loss_only: bool,
}

pub fn entropy_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |[num_tokens, vocab_size]: [usize; 2], size: f32, masked, loss_only| {
        let mut name = format!("{num_tokens}x{vocab_size} up to {size}");
        name.push_str(if masked { ", some masked" } else { "" });
        name.push_str(if loss_only { ", loss alone" } else { "" });
        let problem = Entropy { num_tokens, vocab_size, size, masked, loss_only };
        cases.push(Case::new("cross_entropy", name, LOG, problem));
    };
    for sizes in [[1, 1], [1, 2], [3, 31], [3, 32], [5, 33], [2, 257], [9, 64], [2, 4096]] {
        add(sizes, 3.0, false, false);
    }
    for loss_only in [false, true] {
        add([7, 65], 3.0, true, loss_only);
        add([3, 257], 100.0, false, loss_only);
        add([3, 40], 0.0, false, loss_only);
    }
    cases
}

impl Entropy {
    fn problem(&self) -> cross_entropy::Problem {
        let factor = (!self.loss_only).then_some(0.125);
        cross_entropy::Problem { num_tokens: self.num_tokens, vocab_size: self.vocab_size, factor }
    }
}

impl Problem for Entropy {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![cross_entropy::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(41));
        let logits = inputs.floats(self.num_tokens * self.vocab_size, self.size);
        let target = |t: usize, inputs: &mut Inputs| {
            if self.masked && t % 3 == 1 { NO_TARGET } else { inputs.below(self.vocab_size) as u32 }
        };
        let targets: Vec<u32> = (0..self.num_tokens).map(|t| target(t, &mut inputs)).collect();
        let [losses, dlogits] = reference::cross_entropy::cross_entropy(&logits, &targets, 0.125);
        let after = if self.loss_only { &logits } else { &dlogits };
        let logits = stage.changed("logits", &logits, after, Layout::clear(self.vocab_size));
        let losses = stage.output("losses", &losses, Layout::dense(1));
        let targets = stage.input("targets", &targets);
        let mut recording = Recording::default();
        let buffers = cross_entropy::Buffers { logits: &logits.buffer, targets: &targets, losses: &losses.buffer };
        cross_entropy::record(device, &mut recording, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![logits, losses] })
    }
}

#[derive(Clone, Copy)]
struct Norm {
    num_tokens: usize,
    cols: usize,
    /// Of the inputs.
    size: f32,
    replace: bool,
}

/// The gradient of its input, and that of its weight.
struct NormInput(Norm);
struct NormWeight(Norm);

const EPS: f32 = 1e-5;

fn norms() -> Vec<(String, Norm)> {
    let mut norms = Vec::new();
    for [num_tokens, cols] in [[3, 64], [3, 4], [5, 31], [2, 32], [9, 33], [70, 96], [2, 257], [300, 20]] {
        for replace in [false, true] {
            let name = format!("{num_tokens}x{cols}{}", if replace { "" } else { ", added" });
            norms.push((name, Norm { num_tokens, cols, size: 1.0, replace }));
        }
    }
    norms.push(("tiny inputs".to_owned(), Norm { num_tokens: 3, cols: 33, size: 1e-2, replace: true }));
    norms.push(("zeros".to_owned(), Norm { num_tokens: 3, cols: 33, size: 0.0, replace: true }));
    norms
}

/// Inputs that are almost nothing divide by almost nothing.
const NORM: Tolerance =
    Tolerance { max_abs: 1e-3, nmse: 1e-10, why: "sums of f32, up to 300 of them and times the reciprocal of a small root" };

pub fn norm_cases() -> Vec<Case> {
    norms().into_iter().map(|(name, norm)| Case::new("grad_norm", name, NORM, NormInput(norm))).collect()
}

pub fn norm_weight_cases() -> Vec<Case> {
    norms().into_iter().map(|(name, norm)| Case::new("grad_norm_weight", name, NORM, NormWeight(norm))).collect()
}

impl Norm {
    fn problem(&self) -> grad_norm::Problem {
        grad_norm::Problem { num_tokens: self.num_tokens, cols: self.cols, eps: EPS, replace: self.replace }
    }

    fn weight_problem(&self) -> grad_norm_weight::Problem {
        grad_norm_weight::Problem { num_tokens: self.num_tokens, cols: self.cols, accumulate: !self.replace }
    }
}

impl Problem for NormInput {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_norm::choose(caps, &self.0.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, Norm { num_tokens, cols, size, replace }) = (Stage { device }, Inputs::new(42), self.0);
        let [x, dy] = [size, 1.0].map(|size| inputs.floats(num_tokens * cols, size));
        let weight = inputs.floats(cols, 1.0);
        let before = inputs.floats(num_tokens * cols, 1.0);
        let [mut dx, scales] = reference::grad_norm::grad_norm(EPS, &x, &weight, &dy);
        let dx = if replace {
            stage.output("dx", &dx, Layout::clearing(cols))
        } else {
            dx.iter_mut().zip(&before).for_each(|(dx, before)| *dx += before);
            stage.changed("dx", &before, &dx, Layout::clear(cols))
        };
        let scales = stage.output("scales", &scales, Layout::dense(1));
        let [x, dy, weight] = [("x", x), ("dy", dy), ("weight", weight)].map(|(name, v)| stage.padded_input(name, &v, cols));
        let mut recording = Recording::default();
        let buffers = grad_norm::Buffers { x: &x, weight: &weight, dy: &dy, dx: &dx.buffer, scales: &scales.buffer };
        grad_norm::record(device, &mut recording, None, &self.0.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dx, scales] })
    }
}

impl Problem for NormWeight {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_norm_weight::choose(caps, &self.0.weight_problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs, Norm { num_tokens, cols, size, replace }) = (Stage { device }, Inputs::new(43), self.0);
        let [x, dy] = [size, 1.0].map(|size| inputs.floats(num_tokens * cols, size));
        let scales = inputs.floats(num_tokens, 1.0);
        let before = inputs.floats(cols, 1.0);
        let mut dweight = reference::grad_norm_weight::grad_norm_weight(&x, &dy, &scales);
        let dweight = if replace {
            stage.output("dweight", &dweight, Layout::clearing(cols))
        } else {
            dweight.iter_mut().zip(&before).for_each(|(value, before)| *value += before);
            stage.changed("dweight", &before, &dweight, Layout::clear(cols))
        };
        let [x, dy] = [("x", x), ("dy", dy)].map(|(name, values)| stage.padded_input(name, &values, cols));
        let scales = stage.input("scales", &scales);
        let mut recording = Recording::default();
        let buffers = grad_norm_weight::Buffers { x: &x, dy: &dy, scales: &scales, dweight: &dweight.buffer };
        grad_norm_weight::record(device, &mut recording, None, &self.0.weight_problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dweight] })
    }
}

struct Embed {
    num_tokens: usize,
    vocab_size: usize,
    hidden_size: usize,
    scale: f32,
}

pub fn embed_cases() -> Vec<Case> {
    let sizes = [[1, 5, 64], [9, 3, 33], [40, 64, 96], [70, 1, 31], [5, 300, 260]];
    let case = |[num_tokens, vocab_size, hidden_size]: [usize; 3], scale| {
        let name = format!("{num_tokens} of {vocab_size}x{hidden_size} times {scale}");
        Case::new("grad_embed", name, SUM, Embed { num_tokens, vocab_size, hidden_size, scale })
    };
    sizes.into_iter().map(|size| case(size, 1.0)).chain([case([40, 64, 96], 2.5)]).collect()
}

impl Embed {
    fn problem(&self) -> grad_embed::Problem {
        grad_embed::Problem { num_tokens: self.num_tokens, hidden_size: self.hidden_size, scale: self.scale }
    }
}

impl Problem for Embed {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![grad_embed::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(44));
        let tokens: Vec<u32> = (0..self.num_tokens).map(|_| inputs.below(self.vocab_size) as u32).collect();
        let dx = inputs.floats(self.num_tokens * self.hidden_size, 1.0);
        let before = inputs.floats(self.vocab_size * self.hidden_size, 1.0);
        let mut after = before.clone();
        reference::grad_embed::grad_embed(&tokens, &dx, self.scale, &mut after);
        let (spans, order) = reference::grad_embed::sorted(&tokens);
        let dtable = stage.changed("dtable", &before, &after, Layout::clear(self.hidden_size));
        let (spans, order) = (stage.input("spans", spans.as_flattened()), stage.input("order", &order));
        let dx = stage.padded_input("dx", &dx, self.hidden_size);
        let mut recording = Recording::default();
        let buffers = grad_embed::Buffers { spans: &spans, order: &order, dx: &dx, dtable: &dtable.buffer };
        grad_embed::record(device, &mut recording, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![dtable] })
    }
}
