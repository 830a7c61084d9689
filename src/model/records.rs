//! The weights of one expert of one layer, as the device keeps them.

use super::paged::is_paged;
use super::upload::piece_rows;
use crate::blocks::DeviceWeights;
use crate::checkpoint::WeightStore;
use crate::error::Result;
use crate::gpu::Device;
use crate::spec::{Kind, ModelSpec, Role, Weight, WeightKey};

/// Where records come from and where they go.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub store: &'a WeightStore,
    pub spec: &'a ModelSpec,
    pub weights: &'a DeviceWeights,
}

/// One expert.
pub(super) struct Record {
    parts: Vec<(Role, Content)>,
}

enum Content {
    /// Packed rows.
    Rows(Vec<u8>),
    /// Of the slabs of this role.
    Bias(Role, Vec<f32>),
}

impl Records<'_> {
    /// # Errors
    /// What reading weights can fail with.
    pub async fn read(&self, layer: usize, expert: usize) -> Result<Record> {
        let mut parts = Vec::new();
        for Weight { role, .. } in self.spec.layer_weights(layer) {
            let key = role.of_expert(layer, expert);
            if is_paged(key) {
                parts.push((role, self.content(key).await?));
            }
        }
        Ok(Record { parts })
    }

    async fn content(&self, key: WeightKey) -> Result<Content> {
        if let Kind::SlabBias(of) = key.role.facts().kind {
            return Ok(Content::Bias(of, self.store.read(key, 0..1).await?.values));
        }
        let quant = self.weights.slabs(key.layer, key.role).shape.quant;
        let (rows, cols) = key.shape(self.spec);
        let mut packed = Vec::with_capacity(rows * quant.row_bytes(cols));
        for first_row in (0..rows).step_by(piece_rows(cols)) {
            let end_row = rows.min(first_row + piece_rows(cols));
            packed.extend_from_slice(&self.store.packed(key, first_row..end_row, quant).await?);
        }
        Ok(Content::Rows(packed))
    }

    /// Into a slot. Call inside [`Device::catch`].
    pub fn write(&self, device: &Device, (layer, slot): (usize, usize), record: &Record) {
        for (role, content) in &record.parts {
            match content {
                Content::Rows(packed) => self.weights.slabs(layer, *role).write_rows(device, slot, 0, packed),
                Content::Bias(of, bias) => self.weights.slabs(layer, *of).write_bias(device, slot, bias),
            }
        }
    }
}
