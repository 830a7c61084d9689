// probe_multiply: multiply-adds from registers, LOOPS times UNROLL times 16 per invocation, in chains that do not wait for each other.
// grid      NUM_INVOCATIONS / WG workgroups
// factor    [1] f32                      in   0.5, from memory so that no compiler can work the result out
// sums      [NUM_INVOCATIONS] vec4<f32>  out  8
@group(0) @binding(0) var<storage, read> factor: array<f32>;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4<f32>>;

fn step(sum: vec4<f32>, factor: vec4<f32>, term: vec4<f32>) -> vec4<f32> {
#ifdef FUSED
    return fma(sum, factor, term);
#else
    return sum * factor + term;
#endif
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let half = vec4(factor[0]);
    let one = half + half;
    // Every step halves the distance to 2, so that every chain ends there.
    var a = vec4(0.0);
    var b = vec4(1.0);
    var c = vec4(3.0);
    var d = vec4(4.0);
    // Software devices mask everything that a loop changes once per turn: enough steps in a turn make that small.
    for (var i = 0u; i < LOOPS; i++) {
#for STEP in UNROLL
        a = step(a, half, one);
        b = step(b, half, one);
        c = step(c, half, one);
        d = step(d, half, one);
#end
    }
    sums[workgroup.x * WG + local] = (a + b) + (c + d);
}
