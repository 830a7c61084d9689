//! Groups of 16 signed bytes, an f32 step and an f32 minimum: `w = s q + m`, where m is the least of a group only if no q is negative. It holds exactly
//! what [`I8S`](super::I8S) does and what has a minimum besides.

use super::i8s::GROUP;
use super::{MaxError, PackedRow, Planes, QuantFormat, read_f32, scaled, short_above};

pub static I8M: QuantFormat = QuantFormat {
    name: "i8m",
    flag: "WEIGHT_I8M",
    value_bits: 8,
    high_bits: 0,
    scale_bits: 64,
    block_len: GROUP,
    group_len: GROUP,
    has_offset: true,
    keeps_head: true,
    max_error: MaxError::OfBlock(4.0e-3),
    pack_row,
    unpack_row,
};

fn pack_row(row: &[f32], planes: &mut Planes) {
    for group in row.chunks_exact(GROUP) {
        let (min, max) = group.iter().fold((f32::MAX, f32::MIN), |(min, max), &value| (min.min(value), max.max(value)));
        let scale = short_above((max - min) / 255.0);
        let minimum = min + 128.0 * scale;
        planes.values.extend(group.iter().map(|&value| scaled(value - minimum, scale).round() as i8 as u8));
        planes.scales.extend(scale.to_le_bytes());
        planes.scales.extend(minimum.to_le_bytes());
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (index, group) in row.values.chunks_exact(GROUP).enumerate() {
        let (scale, minimum) = (read_f32(row.scales, 2 * index), read_f32(row.scales, 2 * index + 1));
        out.extend(group.iter().map(|&value| scale * f32::from(value as i8) + minimum));
    }
}
