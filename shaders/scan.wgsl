// scan: a linear recurrence with a state S [KEY_DIM, VALUE_DIM] for each value head, over the rows of a pass one after the other:
//   S = D S, then S += k u^T, y = S^T q.
// #ifdef HEAD      D = exp(decay dt), with the step dt = softplus(step + step_bias) between STEP_MIN and STEP_MAX
// #ifdef CHANNEL   D is diagonal, and stored
// #ifdef PAIR      every value of S has its own: exp(A dt), with dt = softplus(step) of the column; one head, whose k and q go through an RMSNorm
//                  each, and y is multiplied by SiLU of a gate
// #ifdef CONSTANT  D = exp(-factor 2^(-8 (head + 1) / VALUE_HEADS)), and v, k and q go through SiLU
// #ifdef DELTA     u = beta (v - S^T k) of the decayed S; k is divided by its length, q by its length and the root of KEY_DIM
// otherwise        u = v, or dt v where there are steps; #ifdef SKIP: y += skip v
// A workgroup has COLS columns of one head; LANES invocations share a column, and each keeps SLICE quads of it, LANES apart.
// At position 0 the state is zero, whatever the buffer holds.
// grid      x = groups of COLS columns of a value head; y = value head
// rows      [num_tokens] Row                                      in       those of a sequence one after the other
// x         [num_tokens, X_QUADS] vec4<f32>                       in       v from column 0 on, head by head; k and q of each key head from
//                                                                          quads K_FIRST and Q_FIRST on; GROUP value heads share a key head
// steps     [num_tokens, STEP_STRIDE] f32                         in       HEAD: one per value head, PAIR: per column. DELTA: betas before their
//                                                                          sigmoid from BETA_FIRST on, one per value head
// step_bias, decay [VALUE_HEADS] f32                              in       HEAD; decay < 0
// skip      [VALUE_HEADS] f32                                     in       SKIP
// decays    [num_tokens, DECAY_QUADS] vec4<f32>                   in       CHANNEL: KEY_QUADS for each value head, from 0 to 1
// keys      [num_tokens, KEY_STRIDE] vec4<f32>                    in       PAIR: k, then q
// vectors   [..] vec4<f32>                                        in       PAIR: A [VALUE_DIM, KEY_QUADS], skip [VALUE_DIM / 4], the weights of the
//                                                                          norms of k and of q [KEY_QUADS]
// gate      [num_tokens, GATE_STRIDE] f32                         in       PAIR
// state     [sequence, SLOTS, VALUE_HEADS, VALUE_DIM, KEY_QUADS] vec4<f32>  in, out  that after position p in slot (p / SLOT_POSITIONS) % SLOTS
// y         [num_tokens, Y_STRIDE] f32                            out
// source    Dao and Gu 2024, arXiv 2405.21060; Yang et al. 2024, arXiv 2412.06464; Gu and Dao 2023, arXiv 2312.00752
// twin      src/reference/scan.rs
#import rows
#import softplus

struct Params {
    num_tokens: u32,
    factor: f32, // CONSTANT
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
#ifdef STEPS
@group(0) @binding(3) var<storage, read> steps: array<f32>;
#endif
#ifdef HEAD
@group(0) @binding(4) var<storage, read> step_bias: array<f32>;
@group(0) @binding(5) var<storage, read> decay: array<f32>;
#endif
#ifdef SKIP
@group(0) @binding(6) var<storage, read> skip: array<f32>;
#endif
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;
#ifdef CHANNEL
@group(0) @binding(9) var<storage, read> decays: array<vec4<f32>>;
#endif
#ifdef PAIR
@group(0) @binding(10) var<storage, read> keys: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> vectors: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> gate: array<f32>;
#endif

#ifdef SHARED_COLUMNS
#ifdef DELTA
var<workgroup> wg_sums: array<vec4<f32>, 2 * WG>;
var<workgroup> wg_lengths: array<f32, 2 * WG>;
#else
var<workgroup> wg_sums: array<f32, 2 * WG>;
#endif
#endif

fn is_row(token: u32, sequence: u32, position: u32) -> bool {
    return token < params.num_tokens && rows[token].sequence == sequence && rows[token].position == position;
}

// The first quad of a column of the state after a position.
fn column_at(sequence: u32, position: u32, head: u32, column: u32) -> u32 {
    let slot = sequence * SLOTS + (position / SLOT_POSITIONS) % SLOTS;
    return ((slot * VALUE_HEADS + head) * VALUE_DIM + column) * KEY_QUADS;
}

// Whether a row is the last of its text or of its block, and no later block of the pass takes the slot.
fn is_kept(token: u32) -> bool {
    let row = rows[token];
    let next = row.position + 1u;
    if next % SLOT_POSITIONS != 0u && is_row(token + 1u, row.sequence, next) {
        return false;
    }
    let taken = (row.position / SLOT_POSITIONS + SLOTS) * SLOT_POSITIONS;
    return !is_row(token + taken - row.position, row.sequence, taken);
}

fn sigmoid(value: f32) -> f32 {
    return 1.0 / (1.0 + exp(-value));
}

#ifdef PAIR
// Quad `quad` of k, or with KEY_QUADS added of q.
fn key_quad(token: u32, quad: u32) -> vec4<f32> {
    return keys[token * KEY_STRIDE + quad];
}

// What the root of the mean square of KEY_QUADS quads divides.
fn norm_factor(token: u32, first: u32) -> f32 {
    var squares = 0.0;
    for (var quad = 0u; quad < KEY_QUADS; quad++) {
        let value = key_quad(token, first + quad);
        squares += dot(value, value);
    }
    return inverseSqrt(squares / f32(4u * KEY_QUADS) + EPS);
}
#else
// Quad `quad` of a row of x.
fn key_quad(token: u32, quad: u32) -> vec4<f32> {
    let value = x[token * X_QUADS + quad];
#ifdef CONSTANT
    return value / (1.0 + exp(-value));
#else
    return value;
#endif
}
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let head = workgroup.y;
    let lane = local % LANES;
    let column = workgroup.x * COLS + local / LANES;
    let is_column = column < VALUE_DIM;
    // Beyond the last column the last one again, which nobody writes.
    let own = min(column, VALUE_DIM - 1u);
    let value = head * VALUE_DIM + own;
#ifdef PAIR
    let k_first = 0u;
    let q_first = KEY_QUADS;
    let skip_first = VALUE_DIM * KEY_QUADS;
    let norms_first = skip_first + VALUE_DIM / 4u;
    let through = vectors[skip_first + own / 4u][own % 4u];
#else
    let k_first = K_FIRST + head / GROUP * KEY_QUADS + lane;
    let q_first = Q_FIRST + head / GROUP * KEY_QUADS + lane;
#endif
#ifdef HEAD
    let rate = decay[head];
    let bias = step_bias[head];
#endif
#ifdef SKIP
    let through = skip[head];
#endif
#ifdef CONSTANT
    let a = exp(-params.factor * exp2(-8.0 * f32(head + 1u) / f32(VALUE_HEADS)));
#endif
#ifdef CHANNEL
    let a = 1.0;
#endif
    var s: array<vec4<f32>, SLICE>;
    for (var token = 0u; token < params.num_tokens; token++) {
        let row = rows[token];
        if token == 0u || row.position == 0u || !is_row(token - 1u, row.sequence, row.position - 1u) {
            let before = column_at(row.sequence, max(row.position, 1u) - 1u, head, own) + lane;
            for (var first = 0u; first < SLICE; first += UNROLL) {
#for I in UNROLL
                s[first + $Iu] = vec4<f32>();
                if row.position > 0u {
                    s[first + $Iu] = state[before + (first + $Iu) * LANES];
                }
#end
            }
        }
        var v = x[token * X_QUADS + value / 4u][value % 4u];
#ifdef CONSTANT
        v *= sigmoid(v);
        let u = v;
#endif
#ifdef HEAD
        let dt = clamp(softplus(steps[token * STEP_STRIDE + head] + bias), STEP_MIN, STEP_MAX);
        let a = exp(rate * dt);
#endif
#ifdef PAIR
        let dt = softplus(steps[token * STEP_STRIDE + own]);
        let k_factor = norm_factor(token, k_first);
        let q_factor = norm_factor(token, q_first);
#endif
#ifdef DELTA
        // Of the state before this row: S^T k, S^T q, k k, k q; and q q.
        var sums = vec4<f32>();
        var length = 0.0;
        for (var first = 0u; first < SLICE; first += UNROLL) {
#for I in UNROLL
            let k_$I = key_quad(token, k_first + (first + $Iu) * LANES);
            let q_$I = key_quad(token, q_first + (first + $Iu) * LANES);
#end
#for I in UNROLL
#ifdef CHANNEL
            s[first + $Iu] *= decays[token * DECAY_QUADS + head * KEY_QUADS + lane + (first + $Iu) * LANES];
#endif
            sums += vec4(dot(s[first + $Iu], k_$I), dot(s[first + $Iu], q_$I), dot(k_$I, k_$I), dot(k_$I, q_$I));
            length += dot(q_$I, q_$I);
#end
        }
#ifdef SHARED_COLUMNS
        // The other half is used for the next row, so that one barrier is enough.
        let half = (token & 1u) * WG;
        wg_sums[half + local] = sums;
        wg_lengths[half + local] = length;
        workgroupBarrier();
        sums = vec4<f32>();
        length = 0.0;
        for (var other = 0u; other < LANES; other++) {
            sums += wg_sums[half + local - lane + other];
            length += wg_lengths[half + local - lane + other];
        }
#endif
        let k_scale = inverseSqrt(sums.z + LENGTH_EPS);
        let q_scale = inverseSqrt((length + LENGTH_EPS) * f32(4u * KEY_QUADS));
        let u = sigmoid(steps[token * STEP_STRIDE + BETA_FIRST + head]) * (v - a * k_scale * sums.x);
        let result = q_scale * (a * sums.y + k_scale * sums.w * u);
        for (var first = 0u; first < SLICE; first += UNROLL) {
#for I in UNROLL
            s[first + $Iu] = a * s[first + $Iu] + (k_scale * u) * key_quad(token, k_first + (first + $Iu) * LANES);
#end
        }
#else
#ifdef STEPS
        let u = dt * v;
#endif
        var sum = 0.0;
        for (var first = 0u; first < SLICE; first += UNROLL) {
#for I in UNROLL
            let k_$I = key_quad(token, k_first + (first + $Iu) * LANES);
            let q_$I = key_quad(token, q_first + (first + $Iu) * LANES);
#end
#for I in UNROLL
#ifdef PAIR
            let a_$I = exp(dt * vectors[own * KEY_QUADS + first + $Iu]);
            let k_normed_$I = k_factor * k_$I * vectors[norms_first + first + $Iu];
            let q_normed_$I = q_factor * q_$I * vectors[norms_first + KEY_QUADS + first + $Iu];
            s[first + $Iu] = a_$I * s[first + $Iu] + u * k_normed_$I;
            sum += dot(s[first + $Iu], q_normed_$I);
#else
            s[first + $Iu] = a * s[first + $Iu] + u * k_$I;
            sum += dot(s[first + $Iu], q_$I);
#endif
#end
        }
#ifdef SHARED_COLUMNS
        // The other half is used for the next row, so that one barrier is enough.
        let half = (token & 1u) * WG;
        wg_sums[half + local] = sum;
        workgroupBarrier();
        sum = 0.0;
        for (var other = 0u; other < LANES; other++) {
            sum += wg_sums[half + local - lane + other];
        }
#endif
        var result = sum;
#ifdef SKIP
        result += through * v;
#endif
#ifdef PAIR
        let z = gate[token * GATE_STRIDE + own];
        result = (result + through * v) * z * sigmoid(z);
#endif
#endif
        if is_column && lane == 0u {
            y[token * Y_STRIDE + head * VALUE_DIM + column] = result;
        }
        if is_column && is_kept(token) {
            let after = column_at(row.sequence, row.position, head, own) + lane;
            for (var first = 0u; first < SLICE; first += UNROLL) {
#for I in UNROLL
                state[after + (first + $Iu) * LANES] = s[first + $Iu];
#end
            }
        }
    }
}
