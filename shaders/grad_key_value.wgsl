// grad_key_value: the gradients of the keys of causal attention, before their rotary embedding, and of the values.
// grid      x = WG rows; y = key head; an invocation is a row of a head
// rows      [num_tokens] Row                                            in   those of a sequence follow each other, from position 0 on
// q         [num_tokens, Q_QUADS] vec4<f32>                             in   with rotary embedding
// k_cache   [sequences, NUM_KV_HEADS, CONTEXT, HEAD_QUADS] vec4<f32>    in
// v_cache   the same                                                    in
// dy        [num_tokens, Q_QUADS] vec4<f32>                             in   of what the heads give
// rope      [CONTEXT, ROPE_PAIRS] vec2<f32>                             in   #ifdef ROPE: (cosine, sine)
// dqkv      [num_tokens, QKV_STRIDE] f32                                out  the columns of keys and values
// stats     [num_tokens, NUM_HEADS] vec2<f32>                           in   of grad_query
// twin      src/reference/grad_key_value.rs
#import rows
#import turn_back

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k_cache: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> v_cache: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> dy: array<vec4<f32>>;
#ifdef ROPE
@group(0) @binding(6) var<storage, read> rope: array<vec2<f32>>;
#endif
@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;
@group(0) @binding(8) var<storage, read> stats: array<vec2<f32>>;

const GROUP: u32 = NUM_HEADS / NUM_KV_HEADS;

var<private> own_k: array<vec4<f32>, HEAD_QUADS>;
var<private> own_v: array<vec4<f32>, HEAD_QUADS>;
var<private> dv: array<vec4<f32>, HEAD_QUADS>;

// What a later query of one head teaches.
fn meet(token: u32, head: u32) {
    let base = token * Q_QUADS + head * HEAD_QUADS;
    var sums = vec2<f32>(); // <q, k>, <dy, v>
    for (var quad = 0u; quad < HEAD_QUADS; quad++) {
        sums += vec2<f32>(dot(q[base + quad], own_k[quad]), dot(dy[base + quad], own_v[quad]));
    }
    let of_query = stats[token * NUM_HEADS + head];
    let probability = exp(SCALE * sums.x - of_query.x);
    let dscore = probability * (sums.y - of_query.y) * SCALE;
    for (var quad = 0u; quad < HEAD_QUADS; quad++) {
        turned[quad] += dscore * q[base + quad];
        dv[quad] += probability * dy[base + quad];
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = workgroup.x * WG + local;
    if token >= params.num_tokens {
        return;
    }
    let kv_head = workgroup.y;
    let row = rows[token];
    let own = ((row.sequence * NUM_KV_HEADS + kv_head) * CONTEXT + row.position) * HEAD_QUADS;
    for (var quad = 0u; quad < HEAD_QUADS; quad++) {
        own_k[quad] = k_cache[own + quad];
        own_v[quad] = v_cache[own + quad];
    }
    // From this row to the end of its sequence.
    for (var later = token; later < params.num_tokens; later++) {
        if later > token && rows[later].position == 0u {
            break;
        }
        for (var i = 0u; i < GROUP; i++) {
            meet(later, kv_head * GROUP + i);
        }
    }
    let base = token * QKV_STRIDE + (NUM_HEADS + kv_head) * HEAD_QUADS * 4u;
    store_turned_back(row.position, base);
    for (var i = 0u; i < HEAD_QUADS * 4u; i++) {
        dqkv[base + NUM_KV_HEADS * HEAD_QUADS * 4u + i] = dv[i / 4u][i % 4u];
    }
}
