//! Which stored tensors a weight is made of, and how its rows lie in them.

use super::canonical::{WeightKey, attention, choice, latent, moe};
use super::float8;
use super::header::{StoredTensor, readable};
use super::mxfp4;
use crate::spec::{ExpertStorage, Ffn, LatentSpec, ModelSpec, QkvStorage, TensorNames};
use crate::{Error, Result};

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
    /// One more leading axis of length one is as good.
    pub leading_one: bool,
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

impl WeightKey {
    /// What the weight is made of.
    pub(super) fn recipe(self, spec: &ModelSpec) -> Recipe {
        let names = &spec.names;
        let (rows, cols) = self.shape(spec);
        let top = |template: &str| format!("{}{template}", names.prefix);
        let matrix = |name: String| Recipe::one(Part::matrix(name, rows, cols));
        let vector = |name: String| Recipe::one(Part::vector(name, cols));
        let norm = |name: String| Recipe::norm(name, rows == 2, cols);
        match self {
            WeightKey::Embedding => matrix(top(names.embedding)),
            WeightKey::Head if spec.tied_embeddings => matrix(top(names.embedding)),
            WeightKey::Head => matrix(top(names.head)),
            WeightKey::HeadBias => vector(bias_of(&top(names.head))),
            WeightKey::FinalNorm => norm(top(names.final_norm)),
            WeightKey::AttentionNorm { layer } => norm(in_layer(names, &top(names.attention_norm), layer)),
            WeightKey::AttentionPostNorm { layer } => norm(in_layer(names, &top(names.attention_post_norm), layer)),
            WeightKey::FfnNorm { layer } => norm(in_layer(names, &top(names.ffn_norm), layer)),
            WeightKey::FfnPostNorm { layer } => norm(in_layer(names, &top(names.ffn_post_norm), layer)),
            WeightKey::Qkv { layer } => qkv(spec, layer, &|name, rows| Part::matrix(name, rows, cols)),
            WeightKey::QkvBias { layer } => qkv(spec, layer, &|name, rows| Part::vector(bias_of(&name), rows)),
            WeightKey::Value { layer } => matrix(in_layer(names, &top(value_name(names)), layer)),
            WeightKey::FilterFirst { layer } => {
                Recipe::one(Part::convolution(in_layer(names, &top(names.filter.first), layer), rows, cols))
            }
            WeightKey::FilterFirstBias { layer } => vector(bias_of(&in_layer(names, &top(names.filter.first), layer))),
            WeightKey::FilterSecond { layer } => {
                Recipe::one(Part::convolution(in_layer(names, &top(names.filter.second), layer), rows, cols))
            }
            WeightKey::FilterSecondBias { layer } => vector(bias_of(&in_layer(names, &top(names.filter.second), layer))),
            WeightKey::FilterNorm { layer } => vector(in_layer(names, &top(names.filter.norm), layer)),
            WeightKey::ChoiceRouter { layer } => matrix(in_layer(names, &top(names.choice.router), layer)),
            WeightKey::ChoiceQuery { layer, expert } => {
                let name = in_layer(names, &top(names.choice.query), layer);
                Recipe::one(Part::stacked(name, choice(spec, layer).num_experts, expert, (rows, cols)))
            }
            WeightKey::ChoiceOutput { layer, expert } => {
                let name = in_layer(names, &top(names.choice.output), layer);
                Recipe::one(Part::stacked(name, choice(spec, layer).num_experts, expert, (rows, cols)))
            }
            WeightKey::QueryNorm { layer } => vector(in_layer(names, &top(names.query_norm), layer)),
            WeightKey::KeyNorm { layer } => vector(in_layer(names, &top(names.key_norm), layer)),
            WeightKey::Sinks { layer } => vector(in_layer(names, &top(names.sinks), layer)),
            WeightKey::AttentionGate { layer } => matrix(in_layer(names, &top(names.attention_gate), layer)),
            WeightKey::LatentQueryDown { layer } => matrix(in_layer(names, &top(names.latent.query_down), layer)),
            WeightKey::LatentQueryNorm { layer } => vector(in_layer(names, &top(names.latent.query_norm), layer)),
            WeightKey::LatentQueryUp { layer } => {
                let one = latent(spec, layer).query_rank.is_none();
                matrix(in_layer(names, &top(if one { names.latent.query } else { names.latent.query_up }), layer))
            }
            WeightKey::LatentDown { layer } => matrix(in_layer(names, &top(names.latent.down), layer)),
            WeightKey::LatentNorm { layer } => vector(in_layer(names, &top(names.latent.norm), layer)),
            WeightKey::LatentKeyUp { layer } => latent_up(spec, layer, true),
            WeightKey::LatentValueUp { layer } => latent_up(spec, layer, false),
            WeightKey::AttentionOutput { layer } => matrix(in_layer(names, &top(names.attention_output), layer)),
            WeightKey::AttentionOutputBias { layer } => vector(bias_of(&in_layer(names, &top(names.attention_output), layer))),
            WeightKey::RouterHidden { layer } => matrix(in_layer(names, &top(names.router_hidden), layer)),
            WeightKey::Router { layer } if moe(spec, layer).router.attention => {
                let each = |template: &str| Part::matrix(in_layer(names, &top(template), layer), rows / 3, cols);
                let parts = [names.router, names.router_key, names.router_value].map(each).into();
                Recipe { parts, interleaved: false, cols }
            }
            WeightKey::Router { layer } => matrix(in_layer(names, &top(names.router), layer)),
            WeightKey::RouterNorm { layer } => vector(in_layer(names, &top(names.router_norm), layer)),
            WeightKey::ExpertScale { layer } => vector(in_layer(names, &top(names.expert_scale), layer)),
            WeightKey::RouterBias { layer } => vector(bias_of(&in_layer(names, &top(names.router), layer))),
            WeightKey::SelectionBias { layer } => {
                let mut part = Part::vector(in_layer(names, &top(names.selection_bias), layer), cols);
                part.tensor.leading_one = true;
                Recipe::one(part)
            }
            WeightKey::SharedGate { layer } => matrix(in_layer(names, &top(names.shared_gate), layer)),
            WeightKey::ExpertGateUp { layer, expert } => self.mlp(spec, layer, Some(expert)).gate_up(&names.experts),
            WeightKey::ExpertGateUpBias { layer, expert } => self.mlp(spec, layer, Some(expert)).gate_up_bias(&names.experts),
            WeightKey::ExpertDown { layer, expert } => self.mlp(spec, layer, Some(expert)).down(&names.experts),
            WeightKey::ExpertDownBias { layer, expert } => self.mlp(spec, layer, Some(expert)).down_bias(&names.experts),
            WeightKey::SharedGateUp { layer } => self.mlp(spec, layer, None).gate_up(&names.shared),
            WeightKey::SharedDown { layer } => self.mlp(spec, layer, None).down(&names.shared),
            WeightKey::ParallelNorm { layer } => norm(in_layer(names, &top(names.parallel_norm), layer)),
            WeightKey::ParallelPostNorm { layer } => norm(in_layer(names, &top(names.parallel_post_norm), layer)),
            WeightKey::ExpertPostNorm { layer } => norm(in_layer(names, &top(names.expert_post_norm), layer)),
            WeightKey::FfnBias { layer } => vector(in_layer(names, &top(names.ffn_bias), layer)),
            WeightKey::OutputScale { layer } => vector(in_layer(names, &top(names.output_scale), layer)),
            WeightKey::DenseGateUp { layer } => self.mlp(spec, layer, None).gate_up(dense_storage(spec, layer)),
            WeightKey::DenseDown { layer } => self.mlp(spec, layer, None).down(dense_storage(spec, layer)),
        }
    }

    fn mlp(self, spec: &ModelSpec, layer: usize, expert: Option<usize>) -> Mlp<'_> {
        let expert = expert.map(|expert| (expert, moe(spec, layer).router.num_weighted()));
        Mlp { names: &spec.names, layer, expert, hidden: spec.hidden_size, inner: self.inner_size(spec, layer) }
    }
}

impl Recipe {
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

    /// Matrix `index` of `[count, rows, cols]`.
    fn stacked(name: String, count: usize, index: usize, (rows, cols): (usize, usize)) -> Self {
        let layout = Layout::Rows { first: (index * rows * cols) as u64 };
        Part { tensor: Needed::numbers(name, vec![count, rows, cols]), rows, cols, layout }
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
        Needed { name, shape, leading_one: false, is_bytes: false }
    }

    fn bytes(name: String, shape: Vec<usize>) -> Self {
        Needed { name, shape, leading_one: false, is_bytes: true }
    }

    /// The factors of a matrix that is `stored` in eight bits, in blocks that share one.
    pub fn float8_scales(&self, stored: &StoredTensor, block: [usize; 2]) -> Option<Needed> {
        match *self.shape.as_slice() {
            [rows, cols] if !self.is_bytes && stored.dtype == float8::DTYPE => {
                let shape = vec![rows.div_ceil(block[0]), cols.div_ceil(block[1])];
                Some(Needed::numbers(float8::scales_of(&self.name), shape))
            }
            _ => None,
        }
    }

    /// Whether `stored` has the shape and the number format; `float8`: a matrix may be in eight bits.
    pub fn check(&self, stored: &StoredTensor, float8: bool) -> Result<()> {
        let found = match stored.shape.as_slice() {
            [1, rest @ ..] if self.leading_one && !rest.is_empty() => rest,
            shape => shape,
        };
        if found != self.shape {
            let (expected, found) = (self.shape.clone(), stored.shape.clone());
            return Err(Error::TensorShape { name: self.name.clone(), expected, found });
        }
        let (fits, expected) = match self.shape.as_slice() {
            _ if self.is_bytes => (stored.dtype == safetensors::Dtype::U8, "U8"),
            [_, _] if float8 => (readable(stored.dtype).is_some() || stored.dtype == float8::DTYPE, "F32, F16, BF16, F8_E4M3"),
            _ => (readable(stored.dtype).is_some(), "F32, F16, BF16"),
        };
        if fits {
            return Ok(());
        }
        Err(Error::TensorDtype { name: self.name.clone(), expected, found: stored.dtype.to_string() })
    }
}

/// The three projections of one expert, or of an MLP that every token uses.
struct Mlp<'a> {
    names: &'a TensorNames,
    layer: usize,
    /// Which of how many; `None` for one by itself.
    expert: Option<(usize, usize)>,
    hidden: usize,
    inner: usize,
}

impl Mlp<'_> {
    fn gate_up(&self, storage: &ExpertStorage) -> Recipe {
        let (hidden, inner) = (self.hidden, self.inner);
        match *storage {
            ExpertStorage::Each { gate, up, .. } => {
                Recipe::turns(Part::matrix(self.name(gate), inner, hidden), Part::matrix(self.name(up), inner, hidden))
            }
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
            ExpertStorage::Transposed { gate_up, interleaved: true, .. } => {
                Recipe::one(self.transposed(gate_up, 0..2 * inner, 2 * inner, hidden))
            }
            ExpertStorage::Transposed { gate_up, .. } => Recipe::turns(
                self.transposed(gate_up, 0..inner, 2 * inner, hidden),
                self.transposed(gate_up, inner..2 * inner, 2 * inner, hidden),
            ),
            ExpertStorage::Mxfp4 { gate_up, .. } => Recipe::one(self.mxfp4(gate_up, 2 * inner, hidden)),
            ExpertStorage::RowBlocks { gate, up, .. } => Recipe::turns(self.row_block(gate), self.row_block(up)),
        }
    }

    fn down(&self, storage: &ExpertStorage) -> Recipe {
        let (hidden, inner) = (self.hidden, self.inner);
        Recipe::one(match *storage {
            ExpertStorage::Each { down, .. } | ExpertStorage::EachFused { down, .. } => {
                Part::matrix(self.name(down), hidden, inner)
            }
            ExpertStorage::Stacked { down, .. } => self.stacked(down, hidden, inner),
            ExpertStorage::Transposed { down, .. } => self.transposed(down, 0..hidden, hidden, inner),
            ExpertStorage::Mxfp4 { down, .. } => self.mxfp4(down, hidden, inner),
            ExpertStorage::RowBlocks { down, .. } => Part {
                rows: hidden,
                cols: inner,
                layout: Layout::Columns { first: self.skipped(inner * hidden), stride: hidden as u64 },
                ..self.row_block(down)
            },
        })
    }

    fn gate_up_bias(&self, storage: &ExpertStorage) -> Recipe {
        let inner = self.inner;
        match *storage {
            ExpertStorage::Each { gate, up, .. } | ExpertStorage::RowBlocks { gate, up, .. } => {
                Recipe::turns(Part::vector(bias_of(&self.name(gate)), inner), Part::vector(bias_of(&self.name(up)), inner))
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
            ExpertStorage::Each { down, .. } | ExpertStorage::EachFused { down, .. } | ExpertStorage::RowBlocks { down, .. } => {
                Part::vector(bias_of(&self.name(down)), self.hidden)
            }
            ExpertStorage::Stacked { down, .. } => self.stacked_bias(bias_of(&self.name(down)), self.hidden),
            ExpertStorage::Transposed { down, .. } | ExpertStorage::Mxfp4 { down, .. } => {
                self.stacked_bias(format!("{}_bias", self.name(down)), self.hidden)
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
    fn transposed(&self, template: &str, rows: std::ops::Range<usize>, stride: usize, cols: usize) -> Part {
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
    fn row_block(&self, template: &str) -> Part {
        let num_experts = self.expert.map_or(1, |(_, num_experts)| num_experts);
        Part {
            tensor: Needed::numbers(self.name(template), vec![num_experts * self.inner, self.hidden]),
            rows: self.inner,
            cols: self.hidden,
            layout: Layout::Rows { first: self.skipped(self.inner * self.hidden) },
        }
    }

    fn name(&self, template: &str) -> String {
        let name = in_layer(self.names, &format!("{}{template}", self.names.prefix), self.layer);
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

fn dense_storage(spec: &ModelSpec, layer: usize) -> &ExpertStorage {
    match &spec.layers[layer].ffn {
        Ffn::Parallel(_) => &spec.names.parallel,
        Ffn::Dense(_) | Ffn::Moe(_) => &spec.names.dense,
    }
}

/// Query, key and value, each made by `part` from a name and a number of rows.
fn qkv(spec: &ModelSpec, layer: usize, part: &dyn Fn(String, usize) -> Part) -> Recipe {
    let attention = attention(spec, layer);
    let name = |template: &str| in_layer(&spec.names, &format!("{}{template}", spec.names.prefix), layer);
    let heads = |template: &str, num_heads: usize| part(name(template), num_heads * attention.head_dim);
    let values = |template: &str| part(name(template), attention.num_kv_heads * attention.value_dim);
    let parts = match spec.names.qkv {
        QkvStorage::Separate { query, key, value } => {
            let value = (!attention.values_are_keys).then(|| values(value));
            [heads(query, attention.num_heads), heads(key, attention.num_kv_heads)].into_iter().chain(value).collect()
        }
        QkvStorage::Fused(fused) => vec![part(name(fused), attention.projected_rows())],
        // Only matrices are stored so; `part` would give the whole tensor.
        QkvStorage::Paired { first, second, .. } => return paired(spec, layer, [name(first), name(second)]),
    };
    Recipe { cols: parts[0].cols, parts, interleaved: false }
}

fn value_name(names: &TensorNames) -> &'static str {
    match names.qkv {
        QkvStorage::Separate { value, .. } | QkvStorage::Paired { value, .. } => value,
        QkvStorage::Fused(fused) => fused,
    }
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
    let LatentSpec { num_heads, latent_dim, nope_dim, value_dim, .. } = *latent(spec, layer);
    let name = in_layer(&spec.names, &format!("{}{}", spec.names.prefix, spec.names.latent.key_value_up), layer);
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

fn in_layer(names: &TensorNames, template: &str, layer: usize) -> String {
    let (stored, sub_layer) = (layer / names.sub_layers, layer % names.sub_layers);
    template.replace("{l}", &stored.to_string()).replace("{s}", &sub_layer.to_string())
}

fn bias_of(name: &str) -> String {
    match name.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.bias"),
        None => format!("{name}.bias"),
    }
}
