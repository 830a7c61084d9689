//! MXFP4: blocks of 32 four-bit floats with one power of two each. Source: OCP Microscaling Formats v1.0, as stored by gpt-oss.

/// Values of one block.
pub(super) const BLOCK: usize = 32;
/// Bytes of the codes of one block.
pub(super) const BLOCK_BYTES: usize = BLOCK / 2;

/// By code; the sign is the highest bit.
const VALUES: [f64; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Widens `blocks [n, 16]` with `scales [n]`: value `2 i` is the lower half of byte `i`.
pub(super) fn widen_into(blocks: &[u8], scales: &[u8], out: &mut Vec<f32>) {
    for (block, scale) in blocks.as_chunks::<BLOCK_BYTES>().0.iter().zip(scales) {
        let factor = 2f64.powi(i32::from(*scale) - 127);
        let values = VALUES.map(|value| (value * factor) as f32);
        out.extend(block.iter().flat_map(|byte| [values[usize::from(byte & 15)], values[usize::from(byte >> 4)]]));
    }
}
