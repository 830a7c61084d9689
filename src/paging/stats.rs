//! What paging has cost so far.

use super::budget::{ExpertMemory, PlaceShape};

/// Experts that were asked for and had to be loaded, since the model was.
#[derive(Debug, Clone, PartialEq)]
pub struct PagingStats {
    pub memory: ExpertMemory,
    pub policy: &'static str,
    /// Of each layer with a router.
    pub slots: Vec<usize>,
    /// Experts with weights of each of them.
    pub experts: Vec<usize>,
    /// Device memory of all slots.
    pub slot_bytes: u64,
    /// Single tokens.
    pub decode: PagingCounts,
    /// Batches, of prompts.
    pub prefill: PagingCounts,
    /// Layers with experts that ran for nothing, behind one whose experts were not there.
    pub wasted_layers: u64,
    /// Layers that run before the next look at what was missing; infinite where nothing has been for long.
    pub reach_layers: f64,
    /// What such a look takes, as measured.
    pub stop_seconds: f64,
    /// Where experts have to be packed each time they are loaded.
    pub packing: Option<Packing>,
}

/// Experts that are not stored as the device needs them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Packing {
    /// What packing one took, when it was tried.
    pub seconds: f64,
    /// Host memory that packed records may take.
    pub host_bytes: u64,
    /// Records that were asked for, and those that were there.
    pub host_requests: u64,
    pub host_hits: u64,
}

/// Counts of one way to run a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PagingCounts {
    pub tokens: u64,
    /// Experts that a layer needed for a token, or for a whole batch.
    pub requests: u64,
    /// Those of them that were there.
    pub hits: u64,
    /// How often a layer had to wait for at least one.
    pub stops: u64,
    pub loads: u64,
    pub loaded_bytes: u64,
    /// Spent on loading.
    pub seconds: f64,
}

impl PagingStats {
    pub(crate) fn new(memory: ExpertMemory, policy: &'static str, places: &[PlaceShape], slots: &[usize]) -> Self {
        let bytes = |(place, slots): (&PlaceShape, &usize)| place.record_bytes.unwrap_or(0) * *slots as u64;
        PagingStats {
            memory,
            policy,
            slots: slots.to_vec(),
            experts: places.iter().map(PlaceShape::weighted).collect(),
            slot_bytes: places.iter().zip(slots).map(bytes).sum(),
            decode: PagingCounts::default(),
            prefill: PagingCounts::default(),
            wasted_layers: 0,
            reach_layers: 1.0,
            stop_seconds: 0.0,
            packing: None,
        }
    }
}

impl PagingCounts {
    /// A token went to `ids` at a place, of which so many had to be loaded.
    pub(crate) fn token(&mut self, place: usize, shape: &PlaceShape, ids: &[u32], loads: usize) {
        let requests = ids.iter().filter(|&&id| (id as usize) < shape.weighted()).count();
        self.tokens += u64::from(place == 0);
        self.wave(shape, requests, loads);
    }

    /// A batch needed `experts` at a place, of which so many had to be loaded.
    pub(crate) fn wave(&mut self, shape: &PlaceShape, experts: usize, loads: usize) {
        self.requests += experts as u64;
        self.hits += (experts - loads) as u64;
        self.stops += u64::from(loads > 0);
        self.loads += loads as u64;
        self.loaded_bytes += shape.record_bytes.unwrap_or(0) * loads as u64;
    }

    /// Share of the requests that were hits; 1 where nothing was asked for.
    pub fn hit_rate(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { self.hits as f64 / self.requests as f64 }
    }
}
