//! How the weights of recurrences and convolutions lie on disk. Kernels see one order: gates, values, keys, queries, each head by head; steps before betas.

use super::recipe::{Change, Part, Recipe, in_layer};
use crate::spec::{Decay, ModelSpec, RecurrentSpec, RecurrentStorage, Role, WeightKey};

/// # Panics
/// If the layer has neither a recurrence nor a convolution.
pub(super) fn of(spec: &ModelSpec, key: WeightKey, [rows, cols]: [usize; 2]) -> Recipe {
    let Some(recurrent) = spec.layers[key.layer].recurrent() else {
        let name = in_layer(spec, spec.names.convolution.weight, key.layer);
        return Recipe::one(Part::depthwise(name, 0..cols, [cols, rows]));
    };
    let stored = Stored { spec, recurrent, layer: key.layer, rows, cols };
    match key.role {
        Role::RecurrentInput => Recipe::after(stored.input()),
        Role::RecurrentStep => Recipe::after(stored.steps()),
        Role::RecurrentSelection => Recipe::after(stored.selection()),
        Role::RecurrentDecay => Recipe::after(stored.decay()),
        _ => stored.convolution(),
    }
}

/// The shape of a vector of a recurrence in a GGUF file, which has an axis for the heads or for the groups of its norm.
pub(super) fn shape_of_heads(spec: &ModelSpec, key: WeightKey, len: usize) -> Option<Vec<usize>> {
    match key.role {
        Role::RecurrentSkip => Some(vec![len, 1]),
        Role::RecurrentNorm => {
            let groups = spec.layers[key.layer].recurrent()?.norm?.groups;
            Some(vec![groups, len / groups])
        }
        _ => None,
    }
}

struct Stored<'a> {
    spec: &'a ModelSpec,
    recurrent: &'a RecurrentSpec,
    layer: usize,
    /// Of the weight.
    rows: usize,
    cols: usize,
}

impl Stored<'_> {
    fn storage(&self) -> &RecurrentStorage {
        &self.spec.names.recurrent.storage
    }

    fn name(&self, template: &str) -> String {
        in_layer(self.spec, template, self.layer)
    }

    /// A whole matrix of so many rows.
    fn whole(&self, template: &str, rows: usize) -> Part {
        Part::matrix(self.name(template), rows, self.cols)
    }

    /// So many rows from the first on, of a matrix of so many.
    fn some(&self, template: &str, [first, rows]: [usize; 2], all_rows: usize) -> Part {
        Part::rows_from(self.name(template), first, [all_rows, rows, self.cols])
    }

    /// The rows of each of some heads, whose blocks have `stride` rows: for each section, of all heads, `[first, rows]` of every block.
    fn by_head(&self, template: &str, [heads, stride]: [usize; 2], sections: &[[usize; 2]]) -> Vec<Part> {
        let section = |&[first, rows]: &[usize; 2]| {
            (0..heads).map(move |head| self.some(template, [head * stride + first, rows], heads * stride)).collect::<Vec<_>>()
        };
        sections.iter().flat_map(section).collect()
    }

    fn input(&self) -> Vec<Part> {
        let RecurrentSpec { key_heads, value_heads, key_dim, value_dim, .. } = *self.recurrent;
        let (input, inner, width) = (self.spec.names.convolution.input, self.recurrent.inner(), self.recurrent.key_width());
        match *self.storage() {
            RecurrentStorage::Whole => vec![self.some(input, [0, self.rows], self.rows + self.recurrent.step_rows())],
            RecurrentStorage::ByKeyHead { .. } => {
                let values = value_heads / key_heads * value_dim;
                let sections = [[2 * key_dim + values, values], [2 * key_dim, values], [key_dim, key_dim], [0, key_dim]];
                self.by_head(input, [key_heads, 2 * (key_dim + values)], &sections)
            }
            RecurrentStorage::Apart { gate, .. } => {
                let sections = [[2 * width, inner], [width, width], [0, width]];
                let channels = sections.map(|section| self.some(input, section, inner + 2 * width));
                [self.whole(gate, inner)].into_iter().chain(channels).collect()
            }
            RecurrentStorage::Separate { query, key, value, .. } => {
                vec![self.whole(value, inner), self.whole(key, width), self.whole(query, width)]
            }
            RecurrentStorage::Selective { .. } => [inner, 0].map(|first| self.some(input, [first, inner], 2 * inner)).into(),
            RecurrentStorage::ByHead => {
                let sections = [[2 * key_dim, value_dim], [key_dim, key_dim], [0, key_dim]];
                self.by_head(input, [value_heads, 2 * key_dim + value_dim], &sections)
            }
        }
    }

    fn steps(&self) -> Vec<Part> {
        let RecurrentSpec { key_heads, value_heads, key_dim, .. } = *self.recurrent;
        match *self.storage() {
            RecurrentStorage::Whole => {
                let projected = self.recurrent.projected();
                vec![self.some(self.spec.names.convolution.input, [projected, self.rows], projected + self.rows)]
            }
            RecurrentStorage::ByKeyHead { steps } => {
                let group = value_heads / key_heads;
                self.by_head(steps, [key_heads, 2 * group], &[[group, group], [0, group]])
            }
            RecurrentStorage::Apart { steps, betas, .. } => vec![self.whole(steps, value_heads), self.whole(betas, value_heads)],
            RecurrentStorage::Separate { step_down, gate_down, betas, .. } => {
                let rank = (self.rows - value_heads) / 2;
                vec![self.whole(step_down, rank), self.whole(gate_down, rank), self.whole(betas, value_heads)]
            }
            RecurrentStorage::Selective { selection } => vec![self.some(selection, [0, self.rows], self.rows + 2 * key_dim)],
            RecurrentStorage::ByHead => Vec::new(),
        }
    }

    /// Keys and queries that come from the values.
    fn selection(&self) -> Vec<Part> {
        match (*self.storage(), self.recurrent.decay) {
            (RecurrentStorage::Selective { selection }, Decay::Pair { rank, .. }) => {
                vec![self.some(selection, [rank, self.rows], rank + self.rows)]
            }
            _ => Vec::new(),
        }
    }

    fn decay(&self) -> Vec<Part> {
        let (names, RecurrentSpec { key_dim, .. }) = (&self.spec.names.recurrent, *self.recurrent);
        let (heads, inner) = (self.recurrent.value_heads, self.recurrent.inner());
        let (shape, others) = match self.recurrent.decay {
            Decay::Pair { .. } => {
                let others = [(names.skip, inner), (names.key_norm, key_dim), (names.query_norm, key_dim)];
                (vec![inner, key_dim], others.map(|(template, len)| Part::vector(self.name(template), len)).into())
            }
            Decay::Channel { .. } => (vec![1, 1, heads, 1], Vec::new()),
            _ => (vec![heads], Vec::new()),
        };
        let mut decays = Part::vector_of(self.name(names.decay), shape);
        if names.decay_is_logarithm {
            decays.change = Change::NegativeExp;
        }
        decays.tensor.or_shape = Some(vec![heads, 1]);
        [decays].into_iter().chain(others).collect()
    }

    fn convolution(&self) -> Recipe {
        let (inner, width, sizes) = (self.recurrent.inner(), self.recurrent.key_width(), [self.cols, self.rows]);
        let name = self.name(self.spec.names.convolution.weight);
        match *self.storage() {
            RecurrentStorage::ByKeyHead { .. } | RecurrentStorage::Apart { .. } => {
                let sections = [2 * width..2 * width + inner, width..2 * width, 0..width];
                Recipe::beside(sections.map(|channels| Part::depthwise(name.clone(), channels, sizes)).into())
            }
            RecurrentStorage::Separate { convolutions: [query, key, value], .. } => {
                let own = |template: &str, len: usize| Part::depthwise(self.name(template), 0..len, [len, self.rows]);
                Recipe::beside(vec![own(value, inner), own(key, width), own(query, width)])
            }
            _ => Recipe::one(Part::depthwise(name, 0..self.cols, sizes)),
        }
    }
}
