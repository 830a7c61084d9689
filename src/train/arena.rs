//! Where weights, gradients and moments lie on a device: in four arenas of the same layout.

use crate::error::{Error, Result, human_bytes};
use crate::gpu::{Buffer, Device, VIEW_ALIGN};
use crate::quant::padded;
use crate::reference::training::Weights;
use crate::reference::training::adamw::decays;
use crate::spec::{ModelSpec, Role, WeightKey};
use std::collections::BTreeMap;

/// The matrices first, then what does not decay. Every weight begins where a view can; experts of a layer follow each other.
#[derive(Debug)]
pub(super) struct Layout {
    places: BTreeMap<(Role, usize), Place>,
    pub total_bytes: u64,
    /// Of the matrices.
    pub decayed_bytes: u64,
}

/// One weight, or those of all experts: rows of `padded(cols)` values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub offset_bytes: u64,
    pub copies: usize,
    pub rows: usize,
    pub cols: usize,
}

impl Place {
    fn len(&self) -> usize {
        self.copies * self.rows * padded(self.cols)
    }

    pub fn bytes(&self) -> u64 {
        (self.len() * size_of::<f32>()) as u64
    }
}

/// Weights, gradients, first and second moments.
pub(super) struct Arenas {
    pub weights: Buffer,
    pub gradients: Buffer,
    pub first: Buffer,
    pub second: Buffer,
}

impl Arenas {
    /// # Errors
    /// [`Error::DeviceLimit`] where an arena is larger than what a kernel can see.
    pub fn new(device: &Device, layout: &Layout) -> Result<Self> {
        let most = device.caps().max_shard_bytes();
        if layout.total_bytes > most {
            return Err(Error::DeviceLimit {
                what: "training all weights".to_owned(),
                device: device.name().to_owned(),
                expected: format!("bindings of {}", human_bytes(layout.total_bytes)),
                found: human_bytes(most),
            });
        }
        let arena = |label: &str| device.storage(label, layout.total_bytes);
        Ok(Arenas {
            weights: arena("weights"),
            gradients: arena("gradients"),
            first: arena("first_moments"),
            second: arena("second_moments"),
        })
    }
}

impl Layout {
    pub fn new(spec: &ModelSpec) -> Self {
        let mut layout = Layout { places: BTreeMap::new(), total_bytes: 0, decayed_bytes: 0 };
        for decayed in [true, false] {
            for key in WeightKey::all(spec).filter(|key| key.expert == 0 && decays(*key) == decayed) {
                let weight = key.weight(spec);
                let (copies, rows, cols) = (weight.copies(), weight.rows, weight.cols);
                let place = Place { offset_bytes: layout.total_bytes, copies, rows, cols };
                layout.total_bytes = (place.offset_bytes + place.bytes()).next_multiple_of(VIEW_ALIGN);
                layout.places.insert((key.role, key.layer), place);
            }
            if decayed {
                layout.decayed_bytes = layout.total_bytes;
            }
        }
        layout
    }

    /// # Panics
    /// If the model has no such weight.
    pub fn place(&self, role: Role, layer: usize) -> Place {
        self.places[&(role, layer)]
    }

    /// The weight, or those of all experts, in one of the arenas.
    pub fn view(&self, arena: &Buffer, role: Role, layer: usize) -> Buffer {
        let place = self.place(role, layer);
        arena.view(&role.of_layer(layer).packed_name(), place.offset_bytes, place.bytes())
    }

    /// All values of an arena, rounded to f32.
    pub fn gather(&self, weights: &Weights) -> Vec<f32> {
        let mut values = vec![0.0; self.total_bytes as usize / size_of::<f32>()];
        for (key, weight) in weights {
            for (row, from) in weight.chunks_exact(self.place(key.role, key.layer).cols).enumerate() {
                let first = self.first_of_row(*key, row);
                values[first..][..from.len()].iter_mut().zip(from).for_each(|(to, from)| *to = *from as f32);
            }
        }
        values
    }

    /// The inverse.
    pub fn scatter(&self, spec: &ModelSpec, values: &[f32]) -> Weights {
        let of_key = |key: WeightKey| {
            let Place { rows, cols, .. } = self.place(key.role, key.layer);
            let row = |row: usize| values[self.first_of_row(key, row)..][..cols].iter().copied().map(f64::from);
            (key, (0..rows).flat_map(row).collect())
        };
        WeightKey::all(spec).map(of_key).collect()
    }

    fn first_of_row(&self, key: WeightKey, row: usize) -> usize {
        let place = self.place(key.role, key.layer);
        place.offset_bytes as usize / size_of::<f32>() + (key.expert * place.rows + row) * padded(place.cols)
    }
}
