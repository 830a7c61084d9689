//! training: one step of training in f64, as plain as it can be written: forward, backward, optimiser.
//!
//! ```text
//! tokens -> embedding -> layers: x += block(norm(x)) -> norm -> head -> cross-entropy
//! ```
//!
//! This is what a trainer on a device is judged by, and what trains where there is no GPU. Unlike the twins of single kernels it keeps f64
//! between its steps: only so do differences of two losses say anything about a gradient. Weights have the layout that the rest of the
//! program has ([`WeightKey`]): the rows of gate and up take turns, those of query, key and value follow each other.
//!
//! The order is that of a step: [`Model::gradients`] runs `forward`, keeps what the way back needs (`Kept`), and goes through the same
//! blocks in reverse. [`adamw`] then changes the weights.

pub mod adamw;
pub mod attention;
pub mod experts;
pub mod gate;
pub mod linear;

use crate::batch::Row;
use crate::error::{Error, Result};
use crate::gating::{Normalize, RouterMethod, RouterSpec, WeightOn};
use crate::spec::{
    Activation, AttentionSpec, BlockSpec, LayerSpec, Mask, MlpSpec, ModelSpec, MoeSpec, NormKind, NormSpec, Residual, Role,
    RopePairing, WeightKey,
};
use gate::{Gating, Routing};
use linear::{grad_input, grad_weight, product};
use std::collections::BTreeMap;

/// Weights by what they are for, or their gradients or moments, each `[rows, cols]` as [`WeightKey::shape`] says.
pub type Weights = BTreeMap<WeightKey, Vec<f64>>;

/// A token that nothing is to be learnt about, as a target.
pub const NO_TARGET: u32 = u32::MAX;

/// What a step reads: sequences, one after the other, each from its position 0 on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub rows: Vec<Row>,
    /// The token that follows each row, or [`NO_TARGET`].
    pub targets: Vec<u32>,
}

impl Batch {
    /// Windows of `len + 1` tokens: every token but the last is a row, and the next one its target.
    pub fn of_windows(tokens: &[u32], len: usize) -> Self {
        let mut batch = Batch::default();
        for (sequence, window) in tokens.chunks_exact(len + 1).enumerate() {
            batch.rows.extend((0..len).map(|position| Row::new(window[position], position as u32, sequence as u32)));
            batch.targets.extend_from_slice(&window[1..]);
        }
        batch
    }

    /// Rows that something is to be learnt about.
    pub fn num_targets(&self) -> usize {
        self.targets.iter().filter(|target| **target != NO_TARGET).count()
    }
}

/// What the losses beside the cross-entropy are multiplied by, each summed over the layers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossCoefficients {
    pub load_balancing: f64,
    pub router_z: f64,
}

/// What the losses of one routed layer came to, before their coefficients.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LayerReport {
    /// Assignments of each expert, before any is dropped.
    pub counts: Vec<u32>,
    pub dropped: u32,
    pub load_balancing: f64,
    pub router_z: f64,
}

/// What a batch came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The cross-entropy, and all other losses times their coefficients.
    pub loss: f64,
    pub cross_entropy: f64,
    /// One per routed layer.
    pub layers: Vec<LayerReport>,
}

/// A model that is being trained.
pub struct Model {
    pub spec: ModelSpec,
    pub weights: Weights,
    /// How tokens choose experts, the same in every layer.
    pub gating: Box<dyn Gating>,
    pub losses: LossCoefficients,
}

/// What the way back needs of the way there.
struct Kept {
    blocks: Vec<KeptBlock>,
    /// Before the final norm, and after it.
    x: Vec<f64>,
    hidden: Vec<f64>,
}

struct KeptBlock {
    layer: usize,
    /// The residual stream before the block, and what its norm made of that.
    x: Vec<f64>,
    normed: Vec<f64>,
    part: KeptPart,
}

enum KeptPart {
    Attention(attention::Kept),
    Mlp(experts::Kept),
    Experts { logits: Vec<f64>, routed: experts::Kept, shared: Option<experts::Kept> },
}

impl Model {
    /// # Errors
    /// [`Error::NotTrained`] for a model with parts whose gradients are not known here.
    pub fn new(spec: ModelSpec, weights: Weights, gating: Box<dyn Gating>, losses: LossCoefficients) -> Result<Self> {
        check(&spec)?;
        Ok(Model { spec, weights, gating, losses })
    }

    /// Adds the gradients of the batch's losses to `gradients`, which has every weight. The cross-entropy counts as a part of `num_targets`: those of this
    /// batch, or of several whose gradients are added.
    pub fn gradients(&self, batch: &Batch, num_targets: usize, gradients: &mut Weights) -> Report {
        let (kept, mut report) = self.forward(&batch.rows);
        let (head, hidden_size) = (self.head(), self.spec.hidden_size);
        let logits = product(&kept.hidden, &self.weights[&head], hidden_size);
        let (cross_entropy, dlogits) = cross_entropy(&logits, &batch.targets, num_targets);
        report.cross_entropy = cross_entropy;
        report.loss += cross_entropy;

        add_to(gradients, head, &grad_weight(&dlogits, &kept.hidden, hidden_size));
        let dhidden = grad_input(&dlogits, &self.weights[&head], hidden_size);
        let mut dx = self.norm_back(self.spec.final_norm, Role::FinalNorm.of_model(), [&kept.x, &dhidden], gradients);
        for block in kept.blocks.iter().rev() {
            // x = x + part(norm(x)): the gradient goes both ways.
            let dnormed = self.block_back(block, &dx, &batch.rows, gradients);
            let (spec, norm) = self.norm_of(block);
            let through = self.norm_back(spec, norm, [&block.x, &dnormed], gradients);
            dx.iter_mut().zip(through).for_each(|(dx, through)| *dx += through);
        }
        let embedding = gradients.get_mut(&Role::Embedding.of_model()).expect("every weight has a gradient");
        for (row, dx) in batch.rows.iter().zip(dx.chunks_exact(hidden_size)) {
            let of_token = &mut embedding[row.token as usize * hidden_size..][..hidden_size];
            of_token.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx * f64::from(self.spec.embedding_scale));
        }
        report
    }

    /// The losses of a batch, without any gradient.
    pub fn evaluate(&self, batch: &Batch) -> Report {
        let (kept, mut report) = self.forward(&batch.rows);
        let logits = product(&kept.hidden, &self.weights[&self.head()], self.spec.hidden_size);
        report.cross_entropy = cross_entropy(&logits, &batch.targets, batch.num_targets()).0;
        report.loss += report.cross_entropy;
        report
    }

    /// `[n, vocab_size]`
    pub fn logits(&self, rows: &[Row]) -> Vec<f64> {
        product(&self.forward(rows).0.hidden, &self.weights[&self.head()], self.spec.hidden_size)
    }

    /// The experts of each routed layer, `[n, width]`, as the forward pass chooses them.
    pub fn choices(&self, rows: &[Row]) -> Vec<Vec<u32>> {
        let kept = self.forward(rows).0;
        let chosen = kept.blocks.into_iter().filter_map(|block| match block.part {
            KeptPart::Experts { routed, .. } => Some(routed.routing.expert_ids),
            _ => None,
        });
        chosen.collect()
    }

    fn forward(&self, rows: &[Row]) -> (Kept, Report) {
        let (hidden_size, embedding) = (self.spec.hidden_size, &self.weights[&Role::Embedding.of_model()]);
        // The residual stream, [n, hidden].
        let mut x: Vec<f64> =
            rows.iter().flat_map(|row| &embedding[row.token as usize * hidden_size..][..hidden_size]).copied().collect();
        x.iter_mut().for_each(|x| *x *= f64::from(self.spec.embedding_scale));
        let (mut blocks, mut report) = (Vec::new(), Report::default());
        for (layer, layer_spec) in self.spec.layers.iter().enumerate() {
            for block in &layer_spec.blocks {
                let norm = self.weights[&block.norm_roles()[0].of_layer(layer)].as_slice();
                let normed = rms_norm(&x, norm, layer_spec.norm.eps);
                let (y, part) = self.run_block(block, layer, &normed, rows);
                if let KeptPart::Experts { logits, routed, .. } = &part {
                    let layer = gate::layer_report(logits, &routed.routing);
                    report.loss += self.losses.load_balancing * layer.load_balancing + self.losses.router_z * layer.router_z;
                    report.layers.push(layer);
                }
                let before = x.clone();
                x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
                blocks.push(KeptBlock { layer, x: before, normed, part });
            }
        }
        let hidden = rms_norm(&x, &self.weights[&Role::FinalNorm.of_model()], self.spec.final_norm.eps);
        (Kept { blocks, x, hidden }, report)
    }

    /// What a block adds to the residual stream, from its normed input `x [n, hidden]`.
    fn run_block(&self, block: &BlockSpec, layer: usize, x: &[f64], rows: &[Row]) -> (Vec<f64>, KeptPart) {
        let weight = |role: Role| self.weights[&role.of_layer(layer)].as_slice();
        match block {
            BlockSpec::Attention(attention) => {
                let weights = [Role::Qkv, Role::AttentionOutput].map(weight);
                let (y, kept) = attention::forward(attention, rows, x, weights);
                (y, KeptPart::Attention(kept))
            }
            BlockSpec::Mlp(mlp) => {
                let (y, kept) = self.run_mlp([Role::DenseGateUp, Role::DenseDown], layer, mlp, x);
                (y, KeptPart::Mlp(kept))
            }
            BlockSpec::Experts(moe) => {
                let logits = product(x, weight(Role::Router), self.spec.hidden_size);
                let routing = self.gating.route(&logits, moe.router.num_experts);
                let experts = self.experts(layer, moe);
                let (mut y, routed) = experts::forward(&experts, x, routing);
                let shared = moe.shared.as_ref().map(|shared| {
                    let (added, kept) = self.run_mlp([Role::SharedGateUp, Role::SharedDown], layer, &shared.mlp, x);
                    y.iter_mut().zip(added).for_each(|(y, added)| *y += added);
                    kept
                });
                (y, KeptPart::Experts { logits, routed, shared })
            }
            _ => unreachable!("`check` refuses every other block"),
        }
    }

    /// An MLP is a layer with one expert, which every token uses with a weight of one.
    fn run_mlp(&self, roles: [Role; 2], layer: usize, mlp: &MlpSpec, x: &[f64]) -> (Vec<f64>, experts::Kept) {
        let routing = Routing::of_one_expert(x.len() / self.spec.hidden_size);
        experts::forward(&self.mlp(roles, layer, mlp), x, routing)
    }

    /// The gradient of a block's normed input, from that of what it added.
    fn block_back(&self, block: &KeptBlock, dy: &[f64], rows: &[Row], gradients: &mut Weights) -> Vec<f64> {
        let (layer, x) = (block.layer, block.normed.as_slice());
        match &block.part {
            KeptPart::Attention(kept) => {
                let roles = [Role::Qkv, Role::AttentionOutput];
                let weights = roles.map(|role| self.weights[&role.of_layer(layer)].as_slice());
                let spec = self.spec.layers[layer].attention().expect("this block is attention");
                let (dx, dweights) = attention::backward(&attention::Back { spec, rows, x, weights, kept }, dy);
                roles.iter().zip(dweights).for_each(|(role, dweight)| add_to(gradients, role.of_layer(layer), &dweight));
                dx
            }
            KeptPart::Mlp(kept) => {
                let mlp = self.spec.layers[layer].dense().expect("this block is an MLP");
                let experts = self.mlp([Role::DenseGateUp, Role::DenseDown], layer, mlp);
                experts::backward(&experts, x, kept, dy, gradients).0
            }
            KeptPart::Experts { logits, routed, shared } => {
                let moe = self.spec.layers[layer].moe().expect("this block has experts");
                let (mut dx, dweights) = experts::backward(&self.experts(layer, moe), x, routed, dy, gradients);
                let mut dlogits = self.gating.grad_logits(logits, &routed.routing, &dweights);
                gate::add_loss_gradients(&self.losses, logits, &routed.routing, &mut dlogits);
                let router = Role::Router.of_layer(layer);
                add_to(gradients, router, &grad_weight(&dlogits, x, self.spec.hidden_size));
                let through = grad_input(&dlogits, &self.weights[&router], self.spec.hidden_size);
                dx.iter_mut().zip(through).for_each(|(dx, through)| *dx += through);
                if let (Some(kept), Some(spec)) = (shared, &moe.shared) {
                    let experts = self.mlp([Role::SharedGateUp, Role::SharedDown], layer, &spec.mlp);
                    let through = experts::backward(&experts, x, kept, dy, gradients).0;
                    dx.iter_mut().zip(through).for_each(|(dx, through)| *dx += through);
                }
                dx
            }
        }
    }

    /// The gradient of a norm's input, from that of its output; that of its weight is added.
    fn norm_back(&self, spec: NormSpec, key: WeightKey, [x, dy]: [&[f64]; 2], gradients: &mut Weights) -> Vec<f64> {
        let (dx, dweight) = rms_norm_back([x, dy], &self.weights[&key], spec.eps);
        add_to(gradients, key, &dweight);
        dx
    }

    fn norm_of(&self, block: &KeptBlock) -> (NormSpec, WeightKey) {
        let role = if matches!(block.part, KeptPart::Attention(_)) { Role::AttentionNorm } else { Role::FfnNorm };
        (self.spec.layers[block.layer].norm, role.of_layer(block.layer))
    }

    fn head(&self) -> WeightKey {
        if self.spec.tied_embeddings { Role::Embedding.of_model() } else { Role::Head.of_model() }
    }

    fn experts(&self, layer: usize, moe: &MoeSpec) -> experts::Experts<'_> {
        let keys = [Role::ExpertGateUp, Role::ExpertDown]
            .map(|role| (0..moe.router.num_experts).map(|expert| role.of_expert(layer, expert)).collect());
        experts::Experts { weights: &self.weights, keys, hidden_size: self.spec.hidden_size, inner: moe.expert.intermediate_size }
    }

    fn mlp(&self, roles: [Role; 2], layer: usize, mlp: &MlpSpec) -> experts::Experts<'_> {
        let keys = roles.map(|role| vec![role.of_layer(layer)]);
        experts::Experts { weights: &self.weights, keys, hidden_size: self.spec.hidden_size, inner: mlp.intermediate_size }
    }
}

/// Zeros in the shapes of `weights`.
pub fn zeros_like(weights: &Weights) -> Weights {
    weights.iter().map(|(key, values)| (*key, vec![0.0; values.len()])).collect()
}

fn add_to(gradients: &mut Weights, key: WeightKey, added: &[f64]) {
    let sum = gradients.get_mut(&key).expect("every weight has a gradient");
    sum.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
}

/// The cross-entropy of `logits [n, vocab]` with their targets over `num_targets`, and its gradient: `(softmax - one hot) / num_targets`.
fn cross_entropy(logits: &[f64], targets: &[u32], num_targets: usize) -> (f64, Vec<f64>) {
    let (mut loss, mut dlogits, share) = (0.0, Vec::with_capacity(logits.len()), 1.0 / num_targets as f64);
    for (row, &wanted) in logits.chunks_exact(logits.len() / targets.len()).zip(targets) {
        if wanted == NO_TARGET {
            dlogits.extend(row.iter().map(|_| 0.0));
            continue;
        }
        let log_sum = gate::log_sum_exp(row);
        loss += (log_sum - row[wanted as usize]) * share;
        let hit = |token: usize| if token == wanted as usize { 1.0 } else { 0.0 };
        dlogits.extend(row.iter().enumerate().map(|(token, logit)| ((logit - log_sum).exp() - hit(token)) * share));
    }
    (loss, dlogits)
}

/// `y = weight * x * s` with `s = 1 / sqrt(mean(x^2) + eps)`, row by row.
fn rms_norm(x: &[f64], weight: &[f64], eps: f32) -> Vec<f64> {
    let rows = x.chunks_exact(weight.len());
    rows.flat_map(|x| {
        let scale = root_scale(x, eps);
        x.iter().zip(weight).map(move |(x, weight)| x * scale * weight)
    })
    .collect()
}

fn root_scale(x: &[f64], eps: f32) -> f64 {
    1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + f64::from(eps)).sqrt()
}

/// With `g = weight * dy`: `dx = s g - x s^3 mean(g x)`, and `dweight` the sum of `dy x s` over the rows.
fn rms_norm_back([x, dy]: [&[f64]; 2], weight: &[f64], eps: f32) -> (Vec<f64>, Vec<f64>) {
    let cols = weight.len();
    let (mut dx, mut dweight) = (Vec::with_capacity(x.len()), vec![0.0; cols]);
    for (x, dy) in x.chunks_exact(cols).zip(dy.chunks_exact(cols)) {
        let scale = root_scale(x, eps);
        let along: f64 = (0..cols).map(|c| weight[c] * dy[c] * x[c]).sum::<f64>() / cols as f64;
        dx.extend((0..cols).map(|c| scale * weight[c] * dy[c] - x[c] * scale.powi(3) * along));
        dweight.iter_mut().enumerate().for_each(|(c, sum)| *sum += dy[c] * x[c] * scale);
    }
    (dx, dweight)
}

/// Whether every part of a model has a gradient here.
///
/// # Errors
/// [`Error::NotTrained`], with the first part that has none.
pub fn check(spec: &ModelSpec) -> Result<()> {
    let model = [
        (spec.final_norm.kind != NormKind::Rms || spec.final_norm.bias, "a norm other than RMSNorm"),
        (spec.head_bias, "a bias of the head"),
        (spec.logit_scale != 1.0, "a factor of the logits"),
        (spec.logit_softcap.is_some(), "a cap of the logits"),
    ];
    let layers = spec.layers.iter().flat_map(obstacles_of_layer);
    match model.into_iter().chain(layers).find(|(found, _)| *found) {
        Some((_, part)) => Err(Error::NotTrained { family: spec.family, part }),
        None => Ok(()),
    }
}

type Obstacle = (bool, &'static str);

fn obstacles_of_layer(layer: &LayerSpec) -> Vec<Obstacle> {
    let mut found = vec![
        (layer.norm.kind != NormKind::Rms || layer.norm.bias, "a norm other than RMSNorm"),
        (layer.residual != Residual::Pre, "norms after the blocks"),
        (layer.residual_scale != 1.0, "a factor of what blocks add"),
        (layer.output_scale, "a factor of the residual stream"),
    ];
    for block in &layer.blocks {
        match block {
            BlockSpec::Attention(attention) => found.extend(obstacles_of_attention(attention)),
            BlockSpec::Mlp(mlp) => found.extend(obstacles_of_mlp(mlp)),
            BlockSpec::Experts(moe) => {
                found.extend(obstacles_of_mlp(&moe.expert));
                found.extend(obstacles_of_router(&moe.router));
                found.push((moe.output_bias, "a bias of the experts' sum"));
                if let Some(shared) = &moe.shared {
                    found.extend(obstacles_of_mlp(&shared.mlp));
                    found.push((shared.gate, "a gate of the shared expert"));
                }
            }
            _ => found.push((true, "a block other than attention, MLP and experts")),
        }
    }
    found
}

fn obstacles_of_attention(attention: &AttentionSpec) -> Vec<Obstacle> {
    let interleaved = attention.rope.as_ref().is_some_and(|rope| rope.pairing != RopePairing::Half);
    let changed = attention.value_norm.is_some() || attention.values_are_keys || attention.value_scale != 1.0;
    vec![
        (attention.qkv_bias || attention.output_bias, "biases of attention"),
        (attention.qk_norm.is_some(), "norms of query and key"),
        (interleaved, "rotary embeddings of neighbouring pairs"),
        (attention.mask != Mask::Causal, "attention to a window, a chunk or later keys"),
        (attention.relative_bias.is_some(), "a bias of attention by distance"),
        (attention.sinks, "attention sinks"),
        (attention.softcap.is_some(), "a cap of attention scores"),
        (attention.clip.is_some(), "clipped queries and keys"),
        (attention.output_gate, "a gate of attention"),
        (attention.temperature.is_some(), "a temperature of queries"),
        (attention.filter.is_some(), "filtered inputs of attention"),
        (changed || attention.value_dim != attention.head_dim, "values other than a projection as wide as the keys"),
    ]
}

fn obstacles_of_mlp(mlp: &MlpSpec) -> Vec<Obstacle> {
    vec![(mlp.activation != Activation::Silu, "an activation other than SwiGLU"), (mlp.bias, "biases of experts")]
}

fn obstacles_of_router(router: &RouterSpec) -> Vec<Obstacle> {
    let method = matches!(router.method, RouterMethod::Softmax | RouterMethod::SoftmaxOfTopK);
    let plain = matches!(router.normalize, Normalize::No | Normalize::Sum { .. });
    vec![
        (!method || !plain || router.groups.is_some(), "a router other than the softmax of the best"),
        (router.selection_bias, "a selection bias"),
        (router.bias || router.hidden.is_some() || router.attention, "a router of more than one matrix"),
        (router.input_norm.is_some() || router.softcap.is_some() || router.logit_scale != 1.0, "changed router logits"),
        (router.scale != 1.0 || router.expert_scale, "a factor of routing weights"),
        (router.weight_on != WeightOn::Output, "routing weights on the input of experts"),
        (router.identity_experts > 0, "experts without weights"),
        (!router.change.is_none(), "a router that differs from the trained one"),
    ]
}
