// embed: SCALE times the embedding row of each token.
// grid      x = chunks of 8 columns, WG per workgroup; y = token
// rows      [num_tokens] Row                      in
// table     [num_rows, K_CHUNKS] words            in   one shard of the vocabulary: ids first_row .. first_row + num_rows
// x         [num_tokens, ROW_QUADS] vec4<f32>     out  tokens of other shards are left alone
// twin      src/reference/embed.rs
#import rows
#import weights

struct Params {
    first_row: u32,
    num_rows: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> rows: array<Row>;
@group(0) @binding(2) var<storage, read> table: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

fn weight_word(word: u32) -> vec4<u32> {
    return table[word];
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = workgroup.x * WG + local;
    let row = rows[workgroup.y].token - params.first_row; // wraps for ids below the shard, and fails the test that follows
    if chunk >= K_CHUNKS || row >= params.num_rows {
        return;
    }
    let weights = weight_chunk((row * K_CHUNKS + chunk) * CHUNK_WORDS);
    let quad = (workgroup.y * K_CHUNKS + chunk) * 2u;
    x[quad] = weights.lo * SCALE;
    x[quad + 1u] = weights.hi * SCALE;
}
