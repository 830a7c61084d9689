// qk_rope: from a raw projection to rotated queries and the KV cache, where the fused way of qkv does not suffice: norms of query and
// key, rotary embedding of a part of the head, interleaved pairs, no positions at all, query temperature.
// grid      x = head, in the order queries, keys, values; y = row
// rows      [num_tokens] Row                                 in
// qkv       [num_tokens, QKV_STRIDE] f32                     in   raw projection, bias included
// rope      [CONTEXT, ROPE_DIMS / 2] vec2<f32>               in   #ifdef ROPE: cosine and sine
// q_norm    [HEAD_DIM] or [NUM_HEADS, HEAD_DIM] f32          in   #ifdef NORM_WEIGHT
// k_norm    [HEAD_DIM] or [NUM_KV_HEADS, HEAD_DIM] f32       in   #ifdef NORM_WEIGHT
// q         [num_tokens, Q_STRIDE] f32                       out
// k_cache   [sequence, NUM_KV_HEADS, CONTEXT, HEAD_DIM] f32  out  at the row's position
// v_cache   [sequence, NUM_KV_HEADS, CONTEXT, VALUE_DIM] f32 out  at the row's position, times VALUE_SCALE
// Values: #ifdef VALUES_ARE_KEYS those of the raw keys; #ifdef VALUE_NORM through an RMSNorm of each head without weight.
// In this order: clip (#ifdef CLIP; CLIP_AFTER: of query and key after the norm), norm (#ifdef NORM; over one head, #ifdef NORM_ALL over all heads of a kind), rotation; the norm comes
// after the rotation #ifdef NORM_AFTER; then the temperature (#ifdef TEMPERATURE) on queries.
// twin      src/reference/qk_rope.rs
#import rows

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
@group(0) @binding(6) var<storage, read_write> k_cache: array<f32>;
@group(0) @binding(7) var<storage, read_write> v_cache: array<f32>;

var<workgroup> wg_sums: array<f32, WG>;

fn raw(index: u32) -> f32 {
#ifdef CLIP
    return clamp(qkv[index], -CLIP_TO, CLIP_TO);
#else
    return qkv[index];
#endif
}

fn clipped(value: f32) -> f32 {
#ifdef CLIP_AFTER
    return clamp(value, -CLIP_TO, CLIP_TO);
#else
    return value;
#endif
}

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

// What the norm multiplies dimension `i` of a head by; `scale` is 1 / root mean square.
fn normed(value: f32, scale: f32, head: u32, i: u32) -> f32 {
    var result = value * scale;
#ifdef NORM_WEIGHT
#ifdef NORM_ALL
    if head < NUM_HEADS {
        result *= q_norm[head * HEAD_DIM + i];
    } else {
        result *= k_norm[(head - NUM_HEADS) * HEAD_DIM + i];
    }
#else
    if head < NUM_HEADS {
        result *= q_norm[i];
    } else {
        result *= k_norm[i];
    }
#endif
#endif
    return result;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let head = workgroup.x;
    let row = rows[workgroup.y];
    let source = workgroup.y * QKV_STRIDE;
    let is_query = head < NUM_HEADS;
    let is_value = head >= NUM_HEADS + NUM_KV_HEADS;
    let kv_head = select((head - NUM_HEADS) % NUM_KV_HEADS, 0u, is_query);
    let cache = ((row.sequence * NUM_KV_HEADS + kv_head) * CONTEXT + row.position) * HEAD_DIM;

    if is_value {
#ifdef VALUES_ARE_KEYS
        let value_source = source + NUM_HEADS * HEAD_DIM + kv_head * VALUE_DIM;
#else
        let value_source = source + (NUM_HEADS + NUM_KV_HEADS) * HEAD_DIM + kv_head * VALUE_DIM;
#endif
        var value_scale = VALUE_SCALE;
#ifdef VALUE_NORM
        var value_squares = 0.0;
        for (var i = local; i < VALUE_DIM; i += WG) {
            let value = clipped(raw(value_source + i));
            value_squares += value * value;
        }
        value_scale *= inverseSqrt(sum_all(local, value_squares) / f32(VALUE_DIM) + VALUE_EPS);
#endif
        let value_cache = ((row.sequence * NUM_KV_HEADS + kv_head) * CONTEXT + row.position) * VALUE_DIM;
        for (var i = local; i < VALUE_DIM; i += WG) {
            v_cache[value_cache + i] = value_scale * clipped(raw(value_source + i));
        }
        return;
    }

    var scale = 1.0;
#ifdef NORM
    // The dimensions that the mean square runs over. A rotation does not change it, but the table may also magnify.
    var magnitude = 1.0;
#ifdef NORM_AFTER
#ifdef ROPE
    magnitude = length(rope[row.position * (ROPE_DIMS / 2u)]);
#endif
#endif
#ifdef NORM_ALL
    let first = source + select(NUM_HEADS * HEAD_DIM, 0u, is_query);
    let len = select(NUM_KV_HEADS, NUM_HEADS, is_query) * HEAD_DIM;
#else
    let first = source + head * HEAD_DIM;
    let len = HEAD_DIM;
#endif
    var squares = 0.0;
    for (var i = local; i < len; i += WG) {
        var value = raw(first + i);
#ifdef ROPE
        value *= select(1.0, magnitude, i % HEAD_DIM < ROPE_DIMS);
#endif
        squares += value * value;
    }
    scale = inverseSqrt(sum_all(local, squares) / f32(len) + EPS);
#endif

    // Pairs of dimensions: those that turn together, then the rest two by two.
    for (var pair = local; pair < HEAD_DIM / 2u; pair += WG) {
        var a = pair * 2u;
        var b = a + 1u;
        var turn = vec2<f32>(1.0, 0.0);
#ifdef ROPE
        if pair < ROPE_DIMS / 2u {
#ifdef INTERLEAVED
#else
            a = pair;
            b = pair + ROPE_DIMS / 2u;
#endif
            turn = rope[row.position * (ROPE_DIMS / 2u) + pair];
        }
#endif
        var u = raw(source + head * HEAD_DIM + a);
        var v = raw(source + head * HEAD_DIM + b);
#ifdef NORM
#ifdef NORM_AFTER
#else
        u = clipped(normed(u, scale, head, a));
        v = clipped(normed(v, scale, head, b));
#endif
#endif
        var turned = vec2<f32>(u * turn.x - v * turn.y, v * turn.x + u * turn.y);
#ifdef NORM_AFTER
        turned = vec2<f32>(normed(turned.x, scale, head, a), normed(turned.y, scale, head, b));
#endif
        if is_query {
#ifdef TEMPERATURE
            turned *= 1.0 + TEMPERATURE_SCALE * log(1.0 + floor(f32(row.position + 1u) / TEMPERATURE_FLOOR));
#endif
            let place = workgroup.y * Q_STRIDE + head * HEAD_DIM;
            q[place + a] = turned.x;
            q[place + b] = turned.y;
        } else {
            k_cache[cache + a] = turned.x;
            k_cache[cache + b] = turned.y;
        }
    }
}
