// lane_sum: the sum of a value over the 1 << LANE_STEPS lanes of a subgroup that is the whole workgroup, in every lane.
// Software devices run a subgroupAdd as a loop over lanes with a branch for each; a shuffle by a constant is one instruction.
fn lane_sum(value: f32) -> f32 {
    var sum = value;
#for STEP in LANE_STEPS
    sum += subgroupShuffleXor(sum, 1u << $STEPu);
#end
    return sum;
}
