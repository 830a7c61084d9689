// attention: softmax(SCALE * q . k) v over the visible keys of a token's own sequence, one pass with a running maximum.
// grid      x = groups of GROUP query heads that share a key/value head; y = tiles of ROWS rows, #ifdef SPLIT parts of the keys of one row
// rows      [num_tokens] Row                                      in
// q         [num_tokens, Q_QUADS] vec4<f32>                       in       #ifdef RAW: from qkv, rope, q_norm and k_norm of lib/heads.wgsl
// k_cache   [sequence, NUM_KV_HEADS, CONTEXT, HEAD_QUADS] quads   in       of lib/cache.wgsl; #ifdef RAW: also out, at the row's position
// v_cache   [sequence, NUM_KV_HEADS, CONTEXT, V_STRIDE] quads     in       the first VALUE_DIM values of each row; as k_cache
// y         [num_tokens, Y_QUADS] vec4<f32>                       out      not #ifdef SPLIT
// partials  [NUM_HEADS, SPLITS, VALUE_QUADS + 1] vec4<f32>        out      #ifdef SPLIT: as attention_merge reads them
// sinks     [NUM_HEADS] f32                                       in       #ifdef SINKS: one more logit per head, without a value
// bias      [NUM_HEADS, 2 REACH + 1] f32                          in       #ifdef BIAS: added to the score of key j at i: entry clamp(j - i, -REACH, REACH) + REACH
// Key j is visible at position i iff j <= i; #ifdef WINDOWED: and i - WINDOW < j; #ifdef CHUNKED: and j / CHUNK == i / CHUNK.
// #ifdef ALL_KEYS: keys 0 .. row.keys are visible, wherever the row is: of an encoder, and of a decoder's attention to what that made.
// #ifdef SOFTCAP: scores become CAP * tanh(score / CAP).
// MEMBERS = ROWS * GROUP pairs of a row and a head meet each key that a workgroup loads. Rows of a tile that do not follow each other in one
// sequence take turns.
// #ifdef RAW: one row; the workgroup turns its heads itself and appends key and value, which only it will read.
// #ifdef SPLIT: one row, whose visible keys SPLITS workgroups share, SPLIT_KEYS each at least; of RAW all of them turn the queries, and the one that
// has the newest key turns and appends it. Sinks are for attention_merge.
// #ifdef SLICE: the workgroup is one subgroup; a lane keeps a slice of every query in registers. #ifdef BROADCAST: it is one, and a lane has
// members to itself (lib/attend_lanes.wgsl). #else: each lane has keys to itself.
// Where the cache is f32 no function stands between it and what is computed: SwiftShader compiles a few registers more for hours.
// #ifdef ROLLED: a load at a time, because software devices compile each of eight lanes into a page of code. #else: K_STEP quads of a key, and
// the values of V_STEP keys, are under way before any is used.
// source    BIAS: Raffel et al. 2020, arXiv 1910.10683, section 2.1; Milakov and Gimelshein 2018, arXiv 1805.02867 (online softmax); Dao et al. 2022, arXiv 2205.14135
// twin      src/reference/attention.rs
#import rows
#import cache
#ifdef RAW
#import heads
#endif
#ifdef SLICE
#import lane_sum
#endif

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
#ifdef RAW
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> k_cache: array<CacheQuad>;
@group(0) @binding(4) var<storage, read_write> v_cache: array<CacheQuad>;
#else
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> k_cache: array<CacheQuad>;
@group(0) @binding(4) var<storage, read> v_cache: array<CacheQuad>;
#endif
#ifdef SPLIT
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;
#else
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
#endif
#ifdef SINKS
@group(0) @binding(6) var<storage, read> sinks: array<f32>;
#endif
#ifdef ROPE
@group(0) @binding(7) var<storage, read> rope: array<vec2<f32>>;
#endif
#ifdef NORM_WEIGHT
@group(0) @binding(8) var<storage, read> q_norm: array<f32>;
@group(0) @binding(9) var<storage, read> k_norm: array<f32>;
#endif

#ifdef BIAS
@group(0) @binding(10) var<storage, read> bias: array<f32>;

// What the distance from a row to a key adds to the score.
fn bias_at(head: u32, key: u32, position: u32) -> f32 {
    let distance = clamp(i32(key) - i32(position), -i32(REACH), i32(REACH));
    return bias[head * (2u * REACH + 1u) + u32(distance + i32(REACH))];
}
#endif

const HEAD_QUADS: u32 = HEAD_DIM / 4u;
const VALUE_QUADS: u32 = VALUE_DIM / 4u;
const HEADS_PER_KV_HEAD: u32 = NUM_HEADS / NUM_KV_HEADS;
const LOWEST: f32 = -3.0e38;
// The first key that is visible at a position.
fn first_visible(position: u32) -> u32 {
#ifdef WINDOWED
    return max(position + 1u, WINDOW) - WINDOW;
#else
#ifdef CHUNKED
    return position / CHUNK * CHUNK;
#else
    return 0u;
#endif
#endif
}

// The first key after those that a row may see.
fn end_of_keys(row: u32) -> u32 {
#ifdef ALL_KEYS
    return rows[row].keys;
#else
    return rows[row].position + 1u;
#endif
}

#ifdef BROADCAST
#import attend_lanes
#else
// Invocations that share the softmax of one member.
const LANES: u32 = WG / MEMBERS;
// The values: invocations that hold the quads of a head, QUADS_PER_LANE each. Where there are enough for more, parts of them have members
// (MEMBER_PARTS) and keys (KEY_PARTS) of their own.
const VALUE_LANES: u32 = min(VALUE_QUADS, WG);

var<workgroup> wg_q: array<vec4<f32>, MEMBERS * HEAD_QUADS>;
var<workgroup> wg_scores: array<f32, MEMBERS * TILE>; // scores, then exp(score - maximum)
var<workgroup> wg_rescale: array<f32, MEMBERS>; // what earlier tiles shrink by; at the end 1 / sum
var<workgroup> wg_lanes: array<f32, WG>;
#ifdef KEY_SPLIT
var<workgroup> wg_out: array<vec4<f32>, WG>;
#endif

#ifdef RAW
#ifdef ANY_NORM
var<workgroup> wg_squares: array<f32, (GROUP + 2u) * WG>;
#endif
var<workgroup> wg_scales: array<f32, GROUP + 2u>; // of the norms: queries, key, value

// The number of a head in lib/heads.wgsl: queries of the group, then its key, then its value.
fn head_of(member: u32, first_head: u32) -> u32 {
    if member < GROUP {
        return first_head + member;
    }
    return NUM_HEADS + first_head / HEADS_PER_KV_HEAD + (member - GROUP) * NUM_KV_HEADS;
}

// Queries to wg_q; key and value to the cache, #ifdef SPLIT where this workgroup has them.
#ifdef SPLIT
fn turn_heads(row: u32, first_head: u32, place: u32, has_newest: bool, one: u32, local: u32) {
    let own = select(0u, 1u, has_newest);
#else
fn turn_heads(row: u32, first_head: u32, place: u32, one: u32, local: u32) {
    const own = 1u;
#endif
    let position = rows[row].position;
    let source = row * QKV_STRIDE;
#ifdef ANY_NORM
    for (var member = 0u; member < (GROUP + 2u * own) * one; member++) {
        wg_squares[member * WG + local] = norm_squares(source, position, head_of(member, first_head), local);
    }
    workgroupBarrier();
    for (var member = local; member < GROUP + 2u; member += WG) {
        var squares = 0.0;
        for (var other = 0u; other < WG * one; other++) {
            squares += wg_squares[member * WG + other];
        }
        wg_scales[member] = norm_scale(squares, head_of(member, first_head));
    }
#else
    for (var member = local; member < GROUP + 2u; member += WG) {
        wg_scales[member] = 1.0;
    }
#endif
    workgroupBarrier();
    for (var i = local; i < (GROUP + own) * HEAD_QUADS * one; i += WG) {
        let member = i / HEAD_QUADS;
        var value = vec4<f32>();
        for (var part = 0u; part < 4u * one; part++) {
            value[part] = turned(source, position, head_of(member, first_head), i % HEAD_QUADS * 4u + part, wg_scales[member]);
        }
        if member < GROUP {
            wg_q[i] = value * SCALE;
        } else {
#ifdef CACHE_F16
            k_cache[place * HEAD_QUADS + i % HEAD_QUADS] = to_cache(value);
#else
            k_cache[place * HEAD_QUADS + i % HEAD_QUADS] = value;
#endif
        }
    }
    for (var i = local; i < VALUE_QUADS * own * one; i += WG) {
        var value = vec4<f32>();
        for (var part = 0u; part < 4u * one; part++) {
            value[part] = value_element(source, head_of(GROUP + 1u, first_head), i * 4u + part, wg_scales[GROUP + 1u]);
        }
#ifdef CACHE_F16
        v_cache[place * V_STRIDE + i] = to_cache(value);
#else
        v_cache[place * V_STRIDE + i] = value;
#endif
    }
    storageBarrier();
}
#endif

// Rows first_row .. first_row + num_rows, which follow each other in one sequence.
#ifdef SPLIT
// Of one row, and of its visible keys part number `split`: a parameter, because compilers have to see that it is the same in all invocations.
fn attend(first_row: u32, num_rows: u32, first_head: u32, split: u32, one: u32, local: u32) {
#else
fn attend(first_row: u32, num_rows: u32, first_head: u32, one: u32, local: u32) {
#endif
    let head_quads = HEAD_QUADS * one;
    let kv_head = first_head / HEADS_PER_KV_HEAD;
    let cache = (rows[first_row].sequence * NUM_KV_HEADS + kv_head) * CONTEXT;
#ifdef SPLIT
    let newest = rows[first_row].position;
    // Whole tiles, so that only the last part has a tile that is not full.
    let first = first_visible(newest);
    let visible = end_of_keys(first_row) - first;
    let share = max((visible + SPLITS - 1u) / SPLITS, SPLIT_KEYS);
    let len = (share + TILE - 1u) / TILE * TILE;
    let first_key = first + min(split * len, visible);
    let end_key = first + min((split + 1u) * len, visible);
    let has_newest = first_key < end_key && end_key > newest;
#else
    let first_key = first_visible(rows[first_row].position);
    let end_key = end_of_keys(first_row + num_rows - 1u);
#endif

#ifdef RAW
#ifdef SPLIT
    turn_heads(first_row, first_head, cache + newest, has_newest, one, local);
#else
    turn_heads(first_row, first_head, cache + end_key - 1u, one, local);
#endif
#else
    for (var i = local; i < MEMBERS * head_quads; i += WG) {
        let member = i / HEAD_QUADS;
        let row = first_row + min(member / GROUP, num_rows - 1u);
        wg_q[i] = q[row * Q_QUADS + (first_head + member % GROUP) * HEAD_QUADS + i % HEAD_QUADS] * SCALE;
    }
#endif
    workgroupBarrier();
#ifdef SLICE
#for M in MEMBERS
#for S in SLICE_QUADS
    let q_$M_$S = wg_q[$Mu * HEAD_QUADS + local * SLICE_QUADS + $Su];
#end
#end
#endif

    // This invocation's part in the softmax.
    let member = min(local / LANES, MEMBERS - 1u);
    let lane = local % LANES;
    let counts = local < MEMBERS * LANES;
    let member_row = first_row + min(member / GROUP, num_rows - 1u);
    let position = rows[member_row].position;
    let member_first = first_visible(position);
    let member_last = end_of_keys(member_row) - 1u;
    var top = LOWEST;
    var sum = 0.0;
#ifdef SINKS
    // As if a key had been seen whose value is zero.
    top = sinks[first_head + member % GROUP];
    sum = select(0.0, 1.0, lane == 0u);
#endif

    // Its part in the values.
    let value_part = local / VALUE_LANES;
    let key_part = value_part % KEY_PARTS;
    let member_part = value_part / KEY_PARTS;
    let has_values = member_part < MEMBER_PARTS;
#for M in OWN_MEMBERS
#for N in QUADS_PER_LANE
    var out_$M_$N = vec4<f32>();
#end
#end
#for N in QUADS_PER_LANE
    let quad_$N = min(local % VALUE_LANES + $Nu * WG, VALUE_QUADS - 1u);
#end

    for (var tile = first_key; tile < end_key; tile += TILE) {
        let count = min(TILE, end_key - tile);

#ifdef SLICE
        for (var key = 0u; key < count; key++) {
            let k = (cache + tile + key) * HEAD_QUADS + local * SLICE_QUADS;
#for S in SLICE_QUADS
#ifdef CACHE_F16
            let k_$S = from_cache(k_cache[k + $Su]);
#else
            let k_$S = k_cache[k + $Su];
#endif
#end
#for M in MEMBERS
            var part_$M = 0.0;
#for S in SLICE_QUADS
            part_$M += dot(q_$M_$S, k_$S);
#end
            let score_$M = lane_sum(part_$M);
#end
            if local == 0u {
#for M in MEMBERS
                wg_scores[$Mu * TILE + key] = score_$M;
#end
            }
        }
#else
        for (var key = local; key < count; key += WG) {
            let k = (cache + tile + key) * HEAD_QUADS;
#for M in MEMBERS
            var score_$M = 0.0;
#end
#ifdef ROLLED
            for (var quad = 0u; quad < head_quads; quad++) {
#ifdef CACHE_F16
                let k_quad = from_cache(k_cache[k + quad]);
#else
                let k_quad = k_cache[k + quad];
#endif
#for M in MEMBERS
                score_$M += dot(wg_q[$Mu * HEAD_QUADS + quad], k_quad);
#end
            }
#else
            // Some quads at a time: all of them would take more registers than a GPU has for enough waves. The bound is no constant, so that no
            // compiler unrolls the loop.
            for (var quad = 0u; quad < min(HEAD_QUADS, arrayLength(&k_cache)); quad += K_STEP) {
#for Q in K_STEP
                let k_$Q = k_cache[k + quad + $Qu];
#end
#for Q in K_STEP
#ifdef CACHE_F16
                let k_quad_$Q = from_cache(k_$Q);
#else
                let k_quad_$Q = k_$Q;
#endif
#for M in MEMBERS
                score_$M += dot(wg_q[$Mu * HEAD_QUADS + quad + $Qu], k_quad_$Q);
#end
#end
            }
#endif
#for M in MEMBERS
            wg_scores[$Mu * TILE + key] = score_$M;
#end
        }
#endif
        workgroupBarrier();

        let before = top;
        if counts {
            for (var key = lane; key < count; key += LANES) {
                var score = wg_scores[member * TILE + key];
#ifdef SOFTCAP
                score = CAP * tanh(clamp(score / CAP, -15.0, 15.0)); // tanh of a large argument may overflow on the way
#endif
#ifdef BIAS
                score += bias_at(first_head + member % GROUP, tile + key, position);
#endif
                score = select(LOWEST, score, tile + key >= member_first && tile + key <= member_last);
                wg_scores[member * TILE + key] = score;
                top = max(top, score);
            }
        }
#ifdef LANES_MEET
        wg_lanes[local] = top;
        workgroupBarrier();
        for (var other = 0u; other < LANES * one; other++) {
            top = max(top, wg_lanes[member * LANES + other]);
        }
#endif
        if counts {
            let rescale = exp(before - top); // 0 for the first visible key
            sum *= rescale;
            for (var key = lane; key < count; key += LANES) {
                let score = wg_scores[member * TILE + key];
                let weight = select(exp(score - top), 0.0, score == LOWEST);
                wg_scores[member * TILE + key] = weight;
                sum += weight;
            }
            if lane == 0u {
                wg_rescale[member] = rescale;
            }
        }
        workgroupBarrier();

        if has_values {
#for M in OWN_MEMBERS
#for N in QUADS_PER_LANE
            out_$M_$N *= wg_rescale[$Mu * MEMBER_PARTS + member_part];
#end
#end
#ifdef ROLLED
            for (var key = key_part; key < count; key += KEY_PARTS) {
                let v = (cache + tile + key) * V_STRIDE;
#for N in QUADS_PER_LANE
#ifdef CACHE_F16
                let v_$N = from_cache(v_cache[v + quad_$N]);
#else
                let v_$N = v_cache[v + quad_$N];
#endif
#end
#for M in OWN_MEMBERS
                let weight_$M = wg_scores[($Mu * MEMBER_PARTS + member_part) * TILE + key];
#for N in QUADS_PER_LANE
                out_$M_$N += weight_$M * v_$N;
#end
#end
            }
#else
            // Beyond the last key: that one again, with a weight of zero.
            for (var key = key_part; key < count; key += V_STEP * KEY_PARTS) {
#for K in V_STEP
                let key_$K = min(key + $Ku * KEY_PARTS, count - 1u);
                let counts_$K = key + $Ku * KEY_PARTS < count;
#for N in QUADS_PER_LANE
                let v_$K_$N = v_cache[(cache + tile + key_$K) * V_STRIDE + quad_$N];
#end
#end
#for K in V_STEP
#for N in QUADS_PER_LANE
#ifdef CACHE_F16
                let value_$K_$N = from_cache(v_$K_$N);
#else
                let value_$K_$N = v_$K_$N;
#endif
#end
#for M in OWN_MEMBERS
                let weight_$K_$M = select(0.0, wg_scores[($Mu * MEMBER_PARTS + member_part) * TILE + key_$K], counts_$K);
#for N in QUADS_PER_LANE
                out_$M_$N += weight_$K_$M * value_$K_$N;
#end
#end
#end
            }
#endif
        }
        workgroupBarrier();
    }

    wg_lanes[local] = sum;
    workgroupBarrier();
    if counts && lane == 0u {
        for (var other = 1u; other < LANES; other++) {
            sum += wg_lanes[local + other];
        }
#ifdef SPLIT
        partials[((first_head + member) * SPLITS + split) * (VALUE_QUADS + 1u) + VALUE_QUADS] = vec4<f32>(top, sum, 0.0, 0.0);
#else
        wg_rescale[member] = 1.0 / sum;
#endif
    }
    workgroupBarrier();
#for M in OWN_MEMBERS
#for N in QUADS_PER_LANE
#ifdef KEY_SPLIT
    wg_out[local] = out_$M_$N;
    workgroupBarrier();
    if has_values && key_part == 0u {
        for (var other = 1u; other < KEY_PARTS; other++) {
            out_$M_$N += wg_out[local + other * VALUE_LANES];
        }
    }
    workgroupBarrier();
#endif
    {
        let own = $Mu * MEMBER_PARTS + member_part;
        let quad = local % VALUE_LANES + $Nu * WG;
        if has_values && key_part == 0u && quad < VALUE_QUADS && own / GROUP < num_rows {
#ifdef SPLIT
            partials[((first_head + own) * SPLITS + split) * (VALUE_QUADS + 1u) + quad] = out_$M_$N;
#else
            y[(first_row + own / GROUP) * Y_QUADS + (first_head + own % GROUP) * VALUE_QUADS + quad] = out_$M_$N * wg_rescale[own];
#endif
        }
    }
#end
#end
    workgroupBarrier();
}
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
#ifdef ROLLED
    let one = min(1u, arrayLength(&rows)); // no constant, and neither is a bound that it multiplies
#else
    let one = 1u;
#endif
#ifdef SPLIT
    attend(0u, params.num_tokens, workgroup.x * GROUP, workgroup.y, one, local);
#else
    let end = min((workgroup.y + 1u) * ROWS, params.num_tokens);
    var first = workgroup.y * ROWS;
    while first < end {
        var next = first + 1u;
        while next < end && rows[next].sequence == rows[first].sequence && rows[next].position == rows[first].position + next - first {
            next++;
        }
        attend(first, next - first, workgroup.x * GROUP, one, local);
        first = next;
    }
#endif
}
