//! Which stored tensors a weight is made of, and how its rows lie in them.

use super::float8;
use super::header::StoredTensor;
use super::mxfp4;
use crate::spec::{
    AbsorbedNames, AttentionSpec, ExpertStorage, Kind, LatentSpec, ModelSpec, OnDisk, QkvStorage, Role, RoleFacts, StorageOf,
    Template, TensorNames, WeightKey,
};
use crate::{Error, Result};
use std::ops::Range;

/// A weight as rows of `cols` values out of stored tensors. A vector is a column: its recipe has one value per row.
pub(super) struct Recipe {
    pub parts: Vec<Part>,
    /// The rows of the parts take turns; otherwise one part follows the other.
    pub interleaved: bool,
    pub cols: usize,
}

/// Rows out of one stored tensor.
pub(super) struct Part {
    pub tensor: Needed,
    pub rows: usize,
    pub cols: usize,
    pub layout: Layout,
}

/// A tensor that has to be there.
pub(super) struct Needed {
    pub name: String,
    pub shape: Vec<usize>,
    /// Another shape that is as good: the same values in the same order.
    pub or_shape: Option<Vec<usize>>,
    /// Holds bytes, not numbers.
    pub is_bytes: bool,
}

/// Where in its tensor a part lies.
pub(super) enum Layout {
    /// One row after the other, from element `first` on.
    Rows { first: u64 },
    /// Transposed: element `(row, col)` is element `first + col * stride + row` of the tensor.
    Columns { first: u64, stride: u64 },
    /// Rows of MXFP4 blocks, from row `first_row` on; one scale per block in another tensor.
    Mxfp4 { first_row: u64, scales: Needed },
}

impl Recipe {
    /// What a weight is made of.
    pub fn of(key: WeightKey, spec: &ModelSpec) -> Self {
        let weight = key.weight(spec);
        let (rows, cols) = (weight.rows, weight.cols);
        let name = |template: Template| in_layer(spec, template(spec, key.layer), key.layer);
        let vector = |name: String| {
            let mut part = Part::vector(name, cols);
            part.tensor.or_shape = shape_of_heads(key, spec, cols);
            Recipe::one(part)
        };
        let expert = weight.experts.map(|experts| (key.expert, experts.count));
        let mlp = Mlp { spec, layer: key.layer, expert, rows, cols };
        let stored = |storage: StorageOf| storage(spec, key.layer);
        let RoleFacts { kind, on_disk, .. } = *key.role.facts();
        match on_disk {
            OnDisk::Whole(template) if kind == Kind::Vector => vector(name(template)),
            OnDisk::Whole(template) => Recipe::one(Part::matrix(name(template), rows, cols)),
            OnDisk::Leading(template) => {
                let mut part = Part::vector(name(template), cols);
                part.tensor.or_shape = Some(vec![1, cols]);
                Recipe::one(part)
            }
            OnDisk::BiasOf(template) => vector(bias_of(&name(template))),
            OnDisk::Norm(template) => Recipe::norm(name(template), rows == 2, cols),
            OnDisk::Convolution(template) => Recipe::one(Part::convolution(name(template), rows, cols)),
            OnDisk::Decay => vector(name(|spec, _| spec.names.recurrent.decay.name())),
            OnDisk::RowsFrom(template, first) => {
                let [first, all_rows] = first(spec, key.layer);
                Recipe::one(Part::rows_from(name(template), first, [all_rows, rows, cols]))
            }
            OnDisk::Depthwise(template) => Recipe::one(Part::depthwise(name(template), rows, cols)),
            OnDisk::Stacked(template) => {
                let tensor = Needed::numbers(name(template), vec![weight.copies(), rows, cols]);
                let layout = Layout::Rows { first: (key.expert * rows * cols) as u64 };
                Recipe::one(Part { tensor, rows, cols, layout })
            }
            OnDisk::Qkv => qkv(spec, key.layer, rows, &|name, rows| Part::matrix(name, rows, cols)),
            OnDisk::QkvBias => qkv(spec, key.layer, cols, &|name, rows| Part::vector(bias_of(&name), rows)),
            OnDisk::LatentUp { keys } => latent_up(spec, key.layer, keys),
            OnDisk::Router => router(spec, key.layer, rows, cols),
            OnDisk::GateUp(storage) => mlp.gate_up(&stored(storage)),
            OnDisk::GateUpBias(storage) => mlp.gate_up_bias(&stored(storage)),
            OnDisk::Down(storage) => mlp.down(&stored(storage)),
            OnDisk::DownBias(storage) => mlp.down_bias(&stored(storage)),
            OnDisk::Nowhere => Recipe { parts: Vec::new(), interleaved: false, cols },
        }
    }

    /// Which rows of each part are among `rows` of the whole.
    pub fn rows_of_parts(&self, rows: &Range<usize>) -> Vec<Range<usize>> {
        let count = self.parts.len();
        let mut first = 0;
        let of_part = |(index, part): (usize, &Part)| {
            let before = |row: usize| {
                if self.interleaved { (row + count - 1 - index) / count } else { row.clamp(first, first + part.rows) - first }
            };
            let range = before(rows.start)..before(rows.end);
            first += part.rows;
            range
        };
        self.parts.iter().enumerate().map(of_part).collect()
    }

    /// Puts together what has been read of each part, rows of `width`, for `rows` of the whole.
    pub fn joined<T: Copy>(&self, mut pieces: Vec<Vec<T>>, width: usize, rows: Range<usize>) -> Vec<T> {
        if !self.interleaved {
            return if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat() };
        }
        let mut joined = Vec::with_capacity(rows.len() * width);
        let mut unused: Vec<_> = pieces.iter().map(|piece| piece.chunks_exact(width)).collect();
        for row in rows {
            joined.extend_from_slice(unused[row % pieces.len()].next().expect("each part holds its share of the rows"));
        }
        joined
    }

    fn one(part: Part) -> Self {
        Recipe { cols: part.cols, parts: vec![part], interleaved: false }
    }

    fn turns(gate: Part, up: Part) -> Self {
        Recipe { cols: gate.cols, parts: vec![gate, up], interleaved: true }
    }

    fn norm(name: String, bias: bool, len: usize) -> Self {
        let bias = bias.then(|| Part::vector(bias_of(&name), len));
        Recipe { cols: 1, parts: [Part::vector(name, len)].into_iter().chain(bias).collect(), interleaved: false }
    }
}

impl Part {
    fn matrix(name: String, rows: usize, cols: usize) -> Self {
        Part { tensor: Needed::numbers(name, vec![rows, cols]), rows, cols, layout: Layout::Rows { first: 0 } }
    }

    /// Causal over two positions: `[rows, cols / 2, 2, 1]`.
    fn convolution(name: String, rows: usize, cols: usize) -> Self {
        Part { tensor: Needed::numbers(name.clone(), vec![rows, cols / 2, 2, 1]), ..Part::matrix(name, rows, cols) }
    }

    /// Some of the rows of a matrix.
    fn rows_from(name: String, first: usize, [all_rows, rows, cols]: [usize; 3]) -> Self {
        let layout = Layout::Rows { first: (first * cols) as u64 };
        Part { rows, layout, ..Part::matrix(name, all_rows, cols) }
    }

    /// A causal convolution of each channel by itself: `[cols, 1, rows]`.
    fn depthwise(name: String, rows: usize, cols: usize) -> Self {
        let layout = Layout::Columns { first: 0, stride: rows as u64 };
        let tensor = Needed { or_shape: Some(vec![cols, rows]), ..Needed::numbers(name, vec![cols, 1, rows]) };
        Part { tensor, rows, cols, layout }
    }

    fn vector(name: String, len: usize) -> Self {
        Part { tensor: Needed::numbers(name, vec![len]), rows: len, cols: 1, layout: Layout::Rows { first: 0 } }
    }

    /// Whether the format `fp8` holds this part of a matrix in eight bits, whose blocks of rows and columns share a factor, as it is.
    pub fn keeps_float8_blocks(&self, block: [usize; 2]) -> bool {
        let stored_cols = *self.tensor.shape.last().expect("a tensor in eight bits is a matrix");
        match self.layout {
            Layout::Rows { first } => {
                self.cols == stored_cols && first % stored_cols as u64 == 0 && float8::keeps_blocks(0, self.cols, block[1])
            }
            Layout::Columns { first, stride } => {
                stride == stored_cols as u64 && float8::keeps_blocks((first / stride) as usize, self.cols, block[0])
            }
            Layout::Mxfp4 { .. } => false,
        }
    }

    /// The tensors that have to be there.
    pub fn needed(self) -> impl Iterator<Item = Needed> {
        let scales = match self.layout {
            Layout::Mxfp4 { scales, .. } => Some(scales),
            Layout::Rows { .. } | Layout::Columns { .. } => None,
        };
        [self.tensor].into_iter().chain(scales)
    }
}

impl Needed {
    fn numbers(name: String, shape: Vec<usize>) -> Self {
        Needed { name, shape, or_shape: None, is_bytes: false }
    }

    fn bytes(name: String, shape: Vec<usize>) -> Self {
        Needed { name, shape, or_shape: None, is_bytes: true }
    }

    /// The factors of a matrix that is `stored` in eight bits, in blocks that share one.
    pub fn float8_scales(&self, stored: &StoredTensor, block: [usize; 2]) -> Option<Needed> {
        match *self.shape.as_slice() {
            [rows, cols] if !self.is_bytes && stored.is(float8::DTYPE) => {
                let shape = vec![rows.div_ceil(block[0]), cols.div_ceil(block[1])];
                Some(Needed::numbers(float8::scales_of(&self.name), shape))
            }
            _ => None,
        }
    }

    /// Whether `stored` has the shape and the number format; `float8`: a matrix may be in eight bits.
    pub fn check(&self, stored: &StoredTensor, float8: bool) -> Result<()> {
        if stored.shape != self.shape && self.or_shape.as_ref() != Some(&stored.shape) {
            let (expected, found) = (self.shape.clone(), stored.shape.clone());
            return Err(Error::TensorShape { name: self.name.clone(), expected, found });
        }
        let (fits, expected) = match self.shape.as_slice() {
            _ if self.is_bytes => (stored.is(safetensors::Dtype::U8), "U8"),
            _ if stored.blocks().is_some() => return Ok(()),
            [_, _] if float8 => (stored.readable().is_some() || stored.is(float8::DTYPE), "F32, F16, BF16, F8_E4M3"),
            _ => (stored.readable().is_some(), "F32, F16, BF16"),
        };
        if fits {
            return Ok(());
        }
        Err(Error::TensorDtype { name: self.name.clone(), expected, found: stored.encoding.to_string() })
    }
}

/// One projection, or its bias, of one expert or of an MLP that every token uses.
struct Mlp<'a> {
    spec: &'a ModelSpec,
    layer: usize,
    /// Which of how many; `None` for one by itself.
    expert: Option<(usize, usize)>,
    /// Of gate and up together, or of down.
    rows: usize,
    cols: usize,
}

impl Mlp<'_> {
    fn gate_up(&self, storage: &ExpertStorage) -> Recipe {
        let (hidden, inner) = (self.cols, self.rows / 2);
        match *storage {
            ExpertStorage::Each { gate, up, .. } => {
                Recipe::turns(Part::matrix(self.name(gate), inner, hidden), Part::matrix(self.name(up), inner, hidden))
            }
            ExpertStorage::EachUngated { up, .. } => Recipe::one(Part::matrix(self.name(up), self.rows, hidden)),
            ExpertStorage::StackedUngated { up, .. } => Recipe::one(self.stacked(up, self.rows, hidden)),
            ExpertStorage::EachFused { gate_up, .. } => {
                let half = |index: usize| Part {
                    rows: inner,
                    layout: Layout::Rows { first: (index * inner * hidden) as u64 },
                    ..Part::matrix(self.name(gate_up), 2 * inner, hidden)
                };
                Recipe::turns(half(0), half(1))
            }
            ExpertStorage::Stacked { gate_up, .. } => {
                let half = |index: usize| Part {
                    rows: inner,
                    layout: Layout::Rows { first: self.skipped(2 * inner * hidden) + (index * inner * hidden) as u64 },
                    ..self.stacked(gate_up, 2 * inner, hidden)
                };
                Recipe::turns(half(0), half(1))
            }
            ExpertStorage::StackedEach { gate, up, .. } => {
                Recipe::turns(self.stacked(gate, inner, hidden), self.stacked(up, inner, hidden))
            }
            ExpertStorage::Transposed { gate_up, interleaved: true, .. } => {
                Recipe::one(self.transposed(gate_up, 0..2 * inner, 2 * inner, hidden))
            }
            ExpertStorage::Transposed { gate_up, .. } => Recipe::turns(
                self.transposed(gate_up, 0..inner, 2 * inner, hidden),
                self.transposed(gate_up, inner..2 * inner, 2 * inner, hidden),
            ),
            ExpertStorage::Mxfp4 { gate_up, .. } => Recipe::one(self.mxfp4(gate_up, 2 * inner, hidden)),
            ExpertStorage::RowBlocks { gate, up, .. } => {
                Recipe::turns(self.row_block(gate, inner, hidden), self.row_block(up, inner, hidden))
            }
        }
    }

    fn down(&self, storage: &ExpertStorage) -> Recipe {
        let (hidden, inner) = (self.rows, self.cols);
        Recipe::one(match *storage {
            ExpertStorage::Each { down, .. }
            | ExpertStorage::EachUngated { down, .. }
            | ExpertStorage::EachFused { down, .. } => Part::matrix(self.name(down), hidden, inner),
            ExpertStorage::Stacked { down, .. }
            | ExpertStorage::StackedEach { down, .. }
            | ExpertStorage::StackedUngated { down, .. } => self.stacked(down, hidden, inner),
            ExpertStorage::Transposed { down, .. } => self.transposed(down, 0..hidden, hidden, inner),
            ExpertStorage::Mxfp4 { down, .. } => self.mxfp4(down, hidden, inner),
            ExpertStorage::RowBlocks { down, .. } => Part {
                rows: hidden,
                cols: inner,
                layout: Layout::Columns { first: self.skipped(inner * hidden), stride: hidden as u64 },
                ..self.row_block(down, inner, hidden)
            },
        })
    }

    fn gate_up_bias(&self, storage: &ExpertStorage) -> Recipe {
        let inner = self.cols / 2;
        match *storage {
            ExpertStorage::Each { gate, up, .. } | ExpertStorage::RowBlocks { gate, up, .. } => {
                Recipe::turns(Part::vector(bias_of(&self.name(gate)), inner), Part::vector(bias_of(&self.name(up)), inner))
            }
            ExpertStorage::EachUngated { up, .. } => Recipe::one(Part::vector(bias_of(&self.name(up)), self.cols)),
            ExpertStorage::StackedUngated { up, .. } => Recipe::one(self.stacked_bias(bias_of(&self.name(up)), self.cols)),
            ExpertStorage::StackedEach { gate, up, .. } => {
                let bias = |template: &str| self.stacked_bias(bias_of(&self.name(template)), inner);
                Recipe::turns(bias(gate), bias(up))
            }
            ExpertStorage::EachFused { gate_up, .. } => {
                let half = |index: usize| Part {
                    tensor: Needed::numbers(bias_of(&self.name(gate_up)), vec![2 * inner]),
                    layout: Layout::Rows { first: (index * inner) as u64 },
                    ..Part::vector(String::new(), inner)
                };
                Recipe::turns(half(0), half(1))
            }
            ExpertStorage::Mxfp4 { gate_up, .. } | ExpertStorage::Transposed { gate_up, interleaved: true, .. } => {
                Recipe::one(self.stacked_bias(format!("{}_bias", self.name(gate_up)), 2 * inner))
            }
            ExpertStorage::Stacked { gate_up, .. } | ExpertStorage::Transposed { gate_up, .. } => {
                let name = match storage {
                    ExpertStorage::Stacked { .. } => bias_of(&self.name(gate_up)),
                    _ => format!("{}_bias", self.name(gate_up)),
                };
                let half = |index: usize| Part {
                    rows: inner,
                    layout: Layout::Rows { first: self.skipped(2 * inner) + (index * inner) as u64 },
                    ..self.stacked_bias(name.clone(), 2 * inner)
                };
                Recipe::turns(half(0), half(1))
            }
        }
    }

    fn down_bias(&self, storage: &ExpertStorage) -> Recipe {
        Recipe::one(match *storage {
            ExpertStorage::Each { down, .. }
            | ExpertStorage::EachUngated { down, .. }
            | ExpertStorage::EachFused { down, .. }
            | ExpertStorage::RowBlocks { down, .. } => Part::vector(bias_of(&self.name(down)), self.cols),
            ExpertStorage::Stacked { down, .. }
            | ExpertStorage::StackedEach { down, .. }
            | ExpertStorage::StackedUngated { down, .. } => self.stacked_bias(bias_of(&self.name(down)), self.cols),
            ExpertStorage::Transposed { down, .. } | ExpertStorage::Mxfp4 { down, .. } => {
                self.stacked_bias(format!("{}_bias", self.name(down)), self.cols)
            }
        })
    }

    /// One matrix out of `[E, rows, cols]`, or all of `[rows, cols]`.
    fn stacked(&self, template: &str, rows: usize, cols: usize) -> Part {
        Part {
            tensor: Needed::numbers(self.name(template), self.with_experts(&[rows, cols])),
            rows,
            cols,
            layout: Layout::Rows { first: self.skipped(rows * cols) },
        }
    }

    /// One vector out of `[E, len]`, or all of `[len]`.
    fn stacked_bias(&self, name: String, len: usize) -> Part {
        let tensor = Needed::numbers(name, self.with_experts(&[len]));
        Part { tensor, rows: len, cols: 1, layout: Layout::Rows { first: self.skipped(len) } }
    }

    /// The columns `rows` of one matrix out of `[E, cols, stride]`.
    fn transposed(&self, template: &str, rows: Range<usize>, stride: usize, cols: usize) -> Part {
        Part {
            tensor: Needed::numbers(self.name(template), self.with_experts(&[cols, stride])),
            rows: rows.len(),
            cols,
            layout: Layout::Columns { first: self.skipped(cols * stride) + rows.start as u64, stride: stride as u64 },
        }
    }

    fn mxfp4(&self, template: &str, rows: usize, cols: usize) -> Part {
        let (name, blocks) = (self.name(template), cols / mxfp4::BLOCK);
        let scales = Needed::bytes(format!("{name}_scales"), self.with_experts(&[rows, blocks]));
        Part {
            tensor: Needed::bytes(format!("{name}_blocks"), self.with_experts(&[rows, blocks, mxfp4::BLOCK_BYTES])),
            rows,
            cols,
            layout: Layout::Mxfp4 { first_row: self.skipped(rows), scales },
        }
    }

    /// One expert's rows out of `[E inner, hidden]`.
    fn row_block(&self, template: &str, inner: usize, hidden: usize) -> Part {
        let num_experts = self.expert.map_or(1, |(_, num_experts)| num_experts);
        Part {
            tensor: Needed::numbers(self.name(template), vec![num_experts * inner, hidden]),
            rows: inner,
            cols: hidden,
            layout: Layout::Rows { first: self.skipped(inner * hidden) },
        }
    }

    fn name(&self, template: &str) -> String {
        let name = in_layer(self.spec, template, self.layer);
        match self.expert {
            Some((expert, _)) => name.replace("{e}", &expert.to_string()),
            None => name,
        }
    }

    fn with_experts(&self, shape: &[usize]) -> Vec<usize> {
        self.expert.iter().map(|(_, num_experts)| *num_experts).chain(shape.iter().copied()).collect()
    }

    /// What the experts before this one take, at `each`.
    fn skipped(&self, each: usize) -> u64 {
        self.expert.map_or(0, |(expert, _)| expert as u64 * each as u64)
    }
}

/// One matrix, or queries, keys and values of a router with attention.
fn router(spec: &ModelSpec, layer: usize, rows: usize, cols: usize) -> Recipe {
    let names = &spec.names;
    let has_attention = spec.layers[layer].moe().is_some_and(|moe| moe.router.attention);
    let templates = if has_attention { vec![names.router, names.router_key, names.router_value] } else { vec![names.router] };
    let rows = rows / templates.len();
    let part = |template: &str| Part::matrix(in_layer(spec, template, layer), rows, cols);
    Recipe { parts: templates.into_iter().map(part).collect(), interleaved: false, cols }
}

/// Query, key and value, each made by `part` from a name and a number of rows; together they have `all_rows`.
fn qkv(spec: &ModelSpec, layer: usize, all_rows: usize, part: &dyn Fn(String, usize) -> Part) -> Recipe {
    let attention = attention(spec, layer);
    let name = |template: &str| in_layer(spec, template, layer);
    let heads = |template: &str, num_heads: usize| part(name(template), num_heads * attention.head_dim);
    let parts = match spec.names.qkv {
        QkvStorage::Separate { query, key, value } => {
            let value = (!attention.values_are_keys).then(|| part(name(value), attention.value_rows()));
            [heads(query, attention.num_heads), heads(key, attention.num_kv_heads)].into_iter().chain(value).collect()
        }
        QkvStorage::Fused(fused) => vec![part(name(fused), all_rows)],
        // Only matrices are stored so; `part` would give the whole tensor.
        QkvStorage::Paired { first, second, .. } => return paired(spec, layer, [name(first), name(second)]),
    };
    Recipe { cols: parts[0].cols, parts, interleaved: false }
}

/// All queries, then all keys, out of two tensors that together hold each head's query and then its key.
fn paired(spec: &ModelSpec, layer: usize, names: [String; 2]) -> Recipe {
    let attention = attention(spec, layer);
    let (head_dim, width, cols) = (attention.head_dim, attention.query_width(), spec.hidden_size);
    let block = |index: usize| {
        let (tensor, first) = (index * head_dim / width, index * head_dim % width);
        let layout = Layout::Rows { first: (first * cols) as u64 };
        Part { tensor: Needed::numbers(names[tensor].clone(), vec![width, cols]), rows: head_dim, cols, layout }
    };
    let heads = 0..attention.num_heads;
    let parts = heads.clone().map(|head| block(2 * head)).chain(heads.map(|head| block(2 * head + 1)));
    Recipe { parts: parts.collect(), interleaved: false, cols }
}

/// The rows that make keys out of the latent, each head's transposed, or those that make values.
fn latent_up(spec: &ModelSpec, layer: usize, keys: bool) -> Recipe {
    let latent = spec.layers[layer].latent().unwrap_or_else(|| panic!("layer {layer} has no latent attention"));
    let LatentSpec { num_heads, latent_dim, nope_dim, value_dim, .. } = *latent;
    if let Some(AbsorbedNames { key_up, value_up }) = spec.names.latent.absorbed {
        let (template, rows, cols) = if keys { (key_up, latent_dim, nope_dim) } else { (value_up, value_dim, latent_dim) };
        let tensor = Needed::numbers(in_layer(spec, template, layer), vec![num_heads, rows, cols]);
        return Recipe::one(Part { tensor, rows: num_heads * rows, cols, layout: Layout::Rows { first: 0 } });
    }
    let name = in_layer(spec, spec.names.latent.key_value_up, layer);
    let head = |head: usize| {
        let first = (head * (nope_dim + value_dim) * latent_dim) as u64;
        let (rows, cols, layout) = if keys {
            (latent_dim, nope_dim, Layout::Columns { first, stride: latent_dim as u64 })
        } else {
            (value_dim, latent_dim, Layout::Rows { first: first + (nope_dim * latent_dim) as u64 })
        };
        let shape = vec![num_heads * (nope_dim + value_dim), latent_dim];
        Part { tensor: Needed::numbers(name.clone(), shape), rows, cols, layout }
    };
    let cols = if keys { nope_dim } else { latent_dim };
    Recipe { parts: (0..num_heads).map(head).collect(), interleaved: false, cols }
}

/// The shape of a vector of a recurrence in a GGUF file, which has an axis for the heads or for the groups of its norm.
fn shape_of_heads(key: WeightKey, spec: &ModelSpec, len: usize) -> Option<Vec<usize>> {
    match key.role {
        Role::RecurrentDecay | Role::RecurrentSkip => Some(vec![len, 1]),
        Role::RecurrentNorm => {
            let groups = spec.layers[key.layer].recurrent()?.norm.groups;
            Some(vec![groups, len / groups])
        }
        _ => None,
    }
}

fn attention(spec: &ModelSpec, layer: usize) -> &AttentionSpec {
    spec.layers[layer].attention().unwrap_or_else(|| panic!("layer {layer} has no plain attention"))
}

fn in_layer(spec: &ModelSpec, template: &str, layer: usize) -> String {
    let TensorNames { prefix, sub_layers, .. } = spec.names;
    let (stored, sub_layer) = (layer / sub_layers, layer % sub_layers);
    format!("{prefix}{template}").replace("{l}", &stored.to_string()).replace("{s}", &sub_layer.to_string())
}

fn bias_of(name: &str) -> String {
    match name.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.bias"),
        None => format!("{name}.bias"),
    }
}
