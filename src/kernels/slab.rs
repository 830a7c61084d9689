//! Weights of the experts of one layer, addressed by cache slot.

use super::to_u32;
use crate::error::{Error, Result, human_bytes};
use crate::gpu::{Buffer, Caps, Device, Variant};
use crate::quant::Quant;
use std::mem::offset_of;

/// Shard buffers that one dispatch can bind, as far as the other buffers of the kernels leave room.
pub const SHARDS_PER_DISPATCH: usize = 4;
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
    /// One f32 per row follows the rows of a slot.
    pub bias: bool,
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
    pub cut: SlabCut,
    pub shards: Vec<Buffer>,
}

/// Which rows lie together, and of how many slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlabCut {
    pub first_row: usize,
    pub num_rows: usize,
    pub slots_per_shard: usize,
}

/// What one dispatch serves: some slots of one part.
pub(super) struct SlabDispatch<'a> {
    pub cut: SlabCut,
    pub first_slot: usize,
    pub num_slots: usize,
    pub shards: &'a [Buffer],
}

impl SlabShape {
    pub fn row_bytes(&self) -> usize {
        self.quant.row_bytes(self.cols)
    }

    /// Bytes of `num_rows` rows of one slot, whole 16-byte words.
    pub fn slot_bytes(&self, num_rows: usize) -> usize {
        num_rows * self.row_bytes() + if self.bias { num_rows.next_multiple_of(UNIT_ROWS) * 4 } else { 0 }
    }

    /// How the slabs are cut so that every shard fits in a binding. `None` if not even `UNIT_ROWS` rows fit.
    pub fn cuts(&self, caps: &Caps) -> Option<Vec<SlabCut>> {
        // A quad's rows and biases stay together.
        let rows_per_part = caps.rows_per_shard(self.rows, self.slot_bytes(UNIT_ROWS) / UNIT_ROWS, UNIT_ROWS)?;
        (0..self.rows)
            .step_by(rows_per_part)
            .map(|first_row| {
                let num_rows = rows_per_part.min(self.rows - first_row);
                let slots_per_shard = caps.rows_per_shard(self.num_slots, self.slot_bytes(num_rows), 1)?;
                Some(SlabCut { first_row, num_rows, slots_per_shard })
            })
            .collect()
    }

    /// The variants of a kernel over these slabs, made from what its `choose` returns. `None` as for [`cuts`](Self::cuts).
    pub fn variants(&self, caps: &Caps, base: &Variant, max_shards: usize) -> Option<Vec<Variant>> {
        let of_cut = |cut: SlabCut| {
            let shards = vec![(); self.num_slots.div_ceil(cut.slots_per_shard)];
            let groups: Vec<usize> = shards.chunks(max_shards).map(<[()]>::len).collect();
            groups.into_iter().map(move |num_shards| cut.variant(base.clone(), self, num_shards))
        };
        Some(self.cuts(caps)?.into_iter().flat_map(of_cut).collect())
    }
}

impl SlabCut {
    fn variant(&self, base: Variant, shape: &SlabShape, num_shards: usize) -> Variant {
        base.u32("SLOTS_PER_SHARD", self.slots_per_shard)
            .u32("SLAB_WORDS", shape.slot_bytes(self.num_rows) / 16)
            .u32("BIAS_WORD", self.num_rows * shape.row_bytes() / 16)
            .flag_if(shape.bias, "BIAS")
            .flag_if(num_shards > 1, "SHARD_1")
            .flag_if(num_shards > 2, "SHARD_2")
            .flag_if(num_shards > 3, "SHARD_3")
    }
}

impl Slabs {
    /// Zeroed memory. Call inside [`Device::catch`].
    ///
    /// # Errors
    /// [`Error::DeviceLimit`] if not even four rows fit in one binding.
    pub fn new(device: &Device, label: &str, shape: SlabShape) -> Result<Self> {
        Self::within(device, device.caps(), label, shape)
    }

    /// As [`new`](Self::new), cut as if the device had the limits of `caps`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn within(device: &Device, caps: &Caps, label: &str, shape: SlabShape) -> Result<Self> {
        let cuts = shape.cuts(caps).ok_or_else(|| Error::DeviceLimit {
            what: label.to_owned(),
            device: device.name().to_owned(),
            expected: format!("bindings of {}", human_bytes(shape.slot_bytes(UNIT_ROWS) as u64)),
            found: human_bytes(caps.max_shard_bytes()),
        })?;
        let of_cut = |cut: SlabCut| {
            let slots = (0..shape.num_slots).step_by(cut.slots_per_shard);
            let slots = slots.map(|slot| cut.slots_per_shard.min(shape.num_slots - slot));
            let shards = slots.map(|slots| device.storage(label, (slots * shape.slot_bytes(cut.num_rows)) as u64)).collect();
            SlabPart { cut, shards }
        };
        Ok(Slabs { shape, parts: cuts.into_iter().map(of_cut).collect() })
    }

    /// Writes packed rows of one slot, from `first_row` on.
    pub fn write_rows(&self, device: &Device, slot: usize, first_row: usize, content: &[u8]) {
        let row_bytes = self.shape.row_bytes();
        let end_row = first_row + content.len() / row_bytes;
        for SlabPart { cut, shards } in &self.parts {
            let start = first_row.max(cut.first_row);
            let end = end_row.min(cut.first_row + cut.num_rows);
            if start < end {
                let slot_start = slot % cut.slots_per_shard * self.shape.slot_bytes(cut.num_rows);
                let offset = slot_start + (start - cut.first_row) * row_bytes;
                let piece = &content[(start - first_row) * row_bytes..(end - first_row) * row_bytes];
                device.write(&shards[slot / cut.slots_per_shard], offset as u64, piece);
            }
        }
    }

    /// Writes the biases `[rows]` of one slot.
    pub fn write_bias(&self, device: &Device, slot: usize, bias: &[f32]) {
        for SlabPart { cut, shards } in &self.parts {
            let slot_start = slot % cut.slots_per_shard * self.shape.slot_bytes(cut.num_rows);
            let offset = slot_start + cut.num_rows * self.shape.row_bytes();
            let piece = &bias[cut.first_row..cut.first_row + cut.num_rows];
            device.write(&shards[slot / cut.slots_per_shard], offset as u64, bytemuck::cast_slice(piece));
        }
    }

    /// The dispatches that together serve every slot and row, each with at most `max_shards` buffers.
    pub(super) fn dispatches(&self, max_shards: usize) -> impl Iterator<Item = SlabDispatch<'_>> {
        self.parts.iter().flat_map(move |SlabPart { cut, shards }| {
            shards.chunks(max_shards).enumerate().map(move |(group, shards)| {
                let first_slot = group * max_shards * cut.slots_per_shard;
                let num_slots = (shards.len() * cut.slots_per_shard).min(self.shape.num_slots - first_slot);
                SlabDispatch { cut: *cut, first_slot, num_slots, shards }
            })
        })
    }
}

/// `struct Params` of the kernels that read slabs: what one dispatch serves.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct SlabParams {
    first_slot: u32,
    num_slots: u32,
    first_row: u32,
    num_rows: u32,
}

/// Its fields, for the descriptors of those kernels.
pub(super) const SLAB_PARAMS: &[(&str, usize)] = &[
    ("first_slot", offset_of!(SlabParams, first_slot)),
    ("num_slots", offset_of!(SlabParams, num_slots)),
    ("first_row", offset_of!(SlabParams, first_row)),
    ("num_rows", offset_of!(SlabParams, num_rows)),
];

impl SlabDispatch<'_> {
    pub fn params(&self) -> SlabParams {
        SlabParams {
            first_slot: to_u32(self.first_slot),
            num_slots: to_u32(self.num_slots),
            first_row: to_u32(self.cut.first_row),
            num_rows: to_u32(self.cut.num_rows),
        }
    }

    pub fn variant(&self, base: Variant, shape: &SlabShape) -> Variant {
        self.cut.variant(base, shape, self.shards.len())
    }

    pub fn buffers(&self) -> impl Iterator<Item = (&'static str, &Buffer)> {
        ["slab_0", "slab_1", "slab_2", "slab_3"].into_iter().zip(self.shards)
    }
}
