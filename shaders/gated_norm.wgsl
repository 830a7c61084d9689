// gated_norm: an RMSNorm of each group of columns with a gate. y = weight * g / sqrt(mean(g^2) + EPS) with g = x act(gate), #ifdef GATE_FIRST;
// otherwise y = weight * x / sqrt(mean(x^2) + EPS) * act(gate). act is SiLU, #ifdef SIGMOID the sigmoid.
// grid      x = group of GROUP_QUADS quads; y = row
// x         [num_tokens, ROW_QUADS] vec4<f32>     in
// gate      [num_tokens, GATE_QUADS] vec4<f32>    in   from quad GATE_FROM on
// weight    [all groups, GROUP_QUADS] vec4<f32>   in   #ifdef SHARED_WEIGHT: one group, for all of them
// y         [num_tokens, ROW_QUADS] vec4<f32>     out
// source    Zhang and Sennrich 2019, arXiv 1910.07467; Dao and Gu 2024, arXiv 2405.21060
// twin      src/reference/gated_norm.rs

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

var<workgroup> wg_sums: array<f32, WG>;

fn activated(value: vec4<f32>) -> vec4<f32> {
#ifdef SIGMOID
    return 1.0 / (1.0 + exp(-value));
#else
    return value / (1.0 + exp(-value));
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let own = workgroup.y * ROW_QUADS + workgroup.x * GROUP_QUADS;
    let gates = workgroup.y * GATE_QUADS + GATE_FROM + workgroup.x * GROUP_QUADS;
#ifdef SHARED_WEIGHT
    let weights = 0u;
#else
    let weights = workgroup.x * GROUP_QUADS;
#endif
    var squares = 0.0;
    // Each loop has LOADS quads under way; beyond the end of the group the last quad again.
    for (var quad = local; quad < GROUP_QUADS; quad += LOADS * WG) {
#for I in LOADS
        let quad_$I = min(quad + $Iu * WG, GROUP_QUADS - 1u);
        let x_$I = x[own + quad_$I];
#ifdef GATE_FIRST
        let gate_$I = gate[gates + quad_$I];
#endif
#end
#for I in LOADS
        var value_$I = x_$I;
#ifdef GATE_FIRST
        value_$I *= activated(gate_$I);
#endif
        squares += select(0.0, dot(value_$I, value_$I), quad + $Iu * WG < GROUP_QUADS);
#end
    }
    wg_sums[local] = squares;
    workgroupBarrier();
    var sum = 0.0;
    for (var other = 0u; other < WG; other++) {
        sum += wg_sums[other];
    }
    let scale = inverseSqrt(sum / f32(4u * GROUP_QUADS) + EPS);
    for (var quad = local; quad < GROUP_QUADS; quad += LOADS * WG) {
#for I in LOADS
        let quad_$I = min(quad + $Iu * WG, GROUP_QUADS - 1u);
        let x_$I = x[own + quad_$I];
        let gate_$I = gate[gates + quad_$I];
        let weight_$I = weight[weights + quad_$I];
#end
#for I in LOADS
        if quad + $Iu * WG < GROUP_QUADS {
            y[own + quad_$I] = x_$I * activated(gate_$I) * scale * weight_$I;
        }
#end
    }
}
