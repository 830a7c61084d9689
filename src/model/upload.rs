//! Allocates the weights of a model on a device, and fills them from their store.

use super::formats::Formats;
use super::paged::{Paged, is_paged};
use crate::blocks::{DeviceWeight, DeviceWeights, Matrix};
use crate::checkpoint::{RowRun, WeightStore};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device};
use crate::kernels::{SlabShape, Slabs};
use crate::platform::Listener;
use crate::quant::padded;
use crate::spec::{BlockSpec, Kind, LayerSpec, ModelSpec, ROLES, Role, Weight, WeightKey};

/// Weights are read, packed and uploaded in pieces of about this many values.
const PIECE_VALUES: usize = 1 << 20;

/// Rows of `cols` columns that are read and packed at a time.
pub(super) fn piece_rows(cols: usize) -> usize {
    (PIECE_VALUES / cols).max(1)
}

/// Every weight of a model with its key, that of expert 0 where every expert has one, and whether slabs of it hold biases too.
fn placed(spec: &ModelSpec) -> Vec<(WeightKey, Weight, bool)> {
    let [first, last] = spec.model_weights();
    let of_model = |weights: Vec<Weight>| weights.into_iter().map(|weight| (weight.role.of_model(), weight, false));
    let of_layer = |layer: usize| {
        let weights = spec.layer_weights(layer);
        let has_bias = |role: Role| weights.iter().any(|weight| weight.role.facts().kind == Kind::SlabBias(role));
        let keyed = weights.iter().map(|weight| (weight.role.of_layer(layer), *weight, has_bias(weight.role)));
        keyed.collect::<Vec<_>>()
    };
    of_model(first).chain((0..spec.layers.len()).flat_map(of_layer)).chain(of_model(last)).collect()
}

/// Zeroed memory for every weight.
///
/// # Errors
/// What allocating on the device can fail with.
pub(super) async fn allocate(
    device: &Device,
    spec: &ModelSpec,
    formats: &Formats,
    paged: Option<&Paged>,
) -> Result<DeviceWeights> {
    let mut weights = DeviceWeights { is_paged: paged.is_some(), ..DeviceWeights::default() };
    let before = device.allocated_bytes();
    for (key, weight, has_bias) in placed(spec) {
        device.check_weights(device.allocated_bytes() - before)?;
        let (label, quant) = (key.packed_name(), formats.of(key));
        let Weight { rows, cols, unit_rows, .. } = weight;
        let kind = key.role.facts().kind;
        if matches!(kind, Kind::SlabBias(_)) {
            continue;
        }
        let allocate = || match kind {
            Kind::Vector => Ok(DeviceWeight::Vector(device.storage(&label, (rows * padded(cols) * 4) as u64))),
            Kind::Matrix => {
                let matrix = |RowRun { rows, quant }| {
                    Ok(Matrix { shards: device.sharded(&label, rows, quant.row_bytes(cols), unit_rows)?, quant })
                };
                Ok(DeviceWeight::Matrices(formats.runs(key, rows).into_iter().map(matrix).collect::<Result<_>>()?))
            }
            Kind::Slab | Kind::SlabBias(_) => {
                let num_slots = paged.and_then(|paged| paged.slots_of(key)).unwrap_or(weight.copies());
                let shape = SlabShape { num_slots, rows, cols, quant, bias: has_bias };
                Ok(DeviceWeight::Slabs(Slabs::new(device, &label, shape)?))
            }
        };
        weights.by_key.insert(key, device.catch(&label, allocate).await?);
    }
    device.check_weights(device.allocated_bytes() - before)?;
    for (key, num_experts) in routers(spec) {
        let slots: Vec<u32> = match paged.and_then(|paged| paged.table_of(key)) {
            Some(table) => table.to_vec(),
            None => (0..num_experts as u32).collect(),
        };
        let table = device.catch("slot_table", || Ok(slot_table(device, &slots))).await?;
        weights.slot_tables.insert(key, table);
    }
    Ok(weights)
}

/// Every router, and how many experts it chooses from.
fn routers(spec: &ModelSpec) -> Vec<(WeightKey, usize)> {
    let of_layer = |(layer, spec): (usize, &LayerSpec)| {
        let routers = spec.blocks.iter().flat_map(BlockSpec::routers);
        routers.map(|(role, router)| (role.of_layer(layer), router.num_experts)).collect::<Vec<_>>()
    };
    spec.layers.iter().enumerate().flat_map(of_layer).collect()
}

/// The slot of every expert. Where everything is resident, that is its id, and experts without weights have a slot that no slab has.
fn slot_table(device: &Device, slots: &[u32]) -> Buffer {
    let table = device.storage("slot_table", size_of_val(slots) as u64);
    device.write(&table, 0, bytemuck::cast_slice(slots));
    table
}

/// Fills the memory of a device's weights.
pub(super) struct Uploader<'a> {
    pub device: &'a Device,
    pub store: &'a WeightStore,
    pub spec: &'a ModelSpec,
    /// Called with the bytes uploaded so far.
    pub progress: &'a mut Listener<'a, u64>,
    pub done_bytes: u64,
}

impl Uploader<'_> {
    /// All weights, or all but routed experts.
    ///
    /// # Errors
    /// What reading the weights or writing them to the device can fail with.
    pub async fn fill(&mut self, weights: &DeviceWeights, without_experts: bool) -> Result<()> {
        for (key, weight, _) in placed(self.spec).into_iter().filter(|(key, ..)| !(without_experts && is_paged(*key))) {
            match weights.by_key.get(&key) {
                Some(DeviceWeight::Vector(buffer)) => self.vector(key, buffer).await?,
                Some(DeviceWeight::Matrices(matrices)) => {
                    for Matrix { shards, quant } in matrices {
                        let (device, row_bytes) = (self.device, quant.row_bytes(weight.cols));
                        let write_rows =
                            |first_row: usize, packed: &[u8]| shards.write_rows(device, first_row, row_bytes, packed);
                        self.stream(key, RowRun { rows: shards.rows(), quant }, write_rows).await?;
                    }
                }
                Some(DeviceWeight::Slabs(slabs)) => {
                    for slot in 0..slabs.shape.num_slots {
                        self.slab(WeightKey { expert: slot, ..key }, slabs).await?;
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    /// A norm or a bias in f32, every row padded.
    async fn vector(&mut self, key: WeightKey, buffer: &Buffer) -> Result<()> {
        let (rows, cols) = key.shape(self.spec);
        let values = self.store.read(key, 0..rows).await?.values;
        let mut bytes = Vec::with_capacity(rows * padded(cols) * 4);
        for row in values.chunks_exact(cols) {
            bytes.extend_from_slice(bytemuck::cast_slice(row));
            bytes.resize(bytes.len() + (padded(cols) - cols) * 4, 0);
        }
        let device = self.device;
        write(device, &key.packed_name(), || device.write(buffer, 0, &bytes)).await?;
        self.advance(bytes.len());
        Ok(())
    }

    /// One expert, in the slot of its number.
    async fn slab(&mut self, key: WeightKey, slabs: &Slabs) -> Result<()> {
        let device = self.device;
        let write_rows = |first_row: usize, packed: &[u8]| slabs.write_rows(device, key.expert, first_row, packed);
        let all = RowRun { rows: 0..key.shape(self.spec).0, quant: slabs.shape.quant };
        self.stream(key, all, write_rows).await?;
        let biases = ROLES.iter().find(|facts| facts.kind == Kind::SlabBias(key.role));
        if let Some(bias) = biases.filter(|_| slabs.shape.bias) {
            let bias = WeightKey { role: bias.role, ..key };
            let values = self.store.read(bias, 0..1).await?.values;
            write(device, &bias.packed_name(), || slabs.write_bias(device, key.expert, &values)).await?;
            self.advance(values.len() * 4);
        }
        Ok(())
    }

    /// Reads and packs rows of a weight piece by piece and hands each to `write_rows` with its first row.
    async fn stream(&mut self, key: WeightKey, run: RowRun, write_rows: impl Fn(usize, &[u8])) -> Result<()> {
        let (rows_per_piece, label) = (piece_rows(key.shape(self.spec).1), key.packed_name());
        for first_row in run.rows.clone().step_by(rows_per_piece) {
            let end_row = run.rows.end.min(first_row + rows_per_piece);
            let packed = self.store.packed(key, first_row..end_row, run.quant).await?;
            write(self.device, &label, || write_rows(first_row, &packed)).await?;
            self.device.settle_uploads(&format!("uploading {label}")).await?;
            self.advance(packed.len());
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.done_bytes += bytes as u64;
        (self.progress)(self.done_bytes);
    }
}

async fn write(device: &Device, label: &str, write: impl FnOnce()) -> Result<()> {
    let write = || {
        write();
        Ok::<(), Error>(())
    };
    device.catch(&format!("uploading {label}"), write).await
}
