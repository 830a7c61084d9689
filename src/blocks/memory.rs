//! What blocks keep on a device between passes.

use super::halt::HaltRecord;
use super::taps::LayerTaps;
use crate::batch::rope::rope_table;
use crate::batch::{CacheShape, Row};
use crate::gpu::{Buffer, Device};
use crate::spec::{ModelSpec, RopeSpec};

/// The rows of a pass, the caches of all layers, and what the routers count.
#[derive(Debug)]
pub(crate) struct Memory {
    pub cache: CacheShape,
    /// The rows of the pass: [`Row`].
    pub rows: Buffer,
    /// For every layer how often its router was not finite, then the assignments of every expert, then counters that a choice of projections needs and
    /// nobody reads.
    pub loads: Buffer,
    /// Place of those in `loads`.
    pub choice_loads: usize,
    /// Of an MLP that every token uses: slot 0, weight 1.
    pub zeros: Buffer,
    pub ones: Buffer,
    /// One per layer with a router.
    pub taps: Vec<LayerTaps>,
    /// What every router did, at its [`LayerTaps::places`]; filled only where routing is asked for. One buffer for all layers takes one
    /// readback.
    pub tap_values: Buffer,
    /// Where experts may be absent.
    pub halt: Option<HaltRecord>,
    pub layers: Vec<LayerMemory>,
}

/// Of every block of a layer.
pub(crate) type LayerMemory = Vec<BlockMemory>;

#[derive(Debug, Clone)]
pub(crate) struct BlockMemory {
    pub rope: Option<Buffer>,
    /// By the name of its [`PositionState`](crate::spec::PositionState) or [`SlotState`](crate::spec::SlotState).
    pub states: Vec<(&'static str, Buffer)>,
}

impl BlockMemory {
    /// # Panics
    /// If the block declares no state of this name.
    pub fn state(&self, name: &str) -> &Buffer {
        let found = self.states.iter().find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("no state `{name}`")).1
    }
}

impl Memory {
    /// Zeroed memory for passes of up to `max_tokens` rows, with these [`caches`]. Call inside [`Device::catch`].
    pub fn new(device: &Device, spec: &ModelSpec, cache: CacheShape, max_tokens: usize, layers: Vec<LayerMemory>) -> Self {
        let f32s = |label: &str, len: usize| device.storage(label, (len * 4) as u64);
        let num_layers = spec.layers.len();
        let taps = LayerTaps::of_model(device, spec);
        let choice_loads = taps.last().map_or(num_layers, |tap| tap.load_offset + tap.num_experts);
        let choices = spec.layers.iter().filter_map(|layer| layer.attention_experts());
        // Buffers are whole words of 16 bytes, and copies of this one lie one behind the other.
        let num_choices = choices.map(|experts| experts.router.num_experts).max().unwrap_or(0);
        let num_loads = (choice_loads + num_choices).next_multiple_of(4);
        let ones = f32s("ones", max_tokens);
        device.write(&ones, 0, bytemuck::cast_slice(&vec![1.0f32; max_tokens]));
        Memory {
            cache,
            rows: device.storage("rows", (max_tokens * size_of::<Row>()) as u64),
            loads: f32s("loads", num_loads),
            choice_loads,
            zeros: f32s("zeros", max_tokens),
            ones,
            tap_values: f32s("tap_values", LayerTaps::len(&taps, max_tokens)),
            taps,
            halt: None,
            layers,
        }
    }

    /// Rotary tables for a text of `total_len` tokens.
    pub fn write_ropes(&self, device: &Device, spec: &ModelSpec, total_len: usize) {
        let blocks = spec.layers.iter().flat_map(|layer| &layer.blocks);
        for (memory, block) in self.layers.iter().flatten().zip(blocks) {
            if let (Some(buffer), Some(rope)) = (&memory.rope, block.rope()) {
                device.write(buffer, 0, bytemuck::cast_slice(&rope_table(rope, self.cache.context, total_len)));
            }
        }
    }
}

/// Zeroed state of every block, and a rotary table for every distinct rotary embedding. Call inside [`Device::catch`].
pub(crate) fn caches(device: &Device, spec: &ModelSpec, cache: CacheShape) -> Vec<LayerMemory> {
    let mut tables: Vec<(&RopeSpec, Buffer)> = Vec::new();
    let mut layers = Vec::with_capacity(spec.layers.len());
    for layer in &spec.layers {
        let mut blocks = Vec::with_capacity(layer.blocks.len());
        for block in &layer.blocks {
            let rope = block.rope().map(|rope| {
                if let Some((_, buffer)) = tables.iter().find(|(known, _)| *known == rope) {
                    return buffer.clone();
                }
                let table = rope_table(rope, cache.context, 0);
                let buffer = device.storage("rope", (table.len() * 8) as u64);
                device.write(&buffer, 0, bytemuck::cast_slice(&table));
                tables.push((rope, buffer.clone()));
                buffer
            });
            let states = block.state(spec.hidden_size).into_iter();
            let states = states.map(|state| (state.name, state.bytes(cache.context, cache.format)));
            let carried = block.carried(spec.hidden_size).into_iter().map(|state| (state.name, state.bytes()));
            let allocated = states.chain(carried).map(|(name, bytes)| (name, device.storage(name, bytes)));
            blocks.push(BlockMemory { rope, states: allocated.collect() });
        }
        layers.push(blocks);
    }
    layers
}
