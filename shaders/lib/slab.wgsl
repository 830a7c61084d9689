// slab: 16-byte words of one expert's weights, addressed by cache slot.
// needs     var<storage, read> slab_0 .. slab_3 as far as the flags SHARD_1, SHARD_2, SHARD_3 say
// consts    SLOTS_PER_SHARD slots in each shard buffer, SLAB_WORDS words per slot; with flag BIAS, the words from BIAS_WORD on are
//           one f32 per row
// The slot is the same for a whole workgroup, so the branch on the shard is uniform.

var<private> slab_shard: u32;
var<private> slab_offset: u32;
var<private> slab_row: u32; // first of the workgroup

#ifdef BIAS
// The biases of four rows.
fn slab_bias(rows: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(weight_word(BIAS_WORD + rows / 4u));
}
#endif

fn row_word(row: u32) -> u32 {
    return (slab_row + row) * ROW_WORDS;
}

// `slot` counts from the first bound shard.
fn open_slab(slot: u32) {
    slab_shard = slot / SLOTS_PER_SHARD;
    slab_offset = slot % SLOTS_PER_SHARD * SLAB_WORDS;
}

fn weight_word(word: u32) -> vec4<u32> {
#ifdef SHARD_3
    if slab_shard == 3u {
        return slab_3[slab_offset + word];
    }
#endif
#ifdef SHARD_2
    if slab_shard == 2u {
        return slab_2[slab_offset + word];
    }
#endif
#ifdef SHARD_1
    if slab_shard == 1u {
        return slab_1[slab_offset + word];
    }
#endif
    return slab_0[slab_offset + word];
}

fn weight_u32(word: u32, part: u32) -> u32 {
#ifdef SHARD_3
    if slab_shard == 3u {
        return slab_3[slab_offset + word][part];
    }
#endif
#ifdef SHARD_2
    if slab_shard == 2u {
        return slab_2[slab_offset + word][part];
    }
#endif
#ifdef SHARD_1
    if slab_shard == 1u {
        return slab_1[slab_offset + word][part];
    }
#endif
    return slab_0[slab_offset + word][part];
}
