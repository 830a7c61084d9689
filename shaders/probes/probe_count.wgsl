// probe_count: adds one. Dispatches of it depend on each other and do next to nothing, so their time is that of a dispatch.
// grid      one invocation
// counter   [1] u32  inout
@group(0) @binding(0) var<storage, read_write> counter: array<u32>;

@compute @workgroup_size(WG)
fn main() {
    counter[0] += 1u;
}
