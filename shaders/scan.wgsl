// scan: a linear recurrence with a state [KEY_DIM, VALUE_DIM] for each value head, over the rows of a pass one after the other:
//   S = a S + k u^T, y = S^T q + skip v, with a = exp(decay dt), u = dt v, dt = softplus(step + step_bias) between STEP_MIN and STEP_MAX.
// A workgroup has COLS columns of one head; LANES invocations share a column, and each keeps SLICE quads of it, LANES apart.
// At position 0 the state is zero, whatever the buffer holds.
// grid      x = groups of COLS columns of a value head; y = value head
// rows      [num_tokens] Row                                      in       those of a sequence one after the other
// x         [num_tokens, X_QUADS] vec4<f32>                       in       v from column V_FIRST on, head by head; k and q of each key head from
//                                                                          quads K_FIRST and Q_FIRST on; GROUP value heads share a key head
// steps     [num_tokens, STEP_STRIDE] f32                         in       one per value head
// step_bias, decay, skip [VALUE_HEADS] f32                        in       decay < 0
// state     [sequence, SLOTS, VALUE_HEADS, VALUE_DIM, KEY_QUADS] vec4<f32>  in, out  that after position p in slot (p / SLOT_POSITIONS) % SLOTS
// y         [num_tokens, Y_STRIDE] f32                            out
// source    Dao and Gu 2024, arXiv 2405.21060
// twin      src/reference/scan.rs
#import rows

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> steps: array<f32>;
@group(0) @binding(4) var<storage, read> step_bias: array<f32>;
@group(0) @binding(5) var<storage, read> decay: array<f32>;
@group(0) @binding(6) var<storage, read> skip: array<f32>;
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;

#ifdef SHARED_COLUMNS
var<workgroup> wg_sums: array<f32, 2 * WG>;
#endif

// log(1 + exp(x)) to the last digits everywhere: a logarithm of nearly one has few.
fn softplus(x: f32) -> f32 {
    let e = exp(-abs(x));
    let z = e / (2.0 + e);
    let s = z * z;
    let series = 1.0 + s * (0.33333334 + s * (0.2 + s * (0.14285715 + s * (0.11111111 + s * 0.09090909))));
    return max(x, 0.0) + 2.0 * z * series;
}

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

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let head = workgroup.y;
    let lane = local % LANES;
    let column = workgroup.x * COLS + local / LANES;
    let is_column = column < VALUE_DIM;
    // Beyond the last column the last one again, which nobody writes.
    let own = min(column, VALUE_DIM - 1u);
    let keys = head / GROUP * KEY_QUADS + lane;
    let value = V_FIRST + head * VALUE_DIM + own;
    let rate = decay[head];
    let bias = step_bias[head];
    let through = skip[head];
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
        let dt = clamp(softplus(steps[token * STEP_STRIDE + head] + bias), STEP_MIN, STEP_MAX);
        let a = exp(rate * dt);
        let v = x[token * X_QUADS + value / 4u][value % 4u];
        let u = dt * v;
        var sum = 0.0;
        for (var first = 0u; first < SLICE; first += UNROLL) {
#for I in UNROLL
            let quad_$I = token * X_QUADS + keys + (first + $Iu) * LANES;
            let k_$I = x[quad_$I + K_FIRST];
            let q_$I = x[quad_$I + Q_FIRST];
#end
#for I in UNROLL
            s[first + $Iu] = a * s[first + $Iu] + u * k_$I;
            sum += dot(s[first + $Iu], q_$I);
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
        if is_column && lane == 0u {
            y[token * Y_STRIDE + head * VALUE_DIM + column] = sum + through * v;
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
