// attend_lanes: attention of many members, for a workgroup that is one subgroup of LANES invocations whose loads are dear.
// Each lane loads its part of a key and of a value, and hears those of the others by broadcast; it has OWN members to itself, with their
// queries, maxima, sums and outputs. Nothing goes through workgroup memory, and no lane waits.
// needs     rows, q, k_cache, v_cache, y, sinks (#ifdef SINKS), fn first_visible, end_of_keys and bias_at (#ifdef BIAS) of attention
// consts    MEMBERS = OWN * LANES = ROWS * GROUP; KEY_SLICES and VALUE_SLICES quads of a key and of a value per lane; TILE keys between
//           two looks at the maxima, a multiple of the KEY_STEP keys that are met together
// source, twin  as attention

// Rows first_row .. first_row + num_rows, which follow each other in one sequence. `one` keeps loops loops: a bound that is known to be TILE
// would have them unrolled, and compiled for minutes.
fn attend(first_row: u32, num_rows: u32, first_head: u32, one: u32, local: u32) {
    let kv_head = first_head / HEADS_PER_KV_HEAD;
    let cache = (rows[first_row].sequence * NUM_KV_HEADS + kv_head) * CONTEXT;
    let first_key = first_visible(rows[first_row].position);
    let end_key = end_of_keys(first_row + num_rows - 1u);

    // Members beyond the last row repeat it.
#for M in OWN
    let member_$M = $Mu * LANES + local;
    let row_$M = first_row + min(member_$M / GROUP, num_rows - 1u);
    let head_$M = first_head + member_$M % GROUP;
    let position_$M = rows[row_$M].position;
    let visible_$M = first_visible(position_$M);
    let last_$M = end_of_keys(row_$M) - 1u;
    var q_$M: array<vec4<f32>, HEAD_QUADS>;
    for (var quad = 0u; quad < HEAD_QUADS * one; quad++) {
        q_$M[quad] = q[row_$M * Q_QUADS + head_$M * HEAD_QUADS + quad] * SCALE;
    }
    var out_$M: array<vec4<f32>, VALUE_QUADS>;
    var scores_$M: array<f32, TILE>;
#ifdef SINKS
    // As if a key had been seen whose value is zero.
    var top_$M = sinks[head_$M];
    var sum_$M = 1.0;
#else
    var top_$M = LOWEST;
    var sum_$M = 0.0;
#endif
#end

    for (var tile = first_key; tile < end_key; tile += TILE) {
        let count = min(TILE * one, end_key - tile);
#for M in OWN
        let before_$M = top_$M;
#end
        for (var key = 0u; key < count; key += KEY_STEP) {
            // Beyond the last key: that one again, which is then too far for every member.
#for K in KEY_STEP
            let k_$K = (cache + min(tile + key + $Ku, end_key - 1u)) * HEAD_QUADS + local;
#for S in KEY_SLICES
            let k_$K_$S = from_cache(k_cache[k_$K + $Su * LANES]);
#end
#for M in OWN
            var score_$M_$K = 0.0;
#end
#end
#for S in KEY_SLICES
#for L in LANES
#for K in KEY_STEP
            let k_$K_$S_$L = subgroupBroadcast(k_$K_$S, $Lu);
#end
#for M in OWN
            let q_$M_$S_$L = q_$M[$Su * LANES + $Lu];
#for K in KEY_STEP
            score_$M_$K += dot(q_$M_$S_$L, k_$K_$S_$L);
#end
#end
#end
#end
#for K in KEY_STEP
            let place_$K = tile + key + $Ku;
#for M in OWN
#ifdef SOFTCAP
            score_$M_$K = CAP * tanh(clamp(score_$M_$K / CAP, -15.0, 15.0)); // tanh of a large argument may overflow on the way
#endif
#ifdef BIAS
            score_$M_$K += bias_at(head_$M, place_$K, position_$M);
#endif
            score_$M_$K = select(LOWEST, score_$M_$K, place_$K >= visible_$M && place_$K <= last_$M);
            scores_$M[key + $Ku] = score_$M_$K;
            top_$M = max(top_$M, score_$M_$K);
#end
#end
        }

#for M in OWN
        let rescale_$M = exp(before_$M - top_$M); // 0 for the first visible key
        sum_$M *= rescale_$M;
#for S in VALUE_SLICES
#for L in LANES
        out_$M[$Su * LANES + $Lu] *= rescale_$M;
#end
#end
#end
        for (var key = 0u; key < count; key += KEY_STEP) {
#for K in KEY_STEP
            let v_$K = (cache + min(tile + key + $Ku, end_key - 1u)) * V_STRIDE + local;
#for S in VALUE_SLICES
            let v_$K_$S = from_cache(v_cache[v_$K + $Su * LANES]);
#end
#for M in OWN
            let weight_$M_$K = select(exp(scores_$M[key + $Ku] - top_$M), 0.0, scores_$M[key + $Ku] == LOWEST);
            sum_$M += weight_$M_$K;
#end
#end
#for S in VALUE_SLICES
#for L in LANES
#for K in KEY_STEP
            let v_$K_$S_$L = subgroupBroadcast(v_$K_$S, $Lu);
#end
#for M in OWN
            var out_$M_$S_$L = out_$M[$Su * LANES + $Lu];
#for K in KEY_STEP
            out_$M_$S_$L += weight_$M_$K * v_$K_$S_$L;
#end
            out_$M[$Su * LANES + $Lu] = out_$M_$S_$L;
#end
#end
#end
        }
    }

#for M in OWN
    if member_$M / GROUP < num_rows {
        for (var quad = 0u; quad < VALUE_QUADS * one; quad++) {
            y[row_$M * Y_QUADS + head_$M * VALUE_QUADS + quad] = out_$M[quad] * (1.0 / sum_$M);
        }
    }
#end
}
