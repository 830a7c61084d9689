//! A decoder on the reference twins: exact, and on any machine.

use super::faults::nonsense;
use super::formats::Formats;
use super::ledger::Ledger;
use super::reference_pass::{ReferenceForward, ReferencePass};
use super::{Cancel, Forward, chunk_rows, go_on};
use crate::batch::{CacheShape, LayerRouting, Place, Row, Sampling, all_finite, mark_seen, seen_words};
use crate::checkpoint::WeightStore;
use crate::error::Result;
use crate::platform::Listener;
use crate::quant::QuantChoice;
use crate::reference::sample::sample;
use crate::spec::{ModelSpec, WeightKey};
use std::collections::BTreeMap;

/// Rows whose activations exist at the same time.
const CHUNK_TOKENS: usize = 256;

/// The reference's forward pass with the state of one generation.
#[derive(Debug)]
pub struct ReferenceDecoder {
    pass: ReferencePass,
    hidden_size: usize,
    sampling: Sampling,
    /// One bit per token of the vocabulary.
    seen: Vec<u32>,
    /// What the next decode step feeds back.
    next: Row,
    loads: Vec<Vec<u64>>,
    /// What is kept of the text beside keys and values.
    ledger: Ledger,
    /// Indices of the layers with a router.
    moe_layers: Vec<usize>,
    /// What the routers did in the last prefill or decode step, where it is kept.
    routing: Option<Vec<LayerRouting>>,
    /// Nobody looks whether results are finite.
    unchecked_results: bool,
    cancel: Cancel,
}

impl ReferenceDecoder {
    /// Widens every weight to f32 in host memory, with the values that its format holds. `cache` has so many positions and keeps as much of each
    /// value; `progress` is told the bytes of f32 so far.
    ///
    /// # Errors
    /// What reading the checkpoint can fail with, and as [`QuantChoice::for_tied_embeddings`].
    pub async fn load(
        spec: &ModelSpec,
        (source, quant): (&WeightStore, QuantChoice),
        cache: CacheShape,
        progress: &mut Listener<'_, u64>,
    ) -> Result<Self> {
        let formats = Formats::of_model(source, spec, quant)?;
        let (mut weights, mut done_bytes) = (BTreeMap::new(), 0);
        for key in WeightKey::all(spec) {
            let (rows, cols) = key.shape(spec);
            let quant = formats.of(key);
            let values = if quant == source.stored_quant(key) {
                source.read(key, 0..rows).await?.values
            } else {
                quant.unpack(&source.packed(key, 0..rows, quant).await?, cols)
            };
            done_bytes += size_of_val(values.as_slice()) as u64;
            progress(done_bytes);
            weights.insert(key, values);
        }
        Ok(ReferenceDecoder {
            pass: ReferencePass::new(spec, weights, cache),
            hidden_size: spec.hidden_size,
            sampling: Sampling::GREEDY,
            seen: vec![0; seen_words(spec.vocab_size)],
            next: Row::default(),
            moe_layers: spec.moe_layers().map(|(layer, _)| layer).collect(),
            loads: spec.moe_layers().map(|(_, moe)| vec![0; moe.router.num_experts]).collect(),
            ledger: Ledger::new(spec),
            routing: None,
            unchecked_results: false,
            cancel: Cancel::default(),
        })
    }

    /// Goes on with results that are not finite.
    pub fn leave_results_unchecked(&mut self) {
        self.unchecked_results = true;
    }

    pub(super) fn set_spec(&mut self, spec: ModelSpec) {
        self.pass.set_spec(spec);
        self.ledger.clear();
    }

    pub(super) fn resumable(&self, wanted: usize) -> usize {
        self.ledger.resumable(wanted)
    }

    pub(super) fn heed(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    pub(super) fn keep_routing(&mut self, keep: bool) {
        self.routing = keep.then(Vec::new);
    }

    pub(super) fn routing(&self) -> &[LayerRouting] {
        self.routing.as_deref().unwrap_or_default()
    }

    fn no_routing(&self) -> Vec<LayerRouting> {
        self.moe_layers.iter().copied().map(LayerRouting::empty).collect()
    }

    fn forget_routing(&mut self) {
        self.routing = self.routing.is_some().then(|| self.no_routing());
    }

    pub(super) fn begin(&mut self, sampling: &Sampling, seen: &[u32]) {
        self.sampling = *sampling;
        self.seen.fill(0);
        seen.iter().for_each(|&id| mark_seen(&mut self.seen, id));
        self.loads.iter_mut().for_each(|loads| loads.fill(0));
    }

    pub(super) fn prefill(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        let mut hidden = Vec::new();
        self.forget_routing();
        for (index, chunk) in ids.chunks(CHUNK_TOKENS).enumerate() {
            go_on(&self.cancel)?;
            hidden = self.pass(&chunk_rows(chunk, position + index * CHUNK_TOKENS))?.hidden;
        }
        self.choose(&hidden[hidden.len() - self.hidden_size..], position + ids.len() - 1)
    }

    pub(super) fn decode(&mut self) -> Result<u32> {
        let row = self.next;
        self.forget_routing();
        let hidden = self.pass(&[row])?.hidden;
        self.choose(&hidden, row.position as usize)
    }

    pub(super) fn forward(&mut self, ids: &[u32], position: usize) -> Result<Forward> {
        let mut all = Forward { logits: Vec::new(), layers: self.no_routing() };
        for (index, chunk) in ids.chunks(CHUNK_TOKENS).enumerate() {
            let forward = self.pass(&chunk_rows(chunk, position + index * CHUNK_TOKENS))?;
            all.logits.extend(self.logits(&forward.hidden)?);
            for (layer, routing) in all.layers.iter_mut().zip(&forward.layers) {
                layer.append(routing);
            }
        }
        Ok(all)
    }

    pub(super) fn expert_loads(&self) -> Vec<Vec<u64>> {
        self.loads.clone()
    }

    fn pass(&mut self, rows: &[Row]) -> Result<ReferenceForward> {
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            self.ledger.ran(first.position as usize..last.position as usize + 1);
        }
        let forward = self.pass.forward(rows)?;
        if let Some(place) = forward.fault.filter(|_| !self.unchecked_results) {
            return Err(nonsense(place));
        }
        for (loads, routing) in self.loads.iter_mut().zip(&forward.layers) {
            routing.expert_ids.iter().for_each(|&expert| loads[expert as usize] += 1);
        }
        for (kept, routing) in self.routing.iter_mut().flatten().zip(&forward.layers) {
            kept.append(routing);
        }
        Ok(forward)
    }

    fn logits(&self, hidden: &[f32]) -> Result<Vec<f32>> {
        let logits = self.pass.logits(hidden);
        if all_finite(&logits) || self.unchecked_results { Ok(logits) } else { Err(nonsense(Place::Head)) }
    }

    /// Chooses the token after `position`, from the last row's `hidden [hidden_size]`.
    fn choose(&mut self, hidden: &[f32], position: usize) -> Result<u32> {
        let logits = self.logits(hidden)?;
        let token = sample(&self.sampling, &logits, &self.seen, position as u32).token;
        mark_seen(&mut self.seen, token);
        self.next = Row { token, position: position as u32 + 1, ..Row::default() };
        Ok(token)
    }
}
