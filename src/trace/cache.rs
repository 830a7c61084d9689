//! What a cache of experts would have done with a trace: how often the experts of a token were there, and what had to be loaded.
//!
//! The decisions are those of [`paging`](crate::paging), by the same objects.

use super::Trace;
use crate::error::{Error, Result};
use crate::paging::{ExpertMemory, PlaceShape, PolicyKind, PolicySetup, Residency};
use serde::Serialize;
use std::ops::Range;

/// In which steps the tokens of a trace go through the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// One after the other.
    Decode,
    /// In chunks of so many tokens of one text, as a prompt does.
    Prefill { chunk: usize },
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub struct SimulationOptions<'a> {
    pub policy: &'static PolicyKind,
    /// [`ExpertMemory::Auto`] is everything: there is no device to ask.
    pub memory: ExpertMemory,
    pub order: Order,
    /// Where a policy learns which experts are used most; `None`: from the trace itself, beforehand.
    pub profile: Option<&'a Trace>,
    /// Only this one of [`Trace::domains`], beginning with an empty cache.
    pub text: Option<usize>,
}

/// What came out.
///
/// A *request* is an expert with weights that a step needs in a layer, counted once however many of its tokens use it, and a *hit* one that had a
/// slot already. A *stop* is a wait for experts: while decoding at most one per token and layer, in a prompt one for every wave that loads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    /// The only text that was simulated.
    pub text: Option<String>,
    pub policy: &'static str,
    /// As it may be typed.
    pub budget: String,
    /// Slots of all layers, as a share of their experts.
    pub slot_share: f64,
    /// Of all slots; `None` if the trace does not say how large an expert is.
    pub slot_bytes: Option<u64>,
    pub tokens: usize,
    pub requests: u64,
    pub hits: u64,
    pub loads: u64,
    /// Of all loads; `None` as for `slot_bytes`.
    pub loaded_bytes: Option<u64>,
    /// Loads before the first token.
    pub first_loads: u64,
    pub stops: u64,
    /// Tokens that waited in no layer; `None` for prompts.
    pub tokens_without_stop: Option<usize>,
    pub layers: Vec<SimulatedLayer>,
}

/// One layer of a [`Simulation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SimulatedLayer {
    /// Index in the model.
    pub layer: usize,
    /// Experts with weights.
    pub experts: usize,
    pub slots: usize,
    pub requests: u64,
    pub hits: u64,
    pub stops: u64,
    /// Experts that have a slot in the end, ascending.
    pub resident: Vec<usize>,
}

impl Simulation {
    /// 1 where nothing was requested.
    pub fn hit_share(&self) -> f64 {
        share(self.hits, self.requests)
    }

    pub fn loads_per_token(&self) -> f64 {
        self.loads as f64 / self.tokens.max(1) as f64
    }

    pub fn bytes_per_token(&self) -> Option<f64> {
        self.loaded_bytes.map(|bytes| bytes as f64 / self.tokens.max(1) as f64)
    }

    pub fn stops_per_token(&self) -> f64 {
        self.stops as f64 / self.tokens.max(1) as f64
    }

    /// `None` for prompts.
    pub fn share_without_stop(&self) -> Option<f64> {
        self.tokens_without_stop.map(|tokens| share(tokens as u64, self.tokens as u64))
    }
}

impl SimulatedLayer {
    /// 1 where nothing was requested.
    pub fn hit_share(&self) -> f64 {
        share(self.hits, self.requests)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Sends the tokens of `trace` through a cache.
///
/// # Errors
/// As [`ExpertMemory::slots`]; [`Error::Argument`] for a profile of other layers, a text that the trace does not have or a chunk of no tokens.
pub fn simulate(trace: &Trace, options: &SimulationOptions<'_>) -> Result<Simulation> {
    check(trace, options)?;
    let shapes = place_shapes(trace);
    let slots = options.memory.slots(&shapes, None)?;
    let chosen = options.text.map_or_else(|| (0..trace.tokens.len()).collect(), |text| tokens_of(trace, text));
    let hot = hot_experts(options.profile.unwrap_or(trace), &shapes);
    let make = |place: usize| {
        let future: Vec<&[u32]> = chosen.iter().map(|&token| trace.chosen(token, place).0).collect();
        let (experts, least_slots) = (shapes[place].weighted(), shapes[place].least_slots());
        let setup = PolicySetup { place, experts, slots: slots[place], least_slots, hot: &hot[place], future: &future };
        (options.policy.make)(&setup)
    };
    let mut run = Run {
        trace,
        residency: Residency::new(&shapes, &slots, make),
        layers: shapes.iter().zip(&slots).map(|(shape, &slots)| SimulatedLayer::new(shape, slots)).collect(),
        first_loads: 0,
    };
    run.start();
    let tokens_without_stop = match options.order {
        Order::Decode => Some(chosen.iter().filter(|&&token| run.decode(token) == 0).count()),
        Order::Prefill { chunk } => {
            chunks(trace, &chosen, chunk).into_iter().for_each(|part| run.prefill(&chosen[part]));
            None
        }
    };
    Ok(run.finish(options, &shapes, &chosen, tokens_without_stop))
}

fn check(trace: &Trace, options: &SimulationOptions<'_>) -> Result<()> {
    let refused = |what, expected: String, found: String| Err(Error::Argument { what, expected, found });
    if let Order::Prefill { chunk: 0 } = options.order {
        return refused("chunk", "at least one token".to_owned(), "none".to_owned());
    }
    if let Some(text) = options.text.filter(|&text| text >= trace.domains.len()) {
        return refused("text", format!("one of {}", trace.domains.len()), text.to_string());
    }
    let shapes = |trace: &Trace| -> Vec<String> {
        trace.layers.iter().map(|layer| format!("layer {} with {} experts", layer.layer, layer.experts)).collect()
    };
    match options.profile {
        Some(profile) if shapes(profile) != shapes(trace) => {
            let some = |trace: &Trace| shapes(trace).into_iter().next().unwrap_or_else(|| "no layer with a router".to_owned());
            let found = format!("{} layers, the first {}", profile.layers.len(), some(profile));
            refused("profile", format!("the {} layers of the trace, the first {}", trace.layers.len(), some(trace)), found)
        }
        _ => Ok(()),
    }
}

/// The layers of a trace as places of a cache.
fn place_shapes(trace: &Trace) -> Vec<PlaceShape> {
    let shape = |layer: &super::TracedLayer| PlaceShape {
        layer: layer.layer,
        experts: layer.experts,
        weightless: layer.weightless,
        experts_per_token: layer.experts_per_token,
        record_bytes: layer.expert_bytes,
    };
    trace.layers.iter().map(shape).collect()
}

fn tokens_of(trace: &Trace, text: usize) -> Vec<usize> {
    (0..trace.tokens.len()).filter(|&token| trace.tokens[token].domain == text).collect()
}

/// `[places]`: the experts with weights of each by their assignments, the busiest first, the lower of equal ones first.
fn hot_experts(profile: &Trace, shapes: &[PlaceShape]) -> Vec<Vec<usize>> {
    let of_place = |(place, shape): (usize, &PlaceShape)| {
        let mut loads = vec![0u64; shape.experts];
        for token in 0..profile.tokens.len() {
            profile.chosen(token, place).0.iter().for_each(|&expert| loads[expert as usize] += 1);
        }
        let mut experts: Vec<usize> = (0..shape.weighted()).collect();
        experts.sort_by_key(|&expert| std::cmp::Reverse(loads[expert]));
        experts
    };
    shapes.iter().enumerate().map(of_place).collect()
}

/// Ranges of `chosen` of at most `length` tokens, each of consecutive tokens of one text.
fn chunks(trace: &Trace, chosen: &[usize], length: usize) -> Vec<Range<usize>> {
    let follows = |&before: &usize, &after: &usize| {
        let (before, after) = (&trace.tokens[before], &trace.tokens[after]);
        before.domain == after.domain && before.position + 1 == after.position
    };
    let mut chunks = Vec::new();
    let mut start = 0;
    for text in chosen.chunk_by(follows) {
        let end = start + text.len();
        chunks.extend((start..end).step_by(length).map(|first| first..end.min(first + length)));
        start = end;
    }
    chunks
}

/// A simulation under way.
struct Run<'a> {
    trace: &'a Trace,
    residency: Residency,
    layers: Vec<SimulatedLayer>,
    first_loads: u64,
}

impl SimulatedLayer {
    fn new(shape: &PlaceShape, slots: usize) -> Self {
        let (layer, experts) = (shape.layer, shape.weighted());
        SimulatedLayer { layer, experts, slots, requests: 0, hits: 0, stops: 0, resident: Vec::new() }
    }

    fn loads(&self) -> u64 {
        self.requests - self.hits
    }
}

impl Run<'_> {
    fn start(&mut self) {
        for place in 0..self.layers.len() {
            self.first_loads += self.residency.start(place).commit().len() as u64;
        }
    }

    /// One token through every layer. Returns its stops.
    fn decode(&mut self, token: usize) -> usize {
        let mut stops = 0;
        for (place, layer) in self.layers.iter_mut().enumerate() {
            let (experts, _) = self.trace.chosen(token, place);
            let requests = experts.iter().filter(|&&expert| (expert as usize) < layer.experts).count() as u64;
            let loads = self.residency.plan(place, experts).commit().len() as u64;
            layer.requests += requests;
            layer.hits += requests - loads;
            layer.stops += u64::from(loads > 0);
            stops += usize::from(loads > 0);
            self.residency.used(place, experts);
        }
        stops
    }

    /// The tokens of a chunk through every layer.
    fn prefill(&mut self, tokens: &[usize]) {
        for (place, layer) in self.layers.iter_mut().enumerate() {
            let mut counts = vec![0u32; self.trace.layers[place].experts];
            for &token in tokens {
                self.trace.chosen(token, place).0.iter().for_each(|&expert| counts[expert as usize] += 1);
            }
            self.residency.used_by_chunk(place, &counts, tokens.len());
            let requests = counts[..layer.experts].iter().filter(|&&count| count > 0).count() as u64;
            let mut waves = self.residency.waves(place, &counts);
            let loads: u64 = waves.all().iter().map(|wave| wave.loads.len() as u64).sum();
            layer.stops += waves.all().iter().filter(|wave| !wave.loads.is_empty()).count() as u64;
            (0..waves.all().len()).for_each(|_| waves.commit_current());
            layer.requests += requests;
            layer.hits += requests - loads;
        }
    }

    fn finish(
        mut self,
        options: &SimulationOptions<'_>,
        shapes: &[PlaceShape],
        chosen: &[usize],
        tokens_without_stop: Option<usize>,
    ) -> Simulation {
        for (place, layer) in self.layers.iter_mut().enumerate() {
            layer.resident = self.residency.resident(place);
        }
        let sum = |of: fn(&SimulatedLayer) -> u64| self.layers.iter().map(of).sum::<u64>();
        let bytes = |of: fn(&SimulatedLayer) -> u64| -> Option<u64> {
            self.layers.iter().zip(shapes).map(|(layer, shape)| Some(of(layer) * shape.record_bytes?)).sum()
        };
        let slots = sum(|layer| layer.slots as u64);
        Simulation {
            text: options.text.map(|text| self.trace.domains[text].clone()),
            policy: options.policy.name,
            budget: options.memory.to_string(),
            slot_share: share(slots, sum(|layer| layer.experts as u64)),
            slot_bytes: bytes(|layer| layer.slots as u64),
            tokens: chosen.len(),
            requests: sum(|layer| layer.requests),
            hits: sum(|layer| layer.hits),
            loads: sum(SimulatedLayer::loads),
            loaded_bytes: bytes(SimulatedLayer::loads),
            first_loads: self.first_loads,
            stops: sum(|layer| layer.stops),
            tokens_without_stop,
            layers: self.layers,
        }
    }
}
