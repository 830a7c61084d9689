// expert_combine: x[token] += SCALE * sum over its TOP_K assignments of weight * y[assignment], in the order of the ranks.
// #ifdef WEIGHT_INPUT: of weight 1, because the weights went into the experts.
// grid      x = GROUPS that deal out the quads of a row, WG at a time; y = token
// y         [num_tokens * TOP_K, ROW_QUADS] vec4<f32>  in
// weights   [num_tokens, TOP_K] f32                    in
// x         [num_tokens, ROW_QUADS] vec4<f32>          in, out
// twin      src/reference/expert_combine.rs

@group(0) @binding(0) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var quad = workgroup.x * WG + local; quad < ROW_QUADS; quad += GROUPS * WG) {
        var sum = vec4<f32>();
        for (var rank = 0u; rank < TOP_K; rank++) {
            let assignment = workgroup.y * TOP_K + rank;
#ifdef WEIGHT_INPUT
            sum += y[assignment * ROW_QUADS + quad];
#else
            sum += weights[assignment] * y[assignment * ROW_QUADS + quad];
#endif
        }
        x[workgroup.y * ROW_QUADS + quad] += SCALE * sum;
    }
}
