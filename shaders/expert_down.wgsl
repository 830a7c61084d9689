// expert_down: the experts' way back to the residual stream.
// #ifdef SORTED (prefill): y[assignment] = down(h[assignment]), tile by tile; expert_combine adds them up.
// #else (decode): y[token] += SCALE * sum over its TOP_K assignments of weight * down(h[assignment]); #ifdef WEIGHT_INPUT: of weight 1.
// grid      x = ROWS weight rows; y = token; #ifdef SORTED: tile
// h         [num_assignments, ROW_QUADS] vec4<f32>  in
// slots     [num_tokens, TOP_K] u32                 in   #ifndef SORTED: cache slot of each assignment
// weights   [num_tokens, TOP_K] f32                 in   #ifndef SORTED: routing weight of each assignment
// tiles     [num_tiles] vec4<u32>                   in   #ifdef SORTED: (slot, first, count, 0) of expert_sort
// order     [num_assignments] u32                   in   #ifdef SORTED: assignments, by expert
// y         [num_tokens, Y_STRIDE] f32              out  #ifdef SORTED: [num_assignments, Y_STRIDE]
// slab_i    [SLOTS_PER_SHARD, SLAB_WORDS] words     in   #ifdef BIAS: with a bias per row
// One dispatch serves the slots first_slot .. first_slot + num_slots and num_rows rows from first_row on.
// twin      src/reference/expert_down.rs
#import matmul
#import slab

struct Params {
    first_slot: u32,
    num_slots: u32,
    first_row: u32,
    num_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> h: array<vec4<f32>>;
#ifdef SORTED
@group(0) @binding(2) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
#else
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
#endif
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
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

var<private> tile: vec4<u32>; // slot, first, count

fn activation(quad: u32) -> vec4<f32> {
    return h[quad];
}

#ifdef SORTED
// Past the end of the tile: its last assignment again.
fn assignment_of(token: u32) -> u32 {
    return order[tile.y + min(token, tile.z - 1u)];
}
#else
// Of the assignments of the workgroup's token.
fn assignment_of(rank: u32) -> u32 {
    return tile.y * TOP_K + rank;
}

fn weight_of(assignment: u32) -> f32 {
#ifdef WEIGHT_INPUT
    return 1.0;
#else
    return weights[assignment];
#endif
}
#endif

fn token_quad(token: u32) -> u32 {
    return assignment_of(token) * ROW_QUADS;
}

fn store(token: u32, rows: u32, sums: vec4<f32>) {
    if token >= tile.z {
        return;
    }
#ifdef SORTED
    var result = sums;
#ifdef BIAS
    result += slab_bias(min(rows, (params.num_rows - 1u) / 4u * 4u));
#endif
    let base = assignment_of(token) * Y_STRIDE + params.first_row + rows;
    for (var i = 0u; i < 4u && rows + i < params.num_rows; i++) {
        y[base + i] = result[i];
    }
#else
    var result = sums;
#ifdef BIAS
    for (var rank = 0u; rank < TOP_K; rank++) {
        let assignment = assignment_of(rank);
        let slot = slots[assignment] - params.first_slot;
        if slot < params.num_slots {
            open_slab(slot);
            result += weight_of(assignment) * slab_bias(min(rows, (params.num_rows - 1u) / 4u * 4u));
        }
    }
#endif
    let base = tile.y * Y_STRIDE + params.first_row + rows;
    for (var i = 0u; i < 4u && rows + i < params.num_rows; i++) {
        y[base + i] += SCALE * result[i];
    }
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    slab_row = workgroup.x * ROWS;
    let count = min(ROWS, params.num_rows - workgroup.x * ROWS);
#ifdef SORTED
    let work = tiles[workgroup.y];
    if work.z == 0u || work.x - params.first_slot >= params.num_slots {
        return;
    }
    tile = work;
    open_slab(work.x - params.first_slot);
    matmul_batch(local, slab_row, count, work.z);
#else
    tile = vec4<u32>(0u, workgroup.y, 1u, 0u);
    for (var rank = 0u; rank < TOP_K; rank++) {
        let assignment = workgroup.y * TOP_K + rank;
        let slot = slots[assignment] - params.first_slot;
        if slot < params.num_slots {
            open_slab(slot);
            let token_quads = array<u32, TOKENS>(assignment * ROW_QUADS);
            matmul_rows(local, count, token_quads, weight_of(assignment));
        }
    }
    matmul_store(local, slab_row, count);
#endif
}
