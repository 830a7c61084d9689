// grad_gate: the gradient of the router logits: what the rule of the gating method makes of that of the routing weights, and what the losses of the
// router add.
// grid      x = WG tokens; an invocation is a token
// parts     [num_assignments, NUM_PARTS] f32   in   of grad_hidden: the gradient of a routing weight, in parts
// logits    [num_tokens, LOGIT_STRIDE] f32     in
// ids       [num_tokens, WIDTH] u32            in   of gate
// weights   [num_tokens, WIDTH] f32            in
// scores    [num_tokens, NUM_EXPERTS] f32      in
// stats     [NUM_EXPERTS + 1] vec4<f32>        in   of gate_stats
// live      [5] f32                            in   the last two: coefficients of the load balancing loss and of the router z-loss
// dlogits   [num_tokens, LOGIT_STRIDE] f32     out  columns from NUM_EXPERTS on are zero
// The load balancing loss is E / (k T^2) sum of counts times scores: its gradient is p (a - <p, a>) with a = coefficient E count / (k T^2).
// twin      src/reference/grad_gate.rs
#import gate_row
#import rule

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<u32>;
@group(0) @binding(4) var<storage, read> weights: array<f32>;
@group(0) @binding(5) var<storage, read> scores: array<f32>;
@group(0) @binding(6) var<storage, read> stats: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> live: array<f32>;
@group(0) @binding(8) var<storage, read_write> dlogits: array<f32>;

fn open_token(token: u32) {
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        l[i] = logits[token * LOGIT_STRIDE + i];
        p[i] = scores[token * NUM_EXPERTS + i];
    }
    for (var rank = 0u; rank < WIDTH; rank++) {
        let assignment = token * WIDTH + rank;
        put(rank, ids[assignment], weights[assignment]);
        var sum = 0.0;
        for (var part = 0u; part < NUM_PARTS; part++) {
            sum += parts[assignment * NUM_PARTS + part];
        }
        dw[rank] = select(sum, 0.0, ids[assignment] == NONE);
    }
}

fn add_losses() {
    let num_tokens = f32(params.num_tokens);
    var assignments = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        assignments += stats[i].x;
    }
    let per_count = live[3] * f32(NUM_EXPERTS) / (assignments * num_tokens);
    var mean = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        mean += p[i] * per_count * stats[i].x;
    }
    let lse = log_sum_exp();
    let per_lse = live[4] * 2.0 * lse / num_tokens;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dl[i] += p[i] * (per_count * stats[i].x - mean) + per_lse * exp(l[i] - lse);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = workgroup.x * WG + local;
    if token >= params.num_tokens {
        return;
    }
    open_token(token);
    differentiate();
    add_losses();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dlogits[token * LOGIT_STRIDE + i] = dl[i];
    }
    for (var i = NUM_EXPERTS; i < LOGIT_STRIDE; i++) {
        dlogits[token * LOGIT_STRIDE + i] = 0.0;
    }
}
