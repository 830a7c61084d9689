//! The whole forward pass, from the twins.

use super::embed::embed;
use super::fault::{LayerPart, Place, all_finite};
use super::layer::{Layer, Weights};
use super::matmul::{add_bias, cap, matmul};
use super::norm::norm;
use super::{LayerRouting, Row};
use crate::checkpoint::WeightKey;
use crate::quant::CacheFormat;
use crate::spec::{ModelSpec, RopeScaling};
use std::collections::BTreeMap;

/// A model in host memory, all weights in f32, with the KV caches of its sequences.
///
/// Where the rotary embedding of a model depends on the length of the text, the longest sequence decides for all of them, and what
/// is cached is computed anew when it grows beyond the model's original length, or shrinks below it.
#[derive(Debug)]
pub struct Decoder {
    spec: ModelSpec,
    context: usize,
    weights: Weights,
    layers: Vec<Layer>,
    /// Tokens of each sequence; kept only where they may have to be computed anew.
    history: Vec<Vec<u32>>,
    /// Length beyond which the rotary embedding is another one, and whether the cache is made with that.
    long: Option<(usize, bool)>,
}

/// What a batch of `n` rows comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// `[n, hidden]`, after the final norm.
    pub hidden: Vec<f32>,
    /// One per layer with a router, in their order.
    pub layers: Vec<LayerRouting>,
    /// One per layer whose attention has a router that chooses its projections, in their order.
    pub choices: Vec<LayerRouting>,
    /// Where the first number came up that is not finite, or the first routing that cannot be.
    pub fault: Option<Place>,
}

impl Decoder {
    /// `weights` has every weight of [`WeightKey::all`]. `context` is how many positions a sequence may have, `cache` how exactly their keys and values
    /// are kept.
    pub fn new(spec: &ModelSpec, weights: BTreeMap<WeightKey, Vec<f32>>, (context, cache): (usize, CacheFormat)) -> Self {
        let layers = spec
            .layers
            .iter()
            .enumerate()
            .map(|(index, layer)| Layer::new(index, layer, (context, cache), spec.hidden_size))
            .collect();
        let long = spec.layers.iter().find_map(|layer| match layer.mixer.rope()?.scaling {
            RopeScaling::Long { original_positions, .. } => Some((original_positions, false)),
            _ => None,
        });
        Decoder { spec: spec.clone(), context, weights: Weights(weights), layers, history: Vec::new(), long }
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
    /// # Panics
    /// If a token is beyond the vocabulary or a position beyond the context.
    pub fn forward(&mut self, rows: &[Row]) -> Forward {
        let earlier = self.rows_to_recompute(rows);
        if earlier.is_empty() {
            return self.run(rows);
        }
        let all_rows = earlier.len() + rows.len();
        let mut forward = self.run(&[earlier.as_slice(), rows].concat());
        forward.hidden.drain(..earlier.len() * self.spec.hidden_size);
        forward.layers.iter_mut().chain(&mut forward.choices).for_each(|layer| layer.drop_first(earlier.len(), all_rows));
        forward
    }

    /// `[n, vocab_size]` from `hidden [n, hidden]`, any rows of [`Forward::hidden`].
    pub fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let head = self.weights.find(WeightKey::Head).unwrap_or_else(|| self.weights.get(WeightKey::Embedding));
        let mut logits = matmul(hidden, head, self.spec.hidden_size);
        if let Some(bias) = self.weights.find(WeightKey::HeadBias) {
            add_bias(&mut logits, bias);
        }
        logits.iter_mut().for_each(|logit| *logit *= self.spec.logit_scale);
        if let Some(limit) = self.spec.logit_softcap {
            cap(&mut logits, limit);
        }
        logits
    }

    fn run(&mut self, rows: &[Row]) -> Forward {
        let Decoder { spec, context, weights, layers, .. } = self;
        let num_sequences = rows.iter().map(|row| row.sequence as usize + 1).max().unwrap_or(0);
        // The residual stream, [n, hidden].
        let mut x = embed(rows, weights.get(WeightKey::Embedding), spec.hidden_size, spec.embedding_scale);
        let (mut routings, mut choices, mut deferred) = (Vec::new(), Vec::new(), None);
        let mut fault = (!all_finite(&x)).then_some(Place::Embedding);
        for (layer_spec, layer) in spec.layers.iter().zip(layers) {
            layer.grow_cache(layer_spec, *context, num_sequences);
            let input = x.clone();
            let chosen = layer.mix(layer_spec, weights, *context, rows, &mut x);
            let mixed = all_finite(&x) && !chosen.as_ref().is_some_and(|choice| is_nonsense(choice, rows.len()));
            let routing = layer.feed_forward((spec, weights), &input, &mut x, &mut deferred);
            // What a NaN in the bias does to the order of the experts shows neither in the logits nor in the weights.
            let bias = weights.find(WeightKey::SelectionBias { layer: layer.index });
            let routed = bias.is_none_or(all_finite) && !routing.as_ref().is_some_and(|routing| is_nonsense(routing, rows.len()));
            let parts = [(LayerPart::Attention, mixed), (LayerPart::Router, routed), (LayerPart::FeedForward, all_finite(&x))];
            let bad = parts.iter().find(|(_, good)| !good);
            fault = fault.or(bad.map(|(part, _)| Place::Layer(layer.index, *part)));
            choices.extend(chosen);
            routings.extend(routing);
        }
        let hidden = norm(&spec.final_norm, &x, weights.get(WeightKey::FinalNorm));
        fault = fault.or((!all_finite(&hidden)).then_some(Place::Head));
        Forward { hidden, layers: routings, choices, fault }
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
        for (layer, spec) in self.layers.iter_mut().zip(&self.spec.layers) {
            layer.turn(spec, self.context, longest);
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

fn is_nonsense(routing: &LayerRouting, num_tokens: usize) -> bool {
    routing.is_nonsense(routing.expert_ids.len() / num_tokens.max(1))
}
