// clip: the norm of all gradients, and what they are multiplied by so that it is no larger than CLIP_NORM.
// grid      one workgroup
// parts     [num_parts] f32  in   of squares
// control   [4] f32          out  norm, factor, whether it is a number (1 or 0), 0
// twin      src/reference/clip.rs

struct Params {
    num_parts: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> control: array<f32>;

// By its bits: WGSL may assume that there are no infinities.
fn is_number(value: f32) -> bool {
    return (bitcast<u32>(value) & 0x7f800000u) != 0x7f800000u;
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) local: u32) {
    if local > 0u {
        return;
    }
    var sum = 0.0;
    for (var part = 0u; part < params.num_parts; part++) {
        sum += parts[part];
    }
    let norm = sqrt(sum);
    control[0] = norm;
    control[1] = min(1.0, CLIP_NORM / (norm + 1e-6));
    control[2] = select(0.0, 1.0, is_number(sum));
    control[3] = 0.0;
}
