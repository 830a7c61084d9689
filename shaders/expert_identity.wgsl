// expert_identity: x[token] += SCALE * (sum of the weights of its assignments to experts without weights) * input[token]. Such an expert
// gives back what it is given; their ids are the last ones, from NUM_WEIGHTED on.
// grid      x = groups of WG quads of columns; y = token
// input     [num_tokens, ROW_QUADS] vec4<f32>  in   what the experts read
// ids       [num_tokens, TOP_K] u32            in   expert of each assignment
// weights   [num_tokens, TOP_K] f32            in
// x         [num_tokens, ROW_QUADS] vec4<f32>  in, out
// source    LongCat-Flash, arXiv 2509.01322, section 2.1
// twin      src/reference/expert_identity.rs

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup.x * WG + local;
    if quad >= ROW_QUADS {
        return;
    }
    var weight = 0.0;
    for (var rank = 0u; rank < TOP_K; rank++) {
        let assignment = workgroup.y * TOP_K + rank;
        if ids[assignment] >= NUM_WEIGHTED {
            weight += weights[assignment];
        }
    }
    let place = workgroup.y * ROW_QUADS + quad;
    x[place] += SCALE * weight * input[place];
}
