// squares: sums of the squares of all gradients, in NUM_PARTS parts whose order depends on nothing but their number.
// grid      one workgroup per part: workgroup_id.x = part
// gradients [num_quads] vec4<f32>  in
// parts     [.. + NUM_PARTS] f32   out  from first_part on
// twin      src/reference/squares.rs

struct Params {
    num_quads: u32,
    first_part: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> parts: array<f32>;

var<workgroup> wg_sums: array<f32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var own = 0.0;
    for (var quad = workgroup.x * WG + local; quad < params.num_quads; quad += NUM_PARTS * WG) {
        own += dot(gradients[quad], gradients[quad]);
    }
    wg_sums[local] = own;
    workgroupBarrier();
    if local == 0u {
        var sum = 0.0;
        for (var other = 0u; other < WG; other++) {
            sum += wg_sums[other];
        }
        parts[params.first_part + workgroup.x] = sum;
    }
}
