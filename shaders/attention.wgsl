// attention: softmax(SCALE * q . k) v over the visible keys of a token's own sequence, one pass with a running maximum.
// grid      x = groups of GROUP query heads that share a key/value head; y = row
// rows      [num_tokens] Row                                      in
// q         [num_tokens, Q_QUADS] vec4<f32>                       in
// k_cache   [sequence, NUM_KV_HEADS, CONTEXT, HEAD_QUADS] vec4    in
// v_cache   [sequence, NUM_KV_HEADS, CONTEXT, V_STRIDE] vec4      in   the first VALUE_DIM values of each row
// y         [num_tokens, Y_QUADS] vec4<f32>                       out
// sinks     [NUM_HEADS] f32                                       in   #ifdef SINKS: one more logit per head, without a value
// Key j is visible at position i iff j <= i; #ifdef WINDOWED: and i - WINDOW < j; #ifdef CHUNKED: and j / CHUNK == i / CHUNK.
// #ifdef SOFTCAP: scores become CAP * tanh(score / CAP).
// #ifdef ROLLED: loops stay loops; software devices compile each load of eight lanes into a page of code.
// source    Milakov and Gimelshein 2018, arXiv 1805.02867 (online softmax); Dao et al. 2022, arXiv 2205.14135
// twin      src/reference/attention.rs
#import rows

@group(0) @binding(0) var<storage, read> rows: array<Row>;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k_cache: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v_cache: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
#ifdef SINKS
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
#endif

const HEAD_QUADS: u32 = HEAD_DIM / 4u;
const VALUE_QUADS: u32 = VALUE_DIM / 4u;
const HEADS_PER_KV_HEAD: u32 = NUM_HEADS / NUM_KV_HEADS;
const LOWEST: f32 = -3.0e38;
// Output quads of the group, dealt out to the invocations.
const QUADS_PER_LANE: u32 = (GROUP * VALUE_QUADS + WG - 1u) / WG;

var<workgroup> wg_q: array<vec4<f32>, GROUP * HEAD_QUADS>;
var<workgroup> wg_scores: array<f32, GROUP * TILE>; // scores, then exp(score - maximum)
var<workgroup> wg_max: array<f32, GROUP>;
var<workgroup> wg_rescale: array<f32, GROUP>; // what earlier tiles shrink by
var<workgroup> wg_sum: array<f32, GROUP>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = rows[workgroup.y];
    let first_head = workgroup.x * GROUP;
#ifdef ROLLED
    let one = min(1u, arrayLength(&q)); // no constant, and neither is a bound that it multiplies
#else
    let one = 1u;
#endif
    let head_quads = HEAD_QUADS * one;
    let group_scores = GROUP * TILE * one;
    let quads_per_lane = QUADS_PER_LANE * one;
    let kv_head = first_head / HEADS_PER_KV_HEAD;
    let cache = (row.sequence * NUM_KV_HEADS + kv_head) * CONTEXT;
    let q_base = workgroup.y * Q_QUADS + first_head * HEAD_QUADS;

    for (var i = local; i < GROUP * head_quads; i += WG) {
        wg_q[i] = q[q_base + i] * SCALE;
    }
    if local < GROUP {
#ifdef SINKS
        // As if a key had been seen whose value is zero.
        wg_max[local] = sinks[first_head + local];
        wg_sum[local] = 1.0;
#else
        wg_max[local] = LOWEST;
        wg_sum[local] = 0.0;
#endif
    }
    workgroupBarrier();

    var first_key = 0u;
#ifdef WINDOWED
    first_key = max(row.position + 1u, WINDOW) - WINDOW;
#endif
#ifdef CHUNKED
    first_key = row.position / CHUNK * CHUNK;
#endif
    let end_key = row.position + 1u;
    var out: array<vec4<f32>, QUADS_PER_LANE>;

    for (var tile = first_key; tile < end_key; tile += TILE) {
        let count = min(TILE, end_key - tile);

        for (var i = local; i < group_scores; i += WG) {
            let head = i / TILE;
            let key = i % TILE;
            if key < count {
                let k = (cache + tile + key) * HEAD_QUADS;
                var score = 0.0;
                for (var quad = 0u; quad < head_quads; quad++) {
                    score += dot(wg_q[head * HEAD_QUADS + quad], k_cache[k + quad]);
                }
#ifdef SOFTCAP
                score = CAP * tanh(clamp(score / CAP, -15.0, 15.0)); // tanh of a large argument may overflow on the way
#endif
                wg_scores[i] = score;
            }
        }
        workgroupBarrier();

        if local < GROUP {
            let before = wg_max[local];
            var top = before;
            for (var key = 0u; key < count; key++) {
                top = max(top, wg_scores[local * TILE + key]);
            }
            wg_max[local] = top;
            wg_rescale[local] = exp(before - top); // 0 for the first tile
        }
        workgroupBarrier();

        for (var i = local; i < group_scores; i += WG) {
            if i % TILE < count {
                wg_scores[i] = exp(wg_scores[i] - wg_max[i / TILE]);
            }
        }
        workgroupBarrier();

        if local < GROUP {
            var sum = wg_sum[local] * wg_rescale[local];
            for (var key = 0u; key < count; key++) {
                sum += wg_scores[local * TILE + key];
            }
            wg_sum[local] = sum;
        }
        for (var n = 0u; n < quads_per_lane; n++) {
            let i = local + n * WG;
            if i < GROUP * VALUE_QUADS {
                let head = i / VALUE_QUADS;
                let v = (cache + tile) * V_STRIDE + i % VALUE_QUADS;
                var sum = out[n] * wg_rescale[head];
                for (var key = 0u; key < count; key++) {
                    sum += wg_scores[head * TILE + key] * v_cache[v + key * V_STRIDE];
                }
                out[n] = sum;
            }
        }
        workgroupBarrier();
    }

    for (var n = 0u; n < quads_per_lane; n++) {
        let i = local + n * WG;
        if i < GROUP * VALUE_QUADS {
            y[workgroup.y * Y_QUADS + first_head * VALUE_QUADS + i] = out[n] / wg_sum[i / VALUE_QUADS];
        }
    }
}
