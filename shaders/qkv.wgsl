// qkv: query, key and value projection, rotary embedding of query and key, append to the KV cache.
// grid      x = ROWS weight rows, in quads; y = tile of TOKENS tokens
// rows      [num_tokens] Row                                 in
// x         [num_tokens, ROW_QUADS] vec4<f32>                in   normed; #ifdef NORM: to be normed, one token
// weight    [num_heads * HEAD_DIM, ROW_WORDS] words          in   one shard of whole heads, from first_head on:
//                                                                 heads in the order queries, keys, values
// rope      [CONTEXT, HEAD_DIM / 2] vec2<f32>                in   cosine and sine
// q         [num_tokens, Q_STRIDE] f32                       out
// k_cache   [sequence, NUM_KV_HEADS, CONTEXT, HEAD_DIM / 2]  out  pairs of lib/cache.wgsl, at the row's position
// v_cache   [sequence, NUM_KV_HEADS, CONTEXT, HEAD_DIM / 2]  out  as k_cache
// bias      [all heads, HEAD_DIM] f32                        in   #ifdef BIAS: added to the projection
// norm      [ROW_QUADS] vec4<f32>                            in   #ifdef NORM: weight of the RMSNorm that x goes through first
// #ifdef CLIP: the projection is clamped to +-CLIP_TO. For norms of q and k, or other rotary embeddings, see qk_rope.
// A quad is two rotary pairs of one head: rows i, i + 1, i + HEAD_DIM / 2, i + 1 + HEAD_DIM / 2.
// source    Su et al. 2021, arXiv 2104.09864, pairs in the Llama ordering
// twin      src/reference/qkv.rs
#import rows
#import cache
#import matmul

struct Params {
    num_tokens: u32,
    num_heads: u32,  // in this shard
    first_head: u32, // of this shard
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> q: array<f32>;
@group(0) @binding(6) var<storage, read_write> k_cache: array<CachePair>;
@group(0) @binding(7) var<storage, read_write> v_cache: array<CachePair>;
#ifdef BIAS
@group(0) @binding(8) var<storage, read> bias: array<f32>;
#endif
#ifdef NORM
@group(0) @binding(9) var<storage, read> norm: array<vec4<f32>>;

fn norm_weight(quad: u32) -> vec4<f32> {
    return norm[quad];
}
#endif

const HALF: u32 = HEAD_DIM / 2u;
const QUADS_PER_HEAD: u32 = HEAD_DIM / 4u;

var<private> first_token: u32;
var<private> first_row: u32; // of the workgroup, as quads count rows

fn weight_word(word: u32) -> vec4<u32> {
    return weight[word];
}

fn weight_u32(word: u32, part: u32) -> u32 {
    return weight[word][part];
}

fn row_word(row: u32) -> u32 {
    let quad = (first_row + row) / 4u;
    let in_head = quad % QUADS_PER_HEAD * 2u + (row & 1u) + (row & 2u) / 2u * HALF;
    return (quad / QUADS_PER_HEAD * HEAD_DIM + in_head) * ROW_WORDS;
}

fn token_quad(token: u32) -> u32 {
    return (first_token + token) * ROW_QUADS;
}

fn activation(quad: u32) -> vec4<f32> {
    return x[quad];
}

// `first` counts from the shard's first head, four to a quad.
fn store(token: u32, first: u32, sums: vec4<f32>) {
    if first_token + token >= params.num_tokens {
        return;
    }
    let quad = first / 4u;
    let row = rows[first_token + token];
    let head = params.first_head + quad / QUADS_PER_HEAD;
    let i = quad % QUADS_PER_HEAD * 2u;

    var projected = sums;
#ifdef BIAS
    let b = head * HEAD_DIM + i;
    projected += vec4<f32>(bias[b], bias[b + 1u], bias[b + HALF], bias[b + HALF + 1u]);
#endif
#ifdef CLIP
    projected = clamp(projected, vec4<f32>(-CLIP_TO), vec4<f32>(CLIP_TO));
#endif
    var turned = projected;
    if head < NUM_HEADS + NUM_KV_HEADS {
        let turn = rope[row.position * HALF + i];
        let next_turn = rope[row.position * HALF + i + 1u];
        let cosine = vec2<f32>(turn.x, next_turn.x);
        let sine = vec2<f32>(turn.y, next_turn.y);
        turned = vec4<f32>(projected.xy * cosine - projected.zw * sine, projected.zw * cosine + projected.xy * sine);
    }

    if head < NUM_HEADS {
        let base = (first_token + token) * Q_STRIDE + head * HEAD_DIM + i;
        q[base] = turned.x;
        q[base + 1u] = turned.y;
        q[base + HALF] = turned.z;
        q[base + HALF + 1u] = turned.w;
        return;
    }
    let kv_head = (head - NUM_HEADS) % NUM_KV_HEADS;
    let pair = (((row.sequence * NUM_KV_HEADS + kv_head) * CONTEXT + row.position) * HEAD_DIM + i) / 2u;
    let low = to_cache_pair(turned.xy);
    let high = to_cache_pair(turned.zw);
    if head < NUM_HEADS + NUM_KV_HEADS {
        k_cache[pair] = low;
        k_cache[pair + HALF / 2u] = high;
    } else {
        v_cache[pair] = low;
        v_cache[pair + HALF / 2u] = high;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    first_token = workgroup.y * TOKENS;
    first_row = workgroup.x * ROWS;
    let count = min(ROWS, params.num_heads * HEAD_DIM - workgroup.x * ROWS);
    matmul_batch(local, first_row, count, min(TOKENS, params.num_tokens - first_token));
}
