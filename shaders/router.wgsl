// router: the logits of one token, its TOP_K best experts and their weights. What matmul and router_topk do in two dispatches, where one
// workgroup is enough for the weights.
// grid      one workgroup
// x               [1, ROW_QUADS] vec4<f32>         in
// weight          [NUM_EXPERTS, ROW_WORDS] words   in
// logits          [1, NUM_EXPERTS] f32             out  LOGIT_SCALE * (x W^T), #ifdef LOGIT_BIAS with a bias before, #ifdef LOGIT_CAPPED as
//                                                       LOGIT_CAP * tanh(it / LOGIT_CAP)
// slot_table, ids, slots, weights, loads, selection_bias, expert_scale, halt     as router_topk
// stream          [4 STREAM_QUADS] u32             in   #ifdef STREAM: the bits of the residual stream; #ifdef PAGED otherwise that is x
// norm            [ROW_QUADS] vec4<f32>            in   #ifdef NORM: weight of the RMSNorm that x goes through first
// logit_bias      [NUM_EXPERTS] f32                in   #ifdef LOGIT_BIAS
// twin      src/reference/router.rs
#import matmul
#import top_k

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var<storage, read> slot_table: array<u32>;
@group(0) @binding(5) var<storage, read_write> ids: array<u32>;
@group(0) @binding(6) var<storage, read_write> slots: array<u32>;
@group(0) @binding(7) var<storage, read_write> weights: array<f32>;
#ifdef PAGED
@group(0) @binding(13) var<storage, read_write> halt: array<atomic<u32>>;
#ifdef STREAM
@group(0) @binding(14) var<storage, read> stream: array<u32>;

fn stream_bits(index: u32) -> u32 {
    return stream[index];
}
#else
fn stream_bits(index: u32) -> u32 {
    return bitcast<u32>(x[index / 4u][index % 4u]);
}
#endif
#else
@group(0) @binding(8) var<storage, read_write> loads: array<atomic<u32>>;
#endif
#ifdef SELECTION_BIAS
@group(0) @binding(9) var<storage, read> selection_bias: array<f32>;
#endif
#ifdef EXPERT_SCALE
@group(0) @binding(10) var<storage, read> expert_scale: array<f32>;
#endif
#ifdef NORM
@group(0) @binding(11) var<storage, read> norm: array<vec4<f32>>;

fn norm_weight(quad: u32) -> vec4<f32> {
    return norm[quad];
}
#endif
#ifdef LOGIT_BIAS
@group(0) @binding(12) var<storage, read> logit_bias: array<f32>;
#endif

fn weight_word(word: u32) -> vec4<u32> {
    return weight[word];
}

fn weight_u32(word: u32, part: u32) -> u32 {
    return weight[word][part];
}

fn row_word(row: u32) -> u32 {
    return row * ROW_WORDS;
}

fn token_quad(token: u32) -> u32 {
    return token * ROW_QUADS;
}

fn activation(quad: u32) -> vec4<f32> {
    return x[quad];
}

fn store(token: u32, rows: u32, sums: vec4<f32>) {
    for (var i = 0u; i < 4u && rows + i < NUM_EXPERTS; i++) {
        var logit = sums[i];
#ifdef LOGIT_BIAS
        logit += logit_bias[rows + i];
#endif
        logit *= LOGIT_SCALE;
#ifdef LOGIT_CAPPED
        logit = LOGIT_CAP * tanh(clamp(logit / LOGIT_CAP, -15.0, 15.0)); // a large argument may overflow on the way
#endif
        logits[rows + i] = logit;
        wg_scores[rows + i] = logit;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) local: u32) {
#ifdef PAGED
    if is_halted(local) {
        return;
    }
#endif
    matmul_batch(local, 0u, NUM_EXPERTS, 1u);
    choose_experts(0u, local);
}
