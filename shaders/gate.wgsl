// gate: experts and routing weights of every token, by the rule of a gating method, which is a part of the variant.
// grid      x = WG tokens; an invocation is a token
// logits    [num_tokens, LOGIT_STRIDE] f32   in
// ids       [num_tokens, WIDTH] u32          out  best first; all ones where there is none
// weights   [num_tokens, WIDTH] f32          out
// scores    [num_tokens, NUM_EXPERTS] f32    out  what the losses of the router take for probabilities
// twin      src/reference/gate.rs
#import gate_row
#import rule

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = workgroup.x * WG + local;
    if token >= params.num_tokens {
        return;
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        l[i] = logits[token * LOGIT_STRIDE + i];
    }
    choose();
    for (var rank = 0u; rank < WIDTH; rank++) {
        ids[token * WIDTH + rank] = chosen(rank);
        weights[token * WIDTH + rank] = weight_of(rank);
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        scores[token * NUM_EXPERTS + i] = p[i];
    }
}
