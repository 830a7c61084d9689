// grad_norm_weight: the gradient of the weight of an RMSNorm: the sum of dy x scale over the tokens, column by column.
// grid      one workgroup per quad of columns: workgroup_id.x = quad
// x         [num_tokens, ROW_QUADS] vec4<f32>  in
// dy        [num_tokens, ROW_QUADS] vec4<f32>  in
// scales    [num_tokens] f32                   in   of grad_norm
// dweight   [ROW_QUADS] vec4<f32>              out  #ifdef ACCUMULATE: added to what it holds
// The order of the sums depends on nothing but the number of tokens.
// twin      src/reference/grad_norm_weight.rs

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> scales: array<f32>;
@group(0) @binding(4) var<storage, read_write> dweight: array<vec4<f32>>;

var<workgroup> wg_sums: array<vec4<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var own = vec4<f32>();
    for (var token = local; token < params.num_tokens; token += WG) {
        let at = token * ROW_QUADS + workgroup.x;
        own += dy[at] * x[at] * scales[token];
    }
    wg_sums[local] = own;
    workgroupBarrier();
    if local == 0u {
        var sum = vec4<f32>();
        for (var other = 0u; other < WG; other++) {
            sum += wg_sums[other];
        }
#ifdef ACCUMULATE
        dweight[workgroup.x] += sum;
#else
        dweight[workgroup.x] = sum;
#endif
    }
}
