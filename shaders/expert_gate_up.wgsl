// expert_gate_up: h = silu(gate(x)) * up(x), for the expert of each assignment.
// grid      x = groups of TEAMS quads of weight rows; y = assignment; #ifdef SORTED: tile
// x         [num_tokens, ROW_QUADS] vec4<f32>   in   normed
// slots     [num_tokens, TOP_K] u32             in   #ifndef SORTED: cache slot of each assignment (decode)
// tiles     [num_tiles] vec4<u32>               in   #ifdef SORTED: (slot, first, count, 0) of expert_sort (prefill)
// order     [num_assignments] u32               in   #ifdef SORTED: assignments, by expert
// h         [num_assignments, H_STRIDE] f32     out
// slab_i    [SLOTS_PER_SHARD, SLAB_WORDS] words in   gate and up rows interleaved: row 2i gate, row 2i + 1 up
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

var<private> tile: vec4<u32>; // slot, first, count

// Past the end of the tile: its last assignment again.
fn assignment_of(token: u32) -> u32 {
#ifdef SORTED
    return order[tile.y + min(token, tile.z - 1u)];
#else
    return tile.y;
#endif
}

fn activation(quad: u32) -> vec4<f32> {
    return x[quad];
}

fn store(token: u32, rows: u32, sums: vec4<f32>) {
    if token >= tile.z {
        return;
    }
    let base = assignment_of(token) * H_STRIDE + (params.first_row + rows) / 2u;
    let gate = sums.xz;
    let hidden = gate / (1.0 + exp(-gate)) * sums.yw;
    if rows < params.num_rows {
        h[base] = hidden.x;
    }
    if rows + 2u < params.num_rows {
        h[base + 1u] = hidden.y;
    }
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

    let team = local / LANES;
    let lane = local % LANES;
    let rows = (workgroup.x * TEAMS + team) * 4u;
    // Rows past the end repeat the last one; store() drops them.
    let row_words = min(vec4<u32>(rows) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.num_rows - 1u)) * ROW_WORDS;
    var token_quads: array<u32, TOKENS>;
    for (var token = 0u; token < TOKENS; token++) {
        token_quads[token] = assignment_of(token) / TOP_K * ROW_QUADS;
    }
    finish_tile(lane, team, rows, matmul_tile(lane, row_words, token_quads));
}
