//! The weights of a model on a device.

use super::formats::Formats;
use super::source::WeightSource;
use crate::checkpoint::WeightKey;
use crate::error::{Error, Result};
use crate::gating::RouterSpec;
use crate::gpu::{Buffer, Device, Sharded};
use crate::kernels::{SlabShape, Slabs};
use crate::platform::Listener;
use crate::quant::{Quant, padded};
use crate::spec::{
    AttentionSpec, Ffn, LatentSpec, LayerSpec, Mixer, MlpSpec, ModelSpec, MoeSpec, ParallelInputs, ParallelSpec, Residual,
};

/// Weights are read, packed and uploaded in pieces of about this many values.
const PIECE_VALUES: usize = 1 << 20;
/// Rows of the embedding and the head may be cut anywhere between quads.
const UNIT_ROWS: usize = 4;

/// Rows of `cols` columns that are read and packed at a time.
pub(super) fn piece_rows(cols: usize) -> usize {
    (PIECE_VALUES / cols).max(1)
}

/// Everything that a decoder reads and never writes.
#[derive(Debug)]
pub(super) struct DeviceWeights {
    pub embedding: Matrix,
    pub final_norm: Buffer,
    /// `None`: the embedding serves as the head.
    pub head: Option<Matrix>,
    pub head_bias: Option<Buffer>,
    pub layers: Vec<LayerWeights>,
}

#[derive(Debug)]
pub(super) struct LayerWeights {
    pub mixer: MixerWeights,
    /// Before and after the feed-forward part.
    pub norms: Norms,
    pub ffn: FfnWeights,
    /// What the residual stream is multiplied by at the end of the layer.
    pub output_scale: Option<Buffer>,
    pub ffn_bias: Option<Buffer>,
}

/// The norms of one part of a layer, as [`Residual`] says.
#[derive(Debug)]
pub(super) struct Norms {
    pub before: Option<Buffer>,
    pub after: Option<Buffer>,
}

#[derive(Debug)]
pub(super) struct MixerWeights {
    pub norms: Norms,
    pub kind: MixerKind,
    /// `None` where a router chooses it.
    pub output: Option<Matrix>,
    pub output_bias: Option<Buffer>,
}

#[derive(Debug)]
pub(super) enum MixerKind {
    Attention(Box<AttentionWeights>),
    Latent(Box<LatentWeights>),
    Chosen(Box<ChoiceWeights>),
}

/// Of attention whose query and output projections a router chooses.
#[derive(Debug)]
pub(super) struct ChoiceWeights {
    pub router: Matrix,
    pub slot_table: Buffer,
    pub query: Slabs,
    pub kv: Matrix,
    pub output: Slabs,
    pub output_bias: Option<Buffer>,
}

/// Of a filter before query and key, with the value projection, which reads what the filter reads.
#[derive(Debug)]
pub(super) struct FilterWeights {
    pub first: Matrix,
    pub first_bias: Buffer,
    pub second: Matrix,
    pub second_bias: Buffer,
    pub norm: Buffer,
    pub value: Matrix,
}

#[derive(Debug)]
pub(super) struct LatentWeights {
    /// The first of two projections of the query, and the norm between them.
    pub query_down: Option<(Matrix, Buffer)>,
    pub query_up: Matrix,
    pub down: Matrix,
    pub norm: Buffer,
    pub key_up: Matrix,
    pub value_up: Matrix,
}

#[derive(Debug)]
pub(super) struct AttentionWeights {
    pub qkv: Matrix,
    pub qkv_bias: Option<Buffer>,
    /// Of query and key.
    pub qk_norms: Option<[Buffer; 2]>,
    pub sinks: Option<Buffer>,
    /// Of the output of the heads.
    pub gate: Option<Matrix>,
    pub filter: Option<FilterWeights>,
}

#[derive(Debug)]
pub(super) enum FfnWeights {
    Dense(MlpWeights),
    Moe(Box<MoeWeights>),
    Parallel(Box<ParallelWeights>),
}

#[derive(Debug)]
pub(super) struct ParallelWeights {
    /// Before the dense MLP, where it does not share that of the experts.
    pub norm: Option<Buffer>,
    pub dense: MlpWeights,
    pub moe: MoeWeights,
    /// After the dense MLP, and after the experts.
    pub post_norms: Option<[Buffer; 2]>,
}

#[derive(Debug)]
pub(super) struct MoeWeights {
    /// Before the router, where it has a norm of its own.
    pub router_norm: Option<Buffer>,
    /// The first layer of a router that has two.
    pub router_hidden: Option<Matrix>,
    pub router: Matrix,
    pub router_bias: Option<Buffer>,
    pub selection_bias: Option<Buffer>,
    pub expert_scale: Option<Buffer>,
    /// Cache slot of each expert.
    pub slot_table: Buffer,
    pub experts: MlpWeights,
    pub shared: Option<SharedWeights>,
}

#[derive(Debug)]
pub(super) struct SharedWeights {
    pub mlp: MlpWeights,
    pub gate: Option<Matrix>,
}

/// The projections of some experts, or of one MLP in slot 0.
#[derive(Debug)]
pub(super) struct MlpWeights {
    pub gate_up: Slabs,
    pub down: Slabs,
}

/// A weight matrix and its format.
#[derive(Debug)]
pub(super) struct Matrix {
    pub shards: Sharded,
    pub quant: Quant,
}

impl Matrix {
    pub fn num_rows(&self) -> usize {
        self.shards.shards.iter().map(|shard| shard.num_rows).sum()
    }
}

/// Moves weights from their source to a device.
pub(super) struct Uploader<'a> {
    pub device: &'a Device,
    pub source: &'a WeightSource<'a>,
    pub spec: &'a ModelSpec,
    pub formats: &'a Formats,
    /// Called with the bytes uploaded so far.
    pub progress: &'a mut Listener<'a, u64>,
    pub done_bytes: u64,
}

impl Uploader<'_> {
    /// # Errors
    /// What reading the weights or allocating on the device can fail with.
    pub async fn upload(&mut self) -> Result<DeviceWeights> {
        let embedding = self.matrix(WeightKey::Embedding, UNIT_ROWS).await?;
        let mut layers = Vec::with_capacity(self.spec.layers.len());
        for (layer, spec) in self.spec.layers.iter().enumerate() {
            layers.push(LayerWeights {
                mixer: self.mixer(layer, spec).await?,
                norms: self.norms(spec.residual, WeightKey::FfnNorm { layer }, WeightKey::FfnPostNorm { layer }).await?,
                ffn: match &spec.ffn {
                    Ffn::Dense(mlp) => FfnWeights::Dense(self.dense(layer, mlp).await?),
                    Ffn::Moe(moe) => FfnWeights::Moe(Box::new(self.moe(layer, moe).await?)),
                    Ffn::Parallel(parallel) => FfnWeights::Parallel(Box::new(self.parallel(layer, parallel).await?)),
                },
                ffn_bias: self.vectors_if(spec.ffn_bias, WeightKey::FfnBias { layer }).await?,
                output_scale: self.vectors_if(spec.output_scale, WeightKey::OutputScale { layer }).await?,
            });
        }
        Ok(DeviceWeights {
            embedding,
            final_norm: self.vectors(WeightKey::FinalNorm).await?,
            head: self.matrix_if(!self.spec.tied_embeddings, WeightKey::Head).await?,
            head_bias: self.vectors_if(self.spec.head_bias, WeightKey::HeadBias).await?,
            layers,
        })
    }

    async fn mixer(&mut self, layer: usize, spec: &LayerSpec) -> Result<MixerWeights> {
        let norms = self.norms(spec.residual, WeightKey::AttentionNorm { layer }, WeightKey::AttentionPostNorm { layer }).await?;
        let kind = match &spec.mixer {
            Mixer::Attention(AttentionSpec { choice: Some(choice), output_bias, .. }) => {
                MixerKind::Chosen(Box::new(self.choice(layer, choice, *output_bias).await?))
            }
            Mixer::Attention(attention) => MixerKind::Attention(Box::new(self.attention(layer, attention).await?)),
            Mixer::Latent(latent) => MixerKind::Latent(Box::new(self.latent(layer, latent).await?)),
            Mixer::Mamba(_) => unreachable!("checkpoints of such models are not opened"),
        };
        Ok(MixerWeights {
            norms,
            output: self.matrix_if(!matches!(kind, MixerKind::Chosen(_)), WeightKey::AttentionOutput { layer }).await?,
            output_bias: match kind {
                MixerKind::Chosen(_) => None,
                _ => self.vectors_if(spec.mixer.output_bias(), WeightKey::AttentionOutputBias { layer }).await?,
            },
            kind,
        })
    }

    async fn choice(&mut self, layer: usize, router: &RouterSpec, bias: bool) -> Result<ChoiceWeights> {
        let num_experts = router.num_experts;
        let identity: Vec<u32> = (0..num_experts as u32).collect();
        Ok(ChoiceWeights {
            router: self.matrix(WeightKey::ChoiceRouter { layer }, UNIT_ROWS).await?,
            slot_table: self.upload_bytes("slot_table", bytemuck::cast_slice(&identity)).await?,
            query: self.slabs(num_experts, |expert| WeightKey::ChoiceQuery { layer, expert }, |_| None).await?,
            kv: self.matrix(WeightKey::Qkv { layer }, UNIT_ROWS).await?,
            output: self.slabs(num_experts, |expert| WeightKey::ChoiceOutput { layer, expert }, |_| None).await?,
            output_bias: self.vectors_if(bias, WeightKey::AttentionOutputBias { layer }).await?,
        })
    }

    async fn filter(&mut self, layer: usize) -> Result<FilterWeights> {
        Ok(FilterWeights {
            first: self.matrix(WeightKey::FilterFirst { layer }, UNIT_ROWS).await?,
            first_bias: self.vectors(WeightKey::FilterFirstBias { layer }).await?,
            second: self.matrix(WeightKey::FilterSecond { layer }, UNIT_ROWS).await?,
            second_bias: self.vectors(WeightKey::FilterSecondBias { layer }).await?,
            norm: self.vectors(WeightKey::FilterNorm { layer }).await?,
            value: self.matrix(WeightKey::Value { layer }, UNIT_ROWS).await?,
        })
    }

    async fn latent(&mut self, layer: usize, spec: &LatentSpec) -> Result<LatentWeights> {
        let query_down = match self.matrix_if(spec.query_rank.is_some(), WeightKey::LatentQueryDown { layer }).await? {
            Some(matrix) => Some((matrix, self.vectors(WeightKey::LatentQueryNorm { layer }).await?)),
            None => None,
        };
        Ok(LatentWeights {
            query_down,
            query_up: self.matrix(WeightKey::LatentQueryUp { layer }, UNIT_ROWS).await?,
            down: self.matrix(WeightKey::LatentDown { layer }, UNIT_ROWS).await?,
            norm: self.vectors(WeightKey::LatentNorm { layer }).await?,
            key_up: self.matrix(WeightKey::LatentKeyUp { layer }, spec.latent_dim).await?,
            value_up: self.matrix(WeightKey::LatentValueUp { layer }, spec.value_dim).await?,
        })
    }

    async fn attention(&mut self, layer: usize, attention: &AttentionSpec) -> Result<AttentionWeights> {
        let qk_norms = match attention.qk_norm {
            Some(norm) if norm.weight => {
                Some([self.vectors(WeightKey::QueryNorm { layer }).await?, self.vectors(WeightKey::KeyNorm { layer }).await?])
            }
            _ => None,
        };
        Ok(AttentionWeights {
            qkv: self.matrix(WeightKey::Qkv { layer }, attention.head_dim).await?,
            qkv_bias: self.vectors_if(attention.qkv_bias, WeightKey::QkvBias { layer }).await?,
            qk_norms,
            sinks: self.vectors_if(attention.sinks, WeightKey::Sinks { layer }).await?,
            gate: self.matrix_if(attention.output_gate, WeightKey::AttentionGate { layer }).await?,
            filter: if attention.filter.is_some() { Some(self.filter(layer).await?) } else { None },
        })
    }

    async fn norms(&mut self, residual: Residual, before: WeightKey, after: WeightKey) -> Result<Norms> {
        Ok(Norms {
            before: self.vectors_if(residual != Residual::Post, before).await?,
            after: self.vectors_if(residual != Residual::Pre, after).await?,
        })
    }

    async fn dense(&mut self, layer: usize, mlp: &MlpSpec) -> Result<MlpWeights> {
        let (gate_up, down) = (WeightKey::DenseGateUp { layer }, WeightKey::DenseDown { layer });
        self.mlp(mlp, 1, |_| [gate_up, down], |_| None).await
    }

    async fn parallel(&mut self, layer: usize, spec: &ParallelSpec) -> Result<ParallelWeights> {
        let own_norm = spec.inputs != ParallelInputs::Same;
        Ok(ParallelWeights {
            norm: self.vectors_if(own_norm, WeightKey::ParallelNorm { layer }).await?,
            dense: self.dense(layer, &spec.dense).await?,
            moe: self.moe(layer, &spec.moe).await?,
            post_norms: if spec.post_norms {
                let dense = self.vectors(WeightKey::ParallelPostNorm { layer }).await?;
                Some([dense, self.vectors(WeightKey::ExpertPostNorm { layer }).await?])
            } else {
                None
            },
        })
    }

    async fn moe(&mut self, layer: usize, spec: &MoeSpec) -> Result<MoeWeights> {
        let num_experts = spec.router.num_experts;
        // Everything is resident: the slot of an expert is its id. Experts without weights have a slot that no slab has.
        let identity: Vec<u32> = (0..num_experts as u32).collect();
        let slot_table = self.upload_bytes("slot_table", bytemuck::cast_slice(&identity)).await?;
        let experts = self
            .mlp(
                &spec.expert,
                spec.router.num_weighted(),
                |expert| [WeightKey::ExpertGateUp { layer, expert }, WeightKey::ExpertDown { layer, expert }],
                |expert| Some([WeightKey::ExpertGateUpBias { layer, expert }, WeightKey::ExpertDownBias { layer, expert }]),
            )
            .await?;
        let shared = match &spec.shared {
            None => None,
            Some(shared) => {
                let (gate_up, down) = (WeightKey::SharedGateUp { layer }, WeightKey::SharedDown { layer });
                let mlp = self.mlp(&shared.mlp, 1, |_| [gate_up, down], |_| None).await?;
                let gate = if shared.gate { Some(self.matrix(WeightKey::SharedGate { layer }, UNIT_ROWS).await?) } else { None };
                Some(SharedWeights { mlp, gate })
            }
        };
        Ok(MoeWeights {
            router_norm: self.vectors_if(spec.router.input_norm.is_some(), WeightKey::RouterNorm { layer }).await?,
            router_hidden: self.matrix_if(spec.router.hidden.is_some(), WeightKey::RouterHidden { layer }).await?,
            router: self.matrix(WeightKey::Router { layer }, UNIT_ROWS).await?,
            router_bias: self.vectors_if(spec.router.bias, WeightKey::RouterBias { layer }).await?,
            selection_bias: self.vectors_if(spec.router.selection_bias, WeightKey::SelectionBias { layer }).await?,
            expert_scale: self.vectors_if(spec.router.expert_scale, WeightKey::ExpertScale { layer }).await?,
            slot_table,
            experts,
            shared,
        })
    }

    /// `weights` and `biases` name gate/up and down of each slot.
    async fn mlp(
        &mut self,
        spec: &MlpSpec,
        num_slots: usize,
        weights: impl Fn(usize) -> [WeightKey; 2],
        biases: impl Fn(usize) -> Option<[WeightKey; 2]>,
    ) -> Result<MlpWeights> {
        let biases = |slot| if spec.bias { biases(slot) } else { None };
        Ok(MlpWeights {
            gate_up: self.slabs(num_slots, |slot| weights(slot)[0], |slot| biases(slot).map(|[bias, _]| bias)).await?,
            down: self.slabs(num_slots, |slot| weights(slot)[1], |slot| biases(slot).map(|[_, bias]| bias)).await?,
        })
    }

    async fn slabs(
        &mut self,
        num_slots: usize,
        weight: impl Fn(usize) -> WeightKey,
        bias: impl Fn(usize) -> Option<WeightKey>,
    ) -> Result<Slabs> {
        let quant = self.formats.of(weight(0));
        let (rows, cols) = weight(0).shape(self.spec);
        let label = format!("{:?}", weight(0));
        let shape = SlabShape { num_slots, rows, cols, quant, bias: bias(0).is_some() };
        let slabs = self.device.catch(&label, || Slabs::new(self.device, &label, shape)).await?;
        let device = self.device;
        for slot in 0..num_slots {
            let write = |first_row: usize, packed: &[u8]| slabs.write_rows(device, slot, first_row, packed);
            self.stream(weight(slot), quant, write).await?;
            if let Some(key) = bias(slot) {
                let values = self.source.read(key, 0..1).await?.values;
                self.device
                    .catch("uploading a bias", || {
                        slabs.write_bias(device, slot, &values);
                        Ok(())
                    })
                    .await?;
                self.advance(values.len() * 4);
            }
        }
        Ok(slabs)
    }

    async fn vectors_if(&mut self, wanted: bool, key: WeightKey) -> Result<Option<Buffer>> {
        Ok(if wanted { Some(self.vectors(key).await?) } else { None })
    }

    /// A norm or a bias in f32, every row padded.
    async fn vectors(&mut self, key: WeightKey) -> Result<Buffer> {
        let (rows, cols) = key.shape(self.spec);
        let values = self.source.read(key, 0..rows).await?.values;
        let mut bytes = Vec::with_capacity(rows * padded(cols) * 4);
        for row in values.chunks_exact(cols) {
            bytes.extend_from_slice(bytemuck::cast_slice(row));
            bytes.resize(bytes.len() + (padded(cols) - cols) * 4, 0);
        }
        let buffer = self.upload_bytes("vectors", &bytes).await?;
        self.advance(bytes.len());
        Ok(buffer)
    }

    async fn upload_bytes(&mut self, label: &str, bytes: &[u8]) -> Result<Buffer> {
        self.device
            .catch(label, || {
                let buffer = self.device.storage(label, bytes.len() as u64);
                self.device.write(&buffer, 0, bytes);
                Ok(buffer)
            })
            .await
    }

    async fn matrix_if(&mut self, wanted: bool, key: WeightKey) -> Result<Option<Matrix>> {
        Ok(if wanted { Some(self.matrix(key, UNIT_ROWS).await?) } else { None })
    }

    async fn matrix(&mut self, key: WeightKey, unit_rows: usize) -> Result<Matrix> {
        let quant = self.formats.of(key);
        let (rows, cols) = key.shape(self.spec);
        let row_bytes = quant.row_bytes(cols);
        let label = format!("{key:?}");
        let shards = self.device.catch(&label, || self.device.sharded(&label, rows, row_bytes, unit_rows)).await?;
        let device = self.device;
        self.stream(key, quant, |first_row, packed| shards.write_rows(device, first_row, row_bytes, packed)).await?;
        Ok(Matrix { shards, quant })
    }

    /// Reads and packs a weight piece by piece and hands each to `write` with its first row.
    async fn stream(&mut self, key: WeightKey, quant: Quant, write: impl Fn(usize, &[u8])) -> Result<()> {
        let (rows, cols) = key.shape(self.spec);
        let rows_per_piece = piece_rows(cols);
        for first_row in (0..rows).step_by(rows_per_piece) {
            let end_row = rows.min(first_row + rows_per_piece);
            let packed = self.source.packed(key, first_row..end_row, quant).await?;
            let label = format!("uploading {key:?}");
            self.device
                .catch(&label, || {
                    write(first_row, &packed);
                    Ok::<(), Error>(())
                })
                .await?;
            self.device.settle_uploads(&label).await?;
            self.advance(packed.len());
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.done_bytes += bytes as u64;
        (self.progress)(self.done_bytes);
    }
}
