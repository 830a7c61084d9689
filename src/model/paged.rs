//! A decoder with fewer slots than experts: after every router the host looks which experts were chosen, and loads those that are not there.

use super::formats::Formats;
use super::gpu_decoder::GpuDecoder;
use super::plan::Stage;
use super::records::Records;
use crate::error::{Error, Result};
use crate::gpu::{Device, DeviceKind, Recording};
use crate::kernels::{SHARDS_PER_DISPATCH, SlabShape};
use crate::paging::{ExpertMemory, PagingStats, PlaceShape, PolicyKind, PolicySetup, Residency};
use crate::platform::{self, Stopwatch};
use crate::spec::{Kind, ModelSpec, Role, Share, WeightKey};

/// Which experts are on the device.
#[derive(Debug)]
pub(super) struct Paged {
    places: Vec<PlaceShape>,
    residency: Residency,
    /// Whether the table on the device of a place is another than that of `residency`.
    is_stale: Vec<bool>,
    stats: PagingStats,
}

/// Whether these are weights of experts that take slots.
pub(super) fn is_paged(key: WeightKey) -> bool {
    key.role.facts().share == Share::Experts
}

/// The slots that `memory` makes; `None` where all experts have one of their own from the start.
///
/// # Errors
/// [`Error::ExpertMemory`] if it is too little for a single token.
pub(super) fn choose_slots(
    memory: ExpertMemory,
    device: &Device,
    (spec, formats): (&ModelSpec, &Formats),
    kv_cache_bytes: u64,
) -> Result<Option<Paged>> {
    let places: Vec<PlaceShape> = spec.moe_layers().map(|(layer, _)| place(spec, formats, layer)).collect();
    let all_bytes: u64 = places.iter().map(|place| bytes(place, place.weighted())).sum();
    let resident_bytes = formats.total_bytes(spec) - all_bytes + kv_cache_bytes;
    let room = device.caps().memory_bytes.map(|total| room(device, total));
    if memory == ExpertMemory::All || (memory == ExpertMemory::Auto && room.is_none_or(|room| resident_bytes + all_bytes <= room))
    {
        return Ok(None);
    }
    let free = room.map(|room| (room - room / RESERVE_SHARE).saturating_sub(resident_bytes + RESERVE_BYTES));
    let mut slots = memory.slots(&places, free)?;
    for (slots, place) in slots.iter_mut().zip(&places) {
        *slots = at_most_in_one_dispatch(*slots, device, (spec, formats), place.layer);
    }
    if places.iter().zip(&slots).all(|(place, slots)| *slots == place.weighted()) {
        return Ok(None);
    }
    Ok(Some(Paged::new(places, &slots, memory)))
}

/// What activations and others may take besides, and as a share of all memory.
const RESERVE_BYTES: u64 = 256 << 20;
const RESERVE_SHARE: u64 = 20;

/// Device memory that may be used in all. What shares the memory of the host has no more than that has left.
fn room(device: &Device, total: u64) -> u64 {
    match device.caps().kind {
        DeviceKind::Discrete => total,
        _ => platform::available_memory_bytes().map_or(total, |available| available.min(total)),
    }
}

fn place(spec: &ModelSpec, formats: &Formats, layer: usize) -> PlaceShape {
    let router = &spec.layers[layer].moe().expect("a place is a layer with a router").router;
    PlaceShape {
        layer,
        experts: router.num_experts,
        weightless: router.identity_experts,
        experts_per_token: router.num_experts_per_tok,
        record_bytes: Some(formats.expert_bytes(spec, layer)),
    }
}

fn bytes(place: &PlaceShape, experts: usize) -> u64 {
    place.record_bytes.unwrap_or(0) * experts as u64
}

/// `slots`, but no more than one dispatch of the down projection can bind: of a single token, the sums of several would depend on which slots its
/// experts have.
fn at_most_in_one_dispatch(slots: usize, device: &Device, (spec, formats): (&ModelSpec, &Formats), layer: usize) -> usize {
    let weights = spec.layer_weights(layer);
    let down = weights.iter().find(|weight| weight.role == Role::ExpertDown);
    let Some(down) = down else { return slots };
    let bias = weights.iter().any(|weight| weight.role.facts().kind == Kind::SlabBias(Role::ExpertDown));
    let quant = formats.of(Role::ExpertDown.of_expert(layer, 0));
    let shape = SlabShape { num_slots: slots, rows: down.rows, cols: down.cols, quant, bias };
    let most = shape.cuts(device.caps()).into_iter().flatten().map(|cut| cut.slots_per_shard * SHARDS_PER_DISPATCH).min();
    most.map_or(slots, |most| most.min(slots))
}

impl Paged {
    fn new(places: Vec<PlaceShape>, slots: &[usize], memory: ExpertMemory) -> Self {
        let kind = PolicyKind::named("lfu").expect("it is in the table");
        let policy = |place: usize| {
            let (experts, least_slots) = (places[place].weighted(), places[place].least_slots());
            (kind.make)(&PolicySetup { place, experts, slots: slots[place], least_slots, hot: &[], future: &[] })
        };
        let residency = Residency::new(&places, slots, policy);
        let stats = PagingStats::new(memory, kind.name, &places, slots);
        Paged { is_stale: vec![false; places.len()], places, residency, stats }
    }

    pub fn stats(&self) -> &PagingStats {
        &self.stats
    }

    /// Bytes of all routed experts.
    pub fn expert_bytes(&self) -> u64 {
        self.places.iter().map(|place| bytes(place, place.weighted())).sum()
    }

    /// Bytes of all slots.
    pub fn slot_bytes(&self) -> u64 {
        self.stats.slot_bytes
    }

    fn place_of(&self, layer: usize) -> Option<usize> {
        self.places.iter().position(|place| place.layer == layer)
    }

    /// How many slots the slabs of a weight have, if they are paged.
    pub fn slots_of(&self, key: WeightKey) -> Option<usize> {
        let place = self.place_of(key.layer).filter(|_| is_paged(key))?;
        Some(self.residency.holds(place).len())
    }

    /// The table of the slots that a router reads, if its experts are paged.
    pub fn table_of(&self, router: WeightKey) -> Option<&[u32]> {
        let place = self.place_of(router.layer).filter(|_| router.role == Role::Router)?;
        Some(self.residency.table(place))
    }

    /// Refuses routing with more experts of a token than a layer has slots.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        for ((layer, moe), index) in spec.moe_layers().zip(0..) {
            let slots = self.residency.holds(index).len();
            let wanted = moe.router.num_experts_per_tok.min(self.places[index].weighted());
            if wanted > slots {
                let expected = format!(
                    "at most {slots}, the experts that have room on the device at a time; a larger expert memory has more"
                );
                let found = format!("{wanted} in layer {layer}");
                return Err(Error::Argument { what: "number of experts per token", expected, found });
            }
        }
        Ok(())
    }
}

impl GpuDecoder {
    /// Runs a pass that waits for the host after every router.
    pub(super) async fn run_stages(
        &mut self,
        attempted: &str,
        stages: &[Stage],
        rest: &Recording,
        num_tokens: usize,
    ) -> Result<()> {
        let mut pending: Option<&Recording> = None;
        for stage in stages {
            let recordings: Vec<&Recording> = pending.take().into_iter().chain([&stage.before]).collect();
            let len = num_tokens * self.spec.layers[stage.cut.layer].moe().map_or(0, |moe| moe.router.num_experts_per_tok);
            let result = (&stage.cut.ids, (len * 4) as u64);
            let readback = self.device.submit_and_read(attempted, &recordings, 1, result).await?;
            let ids: Vec<u32> = bytemuck::pod_collect_to_vec(&self.device.take("reading the chosen experts", readback).await?);
            if num_tokens == 1 {
                self.load_chosen(stage, &ids).await?;
                pending = Some(&stage.experts);
            } else {
                self.run_waves(attempted, stage, (&ids, num_tokens)).await?;
            }
        }
        let recordings: Vec<&Recording> = pending.into_iter().chain([rest]).collect();
        self.device.submit(attempted, &recordings).await
    }

    /// Loads what a single token needs and is not there. Records are read before anything is overwritten, so that an error changes nothing.
    async fn load_chosen(&mut self, stage: &Stage, ids: &[u32]) -> Result<()> {
        let GpuDecoder { device, store, spec, weights, paged, .. } = self;
        let (layer, records) = (stage.cut.layer, Records { store, spec, weights });
        let paged = paged.as_mut().expect("stages are of paged decoders");
        let place = paged.place_of(layer).expect("every router has a place");
        let waiting = Stopwatch::start();
        let mut plan = paged.residency.plan(place, ids);
        let mut read = Vec::with_capacity(plan.loads().len());
        for load in plan.loads() {
            read.push((load.slot, records.read(layer, load.expert).await?));
        }
        plan.evict();
        if !read.is_empty() {
            paged.is_stale[place] = true;
            let write = || {
                read.iter().for_each(|(slot, record)| records.write(device, (layer, *slot), record));
                Ok(())
            };
            device.catch("loading experts", write).await?;
        }
        let num_loads = plan.commit().len();
        paged.residency.used(place, ids);
        paged.stats.decode.token(place, &paged.places[place], ids, num_loads);
        if num_loads > 0 {
            paged.stats.decode.seconds += waiting.seconds();
        }
        if std::mem::take(&mut paged.is_stale[place]) {
            let table = paged.residency.table(place);
            let slots: Vec<u32> = ids.iter().map(|&id| table[id as usize]).collect();
            let write = || {
                device.write(&weights.slot_tables[&Role::Router.of_layer(layer)], 0, bytemuck::cast_slice(table));
                device.write(&stage.cut.slots, 0, bytemuck::cast_slice(&slots));
                Ok(())
            };
            let written = device.catch("loading experts", write).await;
            paged.is_stale[place] = written.is_err();
            written?;
        }
        Ok(())
    }

    /// Runs the experts of a batch: those that are there, then the others, as many at a time as there are slots.
    async fn run_waves(&mut self, attempted: &str, stage: &Stage, (ids, num_tokens): (&[u32], usize)) -> Result<()> {
        let GpuDecoder { device, store, spec, weights, paged, .. } = self;
        let (layer, records) = (stage.cut.layer, Records { store, spec, weights });
        let paged = paged.as_mut().expect("stages are of paged decoders");
        let place = paged.place_of(layer).expect("every router has a place");
        let shape = paged.places[place];
        let mut counts = vec![0; shape.experts];
        ids.iter().for_each(|&id| counts[id as usize] += 1);
        paged.is_stale[place] = true;
        paged.residency.used_by_chunk(place, &counts, num_tokens);
        let mut waves = paged.residency.waves(place, &counts);
        while let Some((wave, table)) = waves.current() {
            let (loads, num_experts, waiting) = (wave.loads.clone(), wave.experts.len(), Stopwatch::start());
            waves.evict_current();
            for load in &loads {
                let record = records.read(layer, load.expert).await?;
                let write = || {
                    records.write(device, (layer, load.slot), &record);
                    Ok(())
                };
                device.catch("loading experts", write).await?;
                device.settle_uploads("loading experts").await?;
            }
            paged.stats.prefill.wave(&shape, num_experts, loads.len());
            if !loads.is_empty() {
                paged.stats.prefill.seconds += waiting.seconds();
            }
            let write = || {
                device.write(&weights.slot_tables[&Role::Router.of_layer(layer)], 0, bytemuck::cast_slice(&table));
                Ok(())
            };
            device.catch("loading experts", write).await?;
            device.submit(attempted, &[&stage.experts]).await?;
            waves.commit_current();
        }
        if place == 0 {
            paged.stats.prefill.tokens += num_tokens as u64;
        }
        Ok(())
    }
}
