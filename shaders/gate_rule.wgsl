// gate_rule: experts and routing weights of every token, by the rule of a gating method, which is a part of the variant.
// grid      x = WG tokens; an invocation is a token
// router    [num_tokens, ROUTER_STRIDE] f32  in   the router's product; methods without a router read nothing of it
// noise     [num_tokens, noise_stride] f32   in
// state     f32                              in   what the method keeps: a bias, a table
// rows      [num_tokens, 2] u32              in   token id, kind of text
// ids       [num_tokens, WIDTH] u32          out  best first; all ones where there is none
// weights   [num_tokens, WIDTH] f32          out  before anything is dropped
// shares    [num_tokens, NUM_EXPERTS] f32    out  what losses take for the shares of experts
// log_sums  [num_tokens] f32                 out  log of the sum of the exponentials of the logits; 0 without a router
// twin      src/reference/gate_rule.rs
#import rule_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> router: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read> state: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<u32>;
@group(0) @binding(5) var<storage, read_write> ids: array<u32>;
@group(0) @binding(6) var<storage, read_write> weights: array<f32>;
@group(0) @binding(7) var<storage, read_write> shares: array<f32>;
@group(0) @binding(8) var<storage, read_write> log_sums: array<f32>;
#import rule_row
#import rule

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    token = workgroup.x * WG + local;
    if token >= params.num_tokens {
        return;
    }
    open_token();
    choose();
    for (var rank = 0u; rank < WIDTH; rank++) {
        ids[token * WIDTH + rank] = chosen(rank);
        weights[token * WIDTH + rank] = weight_of(rank);
    }
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        shares[token * NUM_EXPERTS + i] = p[i];
    }
    log_sums[token] = select(0.0, log_sum_exp(), HAS_ROUTER == 1u);
}
