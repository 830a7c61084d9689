//! Groups of 16 signed bytes times one f32: `w = s q`. It holds exactly what has at most eight bits and a scale for 16 values or more, whatever the scale:
//! formats of GGUF that have no format of their own here, and parts of one matrix in several of them.

use super::{MaxError, PackedRow, Planes, QuantFormat, extreme, read_f32, scaled, short_above};

pub static I8S: QuantFormat = QuantFormat {
    name: "i8s",
    flag: "WEIGHT_I8S",
    value_bits: 8,
    high_bits: 0,
    scale_bits: 32,
    block_len: GROUP,
    group_len: GROUP,
    has_offset: false,
    keeps_head: true,
    max_error: MaxError::OfBlock(4.0e-3),
    pack_row,
    unpack_row,
};

/// Values that share a scale.
pub(super) const GROUP: usize = 16;

fn pack_row(row: &[f32], planes: &mut Planes) {
    for group in row.chunks_exact(GROUP) {
        let scale = short_above(extreme(group).abs() / 127.0);
        planes.values.extend(group.iter().map(|&value| scaled(value, scale).round() as i8 as u8));
        planes.scales.extend(scale.to_le_bytes());
    }
}

fn unpack_row(row: &PackedRow, out: &mut Vec<f32>) {
    for (index, group) in row.values.chunks_exact(GROUP).enumerate() {
        let scale = read_f32(row.scales, index);
        out.extend(group.iter().map(|&value| scale * f32::from(value as i8)));
    }
}
