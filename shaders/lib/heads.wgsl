// heads: one element of a query or key head after clip, norm and rotation, and of a value head, from the raw projection.
// needs     qkv [.., QKV_STRIDE] f32                       raw projection, bias included: queries, then keys, then values
//           rope [.., ROPE_DIMS / 2] vec2<f32>             #ifdef ROPE: cosine and sine by position
//           q_norm, k_norm [HEAD_DIM] or [heads, HEAD_DIM] f32  #ifdef NORM_WEIGHT
// consts    LOADS, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, QKV_STRIDE, VALUE_DIM, VALUE_SCALE; with their flags CLIP_TO, EPS, VALUE_EPS, ROPE_DIMS,
//           TEMPERATURE_SCALE, TEMPERATURE_FLOOR
// Heads are numbered queries, keys, values; `source` is the first element of a token's projection.
// In this order: clip (#ifdef CLIP; CLIP_AFTER: of query and key after the norm), norm (#ifdef NORM; over one head, #ifdef NORM_ALL over
// all heads of a kind), rotation; the norm comes after the rotation #ifdef NORM_AFTER; then the temperature (#ifdef TEMPERATURE) on
// queries. Values: #ifdef VALUES_ARE_KEYS those of the raw keys; #ifdef VALUE_NORM through an RMSNorm of each head without weight.

fn raw(index: u32) -> f32 {
#ifdef CLIP
    return clamp(qkv[index], -CLIP_TO, CLIP_TO);
#else
    return qkv[index];
#endif
}

fn clipped(value: f32) -> f32 {
#ifdef CLIP_AFTER
    return clamp(value, -CLIP_TO, CLIP_TO);
#else
    return value;
#endif
}

// The norm of dimension `i` of a head; `scale` is 1 / root mean square.
fn normed(value: f32, scale: f32, head: u32, i: u32) -> f32 {
    var result = value * scale;
#ifdef NORM_WEIGHT
#ifdef NORM_ALL
    if head < NUM_HEADS {
        result *= q_norm[head * HEAD_DIM + i];
    } else {
        result *= k_norm[(head - NUM_HEADS) * HEAD_DIM + i];
    }
#else
    if head < NUM_HEADS {
        result *= q_norm[i];
    } else {
        result *= k_norm[i];
    }
#endif
#endif
    return result;
}

// One invocation's part of the sum of squares that the norm of a head divides by. WG invocations add up.
fn norm_squares(source: u32, position: u32, head: u32, local: u32) -> f32 {
    var squares = 0.0;
    if head >= NUM_HEADS + NUM_KV_HEADS {
#ifdef VALUE_NORM
        for (var i = local; i < VALUE_DIM; i += WG) {
            let value = clipped(raw(value_source(source, head) + i));
            squares += value * value;
        }
#endif
        return squares;
    }
#ifdef NORM
    // A rotation does not change the mean square, but the table may also magnify.
    var magnitude = 1.0;
#ifdef NORM_AFTER
#ifdef ROPE
    magnitude = length(rope[position * (ROPE_DIMS / 2u)]);
#endif
#endif
#ifdef NORM_ALL
    let first = source + select(NUM_HEADS * HEAD_DIM, 0u, head < NUM_HEADS);
    let len = select(NUM_KV_HEADS, NUM_HEADS, head < NUM_HEADS) * HEAD_DIM;
#else
    let first = source + head * HEAD_DIM;
    let len = HEAD_DIM;
#endif
    // LOADS are under way; beyond the end the last again.
    for (var i = local; i < len; i += LOADS * WG) {
#for I in LOADS
        var value_$I = raw(first + min(i + $Iu * WG, len - 1u));
#end
#for I in LOADS
#ifdef ROPE
        value_$I *= select(1.0, magnitude, (i + $Iu * WG) % HEAD_DIM < ROPE_DIMS);
#endif
        squares += select(0.0, value_$I * value_$I, i + $Iu * WG < len);
#end
    }
#endif
    return squares;
}

// 1 / root mean square, from the sum of all invocations; 1 where there is no norm.
fn norm_scale(squares: f32, head: u32) -> f32 {
    if head >= NUM_HEADS + NUM_KV_HEADS {
#ifdef VALUE_NORM
        return inverseSqrt(squares / f32(VALUE_DIM) + VALUE_EPS);
#else
        return 1.0;
#endif
    }
#ifdef NORM
#ifdef NORM_ALL
    return inverseSqrt(squares / f32(select(NUM_KV_HEADS, NUM_HEADS, head < NUM_HEADS) * HEAD_DIM) + EPS);
#else
    return inverseSqrt(squares / f32(HEAD_DIM) + EPS);
#endif
#else
    return 1.0;
#endif
}

// Element `i` of a query or key head.
fn turned(source: u32, position: u32, head: u32, i: u32, scale: f32) -> f32 {
    // The element that it turns with, and how much of each.
    var partner = i;
    var turn = vec2<f32>(1.0, 0.0);
#ifdef ROPE
    if i < ROPE_DIMS {
#ifdef INTERLEAVED
        let pair = i / 2u;
        let is_first = i % 2u == 0u;
        partner = select(i - 1u, i + 1u, is_first);
#else
        let pair = i % (ROPE_DIMS / 2u);
        let is_first = i < ROPE_DIMS / 2u;
        partner = select(pair, pair + ROPE_DIMS / 2u, is_first);
#endif
        let angle = rope[position * (ROPE_DIMS / 2u) + pair];
        turn = vec2<f32>(angle.x, select(angle.y, -angle.y, is_first));
    }
#endif
    var own = raw(source + head * HEAD_DIM + i);
    var other = raw(source + head * HEAD_DIM + partner);
#ifdef NORM
#ifdef NORM_AFTER
#else
    own = clipped(normed(own, scale, head, i));
    other = clipped(normed(other, scale, head, partner));
#endif
#endif
    var result = own * turn.x + other * turn.y;
#ifdef NORM_AFTER
    result = normed(result, scale, head, i);
#endif
#ifdef TEMPERATURE
    if head < NUM_HEADS {
        result *= 1.0 + TEMPERATURE_SCALE * log(1.0 + floor(f32(position + 1u) / TEMPERATURE_FLOOR));
    }
#endif
    return result;
}

// First element of the raw value of a value head.
fn value_source(source: u32, head: u32) -> u32 {
    let kv_head = head - NUM_HEADS - NUM_KV_HEADS;
#ifdef VALUES_ARE_KEYS
    return source + NUM_HEADS * HEAD_DIM + kv_head * VALUE_DIM;
#else
    return source + (NUM_HEADS + NUM_KV_HEADS) * HEAD_DIM + kv_head * VALUE_DIM;
#endif
}

// Element `i` of a value head.
fn value_element(source: u32, head: u32, i: u32, scale: f32) -> f32 {
    return VALUE_SCALE * scale * clipped(raw(value_source(source, head) + i));
}
