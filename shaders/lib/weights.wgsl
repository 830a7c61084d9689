// weights: eight consecutive weights of a row, whatever format the row is stored in.
// needs     fn weight_word(word: u32) -> vec4<u32>, the 16-byte word at an index, from the kernel
// flags     exactly one of WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16
// packing   src/quant/: rows padded to whole chunks, so a chunk never straddles two rows

struct Chunk {
    lo: vec4<f32>, // weights 0..3
    hi: vec4<f32>, // weights 4..7
}

#ifdef WEIGHT_F32
const CHUNK_WORDS: u32 = 2u;

fn weight_chunk(word: u32) -> Chunk {
    return Chunk(bitcast<vec4<f32>>(weight_word(word)), bitcast<vec4<f32>>(weight_word(word + 1u)));
}
#endif
#ifdef WEIGHT_F16
const CHUNK_WORDS: u32 = 1u;

// unpack2x16float is core WGSL: no shader-f16 needed.
fn weight_chunk(word: u32) -> Chunk {
    let w = weight_word(word);
    return Chunk(
        vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}
#endif
#ifdef WEIGHT_BF16
const CHUNK_WORDS: u32 = 1u;

// A bf16 is the upper half of an f32: widening is a shift.
fn widen_bf16(pair: vec2<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
}

fn weight_chunk(word: u32) -> Chunk {
    let w = weight_word(word);
    return Chunk(widen_bf16(w.xy), widen_bf16(w.zw));
}
#endif
