// cache: keys and values as the KV cache keeps them, f32 or (#ifdef CACHE_F16) f16, two to a word. A row has a multiple of four values.
// Rounded here and not by pack2x16float, which leaves open to which side: the cache is the same on every device, to the last bit.
// twin      src/quant/cache.rs

#ifdef CACHE_F16
alias CachePair = u32;
alias CacheQuad = vec2<u32>;

// The bits of the nearest f16, of two equally near the even one; of the largest f16 for anything beyond.
fn half_bits(value: f32) -> u32 {
    let limited = clamp(value, -65504.0, 65504.0);
    let bits = bitcast<u32>(limited);
    let magnitude = bits & 0x7fffffffu;
    // Thirteen bits fall off, and the exponent counts from 15 instead of 127. Below 2^-14 there are only multiples of 2^-24.
    let normal = ((magnitude + 0x0fffu + ((magnitude >> 13u) & 1u)) >> 13u) - 0x1c000u;
    let small = u32(round(min(abs(limited), 1.0) * 16777216.0));
    return ((bits >> 16u) & 0x8000u) | select(small, normal, magnitude >= 0x38800000u);
}

fn to_cache_pair(values: vec2<f32>) -> CachePair {
    return half_bits(values.x) | (half_bits(values.y) << 16u);
}

fn to_cache(values: vec4<f32>) -> CacheQuad {
    return vec2<u32>(to_cache_pair(values.xy), to_cache_pair(values.zw));
}

fn from_cache(quad: CacheQuad) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(quad.x), unpack2x16float(quad.y));
}
#else
alias CachePair = vec2<f32>;
alias CacheQuad = vec4<f32>;

fn to_cache_pair(values: vec2<f32>) -> CachePair {
    return values;
}

fn to_cache(values: vec4<f32>) -> CacheQuad {
    return values;
}

fn from_cache(quad: CacheQuad) -> vec4<f32> {
    return quad;
}
#endif
