// adamw: a step of AdamW over an arena of weights: decay, moments, weights. Nothing changes where the norm of the gradients is no number.
// grid      NUM_GROUPS workgroups that deal out the quads, WG at a time
// gradients [num_quads] vec4<f32>  in
// control   [4] f32                in       of clip: norm, factor, whether it is a number
// live      [3] f32                in       learning rate, corrections of the first and of the second moment
// weights   [num_quads] vec4<f32>  in, out  the first num_decayed quads lose a share of LR DECAY
// first     [num_quads] vec4<f32>  in, out
// second    [num_quads] vec4<f32>  in, out
// source    Loshchilov and Hutter 2019, arXiv 1711.05101
// twin      src/reference/adamw.rs

struct Params {
    num_quads: u32,
    num_decayed: u32,
    num_groups: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> control: array<f32>;
@group(0) @binding(3) var<storage, read> live: array<f32>;
@group(0) @binding(4) var<storage, read_write> weights: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> first: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> second: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if control[2] == 0.0 {
        return;
    }
    let lr = live[0];
    for (var quad = workgroup.x * WG + local; quad < params.num_quads; quad += params.num_groups * WG) {
        let gradient = gradients[quad] * control[1];
        let decay = select(0.0, DECAY, quad < params.num_decayed);
        let mean = BETA1 * first[quad] + (1.0 - BETA1) * gradient;
        let square = BETA2 * second[quad] + (1.0 - BETA2) * gradient * gradient;
        first[quad] = mean;
        second[quad] = square;
        weights[quad] = weights[quad] * (1.0 - lr * decay) - lr * (mean / live[1]) / (sqrt(square / live[2]) + ADAM_EPS);
    }
}
