// qk_rope: from a raw projection to rotated queries and the KV cache, where the fused way of qkv does not suffice: norms of query and
// key, rotary embedding of a part of the head, interleaved pairs, no positions at all, query temperature.
// grid      x = head, in the order queries, keys, values; y = row
// rows      [num_tokens] Row                                 in
// qkv       [num_tokens, QKV_STRIDE] f32                     in   raw projection, bias included
// rope      [CONTEXT, ROPE_DIMS / 2] vec2<f32>               in   #ifdef ROPE: cosine and sine
// q_norm    [HEAD_DIM] or [NUM_HEADS, HEAD_DIM] f32          in   #ifdef NORM_WEIGHT
// k_norm    [HEAD_DIM] or [NUM_KV_HEADS, HEAD_DIM] f32       in   #ifdef NORM_WEIGHT
// q         [num_tokens, Q_STRIDE] f32                       out
// k_cache   [sequence, NUM_KV_HEADS, CONTEXT, HEAD_QUADS]    out  quads of lib/cache.wgsl, at the row's position
// v_cache   [sequence, NUM_KV_HEADS, CONTEXT, VALUE_QUADS]   out  as k_cache
// What happens to each element on the way is in lib/heads.wgsl.
// twin      src/reference/qk_rope.rs
#import rows
#import cache
#import heads

@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
#ifdef ROPE
@group(0) @binding(2) var<storage, read> rope: array<vec2<f32>>;
#endif
#ifdef NORM_WEIGHT
@group(0) @binding(3) var<storage, read> q_norm: array<f32>;
@group(0) @binding(4) var<storage, read> k_norm: array<f32>;
#endif
@group(0) @binding(5) var<storage, read_write> q: array<f32>;
@group(0) @binding(6) var<storage, read_write> k_cache: array<CacheQuad>;
@group(0) @binding(7) var<storage, read_write> v_cache: array<CacheQuad>;

const HEAD_QUADS: u32 = HEAD_DIM / 4u;
const VALUE_QUADS: u32 = VALUE_DIM / 4u;

var<workgroup> wg_sums: array<f32, WG>;

// The sum over the workgroup, in every invocation.
fn sum_all(local: u32, value: f32) -> f32 {
    wg_sums[local] = value;
    workgroupBarrier();
    var total = 0.0;
    for (var other = 0u; other < WG; other++) {
        total += wg_sums[other];
    }
    return total;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let head = workgroup.x;
    let row = rows[workgroup.y];
    let source = workgroup.y * QKV_STRIDE;
    var scale = 1.0;
#ifdef ANY_NORM
    scale = norm_scale(sum_all(local, norm_squares(source, row.position, head, local)), head);
#endif
    if head < NUM_HEADS {
        for (var i = local; i < HEAD_DIM; i += WG) {
            q[workgroup.y * Q_STRIDE + head * HEAD_DIM + i] = turned(source, row.position, head, i, scale);
        }
        return;
    }
    let place = (row.sequence * NUM_KV_HEADS + (head - NUM_HEADS) % NUM_KV_HEADS) * CONTEXT + row.position;
    if head < NUM_HEADS + NUM_KV_HEADS {
        for (var quad = local; quad < HEAD_QUADS; quad += WG) {
            var value = vec4<f32>();
            for (var part = 0u; part < 4u; part++) {
                value[part] = turned(source, row.position, head, quad * 4u + part, scale);
            }
            k_cache[place * HEAD_QUADS + quad] = to_cache(value);
        }
        return;
    }
    for (var quad = local; quad < VALUE_QUADS; quad += WG) {
        var value = vec4<f32>();
        for (var part = 0u; part < 4u; part++) {
            value[part] = value_element(source, head, quad * 4u + part, scale);
        }
        v_cache[place * VALUE_QUADS + quad] = to_cache(value);
    }
}
