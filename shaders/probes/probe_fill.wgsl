// probe_fill: every 32-bit word becomes FACTOR times its index, so that sums over the buffer are known.
// grid      one invocation per RUN consecutive vec4
// words     [NUM_WORDS] vec4<u32>  out
@group(0) @binding(0) var<storage, read_write> words: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = (workgroup.x * WG + local) * RUN;
    for (var word = first; word < min(first + RUN, NUM_WORDS); word++) {
        words[word] = (vec4(word * 4u) + vec4(0u, 1u, 2u, 3u)) * FACTOR;
    }
}
