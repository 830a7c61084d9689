//! How far a device runs before the host looks whether an expert was missing, and where it goes on after that.

use crate::spec::{BlockSpec, LayerSpec, ModelSpec, ParallelInputs};

/// Where a token goes on for which an expert was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// At the block of the layer that halted: all it needs is the residual stream.
    Layer,
    /// At the first layer: what stands beside the residual stream is lost.
    Step,
}

impl Resume {
    /// For a halt in this layer.
    pub fn of(model: &ModelSpec, layer: usize) -> Self {
        let is_deferred = |spec: &LayerSpec| spec.parallel().is_some_and(|parallel| parallel.deferred);
        let spec = &model.layers[layer];
        let keeps_input = spec.parallel().is_some_and(|parallel| parallel.inputs == ParallelInputs::LayerInput);
        let waits = layer.checked_sub(1).is_some_and(|before| is_deferred(&model.layers[before]));
        let experts_alone = spec.blocks.iter().any(|block| matches!(block, BlockSpec::Experts(_)));
        if experts_alone && !keeps_input && !waits { Resume::Layer } else { Resume::Step }
    }
}

/// How much is submitted before the host looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Up to the router of so many more layers with experts.
    Layers(usize),
    /// So many tokens.
    Steps(usize),
}

/// What looking costs, and what running on behind a halt.
///
/// A look takes `stop` seconds beside what is computed, a layer `layer`, of which the share `idle` is left where its experts are absent. If the share `q` of
/// layers halts, a reach of `r` layers makes `p = (1 - (1 - q)^r) / q` of them progress and wastes `r - p`, so that a layer costs
/// `(stop + idle layer (r - p)) / p` besides: least near `r = sqrt(2 stop / (idle layer q))`.
#[derive(Debug, Clone)]
pub struct Reach {
    idle: f64,
    share: f64,
    layers: f64,
    sums: Sums,
}

/// What was observed, that of long ago with less weight: sums over batches of layers that ran, of seconds, and of their products.
#[derive(Debug, Clone, Default)]
struct Sums {
    weight: f64,
    layers: f64,
    seconds: f64,
    layers_squared: f64,
    products: f64,
}

/// One batch that the host has looked at.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Layers with experts that did what they should.
    pub layers: usize,
    /// Layers behind a halt.
    pub wasted: usize,
    pub halted: bool,
    /// From when the device could begin until the host knew.
    pub seconds: f64,
}

/// Layers over which halts are counted.
const WINDOW: f64 = 64.0;
/// Before anything is known: one halt in so many layers.
const PRIOR_LAYERS: f64 = 4.0;
/// A smaller share of halts is none: the last one is several windows away.
const CALM: f64 = 1.0 / 1024.0;
/// What is left of the weight of an observation after the next.
const DECAY: f64 = 0.97;
/// A batch that takes so many times what is expected was waiting for something else.
const OUTLIER: f64 = 8.0;
/// The least share of a layer that its experts leave.
const LEAST_IDLE: f64 = 0.05;

impl Reach {
    /// `idle`: the share of a layer's time that is not that of its experts.
    pub fn new(idle: f64) -> Self {
        Reach { idle: idle.clamp(LEAST_IDLE, 1.0), share: 1.0 / PRIOR_LAYERS, layers: PRIOR_LAYERS, sums: Sums::default() }
    }

    /// The share of layers that halt, of late.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// Whether nothing has halted for long.
    pub fn is_calm(&self) -> bool {
        self.share < CALM
    }

    pub fn observe(&mut self, run: Run) {
        for halted in std::iter::repeat_n(false, run.layers).chain(run.halted.then_some(true)) {
            self.layers = (self.layers + 1.0).min(WINDOW);
            self.share += (f64::from(u8::from(halted)) - self.share) / self.layers;
        }
        let layers = run.layers as f64 + self.idle * run.wasted as f64;
        let [stop, layer] = self.seconds();
        let expected = stop + layer * layers;
        let seconds = if self.sums.weight > 2.0 { run.seconds.min(OUTLIER * expected) } else { run.seconds };
        let Sums { weight, layers: sum, seconds: all, layers_squared, products } = &mut self.sums;
        for (total, new) in
            [(weight, 1.0), (sum, layers), (all, seconds), (layers_squared, layers * layers), (products, layers * seconds)]
        {
            *total = DECAY * *total + new;
        }
    }

    /// Seconds of a look, and of a layer: what fits the observations best. Where all batches had about as many layers, a look counts as much as a layer
    /// without its experts.
    fn seconds(&self) -> [f64; 2] {
        let Sums { weight, layers, seconds, layers_squared, products } = self.sums;
        if weight == 0.0 {
            return [0.0, 0.0];
        }
        let (mean_layers, mean_seconds) = (layers / weight, seconds / weight);
        let variance = layers_squared / weight - mean_layers * mean_layers;
        let layer = (products / weight - mean_layers * mean_seconds) / variance;
        let even = mean_seconds / (mean_layers + self.idle);
        if variance < 0.01 * mean_layers * mean_layers + f64::EPSILON || layer.is_nan() {
            return [self.idle * even, even];
        }
        // Noise must make neither of them vanish.
        let layer = layer.clamp(0.1 * even, even);
        [(mean_seconds - layer * mean_layers).max(0.05 * self.idle * layer), layer]
    }

    /// Seconds of a look beside what is computed.
    pub fn stop_seconds(&self) -> f64 {
        self.seconds()[0]
    }

    /// Layers to run before the next look, infinite where nothing halts.
    pub fn wanted(&self) -> f64 {
        if self.is_calm() {
            return f64::INFINITY;
        }
        let [stop, layer] = self.seconds();
        let ratio = if layer > 0.0 { stop / (self.idle * layer) } else { 1.0 };
        (2.0 * ratio / self.share).sqrt().max(1.0)
    }

    /// As [`wanted`](Self::wanted), in a model of so many layers with experts: powers of two below a whole token, and whole tokens.
    pub fn extent(&self, layers_per_step: usize) -> Extent {
        let wanted = self.wanted();
        if wanted < layers_per_step as f64 {
            return Extent::Layers(1 << (wanted.log2() as usize));
        }
        // As much as anybody may want, where it is infinite.
        Extent::Steps(((wanted / layers_per_step as f64) as usize).max(1))
    }
}
