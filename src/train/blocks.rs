//! The blocks of a layer on a device, forward and back.

use super::plan::{Product, Recorder};
use crate::batch::rope::rope_table;
use crate::error::Result;
use crate::gating::{Normalize, RouterMethod, WeightOn};
use crate::gpu::Buffer;
use crate::kernels::expert_gate_up::Routing;
use crate::kernels::gate::{self, TOP_K_RENORMALIZED, TOP_K_SOFTMAX};
use crate::kernels::grad_weight::{self, ByToken};
use crate::kernels::{
    SlabCut, SlabPart, SlabShape, Slabs, attention, expert_combine, expert_down, expert_gate_up, expert_sort, gate_stats,
    grad_gate, grad_hidden, grad_input, grad_key_value, grad_query, matmul, qk_rope,
};
use crate::quant::{CacheFormat, F32, padded};
use crate::spec::{Activation, AttentionSpec, MlpSpec, MoeSpec, NormSpec, Role};

/// A block, and what its way back needs.
pub(super) struct Block {
    pub layer: usize,
    pub spec: NormSpec,
    pub norm: Role,
    /// The residual stream before it, and what the norm made of that.
    pub x: Buffer,
    pub normed: Buffer,
    pub attention: Option<Attention>,
    /// The routed ones, then the shared one; or an MLP.
    pub experts: Vec<Experts>,
}

impl Block {
    /// From `normed` into the residual stream.
    pub fn forward(&self, recorder: &mut Recorder) -> Result<()> {
        if let Some(attention) = &self.attention {
            attention.forward(recorder, self)?;
        }
        self.experts.iter().try_for_each(|experts| experts.forward(recorder, self))
    }

    /// From the gradient of the stream to that of `normed`.
    pub fn backward(&self, recorder: &mut Recorder) -> Result<()> {
        if let Some(attention) = &self.attention {
            attention.backward(recorder, self)?;
        }
        self.experts.iter().enumerate().try_for_each(|(index, experts)| experts.backward(recorder, self, index == 0))
    }
}

/// Attention over the windows of a part.
pub(super) struct Attention {
    spec: AttentionSpec,
    rope: Option<Buffer>,
    qkv: Buffer,
    q: Buffer,
    k_cache: Buffer,
    v_cache: Buffer,
    heads: Buffer,
    dheads: Buffer,
    stats: Buffer,
}

impl Attention {
    pub fn new(recorder: &Recorder, spec: &AttentionSpec) -> Self {
        let (device, seq_len) = (recorder.device, recorder.sizes.seq_len);
        let rope = spec.rope.as_ref().map(|rope| {
            let table = rope_table(rope, seq_len, seq_len);
            let buffer = device.storage("rope", size_of_val(table.as_slice()) as u64);
            device.write(&buffer, 0, bytemuck::cast_slice(table.as_flattened()));
            buffer
        });
        let width = padded(spec.query_width());
        let cache = |label: &str| recorder.per_token(label, spec.num_kv_heads * spec.head_dim);
        Attention {
            rope,
            qkv: recorder.per_token("qkv", padded(spec.qkv_rows())),
            q: recorder.per_token("q", width),
            k_cache: cache("k_cache"),
            v_cache: cache("v_cache"),
            heads: recorder.per_token("heads", width),
            dheads: recorder.per_token("dheads", width),
            stats: recorder.per_token("attention_stats", 2 * spec.num_heads),
            spec: spec.clone(),
        }
    }

    fn forward(&self, recorder: &mut Recorder, block: &Block) -> Result<()> {
        let (layer, num_tokens, context) = (block.layer, recorder.sizes.tokens(), recorder.sizes.seq_len);
        let Attention { spec, rope, qkv, q, k_cache, v_cache, heads, .. } = self;
        recorder.product(Product { role: Role::Qkv, layer, x: &block.normed, y: qkv }, matmul::Output::Replace)?;
        let problem = qk_rope::Problem { num_tokens, context, cache: CacheFormat::F32, attention: spec };
        let rows = &recorder.exchange.rows;
        let buffers = qk_rope::Buffers { rows, qkv, rope: rope.as_ref(), norms: None, q, k_cache, v_cache };
        qk_rope::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        let cache = crate::batch::CacheShape { context, format: CacheFormat::F32 };
        let problem = attention::Problem::of_spec(spec, num_tokens, cache);
        let buffers =
            attention::Buffers { rows, query: q, rope: None, norms: None, k_cache, v_cache, y: heads, sinks: None, bias: None };
        attention::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        let x = recorder.x.clone();
        recorder.product(Product { role: Role::AttentionOutput, layer, x: heads, y: &x }, matmul::Output::Add)
    }

    fn backward(&self, recorder: &mut Recorder, block: &Block) -> Result<()> {
        let layer = block.layer;
        let Attention { spec, rope, qkv: dqkv, q, k_cache, v_cache, heads, dheads, stats } = self;
        let (dx, dnormed) = (recorder.dx.clone(), recorder.dnormed.clone());
        recorder.product_back(Product { role: Role::AttentionOutput, layer, x: heads, y: &dx }, &dx, dheads)?;
        let problem = grad_query::Problem {
            num_tokens: recorder.sizes.tokens(),
            num_heads: spec.num_heads,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            context: recorder.sizes.seq_len,
            scale: spec.scale,
            rope_pairs: spec.rope.as_ref().map(|rope| rope.dims / 2),
        };
        // The projections are not needed any more: their gradient takes their place.
        let rows = &recorder.exchange.rows;
        let buffers = grad_query::Buffers { rows, q, k_cache, v_cache, dy: dheads, rope: rope.as_ref(), dqkv, stats };
        grad_query::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        grad_key_value::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        recorder.product_back(Product { role: Role::Qkv, layer, x: &block.normed, y: dqkv }, dqkv, &dnormed)
    }
}

/// Experts with their routing; an MLP is one expert that every token uses.
pub(super) struct Experts {
    roles: [Role; 2],
    num_experts: usize,
    width: usize,
    inner: usize,
    gate: Option<Gate>,
    ids: Buffer,
    weights: Buffer,
    slot_table: Buffer,
    tiles: Buffer,
    order: Buffer,
    starts: Buffer,
    gate_up: Buffer,
    h: Buffer,
    /// Outputs of the assignments, then the gradients of their inputs.
    by_assignment: Buffer,
    dgate_up: Buffer,
    parts: Buffer,
}

/// The router of experts.
struct Gate {
    rule: gate::Rule,
    logits: Buffer,
    scores: Buffer,
    stats: Buffer,
    dlogits: Buffer,
}

impl Experts {
    pub fn of_mlp(recorder: &Recorder, mlp: &MlpSpec, roles: [Role; 2]) -> Self {
        let experts = Self::new(recorder, roles, [1, 1, mlp.intermediate_size]);
        let ones = vec![1.0f32; recorder.sizes.tokens()];
        recorder.device.write(&experts.weights, 0, bytemuck::cast_slice(&ones));
        experts
    }

    pub fn routed(recorder: &Recorder, moe: &MoeSpec) -> Self {
        let router = &moe.router;
        let sizes = [router.num_experts, router.num_experts_per_tok, moe.expert.intermediate_size];
        let renormalized = router.method == RouterMethod::SoftmaxOfTopK || router.normalize != Normalize::No;
        let gate = Gate {
            rule: if renormalized { TOP_K_RENORMALIZED } else { TOP_K_SOFTMAX },
            logits: recorder.per_token("router_logits", padded(router.num_experts)),
            scores: recorder.per_token("router_scores", router.num_experts),
            stats: recorder.device.storage("gate_stats", 16 * (router.num_experts as u64 + 1)),
            dlogits: recorder.per_token("drouter_logits", padded(router.num_experts)),
        };
        Experts { gate: Some(gate), ..Self::new(recorder, [Role::ExpertGateUp, Role::ExpertDown], sizes) }
    }

    fn new(recorder: &Recorder, roles: [Role; 2], [num_experts, width, inner]: [usize; 3]) -> Self {
        let (device, hidden) = (recorder.device, padded(recorder.spec.hidden_size));
        let sort = expert_sort::Problem { num_assignments: recorder.sizes.tokens() * width, num_experts };
        let words = |label: &str, len: usize| device.storage(label, 4 * len as u64);
        let slot_table = words("slot_table", num_experts);
        let slots: Vec<u32> = (0..num_experts as u32).collect();
        device.write(&slot_table, 0, bytemuck::cast_slice(&slots));
        Experts {
            roles,
            num_experts,
            width,
            inner,
            gate: None,
            ids: recorder.per_token("expert_ids", width),
            weights: recorder.per_token("routing_weights", width),
            slot_table,
            tiles: words("tiles", 4 * sort.num_tiles(device.caps())),
            order: recorder.per_token("order", width),
            starts: words("starts", num_experts + 1),
            gate_up: recorder.per_token("gate_up", width * padded(2 * inner)),
            h: recorder.per_token("h", width * padded(inner)),
            by_assignment: recorder.per_token("by_assignment", width * hidden),
            dgate_up: recorder.per_token("dgate_up", width * padded(2 * inner)),
            parts: recorder.per_token("parts", width * padded(inner) / 4),
        }
    }

    /// What the host reads of the router, and its bytes.
    pub fn stats(&self) -> Option<(&Buffer, u64)> {
        self.gate.as_ref().map(|gate| (&gate.stats, 16 * (self.num_experts as u64 + 1)))
    }

    fn problem(&self, recorder: &Recorder) -> expert_gate_up::Problem {
        expert_gate_up::Problem {
            num_tokens: recorder.sizes.tokens(),
            num_experts: self.num_experts,
            num_experts_per_tok: self.width,
            hidden_size: recorder.spec.hidden_size,
            intermediate_size: self.inner,
            activation: Activation::Silu,
            weight_on: WeightOn::Output,
            scale: 1.0,
            norm: None,
            quant: &F32,
        }
    }

    fn sort(&self, recorder: &Recorder) -> expert_sort::Problem {
        expert_sort::Problem { num_assignments: recorder.sizes.tokens() * self.width, num_experts: self.num_experts }
    }

    fn gate_problem(&self, recorder: &Recorder, gate: &Gate) -> gate::Problem {
        let (num_tokens, num_experts, width) = (recorder.sizes.tokens(), self.num_experts, self.width);
        gate::Problem { num_tokens, num_experts, width, rule: gate.rule }
    }

    /// The matrices of all experts, as the kernels of inference take them.
    fn slabs(&self, recorder: &Recorder, role: Role, layer: usize) -> Slabs {
        let place = recorder.layout.place(role, layer);
        let (num_slots, rows, cols) = (self.num_experts, place.rows, place.cols);
        let cut = SlabCut { first_row: 0, num_rows: rows, slots_per_shard: num_slots };
        let shards = vec![recorder.weight(role, layer)];
        Slabs { shape: SlabShape { num_slots, rows, cols, quant: &F32, bias: false }, parts: vec![SlabPart { cut, shards }] }
    }

    fn combine(&self, recorder: &mut Recorder, layer: usize, weight_on: WeightOn, x: &Buffer) -> Result<()> {
        let problem = expert_combine::Problem {
            num_tokens: recorder.sizes.tokens(),
            num_experts_per_tok: self.width,
            hidden_size: recorder.spec.hidden_size,
            weight_on,
            scale: 1.0,
        };
        let buffers = expert_combine::Buffers { y: &self.by_assignment, weights: &self.weights, x };
        expert_combine::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)
    }

    fn forward(&self, recorder: &mut Recorder, block: &Block) -> Result<()> {
        let layer = block.layer;
        if let Some(gate) = &self.gate {
            let product = Product { role: Role::Router, layer, x: &block.normed, y: &gate.logits };
            recorder.product(product, matmul::Output::Replace)?;
            let (problem, Gate { logits, scores, stats, .. }) = (self.gate_problem(recorder, gate), gate);
            let (ids, weights) = (&self.ids, &self.weights);
            let buffers = gate::Buffers { logits, ids, weights, scores };
            gate::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
            let buffers = gate_stats::Buffers { logits, ids, scores, stats };
            gate_stats::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        }
        let Experts { ids, slot_table, tiles, order, starts, weights, gate_up, h, by_assignment, .. } = self;
        let buffers = expert_sort::Buffers { ids, slot_table, tiles, order, starts: Some(starts) };
        let sort = self.sort(recorder);
        expert_sort::record(recorder.device, &mut recorder.recording, Some(layer), &sort, &buffers)?;
        let (problem, routing) = (self.problem(recorder), Routing::Sorted { tiles, order });
        let [slabs, down] = self.roles.map(|role| self.slabs(recorder, role, layer));
        let (x, gate_up) = (&block.normed, Some(gate_up));
        let buffers = expert_gate_up::Buffers { x, routing, weights, norm: None, h, gate_up, slabs: &slabs };
        expert_gate_up::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        let buffers = expert_down::Buffers { h, routing, weights, y: by_assignment, slabs: &down };
        expert_down::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;
        let x = recorder.x.clone();
        self.combine(recorder, layer, WeightOn::Output, &x)
    }

    /// `is_first`: the gradient of the normed input begins here.
    fn backward(&self, recorder: &mut Recorder, block: &Block, is_first: bool) -> Result<()> {
        let layer = block.layer;
        self.backward_inner(recorder, block)?;
        let dnormed = recorder.dnormed.clone();
        match &self.gate {
            Some(gate) => {
                self.backward_gate(recorder, gate, layer)?;
                let product = Product { role: Role::Router, layer, x: &block.normed, y: &gate.logits };
                recorder.product_back(product, &gate.dlogits, &dnormed)?;
            }
            None if is_first => recorder.recording.clear(&dnormed),
            None => {}
        }
        // Rows of the assignments, added up by token.
        self.combine(recorder, layer, WeightOn::Input, &dnormed)
    }

    /// From the gradient of the stream to those of the experts and of each assignment's input.
    fn backward_inner(&self, recorder: &mut Recorder, block: &Block) -> Result<()> {
        let Experts { tiles, order, starts, gate_up, weights, dgate_up, parts, h, by_assignment, .. } = self;
        let (layer, hidden_size, num_tokens) = (block.layer, recorder.spec.hidden_size, recorder.sizes.tokens());
        let (num_experts, num_experts_per_tok) = (self.num_experts, self.width);
        let [up_role, down_role] = self.roles;
        let dy = recorder.dx.clone();
        let intermediate_size = self.inner;
        let problem = grad_hidden::Problem { num_tokens, num_experts, num_experts_per_tok, hidden_size, intermediate_size };
        let down = recorder.weight(down_role, layer);
        let buffers = grad_hidden::Buffers { dy: &dy, down: &down, tiles, order, gate_up, weights, dgate_up, parts };
        grad_hidden::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;

        let experts = |by_token, weighted| Some(grad_weight::Experts { num_experts, num_experts_per_tok, by_token, weighted });
        let sorted = Some([starts, order]);
        let (rows, cols, experts_of_down) = (hidden_size, self.inner, experts(ByToken::Dy, true));
        let problem = grad_weight::Problem { num_tokens, rows, cols, accumulate: true, experts: experts_of_down };
        let dweight = recorder.gradient(down_role, layer);
        let buffers = grad_weight::Buffers { dy: &dy, x: h, dweight: &dweight, sorted, weights: Some(weights) };
        grad_weight::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;

        let (rows, cols, experts_of_up) = (2 * self.inner, hidden_size, experts(ByToken::X, false));
        let problem = grad_weight::Problem { num_tokens, rows, cols, accumulate: true, experts: experts_of_up };
        let dweight = recorder.gradient(up_role, layer);
        let buffers = grad_weight::Buffers { dy: dgate_up, x: &block.normed, dweight: &dweight, sorted, weights: None };
        grad_weight::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)?;

        let sort = Some(self.sort(recorder));
        let problem = grad_input::Problem { num_tokens, rows, cols, accumulate: false, sort };
        let weight = recorder.weight(up_role, layer);
        let sorted = Some([tiles, order]);
        let buffers = grad_input::Buffers { dy: dgate_up, weight: &weight, dx: by_assignment, sorted };
        grad_input::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)
    }

    fn backward_gate(&self, recorder: &mut Recorder, gate: &Gate, layer: usize) -> Result<()> {
        let num_parts = padded(self.inner) / 4;
        let problem = grad_gate::Problem { gate: self.gate_problem(recorder, gate), num_parts };
        let Experts { parts, ids, weights, .. } = self;
        let Gate { logits, scores, stats, dlogits, .. } = gate;
        let live = &recorder.exchange.live;
        let buffers = grad_gate::Buffers { parts, logits, ids, weights, scores, stats, live, dlogits };
        grad_gate::record(recorder.device, &mut recorder.recording, Some(layer), &problem, &buffers)
    }
}
