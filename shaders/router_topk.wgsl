// router_topk: the TOP_K best experts of each token and their weights.
// grid      one workgroup per token: workgroup_id.x = token
// logits          [num_tokens, NUM_EXPERTS] f32  in
// slot_table      [NUM_EXPERTS] u32              in   cache slot of each expert
// ids             [num_tokens, TOP_K] u32        out  best first; equal: lower id first
// slots           [num_tokens, TOP_K] u32        out  slot_table of ids
// weights         [num_tokens, TOP_K] f32        out
// loads           [..] u32                       out  from params.load_offset on, one per expert: incremented once per assignment
// selection_bias  [NUM_EXPERTS] f32              in   #ifdef SELECTION_BIAS: added to the scores for choosing only
// expert_scale    [NUM_EXPERTS] f32              in   #ifdef EXPERT_SCALE: multiplies the weight
// halt            [..] u32                       in, out  #ifdef PAGED, instead of loads: state, place; counters of what is not finite; from
//                                                params.chosen on the ids; from params.stream on the residual stream where an expert is absent
// stream          [4 STREAM_QUADS] u32           in   #ifdef PAGED: the bits of the residual stream
// What a score and a weight are: lib/top_k.wgsl. Where a single token's logits are quickly had, `router` does both.
// source    MixtralTopKRouter, DeepseekV3TopkRouter and PhimoeTopKRouter (sparsemixer) of transformers
// twin      src/reference/router_topk.rs
#import top_k

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> slot_table: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> slots: array<u32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
#ifdef PAGED
@group(0) @binding(9) var<storage, read_write> halt: array<atomic<u32>>;
@group(0) @binding(10) var<storage, read> stream: array<u32>;

fn stream_bits(index: u32) -> u32 {
    return stream[index];
}
#else
@group(0) @binding(6) var<storage, read_write> loads: array<atomic<u32>>;
#endif
#ifdef SELECTION_BIAS
@group(0) @binding(7) var<storage, read> selection_bias: array<f32>;
#endif
#ifdef EXPERT_SCALE
@group(0) @binding(8) var<storage, read> expert_scale: array<f32>;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = workgroup.x;
#ifdef PAGED
    if is_halted(local) {
        return;
    }
#endif
    for (var expert = local; expert < NUM_EXPERTS; expert += LOADS * WG) {
#for I in LOADS
        let expert_$I = min(expert + $Iu * WG, NUM_EXPERTS - 1u);
        let logit_$I = logits[token * NUM_EXPERTS + expert_$I];
#end
#for I in LOADS
        if expert + $Iu * WG < NUM_EXPERTS {
            wg_scores[expert_$I] = logit_$I;
        }
#end
    }
    choose_experts(token, local);
}
