//! The weights of a model on a device.

use crate::gpu::{Buffer, Sharded};
use crate::kernels::Slabs;
use crate::quant::Quant;
use crate::spec::{Role, WeightKey};
use std::collections::BTreeMap;

/// Everything that a decoder reads and never writes, by key. Slabs hold all experts of a layer and have the key of the first.
#[derive(Debug, Default)]
pub(crate) struct DeviceWeights {
    pub by_key: BTreeMap<WeightKey, DeviceWeight>,
    /// The cache slot of each expert, by layer, for the router of this role.
    pub slot_tables: BTreeMap<WeightKey, Buffer>,
    /// There are fewer slots than experts.
    pub is_paged: bool,
}

#[derive(Debug)]
pub(crate) enum DeviceWeight {
    Vector(Buffer),
    /// One, or several that have the rows of one weight between them, in formats of their own.
    Matrices(Vec<Matrix>),
    Slabs(Slabs),
}

/// Rows of a weight matrix and their format.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub shards: Sharded,
    pub quant: Quant,
}

impl Matrix {
    pub fn num_rows(&self) -> usize {
        self.shards.shards.iter().map(|shard| shard.num_rows).sum()
    }
}

impl DeviceWeights {
    /// A weight that the spec may be without.
    pub fn vector(&self, key: WeightKey) -> Option<&Buffer> {
        match self.by_key.get(&key)? {
            DeviceWeight::Vector(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// A weight in one format that the spec may be without.
    ///
    /// # Panics
    /// If it is in several formats.
    pub fn matrix(&self, key: WeightKey) -> Option<&Matrix> {
        match self.matrices(key) {
            [] => None,
            [only] => Some(only),
            _ => panic!("{key:?} has several formats"),
        }
    }

    /// A weight by its formats, from its first rows to its last; none if the spec is without it.
    pub fn matrices(&self, key: WeightKey) -> &[Matrix] {
        match self.by_key.get(&key) {
            Some(DeviceWeight::Matrices(matrices)) => matrices,
            _ => &[],
        }
    }

    /// # Panics
    /// If the layer has no such slabs.
    pub fn slabs(&self, layer: usize, role: Role) -> &Slabs {
        match self.by_key.get(&role.of_layer(layer)) {
            Some(DeviceWeight::Slabs(slabs)) => slabs,
            _ => panic!("layer {layer} has no slabs of {role:?}"),
        }
    }
}
