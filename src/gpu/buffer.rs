//! Device memory.

use super::device::Device;
use crate::error::Result;
use crate::platform;
use std::ops::Range;
use std::sync::Arc;

/// A piece of device memory that kernels bind whole: an allocation, or a view of a part of one.
#[derive(Debug, Clone)]
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
    /// In the allocation, in bytes.
    pub(super) offset: u64,
    size: u64,
    label: Arc<str>,
}

/// Views begin at multiples of this many bytes: what every device can bind.
pub const VIEW_ALIGN: u64 = 256;

/// Uploads go in pieces of this size, so that no staging copy gets large.
const UPLOAD_PIECE_BYTES: usize = 16 << 20;
/// Staging copies that may wait for the device at the same time; more where waiting takes a turn of the page's event loop.
const MAX_STAGED_BYTES: u64 = if platform::CAN_BLOCK { 2 << 20 } else { 16 << 20 };

impl Buffer {
    /// What it was allocated as.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// `bytes` of it from `offset_bytes` on, under a label of their own. What is written through one is read through the other.
    ///
    /// # Panics
    /// If that is beyond its end, or begins at no multiple of [`VIEW_ALIGN`].
    pub fn view(&self, label: &str, offset_bytes: u64, bytes: u64) -> Buffer {
        let size = bytes.max(1).next_multiple_of(16);
        assert!(offset_bytes.is_multiple_of(VIEW_ALIGN), "{label}: a view cannot begin at byte {offset_bytes}");
        assert!(offset_bytes + size <= self.size, "{label}: bytes {offset_bytes} to {} of {}", offset_bytes + size, self.size);
        Buffer { raw: self.raw.clone(), offset: self.offset + offset_bytes, size, label: label.into() }
    }

    pub(super) fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.raw,
            offset: self.offset,
            size: std::num::NonZeroU64::new(self.size),
        })
    }
}

/// A matrix whose rows are dealt out to buffers, none larger than one binding.
#[derive(Debug)]
pub struct Sharded {
    pub shards: Vec<Shard>,
}

/// Whole rows of a [`Sharded`] matrix.
#[derive(Debug)]
pub struct Shard {
    pub buffer: Buffer,
    pub first_row: usize,
    pub num_rows: usize,
}

impl Device {
    /// Memory for kernels, filled with zeros. Sizes are rounded up to 16 bytes, and never 0.
    ///
    /// An error reaches the open error scope: call inside [`Device::catch`].
    pub fn storage(&self, label: &str, bytes: u64) -> Buffer {
        self.buffer(label, bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC)
    }

    /// Constants for kernels. As [`storage`](Self::storage).
    pub fn uniform(&self, label: &str, content: &[u8]) -> Buffer {
        let buffer = self.buffer(label, content.len() as u64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST);
        self.write(&buffer, 0, content);
        buffer
    }

    pub(super) fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> Buffer {
        let size = bytes.max(1).next_multiple_of(16);
        self.count_allocation(size);
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        Buffer { raw: self.raw.create_buffer(&descriptor), offset: 0, size, label: label.into() }
    }

    /// Copies `content` to `offset_bytes` (a multiple of 4) of the buffer, in pieces. The tail is padded with zeros to 4 bytes.
    pub fn write(&self, buffer: &Buffer, offset_bytes: u64, content: &[u8]) {
        self.count_staged(content.len() as u64);
        for (index, piece) in content.chunks(UPLOAD_PIECE_BYTES).enumerate() {
            let offset = buffer.offset + offset_bytes + (index * UPLOAD_PIECE_BYTES) as u64;
            let whole = piece.len() / 4 * 4;
            if whole > 0 {
                self.queue.write_buffer(&buffer.raw, offset, &piece[..whole]);
            }
            if whole < piece.len() {
                let mut tail = [0; 4];
                tail[..piece.len() - whole].copy_from_slice(&piece[whole..]);
                self.queue.write_buffer(&buffer.raw, offset + whole as u64, &tail);
            }
            // Hands the piece to the device now: writes would otherwise pile up in staging memory.
            if content.len() > UPLOAD_PIECE_BYTES {
                self.queue.submit([]);
            }
        }
    }

    /// Waits until the device has taken what was written, if so much waits that the staging copies would count. Between the pieces of a large
    /// upload.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub async fn settle_uploads(&self, attempted: &str) -> Result<()> {
        if self.staged_bytes() < MAX_STAGED_BYTES {
            return Ok(());
        }
        self.queue.submit([]);
        self.finish(attempted).await?;
        self.forget_staged();
        Ok(())
    }

    /// Empty shards for `rows` of a matrix, of `row_bytes` each, cut at multiples of `unit_rows`.
    ///
    /// # Errors
    /// [`Error::DeviceLimit`](crate::Error::DeviceLimit) if not even `unit_rows` rows fit in one binding.
    pub fn sharded(&self, label: &str, rows: Range<usize>, row_bytes: usize, unit_rows: usize) -> Result<Sharded> {
        let per_shard = self.rows_per_shard(label, rows.len(), row_bytes, unit_rows)?;
        let end_row = rows.end;
        let shards = rows
            .step_by(per_shard)
            .map(|first_row| {
                let num_rows = per_shard.min(end_row - first_row);
                Shard { buffer: self.storage(label, (num_rows * row_bytes) as u64), first_row, num_rows }
            })
            .collect();
        Ok(Sharded { shards })
    }

    /// How many rows one buffer takes: a multiple of `unit_rows`, or all of them.
    ///
    /// # Errors
    /// As [`sharded`](Self::sharded).
    pub fn rows_per_shard(&self, label: &str, num_rows: usize, row_bytes: usize, unit_rows: usize) -> Result<usize> {
        self.caps().rows_per_shard(num_rows, row_bytes, unit_rows).ok_or_else(|| crate::Error::DeviceLimit {
            what: label.to_owned(),
            device: self.name().to_owned(),
            expected: format!("bindings of {}", crate::error::human_bytes((unit_rows * row_bytes) as u64)),
            found: crate::error::human_bytes(self.caps().max_shard_bytes()),
        })
    }
}

impl Sharded {
    /// Those of the matrix that are here.
    pub fn rows(&self) -> Range<usize> {
        let first = self.shards.first().map_or(0, |shard| shard.first_row);
        first..self.shards.last().map_or(first, |shard| shard.first_row + shard.num_rows)
    }

    /// Writes packed rows from `first_row` on.
    pub fn write_rows(&self, device: &Device, first_row: usize, row_bytes: usize, content: &[u8]) {
        let end_row = first_row + content.len() / row_bytes;
        for shard in &self.shards {
            let start = first_row.max(shard.first_row);
            let end = end_row.min(shard.first_row + shard.num_rows);
            if start < end {
                let offset = (start - shard.first_row) * row_bytes;
                let piece = &content[(start - first_row) * row_bytes..(end - first_row) * row_bytes];
                device.write(&shard.buffer, offset as u64, piece);
            }
        }
    }
}
