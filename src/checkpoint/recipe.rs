//! Which stored tensors a weight is made of, and how its rows lie in them.

use super::float8;
use super::header::StoredTensor;
use super::{mxfp4, recurrent};
use crate::spec::{
    AbsorbedNames, AttentionSpec, ExpertStorage, Kind, LatentSpec, ModelSpec, OnDisk, QkvStorage, Role, RoleFacts, StorageOf,
    Template, TensorNames, WeightKey,
};
use crate::{Error, Result};
use std::ops::Range;

/// A weight as rows of `cols` values out of stored tensors. A vector is a column: its recipe has one value per row.
pub(super) struct Recipe {
    pub parts: Vec<Part>,
    pub order: Order,
    pub cols: usize,
}

/// How parts make a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// One part follows the other.
    After,
    /// Their rows take turns.
    Turns,
    /// Each row of the whole is one row of every part.
    Beside,
}

/// Rows out of one stored tensor.
pub(super) struct Part {
    pub tensor: Needed,
    pub rows: usize,
    pub cols: usize,
    pub layout: Layout,
    pub change: Change,
}

/// What becomes of a value that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// `-exp(x)`: logarithms of decays are stored.
    NegativeExp,
    /// `x + 1`: weights of norms are stored less one.
    PlusOne,
}

impl Change {
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Change::None => {}
            Change::PlusOne => values.iter_mut().for_each(|value| *value += 1.0),
            Change::NegativeExp => values.iter_mut().for_each(|value| *value = -f64::from(*value).exp() as f32),
        }
    }
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
            part.tensor.or_shape = recurrent::shape_of_heads(spec, key, cols);
            Recipe::one(part)
        };
        let expert = weight.experts.map(|experts| (key.expert, experts.count));
        let mlp = Mlp { spec, layer: key.layer, expert, rows, cols };
        let stored = |storage: StorageOf| storage(spec, key.layer);
        let RoleFacts { kind, on_disk, .. } = *key.role.facts();
        match on_disk {
            OnDisk::Whole(template) if matches!(key.role, Role::QueryNorm | Role::KeyNorm) => {
                vector(name(template)).recentred(spec)
            }
            OnDisk::Whole(template) if kind == Kind::Vector => vector(name(template)),
            OnDisk::Whole(template) => Recipe::one(Part::matrix(name(template), rows, cols)),
            OnDisk::Leading(template) => {
                let mut part = Part::vector(name(template), cols);
                part.tensor.or_shape = Some(vec![1, cols]);
                Recipe::one(part)
            }
            OnDisk::BiasOf(template) => vector(bias_of(&name(template))),
            OnDisk::Norm(template) => Recipe::norm(name(template), rows == 2, cols).recentred(spec),
            OnDisk::Convolution(template) => Recipe::one(Part::convolution(name(template), rows, cols)),
            OnDisk::Recurrent => recurrent::of(spec, key, [rows, cols]),
            OnDisk::Stacked(template) => {
                let tensor = Needed::numbers(name(template), vec![weight.copies(), rows, cols]);
                let layout = Layout::Rows { first: (key.expert * rows * cols) as u64 };
                Recipe::one(Part { tensor, rows, cols, layout, change: Change::None })
            }
            OnDisk::Qkv => qkv(spec, key.layer, rows, &|name, rows| Part::matrix(name, rows, cols)),
            OnDisk::QkvBias => qkv(spec, key.layer, cols, &|name, rows| Part::vector(bias_of(&name), rows)),
            OnDisk::AttentionGate => attention_gate(spec, key.layer, rows, cols),
            OnDisk::LatentUp { keys } => latent_up(spec, key.layer, keys),
            OnDisk::Router => router(spec, key.layer, rows, cols),
            OnDisk::GateUp(storage) => mlp.gate_up(&stored(storage)),
            OnDisk::GateUpBias(storage) => mlp.gate_up_bias(&stored(storage)),
            OnDisk::Down(storage) => mlp.down(&stored(storage)),
            OnDisk::DownBias(storage) => mlp.down_bias(&stored(storage)),
        }
    }

    /// Which rows of each part are among `rows` of the whole.
    pub fn rows_of_parts(&self, rows: &Range<usize>) -> Vec<Range<usize>> {
        let count = self.parts.len();
        let mut first = 0;
        let of_part = |(index, part): (usize, &Part)| {
            let before = |row: usize| match self.order {
                Order::Turns => (row + count - 1 - index) / count,
                Order::After => row.clamp(first, first + part.rows) - first,
                Order::Beside => row,
            };
            let range = before(rows.start)..before(rows.end);
            first += part.rows;
            range
        };
        self.parts.iter().enumerate().map(of_part).collect()
    }

    /// Puts together what has been read of each part, rows of `width`, for `rows` of the whole.
    pub fn joined<T: Copy>(&self, mut pieces: Vec<Vec<T>>, width: usize, rows: Range<usize>) -> Vec<T> {
        if pieces.len() == 1 {
            return pieces.swap_remove(0);
        }
        let mut joined = Vec::with_capacity(rows.len() * width);
        match self.order {
            Order::After => return pieces.concat(),
            Order::Beside => {
                for row in 0..rows.len() {
                    for (piece, part) in pieces.iter().zip(&self.parts) {
                        let width = width * part.cols / self.cols;
                        joined.extend_from_slice(&piece[row * width..][..width]);
                    }
                }
                return joined;
            }
            Order::Turns => {}
        }
        let mut unused: Vec<_> = pieces.iter().map(|piece| piece.chunks_exact(width)).collect();
        for row in rows {
            joined.extend_from_slice(unused[row % pieces.len()].next().expect("each part holds its share of the rows"));
        }
        joined
    }

    pub fn one(part: Part) -> Self {
        Recipe::after(vec![part])
    }

    /// # Panics
    /// Without a part.
    pub fn after(parts: Vec<Part>) -> Self {
        Recipe { cols: parts[0].cols, parts, order: Order::After }
    }

    pub fn beside(parts: Vec<Part>) -> Self {
        Recipe { cols: parts.iter().map(|part| part.cols).sum(), parts, order: Order::Beside }
    }

    /// With one added to the weight of a norm, where that is stored so.
    fn recentred(mut self, spec: &ModelSpec) -> Self {
        if spec.names.zero_centred_norms {
            self.parts[0].change = Change::PlusOne;
        }
        self
    }

    fn turns(gate: Part, up: Part) -> Self {
        Recipe { cols: gate.cols, parts: vec![gate, up], order: Order::Turns }
    }

    fn norm(name: String, bias: bool, len: usize) -> Self {
        let bias = bias.then(|| Part::vector(bias_of(&name), len));
        Recipe::after([Part::vector(name, len)].into_iter().chain(bias).collect())
    }
}

impl Part {
    fn of(tensor: Needed, rows: usize, cols: usize) -> Self {
        Part { tensor, rows, cols, layout: Layout::Rows { first: 0 }, change: Change::None }
    }

    pub fn matrix(name: String, rows: usize, cols: usize) -> Self {
        Part::of(Needed::numbers(name, vec![rows, cols]), rows, cols)
    }

    /// Causal over two positions: `[rows, cols / 2, 2, 1]`.
    fn convolution(name: String, rows: usize, cols: usize) -> Self {
        Part { tensor: Needed::numbers(name.clone(), vec![rows, cols / 2, 2, 1]), ..Part::matrix(name, rows, cols) }
    }

    /// Some of the rows of a matrix.
    pub fn rows_from(name: String, first: usize, [all_rows, rows, cols]: [usize; 3]) -> Self {
        let layout = Layout::Rows { first: (first * cols) as u64 };
        Part { rows, layout, ..Part::matrix(name, all_rows, cols) }
    }

    /// Some of the channels of a causal convolution of each by itself: `[all channels, 1, rows]`.
    pub fn depthwise(name: String, channels: Range<usize>, [all_channels, rows]: [usize; 2]) -> Self {
        let layout = Layout::Columns { first: (channels.start * rows) as u64, stride: rows as u64 };
        // As a GGUF file has it.
        let or_shape = Some(vec![all_channels, rows]);
        let tensor = Needed { or_shape, ..Needed::numbers(name, vec![all_channels, 1, rows]) };
        Part { layout, ..Part::of(tensor, rows, channels.len()) }
    }

    pub fn vector(name: String, len: usize) -> Self {
        Part::vector_of(name, vec![len])
    }

    /// All values of a tensor one after the other.
    pub fn vector_of(name: String, shape: Vec<usize>) -> Self {
        let len = shape.iter().product();
        Part::of(Needed::numbers(name, shape), len, 1)
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
        let tensor = Needed::numbers(self.name(template), self.with_experts(&[rows, cols]));
        Part { layout: Layout::Rows { first: self.skipped(rows * cols) }, ..Part::of(tensor, rows, cols) }
    }

    /// One vector out of `[E, len]`, or all of `[len]`.
    fn stacked_bias(&self, name: String, len: usize) -> Part {
        let tensor = Needed::numbers(name, self.with_experts(&[len]));
        Part { layout: Layout::Rows { first: self.skipped(len) }, ..Part::of(tensor, len, 1) }
    }

    /// The columns `rows` of one matrix out of `[E, cols, stride]`.
    fn transposed(&self, template: &str, rows: Range<usize>, stride: usize, cols: usize) -> Part {
        let tensor = Needed::numbers(self.name(template), self.with_experts(&[cols, stride]));
        let layout = Layout::Columns { first: self.skipped(cols * stride) + rows.start as u64, stride: stride as u64 };
        Part { layout, ..Part::of(tensor, rows.len(), cols) }
    }

    fn mxfp4(&self, template: &str, rows: usize, cols: usize) -> Part {
        let (name, blocks) = (self.name(template), cols / mxfp4::BLOCK);
        let scales = Needed::bytes(format!("{name}_scales"), self.with_experts(&[rows, blocks]));
        let tensor = Needed::bytes(format!("{name}_blocks"), self.with_experts(&[rows, blocks, mxfp4::BLOCK_BYTES]));
        Part { layout: Layout::Mxfp4 { first_row: self.skipped(rows), scales }, ..Part::of(tensor, rows, cols) }
    }

    /// One expert's rows out of `[E inner, hidden]`.
    fn row_block(&self, template: &str, inner: usize, hidden: usize) -> Part {
        let num_experts = self.expert.map_or(1, |(_, num_experts)| num_experts);
        let tensor = Needed::numbers(self.name(template), vec![num_experts * inner, hidden]);
        Part { layout: Layout::Rows { first: self.skipped(inner * hidden) }, ..Part::of(tensor, inner, hidden) }
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
    Recipe::after(templates.into_iter().map(part).collect())
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
        // Only matrices are stored so.
        QkvStorage::Gated { query, key, value } => {
            let queries = gated_rows(spec, layer, query, 0);
            let others = [heads(key, attention.num_kv_heads), part(name(value), attention.value_rows())];
            queries.into_iter().chain(others).collect()
        }
        // Only matrices are stored so; `part` would give the whole tensor.
        QkvStorage::Paired { first, second, .. } => return paired(spec, layer, [name(first), name(second)]),
    };
    Recipe::after(parts)
}

/// The queries, or from `head_dim` on the gates, of a matrix that has both head by head.
fn gated_rows(spec: &ModelSpec, layer: usize, template: &str, first: usize) -> Vec<Part> {
    let attention = attention(spec, layer);
    let (head_dim, all_rows) = (attention.head_dim, 2 * attention.query_width());
    let name = in_layer(spec, template, layer);
    let head = |head: usize| Part::rows_from(name.clone(), 2 * head * head_dim + first, [all_rows, head_dim, spec.hidden_size]);
    (0..attention.num_heads).map(head).collect()
}

fn attention_gate(spec: &ModelSpec, layer: usize, rows: usize, cols: usize) -> Recipe {
    match spec.names.qkv {
        QkvStorage::Gated { query, .. } => Recipe::after(gated_rows(spec, layer, query, attention(spec, layer).head_dim)),
        _ => Recipe::one(Part::matrix(in_layer(spec, spec.names.attention_gate, layer), rows, cols)),
    }
}

/// All queries, then all keys, out of two tensors that together hold each head's query and then its key.
fn paired(spec: &ModelSpec, layer: usize, names: [String; 2]) -> Recipe {
    let attention = attention(spec, layer);
    let (head_dim, width, cols) = (attention.head_dim, attention.query_width(), spec.hidden_size);
    let block = |index: usize| {
        let (tensor, first) = (index * head_dim / width, index * head_dim % width);
        Part::rows_from(names[tensor].clone(), first, [width, head_dim, cols])
    };
    let heads = 0..attention.num_heads;
    let parts = heads.clone().map(|head| block(2 * head)).chain(heads.map(|head| block(2 * head + 1)));
    Recipe::after(parts.collect())
}

/// The rows that make keys out of the latent, each head's transposed, or those that make values.
fn latent_up(spec: &ModelSpec, layer: usize, keys: bool) -> Recipe {
    let latent = spec.layers[layer].latent().unwrap_or_else(|| panic!("layer {layer} has no latent attention"));
    let LatentSpec { num_heads, latent_dim, nope_dim, value_dim, .. } = *latent;
    if let Some(AbsorbedNames { key_up, value_up }) = spec.names.latent.absorbed {
        let (template, rows, cols) = if keys { (key_up, latent_dim, nope_dim) } else { (value_up, value_dim, latent_dim) };
        let tensor = Needed::numbers(in_layer(spec, template, layer), vec![num_heads, rows, cols]);
        return Recipe::one(Part::of(tensor, num_heads * rows, cols));
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
        Part { layout, ..Part::of(Needed::numbers(name.clone(), shape), rows, cols) }
    };
    Recipe::after((0..num_heads).map(head).collect())
}

fn attention(spec: &ModelSpec, layer: usize) -> &AttentionSpec {
    spec.layers[layer].attention().unwrap_or_else(|| panic!("layer {layer} has no plain attention"))
}

pub(super) fn in_layer(spec: &ModelSpec, template: &str, layer: usize) -> String {
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
