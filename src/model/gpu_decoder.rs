//! A decoder on a WebGPU device.

use super::chunk::ChunkShape;
use super::plan::{Output, PlanKey, Planner, RouterLens};
use super::state::{RING, State, kv_bytes};
use super::weights::{DeviceWeights, Uploader, total_bytes};
use super::{Forward, check_memory, chunk_rows};
use crate::checkpoint::Checkpoint;
use crate::error::Result;
use crate::gpu::{Device, Recording};
use crate::quant::Quant;
use crate::reference::sample::{mark_seen, seen_words};
use crate::reference::{LayerRouting, Sampling};
use crate::spec::ModelSpec;
use std::collections::BTreeMap;

/// Recordings that are kept, besides the one of a decode step.
const MAX_PLANS: usize = 6;

/// The weights, the memory and the recordings of one model on one device.
#[derive(Debug)]
pub struct GpuDecoder {
    pub(super) device: Device,
    pub(super) spec: ModelSpec,
    pub(super) weights: DeviceWeights,
    pub(super) state: State,
    pub(super) shape: ChunkShape,
    plans: BTreeMap<PlanKey, Recording>,
    /// Position of the row that the next decode step reads.
    position: usize,
}

/// What [`GpuDecoder::load`] is made from.
pub struct LoadParts<'a> {
    pub device: Device,
    pub spec: &'a ModelSpec,
    pub checkpoint: &'a Checkpoint,
    /// Format of the matrices; `None`: as stored.
    pub quant: Option<Quant>,
    /// Positions of the KV cache.
    pub context: usize,
}

impl GpuDecoder {
    /// Uploads every weight and allocates every buffer. `progress` hears the bytes done and the bytes in all.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) or [`Error::DeviceLimit`](crate::Error::DeviceLimit) before anything is read;
    /// otherwise what reading or uploading can fail with.
    pub async fn load(parts: LoadParts<'_>, progress: &mut dyn FnMut(u64, u64)) -> Result<Self> {
        let LoadParts { device, spec, checkpoint, quant, context } = parts;
        let shape = ChunkShape::choose(spec, device.caps(), context, device.name())?;
        let weight_bytes = total_bytes(checkpoint, spec, quant);
        check_memory(&device, weight_bytes + kv_bytes(spec, context))?;
        let state = device.catch("allocating the KV cache and activations", || State::new(&device, spec, &shape)).await?;
        let mut uploader = Uploader {
            device: &device,
            checkpoint,
            spec,
            quant,
            progress: &mut |done| progress(done, weight_bytes),
            done_bytes: 0,
        };
        let weights = uploader.upload().await?;
        Ok(GpuDecoder { device, spec: spec.clone(), weights, state, shape, plans: BTreeMap::new(), position: 0 })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Dispatches of one decode step.
    ///
    /// # Errors
    /// What recording can fail with.
    pub async fn dispatches_per_token(&mut self) -> Result<usize> {
        let key = PlanKey { num_tokens: 1, output: Output::Token, taps: false };
        self.prepare(key).await?;
        Ok(self.plans[&key].num_dispatches())
    }

    pub(super) async fn begin(&mut self, sampling: &Sampling, seen: &[u32]) -> Result<()> {
        let mut words = vec![0u32; seen_words(self.spec.vocab_size)];
        seen.iter().for_each(|&id| mark_seen(&mut words, id));
        self.device
            .catch("starting a generation", || {
                self.device.write(&self.state.sampling, 0, bytemuck::bytes_of(sampling));
                self.device.write(&self.state.seen, 0, bytemuck::cast_slice(&words));
                self.device.write(&self.state.loads, 0, &vec![0; self.state.loads.size_bytes() as usize]);
                Ok(())
            })
            .await
    }

    pub(super) async fn prefill(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        let chunk_len = self.shape.max_tokens;
        let num_chunks = ids.len().div_ceil(chunk_len);
        for (index, chunk) in ids.chunks(chunk_len).enumerate() {
            let output = if index + 1 == num_chunks { Output::Token } else { Output::Nothing };
            self.pass(chunk, position + index * chunk_len, PlanKey { num_tokens: chunk.len(), output, taps: false }).await?;
        }
        self.position = position + ids.len();
        self.last_sampled().await
    }

    pub(super) async fn decode(&mut self) -> Result<u32> {
        // The sampler has left the chosen token in row 0: nothing to upload.
        let key = PlanKey { num_tokens: 1, output: Output::Token, taps: false };
        self.prepare(key).await?;
        self.device.submit("decoding", &[&self.plans[&key]]).await?;
        self.position += 1;
        self.last_sampled().await
    }

    pub(super) async fn forward(&mut self, ids: &[u32], position: usize) -> Result<Forward> {
        let layers = (0..self.spec.layers.len()).map(LayerRouting::empty).collect();
        let mut forward = Forward { logits: Vec::new(), layers };
        let chunk_len = self.shape.max_tokens.min(self.shape.max_logit_rows);
        for (index, chunk) in ids.chunks(chunk_len).enumerate() {
            let key = PlanKey { num_tokens: chunk.len(), output: Output::Logits, taps: true };
            self.pass(chunk, position + index * chunk_len, key).await?;
            let num_logits = chunk.len() * self.spec.vocab_size;
            forward.logits.extend(self.device.read_as::<f32>("reading logits", &self.state.logits, num_logits).await?);
            for (layer, routing) in forward.layers.iter_mut().enumerate() {
                let taps = &self.state.taps[layer];
                let RouterLens { experts, chosen } = RouterLens::of(self.spec.layers[layer].ffn.moe());
                let (experts, chosen) = (chunk.len() * experts, chunk.len() * chosen);
                let device = &self.device;
                routing.router_logits.extend(device.read_as::<f32>("reading the routing", &taps.router_logits, experts).await?);
                routing.expert_ids.extend(device.read_as::<u32>("reading the routing", &taps.expert_ids, chosen).await?);
                routing
                    .routing_weights
                    .extend(device.read_as::<f32>("reading the routing", &taps.routing_weights, chosen).await?);
            }
        }
        Ok(forward)
    }

    pub(super) async fn expert_loads(&self) -> Result<Vec<Vec<u64>>> {
        let mut loads = Vec::with_capacity(self.spec.layers.len());
        let counters = (self.state.loads.size_bytes() / 4) as usize;
        let counts: Vec<u32> = self.device.read_as("reading the expert loads", &self.state.loads, counters).await?;
        // Each layer counts in a row of its own number of experts.
        for (layer, spec) in self.spec.layers.iter().enumerate() {
            let num_experts = spec.ffn.moe().router.num_experts;
            let row = &counts[layer * num_experts..(layer + 1) * num_experts];
            loads.push(row.iter().map(|&count| u64::from(count)).collect());
        }
        Ok(loads)
    }

    /// Uploads the rows of one chunk and runs it.
    async fn pass(&mut self, ids: &[u32], position: usize, key: PlanKey) -> Result<()> {
        let rows = chunk_rows(ids, position);
        self.prepare(key).await?;
        self.device
            .catch("uploading tokens", || {
                self.device.write(&self.state.rows, 0, bytemuck::cast_slice(&rows));
                Ok(())
            })
            .await?;
        self.device.submit("running the model", &[&self.plans[&key]]).await
    }

    /// Records a plan unless it is there already.
    async fn prepare(&mut self, key: PlanKey) -> Result<()> {
        if self.plans.contains_key(&key) {
            return Ok(());
        }
        if self.plans.len() >= MAX_PLANS {
            self.plans.retain(|key, _| key.num_tokens == 1);
        }
        let planner = Planner { decoder: self, key, recording: Recording::default() };
        let recording = self.device.catch("preparing the kernels", || planner.record()).await?;
        self.plans.insert(key, recording);
        Ok(())
    }

    /// The token chosen for `self.position`.
    async fn last_sampled(&self) -> Result<u32> {
        let ring: Vec<u32> = self.device.read_as("reading the next token", &self.state.sampled, RING).await?;
        Ok(ring[self.position % RING])
    }
}
