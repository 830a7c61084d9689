//! Blocks of 32 signed bytes times one f16: `w = d q`, as `Q8_0` of ggml. The scales of two blocks share a `u32`.

use super::{BLOCK, MaxError, PackedRow, Planes, QuantFormat, extreme, read_f16, scaled};

pub static Q8_0: QuantFormat = QuantFormat {
    name: "q8_0",
    flag: "WEIGHT_Q8_0",
    value_bits: 8,
    high_bits: 0,
    scale_bits: 16,
    block_len: BLOCK,
    group_len: BLOCK,
    has_offset: false,
    keeps_head: true,
    max_error: MaxError::OfBlock(4.5e-3),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    for block in row.chunks_exact(BLOCK) {
        let d = half::f16::from_f32(extreme(block).abs() / 127.0);
        // Rounded with the scale as stored.
        planes.values.extend(block.iter().map(|&value| scaled(value, d.to_f32()).round().clamp(-127.0, 127.0) as i8 as u8));
        planes.scales.extend(d.to_le_bytes());
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (index, block) in row.values.chunks_exact(BLOCK).enumerate() {
        let d = read_f16(row.scales, index);
        out.extend(block.iter().map(|&value| d * f32::from(value as i8)));
    }
}
