// gate_stats: what the losses of a router need: of every expert its assignments and the sum of its scores, and of all tokens the sum of the squared
// log-sum-exp of their logits.
// grid      one workgroup per expert, and one more: workgroup_id.x
// logits    [num_tokens, LOGIT_STRIDE] f32   in
// ids       [num_tokens, WIDTH] u32          in
// scores    [num_tokens, NUM_EXPERTS] f32    in
// stats     [NUM_EXPERTS + 1] vec4<f32>      out  (assignments, sum of scores, 0, 0); the last one (0, 0, sum of squares, 0)
// The order of the sums depends on nothing but the number of tokens.
// twin      src/reference/gate_stats.rs

struct Params {
    num_tokens: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read> scores: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec4<f32>>;

var<workgroup> wg_sums: array<vec4<f32>, WG>;

fn log_sum_exp(token: u32) -> f32 {
    var most = -3.4e38;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        most = max(most, logits[token * LOGIT_STRIDE + i]);
    }
    var total = 0.0;
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        total += exp(logits[token * LOGIT_STRIDE + i] - most);
    }
    return most + log(total);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let expert = workgroup.x;
    var own = vec4<f32>();
    for (var token = local; token < params.num_tokens; token += WG) {
        if expert == NUM_EXPERTS {
            let lse = log_sum_exp(token);
            own.z += lse * lse;
        } else {
            for (var rank = 0u; rank < WIDTH; rank++) {
                own.x += select(0.0, 1.0, ids[token * WIDTH + rank] == expert);
            }
            own.y += scores[token * NUM_EXPERTS + expert];
        }
    }
    wg_sums[local] = own;
    workgroupBarrier();
    if local == 0u {
        var sum = vec4<f32>();
        for (var other = 0u; other < WG; other++) {
            sum += wg_sums[other];
        }
        stats[expert] = sum;
    }
}
