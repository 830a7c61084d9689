//! Weights of the experts of one layer, addressed by cache slot.

use crate::error::Result;
use crate::gpu::{Buffer, Device, Variant};
use crate::quant::Quant;

/// Shard buffers that one dispatch can bind.
const SHARDS_PER_DISPATCH: usize = 4;
/// Rows of a slab are cut at multiples of this: whole quads, and gate beside up.
const UNIT_ROWS: usize = 4;

/// One projection of the experts of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlabShape {
    pub num_slots: usize,
    /// Rows per expert.
    pub rows: usize,
    pub cols: usize,
    pub quant: Quant,
}

/// Device memory for [`SlabShape`]: usually one part with one buffer, more where a binding is too small.
#[derive(Debug)]
pub struct Slabs {
    pub shape: SlabShape,
    /// Ranges of rows, each with all slots.
    pub parts: Vec<SlabPart>,
}

#[derive(Debug)]
pub struct SlabPart {
    pub first_row: usize,
    pub num_rows: usize,
    pub slots_per_shard: usize,
    pub shards: Vec<Buffer>,
}

/// What one dispatch serves: some slots of one part.
pub(super) struct SlabDispatch<'a> {
    pub part: &'a SlabPart,
    pub first_slot: usize,
    pub num_slots: usize,
    pub shards: &'a [Buffer],
}

impl SlabShape {
    pub fn row_bytes(&self) -> usize {
        self.quant.row_bytes(self.cols)
    }
}

impl Slabs {
    /// Zeroed memory. Call inside [`Device::catch`].
    ///
    /// # Errors
    /// [`Error::DeviceLimit`](crate::Error::DeviceLimit) if not even four rows fit in one binding.
    pub fn new(device: &Device, label: &str, shape: SlabShape) -> Result<Self> {
        let row_bytes = shape.row_bytes();
        let rows_per_part = device.rows_per_shard(label, shape.rows, row_bytes, UNIT_ROWS)?;
        let mut parts = Vec::new();
        for first_row in (0..shape.rows).step_by(rows_per_part) {
            let num_rows = rows_per_part.min(shape.rows - first_row);
            let slots_per_shard = device.rows_per_shard(label, shape.num_slots, num_rows * row_bytes, 1)?;
            let shards = (0..shape.num_slots)
                .step_by(slots_per_shard)
                .map(|slot| {
                    let slots = slots_per_shard.min(shape.num_slots - slot);
                    device.storage(label, (slots * num_rows * row_bytes) as u64)
                })
                .collect();
            parts.push(SlabPart { first_row, num_rows, slots_per_shard, shards });
        }
        Ok(Slabs { shape, parts })
    }

    /// Writes packed rows of one slot, from `first_row` on.
    pub fn write_rows(&self, device: &Device, slot: usize, first_row: usize, content: &[u8]) {
        let row_bytes = self.shape.row_bytes();
        let end_row = first_row + content.len() / row_bytes;
        for part in &self.parts {
            let start = first_row.max(part.first_row);
            let end = end_row.min(part.first_row + part.num_rows);
            if start < end {
                let row = slot % part.slots_per_shard * part.num_rows + (start - part.first_row);
                let piece = &content[(start - first_row) * row_bytes..(end - first_row) * row_bytes];
                device.write(&part.shards[slot / part.slots_per_shard], (row * row_bytes) as u64, piece);
            }
        }
    }

    /// The dispatches that together serve every slot and row.
    pub(super) fn dispatches(&self) -> impl Iterator<Item = SlabDispatch<'_>> {
        self.parts.iter().flat_map(|part| {
            part.shards.chunks(SHARDS_PER_DISPATCH).enumerate().map(|(group, shards)| {
                let first_slot = group * SHARDS_PER_DISPATCH * part.slots_per_shard;
                let num_slots = (shards.len() * part.slots_per_shard).min(self.shape.num_slots - first_slot);
                SlabDispatch { part, first_slot, num_slots, shards }
            })
        })
    }
}

impl SlabDispatch<'_> {
    pub fn variant(&self, base: Variant, shape: &SlabShape) -> Variant {
        base.u32("SLOTS_PER_SHARD", self.part.slots_per_shard)
            .u32("SLAB_WORDS", self.part.num_rows * shape.row_bytes() / 16)
            .flag_if(self.shards.len() > 1, "SHARD_1")
            .flag_if(self.shards.len() > 2, "SHARD_2")
            .flag_if(self.shards.len() > 3, "SHARD_3")
    }

    pub fn buffers(&self) -> impl Iterator<Item = (&'static str, &Buffer)> {
        ["slab_0", "slab_1", "slab_2", "slab_3"].into_iter().zip(self.shards)
    }
}
