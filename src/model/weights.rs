//! The weights of a model on a device.

use crate::checkpoint::{Checkpoint, WeightKey};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Sharded};
use crate::kernels::{SlabShape, Slabs};
use crate::quant::{Quant, QuantFormat, padded};
use crate::spec::ModelSpec;
use crate::tensor::Dtype;

/// Weights are read, packed and uploaded in pieces of about this many values.
const PIECE_VALUES: usize = 4 << 20;
/// Rows of the embedding and the head may be cut anywhere between quads.
const UNIT_ROWS: usize = 4;

/// Everything that a decoder reads and never writes.
#[derive(Debug)]
pub(super) struct DeviceWeights {
    pub embedding: Matrix,
    pub final_norm: Buffer,
    /// `None`: the embedding serves as the head.
    pub head: Option<Matrix>,
    pub layers: Vec<LayerWeights>,
}

#[derive(Debug)]
pub(super) struct LayerWeights {
    pub attention_norm: Buffer,
    pub qkv: Matrix,
    pub attention_output: Matrix,
    pub ffn_norm: Buffer,
    pub router: Matrix,
    pub gate_up: Slabs,
    pub down: Slabs,
    /// Cache slot of each expert.
    pub slot_table: Buffer,
}

/// A weight matrix and its format.
#[derive(Debug)]
pub(super) struct Matrix {
    pub shards: Sharded,
    pub quant: Quant,
}

/// Moves weights from a checkpoint to a device.
pub(super) struct Uploader<'a> {
    pub device: &'a Device,
    pub checkpoint: &'a Checkpoint,
    pub spec: &'a ModelSpec,
    /// Format of the matrices; `None`: as stored.
    pub quant: Option<Quant>,
    /// Called with the bytes uploaded so far.
    pub progress: &'a mut dyn FnMut(u64),
    pub done_bytes: u64,
}

/// The format that each weight takes on the device: norms and routers stay f32.
pub(super) fn format_of(checkpoint: &Checkpoint, spec: &ModelSpec, quant: Option<Quant>, key: WeightKey) -> Quant {
    let exact = QuantFormat::exact_for(Dtype::F32);
    let wanted = |keys: &mut dyn Iterator<Item = WeightKey>| {
        quant.unwrap_or_else(|| {
            // One format for all experts of a layer: f32 if they are stored in several.
            let mut dtypes = keys.map(|key| checkpoint.stored_dtype(key));
            let first = dtypes.next().unwrap_or(Dtype::F32);
            if dtypes.all(|dtype| dtype == first) { QuantFormat::exact_for(first) } else { exact }
        })
    };
    match key {
        WeightKey::FinalNorm | WeightKey::AttentionNorm { .. } | WeightKey::FfnNorm { .. } | WeightKey::Router { .. } => exact,
        WeightKey::ExpertGateUp { layer, .. } => {
            let experts = 0..spec.layers[layer].ffn.moe().router.num_experts;
            wanted(&mut experts.map(|expert| WeightKey::ExpertGateUp { layer, expert }))
        }
        WeightKey::ExpertDown { layer, .. } => {
            let experts = 0..spec.layers[layer].ffn.moe().router.num_experts;
            wanted(&mut experts.map(|expert| WeightKey::ExpertDown { layer, expert }))
        }
        other => wanted(&mut [other].into_iter()),
    }
}

/// Bytes of all weights in the formats of [`format_of`].
pub(super) fn total_bytes(checkpoint: &Checkpoint, spec: &ModelSpec, quant: Option<Quant>) -> u64 {
    let mut total = 0;
    let mut experts = None;
    for key in WeightKey::all(spec) {
        // The format of a layer's experts is found out once, not once per expert.
        let format = match (key, experts) {
            (WeightKey::ExpertGateUp { layer, .. }, Some((known, gate_up, _))) if known == layer => gate_up,
            (WeightKey::ExpertDown { layer, .. }, Some((known, _, down))) if known == layer => down,
            (WeightKey::ExpertGateUp { layer, expert }, _) => {
                let gate_up = format_of(checkpoint, spec, quant, key);
                let down = format_of(checkpoint, spec, quant, WeightKey::ExpertDown { layer, expert });
                experts = Some((layer, gate_up, down));
                gate_up
            }
            _ => format_of(checkpoint, spec, quant, key),
        };
        let (rows, cols) = key.shape(spec);
        total += (rows * format.row_bytes(cols)) as u64;
    }
    total
}

impl Uploader<'_> {
    /// # Errors
    /// What reading the checkpoint or allocating on the device can fail with.
    pub async fn upload(&mut self) -> Result<DeviceWeights> {
        let embedding = self.matrix(WeightKey::Embedding, UNIT_ROWS).await?;
        let mut layers = Vec::with_capacity(self.spec.layers.len());
        for layer in 0..self.spec.layers.len() {
            layers.push(self.layer(layer).await?);
        }
        let final_norm = self.vector(WeightKey::FinalNorm).await?;
        let head = if self.spec.tied_embeddings { None } else { Some(self.matrix(WeightKey::Head, UNIT_ROWS).await?) };
        Ok(DeviceWeights { embedding, final_norm, head, layers })
    }

    async fn layer(&mut self, layer: usize) -> Result<LayerWeights> {
        let spec = &self.spec.layers[layer];
        let num_experts = spec.ffn.moe().router.num_experts;
        let head_dim = spec.mixer.attention().head_dim;
        let identity: Vec<u32> = (0..num_experts as u32).collect();
        let slot_table = self
            .device
            .catch("allocating the slot table", || {
                let buffer = self.device.storage("slot_table", (num_experts * 4) as u64);
                self.device.write(&buffer, 0, bytemuck::cast_slice(&identity));
                Ok(buffer)
            })
            .await?;
        Ok(LayerWeights {
            attention_norm: self.vector(WeightKey::AttentionNorm { layer }).await?,
            qkv: self.matrix(WeightKey::Qkv { layer }, head_dim).await?,
            attention_output: self.matrix(WeightKey::AttentionOutput { layer }, UNIT_ROWS).await?,
            ffn_norm: self.vector(WeightKey::FfnNorm { layer }).await?,
            router: self.matrix(WeightKey::Router { layer }, UNIT_ROWS).await?,
            gate_up: self.slabs(layer, |expert| WeightKey::ExpertGateUp { layer, expert }).await?,
            down: self.slabs(layer, |expert| WeightKey::ExpertDown { layer, expert }).await?,
            slot_table,
        })
    }

    async fn vector(&mut self, key: WeightKey) -> Result<Buffer> {
        let mut values = self.checkpoint.read(key, 0..1).await?.values;
        values.resize(padded(values.len()), 0.0);
        let buffer = self
            .device
            .catch("uploading a norm", || {
                let buffer = self.device.storage("norm", (values.len() * 4) as u64);
                self.device.write(&buffer, 0, bytemuck::cast_slice(&values));
                Ok(buffer)
            })
            .await?;
        self.advance(values.len() * 4);
        Ok(buffer)
    }

    async fn matrix(&mut self, key: WeightKey, unit_rows: usize) -> Result<Matrix> {
        let quant = format_of(self.checkpoint, self.spec, self.quant, key);
        let (rows, cols) = key.shape(self.spec);
        let row_bytes = quant.row_bytes(cols);
        let label = format!("{key:?}");
        let shards = self.device.catch(&label, || self.device.sharded(&label, rows, row_bytes, unit_rows)).await?;
        let device = self.device;
        self.stream(key, quant, |first_row, packed| shards.write_rows(device, first_row, row_bytes, packed)).await?;
        Ok(Matrix { shards, quant })
    }

    async fn slabs(&mut self, layer: usize, key: impl Fn(usize) -> WeightKey) -> Result<Slabs> {
        let num_slots = self.spec.layers[layer].ffn.moe().router.num_experts;
        let quant = format_of(self.checkpoint, self.spec, self.quant, key(0));
        let (rows, cols) = key(0).shape(self.spec);
        let label = format!("{:?}", key(0));
        let shape = SlabShape { num_slots, rows, cols, quant };
        let slabs = self.device.catch(&label, || Slabs::new(self.device, &label, shape)).await?;
        let device = self.device;
        for expert in 0..num_slots {
            // Everything is resident: the slot of an expert is its id.
            self.stream(key(expert), quant, |first_row, packed| slabs.write_rows(device, expert, first_row, packed)).await?;
        }
        Ok(slabs)
    }

    /// Reads and packs a weight piece by piece and hands each to `write` with its first row.
    async fn stream(&mut self, key: WeightKey, quant: Quant, write: impl Fn(usize, &[u8])) -> Result<()> {
        let (rows, cols) = key.shape(self.spec);
        let rows_per_piece = (PIECE_VALUES / cols).max(1);
        for first_row in (0..rows).step_by(rows_per_piece) {
            let end_row = rows.min(first_row + rows_per_piece);
            let matrix = self.checkpoint.read(key, first_row..end_row).await?;
            let packed = quant.pack(&matrix.values, cols);
            let label = format!("uploading {key:?}");
            self.device
                .catch(&label, || {
                    write(first_row, &packed);
                    Ok::<(), Error>(())
                })
                .await?;
            self.advance(packed.len());
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.done_bytes += bytes as u64;
        (self.progress)(self.done_bytes);
    }
}
