// attention_merge: what the splits of one token's attention come to together.
// grid      x = WG quads of the values of all heads
// partials  [NUM_HEADS, SPLITS, VALUE_QUADS + 1] vec4<f32>  in   of each split: the values, not yet divided by the sum of their weights;
//                                                                then its highest score, and that sum
// sinks     [NUM_HEADS] f32                                 in   #ifdef SINKS: one more logit per head, without a value
// y         [NUM_HEADS, VALUE_QUADS] vec4<f32>              out
// A split without keys has the sum 0, and a highest score of which nothing is left beside any other.
// source    Dao, Haziza, Massa and Sizov 2023, Flash-Decoding for long-context inference
// twin      src/reference/attention_merge.rs

@group(0) @binding(0) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
#ifdef SINKS
@group(0) @binding(2) var<storage, read> sinks: array<f32>;
#endif

const VALUE_QUADS: u32 = VALUE_DIM / 4u;
const STRIDE: u32 = VALUE_QUADS + 1u;
const STEP: u32 = 8u;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) invocation: vec3<u32>) {
    let i = invocation.x;
    if i >= NUM_HEADS * VALUE_QUADS {
        return;
    }
    let head = i / VALUE_QUADS;
    let first = head * SPLITS * STRIDE;
    var top = -3.0e38;
#ifdef SINKS
    top = sinks[head];
#endif
    for (var split = 0u; split < SPLITS; split += STEP) {
#for S in 8
        let top_$S = partials[first + min(split + $Su, SPLITS - 1u) * STRIDE + VALUE_QUADS].x;
#end
#for S in 8
        top = max(top, top_$S);
#end
    }
    var sum = 0.0;
#ifdef SINKS
    sum = exp(sinks[head] - top);
#endif
    var value = vec4<f32>();
    // STEP at a time are under way; beyond the last one that again, which counts nothing.
    for (var split = 0u; split < SPLITS; split += STEP) {
#for S in 8
        let of_split_$S = first + min(split + $Su, SPLITS - 1u) * STRIDE;
        let ends_$S = partials[of_split_$S + VALUE_QUADS];
        let value_$S = partials[of_split_$S + i % VALUE_QUADS];
#end
#for S in 8
        let share_$S = select(0.0, exp(ends_$S.x - top), split + $Su < SPLITS);
        sum += share_$S * ends_$S.y;
        value += share_$S * value_$S;
#end
    }
    y[i] = value / sum;
}
