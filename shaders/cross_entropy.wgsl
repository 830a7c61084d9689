// cross_entropy: of each row of logits the loss of its target, and in place of the logits their gradient: FACTOR (softmax - one hot).
// grid      one workgroup per token: workgroup_id.x = token
// logits    [num_tokens, ROW_QUADS] vec4<f32>  in, out  columns from VOCAB on become zero; #ifdef LOSS_ONLY: in
// targets   [num_tokens] u32                   in       all ones: nothing is learnt from this row
// losses    [num_tokens] f32                   out      -ln softmax[target], or zero
// twin      src/reference/cross_entropy.rs

#ifdef LOSS_ONLY
@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
#else
@group(0) @binding(0) var<storage, read_write> logits: array<vec4<f32>>;
#endif
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> losses: array<f32>;

const LOWEST: f32 = -3.4e38;
const NO_TARGET: u32 = 0xffffffffu;

var<workgroup> wg_values: array<f32, WG>;

fn columns_of(quad: u32) -> vec4<u32> {
    return vec4<u32>(quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
}

fn is_column(quad: u32) -> vec4<bool> {
    return columns_of(quad) < vec4<u32>(VOCAB);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let base = workgroup.x * ROW_QUADS;
    var highest = vec4<f32>(LOWEST);
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        highest = max(highest, select(vec4<f32>(LOWEST), logits[base + quad], is_column(quad)));
    }
    wg_values[local] = max(max(highest.x, highest.y), max(highest.z, highest.w));
    workgroupBarrier();
    var most = LOWEST;
    for (var other = 0u; other < WG; other++) {
        most = max(most, wg_values[other]);
    }
    workgroupBarrier();
    var sums = vec4<f32>();
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        sums += select(vec4<f32>(), exp(logits[base + quad] - most), is_column(quad));
    }
    wg_values[local] = dot(sums, vec4<f32>(1.0));
    workgroupBarrier();
    var total = 0.0;
    for (var other = 0u; other < WG; other++) {
        total += wg_values[other];
    }
    let wanted = targets[workgroup.x];
    let counts = wanted != NO_TARGET;
    if local == 0u {
        let quad = select(0u, wanted, counts) / 4u;
        losses[workgroup.x] = select(0.0, most + log(total) - logits[base + quad][wanted % 4u], counts);
    }
#ifdef LOSS_ONLY
#else
    workgroupBarrier(); // the loss is read
    let factor = select(0.0, FACTOR, counts);
    for (var quad = local; quad < ROW_QUADS; quad += WG) {
        let hit = select(vec4<f32>(), vec4<f32>(1.0), columns_of(quad) == vec4<u32>(wanted));
        let gradient = factor * (exp(logits[base + quad] - most) / total - hit);
        logits[base + quad] = select(vec4<f32>(), gradient, is_column(quad));
    }
#endif
}
