//! The weights that a new model begins with.

use super::settings::Settings;
use crate::batch::rng::{normal, pcg};
use crate::reference::training::Weights;
use crate::spec::{Kind, ModelSpec, Role, WeightKey};

/// Normal numbers of zero mean: embedding, head and router with one deviation, other matrices with another, and those that write to the residual
/// stream with less, the more layers there are. Norms begin at one. Each value fits an f32.
pub(super) fn init(settings: &Settings, spec: &ModelSpec) -> Weights {
    let blocks = spec.layers.iter().map(|layer| layer.blocks.len()).sum::<usize>().max(1);
    let residual = libm::sqrt(blocks as f64);
    let mut weights = Weights::new();
    for key in WeightKey::all(spec) {
        let (rows, cols) = key.shape(spec);
        let std = match key.role {
            Role::Embedding | Role::Head | Role::Router => settings.train.init_std,
            Role::AttentionOutput | Role::ExpertDown | Role::DenseDown | Role::SharedDown => {
                settings.train.init_matrix_std / residual
            }
            _ => settings.train.init_matrix_std,
        };
        let is_vector = key.role.facts().kind == Kind::Vector;
        let seed = seed_of(settings.train.seed as u32, key);
        let value = |i: usize| if is_vector { 1.0 } else { f64::from((std * normal(seed, i as u32)) as f32) };
        weights.insert(key, (0..rows * cols).map(value).collect());
    }
    weights
}

/// Every weight has numbers of its own.
fn seed_of(seed: u32, key: WeightKey) -> u32 {
    let place = [key.role as u32, key.layer as u32, key.expert as u32];
    place.into_iter().fold(pcg(seed), |hash, part| pcg(hash ^ pcg(part)))
}
