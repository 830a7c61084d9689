// short_conv: y = bias + sum_k weight[k] x[K - 1 - k positions before], each channel by itself: a causal convolution over K positions. What lies
// before position 0 is zero. #ifdef SILU: then y becomes silu(y). #ifdef GATED: of x = [b | c | u] the input is b u, and y is multiplied by c.
// One token computes and keeps in one dispatch: #ifdef WRITES. Of a batch another dispatch keeps, #ifdef APPEND, after the one that computes.
// grid      x = groups of WG channels; y = row
// rows      [num_tokens] Row                    in       those of a sequence one after the other
// x         [num_tokens, X_STRIDE] f32          in       from column X_FIRST on; CHANNELS of them, #ifdef GATED three times as many
// weight    [K, W_STRIDE] f32                   in       #ifndef APPEND: row K - 1 is that of the position itself
// bias      [CHANNELS] f32                      in       #ifdef BIAS
// state     [sequence, SLOTS, K, CHANNELS] f32  in, out  inputs of earlier positions: that of position p in slot (p / SLOT_POSITIONS) % SLOTS, row p % K
// y         [num_tokens, Y_STRIDE] f32          out      #ifndef APPEND
// twin      src/reference/short_conv.rs
#import rows

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
#ifdef WRITES
@group(0) @binding(3) var<storage, read_write> state: array<f32>;
#else
@group(0) @binding(3) var<storage, read> state: array<f32>;
#endif
#ifdef APPEND
#else
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
#ifdef BIAS
@group(0) @binding(6) var<storage, read> bias: array<f32>;
#endif
#endif

// What the convolution is over.
fn input(token: u32, c: u32) -> f32 {
    let place = token * X_STRIDE + X_FIRST + c;
#ifdef GATED
    return x[place] * x[place + 2u * CHANNELS];
#else
    return x[place];
#endif
}

fn kept(sequence: u32, position: u32, c: u32) -> u32 {
    let slot = sequence * SLOTS + (position / SLOT_POSITIONS) % SLOTS;
    return (slot * K + position % K) * CHANNELS + c;
}

fn is_row(token: u32, sequence: u32, position: u32) -> bool {
    return token < params.num_tokens && rows[token].sequence == sequence && rows[token].position == position;
}

// The input `back` positions before that of a row: of this batch, or of an earlier pass.
fn before(token: u32, back: u32, c: u32) -> f32 {
    let row = rows[token];
    if back > row.position {
        return 0.0;
    }
    let position = row.position - back;
    if back <= token && is_row(token - back, row.sequence, position) {
        return input(token - back, c);
    }
    return state[kept(row.sequence, position, c)];
}

// Whether a later row of the batch takes the place where the input of this one would be kept.
fn is_replaced(token: u32) -> bool {
    let row = rows[token];
    let block = row.position / SLOT_POSITIONS;
    let next = row.position + K;
    if next / SLOT_POSITIONS == block && is_row(token + K, row.sequence, next) {
        return true;
    }
    let taken = (block + SLOTS) * SLOT_POSITIONS;
    return is_row(token + taken - row.position, row.sequence, taken);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let c = workgroup.x * WG + local;
    let token = workgroup.y;
    if c >= CHANNELS {
        return;
    }
#ifdef APPEND
    if !is_replaced(token) {
        state[kept(rows[token].sequence, rows[token].position, c)] = input(token, c);
    }
#else
    let own = input(token, c);
    var sum = weight[(K - 1u) * W_STRIDE + c] * own;
    for (var back = 1u; back < K; back++) {
        sum += weight[(K - 1u - back) * W_STRIDE + c] * before(token, back, c);
    }
#ifdef BIAS
    sum += bias[c];
#endif
#ifdef SILU
    sum /= 1.0 + exp(-sum);
#endif
#ifdef GATED
    sum *= x[token * X_STRIDE + X_FIRST + CHANNELS + c];
#endif
    y[token * Y_STRIDE + c] = sum;
#ifdef WRITES
    // Its place is none of those that were read: they are less than K positions away.
    state[kept(rows[token].sequence, rows[token].position, c)] = own;
#endif
#endif
}
