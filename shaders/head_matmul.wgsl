// head_matmul: y[token, head] = W[head] x[token, head], a matrix of its own for each head.
// grid      x = ROWS weight rows; y = tile of TOKENS tokens; z = head of the shard
// x         [num_tokens, X_STRIDE quads] vec4<f32>     in   a head begins every X_HEAD quads
// weight    [num_heads, NUM_ROWS, ROW_WORDS] words     in   one shard of whole heads, from first_head on
// y         [num_tokens, Y_STRIDE] f32                 out  a head begins every Y_HEAD values
// What x holds beyond a head's columns meets weights that are zero; #ifdef RAGGED: they may be anything, and x is cut at COLUMNS.
// twin      src/reference/head_matmul.rs
#import matmul

struct Params {
    num_tokens: u32,
    first_head: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

var<private> first_token: u32;
var<private> head: u32;
var<private> first_word: u32; // of the workgroup's rows

fn weight_word(word: u32) -> vec4<u32> {
    return weight[word];
}

fn weight_u32(word: u32, part: u32) -> u32 {
    return weight[word][part];
}

fn row_word(row: u32) -> u32 {
    return first_word + row * ROW_WORDS;
}

fn token_quad(token: u32) -> u32 {
    return (first_token + token) * X_STRIDE + head * X_HEAD;
}

fn activation(quad: u32) -> vec4<f32> {
#ifdef RAGGED
    let column = (quad - head * X_HEAD) % X_STRIDE * 4u;
    return select(vec4<f32>(), x[quad], vec4<u32>(column) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(COLUMNS));
#else
    return x[quad];
#endif
}

fn store(token: u32, rows: u32, sums: vec4<f32>) {
    if first_token + token >= params.num_tokens {
        return;
    }
    let base = (first_token + token) * Y_STRIDE + head * Y_HEAD + rows;
    for (var i = 0u; i < 4u && rows + i < NUM_ROWS; i++) {
        y[base + i] = sums[i];
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    first_token = workgroup.y * TOKENS;
    head = params.first_head + workgroup.z;
    let first_row = workgroup.x * ROWS;
    let count = min(ROWS, NUM_ROWS - first_row);
    first_word = (workgroup.z * NUM_ROWS + first_row) * ROW_WORDS;
    matmul_batch(local, first_row, count, min(TOKENS, params.num_tokens - first_token));
}
