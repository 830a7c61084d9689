// grad_weight: dW = dy^T x, the gradient of the weight of y = x W^T.
// #ifdef SORTED: of every expert over its own assignments; one without any gets zeros.
// grid      x = N_QUADS quads of columns; y = tile of M rows; z = expert
// dy        [num_tokens, DY_QUADS] vec4<f32>                in   #ifdef SORTED: a row per assignment; #ifdef DY_BY_TOKEN: per token all the same
// x         [num_tokens, ROW_QUADS] vec4<f32>               in   likewise, #ifdef X_BY_TOKEN
// dweight   [num_experts, num_rows, ROW_QUADS] vec4<f32>    out  #ifdef ACCUMULATE: added to what it holds
// starts    [num_experts + 1] u32                           in   #ifdef SORTED: of expert_sort
// order     [num_assignments] u32                           in   #ifdef SORTED: assignments, by expert
// weights   [num_assignments] f32                           in   #ifdef WEIGHTED: multiplies dy
// twin      src/reference/grad_weight.rs
#import outer

struct Params {
    num_tokens: u32,
    num_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dweight: array<vec4<f32>>;
#ifdef SORTED
@group(0) @binding(4) var<storage, read> starts: array<u32>;
@group(0) @binding(5) var<storage, read> order: array<u32>;
#endif
#ifdef WEIGHTED
@group(0) @binding(6) var<storage, read> weights: array<f32>;
#endif

var<private> first_i: u32; // in order
var<private> first_m: u32; // row of the weight
var<private> first_word: u32; // of the expert's gradient

fn assignment_of(i: u32) -> u32 {
#ifdef SORTED
    return order[first_i + i];
#else
    return i;
#endif
}

fn a_quad(i: u32, m: u32) -> vec4<f32> {
    let assignment = assignment_of(i);
#ifdef DY_BY_TOKEN
    let quad = dy[assignment / TOP_K * DY_QUADS + (first_m + m) / 4u];
#else
    let quad = dy[assignment * DY_QUADS + (first_m + m) / 4u];
#endif
#ifdef WEIGHTED
    return weights[assignment] * quad;
#else
    return quad;
#endif
}

fn b_quad(i: u32, n: u32) -> vec4<f32> {
#ifdef X_BY_TOKEN
    return x[assignment_of(i) / TOP_K * ROW_QUADS + n];
#else
    return x[assignment_of(i) * ROW_QUADS + n];
#endif
}

fn store(m: u32, n: u32, sums: vec4<f32>) {
    let at = first_word + (first_m + m) * ROW_QUADS + n;
#ifdef ACCUMULATE
    dweight[at] += sums;
#else
    dweight[at] = sums;
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    first_m = workgroup.y * M;
    first_word = workgroup.z * params.num_rows * ROW_QUADS;
#ifdef SORTED
    first_i = starts[workgroup.z];
    let count = starts[workgroup.z + 1u] - starts[workgroup.z];
#else
    let count = params.num_tokens;
#endif
    outer(local, min(M, params.num_rows - workgroup.y * M), workgroup.x * N_QUADS, ROW_QUADS, count);
}
