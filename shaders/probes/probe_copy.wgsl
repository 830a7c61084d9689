// probe_copy: one buffer becomes the other.
// grid      NUM_INVOCATIONS / WG workgroups
// source    [NUM_WORDS] vec4<u32>  in   NUM_WORDS = NUM_INVOCATIONS * RUN
// copied    [NUM_WORDS] vec4<u32>  out  RUNS: as in probe_read
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> copied: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let invocation = workgroup.x * WG + local;
#ifdef RUNS
    let first = invocation * RUN;
    const STEP = 1u;
#else
    let first = invocation;
    const STEP = NUM_INVOCATIONS;
#endif
    for (var word = first; word < first + RUN * STEP; word += 4u * STEP) {
        let a = source[word];
        let b = source[word + STEP];
        let c = source[word + 2u * STEP];
        let d = source[word + 3u * STEP];
        copied[word] = a;
        copied[word + STEP] = b;
        copied[word + 2u * STEP] = c;
        copied[word + 3u * STEP] = d;
    }
}
