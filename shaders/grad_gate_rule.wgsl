// grad_gate_rule: the gradient of the router's product: what the rule of the gating method makes of that of the routing weights, and of the losses.
// grid      x = WG tokens; an invocation is a token
// router    [num_tokens, ROUTER_STRIDE] f32    in   as gate_rule read it, and so are noise, state and rows
// noise     [num_tokens, noise_stride] f32     in
// state     f32                                in
// rows      [num_tokens, 2] u32                in
// kept      [num_tokens, WIDTH] u32            in   expert ids after dropping
// parts     [num_assignments, NUM_PARTS] f32   in   of grad_hidden: the gradient of a routing weight, in parts
// slopes    f32                                in   how losses reach a token: factors of the squared log-sum and of the entropy, rows of shares, 0;
//                                                   [NUM_EXPERTS] of weights; [rows, NUM_EXPERTS] of shares, a row for each sequence or one
// drouter   [num_tokens, ROUTER_STRIDE] f32    out  columns from ROUTER_ROWS on are zero
// The rule chooses again: it reads the same numbers, so it chooses the same.
// twin      src/reference/grad_gate_rule.rs
#import rule_params

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> router: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read> state: array<f32>;
@group(0) @binding(4) var<storage, read> rows: array<u32>;
@group(0) @binding(5) var<storage, read> kept: array<u32>;
@group(0) @binding(6) var<storage, read> parts: array<f32>;
@group(0) @binding(7) var<storage, read> slopes: array<f32>;
@group(0) @binding(8) var<storage, read_write> drouter: array<f32>;
#import rule_row
#import rule

// The gradient of the weights, from what the experts give and from losses: zero where an assignment was dropped.
fn open_weights() {
    for (var rank = 0u; rank < WIDTH; rank++) {
        let assignment = token * WIDTH + rank;
        if kept[assignment] == NONE {
            dw[rank] = 0.0;
            continue;
        }
        var sum = slopes[4u + chosen(rank)];
        for (var part = 0u; part < NUM_PARTS; part++) {
            sum += parts[assignment * NUM_PARTS + part];
        }
        dw[rank] = sum;
    }
#ifdef RENORMALIZE_KEPT
    // The weights that were kept have been divided by their sum.
    var total = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        total += select(weight_of(rank), 0.0, kept[token * WIDTH + rank] == NONE);
    }
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
    let is_sum = total >= LEAST_SUM;
    let divisor = max(total, LEAST_SUM);
    for (var rank = 0u; rank < WIDTH; rank++) {
        let centre = select(0.0, mean / divisor, is_sum);
        dw[rank] = select((dw[rank] - centre) / divisor, 0.0, kept[token * WIDTH + rank] == NONE);
    }
#endif
}

fn add_losses() {
    let row = select(0u, token / params.seq_len, slopes[2] > 1.0);
    let lse = log_sum_exp();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        dp[i] = slopes[4u + NUM_EXPERTS * (1u + row) + i];
        if slopes[1] != 0.0 && p[i] > 0.0 {
            dp[i] -= slopes[1] * (log(p[i]) + 1.0);
        }
        dl[i] = slopes[0] * 2.0 * lse * exp(l[i] - lse);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    token = workgroup.x * WG + local;
    if token >= params.num_tokens {
        return;
    }
    open_token();
    choose();
    open_weights();
    add_losses();
    differentiate();
    close_token();
    for (var i = 0u; i < ROUTER_STRIDE; i++) {
        drouter[token * ROUTER_STRIDE + i] = 0.0;
    }
    for (var i = 0u; i < ROUTER_ROWS; i++) {
        drouter[token * ROUTER_STRIDE + i] = select(0.0, dz[i], HAS_ROUTER == 1u);
    }
}
