// expert_capacity: which assignments are dropped, because earlier ones of the same call have all the places of their expert.
// grid      x = tokens, WG per workgroup
// ids       [num_tokens, TOP_K] u32  in       expert of each assignment, best first
// weights   [num_tokens, TOP_K] f32  in, out  0 where an assignment is dropped
// kept      [num_tokens, TOP_K] u32  out      ids; u32::MAX where an assignment is dropped
// loads     [..] u32                 in, out  from params.load_offset on, one per expert: decremented once per dropped assignment
// All first choices queue before all second choices, each in the order of their tokens. An invocation counts who comes before its own assignments:
// nothing depends on the order in which workgroups run.
// #ifdef RENORMALIZE: the weights that a token keeps are divided by their sum, at least FLOOR.
// source    SwitchTransformersTop1Router and NllbMoeTop2Router of transformers 4.57
// twin      src/reference/expert_capacity.rs

struct Params {
    num_tokens: u32,
    capacity: u32,
    load_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> kept: array<u32>;
@group(0) @binding(4) var<storage, read_write> loads: array<atomic<u32>>;

const DROPPED: u32 = 0xffffffffu;

// Assignments to `expert` that queue before choice `rank` of `token`.
fn count_earlier(expert: u32, token: u32, rank: u32) -> u32 {
    var earlier = 0u;
    // Of the choices before this one, those of all tokens.
    for (var other = 0u; other < params.num_tokens; other++) {
        for (var choice = 0u; choice < rank; choice++) {
            earlier += u32(ids[other * TOP_K + choice] == expert);
        }
    }
    // Of this choice, those of the tokens before.
    for (var other = 0u; other < token; other++) {
        earlier += u32(ids[other * TOP_K + rank] == expert);
    }
    return earlier;
}

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let token = id.x;
    if token >= params.num_tokens {
        return;
    }
    var sum = 0.0; // of the weights that the token keeps
    for (var rank = 0u; rank < TOP_K; rank++) {
        let assignment = token * TOP_K + rank;
        let expert = ids[assignment];
        if count_earlier(expert, token, rank) < params.capacity {
            kept[assignment] = expert;
            sum += weights[assignment];
        } else {
            kept[assignment] = DROPPED;
            weights[assignment] = 0.0;
            atomicSub(&loads[params.load_offset + expert], 1u);
        }
    }
#ifdef RENORMALIZE
    for (var rank = 0u; rank < TOP_K; rank++) {
        weights[token * TOP_K + rank] /= max(sum, FLOOR);
    }
#endif
}
