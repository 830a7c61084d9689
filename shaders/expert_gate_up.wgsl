// expert_gate_up: h = act(gate(x), up(x)), for the expert of each assignment. act is silu(gate) * up (#ifdef SILU), gelu(gate) * up in the
// tanh approximation (GELU_TANH), relu(up)^2 without a gate (SQUARED_RELU), or (up + 1) gate sigmoid(ALPHA gate) with gate <= LIMIT and |up| <= LIMIT (CLAMPED_SWIGLU).
// grid      x = ROWS weight rows; y = assignment; #ifdef SORTED: tile
// x         [num_tokens, ROW_QUADS] vec4<f32>   in   normed; #ifdef NORM: to be normed, one token
// slots     [num_tokens, TOP_K] u32             in   #ifndef SORTED: cache slot of each assignment (decode)
// tiles     [num_tiles] vec4<u32>               in   #ifdef SORTED: (slot, first, count, 0) of expert_sort (prefill)
// order     [num_assignments] u32               in   #ifdef SORTED: assignments, by expert
// h         [num_assignments, H_STRIDE] f32     out
// weights   [num_tokens, TOP_K] f32             in   #ifdef WEIGHT_INPUT: multiplies x
// norm      [ROW_QUADS] vec4<f32>               in   #ifdef NORM: weight of the RMSNorm that x goes through first
// slab_i    [SLOTS_PER_SHARD, SLAB_WORDS] words in   gate and up rows interleaved: row 2i gate, row 2i + 1 up; #ifdef SQUARED_RELU
//                                                    up rows alone; #ifdef BIAS: then a bias each
// gate_up   [num_assignments, GATE_UP_STRIDE] f32 out #ifdef KEEP: what the activation gets, row by row, for training
// One dispatch serves the slots first_slot .. first_slot + num_slots and num_rows rows from first_row on.
// twin      src/reference/expert_gate_up.rs
#import matmul
#import slab

struct Params {
    first_slot: u32,
    num_slots: u32,
    first_row: u32,
    num_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
#ifdef SORTED
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
#else
@group(0) @binding(2) var<storage, read> slots: array<u32>;
#endif
@group(0) @binding(4) var<storage, read_write> h: array<f32>;
@group(0) @binding(5) var<storage, read> slab_0: array<vec4<u32>>;
#ifdef SHARD_1
@group(0) @binding(6) var<storage, read> slab_1: array<vec4<u32>>;
#endif
#ifdef SHARD_2
@group(0) @binding(7) var<storage, read> slab_2: array<vec4<u32>>;
#endif
#ifdef SHARD_3
@group(0) @binding(8) var<storage, read> slab_3: array<vec4<u32>>;
#endif
#ifdef WEIGHT_INPUT
@group(0) @binding(9) var<storage, read> weights: array<f32>;
#endif
#ifdef NORM
@group(0) @binding(10) var<storage, read> norm: array<vec4<f32>>;

fn norm_weight(quad: u32) -> vec4<f32> {
    return norm[quad];
}
#endif

#ifdef KEEP
@group(0) @binding(11) var<storage, read_write> gate_up: array<f32>;
#endif

var<private> tile: vec4<u32>; // slot, first, count

// Past the end of the tile: its last assignment again.
fn assignment_of(token: u32) -> u32 {
#ifdef SORTED
    return order[tile.y + min(token, tile.z - 1u)];
#else
    return tile.y;
#endif
}

fn token_quad(token: u32) -> u32 {
    return assignment_of(token) / TOP_K * ROW_QUADS;
}

fn activation(quad: u32) -> vec4<f32> {
    return x[quad];
}

#ifdef SQUARED_RELU
#else
fn activate(gate: vec2<f32>, up: vec2<f32>) -> vec2<f32> {
#ifdef SILU
    return gate / (1.0 + exp(-gate)) * up;
#endif
#ifdef GELU_TANH
    // sqrt(2 / pi); tanh of a large argument may overflow on the way
    let inner = clamp(0.7978845608 * (gate + 0.044715 * gate * gate * gate), vec2<f32>(-15.0), vec2<f32>(15.0));
    return 0.5 * gate * (1.0 + tanh(inner)) * up;
#endif
#ifdef CLAMPED_SWIGLU
    let g = min(gate, vec2<f32>(LIMIT));
    let u = clamp(up, vec2<f32>(-LIMIT), vec2<f32>(LIMIT));
    return (u + 1.0) * g / (1.0 + exp(-ALPHA * g));
#endif
}
#endif

fn store(token: u32, rows: u32, sums: vec4<f32>) {
    if token >= tile.z {
        return;
    }
    let assignment = assignment_of(token);
    var projected = sums;
#ifdef WEIGHT_INPUT
    projected *= weights[assignment];
#endif
#ifdef BIAS
    projected += slab_bias(min(rows, (params.num_rows - 1u) / 4u * 4u));
#endif
#ifdef KEEP
    let kept = assignment * GATE_UP_STRIDE + params.first_row + rows;
    for (var i = 0u; i < 4u && rows + i < params.num_rows; i++) {
        gate_up[kept + i] = projected[i];
    }
#endif
#ifdef SQUARED_RELU
    let positive = max(projected, vec4<f32>());
    let hidden = positive * positive;
    let base = assignment * H_STRIDE + params.first_row + rows;
    for (var i = 0u; i < 4u && rows + i < params.num_rows; i++) {
        h[base + i] = hidden[i];
    }
#else
    let hidden = activate(projected.xz, projected.yw);
    let base = assignment * H_STRIDE + (params.first_row + rows) / 2u;
    if rows < params.num_rows {
        h[base] = hidden.x;
    }
    if rows + 2u < params.num_rows {
        h[base + 1u] = hidden.y;
    }
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
#ifdef SORTED
    let work = tiles[workgroup.y];
#else
    let work = vec4<u32>(slots[workgroup.y], workgroup.y, 1u, 0u);
#endif
    if work.z == 0u || work.x - params.first_slot >= params.num_slots {
        return;
    }
    tile = work;
    open_slab(work.x - params.first_slot);

    slab_row = workgroup.x * ROWS;
    matmul_batch(local, slab_row, min(ROWS, params.num_rows - workgroup.x * ROWS), work.z);
}
