//! The whole forward pass, from the twins: the blocks of every layer, one after the other.

use crate::batch::{CacheShape, LayerPart, LayerRouting, Place, Row, all_finite};
use crate::blocks::{self, HostBlock, HostPass, HostWeights, norm_if};
use crate::error::Result;
use crate::reference::embed::embed;
use crate::reference::matmul::{add_bias, cap, matmul};
use crate::reference::norm::norm;
use crate::spec::{BlockSpec, LayerSpec, ModelSpec, Role, RopeScaling, WeightKey};
use std::collections::BTreeMap;

/// A model in host memory, all weights in f32, with the KV caches of its sequences.
///
/// Where the rotary embedding of a model depends on the length of the text, the longest sequence decides for all of them, and what
/// is cached is computed anew when it grows beyond the model's original length, or shrinks below it.
#[derive(Debug)]
pub struct ReferencePass {
    spec: ModelSpec,
    context: usize,
    weights: HostWeights,
    /// The blocks of every layer.
    layers: Vec<Vec<HostBlock>>,
    /// Tokens of each sequence; kept only where they may have to be computed anew.
    history: Vec<Vec<u32>>,
    /// Length beyond which the rotary embedding is another one, and whether the cache is made with that.
    long: Option<(usize, bool)>,
}

/// What a batch of `n` rows comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct ReferenceForward {
    /// `[n, hidden]`, after the final norm.
    pub hidden: Vec<f32>,
    /// One per layer with a router, in their order.
    pub layers: Vec<LayerRouting>,
    /// One per layer whose attention has a router that chooses its projections, in their order.
    pub choices: Vec<LayerRouting>,
    /// Where the first number came up that is not finite, or the first routing that cannot be.
    pub fault: Option<Place>,
}

impl ReferencePass {
    /// `weights` has every weight of [`WeightKey::all`], widened to f32.
    pub fn new(spec: &ModelSpec, weights: BTreeMap<WeightKey, Vec<f32>>, cache: CacheShape) -> Self {
        let blocks_of = |layer: &LayerSpec| layer.blocks.iter().map(|block| HostBlock::new(block, cache)).collect();
        let layers = spec.layers.iter().map(blocks_of).collect();
        let long = spec.layers.iter().find_map(|layer| match layer.rope()?.scaling {
            RopeScaling::Long { original_positions, .. } => Some((original_positions, false)),
            _ => None,
        });
        let weights = HostWeights(weights);
        ReferencePass { spec: spec.clone(), context: cache.context, weights, layers, history: Vec::new(), long }
    }

    /// Routes as `spec` says, which may differ from the loaded one in its routers only. What the caches hold is to be replaced.
    pub fn set_spec(&mut self, spec: ModelSpec) {
        self.spec = spec;
        self.history.clear();
    }

    /// Positions that a sequence may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Runs a batch: each row attends to what its sequence has so far, the rows of this batch included, and is appended to it.
    ///
    /// # Errors
    /// None of the blocks that there are fails.
    ///
    /// # Panics
    /// If a token is beyond the vocabulary or a position beyond the context.
    pub fn forward(&mut self, rows: &[Row]) -> Result<ReferenceForward> {
        let earlier = self.rows_to_recompute(rows);
        if earlier.is_empty() {
            return self.run(rows);
        }
        let all_rows = earlier.len() + rows.len();
        let mut forward = self.run(&[earlier.as_slice(), rows].concat())?;
        forward.hidden.drain(..earlier.len() * self.spec.hidden_size);
        forward.layers.iter_mut().chain(&mut forward.choices).for_each(|layer| layer.drop_first(earlier.len(), all_rows));
        Ok(forward)
    }

    /// `[n, vocab_size]` from `hidden [n, hidden]`, any rows of [`ReferenceForward::hidden`].
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let head = self.weights.find(Role::Head.of_model()).unwrap_or_else(|| self.weights.get(Role::Embedding.of_model()));
        let mut logits = matmul(hidden, head, self.spec.hidden_size);
        if let Some(bias) = self.weights.find(Role::HeadBias.of_model()) {
            add_bias(&mut logits, bias);
        }
        logits.iter_mut().for_each(|logit| *logit *= self.spec.logit_scale);
        if let Some(limit) = self.spec.logit_softcap {
            cap(&mut logits, limit);
        }
        logits
    }

    fn run(&mut self, rows: &[Row]) -> Result<ReferenceForward> {
        let ReferencePass { spec, context, weights, layers, .. } = self;
        let num_sequences = rows.iter().map(|row| row.sequence as usize + 1).max().unwrap_or(0);
        // The residual stream, [n, hidden].
        let mut x = embed(rows, weights.get(Role::Embedding.of_model()), spec.hidden_size, spec.embedding_scale, None);
        let (mut routings, mut choices, mut deferred) = (Vec::new(), Vec::new(), None);
        let mut fault = (!all_finite(&x)).then_some(Place::Embedding);
        for (layer, (layer_spec, memories)) in spec.layers.iter().zip(layers).enumerate() {
            let (layer_input, waiting) = (x.clone(), deferred.take());
            let num_blocks = layer_spec.blocks.len();
            for (index, (block, memory)) in layer_spec.blocks.iter().zip(memories).enumerate() {
                memory.grow(block, [num_sequences, *context], spec.hidden_size);
                let [before, after] = block.norm_roles().map(|role| weights.find(role.of_layer(layer)));
                let normed = norm_if(layer_spec, &x, before);
                let (model, context, layer_input) = (&*spec, *context, &*layer_input);
                let pass = HostPass { model, weights, context, rows, layer, x: &x, normed, layer_input };
                let output = blocks::reference(block, &pass, memory);
                let (normed, factors) = (pass.normed, layer_spec.factors(block));
                add_scaled(&mut x, &norm_if(layer_spec, &output.y, after), factors, &normed);
                if index + 1 == num_blocks {
                    end_layer(&mut x, waiting.as_deref(), weights.find(Role::OutputScale.of_layer(layer)));
                }
                let bias = weights.find(Role::SelectionBias.of_layer(layer)).filter(|_| output.routing.is_some());
                let bad = first_fault(block, &x, [&output.choice, &output.routing], bias, rows.len());
                fault = fault.or(bad.map(|part| Place::Layer(layer, part)));
                deferred = output.deferred.or(deferred);
                choices.extend(output.choice);
                routings.extend(output.routing);
            }
        }
        let hidden = norm(&spec.final_norm, &x, weights.get(Role::FinalNorm.of_model()));
        fault = fault.or((!all_finite(&hidden)).then_some(Place::Head));
        Ok(ReferenceForward { hidden, layers: routings, choices, fault })
    }

    /// The rows before `rows` whose cached keys and values no longer hold, with tables to match.
    fn rows_to_recompute(&mut self, rows: &[Row]) -> Vec<Row> {
        let Some((original_positions, was_long)) = self.long else { return Vec::new() };
        let before = self.history.clone();
        for row in rows {
            let sequence = row.sequence as usize;
            self.history.resize(self.history.len().max(sequence + 1), Vec::new());
            self.history[sequence].truncate(row.position as usize);
            self.history[sequence].push(row.token);
        }
        let longest = self.history.iter().map(Vec::len).max().unwrap_or(0);
        let is_long = longest > original_positions;
        if is_long == was_long {
            return Vec::new();
        }
        self.long = Some((original_positions, is_long));
        let blocks = self.spec.layers.iter().flat_map(|layer| &layer.blocks);
        for (memory, block) in self.layers.iter_mut().flatten().zip(blocks) {
            memory.write_rope(block, self.context, longest);
        }
        let first_new = |sequence: usize| {
            let own = rows.iter().filter(|row| row.sequence as usize == sequence);
            own.map(|row| row.position as usize).min().unwrap_or(usize::MAX)
        };
        let earlier = before.iter().enumerate().flat_map(|(sequence, tokens)| {
            let kept = tokens.iter().take(first_new(sequence)).enumerate();
            kept.map(move |(position, token)| Row::new(*token, position as u32, sequence as u32))
        });
        earlier.collect()
    }
}

/// What a layer does to the residual stream after its last block.
fn end_layer(x: &mut [f32], waiting: Option<&[f32]>, scale: Option<&[f32]>) {
    if let Some(waiting) = waiting {
        x.iter_mut().zip(waiting).for_each(|(x, waiting)| *x += waiting);
    }
    if let Some(scale) = scale {
        x.iter_mut().for_each(|x| *x *= scale[0]);
    }
}

/// The first part of a block that gave what is not finite, or a routing that cannot be.
fn first_fault(
    block: &BlockSpec,
    x: &[f32],
    [choice, routing]: [&Option<LayerRouting>; 2],
    bias: Option<&[f32]>,
    num_tokens: usize,
) -> Option<LayerPart> {
    let is_good = |routing: &Option<LayerRouting>| !routing.as_ref().is_some_and(|routing| is_nonsense(routing, num_tokens));
    if block.is_mixer() {
        return (!all_finite(x) || !is_good(choice)).then_some(LayerPart::Attention);
    }
    // What a NaN in the bias does to the order of the experts shows neither in the logits nor in the weights.
    if !bias.is_none_or(all_finite) || !is_good(routing) {
        return Some(LayerPart::Router);
    }
    (!all_finite(x)).then_some(LayerPart::FeedForward)
}

/// `x += scale * y`, or `x = of_normed * normed + scale * y` where there is such a factor.
fn add_scaled(x: &mut [f32], y: &[f32], (of_normed, scale): (Option<f32>, f32), normed: &[f32]) {
    for ((x, y), normed) in x.iter_mut().zip(y).zip(normed) {
        let kept = of_normed.map_or(f64::from(*x), |factor| f64::from(factor) * f64::from(*normed));
        *x = (kept + f64::from(scale) * f64::from(*y)) as f32;
    }
}

fn is_nonsense(routing: &LayerRouting, num_tokens: usize) -> bool {
    routing.is_nonsense(routing.expert_ids.len() / num_tokens.max(1))
}
