// latent: from raw projections to rotated queries and the latent cache of multi-head latent attention.
// grid      x = 0: the row's own entry of the cache; x = 1 + head: the rotated part of that head's query. y = row
// rows      [num_tokens] Row                                          in
// q         [num_tokens, Q_STRIDE] f32                                in   raw; per head [NOPE_DIM | ROPE_DIM]
// kv        [num_tokens, KV_STRIDE] f32                               in   raw; [LATENT_DIM | ROPE_DIM]
// norm      [LATENT_DIM] f32                                          in   weight of an RMSNorm
// rope      [CONTEXT, ROPE_DIM / 2] vec2<f32>                         in   #ifdef ROPE: cosine and sine; otherwise nothing turns
// query     [num_tokens, QUERY_STRIDE] f32                            out  per head [LATENT_DIM | ROPE_DIM]: the second part;
//                                                                          head_matmul makes the first
// cache     [sequence, CONTEXT, CACHED_DIM / 2]                       out  pairs of lib/cache.wgsl, at the row's position: normed latent
//                                                                          times LATENT_SCALE, rotated key
// source    DeepSeek-AI 2024, arXiv 2405.04434, section 2.1
// twin      src/reference/latent.rs
#import rows
#import cache

@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> kv: array<f32>;
@group(0) @binding(3) var<storage, read> norm: array<f32>;
#ifdef ROPE
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>;
#endif
@group(0) @binding(5) var<storage, read_write> query: array<f32>;
@group(0) @binding(6) var<storage, read_write> cache: array<CachePair>;

const CACHED_DIM: u32 = LATENT_DIM + ROPE_DIM;

var<workgroup> wg_sums: array<f32, WG>;

// The two dimensions that turn with `pair`.
fn dimensions(pair: u32) -> vec2<u32> {
#ifdef INTERLEAVED
    return vec2<u32>(pair * 2u, pair * 2u + 1u);
#else
    return vec2<u32>(pair, pair + ROPE_DIM / 2u);
#endif
}

fn turned(values: vec2<f32>, position: u32, pair: u32) -> vec2<f32> {
#ifdef ROPE
    let turn = rope[position * (ROPE_DIM / 2u) + pair];
    return vec2<f32>(values.x * turn.x - values.y * turn.y, values.y * turn.x + values.x * turn.y);
#else
    return values;
#endif
}

fn turned_key(source: u32, position: u32, pair: u32) -> vec2<f32> {
    let d = dimensions(pair) + source + LATENT_DIM;
    return turned(vec2<f32>(kv[d.x], kv[d.y]), position, pair);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = rows[workgroup.y];
    if workgroup.x > 0u {
        let head = workgroup.x - 1u;
        let source = workgroup.y * Q_STRIDE + head * (NOPE_DIM + ROPE_DIM) + NOPE_DIM;
        let place = workgroup.y * QUERY_STRIDE + head * CACHED_DIM + LATENT_DIM;
        for (var pair = local; pair < ROPE_DIM / 2u; pair += WG) {
            let d = dimensions(pair);
            let result = turned(vec2<f32>(q[source + d.x], q[source + d.y]), row.position, pair);
            query[place + d.x] = result.x;
            query[place + d.y] = result.y;
        }
        return;
    }

    let source = workgroup.y * KV_STRIDE;
    let place = (row.sequence * CONTEXT + row.position) * (CACHED_DIM / 2u);
    var squares = 0.0;
    for (var i = local; i < LATENT_DIM; i += WG) {
        squares += kv[source + i] * kv[source + i];
    }
    wg_sums[local] = squares;
    workgroupBarrier();
    var total = 0.0;
    for (var other = 0u; other < WG; other++) {
        total += wg_sums[other];
    }
    let scale = inverseSqrt(total / f32(LATENT_DIM) + EPS);
    for (var pair = local; pair < LATENT_DIM / 2u; pair += WG) {
        let i = pair * 2u;
        let values = vec2<f32>(kv[source + i], kv[source + i + 1u]);
        cache[place + pair] = to_cache_pair(values * scale * vec2<f32>(norm[i], norm[i + 1u]) * LATENT_SCALE);
    }
    let first = place + LATENT_DIM / 2u;
#ifdef INTERLEAVED
    for (var pair = local; pair < ROPE_DIM / 2u; pair += WG) {
        cache[first + pair] = to_cache_pair(turned_key(source, row.position, pair));
    }
#else
    // Two that turn give the first and the second dimensions of two pairs.
    for (var both = local; both < ROPE_DIM / 4u; both += WG) {
        let one = turned_key(source, row.position, both * 2u);
        let next = turned_key(source, row.position, both * 2u + 1u);
        cache[first + both] = to_cache_pair(vec2<f32>(one.x, next.x));
        cache[first + both + ROPE_DIM / 4u] = to_cache_pair(vec2<f32>(one.y, next.y));
    }
#endif
}
