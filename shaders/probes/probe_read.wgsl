// probe_read: reads a buffer once and keeps sums, so that no load can be left out.
// grid      NUM_INVOCATIONS / WG workgroups
// words     [NUM_WORDS] vec4<u32>        in   NUM_WORDS = NUM_INVOCATIONS * RUN
// sums      [NUM_INVOCATIONS] vec4<u32>  out  RUNS: each invocation reads RUN consecutive words, which one core of a CPU likes best;
//                                             otherwise neighbours read neighbouring words, which a GPU coalesces
@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let invocation = workgroup.x * WG + local;
    // Four sums: four loads in flight, whatever the compiler makes of the loop.
    var a = vec4<u32>();
    var b = vec4<u32>();
    var c = vec4<u32>();
    var d = vec4<u32>();
#ifdef RUNS
    let first = invocation * RUN;
    const STEP = 1u;
#else
    let first = invocation;
    const STEP = NUM_INVOCATIONS;
#endif
    for (var word = first; word < first + RUN * STEP; word += 4u * STEP) {
        a += words[word];
        b += words[word + STEP];
        c += words[word + 2u * STEP];
        d += words[word + 3u * STEP];
    }
    sums[invocation] = a + b + c + d;
}
