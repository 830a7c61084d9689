// matmul: y = SCALE * (x W^T) for rows of tokens; serves every projection that is not an expert's.
// grid      x = ROWS weight rows; y = tile of TOKENS tokens
// x         [num_tokens, ROW_QUADS] vec4<f32>        in   #ifdef PART_OF_X: [num_tokens, X_QUADS], from quad X_FIRST on
// weight    [num_rows, ROW_WORDS] words              in   one shard of whole rows
// y         [num_tokens, Y_STRIDE] f32               out  columns first_row .. first_row + num_rows
//                                                         #ifdef RESIDUAL: added to what y holds
//                                                         #ifdef SIGMOID: the sigmoid of it; TANH: its tanh;
//                                                         #ifdef CAPPED: CAP * tanh(it / CAP)
//                                                         #ifdef GATE: y is multiplied by the sigmoid of it
//                                                         #ifdef DECAY: exp(decay * softplus(it))
// bias      [all rows] f32                           in   #ifdef BIAS: added before SCALE
// norm      [ROW_QUADS] vec4<f32>                    in   #ifdef NORM: weight of the RMSNorm that x goes through first; one token
// decay     [all rows / DECAY_ROWS] f32              in   #ifdef DECAY
// twin      src/reference/matmul.rs
#import matmul
#ifdef DECAY
#import softplus
#endif

struct Params {
    num_tokens: u32,
    num_rows: u32,
    first_row: u32, // column of y that this shard's first row writes
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#ifdef BIAS
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#endif
#ifdef NORM
@group(0) @binding(5) var<storage, read> norm: array<vec4<f32>>;

fn norm_weight(quad: u32) -> vec4<f32> {
    return norm[quad];
}
#endif

#ifdef DECAY
@group(0) @binding(6) var<storage, read> decay: array<f32>;
#endif

var<private> first_token: u32;
var<private> first_row: u32; // of the workgroup, in this shard

fn weight_word(word: u32) -> vec4<u32> {
    return weight[word];
}

fn weight_u32(word: u32, part: u32) -> u32 {
    return weight[word][part];
}

fn row_word(row: u32) -> u32 {
    return (first_row + row) * ROW_WORDS;
}

fn token_quad(token: u32) -> u32 {
#ifdef PART_OF_X
    return (first_token + token) * X_QUADS + X_FIRST;
#else
    return (first_token + token) * ROW_QUADS;
#endif
}

fn activation(quad: u32) -> vec4<f32> {
    return x[quad];
}

fn store(token: u32, rows: u32, sums: vec4<f32>) {
    if first_token + token >= params.num_tokens {
        return;
    }
    let base = (first_token + token) * Y_STRIDE + params.first_row + rows;
    for (var i = 0u; i < 4u && rows + i < params.num_rows; i++) {
        var value = sums[i];
#ifdef BIAS
        value += bias[params.first_row + rows + i];
#endif
        value *= SCALE;
#ifdef SIGMOID
        value = 1.0 / (1.0 + exp(-value));
#endif
#ifdef TANH
        value = tanh(clamp(value, -15.0, 15.0)); // a large argument may overflow on the way
#endif
#ifdef CAPPED
        value = CAP * tanh(clamp(value / CAP, -15.0, 15.0));
#endif
#ifdef DECAY
        value = exp(decay[(params.first_row + rows + i) / DECAY_ROWS] * softplus(value));
#endif
#ifdef RESIDUAL
        y[base + i] += value;
#else
#ifdef GATE
        y[base + i] *= 1.0 / (1.0 + exp(-value));
#else
        y[base + i] = value;
#endif
#endif
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    first_token = workgroup.y * TOKENS;
    first_row = workgroup.x * ROWS;
    let count = min(ROWS, params.num_rows - workgroup.x * ROWS);
    matmul_batch(local, first_row, count, min(TOKENS, params.num_tokens - first_token));
}
