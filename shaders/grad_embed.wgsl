// grad_embed: adds to the gradient of the embedding, for each token that occurs, the sum of its rows in their order.
// grid      x = quads of a row, WG per workgroup; y = span
// spans     [num_tokens] vec4<u32>             in       (token, first index into order, count, 0); unused spans have count 0
// order     [num_tokens] u32                   in       rows of dx, those of one token together
// dx        [num_tokens, ROW_QUADS] vec4<f32>  in
// dtable    [vocab, ROW_QUADS] vec4<f32>       in, out  rows of other tokens are left alone
// twin      src/reference/grad_embed.rs

@group(0) @binding(0) var<storage, read> spans: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read> dx: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dtable: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let span = spans[workgroup.y];
    let quad = workgroup.x * WG + local;
    if span.z == 0u || quad >= ROW_QUADS {
        return;
    }
    var sum = vec4<f32>();
    for (var i = span.y; i < span.y + span.z; i++) {
        sum += dx[order[i] * ROW_QUADS + quad];
    }
    dtable[span.x * ROW_QUADS + quad] += SCALE * sum;
}
