// grad_hidden: the way back through the down projection and SwiGLU of the experts: with r = down^T dy and h = silu(gate) up, the gradients of gate and up
// from weight r, and that of the routing weight, <h, r>, in parts.
// grid      x = N_QUADS quads of inner values; y = tile of expert_sort
// dy        [num_tokens, DY_QUADS] vec4<f32>                  in   columns from num_rows on are zero
// down      [num_slots, num_rows, ROW_QUADS] vec4<f32>        in
// tiles     [num_tiles] vec4<u32>                             in   (slot, first, count, 0)
// order     [num_assignments] u32                             in   assignments, by expert
// gate_up   [num_assignments, GATE_UP_QUADS] vec4<f32>        in   before the activation, gate and up by turns; padding is zero
// weights   [num_assignments] f32                             in
// dgate_up  [num_assignments, GATE_UP_QUADS] vec4<f32>        out  padding becomes zero
// parts     [num_assignments, ROW_QUADS] f32                  out
// twin      src/reference/grad_hidden.rs
#import outer

struct Params {
    num_rows: u32, // of down: the width of the model
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> down: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> order: array<u32>;
@group(0) @binding(5) var<storage, read> gate_up: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> weights: array<f32>;
@group(0) @binding(7) var<storage, read_write> dgate_up: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> parts: array<f32>;

var<private> first_row: u32; // of the tile, in order
var<private> first_word: u32; // of the slot

fn a_quad(i: u32, m: u32) -> vec4<f32> {
    return dy[order[first_row + m] / TOP_K * DY_QUADS + i / 4u];
}

fn b_quad(i: u32, n: u32) -> vec4<f32> {
    return down[first_word + i * ROW_QUADS + n];
}

// Columns 4 n .. 4 n + 4 of r. Beyond the inner values gate and up are zero, and so is all that is made of them.
fn store(m: u32, n: u32, r: vec4<f32>) {
    let assignment = order[first_row + m];
    let base = assignment * GATE_UP_QUADS;
    let low = min(2u * n, GATE_UP_QUADS - 1u);
    let high = min(2u * n + 1u, GATE_UP_QUADS - 1u);
    let first = select(vec4<f32>(), gate_up[base + low], 2u * n < GATE_UP_QUADS);
    let second = select(vec4<f32>(), gate_up[base + high], 2u * n + 1u < GATE_UP_QUADS);
    let gate = vec4<f32>(first.xz, second.xz);
    let up = vec4<f32>(first.yw, second.yw);
    let sigmoid = 1.0 / (1.0 + exp(-gate));
    parts[assignment * ROW_QUADS + n] = dot(gate * sigmoid * up, r);
    let dh = weights[assignment] * r;
    let dgate = dh * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
    let dup = dh * gate * sigmoid;
    if 2u * n < GATE_UP_QUADS {
        dgate_up[base + low] = vec4<f32>(dgate.x, dup.x, dgate.y, dup.y);
    }
    if 2u * n + 1u < GATE_UP_QUADS {
        dgate_up[base + high] = vec4<f32>(dgate.z, dup.z, dgate.w, dup.w);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = tiles[workgroup.y];
    first_row = tile.y;
    first_word = tile.x * params.num_rows * ROW_QUADS;
    if tile.z > 0u {
        outer(local, tile.z, workgroup.x * N_QUADS, ROW_QUADS, params.num_rows);
    }
}
