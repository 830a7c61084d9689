// lane_sum: sums over the 1 << LANE_STEPS lanes of a team, all of which are in one subgroup and begin at a multiple of their number.
// Software devices run a subgroupAdd as a loop over lanes with a branch for each; a shuffle by a constant is one instruction.

// The sum of a value, in every lane.
fn lane_sum(value: f32) -> f32 {
    var sum = value;
#for STEP in LANE_STEPS
    sum += subgroupShuffleXor(sum, 1u << $STEPu);
#end
    return sum;
}

// The sum of a vector, in every lane.
fn lane_sum_of_vectors(value: vec4<f32>) -> vec4<f32> {
    var sum = value;
#for STEP in LANE_STEPS
    sum += subgroupShuffleXor(sum, 1u << $STEPu);
#end
    return sum;
}

// The sums of four values, of at least four lanes: lane l has that of values[l % 4]. Of two values a lane keeps one and gives the other to the lane that keeps that,
// so what is left to add halves with each of the first two steps.
fn lane_sum_of_four(values: vec4<f32>, lane: u32) -> f32 {
    let upper = (lane & 2u) != 0u;
    let odd = (lane & 1u) != 0u;
    let pair = select(values.xy, values.zw, upper) + subgroupShuffleXor(select(values.zw, values.xy, upper), 2u);
    var sum = select(pair.x, pair.y, odd) + subgroupShuffleXor(select(pair.y, pair.x, odd), 1u);
#for STEP in LANE_STEPS
    if $STEPu >= 2u {
        sum += subgroupShuffleXor(sum, 1u << $STEPu);
    }
#end
    return sum;
}
