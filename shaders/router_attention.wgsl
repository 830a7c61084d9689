// router_attention: logits of the experts from a query, a key and a value of each: logits[i] = sum over j of softmax_j(q[i] k[j]) v[j].
// grid      one workgroup per token: workgroup_id.x = token
// qkv       [num_tokens, STRIDE] f32       in   NUM_EXPERTS queries, then keys, then values
// logits    [num_tokens, NUM_EXPERTS] f32  out
// source    Wu et al. 2024, arXiv 2405.17976, section 3.2
// twin      src/reference/router_attention.rs

@group(0) @binding(0) var<storage, read> qkv: array<f32>;
@group(0) @binding(1) var<storage, read_write> logits: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let source = workgroup.x * STRIDE;
    for (var expert = local; expert < NUM_EXPERTS; expert += WG) {
        let query = qkv[source + expert];
        var top = query * qkv[source + NUM_EXPERTS];
        for (var other = 1u; other < NUM_EXPERTS; other++) {
            top = max(top, query * qkv[source + NUM_EXPERTS + other]);
        }
        var total = 0.0;
        var sum = 0.0;
        for (var other = 0u; other < NUM_EXPERTS; other++) {
            let share = exp(query * qkv[source + NUM_EXPERTS + other] - top);
            total += share;
            sum += share * qkv[source + 2u * NUM_EXPERTS + other];
        }
        logits[workgroup.x * NUM_EXPERTS + expert] = sum / total;
    }
}
