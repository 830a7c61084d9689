//! What a step runs on a device, recorded once: the kernels of inference forward, then the way back through the same blocks.

use super::arena::{Arenas, Layout};
use super::blocks::{Attention, Block, Experts};
use crate::error::Result;
use crate::gpu::{Buffer, Device, Recording, Shard, Sharded};
use crate::kernels::{
    Row, adamw, clip, cross_entropy, embed, grad_embed, grad_input, grad_norm, grad_norm_weight, grad_weight, matmul, norm,
    squares,
};
use crate::quant::{F32, padded};
use crate::reference::training::adamw::AdamW;
use crate::spec::{BlockSpec, ModelSpec, NormSpec, Role};

/// The shape of a part of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub windows: usize,
    /// Tokens of a window, which is the context of the KV cache.
    pub seq_len: usize,
    /// Rows that something is learnt about in all parts of a step together.
    pub num_targets: usize,
}

impl Sizes {
    pub fn tokens(&self) -> usize {
        self.windows * self.seq_len
    }
}

/// What the host writes before a step and reads after it.
pub(super) struct Exchange {
    pub rows: Buffer,
    pub targets: Buffer,
    /// Rows of each token, as `grad_embed` reads them.
    pub spans: Buffer,
    pub order: Buffer,
    /// Learning rate, both corrections, both coefficients of the router's losses.
    pub live: Buffer,
    pub control: Buffer,
    /// Losses of all tokens, then the `stats` of every routed layer.
    pub results: Buffer,
    pub results_len: usize,
}

/// Recordings of a step.
pub(super) struct Plan {
    pub exchange: Exchange,
    /// Forgets the gradients.
    pub begin: Recording,
    /// Forward and back; gradients are added.
    pub part: Recording,
    /// Changes the weights.
    pub finish: Recording,
    /// Forward, and the losses alone.
    pub evaluate: Recording,
}

/// What is trained, and where.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub device: &'a Device,
    pub spec: &'a ModelSpec,
    pub layout: &'a Layout,
    pub arenas: &'a Arenas,
}

/// Records.
pub(super) struct Recorder<'a> {
    pub device: &'a Device,
    pub spec: &'a ModelSpec,
    pub layout: &'a Layout,
    pub arenas: &'a Arenas,
    pub sizes: Sizes,
    pub recording: Recording,
    pub exchange: Exchange,
    /// The residual stream, and its gradient: `[tokens, padded(hidden)]`.
    pub x: Buffer,
    pub dx: Buffer,
    /// The gradient of a block's normed input, and the reciprocal roots of its norm.
    pub dnormed: Buffer,
    scales: Buffer,
}

/// A matrix that `y = x W^T` goes through, forward or back.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub role: Role,
    pub layer: usize,
    pub x: &'a Buffer,
    pub y: &'a Buffer,
}

/// What the head needs.
struct Head {
    hidden: Buffer,
    logits: Buffer,
    losses: Buffer,
}

impl Plan {
    /// # Errors
    /// [`Error::DeviceLimit`](crate::Error::DeviceLimit) where something is larger than a binding.
    pub fn record(subject: Subject, sizes: Sizes, optimiser: &AdamW) -> Result<Self> {
        let (mut recorder, arenas) = (Recorder::new(subject, sizes), subject.arenas);
        let blocks = recorder.blocks();
        let head = recorder.head();
        recorder.forward(&blocks, &head)?;
        recorder.loss(&head, Some(1.0 / sizes.num_targets as f32))?;
        recorder.backward(&blocks, &head)?;
        recorder.collect(&blocks, &head);
        let part = std::mem::take(&mut recorder.recording);
        recorder.forward(&blocks, &head)?;
        recorder.loss(&head, None)?;
        recorder.collect(&blocks, &head);
        let evaluate = std::mem::take(&mut recorder.recording);
        recorder.recording.clear(&arenas.gradients);
        let begin = std::mem::take(&mut recorder.recording);
        recorder.optimise(optimiser)?;
        let Recorder { recording: finish, exchange, .. } = recorder;
        Ok(Plan { exchange, begin, part, finish, evaluate })
    }
}

impl<'a> Recorder<'a> {
    fn new(subject: Subject<'a>, sizes: Sizes) -> Recorder<'a> {
        let (Subject { device, spec, layout, arenas }, tokens) = (subject, sizes.tokens());
        let words = |label: &str, len: usize| device.storage(label, 4 * len as u64);
        let stats: usize = spec.moe_layers().map(|(_, moe)| 4 * (moe.router.num_experts + 1)).sum();
        let exchange = Exchange {
            rows: device.storage("rows", (tokens * size_of::<Row>()) as u64),
            targets: words("targets", tokens),
            spans: words("spans", 4 * tokens),
            order: words("order", tokens),
            live: words("live", 8),
            control: words("control", 4),
            results: words("results", tokens + stats),
            results_len: tokens + stats,
        };
        let stream = |label: &str| words(label, tokens * padded(spec.hidden_size));
        let (x, dx, dnormed, scales) = (stream("x"), stream("dx"), stream("dnormed"), words("scales", tokens));
        Recorder { device, spec, layout, arenas, sizes, recording: Recording::default(), exchange, x, dx, dnormed, scales }
    }

    /// Scratch of so many values for each token.
    pub fn per_token(&self, label: &str, len: usize) -> Buffer {
        self.device.storage(label, (4 * self.sizes.tokens() * len) as u64)
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (layer, spec) in self.spec.layers.iter().enumerate() {
            for block in &spec.blocks {
                let width = padded(self.spec.hidden_size);
                let (x, normed) = (self.per_token("kept_x", width), self.per_token("normed", width));
                let norm = block.norm_roles()[0];
                let (attention, experts) = match block {
                    BlockSpec::Attention(attention) => (Some(Attention::new(self, attention)), Vec::new()),
                    BlockSpec::Mlp(mlp) => (None, vec![Experts::of_mlp(self, mlp, [Role::DenseGateUp, Role::DenseDown])]),
                    BlockSpec::Experts(moe) => {
                        let shared = moe
                            .shared
                            .as_ref()
                            .map(|shared| Experts::of_mlp(self, &shared.mlp, [Role::SharedGateUp, Role::SharedDown]));
                        (None, [Experts::routed(self, moe)].into_iter().chain(shared).collect())
                    }
                    _ => unreachable!("the trainer refuses every other block"),
                };
                blocks.push(Block { layer, spec: spec.norm, norm, x, normed, attention, experts });
            }
        }
        blocks
    }

    fn head(&self) -> Head {
        Head {
            hidden: self.per_token("hidden", padded(self.spec.hidden_size)),
            logits: self.per_token("logits", padded(self.spec.vocab_size)),
            losses: self.per_token("losses", 1),
        }
    }

    fn head_role(&self) -> Role {
        if self.spec.tied_embeddings { Role::Embedding } else { Role::Head }
    }

    /// A weight as one piece.
    pub fn matrix(&self, role: Role, layer: usize) -> Sharded {
        let num_rows = self.layout.place(role, layer).rows;
        Sharded { shards: vec![Shard { buffer: self.weight(role, layer), first_row: 0, num_rows }] }
    }

    pub fn weight(&self, role: Role, layer: usize) -> Buffer {
        self.layout.view(&self.arenas.weights, role, layer)
    }

    pub fn gradient(&self, role: Role, layer: usize) -> Buffer {
        self.layout.view(&self.arenas.gradients, role, layer)
    }

    /// `y = x W^T`, or added to it.
    pub fn product(&mut self, product: Product, output: matmul::Output) -> Result<()> {
        let Product { role, layer, x, y } = product;
        let place = self.layout.place(role, layer);
        let problem = matmul::Problem {
            num_tokens: self.sizes.tokens(),
            rows: place.rows,
            cols: place.cols,
            y_stride: padded(place.rows),
            bias: false,
            scale: 1.0,
            output,
            norm: None,
            part: None,
            quant: &F32,
        };
        let weight = self.matrix(role, layer);
        let buffers = matmul::Buffers { x, weight: &weight, bias: None, norm: None, decay: None, y };
        matmul::record(self.device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// Of a product: adds the gradient of its weight, from that of `y`, and writes that of its input.
    pub fn product_back(&mut self, product: Product, dy: &Buffer, dx: &Buffer) -> Result<()> {
        let Product { role, layer, x, .. } = product;
        let place = self.layout.place(role, layer);
        let (num_tokens, rows, cols) = (self.sizes.tokens(), place.rows, place.cols);
        let problem = grad_weight::Problem { num_tokens, rows, cols, accumulate: true, experts: None };
        let dweight = self.gradient(role, layer);
        let buffers = grad_weight::Buffers { dy, x, dweight: &dweight, sorted: None, weights: None };
        grad_weight::record(self.device, &mut self.recording, Some(layer), &problem, &buffers)?;
        let problem = grad_input::Problem { num_tokens, rows, cols, accumulate: false, sort: None };
        let weight = self.weight(role, layer);
        let buffers = grad_input::Buffers { dy, weight: &weight, dx, sorted: None };
        grad_input::record(self.device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// The residual stream through a norm.
    pub fn norm(&mut self, spec: NormSpec, (role, layer): (Role, usize), y: &Buffer) -> Result<()> {
        let (num_tokens, cols) = (self.sizes.tokens(), self.spec.hidden_size);
        let problem =
            norm::Problem { first_row: 0, num_tokens, cols, norm: spec, residual: None, rescale: None, output_scale: false };
        let weight = self.weight(role, layer);
        let buffers = norm::Buffers { x: &self.x, weight: &weight, y, output_scale: None };
        norm::record(self.device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    /// Of a norm of `x`: adds the gradient of its weight, and adds that of `x` to that of the stream, or replaces it.
    fn norm_back(&mut self, spec: NormSpec, (role, layer): (Role, usize), x: &Buffer, replace: bool) -> Result<()> {
        let (num_tokens, cols) = (self.sizes.tokens(), self.spec.hidden_size);
        let problem = grad_norm::Problem { num_tokens, cols, eps: spec.eps, replace };
        let weight = self.weight(role, layer);
        let (dy, scales) = (&self.dnormed, &self.scales);
        let buffers = grad_norm::Buffers { x, weight: &weight, dy, dx: &self.dx, scales };
        grad_norm::record(self.device, &mut self.recording, Some(layer), &problem, &buffers)?;
        let problem = grad_norm_weight::Problem { num_tokens, cols, accumulate: true };
        let dweight = self.gradient(role, layer);
        let buffers = grad_norm_weight::Buffers { x, dy, scales, dweight: &dweight };
        grad_norm_weight::record(self.device, &mut self.recording, Some(layer), &problem, &buffers)
    }

    fn forward(&mut self, blocks: &[Block], head: &Head) -> Result<()> {
        let (num_tokens, hidden_size) = (self.sizes.tokens(), self.spec.hidden_size);
        let problem = embed::Problem { num_tokens, hidden_size, scale: self.spec.embedding_scale, quant: &F32 };
        let table = self.matrix(Role::Embedding, 0);
        let buffers = embed::Buffers { rows: &self.exchange.rows, table: &table, x: &self.x, positions: None };
        embed::record(self.device, &mut self.recording, &problem, &buffers)?;
        for block in blocks {
            let bytes = self.x.size_bytes();
            self.recording.copy(&self.x, &block.x, 0, bytes);
            self.norm(block.spec, (block.norm, block.layer), &block.normed)?;
            block.forward(self)?;
        }
        self.norm(self.spec.final_norm, (Role::FinalNorm, 0), &head.hidden)?;
        let product = Product { role: self.head_role(), layer: 0, x: &head.hidden, y: &head.logits };
        self.product(product, matmul::Output::Replace)
    }

    fn loss(&mut self, head: &Head, factor: Option<f32>) -> Result<()> {
        let problem = cross_entropy::Problem { num_tokens: self.sizes.tokens(), vocab_size: self.spec.vocab_size, factor };
        let buffers = cross_entropy::Buffers { logits: &head.logits, targets: &self.exchange.targets, losses: &head.losses };
        cross_entropy::record(self.device, &mut self.recording, &problem, &buffers)
    }

    fn backward(&mut self, blocks: &[Block], head: &Head) -> Result<()> {
        let product = Product { role: self.head_role(), layer: 0, x: &head.hidden, y: &head.logits };
        let dnormed = self.dnormed.clone();
        self.product_back(product, &head.logits, &dnormed)?;
        let x = self.x.clone();
        self.norm_back(self.spec.final_norm, (Role::FinalNorm, 0), &x, true)?;
        for block in blocks.iter().rev() {
            block.backward(self)?;
            self.norm_back(block.spec, (block.norm, block.layer), &block.x, false)?;
        }
        let (num_tokens, hidden_size) = (self.sizes.tokens(), self.spec.hidden_size);
        let problem = grad_embed::Problem { num_tokens, hidden_size, scale: self.spec.embedding_scale };
        let dtable = self.gradient(Role::Embedding, 0);
        let Exchange { spans, order, .. } = &self.exchange;
        let buffers = grad_embed::Buffers { spans, order, dx: &self.dx, dtable: &dtable };
        grad_embed::record(self.device, &mut self.recording, &problem, &buffers)
    }

    /// Brings together what the host reads.
    fn collect(&mut self, blocks: &[Block], head: &Head) {
        let mut at = 0;
        let results = self.exchange.results.clone();
        let stats = blocks.iter().flat_map(|block| &block.experts).filter_map(Experts::stats);
        for (from, bytes) in [(&head.losses, 4 * self.sizes.tokens() as u64)].into_iter().chain(stats) {
            self.recording.copy(from, &results, at, bytes);
            at += bytes;
        }
    }

    fn optimise(&mut self, optimiser: &AdamW) -> Result<()> {
        let quads = |bytes: u64| bytes as usize / 16;
        let num_quads = quads(self.layout.total_bytes);
        let parts = self.device.storage("parts", 4 * squares::NUM_PARTS as u64);
        let problem = squares::Problem { num_quads, first_part: 0 };
        let buffers = squares::Buffers { gradients: &self.arenas.gradients, parts: &parts };
        squares::record(self.device, &mut self.recording, &problem, &buffers)?;
        let problem = clip::Problem { num_parts: squares::NUM_PARTS, clip_norm: optimiser.clip_norm as f32 };
        let control = &self.exchange.control;
        clip::record(self.device, &mut self.recording, &problem, &clip::Buffers { parts: &parts, control })?;
        let problem = adamw::Problem {
            num_quads,
            num_decayed: quads(self.layout.decayed_bytes),
            beta1: optimiser.beta1 as f32,
            beta2: optimiser.beta2 as f32,
            eps: optimiser.eps as f32,
            weight_decay: optimiser.weight_decay as f32,
        };
        let Arenas { weights, gradients, first, second } = self.arenas;
        let live = &self.exchange.live;
        let buffers = adamw::Buffers { gradients, control, live, weights, first, second };
        adamw::record(self.device, &mut self.recording, &problem, &buffers)
    }
}
