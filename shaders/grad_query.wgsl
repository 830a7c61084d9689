// grad_query: the gradient of the queries of causal attention, before their rotary embedding; and of every row and head what grad_key_value needs.
// grid      x = WG rows; y = query head; an invocation is a row of a head
// rows      [num_tokens] Row                                            in
// q         [num_tokens, Q_QUADS] vec4<f32>                             in   with rotary embedding
// k_cache   [sequences, NUM_KV_HEADS, CONTEXT, HEAD_QUADS] vec4<f32>    in
// v_cache   the same                                                    in
// dy        [num_tokens, Q_QUADS] vec4<f32>                             in   of what the heads give
// rope      [CONTEXT, ROPE_PAIRS] vec2<f32>                             in   #ifdef ROPE: (cosine, sine)
// dqkv      [num_tokens, QKV_STRIDE] f32                                out  the columns of the queries
// stats     [num_tokens, NUM_HEADS] vec2<f32>                           out  log-sum-exp of the scores, <dy, y>
// twin      src/reference/grad_query.rs
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
@group(0) @binding(8) var<storage, read_write> stats: array<vec2<f32>>;

var<private> own_q: array<vec4<f32>, HEAD_QUADS>;
var<private> own_dy: array<vec4<f32>, HEAD_QUADS>;

// Of a key: its score, and <dy, v>.
fn meet(key: u32) -> vec2<f32> {
    var sums = vec2<f32>();
    for (var quad = 0u; quad < HEAD_QUADS; quad++) {
        sums += vec2<f32>(dot(own_q[quad], k_cache[key + quad]), dot(own_dy[quad], v_cache[key + quad]));
    }
    return vec2<f32>(SCALE * sums.x, sums.y);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = workgroup.x * WG + local;
    if token >= params.num_tokens {
        return;
    }
    let head = workgroup.y;
    let row = rows[token];
    let first_key = (row.sequence * NUM_KV_HEADS + head * NUM_KV_HEADS / NUM_HEADS) * CONTEXT * HEAD_QUADS;
    let own = token * Q_QUADS + head * HEAD_QUADS;
    for (var quad = 0u; quad < HEAD_QUADS; quad++) {
        own_q[quad] = q[own + quad];
        own_dy[quad] = dy[own + quad];
    }
    var most = -3.4e38;
    var sums = vec2<f32>(); // of exp(score - most), and of that times <dy, v>
    for (var j = 0u; j <= row.position; j++) {
        let met = meet(first_key + j * HEAD_QUADS);
        let next = max(most, met.x);
        let exponential = exp(met.x - next);
        sums = sums * exp(most - next) + exponential * vec2<f32>(1.0, met.y);
        most = next;
    }
    let lse = most + log(sums.x);
    let along = sums.y / sums.x;
    stats[token * NUM_HEADS + head] = vec2<f32>(lse, along);
    for (var j = 0u; j <= row.position; j++) {
        let key = first_key + j * HEAD_QUADS;
        let met = meet(key);
        let dscore = exp(met.x - lse) * (met.y - along) * SCALE;
        for (var quad = 0u; quad < HEAD_QUADS; quad++) {
            turned[quad] += dscore * k_cache[key + quad];
        }
    }
    store_turned_back(row.position, token * QKV_STRIDE + head * HEAD_QUADS * 4u);
}
