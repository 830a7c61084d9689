//! A decoder with fewer slots than experts: which experts have one. Of a batch the host looks after every router which experts were chosen, and loads those
//! that are not there; single tokens [walk](super::walk).

use super::cost::TokenCost;
use super::formats::Formats;
use super::go_on;
use super::gpu_decoder::GpuDecoder;
use super::host_records::HostRecords;
use super::plan::Stage;
use super::reach::Reach;
use super::records::Records;
use crate::error::{Error, Result, human_bytes};
use crate::gpu::{Device, DeviceKind, Recording};
use crate::kernels::router_topk::can_halt;
use crate::kernels::{SHARDS_PER_DISPATCH, SlabShape};
use crate::paging::{ExpertMemory, Packing, PagingStats, PlaceShape, PolicyKind, PolicySetup, Residency};
use crate::platform::{self, Stopwatch};
use crate::spec::{Kind, ModelSpec, Role, Share, WeightKey};

/// Which experts are on the device.
#[derive(Debug)]
pub(super) struct Paged {
    places: Vec<PlaceShape>,
    pub residency: Residency,
    /// Whether the table on the device of a place is another than that of `residency`.
    pub is_stale: Vec<bool>,
    stats: PagingStats,
    pub reach: Reach,
    /// Where records come from.
    pub host: HostRecords,
    /// Assignments of single tokens since the generation began, by place and expert; the device counts those of batches.
    counted: Vec<Vec<u64>>,
    /// The first layer whose router was not finite in the last pass over a single token by itself.
    pub faulty_layer: Option<usize>,
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
        *slots = at_most_in_one_dispatch(*slots, device, (spec, formats), place)?;
    }
    if places.iter().zip(&slots).all(|(place, slots)| *slots == place.weighted()) {
        return Ok(None);
    }
    if let Some((layer, moe)) = spec.moe_layers().find(|(_, moe)| !can_halt(device.caps(), &moe.router)) {
        return Err(Error::DeviceLimit {
            what: format!("loading experts of layer {layer} when they are chosen"),
            device: device.name().to_owned(),
            expected: format!(
                "more buffers in a kernel, for a router of {} experts with a bias and factors",
                moe.router.num_experts
            ),
            found: format!("{}; an expert memory of `all` does without", device.caps().max_storage_buffers),
        });
    }
    let expert_bytes: u64 = places.iter().map(|place| bytes(place, place.least_slots())).sum();
    let idle = 1.0 - expert_bytes as f64 / TokenCost::of(formats, spec).weight_bytes.max(1) as f64;
    Ok(Some(Paged::new(places, &slots, memory, idle)))
}

/// Records that are read together for a batch.
const RECORDS_AT_A_TIME: usize = 4;
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

/// Of all routed experts.
pub(super) fn routed_bytes(spec: &ModelSpec, formats: &Formats) -> u64 {
    spec.moe_layers().map(|(layer, _)| place(spec, formats, layer)).map(|place| bytes(&place, place.weighted())).sum()
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
///
/// # Errors
/// [`Error::DeviceLimit`] if these are fewer than the token uses.
fn at_most_in_one_dispatch(
    slots: usize,
    device: &Device,
    (spec, formats): (&ModelSpec, &Formats),
    place: &PlaceShape,
) -> Result<usize> {
    let layer = place.layer;
    let weights = spec.layer_weights(layer);
    let down = weights.iter().find(|weight| weight.role == Role::ExpertDown);
    let Some(down) = down else { return Ok(slots) };
    let bias = weights.iter().any(|weight| weight.role.facts().kind == Kind::SlabBias(Role::ExpertDown));
    let quant = formats.of(Role::ExpertDown.of_expert(layer, 0));
    let shape = SlabShape { num_slots: slots, rows: down.rows, cols: down.cols, quant, bias };
    let most = shape.cuts(device.caps()).into_iter().flatten().map(|cut| cut.slots_per_shard * SHARDS_PER_DISPATCH).min();
    let most = most.map_or(slots, |most| most.min(slots));
    let least = place.least_slots();
    if most < least {
        let bytes = least.div_ceil(SHARDS_PER_DISPATCH) * shape.slot_bytes(shape.rows);
        return Err(Error::DeviceLimit {
            what: format!("loading the {least} experts that a token uses in layer {layer} when they are chosen"),
            device: device.name().to_owned(),
            expected: format!("bindings of {}", human_bytes(bytes as u64)),
            found: format!(
                "{}, enough for {most} of them; an expert memory of `all` does without",
                human_bytes(device.caps().max_shard_bytes())
            ),
        });
    }
    Ok(most)
}

impl Paged {
    /// `idle`: see [`Reach::new`].
    fn new(places: Vec<PlaceShape>, slots: &[usize], memory: ExpertMemory, idle: f64) -> Self {
        let kind = PolicyKind::named("lfu").expect("it is in the table");
        let policy = |place: usize| {
            let (experts, least_slots) = (places[place].weighted(), places[place].least_slots());
            (kind.make)(&PolicySetup { place, experts, slots: slots[place], least_slots, hot: &[], future: &[] })
        };
        let residency = Residency::new(&places, slots, policy);
        let stats = PagingStats::new(memory, kind.name, &places, slots);
        let counted = places.iter().map(|place| vec![0; place.experts]).collect();
        let is_stale = vec![false; places.len()];
        Paged {
            places,
            residency,
            is_stale,
            stats,
            reach: Reach::new(idle),
            host: HostRecords::default(),
            counted,
            faulty_layer: None,
        }
    }

    pub fn stats(&self) -> &PagingStats {
        &self.stats
    }

    /// As asked for, where that had to become something else.
    pub fn of_budget(mut self, memory: ExpertMemory) -> Self {
        self.stats.memory = memory;
        self
    }

    /// What loading one expert takes that has to be packed.
    pub fn note_packing(&mut self, seconds: f64) {
        self.keep_records();
        self.stats.packing = Some(Packing { seconds, ..Packing::default() });
        self.note_host();
    }

    fn note_host(&mut self) {
        if let (Some(packing), Some((bytes, [requests, hits]))) = (&mut self.stats.packing, self.host.counts()) {
            (packing.host_bytes, packing.host_requests, packing.host_hits) = (bytes, requests, hits);
        }
    }

    /// Takes the slot of an expert away. Whether there is such an expert.
    pub fn evict(&mut self, layer: usize, expert: usize) -> bool {
        let place = self.place_of(layer).filter(|place| expert < self.places[*place].weighted());
        place.is_some_and(|place| {
            self.residency.evict(place, expert);
            self.is_stale[place] = true;
            true
        })
    }

    /// Keeps records in host memory, where they are not stored as the device needs them.
    fn keep_records(&mut self) {
        self.host.keep(&self.places);
    }

    /// Index in the model of a place.
    pub fn layer(&self, place: usize) -> usize {
        self.places[place].layer
    }

    /// A generation begins.
    pub fn begin(&mut self) {
        self.counted.iter_mut().for_each(|counts| counts.fill(0));
        self.faulty_layer = None;
    }

    /// A token was handed out that chose these experts, by place.
    pub fn count(&mut self, chosen: &[Vec<u32>]) {
        for (counts, ids) in self.counted.iter_mut().zip(chosen) {
            ids.iter().for_each(|&id| counts[id as usize] += 1);
        }
    }

    pub fn counted(&self) -> Vec<Vec<u64>> {
        self.counted.clone()
    }

    pub fn set_counted(&mut self, counted: Vec<Vec<u64>>) {
        self.counted = counted;
    }

    /// Adds what has been counted here, by place and expert.
    pub fn add_counts(&self, loads: &mut [Vec<u64>]) {
        for (loads, counts) in loads.iter_mut().zip(&self.counted) {
            loads.iter_mut().zip(counts).for_each(|(load, count)| *load += count);
        }
    }

    /// A single token used experts that were all there.
    pub fn used(&mut self, place: usize, ids: &[u32]) {
        self.residency.used(place, ids);
        self.stats.decode.token(place, &self.places[place], ids, 0);
    }

    /// Likewise after so many of them were loaded, for which it waited.
    pub fn loaded(&mut self, place: usize, (ids, num_loads): (&[u32], usize), seconds: f64) {
        self.residency.used(place, ids);
        self.stats.decode.token(place, &self.places[place], ids, num_loads);
        self.stats.decode.seconds += seconds;
        self.note_host();
    }

    /// So many layers with experts ran behind a halt.
    pub fn note_waste(&mut self, layers: usize) {
        self.stats.wasted_layers += layers as u64;
        self.stats.reach_layers = self.reach.wanted();
        self.stats.stop_seconds = self.reach.stop_seconds();
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
    /// Runs a batch, and waits for the host after every router.
    pub(super) async fn run_stages(
        &mut self,
        attempted: &str,
        stages: &[Stage],
        rest: &Recording,
        num_tokens: usize,
    ) -> Result<()> {
        for stage in stages {
            let len = num_tokens * self.spec.layers[stage.cut.layer].moe().map_or(0, |moe| moe.router.num_experts_per_tok);
            let result = (&stage.cut.ids, (len * 4) as u64);
            let readback = self.device.submit_and_read(attempted, &[&stage.before], 1, result).await?;
            let ids: Vec<u32> = bytemuck::pod_collect_to_vec(&self.device.take("reading the chosen experts", readback).await?);
            self.run_waves(attempted, stage, (&ids, num_tokens)).await?;
        }
        self.device.submit(attempted, &[rest]).await
    }

    /// Runs the experts of a batch: those that are there, then the others, as many at a time as there are slots.
    async fn run_waves(&mut self, attempted: &str, stage: &Stage, (ids, num_tokens): (&[u32], usize)) -> Result<()> {
        let GpuDecoder { device, store, spec, weights, paged, cancel, .. } = self;
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
            // Records of one wave may be more than the host has room for.
            for loads in loads.chunks(RECORDS_AT_A_TIME) {
                go_on(cancel)?;
                let experts: Vec<usize> = loads.iter().map(|load| load.expert).collect();
                let read = paged.host.read(&records, (place, layer), &experts).await?;
                let write = || {
                    loads.iter().zip(&read).for_each(|(load, record)| records.write(device, (layer, load.slot), record));
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
