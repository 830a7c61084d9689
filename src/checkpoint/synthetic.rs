//! Random weights.

use crate::batch::rng::{pcg, uniform_f32};
use crate::platform;
use crate::quant::Quant;
use crate::spec::{ModelSpec, Role, WeightKey};
use crate::tensor::Matrix;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Random weights in the shapes of a spec, such that activations keep their size from layer to layer.
///
/// A model of many gigabytes is made of few distinct pieces, packed once each, so that neither time nor memory stands in the way.
#[derive(Debug)]
pub struct Synthetic {
    spec: ModelSpec,
    pieces: Mutex<BTreeMap<PieceKey, Arc<Vec<u8>>>>,
}

/// Format, rows, columns, and which of [`DISTINCT`] pieces.
type PieceKey = (&'static str, usize, usize, u32);

/// Distinct pieces of one shape: enough that neighbouring layers and experts differ.
const DISTINCT: u32 = 4;
/// Largest absolute value of a bias.
const MAX_BIAS: f32 = 0.01;

impl Synthetic {
    pub fn new(spec: &ModelSpec) -> Self {
        Synthetic { spec: spec.clone(), pieces: Mutex::default() }
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// As [`Checkpoint::read_packed`](super::Checkpoint::read_packed).
    pub(super) fn packed(&self, key: WeightKey, rows: Range<usize>, quant: Quant) -> Arc<Vec<u8>> {
        let (_, cols) = key.shape(&self.spec);
        let piece = (quant.name, rows.len(), cols, seed(key, rows.start));
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.entry(piece).or_insert_with(|| Arc::new(quant.pack(&self.read(key, rows).values, cols))).clone()
    }

    /// As [`Checkpoint::read`](super::Checkpoint::read).
    pub(super) fn read(&self, key: WeightKey, rows: Range<usize>) -> Matrix {
        let (_, cols) = key.shape(&self.spec);
        let mut values = vec![0.0; rows.len() * cols];
        let seed = seed(key, rows.start);
        let content = Content::of(key, cols);
        platform::for_each_row(&mut values, cols, |row, values| match content {
            // Of a norm with a bias, row 1 is the bias.
            Content::Ones => values.fill(if rows.start + row == 0 { 1.0 } else { 0.0 }),
            Content::Constant(value) => values.fill(value),
            Content::Uniform { largest } => {
                for (col, value) in values.iter_mut().enumerate() {
                    *value = (2.0 * uniform_f32(seed, (row * cols + col) as u32) - 1.0) * largest;
                }
            }
        });
        Matrix { rows: rows.len(), cols, values }
    }
}

/// What a weight is filled with.
#[derive(Debug, Clone, Copy)]
enum Content {
    Ones,
    Constant(f32),
    Uniform { largest: f32 },
}

impl Content {
    fn of(key: WeightKey, cols: usize) -> Self {
        use Role::*;
        match key.role {
            FinalNorm | AttentionNorm | AttentionPostNorm | FfnNorm | FfnPostNorm | ParallelNorm | QueryNorm | KeyNorm
            | LatentNorm | LatentQueryNorm | RecurrentSkip | RecurrentStepNorm | RecurrentNorm => Content::Ones,
            // So much is lost of a state in each step.
            RecurrentDecay => Content::Constant(-0.5),
            HeadBias | QkvBias | Sinks | AttentionOutputBias | RouterBias | SelectionBias | ExpertGateUpBias | ExpertDownBias
            | ConvolutionInputBias | ConvolutionBias | RecurrentStepBias => Content::Uniform { largest: MAX_BIAS },
            // Three or four positions of variance 1 / 3 each.
            Convolution => Content::Uniform { largest: 1.0 },
            // A row of variance 1 / cols turns values of variance 1 into one of variance 1.
            _ => Content::Uniform { largest: (3.0 / cols as f32).sqrt() },
        }
    }
}

/// Which of the distinct pieces a part of a weight is. Small weights differ from layer to layer all the same: their rows are all there is.
fn seed(key: WeightKey, first_row: usize) -> u32 {
    use Role::*;
    let (layer, expert) = match key.role {
        ExpertGateUp | ExpertDown => (key.layer, key.expert),
        Qkv | ConvolutionInput | Convolution | RecurrentInput | RecurrentStep | RecurrentStepUp | RecurrentGate
        | AttentionOutput | Router | RouterHidden | SharedGateUp | SharedDown | DenseGateUp | DenseDown => (key.layer, 0),
        _ => (0, 0),
    };
    let mixed = [layer, expert, first_row].iter().fold(0, |state, &part| pcg(state ^ part as u32));
    mixed % DISTINCT
}
