// grad_input: dx = dy W for rows of tokens, the gradient of the input of y = x W^T.
// grid      x = N_QUADS quads of columns; y = tile of M tokens; #ifdef SORTED: tile of expert_sort
// dy        [num_tokens, DY_QUADS] vec4<f32>             in   columns from num_rows on are zero
// weight    [num_rows, ROW_QUADS] vec4<f32>              in   #ifdef SORTED: [num_slots, num_rows, ROW_QUADS]
// dx        [num_tokens, ROW_QUADS] vec4<f32>            out  #ifdef ACCUMULATE: added to what it holds
// tiles     [num_tiles] vec4<u32>                        in   #ifdef SORTED: (slot, first, count, 0)
// order     [num_assignments] u32                        in   #ifdef SORTED: rows of dy and dx, which are those of assignments
// twin      src/reference/grad_input.rs
#import outer

struct Params {
    num_tokens: u32,
    num_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
#ifdef SORTED
@group(0) @binding(4) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> order: array<u32>;
#endif

var<private> first_row: u32; // of the tile, among tokens or in order
var<private> first_word: u32; // of the weight

fn row_of(m: u32) -> u32 {
#ifdef SORTED
    return order[first_row + m];
#else
    return first_row + m;
#endif
}

fn a_quad(i: u32, m: u32) -> vec4<f32> {
    return dy[row_of(m) * DY_QUADS + i / 4u];
}

fn b_quad(i: u32, n: u32) -> vec4<f32> {
    return weight[first_word + i * ROW_QUADS + n];
}

fn store(m: u32, n: u32, sums: vec4<f32>) {
    let at = row_of(m) * ROW_QUADS + n;
#ifdef ACCUMULATE
    dx[at] += sums;
#else
    dx[at] = sums;
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
#ifdef SORTED
    let tile = tiles[workgroup.y];
    first_row = tile.y;
    first_word = tile.x * params.num_rows * ROW_QUADS;
    let count = tile.z;
#else
    first_row = workgroup.y * M;
    let count = min(M, params.num_tokens - workgroup.y * M);
#endif
    if count > 0u {
        outer(local, count, workgroup.x * N_QUADS, ROW_QUADS, params.num_rows);
    }
}
