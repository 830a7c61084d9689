//! From dense values to device buffers and back.

use super::compare::{Expected, Rule};
use crate::gpu::{Buffer, Device, Recording, Shard, Sharded};
use crate::quant::{CacheFormat, Quant, padded};

/// What lies where a kernel has no business. A NaN of our own, so that a stray read shows as well.
const CANARY: u32 = 0x7fc0_cafe;
/// Canaries after the end of every output.
const SLACK: usize = 16;

/// A case, ready to run.
pub(super) struct Prepared {
    pub recording: Recording,
    pub outputs: Vec<Output>,
}

/// One buffer that the kernel may write.
pub(super) struct Output {
    pub name: &'static str,
    pub buffer: Buffer,
    pub expected: Expected,
}

/// The layout of a matrix in device memory: rows of `cols` values, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    cols: usize,
    stride: usize,
    /// What the padding holds before and after.
    padding: [u32; 2],
}

impl Layout {
    /// Rows without padding.
    pub fn dense(cols: usize) -> Self {
        Layout { cols, stride: cols, padding: [CANARY; 2] }
    }

    /// Padded rows of a kernel that leaves the padding alone.
    pub fn padded(cols: usize) -> Self {
        Layout { stride: padded(cols), ..Self::dense(cols) }
    }

    /// Padded rows of a kernel that writes zeros to the padding.
    pub fn clearing(cols: usize) -> Self {
        Layout { padding: [CANARY, 0], ..Self::padded(cols) }
    }

    /// Padded rows of a kernel that turns zeros in the padding into zeros.
    pub fn clear(cols: usize) -> Self {
        Layout { padding: [0, 0], ..Self::padded(cols) }
    }
}

/// `values [rows, cols]` with `padding` after every row, up to `stride`.
fn spread<T: Copy>(values: &[T], cols: usize, stride: usize, padding: T) -> Vec<T> {
    let mut spread = Vec::with_capacity(values.len() / cols * stride);
    for row in values.chunks_exact(cols) {
        spread.extend_from_slice(row);
        spread.resize(spread.len() + stride - cols, padding);
    }
    spread
}

/// Makes the buffers of a case.
#[derive(Clone, Copy)]
pub(super) struct Stage<'a> {
    pub device: &'a Device,
}

impl Stage<'_> {
    /// An input of 32-bit values.
    pub fn input<T: bytemuck::NoUninit>(&self, name: &str, values: &[T]) -> Buffer {
        let bytes = bytemuck::cast_slice(values);
        let buffer = self.device.storage(name, bytes.len() as u64);
        self.device.write(&buffer, 0, bytes);
        buffer
    }

    /// An input of padded rows; the padding is zero.
    pub fn padded_input(&self, name: &str, values: &[f32], cols: usize) -> Buffer {
        self.input(name, &spread(values, cols, padded(cols), 0.0))
    }

    /// Weights in shards of at most `rows_per_shard`, and their values as stored.
    pub fn weights(&self, values: &[f32], cols: usize, quant: Quant, rows_per_shard: usize) -> (Sharded, Vec<f32>) {
        let bytes = quant.pack(values, cols);
        let row_bytes = quant.row_bytes(cols);
        let mut shards = Vec::new();
        for (index, piece) in bytes.chunks(rows_per_shard.saturating_mul(row_bytes)).enumerate() {
            let (first_row, num_rows) = (index.saturating_mul(rows_per_shard), piece.len() / row_bytes);
            shards.push(Shard { buffer: self.input("weight", piece), first_row, num_rows });
        }
        (Sharded { shards }, quant.unpack(&bytes, cols))
    }

    /// An output that holds canaries before, and `values [rows, cols]` after; the padding keeps its canaries.
    pub fn output(&self, name: &'static str, values: &[f32], layout: Layout) -> Output {
        let before = vec![f32::from_bits(CANARY); values.len()];
        self.changed(name, &before, values, layout)
    }

    /// An output that holds `before` before, and `values [rows, cols]` after.
    pub fn changed(&self, name: &'static str, before: &[f32], values: &[f32], layout: Layout) -> Output {
        let Layout { cols, stride, padding } = layout;
        let before: Vec<u32> = before.iter().map(|value| value.to_bits()).collect();
        let mut expected = Expected::default();
        for row in values.chunks_exact(cols) {
            for value in row {
                expected.push(value.to_bits(), Rule::Close);
            }
            for _ in cols..stride {
                expected.push(padding[1], Rule::Exact);
            }
        }
        self.exactly(name, spread(&before, cols, stride, padding[0]), expected)
    }

    /// An output of which the twin wrote some elements of `before`: those may differ a little, the others not at all.
    pub fn partly(&self, name: &'static str, before: &[f32], after: &[f32]) -> Output {
        let mut expected = Expected::default();
        for (before, after) in before.iter().zip(after) {
            let touched = before.to_bits() != after.to_bits();
            expected.push(after.to_bits(), if touched { Rule::Close } else { Rule::Exact });
        }
        self.exactly(name, before.iter().map(|value| value.to_bits()).collect(), expected)
    }

    /// As [`partly`](Self::partly), for a KV cache in its format. Both hold what a cache keeps.
    pub fn cache(&self, name: &'static str, before: &[f32], after: &[f32], format: CacheFormat) -> Output {
        let [before, after] = [before, after].map(|values| format.pack(values));
        let close = match format {
            CacheFormat::F32 => Rule::Close,
            CacheFormat::F16 => Rule::Halves,
        };
        let mut expected = Expected::default();
        for (before, after) in before.iter().zip(&after) {
            expected.push(*after, if before == after { Rule::Exact } else { close });
        }
        self.exactly(name, before, expected)
    }

    /// An output of integers that holds canaries before.
    pub fn integers(&self, name: &'static str, values: &[u32]) -> Output {
        self.changed_integers(name, &vec![CANARY; values.len()], values)
    }

    /// An output of integers that holds `before` before.
    pub fn changed_integers(&self, name: &'static str, before: &[u32], values: &[u32]) -> Output {
        let mut expected = Expected::default();
        for value in values {
            expected.push(*value, Rule::Exact);
        }
        self.exactly(name, before.to_vec(), expected)
    }

    /// An output that holds `before` before, compared by the rules of `expected`, and canaries that must survive.
    pub fn exactly(&self, name: &'static str, mut before: Vec<u32>, mut expected: Expected) -> Output {
        assert_eq!(before.len(), expected.len(), "{name}: a case describes its output twice");
        before.resize(before.len() + SLACK, CANARY);
        (0..SLACK).for_each(|_| expected.push(CANARY, Rule::Exact));
        Output { name, buffer: self.input(name, &before), expected }
    }
}

/// Canaries for the caches that [`Stage::partly`] compares.
pub(super) fn canaries(len: usize) -> Vec<f32> {
    vec![f32::from_bits(CANARY); len]
}
