// weights: the values of a row, whatever format it is stored in.
// needs     fn weight_word(word: u32) -> vec4<u32>, the 16-byte word at an index, from the kernel
//           fn weight_u32(word: u32, part: u32) -> u32, one of its four parts
// consts    CHUNK_QUADS quads of values in one word, a chunk; BLOCK_CHUNKS chunks in a block of 32 values;
//           ROW_CHUNKS chunks, then ROW_WORDS - ROW_CHUNKS words of scales, per row
// flags     exactly one of WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_Q8_0, WEIGHT_FP8, WEIGHT_Q4_1, WEIGHT_Q4_0, WEIGHT_MXFP4
//           SCALED the blocks have scales; OFFSET and something to add; HALF_BITS values of WEIGHT_MXFP4 go through the bits of an f16, and
//           unpack_quad() gives them without HALF_FACTOR
// packing   src/quant/: rows padded to whole blocks. A weight is value * scale + offset.

const BLOCK_QUADS: u32 = 8u;

// Four values of a word as they are stored. `quad` is a constant where speed counts (all of matmul but #ifdef LANES_1), and branches on it
// vanish.
#ifdef WEIGHT_F32
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(word);
}
#endif
#ifdef WEIGHT_F16
// unpack2x16float is core WGSL: no shader-f16 needed.
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    let pair = select(word.zw, word.xy, quad == 0u);
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
#endif
#ifdef WEIGHT_BF16
// A bf16 is the upper half of an f32: widening is a shift.
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    let pair = select(word.zw, word.xy, quad == 0u);
    return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
}
#endif
#ifdef WEIGHT_Q8_0
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word[quad]));
}
#endif
#ifdef WEIGHT_FP8
// E4M3: sign, four bits of exponent, three of mantissa. Seven bits in the place of an f32's, the exponent's bias made up for, are the value,
// but below 2^-6 the exponent stands still: a factor of two and the leading one too much. An f32 as small as that would be flushed to zero
// on many devices, so the correction is made on ordinary numbers, and is exact.
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    let code = unpack4xU8(word[quad]);
    let value = bitcast<vec4<f32>>(((code & vec4<u32>(0x7fu)) << vec4<u32>(20u)) + vec4<u32>(0x3c000000u));
    let smallest = vec4<f32>(0.015625);
    let magnitude = select(value, 2.0 * value - smallest, value < smallest);
    return select(-magnitude, magnitude, code < vec4<u32>(128u));
}
#endif
#ifdef NIBBLES
// A part of a word holds eight values: the first four in the low halves of its bytes.
fn nibble_quad(word: vec4<u32>, quad: u32) -> vec4<u32> {
    return unpack4xU8((word[quad / 2u] >> (quad % 2u * 4u)) & 0x0f0f0f0fu);
}
#endif
#ifdef WEIGHT_Q4_1
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    return vec4<f32>(nibble_quad(word, quad));
}
#endif
#ifdef WEIGHT_Q4_0
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    return vec4<f32>(nibble_quad(word, quad));
}
#endif
#ifdef WEIGHT_MXFP4
#ifdef HALF_BITS
// E2M1: sign, two bits of exponent, one of mantissa. In the places of an f16's they are 2^-14 times the value, 0.5 as an f16 below the normal ones:
// only for devices that keep those. The factor is not in the scale, which it might overflow.
const HALF_FACTOR: f32 = 16384.0;
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    let part = word[quad / 2u];
    var even = ((part & 0x00080008u) << 12u) | ((part & 0x00070007u) << 9u);
    var odd = ((part & 0x08000800u) << 4u) | ((part & 0x07000700u) << 1u);
    if quad % 2u == 1u {
        even = ((part & 0x00800080u) << 8u) | ((part & 0x00700070u) << 5u);
        odd = (part & 0x80008000u) | ((part & 0x70007000u) >> 3u);
    }
    let values = vec4<f32>(unpack2x16float(even), unpack2x16float(odd));
    return values.xzyw;
}
#else
// Twice the value: 0, 1, 2, 3, 4, 6, 8 or 12 by the lower three bits, a table of nibbles in one integer; the fourth is the sign.
fn unpack_quad(word: vec4<u32>, quad: u32) -> vec4<f32> {
    let code = nibble_quad(word, quad);
    let doubled = vec4<f32>((vec4<u32>(0xc8643210u) >> ((code & vec4<u32>(7u)) * 4u)) & vec4<u32>(15u));
    return select(-doubled, doubled, code < vec4<u32>(8u));
}
#endif
#endif

// Scales and offsets of the two blocks of a pair: x and y of the first, z and w of the second.
#ifdef WEIGHT_Q8_0
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let d = unpack2x16float(weight_u32(row + ROW_CHUNKS + pair / 4u, pair % 4u));
    return vec4<f32>(d.x, 0.0, d.y, 0.0);
}
#endif
#ifdef WEIGHT_FP8
// One f32 for four blocks, so both of a pair have the same.
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let scale = bitcast<f32>(weight_u32(row + ROW_CHUNKS + pair / 8u, pair / 2u % 4u));
    return vec4<f32>(scale, 0.0, scale, 0.0);
}
#endif
#ifdef WEIGHT_Q4_0
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let d = unpack2x16float(weight_u32(row + ROW_CHUNKS + pair / 4u, pair % 4u));
    return vec4<f32>(d.x, -8.0 * d.x, d.y, -8.0 * d.y);
}
#endif
#ifdef WEIGHT_Q4_1
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let word = row + ROW_CHUNKS + pair / 2u;
    let part = pair % 2u * 2u;
    return vec4<f32>(unpack2x16float(weight_u32(word, part)), unpack2x16float(weight_u32(word, part + 1u)));
}
#endif
#ifdef WEIGHT_MXFP4
// A power of two; half of it where the values are doubled.
fn mxfp4_scale(exponent: u32) -> f32 {
#ifdef HALF_BITS
    return bitcast<f32>(exponent << 23u);
#else
    return bitcast<f32>(exponent << 23u) * 0.5;
#endif
}

fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let exponents = weight_u32(row + ROW_CHUNKS + pair / 8u, pair / 2u % 4u) >> (pair % 2u * 16u);
    return vec4<f32>(mxfp4_scale(exponents & 0xffu), 0.0, mxfp4_scale((exponents >> 8u) & 0xffu), 0.0);
}
#endif

// Scale and offset of one block.
fn block_scale(row: u32, block: u32) -> vec2<f32> {
#ifdef SCALED
    let pair = pair_scales(row, block / 2u);
    return select(pair.zw, pair.xy, block % 2u == 0u);
#else
    return vec2<f32>(1.0, 0.0);
#endif
}

// Four weights of a word whose block has this scale.
fn weight_quad(word: vec4<u32>, quad: u32, scale: vec2<f32>) -> vec4<f32> {
    var weights = unpack_quad(word, quad);
#ifdef HALF_BITS
    weights *= HALF_FACTOR;
#endif
#ifdef SCALED
    weights *= scale.x;
#endif
#ifdef OFFSET
    weights += scale.y;
#endif
    return weights;
}
