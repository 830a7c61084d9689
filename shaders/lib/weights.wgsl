// weights: the values of a row, whatever format it is stored in.
// needs     fn weight_word(word: u32) -> vec4<u32>, the 16-byte word at an index, from the kernel
//           fn weight_u32(word: u32, part: u32) -> u32, one of its four parts
// consts    CHUNK_QUADS quads of values in one word, a chunk; BLOCK_CHUNKS chunks in a block, whose values share a scale: 32 values, with
//           SHORT_BLOCKS 16, which are one word;
//           ROW_CHUNKS chunks per row, then what HIGH_BITS says, and ROW_WORDS - SCALES_WORD words of scales from SCALES_WORD on;
//           ROW_SUPERBLOCKS superblocks of 256 values, the last perhaps not whole, in formats that have them
// flags     exactly one of WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_I8M, WEIGHT_I8S, WEIGHT_Q8_0, WEIGHT_FP8, WEIGHT_Q6_K, WEIGHT_Q5_K,
//           WEIGHT_Q4_1, WEIGHT_Q4_K, WEIGHT_Q4_0, WEIGHT_MXFP4
//           SCALED the blocks have scales; OFFSET and something to add; HALVES a scale for each half of a block; SUPERBLOCKS the scales and
//           offsets of a superblock share a word; HIGH_BITS values are nibbles and what the words between have of them; HALF_BITS values of
//           WEIGHT_MXFP4 go through the bits of an f16, and unpack_quad() gives them without HALF_FACTOR
// packing   src/quant/: rows padded to whole blocks. A weight is value * scale + offset.

const BLOCK_QUADS: u32 = 8u; // of 32 values
const SCALE_QUADS: u32 = BLOCK_CHUNKS * CHUNK_QUADS; // of those that share a scale, or with HALVES two

// What is loaded of a chunk.
#ifdef HIGH_BITS
#ifdef WEIGHT_Q6_K
struct Word {
    nibbles: vec4<u32>,
    high: vec2<u32>, // of each four quads: bits 2 q of its bytes belong to the values of quad q
}

fn load_word(row: u32, chunk: u32) -> Word {
    let high = row + ROW_CHUNKS + chunk / 2u;
    let part = chunk % 2u * 2u;
    return Word(weight_word(row + chunk), vec2<u32>(weight_u32(high, part), weight_u32(high, part + 1u)));
}

// A word that begins with this quad of another.
fn first_quad(word: Word, quad: u32) -> Word {
    return Word(vec4<u32>(word.nibbles[quad / 2u] >> (quad % 2u * 4u)), vec2<u32>(word.high[quad / 4u] >> (quad % 4u * 2u)));
}

// A word that begins with this quad of a row, of which nothing else is loaded.
fn load_quad(row: u32, quad: u32) -> Word {
    let nibbles = weight_u32(row + quad / 8u, quad % 8u / 2u) >> (quad % 2u * 4u);
    let high = weight_u32(row + ROW_CHUNKS + quad / 16u, quad / 4u % 4u) >> (quad % 4u * 2u);
    return Word(vec4<u32>(nibbles), vec2<u32>(high));
}
#else
struct Word {
    nibbles: vec4<u32>,
    high: u32, // bits q of its bytes belong to the values of quad q
}

fn load_word(row: u32, chunk: u32) -> Word {
    return Word(weight_word(row + chunk), weight_u32(row + ROW_CHUNKS + chunk / 4u, chunk % 4u));
}

// A word that begins with this quad of another.
fn first_quad(word: Word, quad: u32) -> Word {
    return Word(vec4<u32>(word.nibbles[quad / 2u] >> (quad % 2u * 4u)), word.high >> quad);
}

// A word that begins with this quad of a row, of which nothing else is loaded.
fn load_quad(row: u32, quad: u32) -> Word {
    let nibbles = weight_u32(row + quad / 8u, quad % 8u / 2u) >> (quad % 2u * 4u);
    return Word(vec4<u32>(nibbles), weight_u32(row + ROW_CHUNKS + quad / 32u, quad / 8u % 4u) >> (quad % 8u));
}
#endif
#else
alias Word = vec4<u32>;

fn load_word(row: u32, chunk: u32) -> Word {
    return weight_word(row + chunk);
}

// A word that begins with this quad of another, of four or eight quads.
fn first_quad(word: Word, quad: u32) -> Word {
    return vec4<u32>(select(word[quad / 2u % 4u] >> (quad % 2u * 4u), word[quad % 4u], CHUNK_QUADS == 4u));
}

// A word that begins with this quad of a row, of which nothing else is loaded.
fn load_quad(row: u32, quad: u32) -> Word {
    let word = row + quad / CHUNK_QUADS;
    let place = quad % CHUNK_QUADS;
    if CHUNK_QUADS == 1u {
        return weight_word(word);
    }
    if CHUNK_QUADS == 2u {
        let pair = vec2<u32>(weight_u32(word, 2u * place), weight_u32(word, 2u * place + 1u));
        return pair.xyxy;
    }
    if CHUNK_QUADS == 4u {
        return vec4<u32>(weight_u32(word, place));
    }
    return vec4<u32>(weight_u32(word, place / 2u) >> (place % 2u * 4u));
}
#endif

// Four values of a word as they are stored. `quad` is a constant where speed counts (all of matmul but #ifdef LANES_1), and branches on it
// vanish.
#ifdef WEIGHT_F32
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(word);
}
#endif
#ifdef WEIGHT_F16
// unpack2x16float is core WGSL: no shader-f16 needed.
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    let pair = select(word.zw, word.xy, quad == 0u);
    return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
#endif
#ifdef WEIGHT_BF16
// A bf16 is the upper half of an f32: widening is a shift.
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    let pair = select(word.zw, word.xy, quad == 0u);
    return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
}
#endif
#ifdef SIGNED_BYTES
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(word[quad]));
}
#endif
#ifdef WEIGHT_FP8
// E4M3: sign, four bits of exponent, three of mantissa. Seven bits in the place of an f32's, the exponent's bias made up for, are the value,
// but below 2^-6 the exponent stands still: a factor of two and the leading one too much. An f32 as small as that would be flushed to zero
// on many devices, so the correction is made on ordinary numbers, and is exact.
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
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
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    return vec4<f32>(nibble_quad(word, quad));
}
#endif
#ifdef WEIGHT_Q4_0
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    return vec4<f32>(nibble_quad(word, quad));
}
#endif
#ifdef WEIGHT_Q4_K
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    return vec4<f32>(nibble_quad(word, quad));
}
#endif
#ifdef WEIGHT_Q5_K
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    let nibbles = (word.nibbles[quad / 2u] >> (quad % 2u * 4u)) & 0x0f0f0f0fu;
    let high = (word.high >> quad) & 0x01010101u;
    return vec4<f32>(unpack4xU8(nibbles | (high << 4u)));
}
#endif
#ifdef WEIGHT_Q6_K
// Four times the value: six bits of two's complement are the upper ones of a byte.
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    let nibbles = (word.nibbles[quad / 2u] >> (quad % 2u * 4u)) & 0x0f0f0f0fu;
    let high = (word.high[quad / 4u] >> (quad % 4u * 2u)) & 0x03030303u;
    return vec4<f32>(unpack4xI8((nibbles << 2u) | (high << 6u)));
}
#endif
#ifdef WEIGHT_MXFP4
#ifdef HALF_BITS
// E2M1: sign, two bits of exponent, one of mantissa. In the places of an f16's they are 2^-14 times the value, 0.5 as an f16 below the normal ones:
// only for devices that keep those. The factor is not in the scale, which it might overflow.
const HALF_FACTOR: f32 = 16384.0;
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
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
fn unpack_quad(word: Word, quad: u32) -> vec4<f32> {
    let code = nibble_quad(word, quad);
    let doubled = vec4<f32>((vec4<u32>(0xc8643210u) >> ((code & vec4<u32>(7u)) * 4u)) & vec4<u32>(15u));
    return select(-doubled, doubled, code < vec4<u32>(8u));
}
#endif
#endif

// Scales and offsets of the two blocks of a pair: x and y of the first, z and w of the second. With HALVES the scales of their halves.
#ifdef WEIGHT_I8S
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let word = row + SCALES_WORD + pair / 2u;
    let part = pair % 2u * 2u;
    return vec4<f32>(bitcast<f32>(weight_u32(word, part)), 0.0, bitcast<f32>(weight_u32(word, part + 1u)), 0.0);
}
#endif
#ifdef WEIGHT_I8M
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(weight_word(row + SCALES_WORD + pair));
}
#endif
#ifdef WEIGHT_Q8_0
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let d = unpack2x16float(weight_u32(row + SCALES_WORD + pair / 4u, pair % 4u));
    return vec4<f32>(d.x, 0.0, d.y, 0.0);
}
#endif
#ifdef WEIGHT_FP8
// One f32 for four blocks, so both of a pair have the same.
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let scale = bitcast<f32>(weight_u32(row + SCALES_WORD + pair / 8u, pair / 2u % 4u));
    return vec4<f32>(scale, 0.0, scale, 0.0);
}
#endif
#ifdef WEIGHT_Q6_K
// Of a superblock a word of bytes, and then for all of them an f16 each. The values are four times as large.
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let superblock = pair / 4u;
    let steps = unpack4xI8(weight_u32(row + SCALES_WORD + superblock, pair % 4u));
    let factors = unpack2x16float(weight_u32(row + SCALES_WORD + ROW_SUPERBLOCKS + superblock / 8u, superblock / 2u % 4u));
    return (0.25 * select(factors.y, factors.x, superblock % 2u == 0u)) * vec4<f32>(steps);
}
#endif
#ifdef SUPERBLOCKS
// Six bits of scale and offset of a block, four in a part for each and the upper two in the last, times the factors in the first.
fn superblock_scale(word: vec4<u32>, block: u32) -> vec2<f32> {
    let nibbles = (word.yzw >> vec3<u32>(block % 8u * 4u)) & vec3<u32>(15u);
    let upper = vec2<u32>(nibbles.z & 3u, nibbles.z >> 2u);
    return unpack2x16float(word.x) * vec2<f32>(nibbles.xy | (upper << vec2<u32>(4u)));
}

fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let word = weight_word(row + SCALES_WORD + pair / 4u);
    return vec4<f32>(superblock_scale(word, 2u * pair), superblock_scale(word, 2u * pair + 1u));
}
#endif
#ifdef WEIGHT_Q4_0
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let d = unpack2x16float(weight_u32(row + SCALES_WORD + pair / 4u, pair % 4u));
    return vec4<f32>(d.x, -8.0 * d.x, d.y, -8.0 * d.y);
}
#endif
#ifdef WEIGHT_Q4_1
fn pair_scales(row: u32, pair: u32) -> vec4<f32> {
    let word = row + SCALES_WORD + pair / 2u;
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
    let exponents = weight_u32(row + SCALES_WORD + pair / 8u, pair / 2u % 4u) >> (pair % 2u * 16u);
    return vec4<f32>(mxfp4_scale(exponents & 0xffu), 0.0, mxfp4_scale((exponents >> 8u) & 0xffu), 0.0);
}
#endif

// Scale and offset of one block; with HALVES the scales of its halves.
fn block_scale(row: u32, block: u32) -> vec2<f32> {
#ifdef SUPERBLOCKS
    return superblock_scale(weight_word(row + SCALES_WORD + block / 8u), block);
#else
#ifdef SCALED
    let pair = pair_scales(row, block / 2u);
    return select(pair.zw, pair.xy, block % 2u == 0u);
#else
    return vec2<f32>(1.0, 0.0);
#endif
#endif
}

// Scale and offset of one quad of a block.
fn quad_scale(scale: vec2<f32>, quad: u32) -> vec2<f32> {
#ifdef HALVES
    return select(scale.yy, scale.xx, quad < SCALE_QUADS / 2u);
#else
    return scale;
#endif
}

// Four weights of a word whose block has this scale.
fn weight_quad(word: Word, quad: u32, scale: vec2<f32>) -> vec4<f32> {
    var weights = unpack_quad(word, quad);
#ifdef HALF_BITS
    weights *= HALF_FACTOR;
#endif
#ifdef SCALED
    weights *= quad_scale(scale, quad).x;
#endif
#ifdef OFFSET
    weights += scale.y;
#endif
    return weights;
}
