// grad_norm: the gradient of the input of an RMSNorm: with g = weight dy and s = 1 / sqrt(mean(x^2) + EPS), dx += s g - x s^3 mean(g x).
// grid      one workgroup per token: workgroup_id.x = token
// x         [num_tokens, ROW_QUADS] vec4<f32>  in       padding columns are zero
// weight    [ROW_QUADS] vec4<f32>              in       padding columns are zero
// dy        [num_tokens, ROW_QUADS] vec4<f32>  in       padding columns are zero
// dx        [num_tokens, ROW_QUADS] vec4<f32>  in, out  #ifdef REPLACE: out
// scales    [num_tokens] f32                   out      s, for grad_norm_weight
// twin      src/reference/grad_norm.rs

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> scales: array<f32>;

var<workgroup> wg_sums: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let base = workgroup.x * ROW_QUADS;
    var own = vec2<f32>(); // of x^2, of weight dy x
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        let value = x[base + quad];
        own += vec2<f32>(dot(value, value), dot(weight[quad] * dy[base + quad], value));
    }
    wg_sums[local] = own;
    workgroupBarrier();
    var sums = vec2<f32>();
    for (var other = 0u; other < WG; other++) {
        sums += wg_sums[other];
    }
    let scale = inverseSqrt(sums.x / f32(COLUMNS) + EPS);
    let along = scale * scale * scale * sums.y / f32(COLUMNS);
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        let gradient = scale * weight[quad] * dy[base + quad] - along * x[base + quad];
#ifdef REPLACE
        dx[base + quad] = gradient;
#else
        dx[base + quad] += gradient;
#endif
    }
    if local == 0u {
        scales[workgroup.x] = scale;
    }
}
