//! Blocks of 32 values of 4 bits, an f16 step and an f16 minimum: `w = d q + m`, as `Q4_1` of ggml. Both share a `u32`.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat, nibbles, push_nibbles, read_f16, scaled};

pub static Q4_1: QuantFormat = QuantFormat {
    name: "q4_1",
    flag: "WEIGHT_Q4_1",
    value_bits: 4,
    high_bits: 0,
    scale_bits: 32,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: true,
    keeps_head: false,
    max_error: MaxError::OfBlock(0.068),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    for block in row.chunks_exact(BLOCK) {
        let (min, max) = block.iter().fold((f32::MAX, f32::MIN), |(min, max), &value| (min.min(value), max.max(value)));
        let m = half::f16::from_f32(min);
        let d = half::f16::from_f32((max - min) / 15.0);
        let steps = |&value: &f32| scaled(value - m.to_f32(), d.to_f32()).round().clamp(0.0, 15.0) as u8;
        push_nibbles(&block.iter().map(steps).collect::<Vec<_>>(), &mut planes.values);
        planes.scales.extend(d.to_le_bytes());
        planes.scales.extend(m.to_le_bytes());
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (index, block) in row.values.chunks_exact(BLOCK / 2).enumerate() {
        let (d, m) = (read_f16(row.scales, 2 * index), read_f16(row.scales, 2 * index + 1));
        out.extend(nibbles(block).map(|q| d * f32::from(q) + m));
    }
}
