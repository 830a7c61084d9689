//! The format of every weight of a model.

use crate::checkpoint::{RowRun, WeightStore};
use crate::error::Result;
use crate::quant::{CacheChoice, CacheFormat, Quant, QuantChoice, QuantFormat, WeightClass};
use crate::spec::{Kind, ModelSpec, Role, Share, WeightKey};
use crate::tensor::Dtype;
use std::collections::BTreeMap;

/// What each weight takes on a device, decided before anything is read.
#[derive(Debug)]
pub(super) struct Formats {
    /// Every weight of the model; of one in several formats that which holds all of them.
    by_key: BTreeMap<WeightKey, Quant>,
    /// Weights in several formats.
    in_runs: BTreeMap<WeightKey, Vec<RowRun>>,
}

impl Formats {
    /// Norms, biases and routers are f32, matrices what `choice` says. Query, key and value may keep a format each. One kernel reads all experts of
    /// a layer: those that are stored in several formats, and shall stay so, become f32.
    ///
    /// # Errors
    /// As [`QuantChoice::for_tied_embeddings`].
    pub fn of_model(source: &WeightStore, spec: &ModelSpec, choice: QuantChoice) -> Result<Self> {
        let choice = if spec.tied_embeddings { choice.for_tied_embeddings()? } else { choice };
        let f32 = QuantFormat::exact_for(Dtype::F32);
        let (mut by_key, mut in_runs) = (BTreeMap::new(), BTreeMap::new());
        let mut of_slabs: BTreeMap<WeightKey, Quant> = BTreeMap::new();
        for key in WeightKey::all(spec) {
            let quant = match key.class() {
                None => f32,
                Some(class) => choice.of(class).unwrap_or_else(|| source.stored_quant(key)),
            };
            if let Some(first) = first_of_slabs(key) {
                of_slabs.entry(first).and_modify(|common| *common = if *common == quant { quant } else { f32 }).or_insert(quant);
            }
            let stays = key.class().is_some_and(|class| choice.of(class).is_none());
            if key.role == Role::Qkv && stays {
                in_runs.insert(key, source.stored_runs(key));
            }
            by_key.insert(key, quant);
        }
        in_runs.retain(|_, runs| runs.len() > 1);
        for (key, quant) in &mut by_key {
            if let Some(common) = first_of_slabs(*key).and_then(|first| of_slabs.get(&first)) {
                *quant = common;
            }
        }
        Ok(Formats { by_key, in_runs })
    }

    /// One format for all rows, which keeps the values of each.
    ///
    /// # Panics
    /// If the model has no such weight.
    pub fn of(&self, key: WeightKey) -> Quant {
        self.by_key[&key]
    }

    /// The formats of a weight with so many rows, from the first row to the last.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub fn runs(&self, key: WeightKey, rows: usize) -> Vec<RowRun> {
        self.in_runs.get(&key).cloned().unwrap_or_else(|| vec![RowRun { rows: 0..rows, quant: self.of(key) }])
    }

    /// The formats of a weight, each with the bytes that its rows take on the device.
    pub fn bytes_of(&self, key: WeightKey, spec: &ModelSpec) -> Vec<(Quant, u64)> {
        let (rows, cols) = key.shape(spec);
        let bytes = |run: RowRun| (run.quant, (run.rows.len() * run.quant.row_bytes(cols)) as u64);
        self.runs(key, rows).into_iter().map(bytes).collect()
    }

    /// Bytes of one routed expert of a layer.
    pub fn expert_bytes(&self, spec: &ModelSpec, layer: usize) -> u64 {
        let weights = spec.layer_weights(layer).into_iter().filter(|weight| weight.role.facts().share == Share::Experts);
        weights.map(|part| (part.rows * self.of(part.role.of_expert(layer, 0)).row_bytes(part.cols)) as u64).sum()
    }

    /// Bytes of all weights on the device.
    pub fn total_bytes(&self, spec: &ModelSpec) -> u64 {
        self.by_key.keys().flat_map(|key| self.bytes_of(*key, spec)).map(|(_, bytes)| bytes).sum()
    }

    /// Names of the formats of the matrices, that of the most bytes first.
    pub fn names(&self, spec: &ModelSpec) -> Vec<&'static str> {
        let mut formats: Vec<(&str, u64)> = Vec::new();
        let matrices = self.by_key.keys().filter(|key| key.class().is_some());
        for (quant, bytes) in matrices.flat_map(|key| self.bytes_of(*key, spec)) {
            match formats.iter_mut().find(|(name, _)| *name == quant.name) {
                Some((_, total)) => *total += bytes,
                None => formats.push((quant.name, bytes)),
            }
        }
        formats.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        formats.into_iter().map(|(name, _)| name).collect()
    }
}

/// The format of the KV cache of a model whose weights take the formats of `quant`.
pub fn cache_format(source: &WeightStore, spec: &ModelSpec, quant: QuantChoice, cache: CacheChoice) -> CacheFormat {
    let attention = WeightKey::all(spec).filter(|key| key.class() == Some(WeightClass::Attention));
    cache.format(attention.map(|key| quant.of(WeightClass::Attention).unwrap_or_else(|| source.stored_quant(key))))
}

/// The weight of expert 0, of matrices that lie together by cache slot.
fn first_of_slabs(key: WeightKey) -> Option<WeightKey> {
    (key.role.facts().kind == Kind::Slab).then_some(WeightKey { expert: 0, ..key })
}
