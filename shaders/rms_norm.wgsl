// rms_norm: y = weight * x / sqrt(mean(x^2) + EPS), row by row.
// grid      one workgroup per token: workgroup_id.x = row of y
// x         [first_row + num_tokens, ROW_QUADS] vec4<f32>  in   padding columns are zero
// weight    [ROW_QUADS] vec4<f32>                          in   padding columns are zero
// y         [num_tokens, ROW_QUADS] vec4<f32>              out
// source    Zhang and Sennrich 2019, arXiv 1910.07467
// twin      src/reference/rms_norm.rs

struct Params {
    first_row: u32, // of x
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> wg_squares: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let source = (params.first_row + workgroup.x) * ROW_QUADS;
    var squares = 0.0;
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        let value = x[source + quad];
        squares += dot(value, value);
    }
    wg_squares[local] = squares;
    workgroupBarrier();

    // Every invocation adds up all partial sums: one barrier instead of a tree of them.
    var total = 0.0;
    for (var other = 0u; other < WG; other++) {
        total += wg_squares[other];
    }
    let scale = inverseSqrt(total / f32(COLUMNS) + EPS);
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        y[workgroup.x * ROW_QUADS + quad] = x[source + quad] * scale * weight[quad];
    }
}
