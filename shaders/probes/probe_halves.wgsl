// probe_halves: what unpack2x16float makes of the f16s below the normal ones, 2^-15 and -2^-15, which WGSL allows to flush to zero.
// grid      one invocation
// words     [2] u32  inout  in: the bits of both in the first; out: the bits of both as f32
@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(1)
fn main() {
    // Scaled as mxfp4 scales them, so that nobody keeps what a product would flush.
    let halves = unpack2x16float(words[0]) * 16384.0;
    words[0] = bitcast<u32>(halves.x);
    words[1] = bitcast<u32>(halves.y);
}
