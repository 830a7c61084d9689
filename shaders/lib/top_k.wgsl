// top_k: the TOP_K best experts of one token and their weights, by a workgroup that knows the logits.
// needs     params: Params, slot_table, ids, slots, weights, loads, selection_bias (#ifdef SELECTION_BIAS), expert_scale (#ifdef EXPERT_SCALE), as
//           the ledger of router_topk has them; #ifdef PAGED halt instead of loads, and stream_bits(index) of the residual stream
// consts    WG invocations, NUM_EXPERTS, TOP_K, and those of router_topk; #ifdef PAGED STREAM_QUADS of the residual stream
// A kernel writes the logits to wg_scores and calls choose_experts(), from uniform control flow. #ifdef PAGED it returns where is_halted().
// Scores: softmax over all logits (#ifdef SOFTMAX), the logits (SOFTMAX_OF_TOPK, whose weights are a softmax over the chosen), or
// the sigmoid of each (SIGMOID). #ifdef GROUPS: experts compete in NUM_GROUPS groups first, of which NUM_KEPT go on, valued by their best
// or by the sum of their best two (GROUP_SUM). Weights: the scores of the chosen, divided by max(sum, FLOOR) (#ifdef NORMALIZE_SUM) or by
// their P-norm (NORMALIZE_NORM), times SCALE. #ifdef SPARSE_MIXER: two rounds of a masked softmax instead.
// #ifdef OVERRIDE: a person changed the routing. Experts whose bit is set in params.disabled are not there; params.forced, where it is an
// expert, comes first, with a logit as high as the highest; params.temperature divides the logits wherever a weight is made of them.
// loads[params.fault] is incremented where a logit, a rank or a weight of the token is not finite. Drivers may assume that there is no NaN, and
// leave out comparisons with one: the bits are looked at.
// #ifdef PAGED, of a single token: an expert may be ABSENT. Then no expert of the token has a slot, halt says which place it was, the residual stream is
// kept there, and every router and sampler behind it does nothing that lasts until the host has set halt back. Nothing is counted in loads; faults are
// counted in halt.
// source, twin  as router_topk

struct Params {
    load_offset: u32,
    forced: u32,
    temperature: f32,
    fault: u32, // place in loads, #ifdef PAGED in halt
    disabled: array<vec4<u32>, 8>, // one bit per expert
    place: u32,  // index among the layers with a router
    chosen: u32, // in halt, of the experts of this place
    stream: u32, // in halt, of the residual stream
}

const LOWEST: f32 = -3.0e38;
const HIGHEST: f32 = 3.0e38;

var<workgroup> wg_scores: array<f32, NUM_EXPERTS>;
var<workgroup> wg_selection: array<f32, NUM_EXPERTS>; // what the experts are ranked by
var<workgroup> wg_chosen: array<f32, TOP_K>;          // scores of the chosen, best first
#ifdef EXPERT_SCALE
var<workgroup> wg_factors: array<f32, TOP_K>;         // their factors
#endif

#ifdef PAGED
const ABSENT: u32 = 0xffffffffu;
// Words of halt.
const STATE: u32 = 0u; // 1: halted
const PLACE: u32 = 1u;

var<workgroup> wg_slots: array<u32, TOP_K>;
var<workgroup> wg_is: u32; // what all invocations have to know alike

// Whether something was absent before. Then the token has no experts.
fn is_halted(local: u32) -> bool {
    if local == 0u {
        wg_is = atomicLoad(&halt[STATE]);
    }
    let halted = workgroupUniformLoad(&wg_is) != 0u;
    for (var rank = local; rank < TOP_K; rank += WG) {
        wg_slots[rank] = 0u;
        if halted {
            slots[rank] = ABSENT;
        }
    }
    return halted;
}

// The slots of the chosen experts, or none and a halt.
fn look_up(local: u32) {
    workgroupBarrier(); // the slots are there
    if local == 0u {
        var missing = 0u;
        for (var rank = 0u; rank < TOP_K; rank++) {
            missing |= u32(wg_slots[rank] == ABSENT);
        }
        wg_is = missing;
    }
    let missing = workgroupUniformLoad(&wg_is) != 0u;
    for (var rank = local; rank < TOP_K; rank += WG) {
        slots[rank] = select(wg_slots[rank], ABSENT, missing);
    }
    if missing {
        for (var i = local; i < 4u * STREAM_QUADS; i += WG) {
            atomicStore(&halt[params.stream + i], stream_bits(i));
        }
        if local == 0u {
            atomicStore(&halt[PLACE], params.place);
            atomicStore(&halt[STATE], 1u);
        }
    }
}
#endif

fn choose(token: u32, rank: u32, expert: u32) {
    ids[token * TOP_K + rank] = expert;
#ifdef PAGED
    wg_slots[rank] = slot_table[expert];
    atomicStore(&halt[params.chosen + rank], expert);
#else
    slots[token * TOP_K + rank] = slot_table[expert];
    atomicAdd(&loads[params.load_offset + expert], 1u);
#endif
}

// Counts what cannot be computed with: infinities and NaN have an exponent of ones.
fn check_finite(value: f32) {
    if (bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u {
#ifdef PAGED
        atomicAdd(&halt[params.fault], 1u);
#else
        atomicAdd(&loads[params.fault], 1u);
#endif
    }
}

// The unnormalised share of an expert, where `top` is the highest logit.
fn share(logit: f32, top: f32) -> f32 {
#ifdef OVERRIDE
    return select(exp((logit - top) / params.temperature), 0.0, logit == LOWEST);
#else
    return exp(logit - top);
#endif
}

#ifdef OVERRIDE
fn is_disabled(expert: u32) -> bool {
    return ((params.disabled[expert / 128u][expert / 32u % 4u] >> (expert % 32u)) & 1u) == 1u;
}

// What the router says, changed: the disabled experts lowest, the forced one as high as the highest.
fn change_logits(local: u32) {
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        if is_disabled(expert) {
            wg_scores[expert] = LOWEST;
        }
    }
    workgroupBarrier();
    var top = LOWEST;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        top = max(top, wg_scores[expert]);
    }
    workgroupBarrier();
    if local == 0u && params.forced < NUM_EXPERTS {
        wg_scores[params.forced] = top;
    }
    workgroupBarrier();
}
#endif

#ifdef SPARSE_MIXER
// The best expert that is left in wg_selection, and its weight: a softmax over the experts whose logit is within the threshold of the best.
fn mix_round(token: u32, rank: u32) {
    var best = 0u;
    var top = LOWEST;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        if wg_selection[expert] > top {
            top = wg_selection[expert];
            best = expert;
        }
    }
#ifdef OVERRIDE
    best = select(best, params.forced, rank == 0u && params.forced < NUM_EXPERTS);
#endif
    var total = 0.0;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        let logit = wg_selection[expert];
        if logit > LOWEST && top - logit <= 2.0 * JITTER * max(abs(logit), top) {
            total += share(logit, top);
        }
    }
    choose(token, rank, best);
    weights[token * TOP_K + rank] = SCALE / total;
    check_finite(SCALE / total);
    wg_selection[best] = LOWEST;
}
#endif

#ifdef GROUPS
const GROUP_LEN: u32 = NUM_EXPERTS / NUM_GROUPS;

var<workgroup> wg_groups: array<f32, NUM_GROUPS>;

// What a group is worth.
fn group_score(group: u32) -> f32 {
    var best = LOWEST;
    var second = LOWEST;
    for (var i = 0u; i < GROUP_LEN; i++) {
        let value = wg_selection[group * GROUP_LEN + i];
        second = max(second, min(best, value));
        best = max(best, value);
    }
#ifdef GROUP_SUM
    return select(best + second, best, second == LOWEST); // only one expert there
#else
    return best;
#endif
}

// The NUM_KEPT best groups go on; equal: lower group first.
fn is_kept(group: u32) -> bool {
    let score = wg_groups[group];
    var rank = 0u;
    for (var other = 0u; other < NUM_GROUPS; other++) {
        let rival = wg_groups[other];
        rank += u32(rival > score || (rival == score && other < group));
    }
    return rank < NUM_KEPT;
}
#endif

// Ranks the logits in wg_scores, and writes what the ledger says for the token.
fn choose_experts(token: u32, local: u32) {
    workgroupBarrier(); // the logits are there
#ifdef OVERRIDE
    change_logits(local);
#endif

#ifdef SPARSE_MIXER
    if local == 0u {
        for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
            wg_selection[expert] = wg_scores[expert];
            check_finite(wg_scores[expert]);
        }
        for (var rank = 0u; rank < TOP_K; rank++) {
            mix_round(token, rank);
        }
    }
#else
#ifdef SOFTMAX
    var top = wg_scores[0];
    for (var expert = 1u; expert < NUM_EXPERTS; expert++) {
        top = max(top, wg_scores[expert]);
    }
    var total = 0.0;
    for (var expert = 0u; expert < NUM_EXPERTS; expert++) {
        total += share(wg_scores[expert], top);
    }
    workgroupBarrier();
#endif
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        let logit = wg_scores[expert];
        check_finite(logit);
        var score = logit;
#ifdef SOFTMAX
        score = share(logit, top) / total;
#endif
#ifdef SIGMOID
#ifdef OVERRIDE
        score = 1.0 / (1.0 + exp(-logit / params.temperature));
#else
        score = 1.0 / (1.0 + exp(-logit));
#endif
#endif
        wg_scores[expert] = score;
#ifdef SELECTION_BIAS
        wg_selection[expert] = score + selection_bias[expert];
        check_finite(wg_selection[expert]);
#else
#ifdef GROUP_SUM
        wg_selection[expert] = score;
#else
        wg_selection[expert] = logit; // ranks as the score does, and keeps apart what a score would round together
#endif
#endif
#ifdef OVERRIDE
        if is_disabled(expert) {
            wg_selection[expert] = LOWEST;
        }
#endif
    }
    workgroupBarrier();

#ifdef GROUPS
    for (var group = local; group < NUM_GROUPS; group += WG) {
        wg_groups[group] = group_score(group);
    }
    workgroupBarrier();
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        if !is_kept(expert / GROUP_LEN) {
            wg_selection[expert] = LOWEST;
        }
    }
    workgroupBarrier();
#endif

#ifdef OVERRIDE
    if local == 0u && params.forced < NUM_EXPERTS {
        wg_selection[params.forced] = HIGHEST;
    }
    workgroupBarrier();
#endif

    // The rank of an expert is how many experts beat it: no sort, no order of execution to depend on.
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        let selection = wg_selection[expert];
        var rank = 0u;
        for (var other = 0u; other < NUM_EXPERTS; other++) {
            let rival = wg_selection[other];
            rank += u32(rival > selection || (rival == selection && other < expert));
        }
        if rank < TOP_K {
            wg_chosen[rank] = wg_scores[expert];
#ifdef EXPERT_SCALE
            wg_factors[rank] = expert_scale[expert];
#endif
            choose(token, rank, expert);
        }
    }
    workgroupBarrier();

#ifdef SOFTMAX_OF_TOPK
    let best = wg_chosen[0];
    var chosen_total = 0.0;
    for (var rank = 0u; rank < TOP_K; rank++) {
        chosen_total += share(wg_chosen[rank], best);
    }
    workgroupBarrier();
    for (var rank = local; rank < TOP_K; rank += WG) {
        wg_chosen[rank] = share(wg_chosen[rank], best) / chosen_total;
    }
    workgroupBarrier();
#endif
    var divisor = 1.0;
#ifdef NORMALIZE_SUM
    divisor = 0.0;
    for (var rank = 0u; rank < TOP_K; rank++) {
        divisor += wg_chosen[rank];
    }
    divisor = max(divisor, FLOOR);
#endif
#ifdef NORMALIZE_NORM
    divisor = 0.0;
    for (var rank = 0u; rank < TOP_K; rank++) {
        divisor += pow(wg_chosen[rank], P);
    }
    divisor = pow(divisor, 1.0 / P);
#endif
    for (var rank = local; rank < TOP_K; rank += WG) {
        var weight = SCALE * wg_chosen[rank] / divisor;
#ifdef EXPERT_SCALE
        weight *= wg_factors[rank];
#endif
        weights[token * TOP_K + rank] = weight;
        check_finite(weight);
    }
#endif
#ifdef PAGED
    look_up(local);
#endif
}
