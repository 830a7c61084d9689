//! How large a model is, from its spec alone.

use super::{
    AttentionSpec, Ffn, LatentSpec, LayerSpec, MambaSpec, Mixer, MlpSpec, ModelSpec, MoeSpec, NormSpec, ParallelInputs,
    ParallelSpec, QkNormOver, Residual,
};
use crate::gating::RouterSpec;
use crate::quant::{CacheFormat, Quant, QuantFormat};
use crate::tensor::Dtype;

/// Counts of parameters, all layers together. Biases count with what they belong to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parameters {
    pub embedding: u64,
    /// Zero where the head is the embedding table and has no bias.
    pub head: u64,
    /// With the norms of query and key, and the sinks.
    pub attention: u64,
    /// Of those the query and output projections that one token does not use, with their rows of the router.
    pub attention_idle: u64,
    /// Those of the residual stream.
    pub norms: u64,
    /// MLPs of layers without experts, and those that run beside experts.
    pub dense: u64,
    /// Experts that every token uses.
    pub shared: u64,
    pub router: u64,
    pub experts: u64,
    /// The router's rows of the experts that one token uses.
    pub router_active: u64,
    /// The experts that one token uses.
    pub experts_active: u64,
}

/// `copies` weights of `[rows, cols]`.
struct Weight {
    copies: usize,
    rows: usize,
    cols: usize,
    /// Stays f32 on the device, whatever the matrices are.
    stays_f32: bool,
}

impl Weight {
    fn matrix(rows: usize, cols: usize) -> Self {
        Weight { copies: 1, rows, cols, stays_f32: false }
    }

    fn vector(len: usize) -> Self {
        Weight { copies: 1, rows: 1, cols: len, stays_f32: true }
    }

    fn count(&self) -> u64 {
        self.copies as u64 * self.rows as u64 * self.cols as u64
    }

    fn bytes(&self, quant: Quant) -> u64 {
        let quant = if self.stays_f32 { QuantFormat::exact_for(Dtype::F32) } else { quant };
        self.copies as u64 * self.rows as u64 * quant.row_bytes(self.cols) as u64
    }
}

/// The weights of one layer by what they are for.
struct LayerWeights {
    attention: Vec<Weight>,
    norms: Vec<Weight>,
    dense: Vec<Weight>,
    shared: Vec<Weight>,
    router: Vec<Weight>,
    experts: Vec<Weight>,
}

impl LayerWeights {
    fn of(hidden: usize, spec: &LayerSpec) -> Self {
        let mut num_norms = if spec.residual == Residual::Sandwich { 4 } else { 2 };
        if let Ffn::Parallel(parallel) = &spec.ffn {
            num_norms += usize::from(parallel.inputs != ParallelInputs::Same) + 2 * usize::from(parallel.post_norms);
        }
        let mut weights = LayerWeights {
            attention: match &spec.mixer {
                Mixer::Attention(spec) => attention(hidden, spec),
                Mixer::Latent(spec) => latent(hidden, spec),
                Mixer::Mamba(spec) => mamba(hidden, spec),
            },
            norms: (0..num_norms).map(|_| norm(hidden, spec.norm)).collect(),
            dense: Vec::new(),
            shared: Vec::new(),
            router: Vec::new(),
            experts: Vec::new(),
        };
        match &spec.ffn {
            Ffn::Dense(spec) => weights.dense = mlp(hidden, spec),
            Ffn::Moe(moe) => weights.add_experts(hidden, moe),
            Ffn::Parallel(ParallelSpec { dense, moe, .. }) => {
                weights.dense = mlp(hidden, dense);
                weights.add_experts(hidden, moe);
            }
        }
        weights.dense.extend(spec.ffn_bias.then(|| Weight::vector(hidden)));
        weights.norms.extend(spec.output_scale.then(|| Weight::vector(1)));
        weights
    }

    fn add_experts(&mut self, hidden: usize, moe: &MoeSpec) {
        self.router = router(hidden, moe);
        self.experts = mlp(hidden, &moe.expert);
        self.experts.iter_mut().for_each(|weight| weight.copies = moe.router.num_weighted());
        if let Some(shared) = &moe.shared {
            self.shared = mlp(hidden, &shared.mlp);
            self.shared.extend(shared.gate.then(|| Weight::vector(hidden)));
        }
    }

    fn all(&self) -> impl Iterator<Item = &Weight> {
        [&self.attention, &self.norms, &self.dense, &self.shared, &self.router, &self.experts].into_iter().flatten()
    }
}

fn norm(hidden: usize, spec: NormSpec) -> Weight {
    Weight { rows: 1 + usize::from(spec.bias), ..Weight::vector(hidden) }
}

fn attention(hidden: usize, spec: &AttentionSpec) -> Vec<Weight> {
    let mut weights = vec![Weight::matrix(spec.projected_rows(), hidden)];
    match &spec.choice {
        Some(choice) => weights.extend(choice_weights(hidden, spec, choice)),
        None => weights.push(Weight::matrix(hidden, spec.output_width())),
    }
    if let Some(filter) = &spec.filter {
        weights.extend([
            Weight::matrix(spec.num_kv_heads * spec.value_dim, hidden),
            Weight::matrix(filter.middle, 2 * hidden),
            Weight::vector(filter.middle),
            Weight::matrix(hidden, 2 * filter.middle),
            Weight::vector(hidden),
            Weight::vector(hidden),
        ]);
    }
    weights.extend(spec.output_gate.then(|| Weight::matrix(spec.output_width(), hidden)));
    weights.extend(spec.qkv_bias.then(|| Weight::vector(spec.projected_rows())));
    weights.extend(spec.output_bias.then(|| Weight::vector(hidden)));
    weights.extend(spec.sinks.then(|| Weight::vector(spec.num_heads)));
    if let Some(norm) = spec.qk_norm.filter(|norm| norm.weight) {
        let heads = match norm.over {
            QkNormOver::Head => [1, 1],
            QkNormOver::AllHeads => [spec.num_heads, spec.num_kv_heads],
        };
        weights.extend(heads.map(|heads| Weight::vector(heads * spec.head_dim)));
    }
    weights
}

/// The router that chooses among query and output projections, and those.
fn choice_weights(hidden: usize, spec: &AttentionSpec, choice: &RouterSpec) -> [Weight; 3] {
    let copies = choice.num_experts;
    [
        Weight { copies, stays_f32: true, ..Weight::matrix(1, hidden) },
        Weight { copies, ..Weight::matrix(spec.choice_width(), hidden) },
        Weight { copies, ..Weight::matrix(hidden, spec.choice_width()) },
    ]
}

fn latent(hidden: usize, spec: &LatentSpec) -> Vec<Weight> {
    let mut weights = match spec.query_rank {
        Some(rank) => {
            vec![Weight::matrix(rank, hidden), Weight::vector(rank), Weight::matrix(spec.query_width(), rank)]
        }
        None => vec![Weight::matrix(spec.query_width(), hidden)],
    };
    weights.extend([
        Weight::matrix(spec.cache_dim(), hidden),
        Weight::vector(spec.latent_dim),
        Weight::matrix(spec.num_heads * spec.latent_dim, spec.nope_dim),
        Weight::matrix(spec.output_width(), spec.latent_dim),
        Weight::matrix(hidden, spec.output_width()),
    ]);
    weights
}

fn mamba(hidden: usize, spec: &MambaSpec) -> Vec<Weight> {
    let MambaSpec { inner_size: inner, state_size: state, conv_len, step_rank, .. } = *spec;
    let mut weights = vec![
        Weight::matrix(2 * inner, hidden),
        Weight { stays_f32: true, ..Weight::matrix(inner, conv_len) },
        Weight::matrix(step_rank + 2 * state, inner),
        Weight::matrix(inner, step_rank),
        Weight::vector(inner),
        Weight { stays_f32: true, ..Weight::matrix(inner, state) },
        Weight::vector(inner),
        Weight::matrix(hidden, inner),
    ];
    weights.extend(spec.conv_bias.then(|| Weight::vector(inner)));
    weights.extend(spec.proj_bias.then(|| Weight::vector(2 * inner + hidden)));
    weights.extend(spec.inner_norms.then(|| Weight::vector(step_rank + 2 * state)));
    weights
}

fn mlp(hidden: usize, spec: &MlpSpec) -> Vec<Weight> {
    let gate_up = 2 * spec.intermediate_size;
    let mut weights = vec![Weight::matrix(gate_up, hidden), Weight::matrix(hidden, spec.intermediate_size)];
    if spec.bias {
        weights.extend([Weight::vector(gate_up), Weight::vector(hidden)]);
    }
    weights
}

fn router(hidden: usize, spec: &MoeSpec) -> Vec<Weight> {
    let num_experts = spec.router.num_experts;
    let stays_f32 = true;
    let mut weights = vec![Weight { stays_f32, ..Weight::matrix(spec.router.rows(), spec.router.hidden.unwrap_or(hidden)) }];
    weights.extend(spec.router.hidden.map(|middle| Weight { stays_f32, ..Weight::matrix(middle, hidden) }));
    weights.extend(spec.router.input_norm.map(|_| Weight::vector(hidden)));
    weights.extend(spec.router.expert_scale.then(|| Weight::vector(num_experts)));
    weights.extend(spec.router.bias.then(|| Weight::vector(num_experts)));
    weights.extend(spec.router.selection_bias.then(|| Weight::vector(num_experts)));
    weights
}

impl Parameters {
    /// Counts the parameters of `spec`.
    pub fn of(spec: &ModelSpec) -> Self {
        let sum = |weights: &[Weight]| weights.iter().map(Weight::count).sum::<u64>();
        let table = Weight::matrix(spec.vocab_size, spec.hidden_size).count();
        let bias = if spec.head_bias { spec.vocab_size as u64 } else { 0 };
        let mut counts = Parameters {
            embedding: table,
            head: bias + if spec.tied_embeddings { 0 } else { table },
            norms: norm(spec.hidden_size, spec.final_norm).count(),
            ..Parameters::default()
        };
        for layer in &spec.layers {
            let weights = LayerWeights::of(spec.hidden_size, layer);
            counts.attention += sum(&weights.attention);
            counts.norms += sum(&weights.norms);
            counts.dense += sum(&weights.dense);
            counts.shared += sum(&weights.shared);
            counts.router += sum(&weights.router);
            counts.experts += sum(&weights.experts);
            if let Mixer::Attention(AttentionSpec { choice: Some(choice), .. }) = &layer.mixer {
                let (num_experts, num_active) = (choice.num_experts as u64, choice.num_experts_per_tok as u64);
                let of_experts = sum(&choice_weights(spec.hidden_size, layer.mixer.attention().expect("it is one"), choice));
                counts.attention_idle += of_experts / num_experts * (num_experts - num_active);
            }
            if let Some(moe) = layer.ffn.moe() {
                let (num_experts, num_active) = (moe.router.num_experts as u64, moe.router.num_experts_per_tok as u64);
                counts.router_active += sum(&weights.router) / num_experts * num_active;
                counts.experts_active += sum(&weights.experts) / num_experts * num_active;
            }
        }
        counts
    }

    /// All parameters.
    pub fn total(&self) -> u64 {
        self.without_experts() + self.router + self.experts
    }

    /// The parameters of the same model with only as many experts as one token uses. Embedding and head count whole, and an
    /// expert that is not used does not count with its row of the router either; so Mixtral 8x7B has 12.9 B and 8x22B 39.1 B.
    pub fn active(&self) -> u64 {
        self.without_experts() - self.attention_idle + self.router_active + self.experts_active
    }

    /// Multiplications and additions of one token, beside its attention to earlier ones: two for each weight that it meets. The embedding is
    /// a lookup, and every row of a router counts.
    pub fn flops_per_token(&self) -> u64 {
        let table = if self.head >= self.embedding { self.embedding } else { 0 };
        2 * (self.active() - table + self.router - self.router_active)
    }

    /// Those of a dense model of so many parameters as one token uses here.
    pub fn flops_of_dense(&self) -> u64 {
        self.flops_per_token() - 2 * (self.router - self.router_active)
    }

    fn without_experts(&self) -> u64 {
        self.embedding + self.head + self.attention + self.norms + self.dense + self.shared
    }
}

impl ModelSpec {
    /// Bytes of all weights in device memory with matrices in `quant`. Routers and everything that is a vector stay f32, and a head that
    /// `quant` spares counts as 16 bits.
    pub fn weight_bytes(&self, quant: Quant) -> u64 {
        let table = Weight::matrix(self.vocab_size, self.hidden_size);
        let embedding = if self.tied_embeddings { 0 } else { table.bytes(quant) };
        let mut total = embedding + table.bytes(quant.usual_head()) + norm(self.hidden_size, self.final_norm).bytes(quant);
        if self.head_bias {
            total += Weight::vector(self.vocab_size).bytes(quant);
        }
        for layer in &self.layers {
            total += LayerWeights::of(self.hidden_size, layer).all().map(|weight| weight.bytes(quant)).sum::<u64>();
        }
        total
    }

    /// Bytes of weights that one decode step reads with matrices in `quant`: of the routed experts those that a token uses, of the embedding
    /// one row, all else whole.
    pub fn active_weight_bytes(&self, quant: Quant) -> u64 {
        let table = Weight::matrix(self.vocab_size, self.hidden_size);
        let row = Weight::matrix(1, self.hidden_size);
        let mut total = table.bytes(quant.usual_head()) + row.bytes(quant) + norm(self.hidden_size, self.final_norm).bytes(quant);
        for layer in &self.layers {
            let weights = LayerWeights::of(self.hidden_size, layer);
            let experts: u64 = weights.experts.iter().map(|weight| weight.bytes(quant)).sum();
            total += weights.all().map(|weight| weight.bytes(quant)).sum::<u64>() - experts;
            if let Some(moe) = layer.ffn.moe() {
                let (used, of) =
                    (moe.router.num_experts_per_tok.min(moe.router.num_weighted()), moe.router.num_weighted().max(1));
                total += experts / of as u64 * used as u64;
            }
            if let Some(choice) = layer.mixer.attention().and_then(|attention| attention.choice.as_ref()) {
                let attention = layer.mixer.attention().expect("it has a choice");
                let [_, query, output] = choice_weights(self.hidden_size, attention, choice);
                let all = query.bytes(quant) + output.bytes(quant);
                total -= all / choice.num_experts as u64 * (choice.num_experts - choice.num_experts_per_tok) as u64;
            }
        }
        total
    }

    /// Bytes of the KV cache per token: a key and a value of every layer, or the one row that stands for both, in `cache`, and what a filter
    /// remembers in f32.
    pub fn kv_bytes_per_token(&self, cache: CacheFormat) -> u64 {
        let bytes = self.layers.iter().map(|layer| match &layer.mixer {
            Mixer::Attention(attention) => {
                let filtered = attention.filter.map_or(0, |filter| self.hidden_size + filter.middle);
                cache.bytes(attention.num_kv_heads * (attention.head_dim + attention.value_dim)) + 4 * filtered
            }
            Mixer::Latent(latent) => cache.bytes(latent.cache_dim()),
            // Its state is the same for any length.
            Mixer::Mamba(_) => 0,
        });
        bytes.map(|bytes| bytes as u64).sum()
    }
}
