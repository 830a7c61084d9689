// router_topk: the TOP_K best experts of each token and their weights.
// grid      one workgroup per token: workgroup_id.x = token
// logits      [num_tokens, NUM_EXPERTS] f32  in
// slot_table  [NUM_EXPERTS] u32              in   cache slot of each expert
// ids         [num_tokens, TOP_K] u32        out  best first; equal logits: lower id first
// slots       [num_tokens, TOP_K] u32        out  slot_table of ids
// weights     [num_tokens, TOP_K] f32        out  softmax over all experts; #ifdef RENORMALIZE: divided by the sum of the chosen
// loads       [num_layers, NUM_EXPERTS] u32  out  row params.layer: incremented once per assignment
// source    MixtralTopKRouter of transformers
// twin      src/reference/router_topk.rs

struct Params {
    layer: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> slot_table: array<u32>;
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> slots: array<u32>;
@group(0) @binding(5) var<storage, read_write> weights: array<f32>;
@group(0) @binding(6) var<storage, read_write> loads: array<atomic<u32>>;

var<workgroup> wg_logits: array<f32, NUM_EXPERTS>;
var<workgroup> wg_chosen: array<f32, TOP_K>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = workgroup.x;
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        wg_logits[expert] = logits[token * NUM_EXPERTS + expert];
    }
    workgroupBarrier();

    var top = wg_logits[0];
    for (var expert = 1u; expert < NUM_EXPERTS; expert++) {
        top = max(top, wg_logits[expert]);
    }
    var total = 0.0;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        total += exp(wg_logits[expert] - top);
    }

    // The rank of an expert is how many experts beat it: no sort, no order of execution to depend on.
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        let logit = wg_logits[expert];
        var rank = 0u;
        for (var other = 0u; other < NUM_EXPERTS; other++) {
            let rival = wg_logits[other];
            rank += u32(rival > logit || (rival == logit && other < expert));
        }
        if rank < TOP_K {
            wg_chosen[rank] = exp(logit - top) / total;
            ids[token * TOP_K + rank] = expert;
            slots[token * TOP_K + rank] = slot_table[expert];
            atomicAdd(&loads[params.layer * NUM_EXPERTS + expert], 1u);
        }
    }
    workgroupBarrier();

    var chosen = 1.0;
#ifdef RENORMALIZE
    chosen = 0.0;
    for (var rank = 0u; rank < TOP_K; rank++) {
        chosen += wg_chosen[rank];
    }
#endif
    for (var rank = local; rank < TOP_K; rank += WG) {
        weights[token * TOP_K + rank] = wg_chosen[rank] / chosen;
    }
}
