//! Blocks of 32 values of 4 bits times one f16: `w = d (q - 8)`, as `Q4_0` of ggml. The scales of two blocks share a `u32`.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat, extreme, nibbles, push_nibbles, read_f16, scaled};

pub static Q4_0: QuantFormat = QuantFormat {
    name: "q4_0",
    flag: "WEIGHT_Q4_0",
    value_bits: 4,
    high_bits: 0,
    scale_bits: 16,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: true,
    keeps_head: false,
    // A value as large as the largest, of the other sign, is one step out of reach.
    max_error: MaxError::OfBlock(0.126),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    for block in row.chunks_exact(BLOCK) {
        let d = half::f16::from_f32(extreme(block) / -8.0);
        let steps = |&value: &f32| (scaled(value, d.to_f32()).round() + 8.0).clamp(0.0, 15.0) as u8;
        push_nibbles(&block.iter().map(steps).collect::<Vec<_>>(), &mut planes.values);
        planes.scales.extend(d.to_le_bytes());
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (index, block) in row.values.chunks_exact(BLOCK / 2).enumerate() {
        let d = read_f16(row.scales, index);
        out.extend(nibbles(block).map(|q| d * (f32::from(q) - 8.0)));
    }
}
