//! A decoder on a WebGPU device.

use super::ahead::{Ahead, StepTime};
use super::buffers::{Buffers, Loaded, kv_bytes, measure};
use super::cost::TokenCost;
use super::faults::first_layer;
use super::formats::{Formats, cache_format};
use super::ledger::Ledger;
use super::load_stats::{LoadStats, LoadStep};
use super::paged::{Paged, choose_slots, routed_bytes};
use super::plan::{Output, Plan, PlanKey, Planner};
use super::records::Records;
use super::sampler::RING;
use super::upload::{Uploader, allocate};
use super::{Cancel, Forward, check_memory, chunk_rows, go_on};
use crate::batch::{CacheShape, LayerRouting, Row, Sampling, mark_seen, seen_words};
use crate::blocks::{Arena, DeviceWeights, LayerTaps, Memory, Parts, Pass};
use crate::checkpoint::WeightStore;
use crate::error::{Error, Result};
use crate::gpu::{Device, Recording, Tuning};
use crate::kernels::sample::FAULT;
use crate::paging::{ExpertMemory, PagingStats};
use crate::platform::{HostPeak, Listener, Progress, Stopwatch};
use crate::quant::{CacheChoice, QuantChoice};
use crate::spec::ModelSpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Recordings that are kept, besides the one of a decode step.
const MAX_PLANS: usize = 6;

/// The weights, the memory and the recordings of one model on one device.
#[derive(Debug)]
pub struct GpuDecoder {
    pub(super) device: Device,
    pub(super) spec: ModelSpec,
    /// Where the weights came from: they can be read again.
    pub(super) store: Arc<WeightStore>,
    pub(super) weights: DeviceWeights,
    pub(super) buffers: Buffers,
    cost: TokenCost,
    load_stats: LoadStats,
    formats: Vec<&'static str>,
    pub(super) plans: BTreeMap<PlanKey, Arc<Plan>>,
    /// Where not all experts are on the device.
    pub(super) paged: Option<Paged>,
    /// The tokens whose keys and values the cache holds.
    pub(super) history: Vec<u32>,
    /// What else is kept of them.
    pub(super) ledger: Ledger,
    /// The rotary tables are those of texts beyond the model's original length.
    pub(super) is_long: bool,
    /// Position of the row that the next decode step reads, and its token.
    pub(super) position: usize,
    pub(super) last_sampled: u32,
    /// What the routers did in the last prefill or decode step, where it is kept.
    pub(super) routing: Option<Vec<LayerRouting>>,
    pub(super) ahead: Ahead,
    pub(super) step_time: StepTime,
    pub(super) cancel: Cancel,
}

/// Memory for all weights, but for experts that have no slot, and its bytes. Where `auto` asks for more than there is, it takes three quarters of that, as
/// often as it has to.
async fn allocate_weights(
    memory: ExpertMemory,
    device: &Device,
    (spec, formats): (&ModelSpec, &Formats),
    other_bytes: u64,
) -> Result<(Option<Paged>, DeviceWeights, u64)> {
    let mut budget = memory;
    loop {
        let paged = choose_slots(budget, device, (spec, formats), other_bytes)?.map(|paged| paged.of_budget(memory));
        let expert_bytes = paged.as_ref().map_or(0, Paged::expert_bytes);
        let slot_bytes = paged.as_ref().map_or(0, Paged::slot_bytes);
        check_memory(device, formats.total_bytes(spec) - expert_bytes + slot_bytes + other_bytes)?;
        let before = device.allocated_bytes();
        match allocate(device, spec, formats, paged.as_ref()).await {
            Err(Error::OutOfMemory { .. }) if memory == ExpertMemory::Auto && spec.moe_layers().next().is_some() => {
                // What was allocated is free once nothing is under way any more.
                device.finish("allocating weights").await?;
                let tried = if paged.is_some() { slot_bytes } else { routed_bytes(spec, formats) };
                budget = ExpertMemory::Bytes(tried - tried / 4);
            }
            allocated => return Ok((paged, allocated?, device.allocated_bytes() - before)),
        }
    }
}

/// What [`GpuDecoder::load`] is made from.
pub struct LoadParts<'a> {
    pub device: Device,
    pub spec: &'a ModelSpec,
    /// Its weights.
    pub store: Arc<WeightStore>,
    /// Formats of the matrices.
    pub quant: QuantChoice,
    /// Format of the KV cache.
    pub cache: CacheChoice,
    /// Its positions.
    pub context: usize,
    /// Device memory for routed experts.
    pub expert_memory: ExpertMemory,
}

impl GpuDecoder {
    /// Uploads every weight, allocates every buffer, and compiles what a prompt and a decode step run.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) or [`Error::DeviceLimit`](crate::Error::DeviceLimit) before anything is read;
    /// otherwise what reading or uploading can fail with.
    pub async fn load(parts: LoadParts<'_>, progress: &mut Listener<'_, LoadStep>) -> Result<Self> {
        let LoadParts { device, spec, store, quant, cache, context, expert_memory } = parts;
        let cache = cache_format(&store, spec, quant, cache);
        let cache = CacheShape { context, format: cache };
        let formats = Formats::of_model(&store, spec, quant)?;
        let kv_cache_bytes = kv_bytes(spec, cache);
        let cost = TokenCost::of(&formats, spec);
        let host_peak = HostPeak::start();
        let other_bytes = kv_cache_bytes + spec.held_state_bytes();
        let (paged, weights, weight_bytes_allocated) =
            allocate_weights(expert_memory, &device, (spec, &formats), other_bytes).await?;
        let weight_bytes = formats.total_bytes(spec) - paged.as_ref().map_or(0, Paged::expert_bytes);
        let allocated = || device.allocated_bytes();
        let sizes = measure(&device, spec, &weights, cache).await?;
        let before_buffers = allocated();
        let buffers = Buffers::allocate(Loaded { device: &device, spec, weights: &weights }, sizes, cache, None).await?;
        let activation_bytes = (allocated() - before_buffers).saturating_sub(kv_cache_bytes + spec.held_state_bytes());
        let mut uploader = Uploader {
            device: &device,
            store: &store,
            spec,
            progress: &mut |done_bytes| progress(LoadStep::Weights { done_bytes, total_bytes: weight_bytes }),
            done_bytes: 0,
        };
        uploader.fill(&weights, paged.is_some()).await?;
        let load_stats = LoadStats {
            weight_bytes: weight_bytes_allocated,
            kv_cache_bytes,
            kv_cache_format: cache.format,
            state_bytes: spec.held_state_bytes(),
            activation_bytes,
            peak_host_bytes: host_peak.bytes(),
        };
        let mut decoder = GpuDecoder {
            device,
            spec: spec.clone(),
            store,
            weights,
            buffers,
            cost,
            load_stats,
            formats: formats.names(spec),
            plans: BTreeMap::new(),
            paged,
            history: Vec::new(),
            ledger: Ledger::new(spec),
            is_long: false,
            position: 0,
            last_sampled: 0,
            routing: None,
            ahead: Ahead::default(),
            step_time: StepTime::default(),
            cancel: Cancel::default(),
        };
        decoder.try_packing().await?;
        decoder.get_ready(progress).await?;
        Ok(decoder)
    }

    /// Where experts will be packed each time they are loaded, finds out how long one takes.
    async fn try_packing(&mut self) -> Result<()> {
        let GpuDecoder { store, spec, weights, paged, .. } = self;
        let Some(paged) = paged else { return Ok(()) };
        let (layer, records) = (paged.layer(0), Records { store, spec, weights });
        if !records.are_stored(layer) {
            let clock = Stopwatch::start();
            records.read_all(layer, &[0]).await?;
            paged.note_packing(clock.seconds());
        }
        Ok(())
    }

    /// Compiles every pipeline now, not while somebody waits for the first token.
    async fn get_ready(&mut self, progress: &mut Listener<'_, LoadStep>) -> Result<()> {
        let max_tokens = self.buffers.chunk.max_tokens;
        let keys = [1, max_tokens].map(|num_tokens| PlanKey { num_tokens, output: Output::Token, taps: false });
        self.compile(&keys, progress).await?;
        for key in keys {
            self.prepare(key).await?;
        }
        Ok(())
    }

    /// See [`Decoder::compile_for`](super::Decoder::compile_for).
    pub(super) async fn compile_for(&mut self, num_tokens: usize, progress: &mut Progress<'_>) -> Result<()> {
        const ATTEMPTED: &str = "compiling the kernels";
        let (chunk_len, taps) = (self.buffers.chunk.max_tokens, self.routing.is_some());
        let last = (num_tokens - 1) % chunk_len + 1;
        let chunk = (num_tokens > chunk_len).then_some((chunk_len, Output::Nothing));
        let passes = chunk.into_iter().chain([(last, Output::Token), (1, Output::Token)]);
        let keys: Vec<PlanKey> = passes.map(|(num_tokens, output)| PlanKey { num_tokens, output, taps }).collect();
        for &key in &keys {
            self.prepare(key).await?;
        }
        let unused = Recording::unused(keys.iter().filter_map(|key| self.plans.get(key)).flat_map(|plan| plan.recordings()));
        let total = unused.len() as u64;
        for (done, dispatch) in unused.into_iter().enumerate() {
            progress(done as u64, total);
            go_on(&self.cancel)?;
            self.device.use_first(ATTEMPTED, dispatch).await?;
        }
        if total > 0 {
            progress(total, total);
        }
        Ok(())
    }

    /// Compiles what these plans run and is not there yet, one pipeline after the other.
    async fn compile(&self, keys: &[PlanKey], progress: &mut Listener<'_, LoadStep>) -> Result<()> {
        const ATTEMPTED: &str = "preparing the kernels";
        let record =
            || keys.iter().try_for_each(|key| self.planner(key.pass()).record(&self.buffers.sampler, key.output).map(drop));
        let missing = self.device.catch(ATTEMPTED, || self.device.missing_pipelines(record)).await?;
        let total = missing.len() as u64;
        for (done, (kernel, variant)) in missing.iter().enumerate() {
            progress(LoadStep::Kernels { done: done as u64, total });
            self.device.catch(ATTEMPTED, || self.device.compile(kernel, variant)).await?;
        }
        progress(LoadStep::Kernels { done: total, total });
        Ok(())
    }

    /// Where its weights came from.
    pub fn store(&self) -> &Arc<WeightStore> {
        &self.store
    }

    /// What has been loaded while it ran; `None` where all experts are on the device.
    pub fn paging(&self) -> Option<&PagingStats> {
        self.paged.as_ref().map(Paged::stats)
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// See [`Decoder::set_spec`](super::Decoder::set_spec).
    pub(super) async fn set_spec(&mut self, spec: ModelSpec) -> Result<()> {
        if let Some(paged) = &self.paged {
            paged.check(&spec)?;
        }
        let per_token = |spec: &ModelSpec| spec.moe_layers().map(|(_, moe)| moe.router.num_experts_per_tok).collect::<Vec<_>>();
        if per_token(&spec) != per_token(&self.spec) {
            // Other shapes need other activations; the KV cache is the same.
            let Memory { cache, layers, .. } = &self.buffers.memory;
            let (cache, layers) = (*cache, layers.clone());
            let sizes = measure(&self.device, &spec, &self.weights, cache).await?;
            let loaded = Loaded { device: &self.device, spec: &spec, weights: &self.weights };
            self.buffers = Buffers::allocate(loaded, sizes, cache, Some(layers)).await?;
        }
        self.spec = spec;
        self.plans.clear();
        self.history.clear();
        self.ledger.clear();
        self.ahead.clear();
        Ok(())
    }

    /// Records anew with other choices of the kernels. The KV cache stays.
    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.device.set_tuning(tuning);
        self.plans.clear();
        self.ahead.clear();
        self.step_time = StepTime::default();
    }

    /// What one token takes.
    pub fn token_cost(&self) -> TokenCost {
        self.cost
    }

    pub fn load_stats(&self) -> &LoadStats {
        &self.load_stats
    }

    /// Names of the formats of the weight matrices, that of the most bytes first.
    pub fn formats(&self) -> &[&'static str] {
        &self.formats
    }

    pub(super) fn keep_routing(&mut self, keep: bool) {
        self.routing = keep.then(Vec::new);
        self.ahead.clear();
    }

    pub(super) fn routing(&self) -> &[LayerRouting] {
        self.routing.as_deref().unwrap_or_default()
    }

    pub(super) fn no_routing(&self) -> Vec<LayerRouting> {
        self.buffers.memory.taps.iter().map(|taps| LayerRouting::empty(taps.layer)).collect()
    }

    pub(super) async fn begin(&mut self, sampling: &Sampling, seen: &[u32]) -> Result<()> {
        let mut words = vec![0u32; seen_words(self.spec.vocab_size)];
        seen.iter().for_each(|&id| mark_seen(&mut words, id));
        self.ahead.clear();
        if let Some(paged) = &mut self.paged {
            paged.begin();
        }
        self.device
            .catch("starting a generation", || {
                self.device.write(&self.buffers.sampler.sampling, 0, bytemuck::bytes_of(sampling));
                self.device.write(&self.buffers.sampler.seen, 0, bytemuck::cast_slice(&words));
                self.device.write(&self.buffers.memory.loads, 0, &vec![0; self.buffers.memory.loads.size_bytes() as usize]);
                Ok(())
            })
            .await
    }

    pub(super) async fn prefill(&mut self, ids: &[u32], position: usize) -> Result<u32> {
        self.ahead.clear();
        self.extend_history(ids, position).await?;
        let chunk_len = self.buffers.chunk.max_tokens;
        let num_chunks = ids.len().div_ceil(chunk_len);
        let taps = self.routing.is_some();
        let mut layers = self.no_routing();
        for (index, chunk) in ids.chunks(chunk_len).enumerate() {
            go_on(&self.cancel)?;
            let output = if index + 1 == num_chunks { Output::Token } else { Output::Nothing };
            self.pass(chunk, position + index * chunk_len, PlanKey { num_tokens: chunk.len(), output, taps }).await?;
            if taps {
                self.read_taps(chunk.len(), &mut layers).await?;
            } else if self.step_time.is_long(chunk.len()) {
                self.device.finish("running the model").await?;
            }
        }
        self.check_results(&[], &layers).await?;
        self.routing = taps.then_some(layers);
        self.ahead.row_is_later = false;
        self.position = position + ids.len();
        self.read_sampled().await
    }

    pub(super) async fn forward(&mut self, ids: &[u32], position: usize) -> Result<Forward> {
        self.ahead.clear();
        self.extend_history(ids, position).await?;
        let mut forward = Forward { logits: Vec::new(), layers: self.no_routing() };
        let chunk_len = self.buffers.chunk.max_tokens.min(self.buffers.chunk.max_logit_rows);
        for (index, chunk) in ids.chunks(chunk_len).enumerate() {
            let key = PlanKey { num_tokens: chunk.len(), output: Output::Logits, taps: true };
            self.pass(chunk, position + index * chunk_len, key).await?;
            let num_logits = chunk.len() * self.spec.vocab_size;
            forward.logits.extend(self.device.read_as::<f32>("reading logits", &self.buffers.sampler.logits, num_logits).await?);
            self.read_taps(chunk.len(), &mut forward.layers).await?;
        }
        self.check_results(&forward.logits, &forward.layers).await?;
        Ok(forward)
    }

    /// Appends what the routers did with the `num_tokens` rows of the last pass.
    async fn read_taps(&self, num_tokens: usize, layers: &mut [LayerRouting]) -> Result<()> {
        let len = LayerTaps::len(&self.buffers.memory.taps, num_tokens);
        let values: Vec<u32> = self.device.read_as("reading the routing", &self.buffers.memory.tap_values, len).await?;
        self.buffers.memory.append_routing(&values, num_tokens, layers);
        Ok(())
    }

    pub(super) async fn expert_loads(&self) -> Result<Vec<Vec<u64>>> {
        let counters = (self.buffers.memory.loads.size_bytes() / 4) as usize;
        let attempted = "reading the expert loads";
        let counts: Vec<u32> = match self.ahead.last_slot {
            None => self.device.read_as(attempted, &self.buffers.memory.loads, counters).await?,
            // Later steps have counted already.
            Some(slot) => {
                let end = (slot + 1) * counters;
                self.device.read_as(attempted, &self.buffers.sampler.load_steps, end).await?.split_off(end - counters)
            }
        };
        let of_layer =
            |taps: &LayerTaps| counts[taps.load_offset..][..taps.num_experts].iter().map(|&count| u64::from(count)).collect();
        let mut loads: Vec<Vec<u64>> = self.buffers.memory.taps.iter().map(of_layer).collect();
        if let Some(paged) = &self.paged {
            paged.add_counts(&mut loads);
        }
        Ok(loads)
    }

    pub(super) async fn upload_rows(&self, ids: &[u32], position: usize) -> Result<()> {
        let rows = chunk_rows(ids, position);
        self.device
            .catch("uploading tokens", || {
                self.device.write(&self.buffers.memory.rows, 0, bytemuck::cast_slice(&rows));
                Ok(())
            })
            .await
    }

    /// Uploads the rows of one chunk and runs it.
    pub(super) async fn pass(&mut self, ids: &[u32], position: usize, key: PlanKey) -> Result<()> {
        self.prepare(key).await?;
        self.upload_rows(ids, position).await?;
        let positions = position..position + ids.len();
        self.ledger.runs(positions.clone());
        let plan = self.plans[&key].clone();
        self.run("running the model", &plan, ids, position).await?;
        self.ledger.ran(positions);
        Ok(())
    }

    /// Runs what is recorded for so many tokens, whose rows are there.
    pub(super) async fn run(&mut self, attempted: &str, plan: &Plan, ids: &[u32], position: usize) -> Result<()> {
        let num_tokens = ids.len();
        match plan {
            Plan::Whole(recording) => {
                let pieces = self.step_time.pieces(self.device.pace(), num_tokens, recording.commands().len());
                self.device.submit_in_pieces(attempted, &[recording], pieces).await
            }
            Plan::Cut { stages, rest } => self.run_stages(attempted, stages, rest, num_tokens).await,
            Plan::Steps(steps) => self.run_single(steps, Row::new(ids[0], position as u32, 0)).await,
        }
    }

    /// Records a pass of this shape.
    pub(super) fn planner(&self, pass: Pass) -> Planner<'_> {
        let parts = Parts { device: &self.device, model: &self.spec, weights: &self.weights, memory: &self.buffers.memory };
        Planner::new(parts, Arena::from(&self.buffers.scratch), pass)
    }

    /// Records a plan unless it is there already.
    pub(super) async fn prepare(&mut self, key: PlanKey) -> Result<()> {
        if self.plans.contains_key(&key) {
            return Ok(());
        }
        if self.plans.len() >= MAX_PLANS {
            self.plans.retain(|key, _| key.num_tokens == 1);
        }
        let record = || self.planner(key.pass()).record(&self.buffers.sampler, key.output);
        let recorded = self.device.catch("preparing the kernels", record).await?;
        self.plans.insert(key, Arc::new(Plan::new(recorded, self.paged.is_some())));
        Ok(())
    }

    /// The token chosen for `self.position`.
    async fn read_sampled(&mut self) -> Result<u32> {
        let mut faults = Recording::default();
        let Buffers { memory, sampler, .. } = &self.buffers;
        sampler.copy_faults(memory, &mut faults);
        let attempted = "reading the next token";
        let result = (&sampler.sampled, sampler.sampled_bytes());
        let readback = self.device.submit_and_read(attempted, &[&faults], 1, result).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&self.device.take(attempted, readback).await?);
        let word = words[self.position % RING];
        let single = self.paged.as_ref().and_then(|paged| paged.faulty_layer);
        let layer = first_layer(&words[RING..RING + self.spec.layers.len()]).into_iter().chain(single).min();
        if (word & FAULT != 0 || layer.is_some()) && !self.device.unchecked_results() {
            return Err(self.fault(layer, &[]).await);
        }
        self.last_sampled = word & !FAULT;
        Ok(self.last_sampled)
    }
}
