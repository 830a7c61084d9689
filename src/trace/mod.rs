//! What the routers did with some texts: records of it, statistics over them, and pictures.
//!
//! Everything here is a function of [`Trace`]; nothing knows a model or a device.

mod cache;
mod cache_html;
mod colours;
mod curves;
mod html;
mod jsonl;
mod page;
mod sample;
mod statistics;
mod svg;

pub use cache::{Order, SimulatedLayer, Simulation, SimulationOptions, simulate};
pub use cache_html::cache_html;
pub use colours::expert_colour;
pub use html::html;
pub use jsonl::{FORMAT, header_line, read};
pub use statistics::{
    Balance, DomainLayer, ExpertToken, LayerStatistics, Statistics, TokenPreference, balance, divergence, shares,
};

use crate::batch::LayerRouting;

/// A layer with a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracedLayer {
    /// Index in the model.
    pub layer: usize,
    pub experts: usize,
    pub experts_per_token: usize,
    /// The last so many of the experts have no weights.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub weightless: usize,
    /// Bytes of one expert on a device, in the format that was asked for; not in every trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_bytes: Option<u64>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a trace was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Source {
    pub model: String,
    pub device: String,
    /// `as trained`, or what was changed.
    pub routing: String,
}

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedToken {
    /// Index in [`Trace::domains`].
    pub domain: usize,
    /// Index in its text.
    pub position: usize,
    pub id: u32,
    /// The texts of consecutive tokens put together are the text; empty where a character is not complete yet.
    pub text: String,
}

/// The routing of every token of one or more texts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace {
    pub source: Source,
    pub layers: Vec<TracedLayer>,
    /// Names of the texts.
    pub domains: Vec<String>,
    pub tokens: Vec<TracedToken>,
    /// `[tokens][layers][experts_per_token]`, best first.
    experts: Vec<u32>,
    /// As `experts`: what multiplies the output of each expert, or its input.
    weights: Vec<f32>,
}

impl Trace {
    /// No tokens yet.
    pub fn new(source: Source, layers: Vec<TracedLayer>) -> Self {
        Trace { source, layers, ..Trace::default() }
    }

    /// Index of the domain of that name, which is new or there already.
    pub fn domain(&mut self, name: &str) -> usize {
        self.domains.iter().position(|known| known == name).unwrap_or_else(|| {
            self.domains.push(name.to_owned());
            self.domains.len() - 1
        })
    }

    /// Appends tokens and what every layer's router did with them.
    ///
    /// # Panics
    /// If `routing` is not that of `tokens` in [`layers`](Self::layers).
    pub fn push(&mut self, tokens: Vec<TracedToken>, routing: &[LayerRouting]) {
        assert_eq!(routing.len(), self.layers.len(), "layers with a router");
        for (layer, routing) in self.layers.iter().zip(routing) {
            assert_eq!(routing.expert_ids.len(), tokens.len() * layer.experts_per_token, "assignments of layer {}", layer.layer);
        }
        for token in 0..tokens.len() {
            for (layer, routing) in self.layers.iter().zip(routing) {
                let chosen = token * layer.experts_per_token..(token + 1) * layer.experts_per_token;
                self.experts.extend_from_slice(&routing.expert_ids[chosen.clone()]);
                self.weights.extend_from_slice(&routing.routing_weights[chosen]);
            }
        }
        self.tokens.extend(tokens);
    }

    /// Experts and weights of token `token` in layer `layer`, both indices in this trace; best first.
    pub fn chosen(&self, token: usize, layer: usize) -> (&[u32], &[f32]) {
        let per_token: usize = self.layers.iter().map(|layer| layer.experts_per_token).sum();
        let before: usize = self.layers[..layer].iter().map(|layer| layer.experts_per_token).sum();
        let start = token * per_token + before;
        let place = start..start + self.layers[layer].experts_per_token;
        (&self.experts[place.clone()], &self.weights[place])
    }
}
