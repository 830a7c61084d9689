//! The weights of one expert of one layer, as the device keeps them.

use super::paged::is_paged;
use super::upload::piece_rows;
use crate::blocks::DeviceWeights;
use crate::checkpoint::WeightStore;
use crate::error::Result;
use crate::gpu::Device;
use crate::platform::together;
use crate::spec::{Kind, ModelSpec, Role, Weight, WeightKey};

/// Where records come from and where they go.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    pub store: &'a WeightStore,
    pub spec: &'a ModelSpec,
    pub weights: &'a DeviceWeights,
}

/// One expert.
#[derive(Debug)]
pub(super) struct Record {
    parts: Vec<(Role, Content)>,
}

#[derive(Debug)]
enum Content {
    /// Packed rows.
    Rows(Vec<u8>),
    /// Of the slabs of this role.
    Bias(Role, Vec<f32>),
}

impl Records<'_> {
    /// The records of several experts of a layer, read together.
    ///
    /// # Errors
    /// What reading weights can fail with.
    pub async fn read_all(&self, layer: usize, experts: &[usize]) -> Result<Vec<Record>> {
        let reads = experts.iter().map(|&expert| self.read(layer, expert)).collect();
        together(reads).await.into_iter().collect()
    }

    /// Whether experts of a layer are stored as a device keeps them, so that loading one is no more than copying.
    pub fn are_stored(&self, layer: usize) -> bool {
        let slabs = self.keys(layer, 0).into_iter().filter(|key| !matches!(key.role.facts().kind, Kind::SlabBias(_)));
        slabs.into_iter().all(|key| self.store.stores(key, self.weights.slabs(layer, key.role).shape.quant))
    }

    /// The weights of one expert, in the order in which they are stored.
    fn keys(&self, layer: usize, expert: usize) -> Vec<WeightKey> {
        let keys = self.spec.layer_weights(layer).into_iter().map(|Weight { role, .. }| role.of_expert(layer, expert));
        keys.filter(|key| is_paged(*key)).collect()
    }

    async fn read(&self, layer: usize, expert: usize) -> Result<Record> {
        let keys = self.keys(layer, expert);
        let mut parts = Vec::with_capacity(keys.len());
        if !self.are_stored(layer) {
            for key in keys {
                parts.push((key.role, self.content(key).await?));
            }
            return Ok(Record { parts });
        }
        for (key, bytes) in keys.iter().zip(self.store.read_stored(&keys).await?) {
            let content = match key.role.facts().kind {
                Kind::SlabBias(of) => {
                    let quant = self.store.stored_quant(*key);
                    Content::Bias(of, quant.unpack(&bytes, key.shape(self.spec).1))
                }
                _ => Content::Rows(bytes),
            };
            parts.push((key.role, content));
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
