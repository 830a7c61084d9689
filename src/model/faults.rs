//! Results that are no results: said at once, with the part of the model where they begin.
//!
//! On a device the routers count in [`Memory::loads`](crate::blocks::Memory) what is not finite, and the sampler marks a token that it chose from
//! logits that are not. Both come with the tokens. Only where something is wrong the text is run once more, to see where it begins.

use super::gpu_decoder::GpuDecoder;
use super::plan::{Output, Plan};
use crate::batch::{LayerPart, LayerRouting, Place, all_finite};
use crate::blocks::Pass;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Recording};
use crate::quant::padded;

/// Copies of the residual stream that one pass may leave, in bytes.
const PROBE_BYTES: u64 = 32 << 20;
/// Tokens that it looks at together at most.
const PROBE_TOKENS: usize = 32;

/// What a pass leaves behind for [`GpuDecoder::first_fault`]: the residual stream after every part of the model.
pub(super) struct Probe {
    buffer: Buffer,
    row_bytes: u64,
    places: Vec<Place>,
}

impl Probe {
    /// Keeps the residual stream as it is now.
    pub fn look(&mut self, place: Place, x: &Buffer, recording: &mut Recording) {
        recording.copy(x, &self.buffer, self.places.len() as u64 * self.row_bytes, self.row_bytes);
        self.places.push(place);
    }
}

pub(super) fn nonsense(place: Place) -> Error {
    let what = match place {
        Place::Layer(_, LayerPart::Router) => "a router gives numbers that are not finite, or an expert twice for one token",
        _ => "the model computes numbers that are not finite",
    };
    Error::Nonsense { what, place: place.to_string() }
}

/// The first layer that a list of faults, one per layer, names.
pub(super) fn first_layer(faults: &[u32]) -> Option<usize> {
    faults.iter().position(|&count| count > 0)
}

impl GpuDecoder {
    /// Refuses logits and routing that were read, of the last [`forward`](Self::forward) or traced pass.
    pub(super) async fn check_results(&mut self, logits: &[f32], layers: &[LayerRouting]) -> Result<()> {
        if self.device.unchecked_results() {
            return Ok(());
        }
        let mut bad =
            layers.iter().zip(&self.buffers.memory.taps).filter(|(routing, taps)| routing.is_nonsense(taps.num_experts_per_tok));
        let router = bad.next().map(|(routing, _)| routing.layer);
        if router.is_none() && all_finite(logits) {
            return Ok(());
        }
        Err(self.fault(router, &[]).await)
    }

    /// Bytes of one row of the residual stream.
    fn row_bytes(&self) -> u64 {
        (padded(self.spec.hidden_size) * 4) as u64
    }

    /// The error for a fault that showed in a router, or in the logits. `ahead` are tokens behind the text so far that were run already.
    pub(super) async fn fault(&mut self, router: Option<usize>, ahead: &[u32]) -> Error {
        self.ahead.clear();
        let router = router.map(|layer| Place::Layer(layer, LayerPart::Router));
        let known = router.unwrap_or(Place::Head);
        match self.first_fault(ahead).await {
            Ok(found) => nonsense(found.map_or(known, |found| found.min(known))),
            Err(error) => error,
        }
    }

    /// The first part of the model whose output is not finite, for the first tokens of the text of which there is one. Runs them again.
    async fn first_fault(&mut self, ahead: &[u32]) -> Result<Option<Place>> {
        let text = [self.history.as_slice(), ahead].concat();
        let (row_bytes, looks) = (self.row_bytes(), 1 + 2 * self.spec.layers.len() as u64);
        let most = (PROBE_BYTES / (row_bytes * looks)).max(1) as usize;
        let chunk_len = most.min(PROBE_TOKENS).min(self.buffers.chunk.max_tokens);
        let attempted = "looking for what is not finite";
        for (index, chunk) in text.chunks(chunk_len).enumerate() {
            let row_bytes = row_bytes * chunk.len() as u64;
            self.upload_rows(chunk, index * chunk_len).await?;
            self.ledger.ran(index * chunk_len..index * chunk_len + chunk.len());
            let record = || {
                let buffer = self.device.storage("probe", row_bytes * looks);
                let mut planner = self.planner(Pass { num_tokens: chunk.len(), keeps_routing: false });
                planner.probe = Some(Probe { buffer: buffer.clone(), row_bytes, places: Vec::new() });
                let mut recorded = planner.record(&self.buffers.sampler, Output::Nothing)?;
                let places = recorded.probe.take().map_or_else(Vec::new, |probe| probe.places);
                Ok((Plan::new(recorded, self.paged.is_some()), buffer, places))
            };
            let (plan, buffer, places) = self.device.catch(attempted, record).await?;
            self.run(attempted, &plan, chunk, index * chunk_len).await?;
            let values: Vec<f32> = self.device.read_as(attempted, &buffer, (row_bytes * looks / 4) as usize).await?;
            let rows = values.chunks_exact((row_bytes / 4) as usize);
            if let Some((_, place)) = rows.zip(places).find(|(row, _)| !all_finite(row)) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}
